"""The server of a machine while what lies at it is made and moved: whom it lets in is told anew."""

import asyncio
import contextlib
import signal
from collections import Counter
from collections.abc import AsyncIterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from tests.channel.rigs import run
from tests.promise import proves

pytest.importorskip("nats", reason="pip install 'muster-fleet[nats]'")

from muster.errors import Broken
from muster.node.engine import program, server
from muster.node.engine.server import Engine, State
from muster.node.host.config import NatsServe


def engine(tmp_path: Path) -> Any:
    """One that is told of a machine more each time that it looks."""
    made: Any = Engine.__new__(Engine)
    made._folder, made._log = tmp_path, tmp_path / "log"
    made._serve = NatsServe(serve="127.0.0.1:4222")
    made._core = SimpleNamespace(
        counters=Counter(), machine="", membership=SimpleNamespace(name_of=str),
        now=SimpleNamespace(boot_ms=0), roster=SimpleNamespace(machines={}, machine=lambda _: SimpleNamespace(machine="")),
    )  # fmt: skip
    looks = iter(range(1_000))
    made._seen = None
    made._waits_for = lambda: ""
    made._write = lambda: SimpleNamespace(cluster=(), places={})
    made._to_see = lambda: next(looks)
    made._reached_at = lambda *_: None
    return made


@proves("node.nats-cluster-told")
def test_who_is_let_in_is_told_anew_while_mailboxes_are_being_moved(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(server, "_ROSTER_S", 0.01)
    monkeypatch.setattr(program, "find", lambda *_: "nats-server")
    monkeypatch.setattr(program, "check_version", lambda _: "2")
    told: list[int] = []
    held: list[str] = []

    class Child:
        pid, returncode = 1, None

        def send_signal(self, number: int) -> None:
            told.append(number)
            self.returncode = 0 if len(told) == 3 else None

        async def wait(self) -> None:
            await asyncio.Event().wait()

    @contextlib.asynccontextmanager
    async def running(*_: Any) -> AsyncIterator[tuple[Child, int]]:
        yield Child(), 4222

    async def look_after(_: State) -> None:
        held.append("begun")
        try:
            await asyncio.Event().wait()
        finally:
            held.append("ended")

    monkeypatch.setattr(server, "running", running)
    monkeypatch.setattr(server, "last_words", lambda _: "")
    mine = engine(tmp_path)
    mine._look_after = look_after

    async def scenario() -> None:
        with pytest.raises(Broken, match="nats-server ended"):
            async with asyncio.timeout(20):
                await mine._run(State())

    run(scenario())
    assert told == [signal.SIGHUP] * 3
    assert held == ["begun", "ended"]


@proves("node.nats-cluster-moves")
def test_a_server_that_kept_nothing_alone_has_nothing_to_move_again_soon(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    mine = engine(tmp_path)
    mine._moves_ms = 0
    mine.state = State()
    mine._core.now.wall_ms = 0
    monkeypatch.setattr(server, "tell", lambda *_: None)

    async def scenario() -> None:
        for _ in range(2):
            await mine._move(None, None)

    run(scenario())
    assert mine._moves_ms == 0
