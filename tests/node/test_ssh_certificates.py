"""SSH certificates of this machine: who is asked for them, and how often."""

import asyncio
import contextlib
from collections import Counter
from itertools import pairwise
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from tests.loop_clock import LoopClock
from tests.promise import proves

from muster.fleet.machine import Authority, Identity
from muster.node.host.home import Home
from muster.node.links.ssh import CERTIFICATES, SshDoor

HOUR_S = 3600.0


def daemon(folder: Path, asked: list[float]) -> Any:
    """A machine without certificates, whose hub has none to give."""
    identity = Identity(bytes(32))
    home = Home(folder)
    home.create()
    loop = asyncio.get_running_loop()

    async def ask(_hub: str, verb: str, _args: object) -> None:
        assert verb == CERTIFICATES
        asked.append(loop.time())

    @contextlib.asynccontextmanager
    async def attempt(_name: str) -> Any:
        yield

    roster = SimpleNamespace(
        machines={identity.machine: object()}, hubs=lambda: [SimpleNamespace(machine="hub")]
    )

    class Core:
        machine, counters = identity.machine, Counter[str]()
        membership = SimpleNamespace(on_change=[])

        @property
        def now(self) -> Any:
            return SimpleNamespace(wall_ms=int(loop.time() * 1000))

    core: Any = Core()
    core.roster = roster
    fleet = Authority(bytes(32)).fleet
    machine = SimpleNamespace(home=home, identity=identity, fleet=fleet, authority=None)
    return SimpleNamespace(
        core=core, machine=machine, effects=SimpleNamespace(ask=ask),
        supervisor=SimpleNamespace(attempt=attempt),
    )  # fmt: skip


@proves("ssh.asked-ever-less")
def test_a_hub_that_has_no_certificates_is_asked_ever_less(tmp_path: Path) -> None:
    asked: list[float] = []

    async def scenario() -> None:
        door = SshDoor(daemon(tmp_path, asked))
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(HOUR_S):
                await door.keep()

    LoopClock.run(scenario())
    assert len([at_s for at_s in asked if at_s < 60]) >= 3
    assert len(asked) < 20
    assert max(b - a for a, b in pairwise(asked)) < 700


@proves("ssh.asked-for-a-person")
@pytest.mark.parametrize("comes", [True, False])
def test_a_person_who_trusts_the_fleet_waits_for_its_key_a_moment(tmp_path: Path, comes: bool):
    """As who has just joined does: the first hub that was asked was not linked yet."""
    asked: list[float] = []

    async def scenario() -> tuple[Any, float, int]:
        loop = asyncio.get_running_loop()
        door = SshDoor(daemon(tmp_path, asked))
        async with asyncio.timeout(HOUR_S), asyncio.TaskGroup() as group:
            kept = group.create_task(door.keep())
            await asyncio.sleep(HOUR_S / 2)
            before, began_s = len(asked), loop.time()
            if comes:
                loop.call_later(3.5, setattr, door, "_shown", "the key")
            found = await door.known()
            kept.cancel()
            return found, loop.time() - began_s, len(asked) - before

    found, took_s, asks = LoopClock.run(scenario())
    assert found == ("the key" if comes else None)
    assert took_s == (4 if comes else 20)
    assert asks >= took_s - 1
