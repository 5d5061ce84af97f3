"""What an owner holds against machines, and how it reaches the queue: fault.py says the rules.

Each move keeps three things in step: what is known, the alarm that ends it, and the verdicts of
the queue.
"""

from collections.abc import Callable, Iterable

import msgspec

from muster import limits
from muster.task.alarms import Alarms
from muster.task.fault import Fault
from muster.task.instruction import MachineFault, MachineMended, Now
from muster.task.queue import Queue
from muster.task.route import Machine

Say = Callable[[MachineFault | MachineMended], None]


class Reputation:
    """See the top of this file; `say` is told what a person should hear."""

    def __init__(self, queue: Queue, alarms: Alarms, say: Say) -> None:
        self._queue = queue
        self._alarms = alarms
        self._say = say
        # By machine and part.
        self._faults: dict[tuple[str, str], Fault] = {}

    def blame(self, machine: str, part: str, reason: str, now: Now) -> None:
        """The machine comes after all others for what needs this part of it, for a while."""
        reason = reason[: limits.REASON_CHARS_MAX]
        before = self._faults.pop((machine, part), None)
        times = 1 if before is None else before.times + 1
        self._faults[machine, part] = Fault(times, reason)
        if len(self._faults) > limits.FAULTS_MAX:
            del self._faults[next(iter(self._faults))]
        lasts_ms = min(limits.FAULT_MS_MIN << min(times - 1, 16), limits.FAULT_MS_MAX)
        self._alarms.set(f"fault/{machine}/{part}", now.boot_ms + lasts_ms)
        self._judge_again(machine)
        if times == 1:
            self._say(MachineFault(machine, part, reason))

    def absolve(self, machine: str, parts: Iterable[str] | None = None) -> None:
        """It did it, or started anew: nothing is held against it, at these parts or at all."""
        known = [part for name, part in self._faults if name == machine]
        found = [part for part in known if parts is None or part in parts]
        for part in found:
            del self._faults[machine, part]
            self._alarms.clear(f"fault/{machine}/{part}")
            self._say(MachineMended(machine, part))
        if found:
            self._judge_again(machine)

    def lift(self, name: str) -> None:
        """The alarm of this machine and part rang: it is asked like everybody, not forgotten."""
        machine, _, part = name.partition("/")
        if (known := self._faults.get((machine, part))) is not None:
            self._faults[machine, part] = known._replace(lifted=True)
        self._judge_again(machine)

    def known(self) -> dict[str, list[str]]:
        """What is held against machines: parts by machine."""
        machines = dict.fromkeys(machine for machine, _ in self._faults)
        return {machine: list(self._against(machine)) for machine in machines}

    def as_known(self, machine: Machine) -> Machine:
        """The machine with what is held against it here, whatever it says of itself."""
        return msgspec.structs.replace(machine, faults=self._against(machine.id))

    def _against(self, machine: str) -> dict[str, str]:
        """What counts against a machine now, in words, by part."""
        return {
            part: str(fault)
            for (name, part), fault in self._faults.items()
            if name == machine and not fault.lifted
        }

    def _judge_again(self, machine: str) -> None:
        known = self._queue.machines.get(machine)
        if known is not None:
            self._queue.machine_up(self.as_known(known))
