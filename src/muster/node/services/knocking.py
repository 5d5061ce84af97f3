"""Which machines knock (channel/knock.py), so that our port is shut to whoever does not.

Rule: it is shut once every live machine said so, and open again when one of them says otherwise:
one of an older version that joined, or came back. What each said counts over a start. One of an
older version that was revoked keeps it open for a day more: else it knocks in vain, and never hears
why. And it is shut only while a machine that goes by our hour is linked, or was within the last
hour: where our clock is wrong everybody would knock in vain, and nobody could tell us the time.
"""

import json
from typing import TYPE_CHECKING, Final

from muster.channel.knock import HOUR_MS
from muster.log.stream import MachineId
from muster.node.link import KNOCK
from muster.node.part import Part

if TYPE_CHECKING:
    from muster.node.core import Core

# The setting that holds their ids.
KNOWN: Final = "knock"
_DAY_MS: Final = 24 * 3_600_000


class Knocking(Part):
    """See the rule at the top of this file."""

    name = "knocking"

    def __init__(self, core: "Core") -> None:
        self._core = core
        # When a machine was last linked whose clock is within an hour of ours.
        self._vouched_ms: int | None = None
        self._known: set[str] = set(json.loads(str(core.store.recall(KNOWN) or "[]")))

    def tick(self) -> None:
        """Remember what those said who are linked."""
        known, live, now = self._known, self._core.roster.known, self._core.now
        ours_ms = now.wall_ms - now.boot_ms
        for link in self._core.links.values():
            # Before its hello a link says nothing.
            if link.peer in live and link.version:
                if link.offset_ms is not None and abs(link.offset_ms - ours_ms) < HOUR_MS:
                    self._vouched_ms = now.boot_ms
                known = known | {link.peer} if KNOCK in link.features else known - {link.peer}
        known &= live.keys()
        if known != self._known:
            self._known = known
            self._core.store.remember(KNOWN, json.dumps(sorted(known)))

    def lacking(self) -> set[MachineId]:
        """The machines for which strangers are heard, too."""
        roster, since_ms = self._core.roster, self._core.now.wall_ms - _DAY_MS
        told = {m for m, why in roster.revoked.items() if why.issued_ms < since_ms}
        return roster.known.keys() - told - self._known - {self._core.machine}

    @property
    def closed(self) -> bool:
        """Whether who does not knock is none of ours."""
        return self._vouched and not self.lacking()

    @property
    def _vouched(self) -> bool:
        # A fleet of one machine has nobody who could.
        alone = self._core.roster.machines.keys() <= {self._core.machine}
        since_ms = self._core.now.boot_ms - HOUR_MS
        return alone or (self._vouched_ms is not None and self._vouched_ms > since_ms)
