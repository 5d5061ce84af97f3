"""How long an attempt may take, as its worker and its owner both compute it.

Rule 1: the worker ends it after its time; the owner waits a grace longer and then takes it away. A
worker that beats and does nothing holds a task no longer than that.
Rule 2: fetching what it starts from and delivering what came of it are not the agent's time. While
the worker says so the owner waits, up to a bound: that is the worker's word only.
"""

from collections.abc import Mapping
from typing import Any, Final, Literal

from muster import limits

Stage = Literal["", "fetching", "working", "checking", "delivering", "clearing up"]
# An owner hears of these at once and not with the next beat: they are how far the work is.
TOLD: Final[frozenset[str]] = frozenset({"working", "checking", "delivering"})
MOVING: Final[frozenset[str]] = frozenset({"fetching", "delivering", "clearing up"})


def work_ms(template: Mapping[str, Any]) -> int:
    """What the agent may take."""
    found = template.get("timeout_ms")
    if isinstance(found, int) and not isinstance(found, bool) and found > 0:
        return min(found, limits.PHASE_TIMEOUT_MS_MAX)
    return limits.ATTEMPT_MS


def check_ms(template: Mapping[str, Any]) -> int:
    """What the check may take, 0 without one."""
    return min(limits.CHECK_MS_MAX, work_ms(template)) if template.get("check") else 0


def owner_ms(template: Mapping[str, Any]) -> int:
    """How long the owner waits for the end, without what was moved."""
    return work_ms(template) + check_ms(template) + limits.ATTEMPT_GRACE_MS
