"""What a question in words is answered with: what the index finds, as far as it counts here.

Rule 1: whether something counts is found out now, and never taken from the index: a version is one
of what counts under its key, a run and a task are told by their owners, a message was said to us.
Rule 2: so many places are looked at and no more, the best first; what was replaced comes last.
Rule 3: whoever asks sees what this machine may read at this moment, whatever it once held.
"""

from collections.abc import Callable, Collection, Iterator, Mapping
from itertools import islice
from typing import TYPE_CHECKING, Final, NamedTuple

from muster.limits import RECALL_LOOKED_MAX
from muster.log.entry import Entry
from muster.log.fold import body_or_none
from muster.log.stream import Scope, is_group
from muster.memory.fold import VERSION
from muster.memory.state import Record, RecordName, Version
from muster.message.fold import message_of
from muster.node.services import messages
from muster.node.services.documents import DECIDED, MEMORY, MESSAGE_SENT, RUN_END, TASK_END
from muster.node.services.memory import Memory
from muster.node.services.search import Search
from muster.node.services.speakers import Speakers
from muster.node.tasks.actor import said
from muster.node.tasks.ownership import Ownership
from muster.store.index import EVERY_NUMBER, Hit
from muster.task.fold import RUN, TASK
from muster.task.kinds import RunSettle, TaskDecide, TaskSettle

if TYPE_CHECKING:
    from muster.node.core import Core

# What the state of a record is while it counts.
COUNTS: Final = frozenset({"active", "conflict", "disputed"})
REPLACED: Final = "replaced"


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
    """

    entry: Entry
    sort: str
    name: str
    about: str
    state: str
    snippet: str = ""
    version: Version | None = None


def readable(core: "Core") -> list[Scope]:
    """The scopes of which something was written here and that this machine reads now."""
    return [
        scope for scope in map(Scope, core.part(Search).index.scopes()) if _is_readable(core, scope)
    ]


def _is_readable(core: "Core", scope: Scope) -> bool:
    # What is said to one machine is here because it is ours or was said to us.
    return not is_group(scope) or core.machine in core.roster.groups.get(scope, {})


def recall(core: "Core", question: Question) -> Iterator[Recalled]:
    """Give what counts of what was taken in so far, the best first.

    What came since the last page of the index is not among it: `Search.answered` takes that in.
    Raises: Broken: the index is damaged.
    """
    index, look = core.part(Search).index, _Look(core, question)
    found = index.find(
        question.text, question.scopes, RECALL_LOOKED_MAX, kind=question.sort, tags=question.tags,
        until=question.until, replaced=question.every,
    )  # fmt: skip
    seen = ((hit.row, each) for hit in found.hits if (each := look.judge(hit)) is not None)
    for row, each in islice(seen, question.most):
        yield each._replace(snippet=index.snippet(found, row))


class _Look:
    """What one question finds out about the places that it looks at."""

    def __init__(self, core: "Core", question: Question) -> None:
        self._core, self._question = core, question
        self._speakers = Speakers(core)
        # By key: a key has many versions, and all of them may have the words.
        self._known: dict[str, Mapping[RecordName, Record]] = {}
        self._judges: Mapping[str, Callable[[Entry], Recalled | None]] = {
            MEMORY: self._memory, RUN_END: self._run, TASK_END: self._task, DECIDED: self._decision,
            MESSAGE_SENT: self._message,
        }  # fmt: skip

    def judge(self, hit: Hit) -> Recalled | None:
        """What stands there, None where it does not count, or not for this question."""
        core, entry = self._core, self._core.log.at_place(hit.row)
        if entry is None or entry.body is None:
            return None
        if not core.membership.may_hold(entry.stream, core.machine):
            return None
        if self._question.tags and hit.kind != MEMORY:
            return None
        return self._judges[hit.kind](entry)

    def _memory(self, entry: Entry) -> Recalled | None:
        stream, memory = entry.stream, self._core.part(Memory)
        row = self._core.tables.row(VERSION, stream, entry.header.seq)
        if row is None or not set(self._question.tags) <= set(row.tags.split(" ")):
            return None
        if row.key not in self._known:
            self._known[row.key] = memory.records(row.key)
        record = self._known[row.key].get(RecordName(stream.scope, row.key))
        heads = record.heads if record is not None else ()
        version = next((head for head in heads if head.id == entry.id), None)
        state = record.state if record is not None and version is not None else REPLACED
        if state not in COUNTS and not self._question.every:
            return None
        if version is None:
            version = next((v for v in memory.history(row.key) if v.id == entry.id), None)
        if version is None or version.state == "erased":
            return None
        return Recalled(entry, MEMORY, row.key, entry.id.hex(), state, version=version)

    def _run(self, entry: Entry) -> Recalled | None:
        body = body_or_none(entry, RunSettle)
        row = None if body is None else self._core.tables.row(RUN, entry.stream, body.run)
        if row is None or self._core.part(Ownership).owner(RUN, row.run) != entry.stream.machine:
            return None
        return Recalled(entry, RUN_END, row.name, row.run, row.state)

    def _task(self, entry: Entry) -> Recalled | None:
        body = body_or_none(entry, TaskSettle)
        row = None if body is None else self._core.tables.row(TASK, entry.stream, body.task)
        if row is None or self._core.part(Ownership).owner(TASK, row.task) != entry.stream.machine:
            return None
        run = self._core.tables.row(RUN, entry.stream, row.run) if row.run else None
        name = row.phase if run is None else f"{run.name}/{row.phase}"
        return Recalled(entry, TASK_END, name, row.task, row.state)

    def _decision(self, entry: Entry) -> Recalled | None:
        body = body_or_none(entry, TaskDecide)
        if body is None or said(self._core, entry).trust != "person":
            return None
        return Recalled(entry, DECIDED, body.task[:12], body.task, body.verdict)

    def _message(self, entry: Entry) -> Recalled | None:
        core, message = self._core, message_of(entry)
        ours = entry.stream.machine == core.machine
        to = "\n".join(message.to)
        if not ours and not messages.is_for("", to, entry.stream, messages.me(core)):
            return None
        if not self._speakers.speaks(entry.stream, entry.header.seq):
            return None
        return Recalled(entry, MESSAGE_SENT, message.subject, entry.id.hex(), "said")
