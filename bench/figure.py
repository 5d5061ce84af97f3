"""A promised number: what was measured, beside what was promised."""

import statistics
from collections.abc import Sequence
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Figure:
    """One line of the table. `upper`: the value must not exceed the promise; else not be below."""

    name: str
    value: float
    promise: float
    raw: str
    target: float | None = None
    unit: str = "x"
    upper: bool = True

    @property
    def kept(self) -> bool:
        return self._reaches(self.promise)

    def _reaches(self, bound: float) -> bool:
        return self.value <= bound if self.upper else self.value >= bound

    def line(self) -> str:
        sign = "<=" if self.upper else ">="
        verdict = "PASS" if self.kept else "MISS"
        if self.target is not None and self._reaches(self.target):
            verdict = "PASS+"
        target = "" if self.target is None else f" (target {_short(self.target)})"
        promised = f"{sign} {_short(self.promise)} {self.unit}{target}"
        measured = f"{_short(self.value):>10} {self.unit:4}"
        return f"{verdict:6}{self.name:54}{measured} {promised:30} {self.raw}"


def _short(number: float) -> str:
    if abs(number) >= 100:
        return f"{number:,.0f}"
    return f"{number:.2f}" if abs(number) >= 1 else f"{number:.3f}"


def p50(times: Sequence[float]) -> float:
    return statistics.median(times)


def p99(times: Sequence[float]) -> float:
    return sorted(times)[max(0, round(len(times) * 0.99) - 1)]


def ratio(ours: Sequence[float], theirs: Sequence[float]) -> float:
    """The median over rounds of what each round gave: drift of the machine hits both alike."""
    return statistics.median(a / b for a, b in zip(ours, theirs, strict=True))
