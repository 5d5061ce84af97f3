"""What others claim to have seen of our own stream, beyond what is here.

Rule 1: a receipt over more than we hold is a hint that we were set back, and no proof: its cosigner
may have made the size up. Going on after it could write a second history, so it costs one new
incarnation. Who saw an entry of ours saw our seal, and shows it: that is proof (replication.py).
Rule 2: whoever claimed what was never proven costs no second one. Its claims count again when what
it claimed then is here.
"""

from typing import Final

from muster.log.seal import Cosign
from muster.log.stream import MachineId, StreamName
from muster.node.replica.membership import Membership
from muster.store.store import Store

_KEPT: Final = "claim-"


class Claims:
    """The newest claim that may count, and those that were followed."""

    def __init__(self, store: Store) -> None:
        self._store = store
        self.newest: Cosign | None = None

    def heard(self, cosign: Cosign) -> None:
        """Another machine signed a receipt over more than there is."""
        if self._is_believed(cosign.machine):
            self.newest = cosign

    def follow(self, membership: Membership) -> tuple[StreamName, str] | None:
        """The stream that ends for a claim about it, and why; its claimant is remembered."""
        claim = self.newest
        if claim is None or claim.stream.incarnation != membership.incarnation:
            return None
        self._store.remember(_KEPT + claim.machine, f"{claim.size} {claim.stream}")
        name = membership.name_of(claim.machine)
        return claim.stream, f"{name} claims to have seen more of our stream than we hold"

    def _is_believed(self, machine: MachineId) -> bool:
        kept = self._store.recall(_KEPT + machine)
        if not isinstance(kept, str):
            return True
        size, _, stream = kept.partition(" ")
        return self._store.size(StreamName.parse(stream)) >= int(size)
