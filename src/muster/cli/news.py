"""What a daemon tells while somebody looks: read beside the clocks of whoever shows it.

Rule: many changes at once are one picture, so what comes within a moment is taken together.
"""

import contextlib
import queue
import signal
import threading
import time
from collections.abc import Iterator
from typing import Any, Final

from muster.errors import MusterError

# Nobody sees more pictures of it in a second.
PAUSE_S: Final = 0.05
# A few megabytes; more than a daemon keeps for one reader would be kept twice.
NEWS_MAX: Final = 10_000


@contextlib.contextmanager
def listening(changes: Iterator[Any]) -> Iterator["queue.SimpleQueue[Any]"]:
    """What is told, as it comes: read beside the clock. Also {} for another size of the terminal;
    at last what went wrong, or None.
    """
    news: queue.SimpleQueue[Any] = queue.SimpleQueue()

    def read() -> None:
        wrong: Exception | None = None
        try:
            for told in changes:
                news.put(told)
                while news.qsize() >= NEWS_MAX:
                    # A terminal that was stopped takes nothing: whoever tells waits, and keeps
                    # what it has room for.
                    time.sleep(PAUSE_S)
        except (MusterError, OSError) as error:
            wrong = error
        finally:
            news.put(wrong)

    # One of several machines has no terminal of its own, and is not the thread that hears signals.
    alone = threading.current_thread() is threading.main_thread()
    before = signal.signal(signal.SIGWINCH, lambda *_: news.put({})) if alone else None
    threading.Thread(target=read, daemon=True).start()
    try:
        yield news
    finally:
        if alone:
            signal.signal(signal.SIGWINCH, before)


def changed(news: "queue.SimpleQueue[Any]", wait_s: float | None) -> bool | None:
    """Whether something did, within this time; None where nothing more is told. Raises: why."""
    found, heard = False, []
    # Nothing came within the time, or no more is there now.
    with contextlib.suppress(queue.Empty):
        heard.append(news.get(timeout=wait_s))
        time.sleep(PAUSE_S)
        while True:
            heard.append(news.get_nowait())
    for each in heard:
        if isinstance(each, BaseException):
            raise each
        if each is None:
            return None
        # {}: the terminal has another size, and nothing else is new.
        found = found or bool(each)
    return found
