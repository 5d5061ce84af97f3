"""What agents on machines did reliably, as this machine knows it: `task/trust.py` over the log.

Rule 1: what we decide by is what we settled ourselves, as the owner: where work goes, and whether a
person need not be asked. What other owners say is theirs: it is shown and decides nothing.
Rule 2: of an owner only tasks count that an operator ordered of that owner (ownership.py), each
attempt once, in the order of its log.
Rule 3: nothing is kept that the tables do not say: of each agent on a machine it is counted from
them once, and then goes on with each entry of ours.
Rule 4: the newest results of each agent on a machine are looked at, so that nobody who does much
crowds out whoever does little.
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
from muster.task.fold import TASK, of_attempt
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
        # Of whom the tables were counted, and up to which entry of our present stream.
        self._own: dict[Who, tuple[Standing, int]] = {}
        for kind in ("task.retry", "task.settle"):
            core.on(kind, self._on_result)
        core.on(ev.MemoryDoubtful, lambda _event: self._forget())
        core.on(ev.NewIncarnation, lambda _event: self._forget())

    @staticmethod
    def folds(fleet: FleetId) -> Sequence[Any]:  # noqa: ARG004 - as of every part
        return (TrustFold(),)

    def of(self, machine: str, agent: str) -> Standing:
        """What we settled ourselves of this agent's results."""
        who = (machine, agent)
        if who not in self._own:
            rows = self._of_owner(self.core.machine, TRUST_RULE_MAX, who)
            upto = self.core.log.size(self.core.membership.own(FLEET))
            self._own[who] = (_counted(rows).get(who, NOTHING_KNOWN), upto)
        return self._own[who][0]

    def without(self, tasks: Collection[str], asked: Iterable[Who]) -> dict[Who, Standing]:
        """The same of these agents, but for what passed in these tasks: no run speaks for itself.

        By the newest results alone: whoever did nothing for long has none.
        """
        own, found = frozenset(tasks), dict[Who, Standing]()
        for who in asked:
            rows = self._of_owner(self.core.machine, TRUST_RULE_MAX, who)
            found |= _counted(r for r in rows if r.outcome != PASSED or r.task not in own)
        return found

    async def everywhere(self, asked: Collection[Who] = ()) -> dict[Who, Standing]:
        """The same of all owners together, for people, in the order in which it happened: the
        newest results of each, and of whom is asked for and has none among these the newest of
        theirs. Others have their turn meanwhile.
        """
        found = await self._shown(None)
        for who in sorted(set(asked) - found.keys()):
            found |= await self._shown(who)
        return found

    async def _shown(self, who: Who | None) -> dict[Who, Standing]:
        ownership, me = self.core.part(Ownership), self.core.machine
        every: list[CheckedRow] = []
        most = TRUST_SHOWN_MAX if who is None else _ROWS
        for writer in {stream.machine for stream in self.core.log.streams()}:
            await asyncio.sleep(0)
            for number, row in enumerate(self._of_owner(writer, most, who)):
                if number % _ROWS == _ROWS - 1:
                    await asyncio.sleep(0)
                if writer in (me, ownership.owner(TASK, row.task)):
                    every.append(row)
        return _counted(sorted(every, key=lambda r: (r.at_ms, r.stream, r.seq)))

    def _of_owner(self, writer: MachineId, limit: int, who: Who | None) -> list[CheckedRow]:
        """The newest that an owner's streams say, of one or of all: each attempt once, for what it
        began anew it may say again.
        """
        order = ("-at_ms", "-seq")
        only: dict[str, Any] = {} if who is None else {"machine": who[0], "agent": who[1]}
        rows = self.core.tables.rows(CHECKED, writer=writer, order=order, limit=limit, **only)
        once: dict[tuple[str, int, int], CheckedRow] = {}
        for row in reversed(rows):
            once.setdefault((row.task, row.epoch_order, row.epoch_count), row)
        return list(once.values())

    def _forget(self) -> None:
        self._own.clear()

    def _on_result(self, stream: StreamName, entry: Entry) -> None:
        """An entry of ours may be a result: of its task, or of the one that this one reviews."""
        if stream.machine != self.core.machine or not self._own:
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
                self._add(row, entry.header.seq)

    def _add(self, row: CheckedRow, seq: int) -> None:
        """Count what this entry of our present stream says, once for each attempt."""
        who, tables = (row.machine, row.agent), self.core.tables
        standing, upto = self._own.get(who, (NOTHING_KNOWN, row.seq + 1))
        if row.seq != seq or seq < upto:
            return
        attempt = of_attempt(row.task, (row.epoch_order, row.epoch_count))
        if len(tables.rows(CHECKED, writer=self.core.machine, limit=2, **attempt)) > 1:
            # It was said in an earlier stream of ours, before we began anew.
            return
        standing = standing.after(row.outcome)
        if standing.passed + standing.failed > TRUST_RULE_MAX:
            # The oldest no longer counts, as it would not after a start.
            del self._own[who]
        else:
            self._own[who] = (standing, upto)


def _counted(rows: Iterable[CheckedRow]) -> dict[Who, Standing]:
    found: dict[Who, Standing] = {}
    for row in rows:
        who = (row.machine, row.agent)
        found[who] = found.get(who, NOTHING_KNOWN).after(row.outcome)
    return found
