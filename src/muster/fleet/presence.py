"""Presence: who is there, judged by when each machine was last heard.

Rule 1: hearing is what this machine itself saw (a frame, a cosign); nobody reports it for
another machine, so a liar can make only itself look alive.
Rule 2: presence decides nothing that must be safe: leases and epochs do. It is for choosing
and for showing.

Times are of the listening machine's clock that counts sleep. After this machine slept itself,
everybody looks silent for a moment and is heard again: `since_wake_ms` keeps it from calling
a whole fleet away because it closed its own eyes.
"""

from enum import StrEnum

from muster import limits


class Presence(StrEnum):
    """`away` machines get no new work; `silent` ones keep what they have."""

    UP = "up"
    SILENT = "silent"
    AWAY = "away"


def presence_of(heard_ms: int | None, now_ms: int, since_wake_ms: int | None = None) -> Presence:
    """The state of a machine that was last heard at `heard_ms` (None: never)."""
    if heard_ms is None:
        return Presence.AWAY
    quiet_ms = max(0, now_ms - heard_ms)
    if since_wake_ms is not None:
        quiet_ms = min(quiet_ms, max(0, since_wake_ms))
    if quiet_ms <= limits.SILENT_AFTER_MS:
        return Presence.UP
    return Presence.SILENT if quiet_ms <= limits.AWAY_AFTER_MS else Presence.AWAY
