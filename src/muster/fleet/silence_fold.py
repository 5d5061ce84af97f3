"""From entries about incidents to rows: what nobody is to be called for, and who was told what.

Rule 1: a silence is what somebody signed; whether that key may, the roster says.
Rule 2: of the same words of a signer the newest counts, whoever passed it on: it ends what an older
one began.
Rule 3: that people were told is the word of the machine that told them, and has no other signature:
whoever goes by it asks whether that machine is one of its pagers.
"""

from collections.abc import Iterable
from typing import Final, NamedTuple

from muster.errors import Malformed
from muster.fleet import kinds
from muster.fleet.device_fold import Handler, checked
from muster.fleet.statement import args_hash, open_statement
from muster.fleet.until import until_ms
from muster.limits import SILENCE_MS_MAX
from muster.log.entry import Entry
from muster.log.fold import Rows, Skip, Table, body_as
from muster.log.stream import FleetId, StreamName

# The verb whose statement silences; its object is what the keys are held against.
SILENCE_VERB: Final = "silence"


class SilenceRow(NamedTuple):
    stream: StreamName
    fits: str
    signer: str
    issued_ms: int
    until_ms: int
    why: str


class NotifyRow(NamedTuple):
    stream: StreamName
    key: str
    level: int
    services: str
    ok: int
    reason: str
    serial: str
    t_ms: int
    severity: str
    since_ms: int


SILENCE: Final = Table("fleet_silence", SilenceRow, key=2)
NOTIFY: Final = Table("fleet_notify", NotifyRow, key=3, indexes=(("key",),))


def _silence(entry: Entry, rows: Rows, fleet: FleetId) -> Iterable[NamedTuple]:
    body = body_as(entry, kinds.IncidentSilence)
    signed = checked("bad-statement", open_statement, body.statement, fleet)
    said = {"match": body.match, "until": body.until, "why": body.why}
    if (signed.verb, signed.object) != (SILENCE_VERB, body.match) or signed.args != args_hash(said):
        raise Skip("other-incident")
    try:
        end_ms = until_ms(body.until, signed.issued_ms)
    except Malformed as error:
        raise Skip("bad-body") from error
    if end_ms > signed.issued_ms + SILENCE_MS_MAX:
        raise Skip("too-long")
    known = rows.get(SILENCE, body.match, signed.operator)
    if known is not None and known.issued_ms >= signed.issued_ms:
        raise Skip("stale")
    what = (body.match, signed.operator, signed.issued_ms, max(0, end_ms), body.why)
    return [SilenceRow(rows.stream, *what)]


def _notify(entry: Entry, rows: Rows, _fleet: FleetId) -> Iterable[NamedTuple]:
    body = body_as(entry, kinds.IncidentNotify)
    what = (int(body.ok), body.reason, body.serial, entry.header.t[0])
    of = (body.severity, body.since_ms)
    return [NotifyRow(rows.stream, body.key, body.level, body.to, *what, *of)]


SILENCE_KINDS: Final[dict[str, Handler]] = {kinds.INCIDENT_SILENCE: _silence}
NOTIFY_KINDS: Final[dict[str, Handler]] = {kinds.INCIDENT_NOTIFY: _notify}
