"""What comes into live sessions by itself: what each was handed, and what it saw of it.

Rule 1: shown is what is proven. What a hook was handed counts as printed when it says so, and as
read with the next event of its session: then the program took what was printed, and went on.
What nobody said to be printed is handed out again.
Rule 2: a session is told of a record that changed since it was told last, and of another session
that wrote the same file, once.
Rule 3: all of it is in memory and bounded. After a restart a message is handed out again that was
not marked yet, and nothing else.
"""

from collections import deque
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Final, NamedTuple

from muster.limits import (
    HOOK_FILES_KEPT,
    HOOK_HANDED_MS,
    HOOK_RECORDS_KEPT,
    HOOK_TOUCHED_MS,
    SESSIONS_MAX,
)
from muster.log import canon
from muster.log.entry import Entry, EntryId
from muster.log.fold import body_or_none
from muster.log.stream import FLEET, Scope, StreamName, scope_to
from muster.memory.kinds import MemoryPut
from muster.message.kinds import MessageRead
from muster.message.session import SessionRow
from muster.node.part import Part
from muster.node.services import messages
from muster.store.store import Draft

if TYPE_CHECKING:
    from muster.node.core import Core

# Answers of one session that nobody said to be printed.
_HANDED_MAX: Final = 16


class File(NamedTuple):
    """A file of a project: whichever of its checkouts it is in."""

    project: str
    path: str


class Writer(NamedTuple):
    """Who else wrote a file, and when."""

    session: str
    at_ms: int


class _Record(NamedTuple):
    number: int
    key: str
    actor: str
    stream: StreamName


@dataclass
class _Handed:
    """The messages of one answer."""

    ids: tuple[EntryId, ...]
    at_ms: int
    printed: bool


@dataclass
class _Told:
    """What one session was handed and told."""

    records: int
    handed: dict[int, _Handed] = field(default_factory=dict)
    # What made a turn go on: that happens once for each message.
    at_stop: dict[EntryId, None] = field(default_factory=dict)
    files: set[tuple[File, str]] = field(default_factory=set)


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
        # Who wrote which file last.
        self._files: dict[tuple[File, str], int] = {}
        core.on("memory.put", self._remembered)

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
        told.handed = {
            number: each
            for number, each in told.handed.items()
            if not each.printed and now_ms - each.at_ms < HOOK_HANDED_MS
        }
        self._mark(row.agent, shown)

    def drop(self, row: SessionRow) -> None:
        """What was handed out and not settled counts as shown to nobody."""
        self._of(row).handed.clear()

    def under_way(self, row: SessionRow) -> set[EntryId]:
        """What another answer to this session, given a moment ago, may yet print."""
        return {id for each in self._of(row).handed.values() for id in each.ids}

    def hand(self, row: SessionRow, ids: Sequence[EntryId], *, confirms: bool) -> int:
        """These are handed out: the number by which they are said to be `printed`.

        Whoever does not confirm is believed to print what it is given.
        """
        self._answers += 1
        told = self._of(row)
        if ids:
            handed = _Handed(tuple(ids), self._core.now.boot_ms, not confirms)
            told.handed[self._answers] = handed
            if len(told.handed) > _HANDED_MAX:
                del told.handed[next(iter(told.handed))]
        return self._answers

    def printed(self, session: str, number: int) -> None:
        """An answer was written to where the program reads it."""
        told = self._told.get(session)
        if told is not None and number in told.handed:
            told.handed[number].printed = True

    def goes_on_for(self, row: SessionRow, ids: Iterable[EntryId]) -> list[EntryId]:
        """Those for which no turn of this session went on yet; from now on it did."""
        told = self._of(row)
        fresh = [id for id in ids if id not in told.at_stop]
        told.at_stop.update(dict.fromkeys(fresh))
        while len(told.at_stop) > SESSIONS_MAX:
            del told.at_stop[next(iter(told.at_stop))]
        return fresh

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
        put = body_or_none(entry, MemoryPut)
        if put is not None and stream.scope == FLEET:
            self._came += 1
            self._records.append(_Record(self._came, put.key, entry.header.actor, stream))

    def fresh_keys(self, row: SessionRow) -> list[str]:
        """Keys under which others wrote since this session was told, the newest first, once."""
        told, core = self._of(row), self._core
        since, told.records = told.records, self._came
        mine = f"{row.agent}@{core.name}"
        found = [
            each.key
            for each in reversed(self._records)
            if each.number > since
            and not (each.actor == mine and each.stream.machine == core.machine)
        ]
        return list(dict.fromkeys(found))

    # --- files ----------------------------------------------------------------------------

    def wrote(self, row: SessionRow, files: Iterable[File]) -> Iterator[tuple[File, Writer]]:
        """This session wrote these: who else did a short while ago, told once of each."""
        told, now_ms = self._of(row), self._core.now.boot_ms
        for file in files:
            for (other, session), at_ms in list(self._files.items()):
                fresh = now_ms - at_ms < HOOK_TOUCHED_MS and (file, session) not in told.files
                if other == file and session != row.name and fresh:
                    told.files.add((file, session))
                    yield file, Writer(session, at_ms)
            self._files.pop((file, row.name), None)
            self._files[file, row.name] = now_ms
            if len(self._files) > HOOK_FILES_KEPT:
                del self._files[next(iter(self._files))]
        if len(told.files) > HOOK_FILES_KEPT:
            told.files.clear()

    def ended(self, row: SessionRow) -> None:
        """Nothing of it is kept but what is durable."""
        self._told.pop(row.name, None)
