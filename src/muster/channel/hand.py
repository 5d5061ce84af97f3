"""One thread for what may hang: the files of one place, which can be another machine's disk.

Rule 1: what hangs keeps this thread and nobody else: the threads of the daemon are not for it, and
nothing waits for this one, the end of the process least of all.
Rule 2: who asked is told so after a while, and who asks meanwhile is told at once, until it came
back. What was begun may yet be done.
"""

import asyncio
import contextlib
import threading
from collections.abc import Callable
from queue import SimpleQueue
from typing import Any, Final, TypeVar

from muster.errors import MISTAKES, Exhausted, MusterError, Silent, Unreachable

T = TypeVar("T")

# Chosen arbitrarily: longer than a slow stick takes for the largest packet.
HANGS_S: Final = 30.0


class Hand:
    """See the rules at the top of this file. `what` is named where it hangs."""

    def __init__(self, what: str, thread: str) -> None:
        self._what = what
        self._thread = thread
        self._begun = False
        self._closed = False
        self._hangs = False
        self._work: SimpleQueue[Callable[[], None] | None] = SimpleQueue()
        self._turn = asyncio.Lock()

    async def do(self, work: Callable[[], T]) -> T:
        """What the work returns or raises. Raises also: Silent, while the thread hangs."""
        async with self._turn:
            if self._hangs:
                raise Silent(f"{self._what} does not answer; what was begun there still waits")
            if self._closed:
                raise Unreachable(f"{self._what} is closed")
            if not self._begun:
                self._begun = True
                threading.Thread(target=self._run, name=self._thread, daemon=True).start()
            loop = asyncio.get_running_loop()
            came: asyncio.Future[T] = loop.create_future()
            self._work.put(lambda: self._answer(loop, came, work))
            try:
                async with asyncio.timeout(HANGS_S):
                    return await came
            except TimeoutError as error:
                self._hangs = True
                raise Silent(
                    f"{self._what} has not answered within {HANGS_S:g} s: it hangs"
                ) from error

    def close(self) -> None:
        """The thread ends as soon as it can; nobody waits for it. Idempotent."""
        self._closed = True
        self._work.put(None)

    def _run(self) -> None:
        while (work := self._work.get()) is not None:
            work()

    def _answer(
        self, loop: asyncio.AbstractEventLoop, came: "asyncio.Future[T]", work: Callable[[], T]
    ) -> None:
        """Do the work on the thread, and tell the loop."""
        failed: Exception | None = None
        result: Any = None
        try:
            result = work()
        except (OSError, MusterError, *MISTAKES) as error:
            # Whoever asked gets it.
            failed = error
        except MemoryError:
            # It is told to whoever asked, like every error of such a work.
            failed = Exhausted(f"there is no memory for what lies in {self._what}; try again later")

        def tell() -> None:
            self._hangs = False
            if came.done():
                return
            if failed is None:
                came.set_result(result)
            else:
                came.set_exception(failed)

        with contextlib.suppress(RuntimeError):
            # The loop may have ended while this hung: nobody asks any more.
            loop.call_soon_threadsafe(tell)
