"""What somebody wrote at a NATS server about a lease is read as what it is, and never believed."""

import asyncio
import itertools
from types import SimpleNamespace
from typing import Any

import pytest
from tests.channel.nats_server import NatsServer
from tests.channel.rigs import run
from tests.promise import proves

pytest.importorskip("nats", reason="pip install 'muster-fleet[nats]'")
from tests.channel.test_nats_lease import HUB, leases

from muster.channel.nats_lease import Leased, NatsLeases
from muster.errors import Unreachable
from muster.limits import ELECTION_HELD_MS, ELECTION_RENEW_MS, ELECTION_TTL_MS
from muster.node.counter import Counts
from muster.node.engine.elector import _said, _Seeking, _seen
from muster.node.host import clock
from muster.node.tasks.elections import Campaign
from muster.task.election import Seen, Write


@proves("adopt.elected")
@pytest.mark.parametrize(
    "said",
    [
        b"", b"{", b"[]", b"[" * 1000, b"3", b'{"place":"3"}', b'{"place":true}', b'{"place":-1}',
        b'{"place":1e9}', b'{"place":%d}' % 2**53, b"\xff", b'{"place":7}' + b" " * 2000,
        b'{"place":' + b"9" * 1000 + b"}",
    ],
)  # fmt: skip
def test_what_is_no_word_of_ours_says_no_place(said):
    assert _seen(Leased(3, "x", said)) == Seen(3, "x", 0)


@proves("adopt.elected")
def test_a_place_is_read_as_it_was_written():
    assert _seen(Leased(3, "x", _said(Write(2, 1_790_000_000_000)))).place == 1_790_000_000_000


NAMED = ("1" * 64, "2" * 64)
PLACE = 1_790_000_000_000
# What only a server says: that there is nothing, who wrote, and when.
SPOOFED = (
    {"Status": "404"},
    {"Status": "204", "Description": "EOB"},
    {"Nats-Subject": f"muster.lease.{HUB}.{NAMED[0]}", "Nats-Sequence": "1000000"},
    {"nats-sequence": "x", "Nats-Sequence": "x"},
)


def seeking(me: str, place: int) -> _Seeking:
    daemon: Any = SimpleNamespace(core=SimpleNamespace(machine=me))
    return _Seeking(Campaign(HUB, NAMED, place), daemon, lambda: None)


@proves("adopt.unnamed-moves-nothing")
def test_at_a_server_one_who_was_not_named_writes_as_it_likes_and_one_after_another_is_elected(
    tmp_path, monkeypatch,
):  # fmt: skip
    now = [1_000_000]
    monkeypatch.setattr(clock, "boot_ms", lambda: now[0])
    one, two = seeking(NAMED[0], PLACE), seeking(NAMED[1], PLACE - 500)

    async def write(stranger: NatsLeases, headers: dict[str, str]) -> None:
        async with stranger._reached() as client:
            said = b'{"place":%d}' % (PLACE + 9_000)
            await client.request(f"muster.lease.{HUB}.{'9' * 64}", said, headers=headers)

    async def scenario() -> None:
        async with leases([server], "1", "2", "9") as (a, b, x):
            await one._ask(a)
            assert one._candidate.held_until_ms(now[0])
            for headers in SPOOFED:
                await write(x, headers)
                await two._ask(b)
                now[0] += ELECTION_RENEW_MS
                await one._ask(a)
                assert one._candidate.held_until_ms(now[0]) == now[0] + ELECTION_HELD_MS

            async def floods() -> None:
                for headers in itertools.cycle(SPOOFED):
                    await write(x, headers)
                    await asyncio.sleep(0.02)

            async with asyncio.TaskGroup() as flood:
                flooding = flood.create_task(floods())
                for _ in range(5):
                    now[0] += ELECTION_RENEW_MS
                    await one._ask(a)
                    assert one._candidate.held_until_ms(now[0]) == now[0] + ELECTION_HELD_MS
                # It is gone. The other one heard nothing of it but what lies there.
                await two._ask(b)
                now[0] += ELECTION_TTL_MS - 1
                await two._ask(b)
                assert two._candidate.held_until_ms(now[0]) == 0
                now[0] += 1
                await two._ask(b)
                assert two._candidate.held_until_ms(now[0]) == now[0] + ELECTION_HELD_MS
                assert two._candidate.held_place == PLACE + 1
                await one._look(a)
                assert one._candidate.held_until_ms(now[0]) == 0
                flooding.cancel()

    with NatsServer(tmp_path) as server:
        run(scenario())


@proves("adopt.unnamed-moves-nothing")
def test_whoever_is_always_first_is_left_for_a_while(tmp_path):
    one = seeking(NAMED[0], PLACE)

    async def scenario() -> None:
        async with leases([server], "1", "9") as (a, x):
            write, tried = a.write, []

            async def late(of: str, said: bytes, above: int) -> int | None:
                tried.append(above)
                async with x._reached() as client:
                    await client.request(f"muster.lease.{of}.{'9' * 64}", b"")
                return await write(of, said, above)

            a.write = late
            assert await one._ask(a) < ELECTION_RENEW_MS / 1000
            assert tried == [*range(16)]

    with NatsServer(tmp_path) as server:
        run(scenario())


@proves("adopt.elected-says-why-not")
def test_a_server_that_cannot_be_asked_is_counted_each_time_and_said_once(capsys):
    counters = Counts()
    core = SimpleNamespace(machine=NAMED[0], counters=counters)
    daemon: Any = SimpleNamespace(core=core, post=lambda _: None)

    class Away:
        tries = 0

        async def last_of(self, *_: Any) -> Any:
            raise Unreachable("the NATS server at here is older than 2.11")

        async def elsewhere(self) -> None:
            self.tries += 1
            if self.tries == 3:
                one.end()
            one._sooner.set()

        async def keep(self) -> None: ...

        async def close(self) -> None: ...

    one = _Seeking(Campaign(HUB, NAMED, PLACE), daemon, Away)  # type: ignore[arg-type]
    asyncio.run(one.keep())
    assert counters["election-unreachable"] == 3
    assert capsys.readouterr().err.count("older than 2.11") == 1
