"""Blobs over mailboxes: asked for a window at a time, and left in pieces.

Rule 1: who may have a blob is decided as over a link (node/attempts/blob_transfer.py), anew for
each question. A question counts where its parcel was written since the start of this process. Every
no reads the same.
Rule 2: one question is answered with so many pieces and no more, and the next one is asked when
they came. A newer question takes the place of the one before it: nothing piles up for who is away.
Rule 3: by one mailbox comes one blob at a time. A piece that nobody waits for there, or that is not
as long as it has to be, is dropped. All of it counts by its hash alone.
"""

import asyncio
import struct
from collections import defaultdict, deque
from collections.abc import Callable, Mapping
from typing import Final, NamedTuple

from muster.errors import MusterError, NotFound, Unreachable
from muster.fleet.parcel import BLOB_PART, BLOB_WANT, Heard, Item
from muster.limits import (
    BLOB_BYTES_MAX,
    BLOB_PART_BYTES_MAX,
    BLOB_PARTS_AHEAD_MAX,
    BLOB_WANTS_PER_MINUTE_MAX,
)
from muster.log.entry import EntryId
from muster.log.pace import Pace
from muster.log.stream import MachineId
from muster.node.core import Core
from muster.node.counter import DECLARED, spend
from muster.node.links.parcel_box import ParcelBox, Shelf
from muster.node.runtime import Runtime
from muster.node.services.parcels import AsideCame, Parcels
from muster.store.blobs import Blobs, Incoming
from muster.task.artefact import Artefact

DECLARED[__name__] = {
    "blob-wants-malformed": "A parcel asks for a blob in words that are none.",
    "blob-wants-too-often": "A machine asked for blobs in parcels, and was not answered.",
    "blob-parts-unasked": "A parcel has a piece of a blob that nobody here waits for.",
}

Told = Callable[[Artefact, int], None]
# Raises: Denied, NotFound.
Check = Callable[[Core, Blobs, str, EntryId, str], None]

# The entry that names it, its sha256, and from which byte on.
_WANT: Final = struct.Struct(">32s32sQ")
# Its sha256, and where in it the bytes are that follow; none of them is a no.
_PART: Final = struct.Struct(">32sQ")
_MINUTE_MS: Final = 60_000
# Chosen arbitrarily: how long nothing may come before somebody else is asked, besides two tries:
# of a machine that was never heard, and of one that comes by, besides the time between its looks.
ABSENT_S: Final = 30.0
SILENT_S: Final = 120.0
# What the place does not take within this is not waited for: it is asked for again.
_UNTAKEN_S: Final = 600.0


class _Want(NamedTuple):
    entry: EntryId
    sha256: str
    at: int


class _Coming:
    """A blob that is waited for; pieces may come in any order."""

    def __init__(self, sha256: str, at: int, size: int, ahead: int) -> None:
        self.sha256, self._first, self._size, self._ahead = sha256, at, size, ahead
        self._next = at
        self._pieces: dict[int, bytes] = {}
        self.moved = asyncio.Event()
        self.refused = False

    def put(self, at: int, piece: bytes) -> bool:
        """Whether it is one that is waited for."""
        fits = len(piece) == min(BLOB_PART_BYTES_MAX, self._size - at)
        in_line = not (at - self._first) % BLOB_PART_BYTES_MAX
        due = self._next <= at < min(self._size, self._next + self._ahead)
        if fits and in_line and due and at not in self._pieces:
            self._pieces[at] = piece
            self.moved.set()
            return True
        return False

    def take(self) -> bytes | None:
        """The next piece, None while it is not here."""
        piece = self._pieces.pop(self._next, None)
        if piece is not None:
            self._next += len(piece)
        return piece


class BlobParcels:
    """See the rules at the top of this file."""

    def __init__(
        self,
        daemon: Runtime,
        places: Mapping[str, Shelf],
        box: Callable[[int], ParcelBox | None],
        check: Check,
    ) -> None:
        """`check` says whether a machine may have a blob that is here."""
        self._daemon, self._core, self._places, self._box = daemon, daemon.core, places, box
        self._check_right = check
        # By the number of the mailbox: whose turn it is, what comes, and what is asked of us.
        self._turns = defaultdict[int, asyncio.Lock](asyncio.Lock)
        self._coming: dict[int, _Coming] = {}
        self._wants: dict[int, _Want] = {}
        self._serving: set[int] = set()
        self._spent = defaultdict[int, deque[int]](deque)

    # --- asking ---------------------------------------------------------------------------

    def boxes(self, author: str) -> list[tuple[MachineId, int]]:
        """The mailboxes of machines that may have a blob of this author, in the order to ask.

        The author itself, and of the others, hubs first, those that come by.
        """
        core, parcels = self._core, self._core.part(Parcels)
        hubs = set(core.leads())
        found = []
        for machine in core.roster.machines:
            for place in self._places.values():
                comes, number = self._comes_by(place, machine), parcels.number(place.name, machine)
                if number is not None and (comes or machine == author):
                    order = (machine != author, not comes, machine not in hubs)
                    found.append((order, MachineId(machine), number))
        return [(machine, number) for _, machine, number in sorted(found, key=lambda f: f[:1])]

    def _comes_by(self, place: Shelf, machine: str) -> bool:
        return self._core.part(Parcels).heard(machine) != Heard() and machine in place.met

    async def bring(
        self, number: int, entry: EntryId, artefact: Artefact, told: Told, blob: Incoming
    ) -> None:
        """Write the rest of a blob, as it comes by this mailbox.

        Raises: NotFound where the machine says no, Unreachable where it says nothing; Broken.
        """
        async with self._turns[number]:
            place, peer = self._core.part(Parcels).box(number)
            if not place:
                raise NotFound("the machine is not in the fleet any more")
            pace, comes = self._places[place].pace, self._comes_by(self._places[place], peer)
            coming = _Coming(artefact.sha256, blob.size, artefact.size, _ahead(pace))
            self._coming[number] = coming
            try:
                await self._fill(number, entry, artefact, told, blob, coming, pace, comes)
            finally:
                del self._coming[number]

    async def _fill(  # noqa: PLR0917 - what comes, and whence
        self,
        number: int,
        entry: EntryId,
        artefact: Artefact,
        told: Told,
        blob: Incoming,
        coming: _Coming,
        pace: Pace,
        comes: bool,
    ) -> None:
        now_s = asyncio.get_running_loop().time
        tries_s = 2 * pace.retry_ms / 1000
        silent_s = tries_s + pace.look_ms / 1000 + SILENT_S
        give_up_s = now_s() + (silent_s if comes else tries_s + ABSENT_S)
        asked_to, again_s, wait_s = blob.size, 0.0, pace.retry_ms / 1000
        while blob.size < artefact.size:
            if blob.size >= asked_to or now_s() >= again_s:
                if blob.size < asked_to:
                    wait_s = min(2 * wait_s, pace.retry_ms_max / 1000)
                self._ask(number, _Want(entry, artefact.sha256, blob.size))
                asked_to, again_s = blob.size + _ahead(pace), now_s() + wait_s
            try:
                async with asyncio.timeout(min(again_s, give_up_s) - now_s()):
                    await coming.moved.wait()
            except TimeoutError:
                if now_s() >= give_up_s:
                    raise Unreachable("nothing of the blob came by the mailbox") from None
                continue
            coming.moved.clear()
            while (piece := coming.take()) is not None:
                blob.write(piece)
                told(artefact, blob.size)
                wait_s = pace.retry_ms / 1000
                again_s = now_s() + wait_s
                give_up_s = now_s() + silent_s
            if coming.refused:
                raise NotFound("the machine says that it has no such blob for this one")

    def _ask(self, number: int, want: _Want) -> None:
        box = self._box(number)
        if box is not None:
            raw = _WANT.pack(want.entry, bytes.fromhex(want.sha256), want.at)
            box.put_aside(Item(BLOB_WANT, raw))

    # --- what comes -------------------------------------------------------------------------

    def came(self, aside: AsideCame) -> None:
        """A question or a piece came, and its writer is proven."""
        if aside.item.type == BLOB_WANT:
            self._asked(aside.box, aside.item.body)
        elif not self._is_waited_for(aside):
            self._core.counters["blob-parts-unasked"] += 1

    def _is_waited_for(self, aside: AsideCame) -> bool:
        coming, body = self._coming.get(aside.box), aside.item.body
        if coming is None or len(body) < _PART.size:
            return False
        sha256, at = _PART.unpack_from(body)
        if sha256.hex() != coming.sha256:
            return False
        if len(body) > _PART.size:
            return coming.put(at, body[_PART.size :])
        # A place may give an old no again.
        coming.refused = coming.refused or aside.newer
        coming.moved.set()
        return True

    # --- answering ----------------------------------------------------------------------------

    def _asked(self, number: int, raw: bytes) -> None:
        entry, sha256, at = _WANT.unpack(raw) if len(raw) == _WANT.size else (b"", b"", -1)
        if not 0 <= at <= BLOB_BYTES_MAX:
            self._core.counters["blob-wants-malformed"] += 1
            return
        if not spend(
            self._spent[number], BLOB_WANTS_PER_MINUTE_MAX, _MINUTE_MS, self._core.now.boot_ms
        ):
            self._core.counters["blob-wants-too-often"] += 1
            return
        self._wants[number] = _Want(EntryId(entry), sha256.hex(), at)
        if number not in self._serving:
            self._serving.add(number)
            self._daemon.supervisor.run("blob-parcels", self._serve(number))

    async def _serve(self, number: int) -> None:
        try:
            while (want := self._wants.pop(number, None)) is not None:
                box = self._box(number)
                if box is None:
                    return
                try:
                    async with asyncio.timeout(_UNTAKEN_S):
                        await self._answer(box, want)
                except TimeoutError:
                    # Whoever wants it asks again.
                    self._wants.pop(number, None)
        finally:
            self._serving.discard(number)

    async def _answer(self, box: ParcelBox, want: _Want) -> None:
        """Leave one window of a blob, or the one no that there is."""
        sha256, at = bytes.fromhex(want.sha256), want.at
        blobs = self._daemon.machine.blobs
        end = at + _ahead(box.place.pace)
        try:
            await self._check(box.peer, want)
            while at < end and box.number not in self._wants:
                piece = await asyncio.to_thread(blobs.piece, want.sha256, at, BLOB_PART_BYTES_MAX)
                if not piece:
                    break
                await box.put_part(Item(BLOB_PART, _PART.pack(sha256, at) + piece))
                at += len(piece)
        except MusterError:
            at = want.at
        if at == want.at and box.number not in self._wants:
            await box.put_part(Item(BLOB_PART, _PART.pack(sha256, want.at)))

    async def _check(self, peer: str, want: _Want) -> None:
        """Raises: Denied, NotFound; Broken."""
        blobs = self._daemon.machine.blobs
        self._check_right(self._core, blobs, peer, want.entry, want.sha256)
        # Of all that follows nothing is checked but by whoever gets it.
        if not want.at and not await asyncio.to_thread(blobs.intact, want.sha256):
            raise NotFound("this machine has no such blob any more")


def _ahead(pace: Pace) -> int:
    """So many bytes are left for one question."""
    parts = min(BLOB_PARTS_AHEAD_MAX, pace.flight_bytes // BLOB_PART_BYTES_MAX)
    return parts * BLOB_PART_BYTES_MAX
