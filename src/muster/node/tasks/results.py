"""What the phases before a task yielded, read from their owner's log: the same on every machine.

Rule 1: one reading for the owner, who says what a task is given, and for the worker, who is given
it. Where values are too large for `task.open` the two agree on a hash over the settlements.
Rule 2: of a race the racer that was done first counts; with `each` every match, in order of paths;
of what is reviewed, and of reviews, the last round.
Rule 3: only what the texts of the phase use is read; what is too long for them is refused by name,
before anything of it is fetched.
"""

import contextlib
import hashlib
from collections.abc import Iterable, Mapping, Sequence
from typing import Final, NamedTuple

from muster import limits
from muster.errors import Malformed, Refused
from muster.log.entry import Entry, EntryId
from muster.log.fold import body_or_none
from muster.log.stream import MachineId
from muster.node.tasks.kept import kept_of
from muster.store.store import Store
from muster.task import kinds
from muster.task.artefact import named as blobs_of
from muster.task.fold import TASK, TaskRow
from muster.task.identity import branch_of
from muster.task.instruction import Draft, Settled
from muster.task.large_value import Large, apart, parse
from muster.task.review import round_of
from muster.task.values import RESERVED, RESULTS, Uses, too_long

# Tokens, as every agent counts them, before what only some of them say.
_USAGE_ORDER: Final = ("total_tokens", "input_tokens", "output_tokens")


class Piece(NamedTuple):
    """One value of one task: its text; or where it is `large`, its end, and who has the whole."""

    text: str
    large: Large | None = None
    entry: EntryId = EntryId(b"")
    machine: MachineId = MachineId("")


# Of each phase each value, as the pieces that its tasks yielded.
Pieces = dict[str, dict[str, list[Piece]]]
# What tasks yielded, by the entry that settled them; a run's tasks are often asked for.
Kept = dict[EntryId, tuple["Settlement", dict[str, Piece]]]
# Of so many tasks, each with so small a body, it is kept: a run may have many large ends.
_KEPT_MAX: Final = 4_096
_KEPT_BYTES_MAX: Final = 1_024


class Settlement(NamedTuple):
    """A task that was done: the entry that settled it, and where its work ended."""

    entry: Entry
    body: kinds.TaskSettle
    run: str
    instance: str


def settlements(store: Store, owner: str, run: str, phase: str) -> list[Settlement]:
    """What counts of a phase of this very run, in order; nothing while none of it is done."""
    found: dict[str, Settlement] = {}
    race = False
    for row in store.tables.rows(TASK, writer=owner, run=run, phase=phase, state="done"):
        if each := _settlement(store, row.settled, run, row.instance):
            found[row.task] = each
            order = body_or_none(store.log.entry(row.opened), kinds.TaskOpen)
            race = race or bool(order and order.template.get("race"))
    done = sorted(found.values(), key=lambda each: each.instance)
    if race and done:
        return [min(done, key=lambda each: (*each.entry.header.t, each.entry.header.seq))]
    # Of what is reviewed, and of reviews, the last round.
    rounds = [round_of(each.instance) for each in done]
    if max(rounds, default=0) > 1:
        return [done[rounds.index(max(rounds))]]
    return done


def gathered(
    store: Store, owner: str, run: str, phases: Iterable[str]
) -> dict[str, list[Settlement]]:
    """What counts of several phases; of one that the run kept, what it yielded in its own run."""
    kept = kept_of(store, owner, run)
    return {
        phase: settlements(store, owner, kept.get(phase, run), phase) for phase in sorted(phases)
    }


def settlement(store: Store, end: Settled, kept: Kept) -> Settlement | None:
    """The same of one end that is known already; None where it is not of the log (any more)."""
    cite = end.cite.id if isinstance(end.cite, Draft) else end.cite
    return kept[cite][0] if cite in kept else _settlement(store, cite, end.run, end.instance)


def _settlement(store: Store, cite: EntryId | None, run: str, instance: str) -> Settlement | None:
    entry = store.log.entry(cite)
    body = body_or_none(entry, kinds.TaskSettle)
    return None if entry is None or body is None else Settlement(entry, body, run, instance)


def digest(found: Mapping[str, Sequence[Settlement]]) -> str:
    """The hash that a task's opening holds in the place of values that are too large for it."""
    ids = b"".join(each.entry.id for phase in sorted(found) for each in found[phase])
    return hashlib.sha256(ids).hexdigest()


def results_of(opened: kinds.TaskOpen) -> str:
    """That hash, "" where the opening holds the values themselves."""
    return opened.values.get("run", {}).get(RESULTS, "")


def phases_of(opened: kinds.TaskOpen) -> list[str]:
    """The phases of which a task is given values."""
    return [phase for phase in opened.values if phase not in RESERVED]


def pieces(
    store: Store, found: Mapping[str, Sequence[Settlement]], kept: Kept | None = None
) -> Pieces:
    """Every value of these settlements; what is small is put into `kept`, and taken from there.

    Raises: Malformed where a worker named a blob badly.
    """
    result: Pieces = {}
    for phase, several in found.items():
        known = result.setdefault(phase, {})
        for each in several:
            if kept is not None and each.entry.id in kept:
                yielded = kept[each.entry.id][1]
            else:
                yielded = of_settlement(store, each, branch_of(each.run, phase, each.instance))
                if kept is not None and len(each.entry.body or b"") <= _KEPT_BYTES_MAX:
                    if len(kept) >= _KEPT_MAX:
                        kept.clear()
                    kept[each.entry.id] = (each, yielded)
            for value, piece in yielded.items():
                known.setdefault(value, []).append(piece)
    return result


def of_settlement(store: Store, found: Settlement, branch: str) -> dict[str, Piece]:
    """What one task yielded, by value."""
    body = found.body
    values, large = apart(body.values)
    result = {name: Piece(text) for name, text in values.items()}
    for name, text in large.items():
        told = parse(text)
        result[name] = Piece(values.get(name, ""), told)
        if told.sha256:
            # The end of the attempt, which names the blob, and its machine: the owner cites both.
            causes = found.entry.causes
            assign = store.log.entry(causes[0]) if len(causes) > 1 else None
            if assign is None or assign.header.kind != "task.assign":
                raise Malformed("the end of a task before this one cites no attempt")
            given = body_or_none(assign, kinds.TaskAssign)
            if given is None:
                raise Malformed("the assignment of a task before this one cannot be read")
            result[name] = Piece(values.get(name, ""), told, causes[1], MachineId(given.machine))
    own = {"status": body.outcome, "summary": body.summary, "commit": body.commit}
    if number := round_of(found.instance):
        own["rounds"] = str(number)
    if body.commit:
        own["branch"] = branch
    if body.artefacts:
        paths: list[str] = []
        # Of another version's form: it is shown as it came.
        with contextlib.suppress(Malformed):
            paths = [each.path for each in blobs_of(body.commit, body.artefacts)]
        own["artefacts"] = "\n".join(paths or body.artefacts)
    if body.usage:
        first = [name for name in _USAGE_ORDER if name in body.usage]
        names = [*first, *sorted(body.usage.keys() - set(first))]
        own["usage"] = ", ".join(f"{name} {body.usage[name]}" for name in names)
    return result | {name: Piece(text) for name, text in own.items()}


def joined(several: Sequence[Piece]) -> str:
    """The value as its entries have it; of a large one the end."""
    return "\n".join(piece.text for piece in several)


def total(several: Sequence[Piece]) -> int:
    """How long the whole value is."""
    sizes = [p.large.size if p.large else len(p.text.encode("utf-8", "replace")) for p in several]
    return sum(sizes) + len(sizes) - 1


def used(every: Pieces, uses: Uses, *, strict: bool = True) -> Pieces:
    """What of it a phase is given. A person is shown what there is of a value: not `strict`.

    Raises: Refused: a value that it names is longer than anything that is handed on, or all of
    them together are.
    """
    result: Pieces = {}
    together = 0
    for phase, known in every.items():
        taken = result.setdefault(phase, {})
        for value, several in known.items():
            if not uses.takes(phase, value):
                continue
            size = total(several)
            # Of what is large somebody must have the whole.
            whole = all(piece.large is None or piece.large.sha256 for piece in several)
            if not strict or (size <= limits.VALUE_BYTES_MAX and whole):
                taken[value] = several
                together += size
            elif uses.names(phase, value):
                raise Refused(too_long(phase, value, size))
    if strict and together > limits.VALUES_BYTES_MAX:
        raise Refused(
            f"the values that it is given have {together} bytes together, at most "
            f"{limits.VALUES_BYTES_MAX}; name fewer of them, or deliver files"
        )
    return result


def settled_of(store: Store, row: TaskRow) -> Settled:
    """How a settled task ended, from its row and the entry that the row names."""
    entry = store.log.entry(row.settled)
    body = body_or_none(entry, kinds.TaskSettle)
    place = (row.task, row.run, row.phase, row.instance)
    end = (row.state, row.summary, row.commit_id, body.values if body else {})
    who = (row.machine, row.agent, row.reason, row.epoch)
    return Settled(*place, *end, entry.id if entry else None, *who)
