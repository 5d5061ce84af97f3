"""What is wrong with this machine or its surroundings for a while: each is an incident, and closed.

Rule 1: `found` is pure: what was measured in, what is wrong out, by the incident's key
(`<kind>:<object>`).
Rule 2: it counts when it was so at two looks in a row, and is over when it was not at two: what
passes by itself calls nobody.
Rule 3: what is open is read from the log, so a restart neither forgets it nor tells it twice.
"""

from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING, Final, NamedTuple

from muster import limits
from muster.node import event as ev
from muster.node.part import Part
from muster.node.tasks.owner import OwnerService
from muster.task.fold import TASK

if TYPE_CHECKING:
    from muster.node.core import Core

_KINDS: Final = ("disk:", "inodes:", "clock-skew:", "backlog:")


class Measured(ev.Event, frozen=True):
    """What a look at the disk of the home found; -1 for files where it does not count them."""

    free_bytes: int
    free_files_percent: int = -1


class Waiting(NamedTuple):
    """The task that waits longest although a machine that fits has room."""

    task: str
    for_ms: int
    machine: str
    reason: str = ""


class Condition(NamedTuple):
    severity: str
    title: str
    detail: str = ""


def found(
    name: str, measured: Measured | None, skews: Mapping[str, int], waiting: Waiting | None
) -> dict[str, Condition]:
    """What is wrong; `skews` are how far the clocks of linked machines are from ours, by name."""
    wrong: dict[str, Condition] = {}
    if measured is not None:
        wrong |= _of_disk(name, measured)
    wrong |= _of_clocks(name, skews)
    if waiting is not None and waiting.for_ms >= limits.BACKLOG_MS:
        title = (
            f"task {waiting.task[:8]} waits for {waiting.for_ms // 60_000} minutes, though "
            f"{waiting.machine} fits and has room"
        )
        why = f"`muster why {waiting.task[:12]}` says what it waits for"
        said = f"; what was said last: {waiting.reason}" if waiting.reason else ""
        wrong[f"backlog:{waiting.task[:16]}"] = Condition("warning", title, why + said)
    return wrong


def _of_disk(name: str, measured: Measured) -> dict[str, Condition]:
    wrong: dict[str, Condition] = {}
    free_mib, percent = measured.free_bytes >> 20, measured.free_files_percent
    if measured.free_bytes < limits.DISK_LOW_BYTES:
        grave = measured.free_bytes < limits.DISK_CRITICAL_BYTES
        detail = "free some space: while a disk is full this machine stands still"
        title = f"the disk of {name} is nearly full" if grave else f"the disk of {name} fills"
        # How much it is changes all the time, and is told once.
        wrong[f"disk:{name}"] = Condition(
            "critical" if grave else "notice", title, f"{free_mib} MiB free; {detail}"
        )
    if 0 <= percent < limits.DISK_FILES_PERCENT_MIN:
        title = f"the disk of {name} has room for few more files: {percent} % are free"
        wrong[f"inodes:{name}"] = Condition("warning", title, "remove many small files")
    return wrong


def _of_clocks(name: str, skews: Mapping[str, int]) -> dict[str, Condition]:
    off = {other: ms for other, ms in skews.items() if abs(ms) > limits.PEER_SKEW_MS}
    # Where most of them differ by as much, it is ours that is wrong.
    apart = max(off.values(), default=0) - min(off.values(), default=0)
    if len(off) > 1 and 2 * len(off) > len(skews) and apart <= limits.PEER_SKEW_MS:
        off = {name: -max(off.values(), key=abs)}
    wrong = {}
    for other, ms in off.items():
        way, s = ("ahead" if ms > 0 else "behind"), abs(ms) // 1000
        grave = abs(ms) > limits.CLOCK_SKEW_MS
        title = f"the clock of {other} is {s} s {way}" + (
            ": orders signed there are refused" if grave else ""
        )
        detail = "set it right: `timedatectl set-ntp true` on most systems"
        wrong[f"clock-skew:{other}"] = Condition("critical" if grave else "warning", title, detail)
    return wrong


class Conditions(Part):
    name = "conditions"

    def __init__(self, core: "Core") -> None:
        self._core = core
        self._looked_ms = 0
        self._measured: Measured | None = None
        # What was wrong at the last look.
        self._before: dict[str, Condition] = {}
        core.on(Measured, self._has_measured)

    def _has_measured(self, event: Measured) -> None:
        self._measured = event

    def tick(self) -> None:
        core, now_ms = self._core, self._core.now.boot_ms
        if now_ms - self._looked_ms < limits.CONDITIONS_LOOK_MS:
            return
        self._looked_ms = now_ms
        skews = {
            core.membership.name_of(link.peer): link.skew_ms
            for link in core.links.values()
            if link.peer
        }
        now = found(core.name, self._measured, skews, self._waiting())
        told = dict(self._told())
        for key, condition in now.items():
            # One that became worse is told again.
            if key in self._before and told.get(key) != condition.severity:
                core.incidents.open(key, *condition)
        for key in told.keys() - now.keys() - self._before.keys():
            core.incidents.close_anywhere(key, "it is over")
        self._before = now

    def _told(self) -> Iterable[tuple[str, str]]:
        """The incidents of ours that are open, and how grave they are."""
        for kind in _KINDS:
            for key, row in self._core.incidents.own(kind).items():
                yield key, row.severity

    def _waiting(self) -> Waiting | None:
        """Of those that wait longest the first that somebody could do."""
        core, owner = self._core, self._core.part(OwnerService).owner
        order, most = ("changed_ms",), limits.BACKLOG_LOOKED_AT
        for row in core.tables.rows(
            TASK, writer=core.machine, state="queued", order=order, limit=most
        ):
            for_ms = max(0, core.now.wall_ms - row.changed_ms)
            if for_ms < limits.BACKLOG_MS:
                return None
            why = owner.why(row.task) if owner.is_open(row.task) else None
            if why is not None and why.idle:
                name = core.membership.name_of(why.idle[0])
                return Waiting(row.task, for_ms, name, why.reason)
        return None
