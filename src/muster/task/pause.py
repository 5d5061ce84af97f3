"""That a machine takes no work for now: how it says so among its facts, and what others read there.

Rule: it is a claim of a machine about itself. It takes nothing new, and whoever gives it work all
the same is refused; a machine of before reads it as the name of a tool and asks once.
"""

from datetime import UTC, datetime
from typing import Final, NamedTuple

# Among the tools of a machine, where older ones read whatever stands there.
PAUSED: Final = "paused"
WHY_CHARS_MAX: Final = 150
# Of a date that a calendar has; a machine may say any number.
_MS_MAX: Final = 253_402_300_799_000


class Pause(NamedTuple):
    """Until when, 0 for until somebody ends it; `drains`: it gave away what ran, too."""

    until_ms: int
    why: str
    drains: bool = False

    @property
    def told(self) -> str:
        """As it stands among the facts."""
        how = "drains" if self.drains else "pauses"
        return f"{self.until_ms} {how} {self.why[:WHY_CHARS_MAX]}".rstrip()

    @property
    def sentence(self) -> str:
        """For whoever asks why it gets nothing."""
        said = "takes no work: it drains" if self.drains else "is paused"
        if self.until_ms:
            until = datetime.fromtimestamp(min(self.until_ms, _MS_MAX) / 1000, UTC)
            said += f" until {until:%Y-%m-%d %H:%M} UTC"
        return said + (f": {self.why}" if self.why else "")


def pause_of(text: str | None) -> Pause | None:
    """What a machine says there; whatever it is, one that says something takes no work."""
    if text is None:
        return None
    until, _, rest = text.partition(" ")
    how, _, why = rest.partition(" ")
    if not (until.isascii() and until.isdecimal() and len(until) <= 15):
        return Pause(0, text)
    return Pause(int(until), why, how == "drains")
