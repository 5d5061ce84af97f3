"""What entries are found by: the text of each, with a name and tags, out of its body and its rows.

Rule 1: what made no row (a fold skipped it) is no document: nobody finds what counts for nothing.
Rule 2: a document holds words of its own entry and names of what that is about, and of no entry
that may be erased alone.
"""

import json
from collections.abc import Callable, Iterable, Mapping
from typing import TYPE_CHECKING, Final

from muster.log.entry import Entry
from muster.log.fold import Skip, body_as
from muster.memory.fold import ERASED, OVER, VERSION
from muster.memory.kinds import MemoryPut, MemoryRefute
from muster.message.fold import MESSAGE, message_of
from muster.store.index import Document
from muster.task.fold import DECISION, RUN, TASK
from muster.task.kinds import RunSettle, TaskDecide, TaskSettle

if TYPE_CHECKING:
    from muster.node.core import Core

# What a person calls each sort of document.
MEMORY: Final = "memory"
RUN_END: Final = "run"
TASK_END: Final = "task"
DECIDED: Final = "decision"
MESSAGE_SENT: Final = "message"

# A key, a text and tags; None where there is nothing to be found.
_Said = tuple[str, str, str] | None
ERASURE: Final = "memory.erase"


# Kinds that are versions, and what the body of one that is over others has in it.
_VERSIONS: Final = ("memory.put", "memory.refute")
_OVER: Final = b'"over":['
_OVERTAKEN: Final = """
select value from json_each(?)
where exists(select 1 from memory_over where target = unhex(value))
"""
_ENTOMBED: Final = """
select value from json_each(?)
where exists(select 1 from memory_erased where target = unhex(value))
"""


def document(core: "Core", number: int, entry: Entry) -> Document | None:
    """What an entry is found by, None where it is not."""
    if entry.body is None or entry.header.kind not in _READERS:
        return None
    sort, read = _READERS[entry.header.kind]
    try:
        said = read(core, entry)
    except Skip:
        # Its kind is known and its body is not: of a newer Muster.
        return None
    if said is None or not said[1].strip():
        return None
    row, scope = core.log.place(entry.stream, entry.header.seq), entry.stream.scope
    return Document(row, sort, scope, number, True, *said)


def overtaken(core: "Core", entries: Iterable[Entry]) -> set[int]:
    """The rows of those versions that something which came before them is over."""
    return _such(core, _OVERTAKEN, entries)


def entombed(core: "Core", entries: Iterable[Entry]) -> set[int]:
    """The rows of those versions whose erasure came before them: their words leave when it counts,
    which may be found out only later.
    """
    return _such(core, _ENTOMBED, entries)


def _such(core: "Core", sql: str, entries: Iterable[Entry]) -> set[int]:
    rows = {each.id.hex(): core.log.place(each.stream, each.header.seq) for each in entries}
    found = core.tables.query(sql, (json.dumps(list(rows)),))
    return {rows[str(id)] for (id,) in found}


def replaced(core: "Core", entry: Entry) -> list[int]:
    """The rows of the versions that an entry is over, as far as they are here."""
    # Most versions replace nothing: to look into the bytes costs less than to ask for rows.
    if entry.header.kind not in _VERSIONS or _OVER not in (entry.body or b""):
        return []
    rows = core.tables.rows(OVER, stream=entry.stream, seq=entry.header.seq)
    targets = [core.log.entry(row.target) for row in rows]
    return [core.log.place(each.stream, each.header.seq) for each in targets if each is not None]


def erased(core: "Core", entry: Entry) -> Entry | None:
    """The entry that this one says is erased, where it is here."""
    row = core.tables.row(ERASED, entry.stream, entry.header.seq)
    return None if row is None else core.log.entry(row.target)


def _memory(core: "Core", entry: Entry) -> _Said:
    row = core.tables.row(VERSION, entry.stream, entry.header.seq)
    if row is None or row.state == "erased":
        return None
    if entry.header.kind == "memory.put":
        return row.key, body_as(entry, MemoryPut).text, row.tags
    return row.key, body_as(entry, MemoryRefute).reason, ""


def _run(core: "Core", entry: Entry) -> _Said:
    body = body_as(entry, RunSettle)
    row = core.tables.row(RUN, entry.stream, body.run)
    if row is None or row.settled != entry.id:
        return None
    return row.name, body.summary, f"{body.outcome} {row.repo}"


def _task(core: "Core", entry: Entry) -> _Said:
    body = body_as(entry, TaskSettle)
    row = core.tables.row(TASK, entry.stream, body.task)
    if row is None or row.settled != entry.id:
        return None
    run = core.tables.row(RUN, entry.stream, row.run) if row.run else None
    name = f"{run.name}/{row.phase}" if run is not None else row.phase
    return name, "\n".join(filter(None, (body.summary, body.reason))), body.outcome


def _decision(core: "Core", entry: Entry) -> _Said:
    body = body_as(entry, TaskDecide)
    row = core.tables.row(DECISION, entry.stream, body.task)
    if row is None or row.entry != entry.id:
        return None
    return "", body.text, body.verdict


def _message(core: "Core", entry: Entry) -> _Said:
    if core.tables.row(MESSAGE, entry.stream, entry.header.seq) is None:
        return None
    message = message_of(entry)
    return message.subject, message.text, ""


_READERS: Final[Mapping[str, tuple[str, Callable[["Core", Entry], _Said]]]] = {
    "memory.put": (MEMORY, _memory),
    "memory.refute": (MEMORY, _memory),
    "run.settle": (RUN_END, _run),
    "task.settle": (TASK_END, _task),
    "task.decide": (DECIDED, _decision),
    "message.send": (MESSAGE_SENT, _message),
}
KINDS: Final = (*_READERS, ERASURE)
