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
the chain is then followed to where it was first written.

A task without a run carries the statement in its own `task.open`.

Entries that `lookup` returns were admitted: their stream's seal covers them.
"""

from collections.abc import Callable
from typing import Any, Final, NamedTuple

from muster import limits
from muster.errors import Denied, Malformed, MusterError
from muster.fleet.statement import Statement, check_order, open_statement
from muster.log.entry import Entry, EntryId
from muster.log.stream import FleetId, MachineId
from muster.task import kinds
from muster.task.identity import run_id, task_id
from muster.task.kinds import RunOpen, TaskAssign, TaskOpen

Lookup = Callable[[EntryId], Entry | None]
# (statement, moment) -> raises MusterError when that operator may not order that, then.
Authority = Callable[[Statement, int], object]
# (run, phase, instance) -> the template that the signed spec yields; raises MusterError.
Recompute = Callable[[RunOpen, str, str], dict[str, Any]]
# (statement, entry that carries it) -> raises Unproven when its key was shut out before that came.
Came = Callable[[Statement, Entry], object]
Known = dict[EntryId, tuple[RunOpen, Statement]]

# Chosen arbitrarily; few machines work on more runs at a time.
_RUNS_KNOWN_MAX: Final = 256
# What does not hold for this machine today will hold for no machine tomorrow.
HOPELESS: Final = frozenset({"order-too-old", "operator-not-allowed"})
# Every new incarnation of an owner may repeat an opening once.
_REPETITIONS_MAX: Final = 64


class Unproven(Denied):
    """An assignment without sufficient evidence; `reason` is a stable word-with-dashes."""

    def __init__(self, reason: str, sentence: str) -> None:
        super().__init__(sentence)
        self.reason = reason


class Evidence(NamedTuple):
    """What was found: the entries that lead from the assignment to the order."""

    assign: TaskAssign
    opened: TaskOpen
    run: RunOpen | None
    statement: Statement
    # Whether nobody else can have a task of this id; see `identity.py`.
    certain: bool


def run_args(run: RunOpen) -> dict[str, Any]:
    """What an operator signs as arguments of `run`: the spec's text and all that shapes it."""
    args = {"base": run.base, "repo": run.repo, "spec": run.spec, "values": run.values}
    # An order that keeps nothing is signed as it always was.
    return {**args, "kept": run.kept} if run.kept else args


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
) -> Evidence:
    """The chain of causes of an assignment, checked link by link.

    `known` remembers the runs whose signature held: a run's many tasks share one.

    Raises:
        Unproven: with the reason of the first link that does not hold.

    """
    assign = _read(entry, "task.assign", TaskAssign, "assign")
    if assign.machine != me:
        raise Unproven("assign-other-machine", "the assignment is for another machine")
    opener = _origin(_cause(entry, "task.open", lookup), lookup)
    opened = _read(opener, "task.open", TaskOpen, "open")
    if opened.task != assign.task:
        raise Unproven("open-other-task", "the assignment cites the opening of another task")
    if not opened.run:
        order = ("task", opened.task, task_args(opened))
        statement = _ordered(opened.statement, opener, fleet, order)
        _allowed(statement, opener, authority, now_ms)
        return Evidence(assign, opened, None, statement, certain=False)
    starter = _origin(_cause(opener, "run.open", lookup), lookup)
    run, statement = _ordered_run(starter, fleet, {} if known is None else known)
    if run.run != opened.run:
        raise Unproven("run-other-run", "the task cites the opening of another run")
    _allowed(statement, starter, authority, now_ms)
    if opened.repo != run.repo:
        raise Unproven("task-other-repo", "the task names another repository than the run")
    try:
        expected = recompute(run, opened.phase, opened.instance)
    except MusterError as error:
        text = f"the signed spec has no such task: {error}"
        raise Unproven("spec-yields-nothing", text) from error
    if expected != opened.template:
        raise Unproven("task-not-in-spec", "the task is not what the signed spec yields")
    named = opened.task == task_id(run.run, opened.phase, opened.instance)
    certain = named and run.run == run_id(MachineId(entry.header.author), run.statement)
    return Evidence(assign, opened, run, statement, certain)


def check_ordered(
    entry: Entry,
    *,
    fleet: FleetId,
    lookup: Lookup,
    authority: Authority,
    now_ms: int,
    known: Known | None = None,
    came: Came = lambda _statement, _entry: None,
) -> bool:
    """An operator ordered, of the machine that wrote this opening, what it begins.

    Without this an entry that names a run or a task says only that its writer knows the name.
    True where its id can be nobody else's: see `identity.py`.

    Raises:
        Unproven: with the reason of the first link that does not hold.

    """
    starter = _origin(entry, lookup)
    author = MachineId(starter.header.author)
    opened = None
    if starter.header.kind == "task.open":
        opened = _read(starter, "task.open", TaskOpen, "open")
        if not opened.run:
            order = ("task", opened.task, task_args(opened))
            statement = _ordered(opened.statement, starter, fleet, order)
            _allowed(statement, starter, authority, now_ms)
            came(statement, starter)
            return statement.target == author
        starter = _origin(_cause(starter, "run.open", lookup), lookup)
    run, statement = _ordered_run(starter, fleet, {} if known is None else known)
    if opened is not None and run.run != opened.run:
        raise Unproven("run-other-run", "the task cites the opening of another run")
    _allowed(statement, starter, authority, now_ms)
    came(statement, starter)
    if opened is not None and opened.task != task_id(run.run, opened.phase, opened.instance):
        return False
    return run.run == run_id(author, run.statement)


def _ordered_run(starter: Entry, fleet: FleetId, known: Known) -> tuple[RunOpen, Statement]:
    """The run and its order; remembered, because an entry's id is a hash of all of this."""
    if starter.body is not None and starter.id in known:
        return known[starter.id]
    run = _read(starter, "run.open", RunOpen, "run")
    statement = _ordered(run.statement, starter, fleet, ("run", run.name, run_args(run)))
    if len(known) >= _RUNS_KNOWN_MAX:
        known.clear()
    known[starter.id] = (run, statement)
    return run, statement


def _origin(entry: Entry, lookup: Lookup) -> Entry:
    """Where the owner first wrote this: in a new incarnation it repeats what is still open.

    A repetition has the same kind, author and body, and cites what it repeats.
    """
    for _ in range(_REPETITIONS_MAX):
        for cause in entry.causes:
            found = lookup(cause)
            if found is None or found.body is None:
                continue
            alike = (found.header.kind, found.header.author, found.body)
            if alike == (entry.header.kind, entry.header.author, entry.body):
                entry = found
                break
        else:
            return entry
    raise Unproven("repeated-too-often", "the order was repeated more often than anyone restarts")


def _read(entry: Entry, kind: str, type_: type[kinds.B], what: str) -> kinds.B:
    if entry.header.kind != kind:
        raise Unproven(f"{what}-other-kind", f"a cause is {entry.header.kind}, not {kind}")
    if entry.body is None:
        raise Unproven(f"{what}-no-body", f"the body of {kind} was erased or withheld")
    try:
        return kinds.read(type_, entry.body)
    except Malformed as error:
        text = f"the body of {kind} cannot be read: {error}"
        raise Unproven(f"{what}-bad-body", text) from error


def _cause(entry: Entry, kind: str, lookup: Lookup) -> Entry:
    """The one cause of that kind. It must be of the same owner: nobody opens for another."""
    word = kind.partition(".")[0] if kind == "run.open" else "open"
    for cause in entry.causes:
        found = lookup(cause)
        if found is not None and found.header.kind == kind:
            if found.header.author != entry.header.author:
                raise Unproven(f"{word}-other-owner", f"{kind} was written by another machine")
            return found
    raise Unproven(f"{word}-missing", f"this machine has no {kind} for {entry.header.kind}")


def _ordered(
    raw: str, entry: Entry, fleet: FleetId, order: tuple[str, str, dict[str, Any]]
) -> Statement:
    """The operator's statement in an entry: this verb, object and arguments, of this owner."""
    verb, object, args = order
    if not raw:
        raise Unproven("statement-missing", f"no operator's order stands in {entry.header.kind}")
    try:
        statement = open_statement(bytes.fromhex(raw), fleet)
    except (MusterError, ValueError) as error:
        text = f"the operator's order does not hold: {error}"
        raise Unproven("statement-forged", text) from error

    machine, at_ms = MachineId(entry.header.author), _moment(statement, entry)
    try:
        check_order(statement, verb=verb, object=object, machine=machine, args=args, now_ms=at_ms)
    except MusterError as error:
        text = f"the operator ordered something else: {error}"
        raise Unproven("statement-other-order", text) from error
    return statement


def _moment(statement: Statement, entry: Entry) -> int:
    """When the order was taken; see rule 4."""
    return min(entry.header.t[0], statement.until_ms)


def _allowed(statement: Statement, entry: Entry, authority: Authority, now_ms: int) -> None:
    at_ms = _moment(statement, entry)
    if at_ms > now_ms + limits.CLOCK_AHEAD_MS_MAX:
        raise Unproven("order-in-the-future", "the order was taken in this machine's future")
    if now_ms - at_ms > limits.EVIDENCE_AGE_MS_MAX:
        raise Unproven("order-too-old", "the order is older than any run may be: give it again")
    try:
        authority(statement, at_ms)
    except MusterError as error:
        raise Unproven("operator-not-allowed", str(error)) from error
