"""What runs want to know of repositories: where they start, and what their globs match.

Rule 1: each is asked once, and again only where the repository was out of reach: after a pause that
grows, and meanwhile the run says why it waits.
Rule 2: what cannot be known fails the phases that need it, with the reason; the rest goes on.
"""

from collections.abc import Callable, Collection, Iterable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

from muster.limits import EACH_MATCHES_MAX, LOOK_AGAIN_MS_MAX, RETRY_DELAY_MS_MIN
from muster.log.fold import body_or_none
from muster.node import event as ev
from muster.node.counter import DECLARED
from muster.node.tasks.run import Run
from muster.store.store import Store
from muster.task import kinds, template
from muster.task.fold import TaskRow
from muster.task.instruction import Settled
from muster.task.problem import shown

if TYPE_CHECKING:
    from muster.node.core import Core


DECLARED[__name__] = {
    "run-without-origin": "A run started from what was here: the origin could not be asked."
}


@dataclass(slots=True)
class Again:
    """Why a repository could not be asked, and when it is asked again; None while it is."""

    reason: str
    pause_ms: int
    at_ms: int | None


class MatchGlob(ev.Effect, frozen=True):
    """List what a glob matches; answer with `Matched`."""

    run: str
    phase: str
    repo: str
    commit: str
    glob: str


class Matched(ev.Event, frozen=True):
    """What the glob of an `each:` phase matches in the commit it starts from."""

    run: str
    phase: str
    matches: tuple[str, ...]
    reason: str = ""
    # How many there are, where that is more than are told.
    count: int = 0
    again: bool = False


class FindBase(ev.Effect, frozen=True):
    """Let a run's repository follow its origin, then find the commit that `base` names, if it
    names one, and else the newest of the default branch where the run is to begin there and
    nowhere later (`newest`); answer with `BaseFound`.
    """

    run: str
    repo: str
    base: str
    newest: bool = False


class BaseFound(ev.Event, frozen=True):
    """The commit that a run starts from; or why there is none: `again` the remote may be asked.

    `note` is why the run starts from what is here, and not from what the origin has.
    """

    run: str
    commit: str = ""
    reason: str = ""
    again: bool = False
    note: str = ""


class Bases:
    """The questions of all open runs; `moved` is told which may go on, `waits` why one may not,
    `notes` what a person should know of how one began.
    """

    def __init__(
        self,
        core: "Core",
        runs: Mapping[str, Run],
        moved: Callable[[str], None],
        waits: Callable[[str, str, str], None],
        notes: Callable[[str, str, str], None],
    ) -> None:
        self._core = core
        self._runs = runs
        self._moved = moved
        self._waits, self._notes = waits, notes
        # By run and phase; "" for the commit that a run starts from.
        self._again: dict[tuple[str, str], Again] = {}

    def matched(self, event: Matched) -> None:
        run = self._runs.get(event.run)
        if run is None or run.progress.matched(event.phase):
            return
        if event.again:
            self._ask_again(run, event.phase, event.reason)
            return
        self._again.pop((run.run, event.phase), None)
        if refusal := _refusal(run.spec.phases[event.phase].each or "", event):
            run.bar(event.phase, refusal)
        else:
            run.progress.match(event.phase, event.matches)
        self._moved(run.run)

    def base_found(self, event: BaseFound) -> None:
        run = self._runs.get(event.run)
        if run is None or run.base is not None:
            return
        if event.again:
            self._ask_again(run, "", event.reason)
            return
        self._again.pop((run.run, ""), None)
        run.base, run.note = event.commit, event.note
        if run.note:
            self._core.counters["run-without-origin"] += 1
            self._notes(run.run, next(iter(run.spec.phases)), run.note)
        for name, phase in run.spec.phases.items() if event.reason else ():
            if not phase.prerequisites:
                run.bar(name, event.reason)
        self._moved(run.run)

    def waiting(self, run: Run) -> dict[str, str]:
        """The phases that wait for a repository, and why it could not be asked."""
        found = dict[str, str]()
        for (name, what), again in self._again.items():
            if name == run.run:
                found |= dict.fromkeys(self._phases(run, what), again.reason)
        return found

    def _phases(self, run: Run, what: str) -> list[str]:
        if what:
            return [what]
        return [name for name, phase in run.spec.phases.items() if not phase.prerequisites]

    def _ask_again(self, run: Run, what: str, reason: str) -> None:
        before = self._again.get((run.run, what))
        pause_ms = min(2 * before.pause_ms, LOOK_AGAIN_MS_MAX) if before else RETRY_DELAY_MS_MIN
        told = f"repository {run.body.repo} is out of reach and is asked again: {reason}"
        at_ms = self._core.now.boot_ms + pause_ms
        self._again[run.run, what] = Again(told, pause_ms, at_ms)
        if before is None or before.reason != told:
            for name in self._phases(run, what):
                self._waits(run.run, name, told)

    def tick(self) -> None:
        """Ask repositories again that were out of reach."""
        now = self._core.now.boot_ms
        for (run, what), again in list(self._again.items()):
            if run not in self._runs:
                del self._again[run, what]
            elif again.at_ms is not None and again.at_ms <= now:
                again.at_ms = None
                self._runs[run].asked.discard(what)
                self._moved(run)


def beginnings(store: Store, rows: Collection[TaskRow], ends: Iterable[Settled]) -> set[str]:
    """The commits that tasks began at and no task made, as their openings say; "" where one began
    at whatever was newest.
    """
    made, found = {end.commit for end in ends if end.commit}, set[str]()
    for row in rows:
        body = body_or_none(store.log.entry(row.opened), kinds.TaskOpen)
        found.update(body.base.split() or ("",) if body is not None else ("",))
    return found - made


def _refusal(each: str, event: Matched) -> str:
    """Why these matches cannot become tasks, or ""."""
    count = max(event.count, len(event.matches))
    if event.reason:
        return event.reason
    if count > EACH_MATCHES_MAX:
        return f"{each} matches {count} paths, at most {EACH_MATCHES_MAX}; split it by folder"
    for path in event.matches:
        if refusal := template.match_refusal(path):
            return f"{each} matches {shown(path)}, which {refusal}; rename it, or match less"
    return ""
