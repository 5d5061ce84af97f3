"""Whether other load is on the machine: what is measured beside it makes no ratio."""

import time
from pathlib import Path
from typing import Final

IDLE_MIN: Final = 0.85
_LOOK_S: Final = 1.0


def quiet(within_s: float) -> str:
    """Wait for a quiet moment, so long at most; what was found, in words."""
    give_up = time.monotonic() + within_s
    while 0 <= (idle := _idle()) < IDLE_MIN and time.monotonic() < give_up:
        pass
    if idle < 0:
        return "whether it is quiet cannot be seen here"
    words = "quiet" if idle >= IDLE_MIN else "NOT QUIET, its ratios do not count"
    return f"{words}: {idle:.0%} idle before"


def _idle() -> float:
    """The share of a second in which no processor had work; -1 where that is not told."""
    try:
        before = _ticks()
        time.sleep(_LOOK_S)
        spent = [now - then for now, then in zip(_ticks(), before, strict=True)]
    except OSError:
        return -1
    # Idle, and waiting for a disk.
    return (spent[3] + spent[4]) / max(1, sum(spent))


def _ticks() -> list[int]:
    return [int(word) for word in Path("/proc/stat").read_text().split("\n")[0].split()[1:9]]
