"""Work that other fleets ask of this one: taken once, handed on within a grant, and reported.

Rule 1: a document is taken once, by the door that it names, from the machine that signed it. A task
needs a grant of `task` to its fleet; what is more than the grant lets is refused in words, and of
it nothing but those is kept: no fleet writes more here than its grant says.
Rule 2: the door hands a task on as it would for an agent (delegations.py): owner and worker look at
the grant and at the document themselves. Whatever counts for such a run counts for this one.
Rule 3: what became of a task only its fleet is told: how its run stands, and where it is done what
its agents said (peer_words.py). No name, address, branch or other run is among it but in those.
Rule 4: once a fleet is removed, or takes a task back, that task is withdrawn, begun or not.
"""

from collections import defaultdict, deque
from typing import TYPE_CHECKING, Any, Final

from muster.errors import Conflict, Denied, Malformed, MusterError, NotFound
from muster.fleet.document import document_id
from muster.fleet.grant import FLEET_GRANTEE, TASK, Given
from muster.fleet.letter import sign_receipt
from muster.fleet.peer_work import (
    OVER,
    Came,
    Cancel,
    Report,
    State,
    Task,
    open_work,
)
from muster.fleet.peer_work import Work as Document
from muster.fleet.statement import sign_statement
from muster.limits import (
    CLOCK_SKEW_MS,
    DELEGATION_LIFE_MS,
    PEER_LETTERS_PER_DAY_MAX,
    PEER_SAID_CHARS_MAX,
    REASON_CHARS_MAX,
)
from muster.log.entry import Entry
from muster.log.fold import body_or_none
from muster.log.stream import MachineId, StreamName
from muster.node import event as ev
from muster.node.call.answers import Call
from muster.node.call.authorize import Authorizer
from muster.node.call.guests import check_brought, guest_of
from muster.node.counter import DECLARED, spend
from muster.node.part import Part
from muster.node.services.letters import DENIALS_PER_HOUR_MAX, Held
from muster.node.services.peer_asks import PeerAsks
from muster.node.services.peer_words import words
from muster.node.services.presence import wrote_since
from muster.node.tasks.asking import Asking, asked_since
from muster.node.tasks.delegations import Delegations, Source
from muster.printable import visible
from muster.task import delegation, kinds
from muster.task.delegation_fold import DELEGATION, DelegationRow
from muster.task.delegation_kinds import DelegationOpen, DelegationRefuse, DelegationWithdraw
from muster.task.evidence import run_args
from muster.task.identity import run_id
from muster.task.kinds import RunOpen, RunSettle
from muster.task.peer_order import of_grant
from muster.task.peer_work import HEARD, SAID, HeardRow, PeerHear
from muster.task.spec import Spec, parse

if TYPE_CHECKING:
    from muster.node.core import Core

DECLARED[__name__] = {
    "peer-work-taken": "A task, a cancelling or a report of another fleet was taken.",
    "peer-work-refused": "Another fleet asked for what no grant lets it, or showed what is none.",
}

_DAY_MS: Final = 24 * 3_600_000
_HOUR_MS: Final = 3_600_000
# What is looked at after a start: the rest is over, or long late.
_RECALLED_MAX: Final = 1_000
# How often it is looked whether something is late.
_LOOK_MS: Final = 60_000
# What says that a run stands otherwise.
_KINDS: Final[dict[str, Any]] = {
    "run.open": RunOpen, "run.settle": RunSettle, "delegation.refuse": DelegationRefuse,
    "delegation.withdraw": DelegationWithdraw,
}  # fmt: skip
# What may run, or may have been begun where nobody heard of it.
_UNENDED: Final = frozenset({"asked", "open", "late"})
# By which grants this step began something.
_BEGUN: Final = "peer-task-begun"
_STATES: Final[dict[str, State]] = {
    "open": "open", "done": "done", "failed": "failed", "cancelled": "cancelled",
    "refused": "refused", "withdrawn": "cancelled", "late": "late",
}  # fmt: skip


class PeerWork(Part):
    """See the rules at the top of this file."""

    name = "peer-work"

    def __init__(self, core: "Core") -> None:
        self._core, self._orders = core, core.part(Authorizer)
        self._delegations, self._asks = core.part(Delegations), core.part(PeerAsks)
        self._denied: dict[str, deque[int]] = defaultdict(deque)
        self._brought: dict[str, deque[int]] = defaultdict(deque)
        # Tasks of which their fleet was not told the end, and until when each may begin.
        self._open: dict[str, int] = {}
        # Those of them that something happened to.
        self._moved: dict[str, None] = {}
        self._look_ms = 0
        for kind in _KINDS:
            core.on(kind, self._on_entry)
        core.on(ev.RosterChanged, self._changed)
        for each in (ev.DoubtOver, ev.NewIncarnation, ev.MemoryDoubtful):
            core.on(each, lambda _event: self.start())

    def start(self) -> None:
        """Take up what happened while we were not there."""
        heard = self._core.tables.rows(
            HEARD, writer=self._core.machine, what="task", order=("-t_ms", "-seq"),
            limit=_RECALLED_MAX,
        )  # fmt: skip
        for row in heard:
            told = self._told(row.letter)
            if told is None or told[1] not in OVER:
                self._follow_from(row.letter, row.t_ms)

    def _follow_from(self, task: str, asked_ms: int) -> None:
        self._open[task], self._moved[task] = asked_ms + DELEGATION_LIFE_MS, None
        self.dirty = True

    def tick(self) -> None:
        """What nobody began in time is late; nothing else comes by the time alone."""
        core = self._core
        if core.now.boot_ms >= self._look_ms:
            self._look_ms = core.now.boot_ms + _LOOK_MS
            late = [task for task, until_ms in self._open.items() if until_ms < core.now.wall_ms]
            self._moved.update(dict.fromkeys(late))
            self.dirty = bool(self._moved)

    def _changed(self, event: ev.RosterChanged) -> None:
        if event.before is not None and event.before.peers.keys() != event.after.peers.keys():
            self.start()

    def _on_entry(self, _stream: StreamName, entry: Entry) -> None:
        body: Any = body_or_none(entry, _KINDS[entry.header.kind])
        for row in self._rows(run=body.run, limit=1) if body is not None else ():
            if row.key in self._open:
                self._moved[row.key] = None
                self.dirty = True

    # --- what comes -------------------------------------------------------------------------

    def take(self, call: Call, document: str, record: str) -> Held:
        """Take a document of another fleet, or say again that it was taken; its receipt.

        Raises: MusterError where it is none, or nothing lets it in.
        """
        core, guest = self._core, guest_of(self._core, call.foreign)
        raw = document.encode()
        try:
            work, sender = open_work(raw, record.encode(), core.membership.fleet)
            check_brought(core, guest, work, "document")
            id_ = document_id(raw)
            if not self._is_known(id_):
                self._hear(call, work, sender.name, id_, document, record)
                core.of_step[HEARD.name, id_] = None
                core.counters["peer-work-taken"] += 1
        except MusterError:
            core.counters["peer-work-refused"] += 1
            raise
        receipt = sign_receipt(
            core.membership.signer("held"), fleet=guest.fleet, door=core.machine, letter=id_,
            of=core.membership.fleet,
        )  # fmt: skip
        return Held("stored", receipt.decode(), core.roster.machine(core.machine).raw.decode())

    def _is_known(self, id_: str) -> bool:
        core = self._core
        if (HEARD.name, id_) in core.of_step:
            # No table shows it before this step ends.
            raise Conflict("it is being taken")
        known = core.tables.rows(HEARD, writer=core.machine, letter=id_, limit=1)
        return bool(known) or self._told(id_) is not None

    def _hear(  # noqa: PLR0917 - what came, and from whom
        self, call: Call, work: Document, name: str, id_: str, document: str, record: str
    ) -> None:
        if isinstance(work, Report):
            self._check_room(work.of)
            self._asks.hear(call, work, document, record)
        elif isinstance(work, Cancel):
            self._cancel(call, work, name, document, record)
        else:
            self._begin(call, work, id_, document, record)

    def _check_room(self, fleet: str) -> None:
        """Raises: Conflict where that fleet brought enough today; see letters.py."""
        core, limit = self._core, PEER_LETTERS_PER_DAY_MAX
        since_ms, until_ms = core.now.wall_ms - _DAY_MS, core.now.wall_ms + CLOCK_SKEW_MS
        its: dict[str, Any] = {"writer": core.machine, "fleet": fleet, "limit": limit}
        heard = core.tables.rows(HEARD, order=("-t_ms",), **its)
        # Of what was refused at the door there is nothing else.
        said = core.tables.rows(SAID, what="report", state="refused", order=("-t_ms",), **its)
        times = (*(row.t_ms for row in heard), *(row.t_ms for row in said))
        full = sum(since_ms <= t_ms <= until_ms for t_ms in times) >= limit
        if full or not spend(self._brought[fleet], limit, _DAY_MS, core.now.boot_ms):
            raise Conflict("that fleet brought enough for now")

    # --- a task -----------------------------------------------------------------------------

    def _begin(self, call: Call, task: Task, id_: str, document: str, record: str) -> None:
        """Keep a task and hand it on, or say why not, and keep nothing of it.

        Raises: Denied, NotFound, Conflict.
        """
        core, of = self._core, task.of
        try:
            target = core.roster.find(task.to).machine
            given = self._grants(of, target)
        except (Denied, NotFound) as error:
            # So few, as of letters.
            if spend(self._denied[of], DENIALS_PER_HOUR_MAX, _HOUR_MS, core.now.boot_ms):
                self._orders.deny(FLEET_GRANTEE + of, TASK, task.to, error)
            raise
        if self._heard(id_, "cancel", of, task.by):
            raise Denied("it was taken back before it came")
        self._check_room(of)
        why = ""
        try:
            spec = parse(task.spec.encode())
            if task.base and not task.repo:
                raise Malformed("a base is a branch of a repository, and it names none")
            for each in given:
                why = self._refusal(each, target, spec, task.repo)
                if not why:
                    heard = call.write(PeerHear(document, record, given[0].id))
                    self._hand_on(task, spec, each, target, heard, id_)
                    core.of_step[_BEGUN, each.id] = None
                    return
        except Malformed as error:
            why = f"it cannot be begun: {error}"
        core.counters["peer-work-refused"] += 1
        self._report(task.of, task.by, id_, "refused", why[:REASON_CHARS_MAX])

    def _grants(self, of: str, target: MachineId) -> list[Given]:
        """The grants by which that fleet may ask this machine, those to it alone first."""
        core = self._core
        found = [
            each
            for each in core.roster.asking(of)
            if each.grant.object in (target, "*") and core.now.wall_ms <= each.grant.until_ms
        ]
        if not found:
            name = core.roster.called(FLEET_GRANTEE + of)
            raise Denied(f"{name} may ask {core.membership.name_of(target)} for no task: no grant")
        return sorted(found, key=lambda each: (each.grant.object == "*", each.id))

    def _refusal(self, given: Given, target: MachineId, spec: Spec, repo: str) -> str:
        bounds = of_grant(given.grant, target)
        assert bounds is not None, "it is a grant of that, on this machine"
        if wider := delegation.refusal(bounds, spec, repo, Asking(self._core).ids):
            return f"more is asked than is granted: {wider}"
        core, most = self._core, given.grant.bounds
        assert most is not None, "it has bounds"
        if (_BEGUN, given.id) in core.of_step:
            # No table counts it before this step ends.
            raise Conflict("another task by that grant is being taken")
        # As its owner counts them: over all doors.
        since_ms = core.now.wall_ms - _DAY_MS
        if len(asked_since(core, "", given.id, since_ms, most.per_day)) >= most.per_day:
            return f"{most.per_day} a day are allowed, and so many were asked for"
        return self._delegations.too_many(Source(bounds, most.at_once, grant=given.id), "")

    def _hand_on(  # noqa: PLR0917 - what is handed on, by what and whom
        self, task: Task, spec: Spec, given: Given, owner: MachineId, heard: Entry, id_: str
    ) -> None:
        core, now_ms = self._core, self._core.now.wall_ms
        run = kinds.RunOpen("-", spec.name, task.spec, "", task.repo, task.base)
        statement = sign_statement(
            core.membership.signer("statement"), fleet=core.membership.fleet, verb="run",
            object=spec.name, target=owner, args=run_args(run), nonce=core.draw(16),
            issued_ms=now_ms, until_ms=now_ms + DELEGATION_LIFE_MS,
        ).hex()  # fmt: skip
        core.append_body(
            DelegationOpen(
                run_id(owner, statement), owner, statement, task.spec, task.repo, task.base,
                given.id, id_,
            ),
            cause=(heard.id,),
        )  # fmt: skip
        self._follow_from(id_, now_ms)

    # --- its end ----------------------------------------------------------------------------

    def _cancel(self, call: Call, cancel: Cancel, name: str, document: str, record: str) -> None:
        """Withdraw a task, or never begin it. Raises: Denied where it is none of that machine's."""
        core = self._core
        known = self._heard(cancel.task, "task", cancel.of, cancel.by, "letter")
        if not known:
            if not core.roster.asking(cancel.of):
                raise Denied("there is no such task, and nothing lets that fleet ask for one")
            if core.tables.rows(HEARD, writer=core.machine, letter=cancel.task, limit=1):
                raise Denied("the task is another machine's")
        self._check_room(cancel.of)
        call.write(PeerHear(document, record))
        for row in self._rows(key=cancel.task) if known else ():
            if not row.withdrawn and self._delegations.state(row) in _UNENDED:
                whose = f"{name}.{core.roster.peers[cancel.of].name}"
                why = f"{whose} takes it back{f': {cancel.reason}' if cancel.reason else ''}"
                self._delegations.withdraw(row, why, "muster")

    def _heard(
        self, id_: str, what: str, of: str, by: str, column: str = "about"
    ) -> list[HeardRow]:
        same: dict[str, Any] = {column: id_, "what": what, "fleet": of, "by": by}
        return self._core.tables.rows(HEARD, writer=self._core.machine, limit=1, **same)

    # --- what became of it ------------------------------------------------------------------

    def _rows(self, **equals: Any) -> list[DelegationRow]:
        return self._core.tables.rows(DELEGATION, writer=self._core.machine, **equals)

    def _told(self, task: str) -> tuple[int, str] | None:
        """The number and the state of what its fleet was told last."""
        rows = self._core.tables.rows(
            SAID, writer=self._core.machine, about=task, what="report", order=("-number",), limit=1
        )
        return (rows[0].number, rows[0].state) if rows else None

    def flush(self) -> None:
        """Tell what changed; withdraw what a fleet asked that is removed."""
        moved, self._moved = self._moved, {}
        for task in filter(self._open.__contains__, moved):
            if self._core.guard.run("task", task[:12], self._follow, task) is not None:
                # Again in a minute.
                self._open[task] = 0

    def _follow(self, task: str) -> None:
        rows = self._core.tables.rows(
            HEARD, writer=self._core.machine, letter=task, what="task", limit=1
        )
        begun = self._rows(key=task) if rows else []
        told = self._told(task)
        if not begun or (told is not None and told[1] in OVER):
            del self._open[task]
            return
        self._tell(begun[0], rows[0], told)

    def _tell(self, row: DelegationRow, heard: HeardRow, told: tuple[int, str] | None) -> None:
        core, state = self._core, self._delegations.state(row)
        if heard.fleet not in core.roster.peers:
            if not row.withdrawn and state in _UNENDED:
                why = f"fleet {heard.fleet[:12]} was removed (`muster peer remove`)"
                self._delegations.withdraw(row, why, "muster")
            # Nobody is told of it any more.
            del self._open[row.key]
            return
        said = _STATES.get(state)
        if state == "late" and not wrote_since(core, row.owner, row.at_ms + DELEGATION_LIFE_MS):
            # Perhaps it was begun in time: it is said once its owner was heard of.
            return
        if said is None or (told is not None and told[1] == said):
            return
        summary, came = words(core, row, said) if said in OVER else ("", ())
        try:
            self._report(heard.fleet, heard.by, heard.letter, said, summary, came)
        except Malformed:
            # What its agents said does not fit: that it ended is told all the same.
            self._report(heard.fleet, heard.by, heard.letter, said, summary)

    def _report(  # noqa: PLR0917 - of what, to whom, and what
        self, fleet: str, by: str, task: str, state: State, summary: str,
        came: tuple[Came, ...] = (),
    ) -> None:  # fmt: skip
        core, told = self._core, self._told(task)
        doors = core.roster.peers[fleet].card.doors
        door = next((each for each in doors if each.machine == by), doors[0])
        self._asks.say(Report(
            fleet=fleet, by=core.machine, door=door.machine, issued_ms=core.now.wall_ms,
            nonce=core.draw(16).hex(), of=core.membership.fleet, task=task,
            number=(told[0] if told else 0) + 1, state=state,
            summary=visible(summary)[:PEER_SAID_CHARS_MAX], came=came,
        ))  # fmt: skip
