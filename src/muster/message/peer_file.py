"""Files that another fleet leaves with a machine here, as entries of that machine alone.

Rule 1: the document is kept as it came, before a byte of the file is: who left what can be shown.
Rule 2: what is counted of a fleet in a day is files, told apart by name and digest, however often
one of them was begun.
"""

from collections.abc import Iterable
from typing import Annotated, Final, NamedTuple

from msgspec import Meta

from muster import limits
from muster.errors import MusterError
from muster.fleet.document import document_id
from muster.fleet.name import Hex32
from muster.fleet.peer_file import open_file
from muster.log.entry import Entry
from muster.log.fold import Rows, Skip, Table, body_as
from muster.log.kind import kind
from muster.log.stream import FleetId, StreamName
from muster.message.kinds import Body

Document = Annotated[str, Meta(max_length=limits.RECORD_BYTES_MAX)]


@kind("peer.file")
class PeerFile(Body, frozen=True):
    """A file that another fleet begins to leave, its sender's record, the grant that lets it."""

    grant: Hex32
    document: Document
    record: Document


class FileRow(NamedTuple):
    stream: StreamName
    letter: str
    fleet: str
    path: str
    sha256: str
    t_ms: int


FILE: Final = Table("peer_file", FileRow, indexes=(("fleet", "t_ms"),))


class PeerFileFold:
    """See the rules at the top of this file."""

    name = "peer-file"
    tables = (FILE,)
    kinds = frozenset({"peer.file"})

    def __init__(self, fleet: FleetId) -> None:
        self._fleet = fleet

    def apply(self, entry: Entry, rows: Rows) -> Iterable[NamedTuple]:
        body = body_as(entry, PeerFile)
        raw = body.document.encode()
        try:
            file, _ = open_file(raw, body.record.encode(), self._fleet)
        except MusterError as error:
            raise Skip("peer-file-forged") from error
        if file.door != entry.header.author:
            raise Skip("peer-file-of-another")
        id_, t_ms = document_id(raw), entry.header.t[0]
        return (FileRow(rows.stream, id_, file.of, file.path, file.sha256, t_ms),)
