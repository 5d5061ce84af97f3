"""How the process of a daemon ends: in order, and within a bound whatever hangs.

Rule 1: what hangs in a thread (a share, a disk, a name that is looked up) cannot be ended and is
not waited for. Once all is closed the process has a moment for what is left, and then it is gone.
Rule 2: an end that does not come so far is cut off. What the store has it has, as after a crash,
and children see the end of their pipes.
Rule 3: this thread touches no disk. What was left behind is said in one line by another one, which
has a moment for it.
"""

import contextlib
import os
import socket
import sys
import threading
from collections.abc import Iterator
from typing import Final

from muster.errors import Broken, MusterError
from muster.printable import visible

# `muster down` waits for 40 s. An agent has 15 s to end, and what the daemon does beside it 10 s.
END_S: Final = 30.0
# Once all is closed: the time to print why it ended.
AFTER_S: Final = 2.0
SAYING_S: Final = 1.0
# Of that many threads it is said what they are at.
_NAMED_MAX: Final = 8


class Ending:
    """See the rules at the top of this file. The process ends, whoever begins this."""

    def __init__(self) -> None:
        self._begun = False
        self._code = Broken.exit_code
        self._closed = threading.Event()

    def begin(self) -> None:
        """It was told to end. Idempotent."""
        if not self._begun:
            self._begun = True
            threading.Thread(target=self._watch, name="muster-ending", daemon=True).start()

    def closed(self, code: int) -> None:
        """All is closed: nothing of it is missed when the process ends with this code."""
        self._code = code
        self._closed.set()
        self.begin()

    @contextlib.contextmanager
    def bounded(self) -> Iterator["Ending"]:
        """The life of the daemon; after it the process has a moment to end by itself."""
        code = Broken.exit_code
        try:
            yield self
            code = 0
        except MusterError as error:
            code = error.exit_code
            raise
        finally:
            self.closed(code)

    def _watch(self) -> None:
        never = threading.Event()
        if self._closed.wait(END_S):
            never.wait(AFTER_S)
        try:
            # The disk of the log may be what hangs.
            saying = threading.Thread(target=_say, args=(_left(),), daemon=True)
            saying.start()
            saying.join(SAYING_S)
        finally:
            os._exit(self._code)


def _say(left: str) -> None:
    with contextlib.suppress(OSError, ValueError):
        sys.stderr.write(f"muster: it ends without waiting for {left}\n")
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


def notify(watched: str, word: str) -> None:
    """Tell systemd, where it started us, how far we are: sd_notify(3)."""
    if watched:
        place = f"\0{watched[1:]}" if watched.startswith("@") else watched
        with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as out, contextlib.suppress(OSError):
            out.sendto(word.encode(), place)
