"""That this machine takes no work for now, until a time or until somebody ends it.

Rule 1: it stands among the facts of this machine, so everybody who gives work knows, and in its own
log: a restart changes nothing.
Rule 2: what runs goes on; who drains ends what runs as well, and says so (verbs/pause.py).
"""

from typing import TYPE_CHECKING

from muster.fleet.facts import Facts
from muster.node.incarnations.own_incarnation import OwnIncarnation
from muster.node.part import Part
from muster.task.pause import PAUSED, Pause, pause_of

if TYPE_CHECKING:
    from muster.node.core import Core


class Pauses(Part):
    name = "pauses"

    def __init__(self, core: "Core") -> None:
        self._core = core
        self.now: Pause | None = None

    def start(self) -> None:
        said = self._core.roster.facts.get(self._core.machine, Facts("", "")).tools.get(PAUSED)
        self.now = pause_of(said)
        if self.now is not None:
            self._core.part(OwnIncarnation).has(PAUSED, self.now.told)

    def begin(self, pause: Pause) -> None:
        """Take nothing new from now on; the fleet hears of it with this step."""
        self.now = pause
        self._core.part(OwnIncarnation).has(PAUSED, pause.told)

    def end(self) -> Pause | None:
        """Take work again; what it was, None where it was not paused."""
        was, self.now = self.now, None
        self._core.part(OwnIncarnation).has(PAUSED, "")
        return was

    def tick(self) -> None:
        if self.now is not None and 0 < self.now.until_ms <= self._core.now.wall_ms:
            self.end()
