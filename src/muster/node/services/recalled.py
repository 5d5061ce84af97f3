"""What a question in words is answered with: what the index finds, as far as it counts here.

Rule 1: whether something counts is found out now, and never taken from the index: a version is one
of what counts under its key, a run and a task are told by their owners, a message was said to us.
Rule 2: so many places are looked at and no more, the best first; what was replaced comes last.
Rule 3: whoever asks sees what this machine may read at this moment, whatever it once held.
"""

import json
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping
from functools import partial
from typing import TYPE_CHECKING, Final, NamedTuple

from muster.limits import (
    RECALL_LOOKED_MAX,
    SIMILAR_CHARS_MAX,
    SIMILAR_LOOKED_MAX,
    SIMILAR_MAX,
)
from muster.log.entry import Entry
from muster.log.fold import body_or_none
from muster.log.stream import Scope, is_group
from muster.memory.fold import VERSION, VersionRow
from muster.memory.kinds import MemoryPut, MemoryRefute
from muster.memory.state import Record, RecordName, Version, versions
from muster.message.fold import message_of
from muster.node.services import messages
from muster.node.services.documents import DECIDED, MEMORY, MESSAGE_SENT, RUN_END, TASK_END
from muster.node.services.memory import Memory, proof_of
from muster.node.services.search import Search
from muster.node.services.speakers import Speakers
from muster.node.tasks.actor import said
from muster.node.tasks.ownership import Ownership
from muster.store.index import EVERY_NUMBER, Hit
from muster.store.schema import SEQ_BITS, SEQ_MASK
from muster.task.fold import RUN, TASK
from muster.task.kinds import RunSettle, TaskDecide, TaskSettle

if TYPE_CHECKING:
    from muster.node.core import Core

# What the state of a record is while it counts.
COUNTS: Final = frozenset({"active", "conflict", "disputed"})
REPLACED: Final = "replaced"
# Rows of what is known that are read in one turn, and the rest of one key: some ten milliseconds.
LOOKS_PER_TURN: Final = 400
# More than what is wanted is found at once, for some of it does not count.
_SPARE: Final = 20

# Of these rows of the log those that are versions which nothing is over, whose key no other version
# has, and whose text nobody else wrote, refuted or erased.
_LONE: Final = """
select wanted.value from json_each(?1) wanted join memory_version v
on v.stream = wanted.value >> ?2 and v.seq = wanted.value & ?3
where v.state = 'active' and v.key != ''
and not exists(select 1 from memory_over where target = v.id)
and not exists(select 1 from memory_erased where target = v.id)
and not exists(select 1 from memory_erased where key = v.key)
and not exists(select 1 from memory_erased where print = v.print)
and not exists(select 1 from memory_version w
  where w.key = v.key and (w.stream, w.seq) != (v.stream, v.seq))
and not exists(select 1 from memory_version w
  where w.print = v.print and (w.stream, w.seq) != (v.stream, v.seq))
"""


class Question(NamedTuple):
    """What is asked: so many of the best in these scopes, and of what sort ("" for all).

    `every` takes in what was replaced or refuted as well; `until` is an admission number.
    """

    text: str
    scopes: Collection[Scope]
    most: int
    sort: str = ""
    tags: Collection[str] = ()
    every: bool = False
    until: int = EVERY_NUMBER


class Recalled(NamedTuple):
    """Something that was found: its entry, what it is called, what it is about, and its state.

    `about` is the id of a version, run, task or message; `version` is there where it is one.
    `excerpt` is what was said, or the line of it with the words that were asked for.
    """

    entry: Entry
    sort: str
    name: str
    about: str
    state: str
    excerpt: str
    version: Version | None = None


def readable(core: "Core") -> list[Scope]:
    """The scopes of which something was written here and that this machine reads now."""
    return [
        scope for scope in map(Scope, core.part(Search).index.scopes()) if _is_readable(core, scope)
    ]


def _is_readable(core: "Core", scope: Scope) -> bool:
    # What is said to one machine is here because it is ours or was said to us.
    return not is_group(scope) or core.machine in core.roster.groups.get(scope, {})


def recall(core: "Core", question: Question) -> Iterator[Recalled | None]:
    """Give what counts of what was taken in so far, the best first; None where others may have
    their turn.

    What came since the last page of the index is not among it: `Search.answered` takes that in.
    Raises: Broken: the index is damaged.
    """
    index, look = core.part(Search).index, _Look(core, question)
    given, looked = 0, 0
    # Most of what is found counts: the others are asked for only where it does not.
    for most in (question.most + _SPARE, RECALL_LOOKED_MAX):
        found = index.find(
            question.text, question.scopes, most, kind=question.sort, tags=question.tags,
            until=question.until, replaced=question.every,
        )  # fmt: skip
        hits, looked = found.hits[looked:], len(found.hits)
        look.prepare(hits)
        for hit in hits:
            if given < question.most and look.is_turn():
                yield None
            if given < question.most and (each := look.judge(hit)) is not None:
                given += 1
                yield each._replace(excerpt=index.excerpt(found, each.excerpt))
        if given == question.most or looked < most:
            return


def similar(core: "Core", name: RecordName, text: str, scopes: Collection[Scope]) -> list[Recalled]:
    """Records that say something like it: a few that count, and a few that are refuted.

    Words of what was taken in so far; a record has two of the words at least, where there are two.
    What stands under the same name is none of them. Raises: Broken: the index is damaged.
    """
    search = core.part(Search)
    asked = Question(
        f"{name.key} {text[:SIMILAR_CHARS_MAX]}", scopes, SIMILAR_LOOKED_MAX, MEMORY, every=True
    )
    look = _Look(core, asked)
    found = search.index.find(asked.text, scopes, SIMILAR_LOOKED_MAX, kind=MEMORY)
    look.prepare(found.hits)
    kinds: dict[bool, dict[tuple[Scope, str], Recalled]] = {True: {}, False: {}}
    wanted = min(2, len(found.stems))
    for hit in found.hits:
        # Whether it counts is dear to find out: of what is alone it is known, and others follow.
        if look.is_lone(hit) and len(kinds[True]) == SIMILAR_MAX:
            continue
        if look.is_turn():
            # Nobody else has a turn here: somebody wrote very much under these keys.
            break
        if search.index.shared(found, hit.row) < wanted or (each := look.judge(hit)) is None:
            continue
        scope, some = each.entry.stream.scope, kinds[each.state in COUNTS]
        named = RecordName(scope, each.name) != name and each.state in COUNTS | {"refuted"}
        if named and len(some) < SIMILAR_MAX:
            each = each._replace(excerpt=search.index.excerpt(found, each.excerpt))
            some.setdefault((scope, each.name), each)
    return [*kinds[True].values(), *kinds[False].values()]


class _Look:
    """What one question finds out about the places that it looks at."""

    def __init__(self, core: "Core", question: Question) -> None:
        self._core, self._question = core, question
        self._speakers = Speakers(core)
        # What had been read of what is known when others last had their turn.
        self._looks = core.part(Memory).looks
        # By key: a key has many versions, and all of them may have the words.
        self._known: dict[str, Mapping[RecordName, Record]] = {}
        # Versions that nothing else has to do with.
        self._lone: set[int] = set()
        self._judges: Mapping[str, Callable[[Entry], Recalled | None]] = {
            MEMORY: self._memory, RUN_END: self._run, TASK_END: self._task, DECIDED: self._decision,
            MESSAGE_SENT: self._message,
        }  # fmt: skip

    def prepare(self, hits: Iterable[Hit]) -> None:
        """Find out of all of these at once which versions are alone: of most keys there is one."""
        if self._question.until != EVERY_NUMBER:
            # What is alone now was not, or is not what it was.
            return
        rows = json.dumps([hit.row for hit in hits if hit.kind == MEMORY])
        found = self._core.tables.query(_LONE, (rows, SEQ_BITS, SEQ_MASK))
        self._lone.update(row for (row,) in found if isinstance(row, int))

    def is_turn(self) -> bool:
        """Whether much was read since the last time that it was."""
        looks = self._core.part(Memory).looks
        if looks - self._looks < LOOKS_PER_TURN:
            return False
        self._looks = looks
        return True

    def is_lone(self, hit: Hit) -> bool:
        return hit.row in self._lone

    def judge(self, hit: Hit) -> Recalled | None:
        """What stands there, None where it does not count, or not for this question."""
        entry = self._core.log.at_place(hit.row)
        if entry is None or entry.body is None:
            return None
        if not self._speakers.counts(entry.stream, entry.header.seq):
            return None
        if self._question.tags and hit.kind != MEMORY:
            return None
        return self._judges[hit.kind](entry)

    def _memory(self, entry: Entry) -> Recalled | None:
        row = self._core.tables.row(VERSION, entry.stream, entry.header.seq)
        if row is None or not set(self._question.tags) <= set(row.tags.split(" ")):
            return None
        version, state = self._version(row)
        if version is None or version.state == "erased":
            return None
        if state not in COUNTS and not self._question.every:
            return None
        put, refuted = body_or_none(entry, MemoryPut), body_or_none(entry, MemoryRefute)
        text = put.text if put is not None else refuted.reason if refuted is not None else ""
        return Recalled(entry, MEMORY, row.key, entry.id.hex(), state, text, version=version)

    def _version(self, row: VersionRow) -> tuple[Version | None, str]:
        """A version and its state. What has to do with nothing else counts as it is."""
        memory = self._core.part(Memory)
        if self._core.log.place(row.stream, row.seq) in self._lone:
            return versions([row], [], [], partial(proof_of, self._core))[0], "active"
        if row.key not in self._known:
            self._known[row.key] = memory.records(row.key, self._question.until)
        record = self._known[row.key].get(RecordName(row.stream.scope, row.key))
        heads = record.heads if record is not None else ()
        for head in heads:
            if record is not None and head.id == row.id:
                return head, record.state
        if not self._question.every:
            return None, REPLACED
        # A refutation is over what it says is wrong.
        wrong = any(head.state == "refuted" and row.id in head.over for head in heads)
        version = next(
            (v for v in memory.history(row.key, self._question.until) if v.id == row.id), None
        )
        return version, "refuted" if wrong else REPLACED

    def _run(self, entry: Entry) -> Recalled | None:
        body = body_or_none(entry, RunSettle)
        row = None if body is None else self._core.tables.row(RUN, entry.stream, body.run)
        if row is None or self._core.part(Ownership).owner(RUN, row.run) != entry.stream.machine:
            return None
        return Recalled(entry, RUN_END, row.name, row.run, row.state, row.summary)

    def _task(self, entry: Entry) -> Recalled | None:
        body = body_or_none(entry, TaskSettle)
        row = None if body is None else self._core.tables.row(TASK, entry.stream, body.task)
        if row is None or self._core.part(Ownership).owner(TASK, row.task) != entry.stream.machine:
            return None
        run = self._core.tables.row(RUN, entry.stream, row.run) if row.run else None
        name = row.phase if run is None else f"{run.name}/{row.phase}"
        said_of_it = "\n".join(filter(None, (row.summary, row.reason)))
        return Recalled(entry, TASK_END, name, row.task, row.state, said_of_it)

    def _decision(self, entry: Entry) -> Recalled | None:
        body = body_or_none(entry, TaskDecide)
        if body is None or said(self._core, entry).trust != "person":
            return None
        return Recalled(entry, DECIDED, body.task[:12], body.task, body.verdict, body.text)

    def _message(self, entry: Entry) -> Recalled | None:
        core, message = self._core, message_of(entry)
        ours = entry.stream.machine == core.machine
        to = "\n".join(message.to)
        if not ours and not messages.is_for("", to, entry.stream, messages.me(core)):
            return None
        return Recalled(entry, MESSAGE_SENT, message.subject, entry.id.hex(), "said", message.text)
