"""What comes into live sessions by itself: what each was handed, and what it saw of it.

Rule 1: shown is what is proven. What a hook was handed counts as printed when it says so, and as
read with the next event of its session: then the program took what was printed, and went on.
What nobody said to be printed is handed out again.
Rule 2: a session is told of a record that changed since it was told last, and of another session
that wrote the same file (same_files.py), once. What it was told of records is written down as read
by it, when it was printed.
Rule 3: without its person a session goes on for messages so often, and no oftener: two agents that
answer each other, at each end or waking each other, would never end.
Rule 4: all of it is in memory and bounded. After a restart a message is handed out again that was
not marked yet, and nothing else.
"""

from collections import deque
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Final, NamedTuple

from muster.limits import (
    HOOK_CONTINUED_MAX,
    HOOK_CONTINUED_MS,
    HOOK_HANDED_MS,
    HOOK_RECORDS_KEPT,
    HOOK_TAKEN_MS,
    SESSIONS_MAX,
)
from muster.log import canon
from muster.log.entry import Entry, EntryId
from muster.log.fold import body_or_none
from muster.log.stream import FLEET, Scope, StreamName, scope_to
from muster.memory.kinds import MemoryPut, MemoryRefute
from muster.memory.showing import Reader
from muster.message.kinds import MessageRead
from muster.message.same_file import Met
from muster.message.session import SessionRow
from muster.node.part import Part
from muster.node.services import messages
from muster.node.services.same_files import SameFiles
from muster.node.services.showings import Showings
from muster.store.store import Draft
from muster.task.kinds import NO_EPOCH

if TYPE_CHECKING:
    from muster.node.core import Core

# Answers of one session that nobody said to be printed.
_HANDED_MAX: Final = 16


class _Record(NamedTuple):
    number: int
    key: str
    actor: str
    stream: StreamName


@dataclass
class _Handed:
    """The messages of one answer, and the versions of records and the writers that it tells of."""

    ids: tuple[EntryId, ...]
    read: tuple[EntryId, ...]
    met: tuple[Met, ...]
    # How far it had been told of records before.
    records: int
    at_ms: int
    printed: bool


@dataclass
class _Told:
    """What one session was handed and told."""

    records: int
    # How far before the last answer that told of some.
    before: int = 0
    handed: dict[int, _Handed] = field(default_factory=dict)
    # What made it go on: that happens once for each message; and when it did.
    at_stop: dict[EntryId, int] = field(default_factory=dict)
    # Whether this turn was begun by no person.
    woken: bool = False
    continued: deque[int] = field(default_factory=lambda: deque(maxlen=HOOK_CONTINUED_MAX))


class Hooks(Part):
    """See the rules at the top of this file."""

    name = "hooks"

    def __init__(self, core: "Core") -> None:
        self._core = core
        self._told: dict[str, _Told] = {}
        self._answers = 0
        # The records that changed last, of what everybody may know.
        self._records: deque[_Record] = deque(maxlen=HOOK_RECORDS_KEPT)
        self._came = 0
        core.on("memory.put", self._remembered)
        core.on("memory.refute", self._remembered)

    def _of(self, row: SessionRow) -> _Told:
        told = self._told.pop(row.name, None) or _Told(self._came)
        self._told[row.name] = told
        if len(self._told) > SESSIONS_MAX:
            del self._told[next(iter(self._told))]
        return told

    # --- messages -------------------------------------------------------------------------

    def settle(self, row: SessionRow) -> None:
        """Its program goes on: what was printed of the answers before was shown; write that."""
        told, now_ms = self._of(row), self._core.now.boot_ms
        shown = [id for each in told.handed.values() if each.printed for id in each.ids]
        late = [each for each in told.handed.values() if now_ms - each.at_ms >= HOOK_HANDED_MS]
        lost = [each for each in late if not each.printed]
        told.records = min([told.records, *(each.records for each in lost)])
        self._met_again(row, lost)
        told.handed = {
            number: each
            for number, each in told.handed.items()
            if not each.printed and each not in late
        }
        self._mark(row.agent, shown)

    def drop(self, row: SessionRow) -> None:
        """What was handed out and not settled counts as shown to nobody."""
        handed = self._of(row).handed
        self._met_again(row, [each for each in handed.values() if not each.printed])
        handed.clear()

    def _met_again(self, row: SessionRow, handed: Iterable[_Handed]) -> None:
        """Nobody printed these: what they told of other writers is told once more."""
        for each in handed:
            for met in each.met:
                self._core.part(SameFiles).again(row, met)

    def under_way(self, row: SessionRow) -> set[EntryId]:
        """What another answer to this session, given a moment ago, may yet print."""
        return {id for each in self._of(row).handed.values() for id in each.ids}

    def taken_ms(self, row: SessionRow, id: EntryId) -> int:
        """For how long this is still another session's, which was handed it a short while ago."""
        since_ms = self._core.now.boot_ms - HOOK_TAKEN_MS
        others = [told for name, told in self._told.items() if name != row.name]
        at_ms = [told.at_stop.get(id, since_ms) for told in others]
        handed = [each for told in others for each in told.handed.values() if id in each.ids]
        return max([since_ms, *at_ms, *(each.at_ms for each in handed)]) - since_ms

    def hand(
        self, row: SessionRow, ids: Sequence[EntryId], read: Sequence[EntryId],
        met: Sequence[Met], *, confirms: bool,
    ) -> int:  # fmt: skip
        """These messages are handed out, and these versions and writers told of: the number by
        which they are said to be `printed`.

        Whoever does not confirm is believed to print what it is given.
        """
        self._answers += 1
        told = self._of(row)
        for each in met:
            self._core.part(SameFiles).told(row, each)
        if ids or read or met:
            since = told.before if read else told.records
            now_ms = self._core.now.boot_ms
            handed = _Handed(tuple(ids), tuple(read), tuple(met), since, now_ms, printed=False)
            told.handed[self._answers] = handed
            if len(told.handed) > _HANDED_MAX:
                del told.handed[next(iter(told.handed))]
        if not confirms:
            self.printed(row, self._answers)
        return self._answers

    def printed(self, row: SessionRow, number: int) -> None:
        """An answer was written to where the program reads it: its model may know it now."""
        handed = self._of(row).handed.get(number)
        if handed is None or handed.printed:
            return
        handed.printed = True
        if handed.read:
            reader, actor = Reader("", NO_EPOCH, row.name), f"{row.agent}@{self._core.name}"
            self._core.part(Showings).note_for(reader, actor, "hook", handed.read)

    # --- turns ----------------------------------------------------------------------------

    def turn_began(self, row: SessionRow) -> None:
        """Its person, or what stands for one, made it work."""
        told = self._of(row)
        told.woken = False
        told.continued.clear()

    def was_woken(self, row: SessionRow) -> None:
        """Nobody did: a message began its turn."""
        self._of(row).woken = True

    def is_woken(self, row: SessionRow) -> bool:
        """Whether a message began its turn."""
        return self._of(row).woken

    def may_go_on(self, row: SessionRow) -> bool:
        """Whether it may go on once more without its person."""
        since_ms = self._core.now.boot_ms - HOOK_CONTINUED_MS
        return sum(at_ms > since_ms for at_ms in self._of(row).continued) < HOOK_CONTINUED_MAX

    def went_on_for(self, row: SessionRow, id: EntryId) -> bool:
        """Whether this session went on for this message."""
        return id in self._of(row).at_stop

    def go_on(self, row: SessionRow, ids: Iterable[EntryId]) -> bool:
        """It goes on for these. Whether it may do so again."""
        told = self._of(row)
        told.at_stop.update(dict.fromkeys(ids, self._core.now.boot_ms))
        told.continued.append(self._core.now.boot_ms)
        while len(told.at_stop) > SESSIONS_MAX:
            del told.at_stop[next(iter(told.at_stop))]
        return self.may_go_on(row)

    def _mark(self, agent: str, ids: Iterable[EntryId]) -> None:
        """Write down that an agent was shown these, as far as nobody did."""
        core, drafts = self._core, dict[Scope, list[Draft]]()
        for id in ids:
            entry = core.log.entry(id)
            if entry is None or self._is_read(agent, id):
                continue
            stream, body = entry.stream, canon.encode(MessageRead(id.hex()))
            to_sender = stream.scope.startswith("to.") and stream.machine != core.machine
            # Where the sender can read what we say about its message.
            scope = scope_to(stream.machine) if to_sender else stream.scope
            draft = Draft("message.read", f"{agent}@{core.name}", (id,), body)
            drafts.setdefault(scope, []).append(draft)
        for scope, each in drafts.items():
            core.append_all(scope, each)

    def _is_read(self, agent: str, id: EntryId) -> bool:
        return any(
            row.stream.machine == self._core.machine and row.actor.partition("@")[0] == agent
            for row in messages.readings(self._core, id)
        )

    # --- records --------------------------------------------------------------------------

    def _remembered(self, stream: StreamName, entry: Entry) -> None:
        body = body_or_none(entry, MemoryPut) or body_or_none(entry, MemoryRefute)
        if body is not None and stream.scope == FLEET:
            self._came += 1
            self._records.append(_Record(self._came, body.key, entry.header.actor, stream))

    def fresh_keys(self, row: SessionRow) -> list[str]:
        """Keys under which others wrote since this session was told, the newest first."""
        core, told = self._core, self._of(row)
        since = told.before = told.records
        told.records = self._came
        mine = f"{row.agent}@{core.name}"
        found = [
            each.key
            for each in reversed(self._records)
            if each.number > since
            and not (each.actor == mine and each.stream.machine == core.machine)
        ]
        return list(dict.fromkeys(found))

    def tell_again(self, row: SessionRow) -> None:
        """There was no room for all of them."""
        told = self._of(row)
        told.records = min(told.records, told.before)

    def ended(self, row: SessionRow) -> None:
        """Nothing of it is kept but what is durable."""
        self._told.pop(row.name, None)
        self._core.part(SameFiles).ended(row)
