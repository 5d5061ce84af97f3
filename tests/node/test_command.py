"""A command for a person elsewhere, as far as nothing has to begin."""

import asyncio
import os
import signal
from types import SimpleNamespace
from typing import Any

import pytest
from tests.promise import proves

from muster.channel import strand
from muster.errors import Conflict, Malformed
from muster.node.attempts import command
from muster.node.attempts.command import Session


class Full:
    """A stream for which its link has no place."""

    def reserve(self) -> None:
        raise Conflict("as many as one may have")

    accept = reserve


@proves("remote.exec-is-the-command")
def test_what_is_refused_for_want_of_a_place_has_not_begun(tmp_path):
    """Whoever is refused asks again: it would run as often."""
    posted: list[Any] = []
    core = SimpleNamespace(roster=SimpleNamespace(speaker=lambda _: "alice"))
    daemon: Any = SimpleNamespace(core=core, post=posted.append, home=SimpleNamespace(path="/x"))
    call: Any = SimpleNamespace(operator="", cites=(), args={})
    stream: Any = Full()
    made = tmp_path / "made"
    with pytest.raises(Conflict):
        asyncio.run(Session(daemon, call, stream).run(["touch", str(made)], os.environ))
    assert posted == []
    assert not made.exists()


class Slow:
    """A stream whose reader takes a piece now and then, and reads on after the command ended."""

    def __init__(self) -> None:
        self.said, self.closed = bytearray(), asyncio.Event()

    def reserve(self) -> None:
        pass

    accept = reserve

    async def send(self, data: bytes) -> None:
        await asyncio.sleep(0.05)
        self.said += data

    async def receive(self) -> bytes:
        await self.closed.wait()
        return b""

    async def gone(self) -> None:
        await self.closed.wait()


@proves("remote.exec-is-the-command")
def test_whoever_reads_slowly_gets_all_of_it_and_the_end(monkeypatch):
    monkeypatch.setattr(command, "LAST_WORDS_S", 0.02)
    posted: list[Any] = []
    core = SimpleNamespace(roster=SimpleNamespace(speaker=lambda _: "alice"))
    daemon: Any = SimpleNamespace(core=core, post=posted.append, home=SimpleNamespace(path="/x"))
    call: Any = SimpleNamespace(operator="", cites=(), args={})

    async def asked() -> bytes:
        stream: Any = Slow()
        words = ["sh", "-c", "head -c 200000 /dev/zero; exit 7"]
        running = asyncio.ensure_future(Session(daemon, call, stream).run(words, os.environ))
        async with asyncio.timeout(60):
            while b'{"code": 7}' not in stream.said:
                assert not running.done(), "it is not over before whoever asked has all of it"
                await asyncio.sleep(0.01)
            stream.closed.set()
            await running
        return bytes(stream.said)

    pieces = strand.Splitter().feed(asyncio.run(asked()))
    assert sum(len(piece) for name, piece in pieces if name == strand.OUTPUT) == 200_000
    assert posted[-1].body.code == 7


class Typing(Slow):
    """One whose asker types more than the command reads, and then says something else."""

    def __init__(self, then: bytes) -> None:
        super().__init__()
        self.left = [then, *[strand.pack(strand.INPUT, b"x" * 60_000)] * 8]
        self.ready, self.over = asyncio.Event(), asyncio.Event()

    async def ends(self) -> None:
        await self.over.wait()

    async def send(self, data: bytes) -> None:
        self.said += data
        for event, word in ((self.ready, b"ready"), (self.over, b'{"code":')):
            if word in self.said:
                event.set()

    async def receive(self) -> bytes:
        await self.ready.wait()
        return self.left.pop() if self.left else await super().receive()


async def typed(then: bytes) -> tuple[bytes, Any]:
    """What a command that reads nothing says when this comes behind what was typed for it."""
    posted: list[Any] = []
    core = SimpleNamespace(roster=SimpleNamespace(speaker=lambda _: "alice"))
    daemon: Any = SimpleNamespace(core=core, post=posted.append, home=SimpleNamespace(path="/x"))
    call: Any = SimpleNamespace(operator="", cites=(), args={})
    stream: Any = Typing(then)
    words = ["sh", "-c", "trap 'exit 9' INT; echo ready; while :; do sleep 0.05; done"]
    running = asyncio.ensure_future(Session(daemon, call, stream).run(words, os.environ))
    async with asyncio.timeout(60):
        await asyncio.wait([running, ending := asyncio.ensure_future(stream.ends())],
                           return_when=asyncio.FIRST_COMPLETED)  # fmt: skip
        ending.cancel()
        stream.closed.set()
        await running
    return bytes(stream.said), posted[-1].body


@proves("remote.exec-ends-with-us")
def test_a_signal_overtakes_what_the_command_has_not_read():
    said, end = asyncio.run(typed(strand.pack(strand.SIGNAL, bytes([signal.SIGINT]))))
    assert end.code == 9
    assert b"ready" in said


@proves("remote.exec-ends-with-us")
def test_whoever_types_more_than_was_granted_ends_it():
    with pytest.raises(Malformed, match="granted"):
        asyncio.run(typed(strand.pack(strand.INPUT, b"x" * 60_000) * 5))
