"""What attempts and sessions here were shown of what is known: their journal says so.

Rule 1: whoever replaces a version was shown it: what that was is looked up here, and is nothing
that an agent says of itself.
Rule 2: whoever was shown what comes from outside the fleet writes down nothing better than that.
"""

import re
from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING, Any, Final

from muster.errors import NotFound
from muster.log.entry import EntryId
from muster.log.stream import JOURNAL, FleetId
from muster.memory.fold import VERSION
from muster.memory.kinds import MemoryRead, Origin, Why
from muster.memory.showing import READ, SHOWN, MemoryReadFold, Reader, ReadRow
from muster.node import event as ev
from muster.node.part import Part
from muster.node.tasks.worker import WorkerService
from muster.task.kinds import NO_EPOCH

if TYPE_CHECKING:
    from muster.node.call.answers import Call
    from muster.node.core import Core

# Showings whose lines begin with names.
_NAMED: Final[tuple[Why, ...]] = ("start", "recall", "get", "mcp")
_NAME: Final = re.compile("m([1-9][0-9]{0,2})")
SIMILAR: Final = "similar"


class DigestTold(ev.Event, frozen=True):
    """An attempt of ours begins, and this is what its agent is told."""

    body: MemoryRead
    actor: str


class Showings(Part):
    """Who was shown what, here."""

    name = "showings"

    def __init__(self, core: "Core") -> None:
        self._core = core
        core.on(DigestTold, lambda told: self.write(told.body, told.actor))

    def write(self, body: MemoryRead, actor: str) -> None:
        """Write down what was shown to somebody."""
        self._core.append_body(body, scope=JOURNAL, actor=actor)

    @staticmethod
    def folds(fleet: FleetId) -> Sequence[Any]:  # noqa: ARG004 - as of every part
        return (MemoryReadFold(),)

    def reader(self, call: "Call") -> Reader | None:
        """Who reads by a call; None for a person, whose eyes nobody writes down."""
        if call.task:
            epoch = self._core.part(WorkerService).worker.holds(call.task)
            return Reader(call.task, epoch or NO_EPOCH, call.session)
        return Reader("", NO_EPOCH, call.session) if call.session else None

    def note(self, call: "Call", why: Why, versions: Sequence[EntryId], query: str = "") -> None:
        """Write down what whoever asks is shown now; for a person nothing is written."""
        reader = self.reader(call)
        if reader is not None:
            self.note_for(reader, call.actor, why, versions, query)

    def note_for(
        self, reader: Reader, actor: str, why: Why, versions: Sequence[EntryId], query: str = ""
    ) -> None:
        """Write down what a reader is shown now."""
        outside, shown = self.has_outside(versions), [each.hex() for each in versions]
        self.write(MemoryRead(why, shown, query, *reader, outside=outside), actor)

    def shown_of(self, call: "Call", versions: Iterable[EntryId]) -> list[EntryId]:
        """Those of these that whoever asks was shown."""
        reader = self.reader(call)
        return [each for each in versions if reader is not None and self.was_shown(reader, each)]

    def was_shown(self, reader: Reader, version: EntryId) -> bool:
        """Whether a reader was shown a version here."""
        found = self._core.tables.rows(
            SHOWN, writer=self._core.machine, shown=version, reader=str(reader), limit=1
        )
        return bool(found)

    def named(self, call: "Call", text: str) -> EntryId | None:
        """What `m3` is: the third of what whoever asks was shown last. None for any other text.

        Raises: NotFound.
        """
        match = _NAME.fullmatch(text)
        if match is None or (reader := self.reader(call)) is None:
            return None
        # What came by a hook, or along with another answer, has no names, and leaves those of
        # before as they are.
        last = [row for why in _NAMED for row in self._of(reader, limit=1, why=why)]
        ids = self.shown_in(max(last, key=lambda row: (row.at_ms, row.seq))) if last else []
        if int(match[1]) > len(ids):
            what = f"that had {len(ids)} lines" if ids else "nothing was shown yet"
            raise NotFound(f"{text} is a name in what you were shown last, and {what}")
        return ids[int(match[1]) - 1]

    def origin(self, call: "Call", sources: Iterable[EntryId] = ()) -> Origin:
        """What the daemon says of where a writer's words may come from: what it was shown, and the
        `sources` that it names itself.
        """
        reader = self.reader(call)
        if reader is None:
            return ""
        is_outside = self._of(reader, outside=1, limit=1) or self.has_outside(sources)
        return "outside" if is_outside else ""

    def has_outside(self, shown: Iterable[EntryId]) -> bool:
        """Whether one of these versions came from outside the fleet."""
        entries = [self._core.log.entry(each) for each in shown]
        rows = [
            self._core.tables.row(VERSION, each.stream, each.header.seq)
            for each in entries
            if each is not None and each.header.kind in ("memory.put", "memory.refute")
        ]
        return any(row is not None and row.origin for row in rows)

    def shown_in(self, showing: ReadRow) -> list[EntryId]:
        """What one showing showed, in the order of its names."""
        rows = self._core.tables.rows(SHOWN, stream=showing.stream, seq=showing.seq)
        return [row.shown for row in sorted(rows, key=lambda row: row.n)]

    def _of(self, reader: Reader, **only: Any) -> list[ReadRow]:
        """The showings of one reader, the newest first."""
        newest = ("-at_ms", "-seq")
        return self._core.tables.rows(
            READ, writer=self._core.machine, order=newest, reader=str(reader), **only
        )
