"""The listeners of a sandbox arrive at the daemon whole, or it knows that they did not."""

import asyncio
import json
import socket

import pytest
from tests.promise import proves

from muster.agent.sandbox.handover import Handover


def taken(send):
    """What the daemon is given, each time; `send` is what the shim's end does."""
    heard = []

    async def go():
        handover = Handover(heard.append)
        with socket.socket(fileno=socket.dup(handover.theirs)) as theirs:
            handover.passed()
            send(theirs)
        for _ in range(5):
            await asyncio.sleep(0)
        handover.close()

    asyncio.run(go())
    return heard


@proves("enclosure.listeners")
def test_listeners_arrive_once_by_their_ports():
    with socket.create_server(("127.0.0.1", 0)) as made:
        (given,) = taken(lambda end: socket.send_fds(end, [b"[3128]"], [made.fileno()]))
        assert list(given) == [3128]
        assert given[3128].getsockname() == made.getsockname()
        given[3128].close()


@proves("enclosure.served-whole")
@pytest.mark.parametrize("said", [[3128, 3129], [3128, 3129, 3130]])
def test_of_listeners_that_did_not_all_arrive_there_is_none(said):
    with socket.create_server(("127.0.0.1", 0)) as made:
        found = taken(
            lambda end: socket.send_fds(end, [json.dumps(said).encode()], [made.fileno()])
        )
    assert found == [{}]


@proves("enclosure.listeners")
def test_a_shim_that_ends_before_it_made_any_hands_over_nothing():
    assert taken(lambda end: end.close()) == []
