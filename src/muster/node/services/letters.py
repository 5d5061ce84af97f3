"""Letters to other fleets and from them: written down, taken once, settled by a receipt.

Rule 1: a letter is an entry of ours before it leaves, and waits there until the receipt of its door
is an entry, too. Whoever carries them (node/links/foreign.py) may show it again and again.
Rule 2: a letter from another fleet is taken once, by the door that it names, where a grant to that
fleet lets it say something to that machine. What is kept and the message of it are one step.
Rule 3: its message begins with who says it, for every reader: it is the door's entry, and nobody
may take what another operator's machine says for a word of this fleet.
Rule 4: the receipt is given when the machine that the letter is for holds it, and not before.
"""

from collections import defaultdict, deque
from collections.abc import Iterator
from functools import lru_cache
from typing import TYPE_CHECKING, Any, Final, NamedTuple

from msgspec import Struct

from muster.errors import Conflict, Denied, MusterError, NotFound, Refused
from muster.fleet.document import document_id
from muster.fleet.grant import FLEET_GRANTEE
from muster.fleet.letter import (
    Letter,
    letter_of,
    open_letter,
    open_receipt,
    sign_letter,
    sign_receipt,
)
from muster.fleet.peer import Foreign, split_place
from muster.limits import (
    CLOCK_SKEW_MS,
    PEER_LETTER_LIFE_MS,
    PEER_LETTERS_PER_DAY_MAX,
    PEER_TEXT_BYTES_MAX,
    PEER_UNHELD_MAX,
    PEER_WAITING_MAX,
)
from muster.log.fold import body_as
from muster.log.stream import FleetId, MachineId, StreamName, direct_target, scope_to
from muster.message.fold import Message
from muster.message.kinds import MessageSend, check_send
from muster.message.letter import (
    SENT,
    SETTLED,
    TAKEN,
    LetterFold,
    PeerSend,
    PeerSettle,
    PeerTake,
    SentRow,
    TakenRow,
)
from muster.node import event as ev
from muster.node.call.answers import Answers, Call
from muster.node.call.authorize import Authorizer
from muster.node.call.guests import check_brought, guest_of
from muster.node.counter import DECLARED, spend
from muster.node.part import Part
from muster.node.services.messages import held_size
from muster.node.verb import LATER, Later

if TYPE_CHECKING:
    from muster.node.core import Core

DECLARED[__name__] = {
    "letters-taken": "A letter of another fleet was taken and became a message here.",
    "letters-refused": "A letter of another fleet was refused: by no grant, or as none.",
    "receipts-refused": "What another fleet's door gave as a receipt is none for that letter.",
}

# What a machine of another fleet is granted to say something to one here.
SEND: Final = "send"
_DAY_MS: Final = 24 * 3_600_000
# So many refusals of a fleet are written down in an hour: who asks is known from the first.
DENIALS_PER_HOUR_MAX: Final = 10


class LettersWait(ev.Effect, frozen=True):
    """There is a letter that waits to be carried."""


class LetterSettled(ev.Event, frozen=True):
    """A door gave this receipt for a letter; who it is and whether it is one is looked at here."""

    letter: str
    receipt: str
    record: str


class LetterTaken(ev.Event, frozen=True):
    """A door says that it took a letter; the receipt comes when its reader's machine holds it."""

    letter: str


class DoorTried(ev.Event, frozen=True):
    """What came of the last try to hand letters over to another fleet; `error` is "" if it went."""

    fleet: str
    error: str = ""


class Held(Struct, frozen=True):
    """What a door answers: `taken`; and when the machine that it is for holds it, the receipt."""

    state: str
    receipt: str = ""
    record: str = ""


class Waiting(Struct, frozen=True):
    """A letter of ours: its id, whom it is for, its text, and how far it came."""

    letter: str
    fleet: str
    to: str
    text: str
    t_ms: int
    state: str


class _Came(NamedTuple):
    """A letter that was opened, its sender's name there, and both documents as they came."""

    id: str
    letter: Letter
    sender: str
    document: str
    record: str


class Letters(Part):
    """See the rules at the top of this file."""

    name = "letters"
    effects = (LettersWait,)

    def __init__(self, core: "Core") -> None:
        self._core, self._orders = core, core.part(Authorizer)
        self._denied: dict[str, deque[int]] = defaultdict(deque)
        # Since this start: what each fleet brought, and letters of ours that their doors took.
        self._brought: dict[str, deque[int]] = defaultdict(deque)
        self._taken: deque[str] = deque(maxlen=2 * PEER_WAITING_MAX)
        # When a letter was signed; each is read once.
        self._issued_ms = lru_cache(4 * PEER_WAITING_MAX)(lambda row: self._letter(row).issued_ms)
        # What came of the last try to reach each fleet, by its id.
        self.tried: dict[str, str] = {}
        core.on(LetterSettled, self._settled)
        core.on(LetterTaken, self._note_taken)
        core.on(DoorTried, self._note)
        core.on(ev.RosterChanged, self._changed)

    @staticmethod
    def folds(fleet: FleetId) -> tuple[LetterFold, ...]:
        return (LetterFold(fleet),)

    def start(self) -> None:
        if any(self.waiting()):
            self._core.do(LettersWait())

    def _changed(self, event: ev.RosterChanged) -> None:
        if event.before is not None and event.after.peers != event.before.peers:
            self._core.do(LettersWait())

    def _note(self, event: DoorTried) -> None:
        self.tried = {**self.tried, event.fleet: event.error or "worked"}

    def _note_taken(self, event: LetterTaken) -> None:
        if event.letter not in self._taken:
            self._taken.append(event.letter)

    # --- out --------------------------------------------------------------------------------

    def send(self, call: Call, place: str, text: str, key: str) -> tuple[str, bool]:
        """Write a letter down; its id, and whether it is a new one.

        Raises: Malformed, NotFound, Denied, Conflict, Refused.
        """
        core = self._core
        agent, machine, name = split_place(place)
        fleet, peer = core.roster.peer(name)
        if not call.operator:
            raise Denied(
                "what goes to another operator's fleet is a person's to order: no agent says "
                "anything there by itself"
            )
        if len(text.encode()) > PEER_TEXT_BYTES_MAX:
            raise Refused(f"a letter to another fleet has at most {PEER_TEXT_BYTES_MAX} bytes")
        doors = [door for door in peer.card.doors if door.name == machine] or peer.card.doors
        to = f"{agent}@{machine}" if agent else machine
        if key and (before := self._same_key(fleet, to, text, key)):
            return before, False
        if sum(1 for _ in self.waiting()) >= PEER_WAITING_MAX:
            raise Conflict("enough letters wait for other fleets; `muster letters` lists them")
        letter = Letter(
            fleet=fleet, by=core.machine, door=doors[0].machine, issued_ms=core.now.wall_ms,
            nonce=core.draw(16).hex(), of=core.membership.fleet, text=text, to=to,
        )  # fmt: skip
        raw = sign_letter(core.membership.signer("statement"), letter)
        call.write(PeerSend(fleet, raw.decode(), key), scope=scope_to(core.machine))
        core.do(LettersWait())
        return document_id(raw), True

    def _same_key(self, fleet: str, to: str, text: str, key: str) -> str:
        for row in self._core.tables.rows(SENT, writer=self._core.machine, dedupe=key, limit=1):
            said = self._letter(row)
            if (row.fleet, said.to, said.text) != (fleet, to, text):
                raise Conflict(
                    f"the key {key[:60]!r} was used for another letter; nothing was sent"
                )
            return row.letter
        return ""

    def is_settled(self, letter: str) -> bool:
        """Whether its receipt is here."""
        me = self._core.machine
        return bool(self._core.tables.rows(SETTLED, writer=me, letter=letter, limit=1))

    def sent(self, limit: int) -> Iterator[Waiting]:
        """Our newest letters, and how far each came."""
        core, order = self._core, ("-t_ms",)
        for row in core.tables.rows(SENT, writer=core.machine, order=order, limit=limit):
            said, name, state = self._letter(row), self.name_of(row.fleet), self.state(row)
            yield Waiting(row.letter, name, said.to, said.text, row.t_ms, state)

    def state(self, row: SentRow) -> str:
        """How far a letter came."""
        if self.is_settled(row.letter):
            return "stored"
        if row.letter in self._taken:
            # Its door has it, and gives it to its reader however late that is.
            return "taken"
        if not self.is_young(row):
            return "expired"
        return "waiting" if row.fleet in self._core.roster.peers else "removed"

    def name_of(self, fleet: str) -> str:
        """What a fleet is called here, also one that was removed."""
        peer = self._core.roster.peers.get(fleet)
        return fleet[:12] if peer is None else peer.name

    def waiting(self) -> Iterator[SentRow]:
        """What is to be carried, the oldest first."""
        core = self._core
        young: dict[str, Any] = {"t_ms": core.now.wall_ms - PEER_LETTER_LIFE_MS}
        mine: dict[str, Any] = {"writer": core.machine, "above": young}
        settled = {row.letter for row in core.tables.rows(SETTLED, **mine)}
        for row in core.tables.rows(SENT, order=("t_ms",), **mine):
            peer = row.letter not in settled and row.fleet in core.roster.peers
            if peer and self.is_young(row):
                yield row

    def is_young(self, row: SentRow) -> bool:
        """Whether a door takes it still, which goes by the letter: our log's time may be ahead."""
        return self._issued_ms(row) >= self._core.now.wall_ms - PEER_LETTER_LIFE_MS

    def document(self, row: SentRow) -> str:
        """A letter as it was signed."""
        return body_as(self._core.log.entry_at(row.stream, row.seq), PeerSend).letter

    def _letter(self, row: SentRow) -> Letter:
        return letter_of(self.document(row).encode(), row.fleet)

    def _settled(self, event: LetterSettled) -> None:
        core = self._core
        row = next(
            iter(core.tables.rows(SENT, writer=core.machine, letter=event.letter, limit=1)), None
        )
        if row is None or self.is_settled(event.letter) or not core.settled:
            # Before our history is confirmed nothing is written; the letter is shown again.
            return
        whose = {"of": row.fleet, "door": row.door, "letter": row.letter}
        raw, record = event.receipt.encode(), event.record.encode()
        try:
            open_receipt(raw, record, fleet=core.membership.fleet, **whose)
        except Refused:
            core.counters["receipts-refused"] += 1
            return
        body = PeerSettle(row.door, row.fleet, row.letter, event.receipt, event.record)
        core.append_body(body, scope=scope_to(core.machine))

    def origin(self, message: Message) -> str:
        """The machine of another fleet that a message is a letter of, as it is called; else ""."""
        core, before = self._core, message.entry.header.seq - 1
        for row in core.tables.rows(TAKEN, stream=message.stream, seq=before, limit=1):
            return f"{row.name}.{self.name_of(row.fleet)}"
        return ""

    # --- in ---------------------------------------------------------------------------------

    def take(self, call: Call, document: str, record: str) -> Later:
        """Take a letter, or say again that it was taken. Raises: Refused, NotFound, Conflict."""
        call.check_streaming()
        core, guest = self._core, guest_of(self._core, call.foreign)
        try:
            came = self._opened(guest, document, record)
            row = self._known(came.id)
            place = self._write(call, came) if row is None else (row.stream, row.seq + 1)
        except MusterError:
            core.counters["letters-refused"] += 1
            raise
        call.more(Held("taken"))
        receipt = sign_receipt(
            core.membership.signer("held"), fleet=guest.fleet, door=core.machine,
            letter=came.id, of=core.membership.fleet,
        )  # fmt: skip
        own = core.roster.machine(core.machine).raw
        self._when_held(call, *place, Held("stored", receipt.decode(), own.decode()))
        return LATER

    def _opened(self, guest: Foreign, document: str, record: str) -> _Came:
        core, raw = self._core, document.encode()
        letter, sender = open_letter(raw, record.encode(), core.membership.fleet)
        check_brought(core, guest, letter, "letter")
        return _Came(document_id(raw), letter, sender.name, document, record)

    def _known(self, id_: str) -> TakenRow | None:
        core = self._core
        if (TAKEN.name, id_) in core.of_step:
            # No table shows it before this step ends.
            raise Conflict("it is being taken")
        return next(iter(core.tables.rows(TAKEN, writer=core.machine, letter=id_, limit=1)), None)

    def _write(self, call: Call, came: _Came) -> tuple[StreamName, int]:
        """Keep it, and the message of it; where that stands."""
        core, of = self._core, came.letter.of
        agent, at, name = came.letter.to.rpartition("@")
        try:
            target = core.roster.find(name).machine
            grant = core.roster.decide(FLEET_GRANTEE + of, SEND, target, core.now.wall_ms)
        except (Denied, NotFound) as error:
            # The others' refusals share their room in the log with these: so there are few.
            if spend(self._denied[of], DENIALS_PER_HOUR_MAX, 3_600_000, core.now.boot_ms):
                self._orders.deny(FLEET_GRANTEE + of, SEND, name, error)
            raise
        self._check_room(of)
        whose = core.roster.peers[of].name
        text = f"{came.sender}.{whose} (another fleet): {came.letter.text}"
        scope = scope_to(target)
        taken = call.write(PeerTake(grant, came.document, came.record), scope=scope)
        core.of_step[TAKEN.name, came.id] = None
        message = check_send(MessageSend([f"{agent}@{target}" if at else target], text))
        entry = call.write(message, scope=scope, cause=(taken.id,))
        core.counters["letters-taken"] += 1
        return entry.stream, entry.header.seq

    def _check_room(self, fleet: str) -> None:
        """Raises: Conflict where that fleet brought enough today, or enough of it waits.

        The log's time is ahead for as long as our clock once was: what is from a time to come is
        of no day, and what came since this start is counted, too.
        """
        core, limit = self._core, PEER_LETTERS_PER_DAY_MAX
        since = core.now.wall_ms - _DAY_MS
        rows = core.tables.rows(
            TAKEN, writer=core.machine, fleet=fleet, order=("-t_ms",), limit=limit
        )
        recent = [row for row in rows if row.t_ms >= since]
        today = [row for row in recent if row.t_ms <= core.now.wall_ms + CLOCK_SKEW_MS]
        held: dict[StreamName, Any] = {row.stream: held_size(core, row.stream) for row in recent}
        away = [
            row
            for row in recent
            for machine in _away(core, row.stream)
            if held[row.stream](machine) <= row.seq + 1
        ]
        now_ms, full = core.now.boot_ms, len(today) >= limit or len(away) >= PEER_UNHELD_MAX
        if full or not spend(self._brought[fleet], limit, _DAY_MS, now_ms):
            raise Conflict("that fleet brought enough for now")

    def _when_held(self, call: Call, stream: StreamName, seq: int, end: Held) -> None:
        """Answer so when the reader's machine has receipted it, while the caller still listens."""
        core, place = self._core, (call.link, call.channel)
        waits, over = core.part(Answers).open, []

        def held() -> None:
            over.append(end)
            waits.pop(place, None)
            call.end(end)

        stop = core.replication.awaited.when_held(stream, seq + 1, _away(core, stream), held)
        if not over:
            waits[place] = stop


def _away(core: "Core", stream: StreamName) -> set[MachineId]:
    """Whose receipt says that a message in this stream of ours is where it is to be."""
    target = direct_target(stream.scope)
    return set() if target in (None, core.machine) else {target}
