"""Work that agents hand on: asked for here, begun where it is owned, and what came of it told here.

Rule 1: an agent has what a person signed for it, and no more: `may` in the spec of its attempt, or
a grant of `delegate` to this machine. Asker, owner and worker each look for themselves.
Rule 2: what is asked for is an entry of ours before anybody hears of it: it reaches its owner
once, however often either is asleep or starts anew, and the id of its run follows from it.
Rule 3: its owner begins it in a day or never, and says why where it does not. What whoever asked
withdrew, and what a revoked machine or a grant that was taken back let, is not begun any more.
Rule 4: how it ended becomes a message to whoever asked: a session that slept finds it there.
"""

import json
from collections import deque
from collections.abc import Sequence
from hashlib import sha256
from typing import TYPE_CHECKING, Any, Final, NamedTuple

from muster.errors import Denied, Malformed, MusterError
from muster.fleet.statement import check_order, open_statement, sign_statement
from muster.limits import DELEGATION_LIFE_MS, REASON_CHARS_MAX, UNPROVEN_PER_MINUTE_MAX
from muster.log.entry import Entry, EntryId
from muster.log.fold import body_as, body_or_none
from muster.log.stream import FleetId, MachineId, StreamName, scope_to
from muster.message.fold import MESSAGE_KEY
from muster.message.kinds import MessageSend, MessageTerms
from muster.node import event as ev
from muster.node.counter import DECLARED, spend
from muster.node.incarnations.doubt import Doubt
from muster.node.incarnations.lives import MINUTE_MS
from muster.node.part import Part
from muster.node.tasks.asking import Asking, asked_since
from muster.node.tasks.followers import Followers
from muster.node.tasks.ownership import Ownership
from muster.node.tasks.runs import RunService
from muster.node.tasks.worker import WorkerService
from muster.task import delegation, kinds
from muster.task.delegation_fold import (
    DELEGATION,
    REFUSED,
    DelegationFold,
    DelegationRow,
    RefusalFold,
)
from muster.task.delegation_kinds import DelegationOpen, DelegationRefuse, DelegationWithdraw
from muster.task.evidence import check_handed_on, run_args
from muster.task.fold import RUN, TASK
from muster.task.identity import run_id
from muster.task.kinds import RunSettle
from muster.task.spec import Spec, parse

if TYPE_CHECKING:
    from muster.node.core import Core

DECLARED[__name__] = {
    "delegations-refused": "An agent asked this machine for a run that nothing let it hand on.",
    "delegations-unanswered": "Agents of a machine asked too fast for runs that nothing let them.",
}

_DAY_MS: Final = 24 * 3_600_000
# What is looked at after a start: all else came while we were there, or comes yet.
_RECALLED_MAX: Final = 100
_SUMMARY_CHARS_MAX: Final = 2_000
_STATES: Final = """
select run.run, stream.name, run.state from json_each(?) cross join run on run.run = value
join stream on stream.id = run.stream order by run.changed_ms
"""
_OPEN: Final = frozenset({"open", "asked"})


class Source(NamedTuple):
    """By what an agent hands on work: an operator's `grant`, or the assignment of its attempt."""

    bounds: delegation.Bounds
    at_once: int
    grant: str = ""
    assign: EntryId | None = None

    @property
    def id(self) -> str:
        return self.grant or (self.assign or b"").hex()


class Delegations(Part):
    """See the rules at the top of this file."""

    name = "delegations"

    def __init__(self, core: "Core") -> None:
        self.core = core
        self._runs, self._worker = core.part(RunService), core.part(WorkerService)
        # What came for us and was not looked at yet; runs of ours that ended and were not told.
        self._asked: dict[EntryId, None] = {}
        self._ended: dict[str, None] = {}
        # When we refused something that a machine asked for, in the last minute.
        self._refused: dict[str, deque[int]] = {}
        core.on("delegation.open", self._on_open)
        core.on("delegation.withdraw", self._on_withdraw)
        core.on("delegation.refuse", self._on_end)
        core.on("run.settle", self._on_end)
        for each in (ev.DoubtOver, ev.NewIncarnation, ev.MemoryDoubtful):
            core.on(each, lambda _event: self.start())

    @staticmethod
    def folds(fleet: FleetId) -> Sequence[Any]:  # noqa: ARG004 - as of every part
        return (DelegationFold(), RefusalFold())

    def start(self) -> None:
        """Take up what we were asked for, and what ended, while we were not there."""
        order, most = ("-at_ms",), _RECALLED_MAX
        for row in self._rows(owner=self.core.machine, order=order, limit=most):
            self._asked[row.entry] = None
        for row in self._rows(writer=self.core.machine, order=order, limit=most):
            self._ended[row.run] = None
        self.dirty = True

    def _rows(self, **equals: Any) -> list[DelegationRow]:
        return self.core.tables.rows(DELEGATION, **equals)

    # --- asking ----------------------------------------------------------------------------

    def sources(self, task: str) -> list[Source]:
        """By what the agent of a task, or ("") a program beside any, may hand on work at all.

        Raises: Denied, with what would let it.
        """
        core = self.core
        if task:
            assign = self._worker.worker.assignment(task)
            if assign is None:
                raise Denied("the attempt of this agent is about to end: it hands on nothing more")
            entry = core.log.entry(assign)
            cited = (core.log.entry(cause) for cause in entry.causes) if entry else ()
            opened = next((b for b in (body_or_none(c, kinds.TaskOpen) for c in cited) if b), None)
            bounds = delegation.of_phase(opened.template, opened.repo) if opened else None
            if bounds is None:
                phase = (opened.phase if opened else "") or "it"
                raise Denied(
                    f"the agent of this task may not hand on work: in its spec, phase {phase} "
                    "needs `may: {delegate: {}}`, and whoever ordered the run signs that"
                )
            return [Source(bounds, bounds.runs, assign=assign)]
        found = list[Source]()
        for given in core.roster.delegating(core.machine):
            bounds, most = delegation.of_grant(given.grant), given.grant.bounds
            if bounds is not None and most is not None and core.now.wall_ms <= given.grant.until_ms:
                found.append(Source(bounds, most.at_once, grant=given.id))
        if not found:
            raise Denied(
                f"agents on {core.name} may not hand on work: an operator allows it by "
                f"`muster grant machine:{core.name} delegate --runs 20`"
            )
        return found

    def known(self, asker: str, key: str) -> DelegationRow | None:
        """What the same asker handed on under this key."""
        rows = self._rows(writer=self.core.machine, key=_own_key(asker, key), limit=1)
        return rows[0] if rows else None

    def body(self, row: DelegationRow) -> DelegationOpen:
        """What was asked for."""
        entry = self.core.log.entry(row.entry)
        assert entry is not None, "a row names an entry that the store holds"
        return body_as(entry, DelegationOpen)

    def hand_on(  # noqa: PLR0917 - what is asked for, and by whom
        self, spec: Spec, text: str, repo: str, base: str, owner: MachineId, task: str,
        session: str, key: str, actor: str,
    ) -> str:  # fmt: skip
        """Ask the owner for a run of this spec; its id. Raises: Denied with all that forbids it."""
        core, why = self.core, list[str]()
        for source in self.sources(task):
            if refused := self._refusal(source, spec, repo):
                why.append(refused)
                continue
            now_ms = core.now.wall_ms
            run = kinds.RunOpen("-", spec.name, text, "", repo, base)
            statement = sign_statement(
                core.membership.signer("statement"), fleet=core.membership.fleet, verb="run",
                object=spec.name, target=owner, args=run_args(run), nonce=core.draw(16),
                issued_ms=now_ms, until_ms=now_ms + DELEGATION_LIFE_MS,
            ).hex()  # fmt: skip
            body = DelegationOpen(
                run_id(owner, statement), owner, statement, text, repo, base, source.grant,
                _own_key(task or session, key), session,
            )  # fmt: skip
            core.append_body(body, cause=[source.assign] if source.assign else (), actor=actor)
            return body.run
        raise Denied(f"this may not be handed on: {'; '.join(dict.fromkeys(why))}")

    def _refusal(self, source: Source, spec: Spec, repo: str) -> str:
        core, bounds = self.core, source.bounds
        if wider := delegation.refusal(bounds, spec, repo, Asking(core).ids):
            return wider
        since_ms = core.now.wall_ms - _DAY_MS if source.grant else 0
        if len(asked_since(core, core.machine, source.id, since_ms, bounds.runs)) >= bounds.runs:
            per = "in a day" if source.grant else "by one attempt"
            return f"{bounds.runs} runs {per} are allowed, and so many were handed on"
        return self._too_many(source, core.machine)

    def _too_many(self, source: Source, machine: str, run: str = "") -> str:
        """Why no more of it may be open at once, beside this run."""
        rows = asked_since(self.core, machine, source.id, 0)
        there = self._open_ones([row for row in rows if row.run != run])
        if there < source.at_once:
            return ""
        return f"{source.at_once} at once are allowed, and so many are open: await or withdraw one"

    def _open_ones(self, rows: list[DelegationRow]) -> int:
        """How many of these are open, or may be begun yet; one question for all that were begun."""
        names = json.dumps([row.run for row in rows])
        begun = dict[tuple[str, str], str]()
        for run, stream, state in self.core.tables.query(_STATES, (names,)):
            # Of an owner that began anew the newest row counts, which comes last.
            begun[str(run), str(stream).partition("/")[0]] = str(state)
        since_ms, there = self.core.now.wall_ms - DELEGATION_LIFE_MS, 0
        for row in rows:
            state = begun.get((row.run, row.owner))
            if state is None and row.at_ms >= since_ms:
                state = self.state(row)
            there += state in _OPEN
        return there

    def state(self, row: DelegationRow) -> str:
        """How it stands: `asked`, `refused`, `withdrawn` or late, else as its run."""
        tables = self.core.tables
        runs = tables.rows(RUN, writer=row.owner, run=row.run)
        if runs:
            return max(runs, key=lambda each: each.changed_ms).state
        if tables.rows(REFUSED, writer=row.owner, run=row.run, limit=1):
            return "refused"
        if row.withdrawn:
            return "withdrawn"
        return "asked" if row.at_ms + DELEGATION_LIFE_MS >= self.core.now.wall_ms else "late"

    def refused(self, row: DelegationRow) -> str:
        """Why its owner does not begin it, "" where it did not say so."""
        rows = self.core.tables.rows(REFUSED, writer=row.owner, run=row.run, limit=1)
        return rows[0].reason if rows else ""

    def withdraw(self, row: DelegationRow, reason: str, actor: str) -> None:
        """Whoever asked wants it no more."""
        body = DelegationWithdraw(row.run, reason[:REASON_CHARS_MAX])
        self.core.append_body(body, cause=(row.entry,), actor=actor)

    # --- beginning -------------------------------------------------------------------------

    def _on_open(self, _stream: StreamName, entry: Entry) -> None:
        body = body_or_none(entry, DelegationOpen)
        if body is not None and body.owner == self.core.machine:
            self._asked[entry.id] = None
            self.dirty = True

    def _on_withdraw(self, stream: StreamName, entry: Entry) -> None:
        body = body_or_none(entry, DelegationWithdraw)
        if body is None:
            return
        mine = self._rows(writer=stream.machine, run=body.run, owner=self.core.machine, limit=1)
        if mine and body.run in self._runs.runs:
            why = body.reason or f"{entry.header.actor} wants it no more"
            self.core.guard.run("run", body.run[:12], self._runs.cancel, body.run, why)

    def flush(self) -> None:
        """Begin what was asked for, and tell of what ended."""
        asked, self._asked = list(self._asked), {}
        for each in asked:
            entry = self.core.log.entry(each)
            if entry is not None:
                self._begin(entry)
        ended, self._ended = list(self._ended), {}
        for run in ended:
            self.core.guard.run("run", run[:12], self._tell, run)

    def _begin(self, entry: Entry) -> None:
        core, body = self.core, body_or_none(entry, DelegationOpen)
        if body is None or self._is_known(body.run):
            return
        if core.part(Doubt).waits:
            # Whether we began it already may be among what we do not know: `DoubtOver` asks again.
            return
        failure = core.guard.run("run", body.run[:12], self._open, entry, body)
        if failure is not None:
            self._refuse(body.run, failure, entry)

    def _is_known(self, run: str) -> bool:
        """Whether we began it, or said that we never do."""
        rows, own = self.core.tables.rows, self.core.machine
        return bool(
            rows(RUN, writer=own, run=run, limit=1) or rows(REFUSED, writer=own, run=run, limit=1)
        )

    def _open(self, entry: Entry, body: DelegationOpen) -> None:
        core = self.core
        try:
            run = self._run_of(body)
            self._check(entry, body, run)
        except (MusterError, ValueError) as error:
            core.counters["delegations-refused"] += 1
            self._refuse(body.run, str(error), entry)
            return
        self._runs.open(run, (entry.id,), entry.header.actor)

    def _run_of(self, body: DelegationOpen) -> kinds.RunOpen:
        if body.run != run_id(self.core.machine, body.statement):
            raise Malformed("the run has another id than its order gives it")
        spec = parse(body.spec.encode())
        return kinds.RunOpen(body.run, spec.name, body.spec, body.statement, body.repo, body.base)

    def _check(self, entry: Entry, body: DelegationOpen, run: kinds.RunOpen) -> None:
        """Raises: MusterError with why we do not begin it."""
        core, author = self.core, entry.header.author
        statement = open_statement(bytes.fromhex(body.statement), core.roster.fleet)
        core.part(Doubt).check(statement)
        now = {"machine": core.machine, "now_ms": core.now.wall_ms}
        check_order(statement, verb="run", object=run.name, args=run_args(run), **now)  # type: ignore[arg-type]
        row = self._rows(writer=author, run=body.run, limit=1)
        if not row or row[0].withdrawn:
            raise Denied("whoever asked for it wants it no more")
        check_handed_on(
            entry, run, fleet=core.roster.fleet, lookup=core.log.entry,
            authority=core.roster.permit, asking=Asking(core), now_ms=core.now.wall_ms,
        )  # fmt: skip
        if body.grant:
            given = Asking(core).grant(body.grant, MachineId(author))
            if given is None or given.bounds is None or core.now.wall_ms > given.until_ms:
                raise Denied("the grant that let its machine hand on work has ended")
            bounds = delegation.of_grant(given)
            assert bounds is not None, "a grant with bounds has bounds"
            source = Source(bounds, given.bounds.at_once, grant=body.grant)
            if often := self._too_many(source, author, body.run):
                raise Denied(often)
            return
        assign = body_or_none(core.log.entry(entry.causes[0]), kinds.TaskAssign)
        held = core.part(Ownership).held(TASK, assign.task) if assign else None
        if held is not None and assign is not None:
            now_held = (held.row.state, held.row.epoch, held.row.machine)
            if now_held != ("leased", assign.epoch, author):
                raise Denied("the attempt whose agent handed it on is over")

    def _refuse(self, run: str, reason: str, asked: Entry) -> None:
        core = self.core
        told = self._refused.setdefault(asked.header.author, deque())
        if not spend(told, UNPROVEN_PER_MINUTE_MAX, MINUTE_MS, core.now.boot_ms):
            # Nobody makes us write as much as it writes itself.
            core.counters["delegations-unanswered"] += 1
            return
        core.append_body(DelegationRefuse(run, reason[:REASON_CHARS_MAX]), cause=(asked.id,))

    # --- what came of it -------------------------------------------------------------------

    def _on_end(self, _stream: StreamName, entry: Entry) -> None:
        settled = entry.header.kind == "run.settle"
        body: RunSettle | DelegationRefuse | None
        body = body_or_none(entry, RunSettle) if settled else body_or_none(entry, DelegationRefuse)
        if body is not None and self._rows(writer=self.core.machine, run=body.run, limit=1):
            self._ended[body.run] = None
            self.core.part(Followers).answered(body.run)
            self.dirty = True

    def _tell(self, run: str) -> None:
        """A message to whoever asked for it, once it is over."""
        core = self.core
        for row in self._rows(writer=core.machine, run=run, limit=1):
            state, key = self.state(row), f"delegation:{run}"
            own: dict[str, Any] = {"writer": core.machine, "dedupe": key, "limit": 1}
            if state in _OPEN or core.tables.rows(MESSAGE_KEY, **own):
                return
            agent, _, _ = row.actor.rpartition("@")
            to = f"{agent}@{core.machine}" if agent else core.machine
            text = f"run {run[:12]} that you handed on is {state}"
            if why := self.summary(row):
                text += f": {why}"
            text += f"\n`muster await {run[:12]}` has its result, `muster why {run[:12]}` the rest"
            body = MessageSend([to], text, subject="handed on", key=key, about=run)
            scope = scope_to(core.machine)
            sent = core.append_body(body, scope=scope, cause=(row.entry,))
            if row.session:
                # Right behind it, or it says nothing of it.
                terms = MessageTerms(sent.id.hex(), to_session=row.session)
                core.append_body(terms, scope=scope)

    def summary(self, row: DelegationRow) -> str:
        """What is said of how it ended."""
        if said := self.refused(row):
            return said
        runs = self.core.tables.rows(RUN, writer=row.owner, run=row.run)
        if runs and runs[-1].summary:
            return runs[-1].summary[:_SUMMARY_CHARS_MAX]
        tasks = self.core.tables.rows(TASK, writer=row.owner, run=row.run, order=("-changed_ms",))
        return next((t.summary for t in tasks if t.summary), "")[:_SUMMARY_CHARS_MAX]


def _own_key(asker: str, key: str) -> str:
    """A key is its asker's: of one task or session, or of all that speak without one."""
    return sha256(f"{asker}\n{key}".encode()).hexdigest()[:32] if key else ""
