"""Work between fleets as entries: what was said to another fleet, and what one of them said here.

Rule 1: what goes out stands in its machine's own stream before it leaves: the document, whole.
Rule 2: the door that took a document keeps it as it came, beside the record that vouches for it, so
that every machine here can check by itself who asked for what.
Rule 3: a row of what came says that the signatures were checked. Whether it may begin anything, the
grant says, and whoever begins it looks again (peer_order.py).
"""

from collections.abc import Iterable
from typing import Annotated, Final, NamedTuple

from msgspec import Meta

from muster import limits
from muster.errors import MusterError
from muster.fleet.document import document_id
from muster.fleet.name import Hex32
from muster.fleet.peer_work import Cancel, Report, Work, open_work, sort_of, work_of
from muster.log.entry import Entry
from muster.log.fold import Rows, Skip, Table, body_as
from muster.log.kind import kind
from muster.log.stream import FleetId, StreamName
from muster.task.kinds import Body

Document = Annotated[str, Meta(max_length=limits.PEER_LETTER_BYTES_MAX)]


@kind("peer.say")
class PeerSay(Body, frozen=True):
    """A task, a cancelling or a report for the fleet of this id; `key` makes a task one."""

    fleet: Hex32
    document: Document
    key: Annotated[str, Meta(max_length=limits.KEY_CHARS_MAX)] = ""


@kind("peer.hear")
class PeerHear(Body, frozen=True):
    """The same from another fleet, its sender's record, and the grant that let in a task."""

    document: Document
    record: Document
    grant: Annotated[str, Meta(pattern=r"^([0-9a-f]{64})?\Z")] = ""


class SaidRow(NamedTuple):
    stream: StreamName
    letter: str
    seq: int
    fleet: str
    door: str
    what: str
    # The task that a cancelling or a report is about; its own id of a task.
    about: str
    number: int
    state: str
    dedupe: str
    t_ms: int


class HeardRow(NamedTuple):
    stream: StreamName
    letter: str
    seq: int
    fleet: str
    by: str
    name: str
    what: str
    about: str
    number: int
    state: str
    t_ms: int


SAID: Final = Table(
    "peer_said", SaidRow, indexes=(("about", "number"), ("what", "t_ms"), ("dedupe",)), ids=True
)
HEARD: Final = Table("peer_heard", HeardRow, indexes=(("about", "number"), ("fleet", "t_ms")))


class PeerWorkFold:
    """See the rules at the top of this file."""

    name = "peer-work"
    tables = (SAID, HEARD)
    kinds = frozenset({"peer.say", "peer.hear"})

    def __init__(self, fleet: FleetId) -> None:
        self._fleet = fleet

    def apply(self, entry: Entry, rows: Rows) -> Iterable[NamedTuple]:
        try:
            return (self._row(entry, rows),)
        except MusterError as error:
            raise Skip("peer-work-forged") from error

    def _row(self, entry: Entry, rows: Rows) -> NamedTuple:
        seq, t_ms = entry.header.seq, entry.header.t[0]
        if entry.header.kind == "peer.say":
            said = body_as(entry, PeerSay)
            raw = said.document.encode()
            work = work_of(raw, said.fleet)
            if (work.by, work.of) != (entry.header.author, self._fleet):
                raise Skip("peer-work-of-another")
            id_, about, number, state = _about(raw, work)
            return SaidRow(
                rows.stream, id_, seq, said.fleet, work.door, sort_of(work), about, number, state,
                said.key, t_ms,
            )  # fmt: skip
        heard = body_as(entry, PeerHear)
        raw = heard.document.encode()
        work, sender = open_work(raw, heard.record.encode(), self._fleet)
        if work.door != entry.header.author:
            raise Skip("peer-work-of-another-door")
        id_, about, number, state = _about(raw, work)
        if rows.get(HEARD, id_) is not None:
            raise Skip("peer-work-known")
        return HeardRow(
            rows.stream, id_, seq, work.of, sender.machine, sender.name, sort_of(work), about,
            number, state, t_ms,
        )  # fmt: skip


def _about(raw: bytes, work: Work) -> tuple[str, str, int, str]:
    """The document's id, the task that it is about, and of a report its number and what it says."""
    id_ = document_id(raw)
    if isinstance(work, Report):
        return id_, work.task, work.number, work.state
    return id_, work.task if isinstance(work, Cancel) else id_, 0, ""
