"""Why a machine may run this: every cause of an assignment, back to an operator's signature.

Rule 1: bytes convince, not the owner's word. The owner may decide *when and where*; *what* is run
        was signed by an operator, and is computed again here from what was signed.
Rule 2: every way to fail has its own reason; a worker that refuses writes it down.
Rule 3: nothing is fetched. What is missing is a refusal; the assignment can be repeated.
Rule 4: whether an order came in time was the owner's to decide, when it took it: its stamp says
        nothing about that, since a log may run ahead of its clock and an opening is repeated. The
        order counts as of its opening, and at the latest as of its own end; so it grows old, and
        nobody can make it younger by writing it down again.

    task.assign ──cause──▶ task.open ──cause──▶ run.open ──body──▶ the operator's statement
     this machine            same owner          spec text          verb, object, args, target
                             template == what the spec yields

An owner that had to begin a new incarnation repeats what is still open, citing what it repeats:
the chain is then followed to where it was first written. So does a machine that an operator ordered
to take over the owner's work (adoption.py).

A task without a run carries the statement in its own `task.open`.

A run that an agent handed on has a statement by the key that its machine keeps for that. What lets
it stands in the `delegation.open` that the run cites: the assignment of the agent's own attempt,
whose chain is followed in the same way, or an operator's grant to the machine.

    run.open ──cause──▶ delegation.open ──cause──▶ task.assign ──▶ … ──▶ the operator's statement
                         the asker's own           to the asker          `may`, in the signed spec

A run that a keeper of a schedule began has no statement of its own: see schedule_proof.py.

Entries that `lookup` returns were admitted: their stream's seal covers them.
"""

from collections.abc import Callable
from typing import Any, Final, NamedTuple

from muster import limits
from muster.errors import MusterError
from muster.fleet.grant import FLEET_GRANTEE
from muster.fleet.statement import Statement
from muster.log.entry import Entry, EntryId
from muster.log.stream import FleetId, MachineId
from muster.task import delegation, peer_order, schedule_proof
from muster.task.adoption import Ordered, first
from muster.task.causes import Lookup, Unproven, cause_of, origin, read
from muster.task.delegation import Asking
from muster.task.delegation_kinds import DelegationOpen
from muster.task.identity import run_id, task_id
from muster.task.kinds import RunOpen, TaskAssign, TaskOpen
from muster.task.order_proof import Authority, allowed, allowed_unenclosed, in_time, ordered
from muster.task.spec import parse

# (run, phase, instance) -> the template that the signed spec yields; raises MusterError.
Recompute = Callable[[RunOpen, str, str], dict[str, Any]]
# (statement, entry that carries it) -> raises Unproven when its key was shut out before that came.
Came = Callable[[Statement, Entry], object]
Known = dict[EntryId, tuple[RunOpen, Statement]]

# Chosen arbitrarily; few machines work on more runs at a time.
_RUNS_KNOWN_MAX: Final = 256
# What does not hold for this machine today will hold for no machine tomorrow.
HOPELESS: Final = frozenset(
    {
        "order-too-old", "operator-not-allowed", "delegation-not-allowed", "delegation-too-wide",
        "delegation-too-many", "run-begun-before", "adoption-not-allowed", "peer-other-fleet",
        "schedule-removed", "slot-late", "slot-not-keeper", "slot-off-grid", "slot-twice",
    }
)  # fmt: skip
_DAY_MS: Final = 24 * 3_600_000


class Evidence(NamedTuple):
    """What was found: the entries that lead from the assignment to the order."""

    assign: TaskAssign
    opened: TaskOpen
    run: RunOpen | None
    statement: Statement
    # Whether nobody else can have a task of this id; see `identity.py`.
    certain: bool
    foreign: bool = False  # Another fleet asked for it.


def run_args(run: RunOpen) -> dict[str, Any]:
    """What an operator signs as arguments of `run`: the spec's text and all that shapes it."""
    args = {"base": run.base, "repo": run.repo, "spec": run.spec, "values": run.values}
    # An order that says nothing of these is signed as it always was.
    more = {"kept": run.kept, "budget": run.budget, "after": run.after}
    return args | {name: value for name, value in more.items() if value}


def task_args(opened: TaskOpen) -> dict[str, Any]:
    """What an operator signs as arguments of `task`, for a task without a run."""
    return {"base": opened.base, "repo": opened.repo, "template": opened.template}


def check_evidence(
    entry: Entry,
    *,
    me: MachineId,
    fleet: FleetId,
    lookup: Lookup,
    authority: Authority,
    recompute: Recompute,
    now_ms: int,
    known: Known | None = None,
    asking: Asking | None = None,
    depth: int = 0,
) -> Evidence:
    """The chain of causes of an assignment, checked link by link.

    `known` remembers the runs whose signature held: a run's many tasks share one. Without `asking`
    no agent hands on anything; `depth` is how often this was handed on already.

    Raises:
        Unproven: with the reason of the first link that does not hold.

    """
    assign = read(entry, "task.assign", TaskAssign, "assign")
    if assign.machine != me:
        raise Unproven("assign-other-machine", "the assignment is for another machine")
    leads = asking.leads if asking is not None else None
    found = first(cause_of(entry, "task.open", lookup), lookup, fleet, leads)
    opener = found.entry
    opened = read(opener, "task.open", TaskOpen, "open")
    if opened.task != assign.task:
        raise Unproven("open-other-task", "the assignment cites the opening of another task")
    if not opened.run:
        order = ("task", opened.task, task_args(opened))
        statement = ordered(opened.statement, opener, fleet, order)
        allowed(statement, opener, authority, now_ms)
        allowed_unenclosed(opened.template, statement, opener, authority, now_ms)
        return Evidence(assign, opened, None, statement, certain=False)
    starter = first(cause_of(opener, "run.open", lookup), lookup, fleet, leads).entry
    run, statement = _ordered_run(starter, fleet, lookup, {} if known is None else known)
    if run.run != opened.run:
        raise Unproven("run-other-run", "the task cites the opening of another run")
    chain = _Chain(fleet, lookup, authority, now_ms, known, asking, depth)
    foreign = _allowed_run(run, statement, starter, chain)
    if opened.repo != run.repo:
        raise Unproven("task-other-repo", "the task names another repository than the run")
    try:
        expected = recompute(run, opened.phase, opened.instance)
    except MusterError as error:
        text = f"the signed spec has no such task: {error}"
        raise Unproven("spec-yields-nothing", text) from error
    if expected != opened.template:
        raise Unproven("task-not-in-spec", "the task is not what the signed spec yields")
    allowed_unenclosed(opened.template, statement, starter, authority, now_ms)
    certain = _is_certain(opened, run, MachineId(starter.header.author))
    return Evidence(assign, opened, run, statement, certain, foreign)


def check_ordered(
    entry: Entry,
    *,
    fleet: FleetId,
    lookup: Lookup,
    authority: Authority,
    now_ms: int,
    known: Known | None = None,
    came: Came = lambda _statement, _entry: None,
    asking: Asking | None = None,
) -> Ordered:
    """An operator ordered, of the machine that wrote this opening, what it begins.

    Or of another one, and ordered this one to take that one's work over (`adoption.py`). Without
    this an entry that names a run or a task says only that its writer knows the name.

    Raises:
        Unproven: with the reason of the first link that does not hold.

    """
    leads = asking.leads if asking is not None else None
    starter, generation = first(entry, lookup, fleet, leads)
    author = MachineId(starter.header.author)
    opened = None
    if starter.header.kind == "task.open":
        opened = read(starter, "task.open", TaskOpen, "open")
        if not opened.run:
            order = ("task", opened.task, task_args(opened))
            statement = ordered(opened.statement, starter, fleet, order)
            allowed(statement, starter, authority, now_ms)
            came(statement, starter)
            return Ordered(statement.target == author, generation)
        starter, generation = first(cause_of(starter, "run.open", lookup), lookup, fleet, leads)
        author = MachineId(starter.header.author)
    run, statement = _ordered_run(starter, fleet, lookup, {} if known is None else known)
    if opened is not None and run.run != opened.run:
        raise Unproven("run-other-run", "the task cites the opening of another run")
    chain = _Chain(fleet, lookup, authority, now_ms, known, asking, 0)
    _allowed_run(run, statement, starter, chain)
    came(statement, starter)
    return Ordered(_is_certain(opened, run, author), generation)


def _is_certain(opened: TaskOpen | None, run: RunOpen, owner: MachineId) -> bool:
    """Whether nobody else can have a task, or run, of this id.

    Raises: Unproven for a second task at one place of a run: whoever named a run by its order also
    named its tasks by their places.
    """
    ordered = run.run == run_id(owner, run.statement)
    if opened is None or opened.task == task_id(run.run, opened.phase, opened.instance):
        return ordered
    if ordered:
        raise Unproven("task-other-id", "the id of the task is not that of its place in the run")
    return False


class _Chain(NamedTuple):
    """What the links behind a run are checked with."""

    fleet: FleetId
    lookup: Lookup
    authority: Authority
    now_ms: int
    known: Known | None
    asking: Asking | None
    depth: int


def check_handed_on(
    asked: Entry,
    run: RunOpen,
    *,
    fleet: FleetId,
    lookup: Lookup,
    authority: Authority,
    asking: Asking,
    now_ms: int,
    depth: int = 0,
) -> bool:
    """The agent behind a `delegation.open` may hand on this run, by what a person signed; whether
    another fleet is behind it.

    Raises:
        Unproven: with the reason of the first link that does not hold.

    """
    body = read(asked, "delegation.open", DelegationOpen, "delegation")
    machine = MachineId(asked.header.author)
    _its_own(asked, body, run, fleet, asking)
    if run.kept or run.values or run.budget or run.after:
        text = "what is handed on keeps nothing of another run, and is given no inputs"
        raise Unproven("delegation-too-wide", text)
    if depth >= limits.DELEGATION_DEPTH_MAX:
        raise Unproven("delegation-too-wide", "it was handed on too often already")
    at_ms, since_ms, source = asked.header.t[0], 0, body.grant
    if at_ms > now_ms + limits.CLOCK_AHEAD_MS_MAX:
        text = "it was asked for in this machine's future: compare the two machines' clocks"
        raise Unproven("delegation-in-the-future", text)
    if body.grant:
        grant = asking.grant(body.grant, machine)
        if grant is None or at_ms > grant.until_ms:
            text = "no operator's grant lets its machine hand on work: it ended, or was taken back"
            raise Unproven("delegation-not-allowed", text)
        bounds, since_ms = delegation.of_grant(grant), at_ms - _DAY_MS
        if grant.to.startswith(FLEET_GRANTEE):
            bounds = peer_order.check_document(asked, body, run, grant, fleet, lookup, asking)
    else:
        # What is counted is counted by the first cause; see delegation_fold.py.
        source = asked.header.cause[0] if asked.header.cause else ""
        assign = lookup(asked.causes[0]) if source else None
        if assign is None:
            text = "this machine has no assignment of the attempt whose agent hands it on"
            raise Unproven("delegation-missing", text)
        # More than any spec allows: the chain behind it is not even followed.
        _few(asked, source, 0, limits.DELEGATIONS_OF_ATTEMPT_MAX, asking)
        attempt = check_evidence(
            assign, me=machine, fleet=fleet, lookup=lookup, authority=authority,
            recompute=asking.recompute, now_ms=now_ms, asking=asking, depth=depth + 1,
        )  # fmt: skip
        bounds = delegation.of_phase(attempt.opened.template, attempt.opened.repo)
    if bounds is None:
        text = "nothing that a person signed lets this agent hand on work"
        raise Unproven("delegation-not-allowed", text)
    _few(asked, source, since_ms, bounds.runs, asking)
    try:
        # Last of all: to read a text costs what its writer likes, and none of it was signed.
        wider = delegation.refusal(bounds, parse(run.spec.encode()), run.repo, asking.ids)
    except MusterError as error:
        raise Unproven("spec-yields-nothing", f"its spec cannot be read: {error}") from error
    if wider:
        raise Unproven("delegation-too-wide", f"more is handed on than is allowed: {wider}")
    return bounds.foreign


def _its_own(
    asked: Entry, body: DelegationOpen, run: RunOpen, fleet: FleetId, asking: Asking
) -> None:
    """Raises: Unproven where its writer did not ask for just this run, first, by its own key."""
    statement = ordered(run.statement, asked, fleet, ("run", run.name, run_args(run)), body.owner)
    speaks_for = asking.machine_of(statement.operator)
    if speaks_for is None:
        text = "the key that asks for it is no machine's, or its machine was revoked"
        raise Unproven("delegation-not-allowed", text)
    # An order for every machine would be a run on each of them.
    own = statement.target == body.owner and speaks_for == MachineId(asked.header.author)
    # Of one asking there is one run: else what is counted once would be begun many times.
    if (body.run, body.statement) != (run.run, run.statement) or not own:
        text = "what an agent asked for is another order or run, or another machine's"
        raise Unproven("delegation-other-order", text)
    if not asking.is_counted(asked, body.run):
        text = "its machine asked for this run before, by something else, and that alone counts"
        raise Unproven("delegation-other-order", text)


def _few(asked: Entry, source: str, since_ms: int, most: int, asking: Asking) -> None:
    """Raises: Unproven where so many were handed on before it by the same source."""
    if asking.before(asked, source, since_ms, most) >= most:
        per = "in a day" if since_ms else "by one attempt"
        text = f"more runs are handed on than the {most} that are allowed {per}"
        raise Unproven("delegation-too-many", text)


def asked_by(opening: Entry, lookup: Lookup) -> Entry | None:
    """What the opening of a run answers, where an agent handed it on. Raises: Unproven."""
    cited = (lookup(cause) for cause in origin(opening, lookup).causes)
    return next((c for c in cited if c and c.header.kind == "delegation.open"), None)


def _allowed_run(run: RunOpen, statement: Statement, starter: Entry, chain: _Chain) -> bool:
    """Whoever ordered the run may: a person, or an agent within what one signed. As that says."""
    author = MachineId(starter.header.author)
    if statement.target != author:
        # As is said in `_its_own`.
        text = "a run is ordered of one machine, and this order is for every one"
        raise Unproven("statement-other-order", text)
    if not run.statement:
        found = schedule_proof.fired(origin(starter, chain.lookup), chain.fleet, chain.lookup)
        allowed(statement, starter, chain.authority, chain.now_ms)
        schedule_proof.check(
            run, starter, found, lookup=chain.lookup, authority=chain.authority,
            now_ms=chain.now_ms, watching=chain.asking,
        )  # fmt: skip
        return False
    if chain.asking is not None and not chain.asking.is_begun(starter, run):
        text = "its order had begun another run of its owner already, and one order is one run"
        raise Unproven("run-begun-before", text)
    asked = asked_by(starter, chain.lookup)
    if asked is None or chain.asking is None:
        allowed(statement, starter, chain.authority, chain.now_ms)
        return False
    in_time(statement, starter, chain.now_ms)
    return check_handed_on(
        asked, run, fleet=chain.fleet, lookup=chain.lookup, authority=chain.authority,
        asking=chain.asking, now_ms=chain.now_ms, depth=chain.depth,
    )  # fmt: skip


def _ordered_run(
    starter: Entry, fleet: FleetId, lookup: Lookup, known: Known
) -> tuple[RunOpen, Statement]:
    """The run and its order; remembered, because an entry's id is a hash of all of this."""
    if starter.body is not None and starter.id in known:
        return known[starter.id]
    run = read(starter, "run.open", RunOpen, "run")
    if run.statement or not schedule_proof.is_fired(starter, lookup):
        statement = ordered(run.statement, starter, fleet, ("run", run.name, run_args(run)))
    else:
        author = MachineId(starter.header.author)
        statement = schedule_proof.as_run(schedule_proof.fired(starter, fleet, lookup), author)
    if len(known) >= _RUNS_KNOWN_MAX:
        known.clear()
    known[starter.id] = (run, statement)
    return run, statement
