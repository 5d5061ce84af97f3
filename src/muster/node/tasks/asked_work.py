"""Work that agents ask this machine for: looked at in its turn, then begun here or refused.

Rule 1: whoever asks is believed nothing, and is looked at as cheaply as may be: the order and what
lets it first, its text last. One entry in a step, and so many of one machine in a minute: the rest
waits, and nobody waits behind what another machine wrote.
Rule 2: what is no order by its writer's own key, for the run that this order makes, is answered by
nothing: else whoever knows the id of a run could have it refused.
Rule 3: its owner begins it in a day or never, and says why where it does not. What whoever asked
withdrew, and what a revoked machine or a grant that was taken back let, is not begun any more.
Rule 4: only whoever wrote the entry that a run of ours answers takes the run back. What another
fleet asked we end ourselves once we hear that it is removed: its door may be away.
"""

from collections import deque
from typing import TYPE_CHECKING, Final

from muster.errors import Denied, Malformed, MusterError
from muster.fleet.grant import FLEET_GRANTEE
from muster.fleet.statement import Statement, check_order, open_statement
from muster.limits import (
    DELEGATION_LIFE_MS,
    DELEGATIONS_MAX,
    REASON_CHARS_MAX,
    UNPROVEN_PER_MINUTE_MAX,
)
from muster.log.entry import Entry, EntryId
from muster.log.fold import body_or_none
from muster.log.stream import MachineId, StreamName
from muster.node import event as ev
from muster.node.counter import DECLARED, spend
from muster.node.incarnations.doubt import Doubt
from muster.node.incarnations.lives import MINUTE_MS
from muster.node.part import Part
from muster.node.tasks.asking import Asking, asked_of, asked_since
from muster.node.tasks.delegations import Delegations, Source
from muster.node.tasks.ownership import Ownership
from muster.node.tasks.runs import RunService
from muster.task import delegation, kinds
from muster.task.delegation_fold import DELEGATION, REFUSED
from muster.task.delegation_kinds import DelegationOpen, DelegationRefuse, DelegationWithdraw
from muster.task.evidence import check_handed_on, run_args
from muster.task.fold import RUN, TASK
from muster.task.identity import run_id
from muster.task.peer_order import of_grant
from muster.task.spec import parse

if TYPE_CHECKING:
    from muster.node.core import Core

DECLARED[__name__] = {
    "delegations-forged": "A machine asked this one for a run with an order that is not its own.",
    "delegations-refused": "An agent asked this machine for a run that nothing let it hand on.",
    "delegations-unanswered": "A machine asked this one for more runs than may wait here.",
}

# What is asked for and older than this is late for whoever asked, whatever is answered.
_RECALLED_MS: Final = 2 * DELEGATION_LIFE_MS
# That this step asked for another one.
_AGAIN: Final = "asked-work-again"


class AskedWork(Part):
    """See the rules at the top of this file."""

    name = "asked-work"
    effects = (ev.Again,)

    def __init__(self, core: "Core") -> None:
        self.core = core
        self._runs, self._delegations = core.part(RunService), core.part(Delegations)
        # What each machine asked for and was not looked at yet; whoever is first is next.
        self._waiting: dict[MachineId, dict[EntryId, None]] = {}
        # When we looked at what a machine asked for, in the last minute.
        self._looked: dict[MachineId, deque[int]] = {}
        core.on("delegation.open", self._on_open)
        core.on("delegation.withdraw", self._on_withdraw)
        core.on(ev.RosterChanged, self._changed)
        core.on(ev.Turn, lambda _event: self.tick())
        for each in (ev.DoubtOver, ev.NewIncarnation, ev.MemoryDoubtful):
            core.on(each, lambda _event: self.start())

    def start(self) -> None:
        """Take up what each machine asked for and nobody answered while we were not there."""
        core = self.core
        since_ms = core.now.wall_ms - _RECALLED_MS
        for writer in sorted({stream.machine for stream in core.log.streams()}):
            rows = core.tables.rows(
                DELEGATION, writer=writer, owner=core.machine, order=("-at_ms", "-seq"),
                limit=DELEGATIONS_MAX,
            )  # fmt: skip
            for row in reversed(rows):
                if row.at_ms >= since_ms and not self._is_known(row.run):
                    self._wait(writer, row.entry)

    def _changed(self, event: ev.RosterChanged) -> None:
        if event.before is not None and event.before.peers.keys() - event.after.peers.keys():
            self.end_removed()

    def end_removed(self) -> None:
        """End what a fleet asked that is removed."""
        core, asking = self.core, Asking(self.core, ever=True)
        for name, run in list(self._runs.runs.items()):
            opening = core.log.entry(run.opened)
            asked = asked_of(core.log.entry, opening) if opening is not None else None
            body = body_or_none(asked, DelegationOpen) if asked is not None else None
            if asked is None or body is None or not body.grant or run.progress.cancelled:
                continue
            given = asking.grant(body.grant, MachineId(asked.header.author))
            fleet = given.to.removeprefix(FLEET_GRANTEE) if given else ""
            if given is None or fleet == given.to or fleet in core.roster.peers:
                continue
            why = f"fleet {fleet[:12]} was removed (`muster peer remove`)"
            core.guard.run("run", name[:12], self._runs.cancel, name, why)

    def _wait(self, author: MachineId, entry: EntryId) -> None:
        its = self._waiting.setdefault(author, {})
        if entry not in its and len(its) >= DELEGATIONS_MAX:
            # No grant lets anybody ask so often: it is late before we would come to it.
            self.core.counters["delegations-unanswered"] += 1
            return
        its[entry] = None
        self.dirty = True

    def _on_open(self, stream: StreamName, entry: Entry) -> None:
        body = body_or_none(entry, DelegationOpen)
        if body is not None and body.owner == self.core.machine:
            self._wait(stream.machine, entry.id)

    def _on_withdraw(self, stream: StreamName, entry: Entry) -> None:
        core, body = self.core, body_or_none(entry, DelegationWithdraw)
        run = self._runs.runs.get(body.run) if body is not None else None
        opening = core.log.entry(run.opened) if run is not None else None
        asked = asked_of(core.log.entry, opening) if opening is not None else None
        if body is None or asked is None or asked.header.author != stream.machine:
            # Anybody can write any id; a run that a person ordered is nobody's to withdraw.
            return
        if run is not None and run.progress.cancelled:
            return
        why = body.reason or f"{entry.header.actor} wants it no more"
        core.guard.run("run", body.run[:12], self._runs.cancel, body.run, why)

    # --- in turn ---------------------------------------------------------------------------

    @property
    def needs_tick(self) -> bool:
        return bool(self._waiting)

    def tick(self) -> None:
        """Go on with what waits."""
        self.dirty = bool(self._waiting)

    def flush(self) -> None:
        """Look at the next one, and come back for the rest."""
        core = self.core
        if core.part(Doubt).waits:
            # Whether we began it already may be among what we do not know: all of it waits.
            return
        if AskedWork not in core.of_step:
            core.of_step[AskedWork] = None
            entry = self._next()
            if entry is not None:
                self._look(entry)
        if _AGAIN not in core.of_step and any(map(self._has_room, self._waiting)):
            core.of_step[_AGAIN] = None
            core.do(ev.Again())

    def _next(self) -> Entry | None:
        """The next entry, of the machine whose turn it is and that we may hear again."""
        for author in filter(self._has_room, list(self._waiting)):
            spend(self._looked[author], UNPROVEN_PER_MINUTE_MAX, MINUTE_MS, self.core.now.boot_ms)
            its = self._waiting.pop(author)
            entry = next(iter(its))
            del its[entry]
            if its:
                # Behind all others.
                self._waiting[author] = its
            return self.core.log.entry(entry)
        return None

    def _has_room(self, author: MachineId) -> bool:
        looked = self._looked.setdefault(author, deque())
        since_ms = self.core.now.boot_ms - MINUTE_MS
        return len(looked) < UNPROVEN_PER_MINUTE_MAX or looked[0] <= since_ms

    # --- beginning -------------------------------------------------------------------------

    def _look(self, entry: Entry) -> None:
        core, body = self.core, body_or_none(entry, DelegationOpen)
        if body is None or self._is_known(body.run):
            return
        statement = self._order_of(entry, body)
        if statement is None:
            core.counters["delegations-forged"] += 1
            return
        failure = core.guard.run("run", body.run[:12], self._open, entry, body, statement)
        if failure is not None:
            self._refuse(body.run, failure, entry)

    def _is_known(self, run: str) -> bool:
        """Whether we began it, or said that we never do."""
        rows, own = self.core.tables.rows, self.core.machine
        return bool(
            rows(RUN, writer=own, run=run, limit=1) or rows(REFUSED, writer=own, run=run, limit=1)
        )

    def _order_of(self, entry: Entry, body: DelegationOpen) -> Statement | None:
        """The order, where whoever wrote the entry gave it to us for just this run."""
        core = self.core
        if body.run != run_id(core.machine, body.statement):
            return None
        try:
            statement = open_statement(bytes.fromhex(body.statement), core.roster.fleet)
        except (MusterError, ValueError):
            return None
        signed = core.roster.speaking_for(statement.operator) == entry.header.author
        return statement if signed and statement.target == core.machine else None

    def _open(self, entry: Entry, body: DelegationOpen, statement: Statement) -> None:
        core, name = self.core, statement.object
        run = kinds.RunOpen(body.run, name, body.spec, body.statement, body.repo, body.base)
        try:
            self._check(entry, body, run, statement)
        except MusterError as error:
            core.counters["delegations-refused"] += 1
            self._refuse(body.run, str(error), entry)
            return
        self._runs.open(run, (entry.id,), entry.header.actor)

    def _check(
        self, entry: Entry, body: DelegationOpen, run: kinds.RunOpen, statement: Statement
    ) -> None:
        """Raises: MusterError with why we do not begin it."""
        core, author, now_ms = self.core, MachineId(entry.header.author), self.core.now.wall_ms
        core.part(Doubt).check(statement)
        rows = core.tables.rows(DELEGATION, stream=entry.stream, run=body.run)
        if not rows or rows[0].withdrawn:
            raise Denied("whoever asked for it wants it no more")
        if entry.header.t[0] < now_ms - DELEGATION_LIFE_MS:
            # The end of its order is its asker's to say; this is not.
            raise Denied("it was asked for more than a day ago, and comes too late: ask again")
        check_order(
            statement, verb="run", object=run.name, machine=core.machine, args=run_args(run),
            now_ms=now_ms,
        )  # fmt: skip
        check_handed_on(
            entry, run, fleet=core.roster.fleet, lookup=core.log.entry,
            authority=core.roster.permit, asking=Asking(core), now_ms=now_ms,
        )  # fmt: skip
        if parse(body.spec.encode()).name != run.name:
            raise Malformed("its spec has another name than its order")
        if body.grant:
            given = Asking(core).grant(body.grant, author)
            if given is None or given.bounds is None or now_ms > given.until_ms:
                raise Denied("the grant that let its machine hand on work has ended")
            foreign = given.to.startswith(FLEET_GRANTEE)
            bounds = of_grant(given, core.machine) if foreign else delegation.of_grant(given)
            assert bounds is not None, "a grant with bounds has bounds"
            source = Source(bounds, given.bounds.at_once, grant=body.grant)
            # Another fleet comes through any door: what all of them wrote counts together.
            whose, since_ms = "" if foreign else author, now_ms - MINUTE_MS * 60 * 24
            if foreign and len(asked_since(core, "", body.grant, since_ms)) > bounds.runs:
                raise Denied(f"{bounds.runs} a day are allowed, and so many were asked for")
            if often := self._delegations.too_many(source, whose, body.run):
                raise Denied(often)
            return
        assign = body_or_none(core.log.entry(entry.causes[0]), kinds.TaskAssign)
        held = core.part(Ownership).held(TASK, assign.task) if assign else None
        if held is not None and assign is not None:
            now_held = (held.row.state, held.row.epoch, held.row.machine)
            if now_held != ("leased", assign.epoch, author):
                raise Denied("the attempt whose agent handed it on is over")

    def _refuse(self, run: str, reason: str, asked: Entry) -> None:
        # As often as we look, and no more often: nobody makes us write as much as it writes itself.
        self.core.append_body(DelegationRefuse(run, reason[:REASON_CHARS_MAX]), cause=(asked.id,))
