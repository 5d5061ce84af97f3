"""What of this machine's home is gone while its log goes on: a person should hear of it at once.

Rule 1: the log says what was kept here: repositories in our own facts, deliverables in the ends of
our own attempts. What the disk has not is an incident of ours until it is back.
Rule 2: what heals itself (a cache, a work folder) is not looked for. Nothing is decided here.
"""

import contextlib
from typing import TYPE_CHECKING, Final

from muster.errors import Malformed
from muster.fleet import kinds
from muster.fleet.facts import Facts
from muster.limits import BLOBS_LOOKED_FOR_MAX
from muster.log.entry import Entry
from muster.log.fold import body_as, body_or_none
from muster.log.stream import FLEET, StreamName
from muster.node.part import Part
from muster.store.blobs import Blobs
from muster.task.artefact import named
from muster.task.fold import ATTEMPT
from muster.task.kinds import AttemptFinish

if TYPE_CHECKING:
    from muster.node.core import Core

BLOBS: Final = "blobs-gone"
# The setting that remembers which repositories were kept here, and what their incidents are called.
_KEPT: Final = "repositories"
_REPOSITORY: Final = "repository-"


class Losses(Part):
    """Repositories that this machine kept and keeps no more."""

    name = "losses"

    def __init__(self, core: "Core") -> None:
        self._core = core
        core.on(kinds.MACHINE_FACTS, self._on_facts)

    def _on_facts(self, stream: StreamName, entry: Entry) -> None:
        core = self._core
        if stream != core.membership.own(FLEET):
            return
        here = set(body_as(entry, Facts).repositories)
        kept = set(str(core.store.recall(_KEPT) or "").split())
        for name in sorted(kept | here):
            self._tell(name, here=name in here)
        if not here <= kept:
            core.store.remember(_KEPT, " ".join(sorted(kept | here)))

    def _tell(self, name: str, *, here: bool) -> None:
        core, key = self._core, f"{_REPOSITORY}{name}"[:64]
        told = core.incidents.is_open(key)
        if here and told:
            core.incidents.close(key, "it is here again")
        elif not here and not told:
            title = (
                f"repository {name}, which {core.name} kept, is gone from its home: "
                f"`muster repo add {name} PATH` brings it back"
            )
            core.incidents.open(key, "critical", title)


def blobs_gone(core: "Core", blobs: Blobs) -> str:
    """What to tell a person of deliverables of our own that are not here; "" where all are."""
    gone, first = 0, ""
    rows = core.tables.rows(
        ATTEMPT, writer=core.machine, order=("-started_ms",), limit=BLOBS_LOOKED_FOR_MAX
    )
    for row in rows:
        body = body_or_none(core.log.entry(row.ended), AttemptFinish)
        # What has no form names no file that could be lost; whoever opens it is told.
        with contextlib.suppress(Malformed):
            for kept in named(body.commit, body.artefacts) if body else ():
                if not blobs.has(kept.sha256):
                    gone += 1
                    first = first or f"{kept.path} of task {row.task[:12]}"
    if not gone:
        return ""
    return (
        f"{gone} of the deliverables that {core.name} kept are gone from its home ({first}): bring "
        "them back from a backup of its folder blobs, or run those tasks again"
    )
