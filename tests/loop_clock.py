"""A loop whose clock is turned by what waits: an hour of waiting passes at once.

    LoopClock.run(scenario())

Nothing here may wait for anything outside of the process: there is no such time.
"""

import asyncio
import selectors
from collections.abc import Coroutine
from typing import Any, TypeVar

T = TypeVar("T")


class LoopClock(asyncio.SelectorEventLoop):
    """Its time stands while something can run, and is that of the next timer where nothing can."""

    def __init__(self) -> None:
        self.now_s = 0.0
        super().__init__(_Turning(self))

    def time(self) -> float:
        return self.now_s

    @classmethod
    def run(cls, scenario: Coroutine[Any, Any, T]) -> T:
        with asyncio.Runner(loop_factory=cls) as runner:
            return runner.run(scenario)


class _Turning(selectors.SelectSelector):
    def __init__(self, clock: LoopClock) -> None:
        super().__init__()
        self._clock = clock

    def select(self, timeout: float | None = None) -> list[tuple[selectors.SelectorKey, int]]:
        ready = super().select(0)
        if not ready:
            assert timeout is not None, "everybody waits, and nothing will happen"
            self._clock.now_s += max(0.0, timeout)
        return ready
