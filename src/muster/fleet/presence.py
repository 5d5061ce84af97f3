"""Presence: who is there, judged by when each machine was last heard.

Rule 1: hearing is what this machine itself saw (a frame, a cosign); nobody reports it for
another machine, so a liar can make only itself look alive.
Rule 2: presence decides nothing that must be safe: leases and epochs do. It is for choosing
and for showing.

Times are of the listening machine's clock that counts sleep. After this machine slept itself,
everybody looks silent for a moment and is heard again: `since_wake_ms` keeps it from calling
a whole fleet away because it closed its own eyes.
"""

from collections.abc import Iterable, Mapping
from enum import StrEnum

from muster import limits
from muster.log.stream import MachineId


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


def presences(
    machines: Iterable[MachineId], heard_ms: Mapping[MachineId, int], now_ms: int
) -> dict[MachineId, Presence]:
    """The state of every machine."""
    return {machine: presence_of(heard_ms.get(machine), now_ms) for machine in machines}


def next_change_ms(heard_ms: Iterable[int], now_ms: int) -> int | None:
    """When the next state changes if nobody is heard: what a timer is set to, None for never."""
    edges = (
        heard + after + 1
        for heard in heard_ms
        for after in (limits.SILENT_AFTER_MS, limits.AWAY_AFTER_MS)
    )
    return min((edge for edge in edges if edge > now_ms), default=None)
