"""A machine of the fleet that went bad: its keys are genuine, everything else is up to it."""

import random
from typing import Any

from muster.fleet import kinds as fleet_kinds
from muster.fleet.machine import Identity
from muster.log import canon
from muster.log import segment as segments
from muster.log.stream import FLEET, Incarnation, Scope, StreamName
from muster.store.store import Draft, Store
from tests.fleet.world import BUILD, BUILD_RECORD, FLEET_ID, NOW


class Peer:
    """Writes anything into its own streams, and seals it properly."""

    def __init__(self, identity: Identity = BUILD, record: Any = BUILD_RECORD) -> None:
        self.identity = identity
        self.store = Store(
            ":memory:",
            fleet=FLEET_ID,
            machine=identity.machine,
            rng=random.Random(7).randbytes,
            folds=(),
        )
        self.incarnation = Incarnation("b" * 32)
        self.now_ms = NOW
        body = fleet_kinds.MachineOpen(record=record.raw.decode())
        self.write("machine.open", canon.encode(body))

    def stream(self, scope: Scope = FLEET) -> StreamName:
        return StreamName(self.identity.machine, self.incarnation, scope)

    def write(
        self,
        kind: str,
        body: bytes,
        *,
        scope: Scope = FLEET,
        actor: str = "muster",
        cause: tuple[Any, ...] = (),
    ) -> Any:
        """One entry, and a seal over all."""
        self.now_ms += 1
        with self.store.transaction():
            made = self.store.append(
                self.stream(scope), (Draft(kind, actor, cause, body),), self.now_ms
            )
            self.store.seal_dirty(self.identity.signer("seal"))
        return made[0]

    def segment(self, start: int, scope: Scope = FLEET) -> bytes:
        """What it would send to somebody who holds `start` entries."""
        found = self.store.log.segment(self.stream(scope), start)
        assert found is not None, "there is something to send"
        return segments.encode(found)
