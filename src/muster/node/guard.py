"""What fails is one unit of a step: an entry, a call, a task, a run, an attempt. Never the machine.

Rule 1: whatever is done because of somebody's words runs in a `Guard`. What it wrote before it
failed is taken back whole; the rest of the step goes on.
Rule 2: nothing fails in silence: it is counted by its unit, told in the daemon's log (with the
traceback where the mistake is ours), and shown to people as an incident.
Rule 3: the telling is bounded, for whoever makes things fail may want to fill the log of everybody:
one incident for each unit and subject in an hour, and only so many of them.
Rule 4: a disk that failed is not survived: nothing that is written then is certain.

The caller of `run` says what becomes of the unit itself (a task ends, a run fails, an entry is
passed over): the guard only sees to it that there is somebody left to say it.
"""

import hashlib
import traceback
from collections import deque
from collections.abc import Callable
from typing import Final, NamedTuple, ParamSpec

import msgspec

from muster.errors import MISTAKES, MusterError
from muster.limits import FAILURES_PER_HOUR_MAX
from muster.log.clock import Stamp
from muster.log.fold import Skip
from muster.node.counter import DECLARED, Counts, labelled
from muster.node.link import sentence
from muster.store.store import Store

DECLARED[__name__] = {
    "failed-<unit>": "A unit of a step (or an error of a frame) failed and was undone."
}

P = ParamSpec("P")

HOUR_MS: Final = 3_600_000
# What our own mistakes may be; a failing disk is none, and whatever else there is ends the step.
OURS: Final = (Skip, msgspec.MsgspecError, *MISTAKES)
SURVIVED: Final = (MusterError, *OURS)


class Mark(NamedTuple):
    """A moment within a step, to which the core can go back."""

    store: tuple[int, Stamp]
    effects: int
    fresh: int
    surviving: int
    of_step: int


class Guard:
    def __init__(  # noqa: PLR0917 - what it needs of the core
        self,
        store: Store,
        counters: Counts,
        mark: Callable[[], Mark],
        undo: Callable[[Mark], None],
        note: Callable[[str], None],
        open_incident: Callable[[str, str, str, str], None],
    ) -> None:
        self._store, self._counters, self._mark, self._undo = store, counters, mark, undo
        self._note, self._open = note, open_incident
        self._told: dict[str, int] = {}
        self._waiting: deque[tuple[str, str, str]] = deque(maxlen=FAILURES_PER_HOUR_MAX)

    def run(
        self, unit: str, about: str, work: Callable[P, object], *args: P.args, **named: P.kwargs
    ) -> str | None:
        """Do one unit of work; a sentence when it failed, and then nothing of it was done.

        `about` names the subject for people: a task, an entry, a machine.
        Raises: Broken when the disk failed.
        """
        mark = self._mark()
        try:
            work(*args, **named)
        except SURVIVED as error:
            if self._store.broken is not None:
                raise
            self._undo(mark)
            return self.failed(unit, about, error)
        return None

    def failed(self, unit: str, about: str, error: Exception) -> str:
        """Count and tell what failed, a sentence; whoever caught it has taken it back."""
        mistake = not isinstance(error, MusterError)
        said = sentence(f"{type(error).__name__}: {error}" if mistake else str(error))
        failure = f"this machine failed at it ({said})" if mistake else said
        self._counters[labelled("failed", unit)] += 1
        self._note(f"{unit} {about}: {failure}")
        if mistake:
            # As it is, line by line: whoever mends it needs the places.
            self._note("".join(traceback.format_exception(error)))
        self._waiting.append((unit, about, failure))
        return failure

    def report(self, boot_ms: int) -> None:
        """Open an incident for what failed; called when the rest of the step is done."""
        if not self._waiting:
            return
        hour_ago = boot_ms - HOUR_MS
        self._told = {key: at for key, at in self._told.items() if at > hour_ago}
        while self._waiting:
            unit, about, text = self._waiting.popleft()
            key = f"failed-{unit[:24]}-{hashlib.sha256(about.encode()).hexdigest()[:12]}"
            if key in self._told or len(self._told) >= FAILURES_PER_HOUR_MAX:
                continue
            self._told[key] = boot_ms
            title = f"{unit} {about}".strip()
            self._open(key, "warning", f"{title} failed here and was passed over", text)
