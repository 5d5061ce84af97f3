"""Letters as entries: what went to another fleet, what came of it, and what came from one.

Rule 1: what goes out stands in its machine's own stream before it leaves: the document, whole.
Rule 2: a letter is settled by the receipt of its door, kept as it came, and by nothing else.
Rule 3: the door that took a letter keeps it as it came, in the stream that its reader's machine
holds; right behind it stands the message that the reader is shown, which is the door's own.
Rule 4: of what came from another fleet a row says that the signatures were checked: what does not
bear them makes none. A letter of our own is its writer's, whose stream it stands in.
"""

from collections.abc import Iterable
from typing import Annotated, Final, NamedTuple

from msgspec import Meta

from muster import limits
from muster.errors import MusterError
from muster.fleet.document import document_id
from muster.fleet.letter import letter_of, open_letter, open_receipt
from muster.fleet.name import Hex32
from muster.log.entry import Entry
from muster.log.fold import Rows, Skip, Table, body_as
from muster.log.kind import kind
from muster.log.stream import FleetId, StreamName
from muster.message.kinds import Body

Document = Annotated[str, Meta(max_length=limits.PEER_LETTER_BYTES_MAX)]


@kind("peer.send")
class PeerSend(Body, frozen=True):
    """A letter that is to go out, for the fleet of this id; `key` makes it one."""

    fleet: Hex32
    letter: Document
    key: Annotated[str, Meta(max_length=200)] = ""


@kind("peer.settle")
class PeerSettle(Body, frozen=True):
    """The receipt for a letter of the writer, and its signer's record; `fleet` has that door."""

    door: Hex32
    fleet: Hex32
    letter: Hex32
    receipt: Document
    record: Document


@kind("peer.take")
class PeerTake(Body, frozen=True):
    """A letter from another fleet, its sender's record, and the grant that let it in."""

    grant: Hex32
    letter: Document
    record: Document


class SentRow(NamedTuple):
    stream: StreamName
    letter: str
    seq: int
    fleet: str
    door: str
    dedupe: str
    t_ms: int


class SettledRow(NamedTuple):
    stream: StreamName
    letter: str
    t_ms: int


class TakenRow(NamedTuple):
    stream: StreamName
    letter: str
    seq: int
    fleet: str
    by: str
    name: str
    t_ms: int


SENT: Final = Table("letter_sent", SentRow)
SETTLED: Final = Table("letter_settled", SettledRow)
TAKEN: Final = Table("letter_taken", TakenRow, indexes=(("fleet", "t_ms"),))


class LetterFold:
    """See the rules at the top of this file."""

    name = "letter"
    tables = (SENT, SETTLED, TAKEN)
    kinds = frozenset({"peer.send", "peer.settle", "peer.take"})

    def __init__(self, fleet: FleetId) -> None:
        self._fleet = fleet

    def apply(self, entry: Entry, rows: Rows) -> Iterable[NamedTuple]:
        try:
            return (self._row(entry, rows),)
        except MusterError as error:
            raise Skip("letter-forged") from error

    def _row(self, entry: Entry, rows: Rows) -> NamedTuple:
        seq, t_ms = entry.header.seq, entry.header.t[0]
        if entry.header.kind == "peer.send":
            sent = body_as(entry, PeerSend)
            raw = sent.letter.encode()
            door = letter_of(raw, sent.fleet).door
            return SentRow(rows.stream, document_id(raw), seq, sent.fleet, door, sent.key, t_ms)
        if entry.header.kind == "peer.settle":
            settled = body_as(entry, PeerSettle)
            whose = {"of": settled.fleet, "door": settled.door, "letter": settled.letter}
            raw, record = settled.receipt.encode(), settled.record.encode()
            open_receipt(raw, record, fleet=self._fleet, **whose)
            return SettledRow(rows.stream, settled.letter, t_ms)
        taken = body_as(entry, PeerTake)
        raw = taken.letter.encode()
        letter, sender = open_letter(raw, taken.record.encode(), self._fleet)
        if letter.door != entry.header.author:
            raise Skip("letter-of-another-door")
        id_, by = document_id(raw), sender.machine
        if rows.get(TAKEN, id_) is not None:
            raise Skip("letter-known")
        return TakenRow(rows.stream, id_, seq, letter.of, by, sender.name, t_ms)
