"""From the entries about devices to rows: what operators offered, and the keys that took it.

Rule 1: a row says what a chain of signatures shows; whether its operator is one, whether it was
taken back, and whether its ticket showed another key, `assembly.py` combines from every stream.
Rule 2: a key is bound only in the stream of the machine that its terms name.
"""

from collections.abc import Callable, Iterable
from typing import Final, NamedTuple, TypeVar

from muster.errors import Refused
from muster.fleet import kinds
from muster.fleet.device import adds, device_of, open_device
from muster.fleet.document import document_id
from muster.fleet.statement import open_statement
from muster.log import canon
from muster.log.entry import Entry
from muster.log.fold import Rows, Skip, Table, body_as
from muster.log.stream import FleetId, StreamName

T = TypeVar("T")
Handler = Callable[[Entry, Rows, FleetId], Iterable[NamedTuple]]


class DeviceOfferRow(NamedTuple):
    stream: StreamName
    id: str
    operator: str
    statement: str
    terms: str
    t_ms: int


class DeviceRow(NamedTuple):
    stream: StreamName
    key: str
    id: str
    operator: str
    terms: str
    t_ms: int


DEVICE_OFFER: Final = Table("fleet_device_offer", DeviceOfferRow)
DEVICE: Final = Table("fleet_device", DeviceRow, key=2)


def checked(reason: str, opened: Callable[[bytes, FleetId], T], text: str, fleet: FleetId) -> T:
    """The document in an entry's body, or the reason to skip the entry."""
    try:
        return opened(text.encode(), fleet)
    except (Refused, UnicodeError) as error:
        raise Skip(reason) from error


def _offer(entry: Entry, rows: Rows, fleet: FleetId) -> Iterable[NamedTuple]:
    body = body_as(entry, kinds.DeviceOpen)
    statement = checked("bad-statement", open_statement, body.statement, fleet)
    if not adds(statement, body.terms):
        raise Skip("other-terms")
    terms = canon.encode(body.terms).decode()
    what = (statement.operator, body.statement, terms, entry.header.t[0])
    return [DeviceOfferRow(rows.stream, document_id(body.statement.encode()), *what)]


def _bind(entry: Entry, rows: Rows, fleet: FleetId) -> Iterable[NamedTuple]:
    body = body_as(entry, kinds.DeviceRecorded)
    statement = checked("bad-statement", open_statement, body.statement, fleet)
    binding = checked("bad-record", open_device, body.binding, fleet)
    device = device_of(statement, body.statement, body.terms, binding)
    if device is None:
        raise Skip("other-terms")
    # A copied string is of no use on another machine.
    if binding.machine != entry.stream.machine:
        raise Skip("not-mine")
    terms = canon.encode(body.terms).decode()
    what = (device.operator, terms, entry.header.t[0])
    return [DeviceRow(rows.stream, device.key, device.id, *what)]


DEVICE_KINDS: Final[dict[str, Handler]] = {kinds.DEVICE_OPEN: _offer, kinds.DEVICE_RECORD: _bind}
