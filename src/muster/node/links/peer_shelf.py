"""Where files of other fleets come to lie: pieces on the disk, below the folder of a grant.

Rule 1: below that folder and nowhere else, through no link, nothing hidden and nothing of Muster's
own (`within.py`); what is there already is not replaced.
Rule 2: a file counts when all of it is there with the digest that was signed; until then it lies
beside its place, and the next try goes on with it.
Rule 3: so many of a fleet are on their way at once as its grant says, each for a while without a
piece; nothing of the disk is waited for in a step.
"""

import asyncio
import contextlib
import os
import pwd
from pathlib import Path
from typing import Final

from muster.errors import Conflict, Exhausted, Forged, MusterError, Refused
from muster.fleet.remote import FileCopied
from muster.limits import DISK_RESERVE_BYTES
from muster.node import event as ev
from muster.node.host import disk, within
from muster.node.runtime import Runtime
from muster.node.services.peer_files import INBOX, PieceTaken, TakePiece
from muster.node.services.remote import Remote
from muster.printable import visible

# A file of which no piece came for so long is let go; what is there of it stays.
_IDLE_S: Final = 60.0
_MODE: Final = 0o600

Key = tuple[str, str, str, str]


class _Coming:
    """A file on its way: the part of it that is there, and who is at it."""

    def __init__(self, piece: TakePiece, shut: str) -> None:
        self.turn, self.closed = asyncio.Lock(), False
        self.timer: asyncio.TimerHandle | None = None
        file, person = piece.file, os.environ.get("HOME") or pwd.getpwuid(os.getuid()).pw_dir
        if piece.folder.startswith(f"~/{INBOX}/"):
            # The one folder that is made: whoever granted without naming one expects it.
            os.makedirs(os.path.join(person, piece.folder[2:]), 0o700, exist_ok=True)
        with contextlib.ExitStack() as stack:
            self.spot = stack.enter_context(
                within.spot(piece.folder, file.path, person=person, shut=[shut], make=True)
            )
            self.there = within.is_there(self.spot, file.size, file.sha256)
            if not self.there and within.is_taken(self.spot):
                raise Refused("a file of that name is there, and another fleet replaces none")
            self.part = stack.enter_context(within.Part(self.spot, file.sha256))
            if self.there:
                self.part.discard()
            else:
                self.part.resume(file.size)
            self.stack = stack.pop_all()

    def close(self) -> None:
        self.closed = True
        if self.timer is not None:
            self.timer.cancel()
        self.stack.close()


class PeerShelf:
    """See the rules at the top of this file."""

    def __init__(self, daemon: Runtime) -> None:
        self._daemon = daemon
        self._coming: dict[Key, _Coming] = {}
        self._opening: set[Key] = set()

    @ev.effect(TakePiece)
    def on_take_piece(self, piece: TakePiece) -> None:
        """A piece came."""
        self._daemon.supervisor.run("peer-file", self.take(piece))

    async def take(self, piece: TakePiece) -> None:
        """Put it there, and say how far the file is."""
        file = piece.file
        key = (file.of, piece.folder, file.path, file.sha256)
        try:
            coming = await self._opened(key, piece)
            async with coming.turn:
                told = await self._at_it(key, coming, piece)
        except (MusterError, OSError) as error:
            why = str(error) if isinstance(error, MusterError) else "its disk fails"
            told = PieceTaken(piece, 0, why=visible(why)[:200])
        if told.fresh:
            shown = visible(f"{piece.folder}/{file.path}")[:1000]
            said = FileCopied(shown, file.sha256, file.size, "written")
            self._daemon.post(Remote(said, "muster", ()))
        self._daemon.post(told)

    async def _at_it(self, key: Key, coming: _Coming, piece: TakePiece) -> PieceTaken:
        """Put the piece there, in its turn. Raises: as `_put`; Conflict where it was let go."""
        if coming.closed:
            raise Conflict("it was let go meanwhile: send it again")
        try:
            told = await asyncio.to_thread(self._put, coming, piece)
        except (MusterError, OSError):
            self._close(key)
            raise
        if told.whole:
            self._close(key)
        return told

    async def _opened(self, key: Key, piece: TakePiece) -> _Coming:
        """The file on its way, from this piece on for a while. Raises: Conflict, Refused."""
        found = self._coming.get(key)
        if found is None:
            held = sum(each[0] == key[0] for each in (*self._coming, *self._opening))
            if key in self._opening or held >= piece.at_once:
                raise Conflict(f"{piece.at_once} at once are granted, and so many are on their way")
            # Opening hashes what is there: of few files at once, and a step waits for none of it.
            self._opening.add(key)
            try:
                found = await asyncio.to_thread(_Coming, piece, str(self._daemon.home.path))
            finally:
                self._opening.remove(key)
            self._coming[key] = found
        if found.timer is not None:
            found.timer.cancel()
        found.timer = asyncio.get_running_loop().call_later(_IDLE_S, self._idle, key)
        return found

    def _idle(self, key: Key) -> None:
        found = self._coming.get(key)
        if found is not None and not found.turn.locked():
            self._close(key)

    def _close(self, key: Key) -> None:
        if (found := self._coming.pop(key, None)) is not None:
            found.close()

    @staticmethod
    def _put(coming: _Coming, piece: TakePiece) -> PieceTaken:
        """Raises: Exhausted, Forged, Refused."""
        file, part = piece.file, coming.part
        if coming.there:
            return PieceTaken(piece, file.size, whole=True)
        free = disk.free_bytes(Path(coming.spot.path).parent)
        if file.size - part.size > free - DISK_RESERVE_BYTES:
            raise Exhausted("it does not fit on the disk there")
        if piece.at == part.size:
            part.write(piece.data)
        if part.size < file.size:
            # A piece from elsewhere changes nothing: whoever sends hears where it goes on.
            return PieceTaken(piece, part.size)
        if part.digest != file.sha256:
            part.discard()
            raise Forged("what came is not what was signed, and was removed: send it again")
        part.place(_MODE, new=True)
        return PieceTaken(piece, part.size, whole=True, fresh=True)
