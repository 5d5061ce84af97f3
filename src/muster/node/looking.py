"""What runs want to know of repositories: where they start, and what their globs match.

Rule 1: each is asked once, and again only where the repository was out of reach.
Rule 2: what cannot be known fails the phases that need it, with the reason; the rest goes on.
"""

from collections.abc import Callable, Mapping

from muster.limits import RETRY_DELAY_MS_MIN
from muster.node import event as ev
from muster.node.run import Run, base_of
from muster.node.whole import Whole


class Looking:
    """The questions of all open runs; `moved` is told of a run that may go on."""

    def __init__(self, core: Whole, runs: Mapping[str, Run], moved: Callable[[str], None]) -> None:
        self._core = core
        self._runs = runs
        self._moved = moved
        # What a repository out of reach is asked again, and when.
        self._again: dict[tuple[str, str], int] = {}

    def find_base(self, run: Run) -> None:
        """Nothing begins before it is known where: every first phase starts from one commit."""
        if "" not in run.asked:
            run.asked.add("")
            self._core.do(ev.FindBase(run.run, run.body.repo, base_of(run.body, run.spec)))

    def match(self, run: Run, name: str) -> None:
        phase = run.spec.phases[name]
        commit = run.start_of(name, run.by_phase())
        self._core.do(ev.MatchGlob(run.run, name, run.body.repo, commit, phase.each or ""))

    def matched(self, event: ev.Matched) -> None:
        run = self._runs.get(event.run)
        if run is None or event.phase in run.matches:
            return
        if event.again:
            self._ask_again(run, event.phase)
            return
        if refusal := run.match_refusal(event):
            run.bar(event.phase, refusal)
        else:
            run.matches[event.phase] = event.matches
        self._moved(run.run)

    def base_found(self, event: ev.BaseFound) -> None:
        run = self._runs.get(event.run)
        if run is None or run.base is not None:
            return
        if event.again:
            self._ask_again(run, "")
            return
        run.base = event.commit
        for name, phase in run.spec.phases.items() if event.reason else ():
            if not phase.prerequisites:
                run.bar(name, event.reason)
        self._moved(run.run)

    def _ask_again(self, run: Run, what: str) -> None:
        self._again[run.run, what] = self._core.now.boot_ms + RETRY_DELAY_MS_MIN

    def tick(self) -> None:
        """Ask repositories again that were out of reach."""
        now = self._core.now.boot_ms
        for run, what in [key for key, at in self._again.items() if at <= now]:
            del self._again[run, what]
            if run in self._runs:
                self._runs[run].asked.discard(what)
                self._moved(run)
