"""Work that agents hand on: what is asked for from here, and what came of it told here.

Rule 1: an agent has what a person signed for it, and no more: `may` in the spec of its attempt, or
a grant of `delegate` to this machine. Asker, owner and worker each look for themselves.
Rule 2: what is asked for is an entry of ours before anybody hears of it: it reaches its owner
once, however often either is asleep or starts anew, and the id of its run follows from it.
Rule 3: how it ended is its owner's to say, and becomes a message to whoever asked: a session that
slept finds it there.

What others ask of this machine is in asked_work.py.
"""

import json
from collections.abc import Sequence
from hashlib import sha256
from typing import TYPE_CHECKING, Any, Final, NamedTuple

from muster.errors import Denied
from muster.fleet.statement import sign_statement
from muster.limits import DELEGATION_LIFE_MS, REASON_CHARS_MAX
from muster.log.entry import Entry, EntryId
from muster.log.fold import body_as, body_or_none
from muster.log.stream import FleetId, MachineId, StreamName, scope_to
from muster.message.fold import MESSAGE_KEY
from muster.message.kinds import MessageSend, MessageTerms
from muster.node import event as ev
from muster.node.part import Part
from muster.node.tasks.asking import Asking, asked_since
from muster.node.tasks.followers import Followers
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
from muster.task.evidence import run_args
from muster.task.fold import RUN, TASK
from muster.task.identity import run_id
from muster.task.kinds import RunSettle
from muster.task.peer_work import HEARD
from muster.task.spec import Spec

if TYPE_CHECKING:
    from muster.node.core import Core

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
        self._worker = core.part(WorkerService)
        # Runs of ours that ended and were not told.
        self._ended: dict[str, None] = {}
        core.on("delegation.refuse", self._on_end)
        core.on("run.settle", self._on_end)
        for each in (ev.DoubtOver, ev.NewIncarnation, ev.MemoryDoubtful):
            core.on(each, lambda _event: self.start())

    @staticmethod
    def folds(fleet: FleetId) -> Sequence[Any]:  # noqa: ARG004 - as of every part
        return (DelegationFold(), RefusalFold())

    def start(self) -> None:
        """Take up what ended while we were not there."""
        order, most = ("-at_ms",), _RECALLED_MAX
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
        return self.too_many(source, core.machine)

    def too_many(self, source: Source, machine: str, run: str = "") -> str:
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

    # --- what came of it -------------------------------------------------------------------

    def flush(self) -> None:
        """Tell of what ended."""
        ended, self._ended = list(self._ended), {}
        for run in ended:
            self.core.guard.run("run", run[:12], self._tell, run)

    def _on_end(self, stream: StreamName, entry: Entry) -> None:
        settled = entry.header.kind == "run.settle"
        body: RunSettle | DelegationRefuse | None
        body = body_or_none(entry, RunSettle) if settled else body_or_none(entry, DelegationRefuse)
        own: dict[str, Any] = {"writer": self.core.machine, "owner": stream.machine, "limit": 1}
        if body is not None and self._rows(run=body.run, **own):
            self._ended[body.run] = None
            self.core.part(Followers).answered(body.run)
            self.dirty = True

    def _tell(self, run: str) -> None:
        """A message to whoever asked for it, once it is over."""
        core = self.core
        for row in self._rows(writer=core.machine, run=run, limit=1):
            if core.tables.rows(HEARD, writer=core.machine, letter=row.key, limit=1):
                # Another fleet asked for it, which hears of it by letters.
                return
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
