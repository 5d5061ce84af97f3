"""Work that we ask of other fleets: what was asked, how far it came, and what came of it.

Rule 1: what is asked is an entry of ours before it leaves, which only a person orders. Whoever
carries it (node/links/foreign.py) may show it again and again.
Rule 2: how it stands its door over there says, in reports; the one with the highest number counts,
and what is over stays so. What its run is called there, and where it works, nobody here learns.
Rule 3: what was cancelled is not shown any more; its cancelling is, until the door has that. A door
that hears of that first never begins the task.
"""

from collections.abc import Iterator
from typing import TYPE_CHECKING, Any, Final

from muster.errors import Conflict, Denied, Malformed, MusterError
from muster.fleet.document import document_id
from muster.fleet.letter import open_receipt
from muster.fleet.peer import split_place
from muster.fleet.peer_work import OVER, Cancel, Report, Task, Work, sign_work, work_of
from muster.limits import PEER_LETTER_LIFE_MS, PEER_WAITING_MAX, REASON_CHARS_MAX
from muster.log.fold import body_as
from muster.log.stream import FLEET, FleetId
from muster.message.letter import SETTLED, PeerSettle
from muster.node import event as ev
from muster.node.call.answers import Call
from muster.node.part import Part
from muster.node.services.letters import Letters, LetterSettled, LettersWait
from muster.node.tasks.followers import Followers
from muster.task.peer_order import check_askable
from muster.task.peer_work import HEARD, SAID, HeardRow, PeerHear, PeerSay, PeerWorkFold, SaidRow
from muster.task.spec import Spec, parse

if TYPE_CHECKING:
    from muster.node.core import Core

# Nothing is over about these.
_GOES_ON: Final = frozenset({"waiting", "asked", "open", "cancelling"})


class PeerAsks(Part):
    """See the rules at the top of this file."""

    name = "peer-asks"
    effects = (LettersWait,)

    def __init__(self, core: "Core") -> None:
        self._core = core
        core.on(LetterSettled, self._settled)
        core.on(ev.RosterChanged, self._changed)

    @staticmethod
    def folds(fleet: FleetId) -> tuple[PeerWorkFold, ...]:
        return (PeerWorkFold(fleet),)

    def start(self) -> None:
        if any(self.waiting()):
            self._core.do(LettersWait())

    def _changed(self, event: ev.RosterChanged) -> None:
        if event.before is not None and event.after.peers != event.before.peers:
            self._core.do(LettersWait())
            for row in self.asked():
                self._core.part(Followers).answered(row.letter)

    def tick(self) -> None:
        """What nobody took in time is over for whoever waits."""
        followers = self._core.part(Followers)
        for name in list(followers.watchers):
            rows = self._core.tables.rows(SAID, letter=name, what="task", limit=1)
            if rows and self.state(rows[0]) == "expired":
                followers.answered(name)

    # --- asking -----------------------------------------------------------------------------

    def ask(  # noqa: PLR0917 - what is asked, and of whom
        self, call: Call, place: str, text: str, repo: str, base: str, key: str
    ) -> tuple[str, bool]:
        """Write a task for another fleet down; its id, and whether it is a new one.

        Raises: Malformed, NotFound, Conflict, Refused.
        """
        core = self._core
        agent, machine, name = split_place(place)
        fleet, peer = core.roster.peer(name)
        if agent:
            raise Malformed(f"a task is asked of a machine, {machine}.{name}; its spec says whom")
        check_askable(parse(text.encode()), repo, machine)
        doors = [door for door in peer.card.doors if door.name == machine] or peer.card.doors
        if key and (before := self._same_key(fleet, machine, text, repo, base, key)):
            return before, False
        if sum(1 for _ in self.waiting()) >= PEER_WAITING_MAX:
            raise Conflict("enough waits for other fleets; `muster peer list` says for which")
        task = Task(
            fleet=fleet, by=core.machine, door=doors[0].machine, issued_ms=core.now.wall_ms,
            nonce=core.draw(16).hex(), of=core.membership.fleet, to=machine, spec=text, repo=repo,
            base=base,
        )  # fmt: skip
        return self.say(task, call, key), True

    def say(self, work: Work, call: Call | None = None, key: str = "") -> str:
        """Write a document of ours down, which is carried from now on; its id."""
        core = self._core
        raw = sign_work(core.membership.signer("statement"), work)
        body = PeerSay(work.fleet, raw.decode(), key)
        if call is None:
            core.append_body(body)
        else:
            call.write(body)
        core.do(LettersWait())
        return document_id(raw)

    def _same_key(  # noqa: PLR0917 - as of `ask`
        self, fleet: str, machine: str, text: str, repo: str, base: str, key: str
    ) -> str:
        for row in self._core.tables.rows(SAID, writer=self._core.machine, dedupe=key, limit=1):
            said = self.task(row)
            if (row.fleet, said.to, said.spec, said.repo, said.base) != (
                fleet, machine, text, repo, base
            ):  # fmt: skip
                raise Conflict(f"the key {key[:60]!r} was used for something else: take another")
            return row.letter
        return ""

    def cancel(self, call: Call, row: SaidRow, reason: str) -> None:
        """Take a task back that was asked from here. Raises: Conflict."""
        core, state = self._core, self.state(row)
        if state not in _GOES_ON or state == "cancelling":
            raise Conflict(f"task {row.letter[:12]} is {state} already; nothing was changed")
        self.say(
            Cancel(
                fleet=row.fleet, by=core.machine, door=row.door, issued_ms=core.now.wall_ms,
                nonce=core.draw(16).hex(), of=core.membership.fleet, task=row.letter,
                reason=reason[:REASON_CHARS_MAX],
            ),
            call,
        )  # fmt: skip
        core.part(Followers).answered(row.letter)

    # --- how far it came --------------------------------------------------------------------

    def asked(self, limit: int = PEER_WAITING_MAX, text: str = "") -> list[SaidRow]:
        """What machines of ours asked of other fleets (whose ids begin so), the newest first."""
        begins = {"letter": text} if text else None
        rows = self._core.tables.rows(
            SAID, what="task", begins=begins, order=("-t_ms", "-seq"), limit=limit
        )
        return list(rows)

    def task(self, row: SaidRow) -> Task:
        """What was asked."""
        body = body_as(self._core.log.entry_at(row.stream, row.seq), PeerSay)
        found = work_of(body.document.encode(), row.fleet)
        assert isinstance(found, Task), "the row says that it is one"
        return found

    @staticmethod
    def spec(task: Task) -> Spec:
        return parse(task.spec.encode())

    def state(self, row: SaidRow) -> str:
        """How it stands, as far as it is known here."""
        report = self._newest(row)
        if report is not None and report.state in OVER:
            return report.state
        if row.fleet not in self._core.roster.peers:
            return "removed"
        if (cancelled := self._cancelled(row)) is not None:
            # A door that never had the task has nothing to report of it.
            never = report is None and not self.is_settled(row)
            return "cancelled" if never and self.is_settled(cancelled) else "cancelling"
        if report is not None:
            return report.state
        if self.is_settled(row):
            return "asked"
        return "waiting" if self._is_young(row) else "expired"

    def is_over(self, row: SaidRow) -> bool:
        """Whether nothing more becomes of it here."""
        return self.state(row) not in _GOES_ON

    def report(self, row: SaidRow) -> Report | None:
        """What its door said last."""
        newest = self._newest(row)
        if newest is None:
            return None
        body = body_as(self._core.log.entry_at(newest.stream, newest.seq), PeerHear)
        found = work_of(body.document.encode(), self._core.membership.fleet)
        assert isinstance(found, Report), "the row says that it is one"
        return found

    def changed_ms(self, row: SaidRow) -> int:
        newest = self._newest(row)
        return row.t_ms if newest is None else max(row.t_ms, newest.t_ms)

    def _newest(self, row: SaidRow) -> HeardRow | None:
        rows = self._core.tables.rows(
            HEARD, about=row.letter, what="report", fleet=row.fleet, by=row.door,
            order=("-number",), limit=1,
        )  # fmt: skip
        return next(iter(rows), None)

    def _cancelled(self, row: SaidRow) -> SaidRow | None:
        rows = self._core.tables.rows(SAID, about=row.letter, what="cancel", stream=row.stream)
        return next(iter(rows), None)

    def is_settled(self, row: SaidRow) -> bool:
        """Whether the receipt of its door is here."""
        rows = self._core.tables.rows(SETTLED, writer=row.stream.machine, letter=row.letter)
        return bool(rows)

    def _is_young(self, row: SaidRow) -> bool:
        return row.t_ms >= self._core.now.wall_ms - PEER_LETTER_LIFE_MS

    # --- what is carried --------------------------------------------------------------------

    def waiting(self) -> Iterator[SaidRow]:
        """What is to be carried from here, the oldest first."""
        core = self._core
        young: dict[str, Any] = {"t_ms": core.now.wall_ms - PEER_LETTER_LIFE_MS}
        mine: dict[str, Any] = {"writer": core.machine, "above": young}
        settled = {row.letter for row in core.tables.rows(SETTLED, **mine)}
        rows = core.tables.rows(SAID, order=("t_ms", "seq"), **mine)
        newest = {row.about: row.number for row in rows if row.what == "report"}
        cancelled = {row.about for row in rows if row.what == "cancel"}
        for row in rows:
            if row.letter in settled or row.fleet not in core.roster.peers:
                continue
            overtaken = row.what == "report" and row.number < newest[row.about]
            if not overtaken and not (row.what == "task" and row.letter in cancelled):
                yield row

    def document(self, row: SaidRow) -> str:
        """A document as it was signed."""
        return body_as(self._core.log.entry_at(row.stream, row.seq), PeerSay).document

    def _settled(self, event: LetterSettled) -> None:
        core = self._core
        rows = core.tables.rows(SAID, writer=core.machine, letter=event.letter, limit=1)
        if not rows or self.is_settled(rows[0]) or not core.settled:
            return
        row, raw, record = rows[0], event.receipt.encode(), event.record.encode()
        whose = {"of": row.fleet, "door": row.door, "letter": row.letter}
        try:
            open_receipt(raw, record, fleet=core.membership.fleet, **whose)
        except MusterError:
            core.counters["receipts-refused"] += 1
            return
        core.append_body(PeerSettle(row.door, row.fleet, row.letter, event.receipt, event.record))
        core.part(Followers).answered(row.about)

    # --- what came of it --------------------------------------------------------------------

    def hear(self, call: Call, report: Report, document: str, record: str) -> None:
        """Take what a door says of a task that it was asked. Raises: Denied for any other."""
        rows = self._core.tables.rows(SAID, letter=report.task, what="task")
        row = next((r for r in rows if (r.fleet, r.door) == (report.of, report.by)), None)
        if row is None:
            raise Denied("nobody here asked that of it")
        newest = self._newest(row)
        if newest is not None and (newest.number >= report.number or newest.state in OVER):
            # Overtaken on its way: it is taken, and says nothing any more.
            return
        call.write(PeerHear(document, record), scope=FLEET)
        self._core.part(Followers).answered(row.letter)

    def name_of(self, row: SaidRow, machine: str) -> str:
        """What the machine is called that was asked."""
        return f"{machine}.{self._core.part(Letters).name_of(row.fleet)}"
