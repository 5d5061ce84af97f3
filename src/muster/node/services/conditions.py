"""What is wrong with this machine or its surroundings for a while: each is an incident, and closed.

Rule 1: `found` is pure: what was measured in, what is wrong out, by the incident's key
(`<kind>:<object>`).
Rule 2: it counts when it was so at two looks in a row, and is over when it was not at two: what
passes by itself calls nobody. It is told again only when it was graver at two; and what is told is
over only well beyond its bound, so what sways around a bound is told once.
Rule 3: what is open is read from the log, so a restart neither forgets it nor tells it twice.
"""

from collections.abc import Collection, Iterable, Mapping
from typing import TYPE_CHECKING, Final, NamedTuple

from muster import limits
from muster.channel.frame import Type
from muster.node import event as ev
from muster.node.incarnations.lives import Lives
from muster.node.part import Part
from muster.node.tasks.owner import OwnerService
from muster.node.tasks.worker import WorkerService
from muster.task.fold import TASK

if TYPE_CHECKING:
    from muster.node.core import Core

_KINDS: Final = ("disk:", "inodes:", "clock-skew:", "backlog:")
_BURN: Final = "burn:"
_GRAVE: Final = ("notice", "warning", "critical")
# What was told is over only where it is better than its bound by so much.
_BEYOND: Final = 1.5
# A clock that differed is measured again so often, over a link that stays.
_AGAIN_MS: Final = 5 * 60_000


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


def burning(task: str) -> str:
    """The key of an agent that uses tokens and changes nothing."""
    return f"{_BURN}{task[:16]}"


def found(
    name: str,
    measured: Measured | None,
    skews: Mapping[str, int],
    waiting: Waiting | None,
    told: Collection[str] = (),
) -> dict[str, Condition]:
    """What is wrong; `skews` are how far the clocks of linked machines are from ours, by name.

    `told` are the keys that are open.
    """
    wrong: dict[str, Condition] = {}
    if measured is not None:
        wrong |= _of_disk(name, measured, told)
    wrong |= _of_clocks(name, skews, told)
    if waiting is not None and waiting.for_ms >= limits.BACKLOG_MS:
        title = (
            f"task {waiting.task[:8]} waits for {waiting.for_ms // 60_000} minutes, though "
            f"{waiting.machine} fits and has room"
        )
        why = f"`muster why {waiting.task[:12]}` says what it waits for"
        said = f"; what was said last: {waiting.reason}" if waiting.reason else ""
        wrong[f"backlog:{waiting.task[:16]}"] = Condition("warning", title, why + said)
    return wrong


def _of_disk(name: str, measured: Measured, told: Collection[str]) -> dict[str, Condition]:
    wrong: dict[str, Condition] = {}
    free_mib, percent = measured.free_bytes >> 20, measured.free_files_percent
    key = f"disk:{name}"
    if measured.free_bytes < limits.DISK_LOW_BYTES * (_BEYOND if key in told else 1):
        grave = measured.free_bytes < limits.DISK_CRITICAL_BYTES
        detail = "free some space: while a disk is full this machine stands still"
        title = f"the disk of {name} is nearly full" if grave else f"the disk of {name} fills"
        # How much it is changes all the time, and is told once.
        wrong[key] = Condition(
            "critical" if grave else "notice", title, f"{free_mib} MiB free; {detail}"
        )
    key = f"inodes:{name}"
    if 0 <= percent < limits.DISK_FILES_PERCENT_MIN * (_BEYOND if key in told else 1):
        title = f"the disk of {name} has room for few more files: {percent} % are free"
        wrong[key] = Condition("warning", title, "remove many small files")
    return wrong


def _of_clocks(name: str, skews: Mapping[str, int], told: Collection[str]) -> dict[str, Condition]:
    # Of whom it was told, or where it was told of ours, it is over only well within the bound.
    ours = f"clock-skew:{name}" in told
    off = {
        other: ms
        for other, ms in skews.items()
        if abs(ms) * (_BEYOND if ours or f"clock-skew:{other}" in told else 1) > limits.PEER_SKEW_MS
    }
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


def _grave(severity: str) -> int:
    return _GRAVE.index(severity) if severity in _GRAVE else 0


class Conditions(Part):
    name = "conditions"

    def __init__(self, core: "Core") -> None:
        self._core = core
        self._looked_ms = self._greeted_ms = 0
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
        if now_ms - self._greeted_ms >= _AGAIN_MS:
            self._greeted_ms = now_ms
            self._greet()
        skews = {
            core.membership.name_of(link.peer): link.skew_ms
            for link in core.links.values()
            if link.peer
        }
        told = dict(self._told())
        now = found(core.name, self._measured, skews, self._waiting(), told)
        for key in now.keys() & self._before.keys():
            # As grave as it was at both looks; one that became worse is told again.
            both = min(now[key], self._before[key], key=lambda each: _grave(each.severity))
            if key not in told or _grave(both.severity) > _grave(told[key]):
                core.incidents.open(key, *both)
        for key in told.keys() - now.keys() - self._before.keys():
            core.incidents.close(key, "it is over")
        self._before = now
        here = {burning(task) for task in core.part(WorkerService).worker.running()}
        for key in core.incidents.own(_BURN).keys() - here:
            # Who watched it ended with the daemon.
            core.incidents.close(key, "its attempt is over")

    def _greet(self) -> None:
        """Say what time it is to whom it differs from: they say so in turn, for it does there."""
        lives = self._core.part(Lives)
        for number, link in self._core.links.items():
            if link.peer and abs(link.skew_ms) * _BEYOND > limits.PEER_SKEW_MS:
                hello = lives.hello_bytes(link.peer, lives.word)
                self._core.send(number, Type.HELLO, 0, hello)

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
