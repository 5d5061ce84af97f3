"""Whose a task or a run is, and so whose rows about it are shown and counted.

Rule 1: any machine can write any id into its own stream. A task or run is of the machine whose
opening leads to an operator's order to that very machine.
Rule 2: of several such machines it is the one that the id itself names (`task/identity.py`); for
ids of older machines the one whose opening was admitted here first, and our own before any.
Rule 3: only the rows of the owner's streams speak. What the others wrote is a claim: it is shown as
one, with the name of who makes it, and counts for nothing.
Rule 4: an id behind which there is no order is nobody's. It is in no list. What came here after
its key was shut out has no order behind it, whatever date it bears (call/shut_out.py).
Rule 5: one order is one run, whatever its owner calls it (one_run.py): another is nobody's.
Rule 6: what another machine took over by an operator's order (task/adoption.py) is that one's: of
several who did, the one with the highest generation. What the others write of it is a claim.
Rule 7: a list is cut for each writer by itself, after the claims were taken out: whoever writes
much does not crowd out what others wrote.
"""

import json
from collections.abc import Iterable
from operator import attrgetter
from typing import TYPE_CHECKING, Any, Final, Generic, NamedTuple

from muster.fleet.statement import Statement
from muster.limits import ATTEMPTS_OF_TASK_MAX
from muster.log.entry import Entry
from muster.log.fold import Table, body_or_none
from muster.log.stream import FLEET, StreamName
from muster.node.call.shut_out import is_after, was_told
from muster.node.counter import DECLARED, labelled
from muster.node.part import Part
from muster.node.tasks.asking import Asking
from muster.node.tasks.ended_work import shown
from muster.node.tasks.one_run import doubled
from muster.node.verb import Turns
from muster.task import fold
from muster.task.causes import Unproven
from muster.task.evidence import Known, check_ordered
from muster.task.fold import ADOPTION, ATTEMPT, RUN, TASK, AttemptRow, RunRow, TaskRow, Work
from muster.task.kinds import RunOpen, TaskAssign, TaskOpen

if TYPE_CHECKING:
    from muster.node.core import Core

DECLARED[__name__] = {
    "unproven-<reason>": "An assignment or a report is not backed by the orders it needs."
}

# Openings that were judged: many pages of a list. What is settled is asked for again and again by
# nobody, and may be judged again.
_JUDGED_MAX: Final = 20_000
# To judge one that is new takes a fifth of a millisecond: two signatures and what they cite.
_JUDGED_PER_TURN: Final = 100
# Ids of one writer that are looked at for one beginning: enough to know that it is not enough.
_ALIKE_MAX: Final = 8

# How sure it is that an opening's id is its writer's: lower is surer.
_CERTAIN: Final = 0
_ORDERED: Final = 1


class Held(NamedTuple, Generic[Work]):
    """A task or run of a machine: its newest row, and whether the id itself names the owner."""

    row: Work
    owner: str
    certain: bool


class _Rank(NamedTuple):
    """How sure an opening is its writer's, and the generation of the adoption behind it, if any."""

    sure: int
    generation: int = 0


class Listing(NamedTuple, Generic[Work]):
    """Rows, and whether there are more of them."""

    rows: list[Work]
    cut: bool


class Ownership(Part):
    name = "ownership"

    def __init__(self, core: "Core") -> None:
        self.core = core
        self._rank: dict[bytes, _Rank] = {}
        # Who wrote an opening of a task, and of which task and run it is.
        self._opened: dict[bytes, tuple[str, str, str]] = {}
        # The runs whose order held: a run's many tasks share one.
        self._known: Known = {}
        # Who was no operator may be known as one later: a no counts only as long as its roster.
        self._never: set[bytes] = set()
        self._roster: object = None
        core.on("run.open", self._on_open)

    def _on_open(self, _stream: StreamName, entry: Entry) -> None:
        """What was judged may be another's now: its order has begun a run in two streams.

        A run's tasks are nobody's with it. All else stays: anybody may write down any order.
        """
        body = body_or_none(entry, RunOpen)
        for opening in doubled(self.core, entry, body) if body is not None else ():
            self._rank.pop(opening, None)

    def judge_anew(self) -> None:
        """Who stands in for whom was ordered anew: what was adopted by that is looked at again."""
        self._rank = {key: rank for key, rank in self._rank.items() if not rank.generation}

    def owner(self, table: Table[Work], name: str) -> str | None:
        """The machine whose task or run this is; None when it is nobody's."""
        found = self._owner(self._rows(table, name))
        return None if found is None else found[0]

    def is_anothers(self, opened: TaskOpen, owner: str, *, certain: bool) -> bool:
        """Whether a task that one machine wants done is another one's.

        Looked into only where several wrote the id, or somebody took the work over: this is asked
        for nearly every assignment. What we assign ourselves is ours, whatever others wrote.
        """
        if owner == self.core.machine:
            return False
        if self.is_adopted(opened.run or opened.task):
            other = self.owner(RUN, opened.run) if opened.run else self.owner(TASK, opened.task)
            return other not in (None, owner)
        if certain or len(self.core.tables.writers(TASK, task=opened.task)) < 2:
            return False
        return self.owner(TASK, opened.task) not in (None, owner)

    def is_adopted(self, what: str) -> bool:
        """Whether any machine says that it goes on with a run or task of another's."""
        return bool(self.core.tables.rows(ADOPTION, what=what, limit=1))

    def ours(self, table: Table[Work], states: Iterable[str]) -> list[Work]:
        """Our rows in these states, without those of work that another machine goes on with."""
        me, rows = self.core.machine, self.core.tables.rows
        found = [row for state in sorted(states) for row in rows(table, writer=me, state=state)]
        adopted = {what for (what,) in self.core.tables.distinct(ADOPTION, ("what",))}
        named = adopted & {name for row in found for name in (row.run, row.id)}
        gone = {n for n in named if {self.owner(RUN, n), self.owner(TASK, n)} - {None, me}}
        return [row for row in found if not gone & {row.run, row.id}]

    def place(self) -> int:
        """The place of our present epochs: when this incarnation wrote its first entry, and above
        all that an earlier one gave, or that whoever's work we go on with is known to have given.
        """
        own, me, rows = self.core.membership.own(FLEET), self.core.machine, self.core.tables.rows
        first = self.core.log.slice(own, 0, 1)
        first_ms = first[0].stamp.ms if first else self.core.now.wall_ms
        newest = rows(TASK, writer=me, order=("-epoch_order",), limit=1)
        adopted = rows(ADOPTION, writer=me)
        earlier = [row.generation for row in adopted if row.stream != own]
        highest = max([*earlier, *(row.epoch_order for row in newest)], default=0)
        here = [row.generation for row in adopted if row.stream == own]
        return max(first_ms if first_ms >= highest else highest + 1, *here, 0)

    def held(self, table: Table[Work], name: str) -> Held[Work] | None:
        """The task or run of this id, as its owner has it."""
        return self._held(self._rows(table, name))

    def _held(self, rows: list[Work]) -> Held[Work] | None:
        found = self._owner(rows)
        if found is None:
            return None
        owner, rank = found
        its = (row for row in rows if row.stream.machine == owner)
        row = max(its, key=attrgetter("changed_ms"))
        return Held(shown(self.core, row), owner, rank.sure == _CERTAIN)

    def claims(self, table: Table[Work], name: str) -> list[Work]:
        """What other machines wrote about this id: their newest rows."""
        rows = self._rows(table, name)
        found = self._owner(rows)
        return newest(r for r in rows if found is None or r.stream.machine != found[0])

    def beginning(self, table: Table[Work], text: str) -> list[Held[Work]]:
        """The tasks or runs whose ids begin so; where an id names its owner, only such."""
        names, key = set[str](), table.name
        for writer in sorted({stream.machine for stream in self.core.log.streams()}):
            rows = self.core.tables.rows(
                table, writer=writer, begins={key: text}, order=(key,), limit=_ALIKE_MAX
            )
            names |= {row.id for row in rows}
        every = [self.held(table, name) for name in sorted(names)]
        found = [each for each in every if each is not None]
        # Nobody can choose an id that names its owner: who squats a beginning has other ones.
        sure = [each for each in found if each.certain]
        return sure or [each for each in found if each.owner == self.core.machine] or found

    def listing(
        self, table: Table[Work], limit: int, states: Iterable[str] = (), **equals: Any
    ) -> Turns[Listing[Work]]:
        """The newest tasks or runs that are somebody's, in these states (or in any)."""
        wanted = frozenset(states)
        rows: list[Work] = []
        cut = False
        # Work is written for the whole fleet: in no other stream is a task of anybody's.
        for stream in (each for each in self.core.log.streams() if each.scope == FLEET):
            for state in wanted or (None,):
                more = equals if state is None else {**equals, "state": state}
                found = self.core.tables.rows(
                    table, stream=stream, order=("-opened_ms",), limit=limit + 1, **more
                )
                cut = cut or len(found) > limit
                rows += found
        rows.sort(key=lambda row: (-row.opened_ms, row.id))
        first = {(row.stream.machine, row.id): row for row in reversed(rows)}
        if len(first) > _JUDGED_PER_TURN:
            yield
        # Those of these ids that several streams have a row of.
        names = json.dumps(sorted({name for _, name in first}))
        key = f"{table.name}.{table.name}"
        query = self.core.tables.query(
            f"select {key} from json_each(?) cross join {table.name} on {key} = value"  # noqa: S608 - a table
            " group by 1 having count(*) > 1",
            (names,),
        )
        several, listed = set(query), list[Work]()
        for number, ((writer, name), row) in enumerate(reversed(first.items()), 1):
            if number % _JUDGED_PER_TURN == 0:
                yield
            held = self._held(self._rows(table, name) if (name,) in several else [row])
            # A stream that ended says for ever what was so at its end; the newest row counts.
            if held is None or held.owner != writer or (wanted and held.row.state not in wanted):
                continue
            if len(listed) == limit:
                return Listing(listed, True)
            listed.append(held.row)
        return Listing(listed, cut)

    def assigned(self, entry: Entry, task: str, epoch: tuple[int, int]) -> bool:
        """Whether what a worker wrote of a task cites that its owner had given it the task."""
        owner = self.owner(TASK, task)
        return owner is not None and is_given(self.core, entry, owner, task, epoch)

    def attempts(self, task: str) -> list[AttemptRow]:
        """What workers wrote of their attempts at a task that its owner had given them."""
        found = []
        for row in self.core.tables.rows_of_each(
            ATTEMPT, ATTEMPTS_OF_TASK_MAX, ("started_ms",), task=task
        ):
            entry = self.core.log.entry(row.started or row.ended)
            if entry is not None and self.assigned(entry, task, row.epoch):
                found.append(row)
        return found

    # --- judging ----------------------------------------------------------------------------

    def _rows(self, table: Table[Work], name: str) -> list[Work]:
        return self.core.tables.rows(table, **{table.name: name})  # type: ignore[arg-type]

    def _owner(self, rows: Iterable[TaskRow | RunRow]) -> tuple[str, _Rank] | None:
        """The owner, and how sure that is."""
        found = []
        for row in rows:
            stream, opened = row.stream, row.opened
            rank = self._rank.get(opened)
            if rank is None:
                entry = self.core.log.entry(opened)
                rank = None if entry is None else self._judged(entry)
            ours = stream.machine == self.core.machine
            run = row.run if isinstance(row, TaskRow) else ""
            # Nobody has a task in another machine's run; nor we, where it was taken over.
            asks = bool(run) and (not ours or self.is_adopted(run))
            if rank is None or (asks and self.owner(RUN, run) != stream.machine):
                continue
            if isinstance(row, TaskRow) and not self._is_of(row):
                continue
            found.append((rank, not ours, stream, opened))
        if not found:
            return None
        if len({stream.machine for _, _, stream, _ in found}) == 1:
            # Nearly always: nobody else wrote this id.
            return str(found[0][2].machine), min(rank for rank, *_ in found)
        newest = max(rank.generation for rank, *_ in found)
        if newest:
            # Of those who took it over, under one place, it is the same one on every machine.
            machine = min(str(s.machine) for rank, _, s, _ in found if rank.generation == newest)
            return machine, min(r for r, _, s, _ in found if s.machine == machine)
        rank, _, _, machine = min(
            (rank, theirs, self._admitted(opened), str(stream.machine))
            for rank, theirs, stream, opened in found
        )
        return machine, rank

    def _is_of(self, row: TaskRow) -> bool:
        """Whether a row is of just the task that its opening opened.

        What a machine inherited is judged by another one's opening, which it chose: it has such
        only in a run that it has by an adoption, and only of the task that was opened there.
        """
        opened = self._opened.get(row.opened)
        if opened is None:
            entry = self.core.log.entry(row.opened)
            if entry is None:
                return False
            if len(self._opened) >= _JUDGED_MAX:
                self._opened.clear()
            body = body_or_none(entry, TaskOpen)
            names = ("", "") if body is None else (body.task, body.run)
            opened = self._opened[row.opened] = (entry.header.author, *names)
        author, task, run = opened
        if author == row.stream.machine:
            return True
        if (task, run) != (row.task, row.run):
            return False
        found = self._owner(self._rows(RUN, run))
        return found is not None and found[1].generation > 0

    def _admitted(self, opened: bytes) -> tuple[int, int]:
        """When an opening came here."""
        entry = self.core.log.entry(opened)
        came = entry and self.core.log.admitted(entry.stream, entry.header.seq)
        return came or (0, 0)

    def _judged(self, entry: Entry) -> _Rank | None:
        """How sure it is that what this opens is its writer's; None without an order."""
        if self._roster is not self.core.roster:
            self._roster = self.core.roster
            self._never.clear()
        if entry.id in self._never:
            return None
        if max(len(self._rank), len(self._never)) >= _JUDGED_MAX:
            self._rank.clear()
            self._never.clear()
        try:
            ordered = check_ordered(
                entry,
                fleet=self.core.membership.fleet,
                lookup=self.core.log.entry,
                # What was ordered stays ordered when its operator or device is revoked later.
                authority=self.core.roster.was_permitted,
                # Whose it is does not change with the years.
                now_ms=entry.header.t[0],
                known=self._known,
                came=self._came,
                asking=Asking(self.core, ever=True),
            )
        except Unproven as unproven:
            adopted = unproven.reason.startswith("adoption-")
            if entry.header.author == self.core.machine and not adopted:
                # We took the order ourselves.
                rank = self._rank[entry.id] = _Rank(_ORDERED)
                return rank
            self.core.counters[labelled("unproven", unproven.reason)] += 1
            if unproven.reason != "adoption-missing":
                # What it goes on with may come from elsewhere at any time.
                self._never.add(entry.id)
            return None
        sure = _CERTAIN if ordered.certain else _ORDERED
        rank = self._rank[entry.id] = _Rank(sure, ordered.generation)
        return rank

    def _came(self, statement: Statement, entry: Entry) -> None:
        """What came after its key was shut out was ordered by nobody, whatever date it bears.

        Who joined later was told of all that there was, and cannot know.
        """
        core, key = self.core, statement.operator
        if is_after(core, entry, key) and not was_told(core, key):
            raise Unproven("key-shut-out", "its key was shut out before this came here")


def attempts_of(core: "Core", machine: str, task: str, epoch: tuple[int, int]) -> list[AttemptRow]:
    """What the streams of a machine say of its attempt at this epoch of a task."""
    return core.tables.rows(ATTEMPT, writer=machine, **fold.of_attempt(task, epoch))


def is_given(core: "Core", entry: Entry, owner: str, task: str, epoch: tuple[int, int]) -> bool:
    """Whether an entry cites the owner's assignment of this epoch to its writer."""
    for cause in entry.causes:
        found = core.log.entry(cause)
        body = body_or_none(found, TaskAssign)
        if found is not None and body is not None and found.header.author == owner:
            given = (body.task, body.epoch, body.machine)
            if given == (task, epoch, entry.header.author):
                return True
    return False


def newest(rows: Iterable[Work]) -> list[Work]:
    """Of each machine's tasks or runs the row that counts.

    An owner that began anew opened it again in its new stream; the old row stays as it was.
    """
    found: dict[tuple[str, str], Work] = {}
    for row in rows:
        key = (row.stream.machine, row.id)
        known = found.get(key)
        if known is None or row.changed_ms >= known.changed_ms:
            found[key] = row
    return list(found.values())
