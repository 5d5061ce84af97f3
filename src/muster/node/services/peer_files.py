"""Files that another fleet leaves here: what lets it, piece by piece, and what is said of them.

Rule 1: the machine that is named takes a file, from the machine that signed its document, by an
operator's grant of `file` to that fleet: below that grant's folder, up to its size, so many a day.
Rule 2: a piece is put on the disk outside of any step (node/links/peer_shelf.py), and answered when
it lies there. Whoever sends asks first from which byte on; so a cut costs the piece it was in.
Rule 3: nobody without a grant learns more than that nothing answers. Who has one is told why not.
"""

import base64
import binascii
from collections import defaultdict, deque
from typing import TYPE_CHECKING, Final

from msgspec import Struct

from muster.errors import Denied, Malformed, MusterError
from muster.fleet.document import document_id
from muster.fleet.grant import FILE as VERB
from muster.fleet.grant import FLEET_GRANTEE, Bounds, Given
from muster.fleet.peer_file import File, open_file
from muster.limits import PEER_PIECE_BYTES_MAX
from muster.log.stream import JOURNAL, FleetId, scope_to
from muster.message.kinds import MessageSend, check_send
from muster.message.peer_file import FILE, PeerFile, PeerFileFold
from muster.node import event as ev
from muster.node.call.answers import Answers, Call
from muster.node.call.authorize import Authorizer
from muster.node.call.guests import REFUSED, check_brought, guest_of
from muster.node.counter import DECLARED, spend
from muster.node.link import failure
from muster.node.part import Part
from muster.node.services.letters import DENIALS_PER_HOUR_MAX
from muster.node.verb import LATER, Later

if TYPE_CHECKING:
    from muster.node.core import Core

DECLARED[__name__] = {
    "peer-files-taken": "A file of another fleet is there, whole.",
    "peer-files-refused": "A file of another fleet was refused: by no grant, or as none.",
}

# Below the person's home: where files lie of a grant that names no folder.
INBOX: Final = "muster-inbox"
_DAY_MS: Final = 24 * 3_600_000


class Piece(Struct, frozen=True):
    """What is answered to a piece: `at` is from which byte on the next is wanted."""

    state: str
    at: int = 0
    why: str = ""


class TakePiece(ev.Effect, frozen=True):
    """Put a piece of a file of another fleet on the disk, then say `PieceTaken`.

    `at` is -1 where only the place is asked for.
    """

    link: int
    channel: int
    file: File
    fleet: str
    sender: str
    folder: str
    at_once: int
    at: int
    data: bytes


class PieceTaken(ev.Event, frozen=True):
    """It lies there, or not: `why`. `fresh`: with it the file is whole, and was not before."""

    piece: TakePiece
    at: int
    whole: bool = False
    fresh: bool = False
    why: str = ""


class PeerFiles(Part):
    """See the rules at the top of this file."""

    name = "peer-files"
    effects = (TakePiece,)

    def __init__(self, core: "Core") -> None:
        self._core, self._orders = core, core.part(Authorizer)
        self._denied: dict[str, deque[int]] = defaultdict(deque)
        core.on(PieceTaken, self._taken)

    @staticmethod
    def folds(fleet: FleetId) -> tuple[PeerFileFold, ...]:
        return (PeerFileFold(fleet),)

    def take(self, call: Call, document: str, record: str, at: int, data: str) -> Piece | Later:
        """Take a piece, or say where it goes on. Raises: MusterError where nothing lets it in."""
        core, guest = self._core, guest_of(self._core, call.foreign)
        raw = document.encode()
        try:
            file, sender = open_file(raw, record.encode(), core.membership.fleet)
            check_brought(core, guest, file, "document")
            given = self._grant(file.of)
            piece = _decoded(data)
        except MusterError:
            core.counters["peer-files-refused"] += 1
            raise
        bounds = given.grant.bounds
        assert bounds is not None, "a grant of files has bounds"
        if why := self._refusal(file, bounds, at, piece):
            core.counters["peer-files-refused"] += 1
            return Piece("refused", why=why)
        id_ = document_id(raw)
        if not core.tables.rows(FILE, writer=core.machine, letter=id_, limit=1):
            call.write(PeerFile(given.id, document, record), scope=JOURNAL)
        fleet = core.roster.peers[file.of].name
        folder = bounds.folder or f"~/{INBOX}/{fleet}"
        core.do(TakePiece(call.link, call.channel, file, fleet, sender.name, folder,
                          bounds.at_once, at, piece))  # fmt: skip
        return LATER

    def _grant(self, of: str) -> Given:
        """The grant by which that fleet may leave files here. Raises: Denied."""
        core = self._core
        found = [
            each
            for each in core.roster.asking(of, VERB)
            if each.grant.object in (core.machine, "*") and core.now.wall_ms <= each.grant.until_ms
        ]
        if found:
            return min(found, key=lambda each: (each.grant.object == "*", each.id))
        error = Denied(f"{core.roster.called(FLEET_GRANTEE + of)} may leave no file: no grant")
        if spend(self._denied[of], DENIALS_PER_HOUR_MAX, 3_600_000, core.now.boot_ms):
            self._orders.deny(FLEET_GRANTEE + of, VERB, core.name, error)
        raise error

    def _refusal(self, file: File, bounds: Bounds, at: int, piece: bytes) -> str:
        if file.size > bounds.bytes_max:
            return f"it has {file.size} bytes, and {bounds.bytes_max} are granted"
        end = max(at, 0) + len(piece)
        if not -1 <= at <= file.size or end > file.size or len(piece) > PEER_PIECE_BYTES_MAX:
            return "a piece is no part of what was signed"
        core, most = self._core, 4 * bounds.per_day
        rows = core.tables.rows(
            FILE, writer=core.machine, fleet=file.of, above={"t_ms": core.now.wall_ms - _DAY_MS},
            limit=most,
        )  # fmt: skip
        others = {(row.path, row.sha256) for row in rows} - {(file.path, file.sha256)}
        if len(others) >= bounds.per_day or len(rows) >= most:
            return f"{bounds.per_day} files a day are granted, and so many came"
        return ""

    def _taken(self, event: PieceTaken) -> None:
        core, piece, answers = self._core, event.piece, self._core.part(Answers)
        place = (piece.link, piece.channel)
        if piece.file.of not in core.roster.peers:
            answers.answer(*place, failure(Denied(REFUSED)))
            return
        if event.why:
            core.counters["peer-files-refused"] += 1
            said = Piece("refused", event.at, event.why)
        else:
            said = Piece("stored" if event.whole else "more", event.at)
        if event.fresh and core.settled:
            self._tell(piece)
        answers.answer(*place, {"ok": True, "value": said})

    def _tell(self, piece: TakePiece) -> None:
        """The person of this machine finds it in the inbox."""
        core = self._core
        core.counters["peer-files-taken"] += 1
        text = (
            f"{piece.sender}.{piece.fleet} (another fleet) left a file: "
            f"{piece.folder}/{piece.file.path}, {piece.file.size} bytes"
        )
        body = check_send(MessageSend([core.machine], text))
        core.append_body(body, scope=scope_to(core.machine))


def _decoded(data: str) -> bytes:
    try:
        return base64.b64decode(data, validate=True)
    except (binascii.Error, ValueError) as error:
        raise Malformed("a piece of a file is no base64") from error
