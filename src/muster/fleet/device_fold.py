"""From the entries about devices to rows: what operators offered, and the keys that took it.

Rule 1: a row says what a chain of signatures shows; whether its operator is one, whether it was
taken back, and whether its ticket showed another key, `assembly.py` combines from every stream.
Rule 2: a key is bound only in the stream of the machine that its terms name.
"""

from collections.abc import Callable, Iterable
from typing import Final, TypeVar

import msgspec

from muster.errors import Refused
from muster.fleet import kinds
from muster.fleet.device import adds, device_of, open_device
from muster.fleet.document import document_id
from muster.fleet.statement import open_statement
from muster.log import canon
from muster.log.entry import Entry
from muster.log.fold import Change, Rows, Skip, Table, body_as
from muster.log.stream import FleetId

T = TypeVar("T")
Handler = Callable[[Entry, Rows, FleetId], Iterable[Change]]

DEVICE_OFFER: Final = Table(
    "fleet_device_offer",
    (("id", "text"),),
    (("operator", "text"), ("statement", "text"), ("terms", "text"), ("t_ms", "int")),
)
DEVICE: Final = Table(
    "fleet_device",
    (("key", "text"), ("id", "text")),
    (("operator", "text"), ("terms", "text"), ("t_ms", "int")),
)


def checked(reason: str, opened: Callable[[bytes, FleetId], T], text: str, fleet: FleetId) -> T:
    """The document in an entry's body, or the reason to skip the entry."""
    try:
        return opened(text.encode(), fleet)
    except (Refused, UnicodeError) as error:
        raise Skip(reason) from error


def _offer(entry: Entry, _rows: Rows, fleet: FleetId) -> Iterable[Change]:
    body = body_as(entry, kinds.DeviceOpen)
    statement = checked("bad-statement", open_statement, body.statement, fleet)
    if not adds(statement, body.terms):
        raise Skip("other-terms")
    terms = canon.encode(msgspec.to_builtins(body.terms)).decode()
    row = (statement.operator, body.statement, terms, entry.header.t[0])
    return [Change(DEVICE_OFFER.name, (document_id(body.statement.encode()),), row)]


def _bind(entry: Entry, _rows: Rows, fleet: FleetId) -> Iterable[Change]:
    body = body_as(entry, kinds.DeviceRecorded)
    statement = checked("bad-statement", open_statement, body.statement, fleet)
    binding = checked("bad-record", open_device, body.binding, fleet)
    device = device_of(statement, body.statement, body.terms, binding)
    if device is None:
        raise Skip("other-terms")
    # A copied string is of no use on another machine.
    if binding.machine != entry.stream.machine:
        raise Skip("not-mine")
    terms = canon.encode(msgspec.to_builtins(body.terms)).decode()
    row = (device.operator, terms, entry.header.t[0])
    return [Change(DEVICE.name, (device.key, device.id), row)]


DEVICE_KINDS: Final[dict[str, Handler]] = {kinds.DEVICE_OPEN: _offer, kinds.DEVICE_RECORD: _bind}
