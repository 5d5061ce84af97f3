"""Which machine failed at what, and for how long it is put last for it.

Rule 1: a fault is a machine's, of one part of it: an agent that is absent or not logged in, its
        copy of a repository, or the machine as a whole. It is no task's fault and costs no retry.
Rule 2: whoever failed comes after everybody who did not, however busy they are: a machine that
        fails at once would else take every task. Where nobody else fits it is asked all the same.
Rule 3: it is forgotten with the first success at that part, when the machine starts anew, when a
        person says "now", and by time: each fault in a row doubles the time.

Kept in memory alone: what an owner forgets by a restart costs one attempt that fails at once.
"""

from collections.abc import Iterable
from typing import Final, NamedTuple

from muster import limits

MACHINE: Final = "machine"
# The codes of refusals that a worker gives for a fault of its own, and what it is about.
CODES: Final = {"fault-agent": "agent", "fault-repo": "repo", "fault-machine": MACHINE}


def code_of(part: str) -> str:
    """The refusal's code for `agent`, `repo` or `machine`."""
    return f"fault-{part}"


def part_of(code: str, agent: str, repo: str) -> str:
    """What failed, as a key of `Faults`; "" where the refusal is none."""
    kind = CODES.get(code, "")
    return {"agent": f"agent:{agent}", "repo": f"repo:{repo}"}.get(kind, kind)


def parts(agent: str, repo: str) -> tuple[str, ...]:
    """What an attempt needs of its machine; what it succeeded with when it is done."""
    return (f"agent:{agent}", *([f"repo:{repo}"] if repo else []), MACHINE)


class Fault(NamedTuple):
    """How often in a row, until when it counts (boot time), and what was said last.

    `lifted`: it does not count any more, but makes the next fault count longer.
    """

    times: int
    until_ms: int
    reason: str
    lifted: bool = False

    def __str__(self) -> str:
        again = "" if self.times == 1 else f" ({self.times} times in a row)"
        return f"{self.reason}{again}"


class Faults:
    """What is known against machines, by machine and part."""

    def __init__(self) -> None:
        self._known: dict[tuple[str, str], Fault] = {}

    def blame(self, machine: str, part: str, reason: str, now_ms: int) -> Fault:
        """The machine failed at that part."""
        key = (machine, part)
        before = self._known.pop(key, None)
        times = before.times + 1 if before is not None else 1
        lasts_ms = min(limits.FAULT_MS_MIN << min(times - 1, 16), limits.FAULT_MS_MAX)
        fault = self._known[key] = Fault(times, now_ms + lasts_ms, reason)
        if len(self._known) > limits.FAULTS_MAX:
            del self._known[next(iter(self._known))]
        return fault

    def lift(self, machine: str, part: str) -> None:
        """Its time is over: it is asked like everybody, but not forgotten."""
        if (known := self._known.get((machine, part))) is not None:
            self._known[machine, part] = known._replace(lifted=True)

    def forget(self, machine: str, which: Iterable[str] | None = None) -> list[str]:
        """It is as good as new, at these parts or at all; at which of them it was not."""
        found = [p for m, p in self._known if m == machine and (which is None or p in which)]
        for part in found:
            del self._known[machine, part]
        return found

    def machines(self) -> list[str]:
        """Those against whom anything is known."""
        return list(dict.fromkeys(machine for machine, _ in self._known))

    def of(self, machine: str) -> dict[str, str]:
        """What counts against a machine now, in words, by part."""
        return {
            part: str(fault)
            for (name, part), fault in self._known.items()
            if name == machine and not fault.lifted
        }
