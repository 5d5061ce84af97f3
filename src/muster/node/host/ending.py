"""How the process of a daemon ends: in order, and within a bound whatever hangs.

Rule 1: what hangs in a thread (a share, a disk, a name that is looked up) cannot be ended and is
not waited for. Once all is closed the process has a moment for what is left, and then it is gone.
Rule 2: an end that does not come so far is cut off. What the store has it has, as after a crash,
and children see the end of their pipes.
Rule 3: this thread touches no disk. What was left behind is said in one line by another one, which
has a moment for it; that it was cut off stands in the home for the next one to know.
Rule 4: who was told to end stays ended, however it went: every keeper of services starts again what
ended with another code than 0. One that failed by itself ends with that code, and is started again.
"""

import contextlib
import os
import sys
import threading
import traceback
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Final

from muster.errors import MISTAKES, Broken, MusterError
from muster.node.counter import DECLARED, Counts
from muster.printable import visible

CUT_OFF: Final = "ended-cut-off"
DECLARED[__name__] = {
    CUT_OFF: "The daemon before this one was to end, and was cut off: something hung.",
}

# `muster down` waits for 40 s. An agent has 15 s to end, and what the daemon does beside it 10 s.
END_S: Final = 30.0
# Once all is closed: the time to print why it ended.
AFTER_S: Final = 2.0
SAYING_S: Final = 1.0
# Of that many threads it is said what they are at.
_NAMED_MAX: Final = 8


class Ending:
    """See the rules at the top of this file. The process ends, whoever begins this.

    `note` is the file in the home where the next one finds that this one was cut off.
    """

    def __init__(self, note: Path) -> None:
        self._note = note
        self._begun = self._wanted = False
        self._one = threading.Lock()
        self._failed = Broken.exit_code
        self._closed = threading.Event()
        self._after_cut_off = note.exists()
        note.unlink(missing_ok=True)

    def count(self, counters: Counts) -> None:
        """Let the daemon that begins know how the last one ended."""
        if self._after_cut_off:
            counters["ended-cut-off"] += 1

    def begin(self, *, wanted: bool) -> None:
        """It is to end: `wanted` where somebody told it to, and not where it failed. Idempotent."""
        self._wanted = self._wanted or wanted
        with self._one:
            begun, self._begun = self._begun, True
        if not begun:
            threading.Thread(target=self._watch, name="muster-ending", daemon=True).start()

    @contextlib.contextmanager
    def bounded(self) -> Iterator["Ending"]:
        """The life of the daemon; after it the process has a moment to end by itself."""
        try:
            yield self
            self._failed = 0
        except (MusterError, OSError, *MISTAKES) as error:
            if isinstance(error, MusterError):
                self._failed = error.exit_code
            if not self._wanted:
                raise
            _say(f"muster: it was told to end, and did not end well: {visible(str(error))}")
            if isinstance(error, MISTAKES):
                traceback.print_exc()
        finally:
            self._closed.set()
            self.begin(wanted=False)

    def _watch(self) -> None:
        never = threading.Event()
        if self._closed.wait(END_S):
            never.wait(AFTER_S)
        try:
            # The disk of the log, or that of the home, may be what hangs.
            left = f"muster: it ends without waiting for {_left()}"
            tells: list[Callable[[], None]] = [partial(_say, left)]
            if not self._closed.is_set():
                tells.append(self._note.touch)
            telling = [threading.Thread(target=_told, args=(each,), daemon=True) for each in tells]
            for thread in telling:
                thread.start()
            for thread in telling:
                thread.join(SAYING_S)
        finally:
            os._exit(0 if self._wanted else self._failed)


def _told(tell: Callable[[], None]) -> None:
    # We end whether or not it could be told.
    with contextlib.suppress(OSError):
        tell()


def _say(text: str) -> None:
    # Nobody hears it any more, and the end goes on.
    with contextlib.suppress(OSError, ValueError):
        sys.stderr.write(f"{text}\n")
        sys.stderr.flush()


def _left() -> str:
    """What the threads are at that are still there."""
    frames = sys._current_frames()
    found = []
    for thread in threading.enumerate():
        frame = frames.get(thread.ident or 0)
        if thread is threading.current_thread() or frame is None:
            continue
        at, each = frame, frame.f_back
        # Who waits there, and not what it waits by.
        while at.f_code.co_filename == threading.__file__ and each is not None:
            at, each = each, each.f_back
        found.append(f"{thread.name} ({at.f_code.co_qualname}, line {at.f_lineno})")
    return visible(", ".join(found[:_NAMED_MAX])) or "anything"
