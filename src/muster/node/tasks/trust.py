"""What agents on machines did reliably, as this machine knows it: `task/trust.py` over the log.

Rule 1: what we decide by is what we settled ourselves, as the owner: where work goes, and whether a
person need not be asked. What other owners say is theirs: it is shown and decides nothing.
Rule 2: of an owner only tasks count that an operator ordered of that owner (ownership.py), each
attempt once, in the order of its log.
Rule 3: nothing is kept that the tables do not say: it is counted from them once, and then goes on
with each entry of ours.
"""

import asyncio
from collections.abc import Collection, Iterable, Sequence
from typing import TYPE_CHECKING, Any, Final

from muster.limits import TRUST_RULE_MAX, TRUST_SHOWN_MAX
from muster.log.entry import Entry
from muster.log.fold import body_or_none
from muster.log.stream import FLEET, FleetId, MachineId, StreamName
from muster.node import event as ev
from muster.node.part import Part
from muster.node.tasks.ownership import Ownership
from muster.store.table_reader import ROWS_MAX
from muster.task.fold import TASK
from muster.task.kinds import KINDS
from muster.task.trust import (
    CHECKABLE,
    CHECKED,
    NOTHING_KNOWN,
    PASSED,
    CheckedRow,
    Standing,
    TrustFold,
)

if TYPE_CHECKING:
    from muster.node.core import Core

Who = tuple[str, str]
# To ask whose so many tasks are takes about ten milliseconds.
_ROWS: Final = 50


class Trust(Part):
    name = "trust"

    def __init__(self, core: "Core") -> None:
        self.core = core
        # None before the tables were counted.
        self._own: dict[Who, Standing] | None = None
        # Up to which entry of our present stream.
        self._upto = -1
        for kind in ("task.retry", "task.settle"):
            core.on(kind, self._on_result)
        core.on(ev.MemoryDoubtful, lambda _event: self._forget())
        core.on(ev.NewIncarnation, lambda _event: self._forget())

    @staticmethod
    def folds(fleet: FleetId) -> Sequence[Any]:  # noqa: ARG004 - as of every part
        return (TrustFold(),)

    def of(self, machine: str, agent: str) -> Standing:
        """What we settled ourselves of this agent's results."""
        if self._own is None:
            rows = self._of_owner(self.core.machine)
            own = self.core.membership.own(FLEET)
            self._own = _counted(rows)
            self._upto = max((row.seq for row in rows if row.stream == own), default=-1)
        return self._own.get((machine, agent), NOTHING_KNOWN)

    def without(self, tasks: Collection[str]) -> dict[Who, Standing]:
        """The same of every agent, but for what passed in these tasks: no run speaks for itself.

        By the newest results alone: whoever did nothing for long has none.
        """
        rows = self._of_owner(self.core.machine, limit=TRUST_RULE_MAX)
        return _counted(row for row in rows if row.outcome != PASSED or row.task not in tasks)

    async def everywhere(self) -> dict[Who, Standing]:
        """The same of all owners together, for people, in the order in which it happened: the
        newest results of each. Others have their turn meanwhile.
        """
        ownership, me = self.core.part(Ownership), self.core.machine
        every: list[CheckedRow] = []
        for writer in {stream.machine for stream in self.core.log.streams()}:
            await asyncio.sleep(0)
            for number, row in enumerate(self._of_owner(writer, limit=TRUST_SHOWN_MAX)):
                if number % _ROWS == _ROWS - 1:
                    await asyncio.sleep(0)
                if writer in (me, ownership.owner(TASK, row.task)):
                    every.append(row)
        return _counted(sorted(every, key=lambda r: (r.at_ms, r.stream, r.seq)))

    def _of_owner(self, writer: MachineId, limit: int = ROWS_MAX) -> list[CheckedRow]:
        """What an owner's streams say, each attempt once: what it began anew it may say again."""
        order = ("-at_ms", "-seq")
        rows = self.core.tables.rows(CHECKED, writer=writer, order=order, limit=limit)
        once: dict[tuple[str, int, int], CheckedRow] = {}
        for row in reversed(rows):
            once.setdefault((row.task, row.epoch_order, row.epoch_count), row)
        return list(once.values())

    def _forget(self) -> None:
        self._own = None

    def _on_result(self, stream: StreamName, entry: Entry) -> None:
        """An entry of ours may be a result: of its task, or of the one that this one reviews."""
        if stream.machine != self.core.machine or self._own is None:
            return
        if stream != self.core.membership.own(stream.scope):
            # An earlier stream of ours came back: what it says came before.
            self._forget()
            return
        body = body_or_none(entry, KINDS[entry.header.kind])
        task = str(getattr(body, "task", ""))
        known = self.core.tables.rows(CHECKABLE, stream=stream, task=task)
        for about in (task, *(row.judged for row in known if row.judged)):
            for row in self.core.tables.rows(CHECKED, stream=stream, task=about):
                if row.seq == entry.header.seq > self._upto:
                    who = (row.machine, row.agent)
                    self._own[who] = self._own.get(who, NOTHING_KNOWN).after(row.outcome)


def _counted(rows: Iterable[CheckedRow]) -> dict[Who, Standing]:
    found: dict[Who, Standing] = {}
    for row in rows:
        who = (row.machine, row.agent)
        found[who] = found.get(who, NOTHING_KNOWN).after(row.outcome)
    return found
