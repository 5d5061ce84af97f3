"""That this process is told to end, heard by a thread: the loop may hang in a call of the system.

Rule 1: Python runs a handler in the main thread alone, between two of its steps. What the
interpreter writes into a pipe as the signal comes is read here at once, whatever that thread is at.
Rule 2: where the main thread waits in the kernel, as for a disk that is gone, not even that is
written: Linux gives a signal to that thread first, which does not take it. So it is looked whether
one still waits.
"""

import contextlib
import os
import selectors
import signal
import threading
from collections.abc import Callable, Iterator
from typing import Final

_ENDS: Final = frozenset({signal.SIGTERM, signal.SIGINT})
_LOOK_S: Final = 2.0
_OVER: Final = b"\0"


@contextlib.contextmanager
def heard(told: Callable[[], None]) -> Iterator[None]:
    """Meanwhile `told` is called when the process is to end, in a thread that it may not hold up.

    Inside of a running loop, which else has the pipe for itself.
    """
    if os.name != "posix":
        # Ctrl-C ends the process as it always does.
        yield
        return
    reading, writing = os.pipe()
    for each in (reading, writing):
        os.set_blocking(each, False)
    before = {number: signal.signal(number, _taken_note_of) for number in _ENDS}
    loops = signal.set_wakeup_fd(writing, warn_on_full_buffer=False)
    listening = threading.Thread(
        target=_listen, args=(reading, told), name="muster-signals", daemon=True
    )
    listening.start()
    try:
        yield
    finally:
        signal.set_wakeup_fd(loops)
        for number, handler in before.items():
            signal.signal(number, handler)
        os.write(writing, _OVER)
        listening.join()
        os.close(reading)
        os.close(writing)


def _taken_note_of(_number: int, _frame: object) -> None:
    """Without a handler of Python nothing is written into the pipe."""


def _listen(reading: int, told: Callable[[], None]) -> None:
    with selectors.DefaultSelector() as selector:
        selector.register(reading, selectors.EVENT_READ)
        while True:
            came = os.read(reading, 64) if selector.select(_LOOK_S) else b""
            if _OVER in came:
                return
            if not _ENDS.isdisjoint(came) or _waits():
                told()


def _waits() -> bool:
    """Whether the process was told to end and no thread has taken note of it; then it has now."""
    # macOS has no such call: there, what hangs in the kernel is ended by `kill -9`.
    wait = getattr(signal, "sigtimedwait", None)
    return wait is not None and wait(_ENDS, 0) is not None
