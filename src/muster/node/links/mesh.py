"""The peers of the fleet's own mesh follow the roster, where the daemon may change interfaces.

Rule 1: it makes and removes no interface: that a person says (`muster mesh up`, `down`). Where the
daemon may not change one, they say `up` again.
Rule 2: who is revoked is no peer a second after the roster says so, with nobody asked.
Rule 3: the interface is looked at each minute: a peer that was not heard of is tried at the place
that it tells now.
"""

import asyncio
from typing import Final

from muster.fleet import mesh
from muster.node.counter import DECLARED
from muster.node.host import mesh as host
from muster.node.host.clock import read
from muster.node.runtime import Runtime

DECLARED[__name__] = {"mesh-applied": "The mesh's interface was told who its peers are."}

_LOOK_S: Final = 1.0
_AGAIN_MS: Final = 60_000


class MeshKeeper:
    """See the rules at the top of this file."""

    def __init__(self, daemon: Runtime) -> None:
        self._daemon, self._core = daemon, daemon.core
        self._interface = mesh.interface(self._core.machine)
        self._applied: tuple[mesh.Place, list[mesh.Peer]] | None = None
        self._due_ms = 0

    async def keep(self) -> None:
        """As long as the daemon lives; at once over where it may change nothing."""
        while host.allowed():
            await asyncio.sleep(_LOOK_S)
            async with self._daemon.supervisor.attempt("mesh"):
                await self._look()

    async def _look(self) -> None:
        place, now_ms = self._daemon.machine.mesh_place(), read().boot_ms
        if place is None or not host.is_there(self._interface):
            self._applied = None
            return
        wanted = (place, mesh.peers(self._core.roster, self._core.machine))
        if wanted == self._applied and now_ms < self._due_ms:
            return
        # What fails is tried again in a minute as well, or when there is news.
        self._applied, self._due_ms = wanted, now_ms + _AGAIN_MS
        await asyncio.to_thread(self._apply, *wanted)
        self._core.counters["mesh-applied"] += 1

    def _apply(self, place: mesh.Place, peers: list[mesh.Peer]) -> None:
        secret = self._daemon.machine.identity.secret(mesh.KEY)
        host.tell_peers(self._interface, secret, place, peers)
