"""How a channel to a machine has been: what came of each try, how long it took, what was proven.

Rule 1: it lives as long as the daemon, and has a bound for each channel of each machine.
Rule 2: a link that stands proves that the machine is there, and no more. That something arrives is
proven by an answer to what was said over it.
"""

from collections import deque
from dataclasses import dataclass, field
from statistics import median
from typing import Final, Literal, NamedTuple

from muster.node.link import sentence

TRIES_MAX: Final = 16

Outcome = Literal["stands", "failed", "gone", "answers nothing", "left", "speaks", "answers"]


class Noted(NamedTuple):
    """Something that happened to a channel, by the clock of the loop."""

    at_s: float
    outcome: Outcome
    why: str


@dataclass(slots=True)
class Health:
    """One channel to one machine."""

    noted: deque[Noted] = field(default_factory=lambda: deque(maxlen=TRIES_MAX))
    # How long the dials took that succeeded.
    dials_s: deque[float] = field(default_factory=lambda: deque(maxlen=TRIES_MAX))
    # The newest round trip that was asked for.
    rtt_ms: int | None = None
    # When an answer last came over a link that is gone, by the clock of the core.
    proven_ms: int | None = None

    def note(self, at_s: float, outcome: Outcome, why: str = "") -> None:
        """Remember it; of so many the oldest is forgotten."""
        self.noted.append(Noted(at_s, outcome, sentence(why)))

    def note_again(self, at_s: float, outcome: Outcome, why: str = "") -> None:
        """Remember it in the place of the one before where that is the same, but for its time."""
        if self.noted and self.noted[-1][1:] == (outcome, sentence(why)):
            self.noted.pop()
        self.note(at_s, outcome, why)

    def took(self, dial_s: float) -> None:
        """A dial succeeded, after so long."""
        self.dials_s.append(dial_s)

    @property
    def dial_ms(self) -> int | None:
        """How long a dial takes that succeeds: half of them no longer."""
        return round(median(self.dials_s) * 1000) if self.dials_s else None
