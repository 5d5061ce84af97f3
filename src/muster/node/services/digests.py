"""What an agent is told when it begins, out of the rows of this machine.

Rule 1: it is made where the agent runs, of what that machine knows: whoever owns the task has no
word in it.
Rule 2: an agent is told what the whole fleet may know, and of earlier work what its owners say.
Rule 3: what it costs is bounded, and others have their turn meanwhile: whoever makes one goes on
when it yields.
Rule 4: a line is made of its entry alone, so that the same text is made again of its ids.
"""

import asyncio
from collections.abc import Iterable, Iterator, Sequence
from contextlib import suppress
from hashlib import sha256
from itertools import chain, islice, zip_longest
from typing import TYPE_CHECKING, Final, NamedTuple

from muster.errors import Broken, Exhausted, Refused
from muster.limits import (
    ATTEMPTS_OF_TASK_MAX,
    MEMORY_PINNED_TOKENS_MAX,
    RECALL_BYTES_MAX,
    RECALLED_MAX,
)
from muster.log.entry import EntryId
from muster.log.fold import NO_ENTRY, body_or_none
from muster.log.stream import FLEET
from muster.memory import earlier
from muster.memory.digest import SECTIONS, Digest, Line, digest, render, size
from muster.memory.fold import TAG, VERSION, TagRow
from muster.memory.kinds import PERSON, PINNED, MemoryPut, MemoryRead
from muster.memory.showing import READ, Reader
from muster.memory.state import RecordName, Version
from muster.memory.tokens import tokens_of
from muster.node.services.documents import MEMORY
from muster.node.services.lines import decision_of, line_of, outcome_of, try_of
from muster.node.services.memory import Memory, is_ordered
from muster.node.services.recalled import Question, recall
from muster.node.services.search import Search
from muster.node.services.showings import Showings
from muster.node.services.speakers import Speakers
from muster.node.tasks.ownership import Ownership, newest
from muster.node.verb import Turns
from muster.task.fold import DECISION, RUN, TASK, AttemptRow, RunRow, TaskRow
from muster.task.kinds import TaskOpen

if TYPE_CHECKING:
    from muster.node.core import Core

# Runs of the same name and repository that are told of: of each owner, and of all.
_RUNS_MAX: Final = 5
_RUNS_OF_ALL_MAX: Final = 10
# Runs looked at for that: some are open yet.
_RUNS_LOOKED_MAX: Final = 15
_TASKS_OF_RUN_MAX: Final = 64
# Versions with a tag, of each machine, and keys that are looked at.
_TAGGED_MAX: Final = 100
_KEYS_MAX: Final = 150
# Of these keys so many by their tags, by their words, and because they are new: whoever fills one
# of the three leaves the others their own. Of what is new so many of each machine.
_TAGGED_KEYS_MAX: Final = 70
_WORDS_KEYS_MAX: Final = 50
_NEWEST_MAX: Final = 30
_NEWEST_OF_EACH_MAX: Final = 10
# Rows that are read in the one step that writes down a rule.
_RULE_LOOKS_MAX: Final = 1_000
# Texts of one key: its conflicts are shown, not its flood.
_HEADS_MAX: Final = 4
# Showings of one agent that are looked at for what changed since.
_SHOWINGS_MAX: Final = 20
_LATER_MS: Final = 100 * 86_400_000
_COUNTS: Final = frozenset({"active", "conflict", "disputed"})
_FAILED: Final = frozenset({"failed", "killed"})


class Work(NamedTuple):
    """What somebody is to be told for; all of it may be unknown. `actor` is who is told, `text` the
    words of the order.
    """

    task: str = ""
    owner: str = ""
    run: str = ""
    spec: str = ""
    phase: str = ""
    instance: str = ""
    repo: str = ""
    actor: str = ""
    text: str = ""


def work_of(opened: TaskOpen, owner: str, actor: str) -> Work:
    """What there is to be told of for a task."""
    order = opened.template
    words = (order.get("do", ""), order.get("asked", ""), *order.get("deliver", ()), opened.phase)
    return Work(
        opened.task, owner, opened.run, str(order.get("spec", "")), opened.phase, opened.instance,
        opened.repo, actor, " ".join(map(str, words)),
    )  # fmt: skip


def made(core: "Core", work: Work, budget: int, told_ms: int) -> Turns[Digest]:
    """What is told for this work at this moment, in so many tokens."""
    looked = _Looked(core, work)
    found = dict[str, Sequence[Line]]()
    for name, gather in (
        ("rules", looked.rules), ("tried", looked.tried), ("earlier", looked.runs),
        ("found", looked.found), ("changed", looked.changed),
    ):  # fmt: skip
        lines = list[Line]()
        for line in gather():
            if line is None:
                yield
            else:
                lines.append(line)
        found[name] = lines
        yield
    return (yield from digest(found, budget, told_ms))


async def in_turns(turns: Turns[Digest]) -> Digest:
    """A digest, with all else having its turn in between."""
    while True:
        try:
            next(turns)
        except StopIteration as done:
            found: Digest = done.value
            return found
        await asyncio.sleep(0)


def showing(told: Digest, reader: Reader, budget: int, told_ms: int, query: str = "") -> MemoryRead:
    """The body that says what was told."""
    lines = [line for section in told.lines for line in section]
    rules, _, _, found, changed = told.lines
    return MemoryRead(
        "start", [line.id.hex() for line in (*rules, *found, *changed)], query, *reader,
        tokens=told.tokens, shown=[line.id.hex() for line in lines],
        outside=any(line.outside for line in lines),
        sha256=sha256(told.text.encode()).hexdigest(), budget=budget,
        parts=[len(section) for section in told.lines], left_out=list(told.left_out),
        told_ms=told_ms,
    )  # fmt: skip


def again(core: "Core", read: MemoryRead) -> str:
    """The text of a digest, made again; "" where something of it is not here any more."""
    ids = iter(read.shown or read.versions)
    told = list[list[Line]]()
    for name, count in zip(SECTIONS, read.parts, strict=False):
        section = [line_of(core, EntryId(bytes.fromhex(id)), name) for id in islice(ids, count)]
        told.append([line for line in section if line is not None])
        if len(told[-1]) < count:
            return ""
    return render(told, read.left_out, read.told_ms) if len(told) == len(SECTIONS) else ""


def rules(core: "Core") -> Iterator[Line | None]:
    """What people pinned for every agent; None where others may have their turn."""
    for key in _pinned(core):
        yield None
        yield from _rules_of(core, key)


def _pinned(core: "Core") -> dict[str, list[EntryId]]:
    """The keys under which people pinned something, and which versions those are or were."""
    found = dict[str, list[EntryId]]()
    read = Speakers(core).is_read
    for tag in core.tables.newest_of_each(TAG, _TAGGED_MAX, read, tag=PINNED):
        row = core.tables.row(VERSION, tag.stream, tag.seq)
        # Who is no person cites no order, or one that is not theirs: nothing else of it is read.
        if row is not None and row.order and row.stream.scope == FLEET and is_ordered(core, row):
            found.setdefault(row.key, []).append(row.id)
    return found


def _rules_of(core: "Core", key: str) -> Iterator[Line]:
    record = core.part(Memory).records(key).get(RecordName(FLEET, key))
    for head in record.heads if record is not None and record.state in _COUNTS else ():
        line = line_of(core, head.id, "rules")
        if head.rank == PERSON and line is not None and _is_pinned(core, head):
            yield line


def check_rule(core: "Core", key: str, text: str) -> None:
    """Raises: Refused where not all that people pinned would fit into a digest with this."""
    others, looks = list[Line](), core.part(Memory).looks
    for each, ids in _pinned(core).items():
        if each == key:
            continue
        if core.part(Memory).looks - looks < _RULE_LOOKS_MAX:
            others += _rules_of(core, each)
        else:
            # Somebody wrote very much under these keys. What does not count any more takes room
            # here as well: who forgets it has that room.
            others += (line for id in ids if (line := line_of(core, id, "rules")) is not None)
    made = Line(NO_ENTRY, core.machine, "op:" + "x" * 20, 0, f"{key}:", text)
    # As they are told in a hundred days.
    took = sum(size("rules", each, each.at_ms + _LATER_MS) for each in (*others, made))
    took = max(took, tokens_of(text))
    if took > MEMORY_PINNED_TOKENS_MAX:
        raise Refused(
            f"all rules together take {MEMORY_PINNED_TOKENS_MAX} tokens at most, for every agent "
            f"is told all of them first, and with this it would be {took}: leave --pin out, or "
            "make it shorter (`muster digest` shows the rules)"
        )


def _is_pinned(core: "Core", version: Version) -> bool:
    put = body_or_none(core.log.entry(version.id), MemoryPut)
    return put is not None and PINNED in put.tags


class _Looked:
    """The lines for one piece of work; None where others may have their turn."""

    def __init__(self, core: "Core", work: Work) -> None:
        self._core, self._work = core, work
        self._owners = core.part(Ownership)

    def rules(self) -> Iterator[Line | None]:
        return rules(self._core)

    def tried(self) -> Iterator[Line | None]:
        """Earlier tries of this very task."""
        tries = self._tries(self._work.task) if self._work.task else ()
        return iter(earlier.of_this_task(tries))

    def runs(self) -> Iterator[Line | None]:
        """What earlier runs of this phase came to."""
        for run in self._runs():
            yield None
            outcomes, decisions = self._of_run(run)
            yield from earlier.of_runs([(outcomes, decisions)])

    def found(self) -> Iterator[Line | None]:
        """What is known about the repository, the spec and the phase, and what is new."""
        with suppress(Broken, Exhausted):
            # Whoever wrote something down a moment ago is told, too.
            for _ in self._core.part(Search).whole():
                yield None
        for key in self._keys():
            if not key:
                yield None
                continue
            record = self._core.part(Memory).records(key).get(RecordName(FLEET, key))
            yield None
            if record is None or record.state not in _COUNTS:
                continue
            for head in record.heads[:_HEADS_MAX]:
                yield line_of(self._core, head.id, "found")
            if record.state == "disputed":
                yield from self._objections(key)

    def changed(self) -> Iterator[Line | None]:
        """What this agent was told here before, and what is otherwise now."""
        core, actor = self._core, self._work.actor
        rows = core.tables.rows(
            READ, writer=core.machine, actor=actor, order=("-at_ms",), limit=_SHOWINGS_MAX
        )
        told = dict.fromkeys(id for row in rows for id in core.part(Showings).shown_in(row))
        keys = dict[str, None]()
        for id in told if actor else ():
            entry = core.log.entry(id)
            if entry is not None and entry.header.kind == "memory.put":
                row = core.tables.row(VERSION, entry.stream, entry.header.seq)
                keys |= {row.key: None} if row is not None else {}
        for key in islice(keys, _KEYS_MAX):
            record = core.part(Memory).records(key).get(RecordName(FLEET, key))
            yield None
            for head in record.heads[:_HEADS_MAX] if record is not None else ():
                # A text that comes back although it was refuted is among the heads, and no news.
                if head.id not in told and record is not None and record.state != "refuted":
                    yield line_of(core, head.id, "changed")
            if record is not None and record.state in ("refuted", "disputed"):
                yield from (line for line in self._objections(key) if line.id not in told)

    def _objections(self, key: str) -> Iterator[Line]:
        """The refutations of a key that nobody took back."""
        every = self._core.part(Memory).history(key)
        over = {target for each in every for target in each.over}
        for each in every:
            if each.state == "refuted" and each.id not in over and each.stream.scope == FLEET:
                line = line_of(self._core, each.id, "changed")
                if line is not None:
                    yield line

    def _keys(self) -> Iterator[str]:
        """The keys that may be about it: what names it, what has its words, what is new.

        "" where others may have their turn.
        """
        seen = set[str]()
        for keys, most in (
            (self._tagged, _TAGGED_KEYS_MAX), (self._of_words, _WORDS_KEYS_MAX),
            (self._newest, _NEWEST_MAX),
        ):  # fmt: skip
            fresh = (key for key in keys() if not key or key not in seen)
            count = 0
            while count < most and (key := next(fresh, None)) is not None:
                yield key
                seen.add(key)
                count += bool(key)

    @property
    def _names(self) -> dict[str, str]:
        work = self._work
        named = {"repo": work.repo, "spec": work.spec, "phase": work.phase}
        return {what: name for what, name in named.items() if name}

    def _tagged(self) -> Iterator[str]:
        """Of each tag and each machine in turn: whoever tags much is no sooner told."""
        tables, of_each = self._core.tables, dict[tuple[str, str], list[TagRow]]()
        read = Speakers(self._core).is_read
        for tag in (f"{what}:{name}" for what, name in self._names.items()):
            for each in tables.newest_of_each(TAG, _TAGGED_MAX, read, tag=tag):
                if each.stream.scope == FLEET:
                    of_each.setdefault((tag, each.stream.machine), []).append(each)
        for each in chain.from_iterable(zip_longest(*of_each.values())):
            row = None if each is None else tables.row(VERSION, each.stream, each.seq)
            if row is not None:
                yield row.key

    def _of_words(self) -> Iterator[str]:
        text = " ".join((*self._names.values(), self._work.text))
        text = text.encode("utf-8", "replace")[:RECALL_BYTES_MAX].decode("utf-8", "ignore")
        # Without an index all else is told.
        with suppress(Broken, Exhausted):
            question = Question(text, [FLEET], RECALLED_MAX, MEMORY)
            for each in recall(self._core, question):
                yield "" if each is None else each.name

    def _newest(self) -> Iterator[str]:
        core, order, most = self._core, ("-seq",), _NEWEST_OF_EACH_MAX
        streams = (stream for stream in core.log.streams() if stream.scope == FLEET)
        rows = [
            row
            for stream in streams
            for row in core.tables.rows(VERSION, stream=stream, order=order, limit=most)
        ]
        for row in sorted(rows, key=lambda row: (row.at_ms, row.id), reverse=True):
            yield row.key

    # --- earlier work --------------------------------------------------------------------------

    def _runs(self) -> Iterator[RunRow]:
        """Earlier runs of the same name and repository, the newest of each owner in turn."""
        work, tables = self._work, self._core.tables
        own = tables.rows(RUN, writer=work.owner, run=work.run) if work.run else []
        if not own:
            return
        rows = tables.rows_of_each(
            RUN, _RUNS_LOOKED_MAX, ("-opened_ms",), name=own[0].name, repo=own[0].repo
        )
        of_owner = dict[str, list[RunRow]]()
        for row in sorted(newest(rows), key=lambda row: -row.opened_ms):
            machine, is_it = row.stream.machine, row.run == work.run
            if not is_it and row.state != "open" and self._owners.owner(RUN, row.run) == machine:
                of_owner.setdefault(machine, []).append(row)
        mixed = zip_longest(*(rows[:_RUNS_MAX] for rows in of_owner.values()))
        every = [row for rows in mixed for row in rows if row is not None][:_RUNS_OF_ALL_MAX]
        yield from sorted(every, key=lambda row: -row.opened_ms)

    def _of_run(self, run: RunRow) -> tuple[Sequence[earlier.Outcome], Sequence[earlier.Decision]]:
        work, tables = self._work, self._core.tables
        rows = newest(
            tables.rows(TASK, writer=run.stream.machine, run=run.run, limit=_TASKS_OF_RUN_MAX)
        )
        same = [row for row in rows if (row.phase, row.instance) == (work.phase, work.instance)]
        outcomes = [each for row in same if (each := self._outcome(row)) is not None]
        # A task that was given to no machine is a person's to decide.
        asked = [row for row in rows if row.settled and not row.machine]
        entries = (each.entry for row in asked for each in tables.rows(DECISION, task=row.task))
        decisions = [decision_of(self._core, self._core.log.entry(id)) for id in entries]
        return outcomes, [each for each in decisions if each is not None]

    def _outcome(self, row: TaskRow) -> earlier.Outcome | None:
        found = outcome_of(self._core, self._core.log.entry(row.settled)) if row.settled else None
        if found is None:
            return None
        tries = [each for each in self._tries(row.task) if each.reason not in found.said]
        return found._replace(tries=tuple(tries[:ATTEMPTS_OF_TASK_MAX]))

    def _tries(self, task: str) -> list[earlier.Try]:
        rows: Iterable[AttemptRow] = self._owners.attempts(task)
        ended = (row for row in rows if row.state in _FAILED and row.ended and row.reason)
        found = [try_of(self._core, self._core.log.entry(row.ended)) for row in ended]
        return [each for each in found if each is not None]
