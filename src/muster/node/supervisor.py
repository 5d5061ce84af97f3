"""The one place that catches everything: tasks of the daemon that must not end it.

Rule 1: a mistake of ours in one task is counted by name, reported with its traceback to the
daemon's own log, and ends that task only; what must never end is begun again. Only a step of the
core that meets a failing disk ends the daemon. After a mistake in a step that no guard caught, the
daemon begins anew from the store.
Rule 2: nobody else in Muster writes `except Exception`.
"""

import asyncio
import contextlib
import sys
import traceback
from collections.abc import AsyncIterator, Callable, Coroutine
from typing import Any, Final, TypeVar

from muster.errors import USED_UP, Broken, Exhausted, MusterError
from muster.node.counter import DECLARED, Counts, labelled
from muster.node.link import sentence
from muster.printable import visible

DECLARED[__name__] = {
    "step-failed": "A step of the core failed, and no guard caught it.",
    "background-<task>-<error>": "A task of the daemon failed; what must not end is begun again.",
}

T = TypeVar("T")

# The first pause before what failed begins again, and the longest; it doubles in between.
AGAIN_S_MIN: Final = 0.5
AGAIN_S_MAX: Final = 30.0


class Supervisor:
    """Runs tasks by name; `fatal` is called when the daemon must stop, `anew` to begin again."""

    def __init__(
        self, counters: Counts, fatal: Callable[[str], None], anew: Callable[[str], None]
    ) -> None:
        self._counters = counters
        self._fatal = fatal
        self._anew = anew
        self._tasks: set[asyncio.Task[Any]] = set()

    def run(self, name: str, work: Coroutine[Any, Any, Any]) -> "asyncio.Task[Any]":
        """Start `work`; how it ends is looked after here."""
        task = asyncio.get_running_loop().create_task(self._guard(name, work), name=name)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        # What was cancelled before its first turn never began, and is not to be missed.
        task.add_done_callback(lambda _: work.close())
        return task

    def keep(self, name: str, make: Callable[[], Coroutine[Any, Any, Any]]) -> "asyncio.Task[Any]":
        """Run what must not end before it says so: after a failure it begins again, in a while."""
        return self.run(name, self._keep(name, make))

    async def _keep(self, name: str, make: Callable[[], Coroutine[Any, Any, Any]]) -> None:
        pause_s = AGAIN_S_MIN
        loop = asyncio.get_running_loop()
        while True:
            began = loop.time()
            if await self._guard(name, make()):
                return
            if loop.time() - began > AGAIN_S_MAX:
                pause_s = AGAIN_S_MIN
            await asyncio.sleep(pause_s)
            pause_s = min(2 * pause_s, AGAIN_S_MAX)

    def step(self, work: Callable[[], T]) -> T | None:
        """Do one step of the core; None after it failed.

        Its transaction was undone and its memory no longer fits the store: only a fresh start
        is right. What was not answered is asked again, and every message may come twice.
        Raises: Exhausted: the disk is full; the step is whole, and waits for room.
        """
        try:
            return work()
        except Exhausted:
            raise
        except Broken as error:
            self._counters["step-failed"] += 1
            self._fatal(str(error))
        except Exception:  # noqa: BLE001 - this is the one supervisor
            self._counters["step-failed"] += 1
            self._anew(f"a step failed, and that is our mistake:\n{traceback.format_exc()}")
        return None

    async def _guard(self, name: str, work: Coroutine[Any, Any, Any]) -> bool:
        """Whether it ended by itself."""
        try:
            await work
        except asyncio.CancelledError:
            raise
        except MusterError as error:
            self._counters[labelled("background", name, error)] += 1
            # A peer chooses the reason of its close: one line of it, and no control characters.
            say(sentence(f"{name}: {error}"))
        except Exception:  # noqa: BLE001 - this is the one supervisor
            self._counters[labelled("background", name, "failed")] += 1
            say(f"{name} failed, and that is our mistake:\n{traceback.format_exc()}")
        else:
            return True
        return False

    @contextlib.asynccontextmanager
    async def attempt(self, name: str) -> AsyncIterator[None]:
        """One round of work that is done again anyway: a refusal in it ends this round only."""
        try:
            yield
        except MusterError as error:
            self._counters[labelled("background", name, error)] += 1
            say(sentence(f"{name}: {error}"))
        except OSError as error:
            if error.errno not in USED_UP:
                raise
            self._counters[labelled("background", name, "exhausted")] += 1
            say(sentence(f"{name}: {error}; it is tried again"))

    async def stop(self) -> None:
        """End every task and wait for it."""
        tasks = [t for t in self._tasks if t is not asyncio.current_task()]
        for task in tasks:
            task.cancel()
        if tasks:
            await asyncio.wait(tasks, timeout=10)


def say(text: str) -> None:
    """A line in the daemon's own log, which is its standard error."""
    # A full disk must not end whoever wants to say that it is full.
    with contextlib.suppress(OSError):
        sys.stderr.write(f"{visible(text)}\n")
        sys.stderr.flush()
