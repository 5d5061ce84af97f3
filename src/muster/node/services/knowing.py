"""What an agent knew when it decided, and what became of that since.

Rule 1: it is told of the showings of this machine: another one's journal stays there.
Rule 2: the words of then are made again of their ids. Whether they are those of then the hash says.
"""

from collections.abc import Iterator
from hashlib import sha256
from typing import TYPE_CHECKING, Final

from msgspec import Struct

from muster.log.entry import Entry, EntryId
from muster.log.fold import body_or_none
from muster.memory.digest import SECTIONS, Line
from muster.memory.fold import VERSION
from muster.memory.kinds import MemoryRead
from muster.memory.showing import READ, SHOWN, ReadRow
from muster.memory.state import RecordName, Version
from muster.node.services.digests import again
from muster.node.services.lines import line_of
from muster.node.services.memory import Memory
from muster.node.services.showings import Showings
from muster.node.tasks.actor import said

if TYPE_CHECKING:
    from muster.node.core import Core

# Showings of one task that are told, the newest; and readers of one version.
SHOWINGS_TOLD_MAX: Final = 20
READERS_TOLD_MAX: Final = 20
_OF_DIGEST: Final = "start"


class KnownThen(Struct, frozen=True):
    """One thing that was shown, as `m1` …; `now` is what became of it, "" where nothing did."""

    name: str
    id: str
    text: str
    now: str


class Shown(Struct, frozen=True, kw_only=True):
    """One showing. `proven`: what is told here is, to the letter, what was shown (of a digest)."""

    t_ms: int
    actor: str
    why: str
    query: str
    epoch: list[int]
    lines: list[KnownThen]
    left_out: int
    proven: bool


class ReaderOf(Struct, frozen=True):
    """Somebody who was shown a version here, and when."""

    actor: str
    task: str
    t_ms: int


def knew(core: "Core", task: str) -> Iterator[Shown]:
    """What the attempts of a task here were shown, in its order."""
    order = ("-at_ms", "-seq")
    rows = core.tables.rows(
        READ, writer=core.machine, task=task, order=order, limit=SHOWINGS_TOLD_MAX
    )
    for row in reversed(rows):
        entry = core.log.entry_at(row.stream, row.seq)
        body = body_or_none(entry, MemoryRead)
        if body is not None:
            yield _shown(core, row, body)


def readers(core: "Core", version: EntryId) -> list[ReaderOf]:
    """Who was shown a version on this machine, the newest first."""
    order = ("-seq",)
    rows = core.tables.rows(
        SHOWN, writer=core.machine, shown=version, order=order, limit=READERS_TOLD_MAX
    )
    found = (core.tables.row(READ, row.stream, row.seq) for row in rows)
    return [ReaderOf(row.actor, row.task, row.at_ms) for row in found if row is not None]


def _shown(core: "Core", row: ReadRow, body: MemoryRead) -> Shown:
    ids = core.part(Showings).shown_in(row)
    text = again(core, body) if body.why == _OF_DIGEST else ""
    proven = bool(text) and sha256(text.encode()).hexdigest() == body.sha256
    lines = [_then(core, number, id, _section(body, number)) for number, id in enumerate(ids, 1)]
    return Shown(
        t_ms=row.at_ms, actor=row.actor, why=row.why, query=body.query, epoch=list(body.epoch),
        lines=lines, left_out=sum(body.left_out), proven=proven,
    )  # fmt: skip


def _section(body: MemoryRead, number: int) -> str:
    for name, count in zip(SECTIONS, body.parts, strict=False):
        if number <= count:
            return name
        number -= count
    return "found"


def _then(core: "Core", number: int, id: EntryId, section: str) -> KnownThen:
    line, entry = line_of(core, id, section), core.log.entry(id)
    text = f"{line.by}: {line.says} {line.text}" if line is not None else ""
    return KnownThen(f"m{number}", id.hex(), text, _now(core, entry, line))


def _now(core: "Core", entry: Entry | None, line: Line | None) -> str:
    """What became of it since."""
    if entry is None or line is None:
        return "its words are not here any more"
    row = core.tables.row(VERSION, entry.stream, entry.header.seq)
    if row is None:
        return ""
    part = core.part(Memory)
    record = part.records(row.key).get(RecordName(entry.stream.scope, row.key))
    heads = record.heads if record is not None else ()
    if record is not None and any(head.id == entry.id for head in heads):
        return "" if record.state == "active" or row.state == "refuted" else record.state
    over = [each for each in part.history(row.key) if entry.id in each.over]
    return _told_by(core, over[-1]) if over else "it does not count any more"


def _told_by(core: "Core", version: Version) -> str:
    entry = core.log.entry(version.id)
    if entry is None:
        return "it does not count any more"
    by, line = said(core, entry).name, line_of(core, version.id, "changed")
    if version.state == "refuted":
        return f"refuted since, by {by}" + (f": {line.text}" if line is not None else "")
    return f"replaced since, by {by} ({version.id.hex()[:12]})"
