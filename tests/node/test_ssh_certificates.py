"""SSH certificates of this machine: who is asked for them, and how often."""

import asyncio
import contextlib
from collections import Counter
from itertools import pairwise
from pathlib import Path
from types import SimpleNamespace
from typing import Any

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
