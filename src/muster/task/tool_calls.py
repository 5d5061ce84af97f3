"""Calls of an agent's tools: one that is open, and equal ones that follow each other."""

import json
from typing import Final

# How tools name how long they may take; a greater number is no time.
_LIMITS: Final = ("timeout", "timeout_ms", "timeoutMs", "timeout_s", "timeout_seconds")
_ALLOWED_MAX: Final = 10**9


class ToolCall:
    """A call of a tool that is open."""

    def __init__(self, at_s: float) -> None:
        self.at_s = at_s
        self.what = ""
        self.kind = ""
        self.input = ""
        self.allowed_s = 0.0


class EqualCalls:
    """Equal calls, one after the other."""

    def __init__(self) -> None:
        self.call = self.answer = ""
        self.times = self.same = 0
        self.began_s = 0.0

    def add(self, call: str, answer: str, now_s: float) -> None:
        """One more has ended; another call begins a row of its own."""
        if call != self.call:
            self.times, self.began_s = 0, now_s
        self.same = self.same + 1 if self.times and answer == self.answer else 1
        self.call, self.answer = call, answer
        self.times += 1


def allowed_s(text: str) -> float:
    """How long a tool may take by its own input, where that says so: as the longer reading."""
    try:
        found = json.loads(text)
    except (ValueError, RecursionError):
        return 0.0
    named = [found.get(name) for name in _LIMITS] if isinstance(found, dict) else []
    numbers = [n for n in named if isinstance(n, int | float) and not isinstance(n, bool)]
    numbers = [n for n in numbers if 0 < n <= _ALLOWED_MAX]
    return max((n if n < 10_000 else n / 1000 for n in numbers), default=0.0)
