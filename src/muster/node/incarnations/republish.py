"""What is never forgotten, said again by whoever may once a stream that told of it is cut back."""

from collections import Counter
from typing import TYPE_CHECKING

from muster.fleet.permanent import permanent
from muster.limits import BODY_BYTES_MAX, LASTING_PER_SIGNER_MAX
from muster.log import canon
from muster.node.counter import DECLARED
from muster.node.part import Part
from muster.node.replica.forks import RolledBack

if TYPE_CHECKING:
    from muster.node.core import Core

DECLARED[__name__] = {
    "lasting-not-said-again": "Of one signer too much was said again; the rest was not.",
    "said-again": "What lasts of a stream that was rolled back was said again in ours.",
}


class Republisher(Part):
    """See the top of this file; how often it said something again for each signer is bounded."""

    name = "forks"

    def __init__(self, core: "Core") -> None:
        self._core = core
        core.on(RolledBack, self.publish)
        self._said_again: Counter[str] = Counter()

    def start(self) -> None:
        """Say what a crash may have kept us from saying."""
        self._core.replication.forks.start()

    def publish(self, event: RolledBack) -> None:
        """The stream that told of these was rolled back; what lasts of them counts all the same."""
        core = self._core
        for entry in event.lost:
            fact = permanent(entry, core.roster, core.machine)
            if fact is None or entry.body is None:
                continue
            known = any(
                not fact.own or found.stream.machine == core.machine
                for found in core.tables.rows(fact.table, **fact.row)
                if fact.since is None or (found.t_ms, found.t_n) >= fact.since
            )
            if known or (fact.until_ms is not None and fact.until_ms < core.now.wall_ms):
                continue
            if fact.signer and self._said_again[fact.signer] >= LASTING_PER_SIGNER_MAX:
                core.counters["lasting-not-said-again"] += 1
                continue
            self._said_again[fact.signer] += 1
            core.counters["said-again"] += 1
            body = canon.decode(entry.body, "a body", size_max=BODY_BYTES_MAX)
            core.write(entry.header.kind, body)
