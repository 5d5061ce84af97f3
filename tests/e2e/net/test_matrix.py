"""Any one channel is enough: with each alone a message is delivered, with none it waits."""

from collections.abc import Iterator

import pytest

from tests.e2e.fleet import Machine, until
from tests.e2e.net import matrix
from tests.e2e.net.matrix import NAMES
from tests.e2e.net.stage import Net, require
from tests.promise import proves

pytestmark = [pytest.mark.e2e, pytest.mark.timeout(400)]

# Silence ends a link after half a minute, and it is dialled again within another.
BACK_S = 120.0


@pytest.fixture
def net() -> Iterator[Net]:
    require()
    with Net(*NAMES) as net:
        yield net


def send(sender: Machine, to: Machine, text: str, *, wait: bool) -> str:
    """What its sender knows of a message when it is answered: `stored` is the receiver's proof."""
    with sender.client(timeout_s=BACK_S) as client:
        args = {"text": [text], "to": to.name, "wait": wait}
        return str(client.order("send", to.name, args)["state"])


def became(sender: Machine, text: str) -> str:
    """What its sender knows of a message now."""
    (found,) = [m for m in sender.ask("sent") if m["text"] == text]
    return str(found["to"][0]["state"])


@proves("net.any-one-channel")
@pytest.mark.parametrize("channel", matrix.CARRYING)
def test_with_one_channel_left_a_message_is_delivered_and_with_none_it_waits(
    net: Net, channel: str
):
    with matrix.only(channel, net) as alone:
        one, other = alone.one, alone.other
        assert send(one, other, f"by {channel}", wait=True) == "stored"
        assert send(other, one, f"back by {channel}", wait=True) == "stored"
        assert matrix.carries(channel, one, other.name)
        alone.cut()
        assert send(one, other, "by none", wait=False) == "waiting"
        assert [m["text"] for m in other.ask("inbox")] == [f"by {channel}"]
        assert became(one, "by none") == "waiting"
        alone.heal()
        until(lambda: became(one, "by none") == "stored", "what waited arrived", within_s=BACK_S)
        assert [m["text"] for m in other.ask("inbox")] == [f"by {channel}", "by none"]
        until(lambda: matrix.carries(channel, one, other.name), f"by {channel}", within_s=BACK_S)


@proves("net.any-one-channel")
def test_a_channel_that_nobody_arranged_is_named():
    with pytest.raises(AssertionError, match="the channel pigeon has no arrangement"):  # noqa: SIM117
        with matrix.only("pigeon", Net()):
            pass
    assert set(matrix.ARRANGEMENTS) == set(matrix.CARRYING)
