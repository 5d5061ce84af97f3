"""Verbs that show tasks: which there are, what each yielded, and why it went where it went."""

import contextlib
from collections.abc import Iterable, Iterator, Mapping
from itertools import islice
from typing import Annotated, Any, Final

from msgspec import UNSET, Struct, UnsetType

from muster.duration import duration_of
from muster.errors import Conflict, Malformed, NotFound
from muster.fleet.roster import Roster
from muster.fleet.until import date_ms
from muster.log import canon
from muster.log.entry import Entry
from muster.log.fold import body_or_none
from muster.node.services.knowing import Shown, knew
from muster.node.services.presence import presence
from muster.node.tasks.actor import HandedOn, handed_on, said
from muster.node.tasks.one_run import Again, again
from muster.node.tasks.owner import OwnerService
from muster.node.tasks.ownership import Held, Listing, Ownership, newest
from muster.node.verb import Turns
from muster.task import kinds
from muster.task.fold import RUN, TASK, TaskRow
from muster.task.open_task import Why as Standing
from muster.task.route import Verdict
from muster.task.state import LIVE
from muster.verbs import history as past
from muster.verbs.agent import awaited_login
from muster.verbs.declaration import Call, Core, Request, opt, verb
from muster.verbs.delivery import WhyMessage, of_message
from muster.verbs.find import Claim, OfTask, OfTaskOrMessage, claims, find_run, find_task
from muster.verbs.listing import Room, Rows, say_cut

SHOWN_MAX: Final = 1_000
# A handful of machines and people; what else is cited is shown by its digits.
NAMES_MAX: Final = 1_000


class Tasks(Request, frozen=True):
    run: Annotated[str, opt("only of this run", kind="run")] = ""
    all: Annotated[bool, opt("settled ones, too", short="a")] = False
    at: Annotated[str, opt("as this machine knew them then: 10m (ago), or 2026-11-20T23:00")] = ""
    limit: Annotated[Rows, opt("show so many at most")] = None


class Task(Struct, frozen=True, kw_only=True):
    """A task as a person reads it; `waits`: what keeps it from a machine."""

    task: str
    state: str
    run: str
    phase: str
    instance: str
    machine: str
    agent: str
    epoch: tuple[int, int]
    tries: int
    losses: int
    reason: str
    summary: str
    commit: str
    owner: str
    opened_ms: int
    changed_ms: int
    waits: str | UnsetType = UNSET


@verb(
    "tasks", watches=("task", "run", "attempt", "work"), names="task", auth="local",
    group="Work", harmless=True,
)  # fmt: skip
def tasks(core: Core, call: Call, ask: Tasks) -> Turns[list[Task]]:
    """Tasks and their states.

    The live ones first; settled ones with `all`.

        muster tasks --all
        muster tasks --at 10m    # as it was ten minutes ago
    """
    run, limit = ask.run, ask.limit or SHOWN_MAX
    where = {"run": find_run(core, run).row.run} if run else {}
    every = bool(ask.all or run)
    if ask.at:
        found = _then(core, moment(ask.at, core.now.wall_ms), every, where, limit)
    else:
        found = yield from core.part(Ownership).listing(TASK, limit, LIVE, **where)
        if every:
            rest = yield from core.part(Ownership).listing(TASK, limit, **where)
            over = [row for row in rest.rows if row.state not in LIVE]
            both = [*found.rows, *over]
            found = Listing(both[:limit], found.cut or rest.cut or len(both) > limit)
    if found.cut:
        say_cut(call, limit, "tasks", "--limit shows more, --run only those of one run")
    return [task_view(core, row) for row in found.rows]


def _then(
    core: Core, at_ms: int, every: bool, where: Mapping[str, str], limit: int
) -> Listing[TaskRow]:
    """The tasks as this machine knew them at a moment."""
    then = newest(core.tables.as_of(TASK, time_ms=at_ms))
    then.sort(key=lambda r: r.opened_ms, reverse=True)
    found: list[TaskRow] = []
    for row in then:
        if (every or row.state in LIVE) and row.run == where.get("run", row.run):
            if core.part(Ownership).owner(TASK, row.task) != row.stream.machine:
                continue
            if len(found) == limit:
                return Listing(found, True)
            found.append(row)
    return Listing(found, False)


def moment(text: str, now_ms: int) -> int:
    """`10m` (ago), or a date and time such as `2026-11-20T23:00` (UTC without a zone)."""
    ago_ms = duration_of(text)
    return date_ms(text, "10m (ago)") if ago_ms is None else now_ms - ago_ms


def task_view(core: Core, row: TaskRow) -> Task:
    """A task's row as a person reads it."""
    return Task(**_viewed(core, row))


def _viewed(core: Core, row: TaskRow) -> dict[str, Any]:
    same = ("task", "state", "run", "phase", "instance", "agent", "tries", "losses", "reason",
            "summary", "opened_ms", "changed_ms")  # fmt: skip
    return {
        **{name: getattr(row, name) for name in same},
        "machine": core.membership.name_of(row.machine) if row.machine else "",
        "epoch": row.epoch,
        "commit": row.commit_id,
        "owner": core.membership.name_of(row.stream.machine),
    }


class Result(Task, frozen=True, kw_only=True):
    """A task, its values, and what it cost."""

    values: dict[str, str]
    artefacts: list[Any]
    usage: dict[str, Any]


@verb("result", auth="local")
def result(core: Core, call: Call, ask: OfTask) -> Result:
    """What a settled task yielded."""
    row = find_task(core, ask.task).row
    body = body_or_none(core.log.entry(row.settled), kinds.TaskSettle)
    if body is None:
        raise Conflict(f"task {row.task[:12]} is {row.state}: it has no result")
    return Result(
        **_viewed(core, row), values=body.values, artefacts=list(body.artefacts), usage=body.usage
    )


class Candidate(Struct, frozen=True):
    """What a machine was, or is, to a task."""

    machine: str
    fits: bool
    score: int
    reasons: list[str]


class Decision(Struct, frozen=True):
    """To whom a task was given, from among whom, and why it came to nothing."""

    t_ms: int
    machine: str
    agent: str
    epoch: tuple[int, int]
    left: past.Left | None
    candidates: list[Candidate]


class Now(Struct, frozen=True):
    """Where a live task stands."""

    state: str
    stage: str
    reason: str
    candidates: list[Candidate]


class Why(Struct, frozen=True, kw_only=True):
    """`question` is what a person is asked, `now` of a task that is not settled; `kept_by` a run
    that it was asked about, which did not run it again; `again` what else its owner began by the
    order of its run, which counts for nothing.
    """

    task: Task | UnsetType = UNSET
    decisions: list[Decision] = []
    claims: list[Claim] = []
    message: WhyMessage | UnsetType = UNSET
    question: str | UnsetType = UNSET
    now: Now | UnsetType = UNSET
    kept_by: str | UnsetType = UNSET
    handed_on: HandedOn | UnsetType = UNSET
    again: list[Again] | UnsetType = UNSET


@verb("why", auth="local", group="Work", harmless=True)
def why(core: Core, call: Call, ask: OfTaskOrMessage) -> Why:
    """Every candidate for a task, and why it won or lost; or what became of a message.

    Of a live task as it is now, and when it was given away; of our message each try to deliver it.

        muster why 7d5e
        muster why 0827        # of a message, by its id in `muster sent`
    """
    try:
        held = find_task(core, ask.task)
    except NotFound as missing:
        return Why(message=of_message(core, ask.task, missing))
    row, task, now = held.row, held.row.task, None
    of = find_run(core, ask.task).row.run if "/" in ask.task else row.run
    with contextlib.suppress(NotFound):  # What has ended waits for nothing.
        now = core.part(OwnerService).owner.why(task)
    return Why(
        task=task_view(core, row),
        decisions=_decisions(core, held),
        claims=claims(core, TASK, task),
        question=past.question(core, row) if row.state == "waiting" else UNSET,
        now=_now(core, now) if now else UNSET,
        kept_by=of if of != row.run else UNSET,
        handed_on=_handed_on(core, row.run),
        again=again(core, held.owner, row.run) or UNSET,
    )


def _now(core: Core, now: Standing) -> Now:
    waits = "" if now.machine else awaited_login(core, now.verdicts)
    return Now(now.state, now.stage, waits or now.reason, _everybody(core, now.verdicts))


def _handed_on(core: Core, run: str) -> HandedOn | UnsetType:
    held = core.part(Ownership).held(RUN, run) if run else None
    return UNSET if held is None else handed_on(core, held.row)


def waits_for(core: Core, task: str) -> tuple[str, bool]:
    """What keeps a queued task of ours from a machine, "" for its turn; whether one fits."""
    try:
        found = core.part(OwnerService).owner.why(task)
    except NotFound:
        return "", True
    if wanted := awaited_login(core, found.verdicts):
        return wanted, False
    if found.reason or any(verdict.fits for verdict in found.verdicts):
        return found.reason, True
    everybody = _everybody(core, found.verdicts)
    return "; ".join(f"{each.machine}: {', '.join(each.reasons)}" for each in everybody), False


def _everybody(core: Core, verdicts: Iterable[Verdict]) -> list[Candidate]:
    """Who was asked, and who is not because it is away: its time may come."""
    named = core.membership.name_of
    asked = {
        v.machine: Candidate(named(v.machine), v.fits, v.score, list(v.reasons)) for v in verdicts
    }
    away = [
        Candidate(record.name, False, 0, ["away"])
        for machine, record in sorted(core.roster.machines.items())
        if machine not in asked and presence(core, machine) == "away"
    ]
    return [*asked.values(), *away]


def _decisions(core: Core, held: Held[TaskRow]) -> list[Decision]:
    """Each assignment of a task, with the candidates as they were, and why it came to nothing."""
    # A row is queued with a reason only after its lease ended or its attempt failed.
    left = {
        row.epoch: past.Left(row.changed_ms, row.reason)
        for row in past.rows(core, held)
        if row.state == "queued" and row.reason
    }
    found = []
    for entry in past.entries(core, held):
        body = body_or_none(entry, kinds.TaskAssign)
        if body is None:
            continue
        found.append(
            Decision(
                entry.header.t[0],
                core.membership.name_of(body.machine),
                body.agent,
                body.epoch,
                left.get(body.epoch),
                [
                    Candidate(core.membership.name_of(m), fits, score, [reason] if reason else [])
                    for m, fits, score, reason in body.candidates
                ],
            )
        )
    return found


class Cited(Struct, frozen=True, kw_only=True):
    """An entry: who wrote it as far as it is proven, what it claims, who receipted it."""

    id: str
    kind: str
    machine: str
    actor: str
    claims: str | UnsetType = UNSET
    t_ms: int
    seq: int
    causes: list[str]
    body: Any
    held_by: list[str]


class Explained(Struct, frozen=True):
    """Every entry behind a task, what people call the keys and grants in them, and what its
    attempts on this machine knew.
    """

    task: Task
    entries: list[Cited]
    claims: list[Claim]
    names: dict[str, str]
    knew: list[Shown]
    again: list[Again] | UnsetType = UNSET


@verb("explain", auth="local")
def explain(core: Core, call: Call, ask: OfTask) -> Explained:
    """The chain of causes of a task.

    The decision, reconstructed: each entry about it, with what it cites, to its order.
    """
    held = find_task(core, ask.task)
    seen: dict[bytes, Entry] = {}
    todo = past.entries(core, held)
    while todo:
        entry = todo.pop()
        if entry.id in seen or len(seen) > SHOWN_MAX:
            continue
        seen[entry.id] = entry
        todo += [e for e in (core.log.entry(c) for c in entry.causes) if e is not None]
    ordered = sorted(seen.values(), key=lambda e: (e.header.t, e.id))
    room = Room()
    return Explained(
        task_view(core, held.row),
        [_entry_view(core, e, room) for e in ordered],
        claims(core, TASK, held.row.task),
        dict(islice(_names(core.roster), NAMES_MAX)),
        [each for each in knew(core, held.row.task) if room.has(each)],
        again(core, held.owner, held.row.run) or UNSET,
    )


def _names(roster: Roster) -> Iterator[tuple[str, str]]:
    """What people call the keys and grants that entries cite."""
    for key in (*roster.operators, *roster.machines, *roster.devices_ever, *roster.revoked):
        # Its sort stands before it: `operator`, `machine`.
        yield key, roster.called(key).removeprefix("operator ").removeprefix("machine ")
    for given in roster.grants:
        whose = roster.called(given.giver or given.grant.to)
        yield given.id, f"what {whose} gave" if given.giver else f"what {whose} may"


def _entry_view(core: Core, entry: Entry, room: Room) -> Cited:
    body: Any = None
    if entry.body is not None:
        try:
            body = canon.decode(entry.body, "body", size_max=1 << 20)
        except Malformed:
            # What a member wrote need not be JSON; that it is not says enough.
            body = {"unreadable": f"{len(entry.body)} bytes that are no JSON"}
        if not room.has(body):
            body = {"left out": f"{len(entry.body)} bytes, for which this page has no room"}
    held = [
        core.membership.name_of(c.machine)
        for c in core.log.cosigns(entry.stream)
        if c.strength == "held" and c.size > entry.header.seq
    ]
    who = said(core, entry)
    return Cited(
        id=entry.id.hex(),
        kind=entry.header.kind,
        machine=core.membership.name_of(entry.header.author),
        actor=who.name,
        claims=who.claims or UNSET,
        t_ms=entry.header.t[0],
        seq=entry.header.seq,
        causes=list(entry.header.cause),
        body=body,
        held_by=sorted(held),
    )
