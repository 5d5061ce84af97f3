"""Files that a person elsewhere reads and writes here, by an order: over a stream, with a digest.

Rule 1: the order names the folder, the path is below it, and `within.py` sees to that.
Rule 2: a file counts when all of it is there and has the digest that was ordered; until then it
lies beside its place, and the next try goes on with it.
Rule 3: what was copied is an entry, with path, size and digest, never what was in it.
"""

import asyncio
import contextlib
import json
import os
import pwd
from collections.abc import Iterator
from hashlib import sha256
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from muster import umask
from muster.channel import strand
from muster.errors import Conflict, Exhausted, Forged, MusterError, Refused
from muster.fleet.remote import FileCopied, Way
from muster.limits import DISK_RESERVE_BYTES
from muster.node.host import disk, within
from muster.node.host.held import held
from muster.node.services.remote import Remote
from muster.printable import visible

if TYPE_CHECKING:
    from muster.node import event as ev
    from muster.node.call.streams import Served
    from muster.node.runtime import Runtime

_READ_BYTES: Final = 256 * 1024


class Copy:
    """One file on its way, for whoever ordered it."""

    def __init__(
        self, daemon: "Runtime", call: "ev.Perform", stream: "Served", place: str, path: str
    ) -> None:
        self._daemon, self._call, self._stream = daemon, call, stream
        # The router has compared the machine before the colon.
        self._root, self._path = place.partition(":")[2], path

    @contextlib.contextmanager
    def _spot(
        self, way: Way, *, make: bool = False, itself: bool = False
    ) -> Iterator[tuple[within.Spot, dict[str, Any]]]:
        """Where it is; what is filled in of it is written down at the end, however it ends."""
        done: dict[str, Any] = {"size": 0, "sha256": sha256().hexdigest()}
        why = "whoever asked left, or this machine stopped"
        home = os.environ.get("HOME") or pwd.getpwuid(os.getuid()).pw_dir
        shut = [str(self._daemon.home.path)]
        try:
            with within.spot(
                self._root,
                self._path,
                person=home,
                shut=shut,
                follow=way == "read",
                make=make,
                itself=itself,
            ) as found:
                yield found, done
            why = ""
        except MusterError as error:
            why = visible(str(error))[:200]
            raise
        finally:
            shown = visible(f"{self._root.rstrip('/')}/{self._path}")[:1000]
            actor = f"op:{self._daemon.core.roster.speaker(self._call.operator)}"
            said = FileCopied(shown, done["sha256"], done["size"], way, why)
            self._daemon.post(Remote(said, actor, self._call.cites))

    async def read(self, at: int) -> None:
        """Send it from byte `at` on. Raises: Conflict where it is shorter, or changes meanwhile."""
        with self._spot("read") as (spot, done), contextlib.ExitStack() as stack:
            file = within.open_file(spot)
            stack.callback(os.close, file)
            before = os.fstat(file)
            if at > before.st_size:
                raise Conflict(f"{visible(spot.path)[:200]} is shorter than what came of it before")
            await self._stream.tell({"size": before.st_size, "mode": before.st_mode & 0o777})
            self._stream.accept()
            known = sha256()
            while piece := await asyncio.to_thread(os.read, file, _READ_BYTES):
                known.update(piece)
                # What is there already is only hashed.
                fresh = piece[max(0, at - done["size"]) :]
                done |= {"size": done["size"] + len(piece), "sha256": known.hexdigest()}
                await self._send(fresh)
            after = os.fstat(file)
            if (after.st_mtime_ns, after.st_size) != (before.st_mtime_ns, before.st_size):
                raise Conflict(
                    f"{visible(spot.path)[:200]} changed while it was read: copy it again"
                )
            await self._stream.send(strand.pack(strand.END, json.dumps(done).encode()))

    async def _there(self, done: dict[str, Any], size: int, digest: str) -> None:
        await self._stream.tell({"at": size})
        self._stream.accept()
        pieces = strand.Splitter()
        while data := await self._stream.receive():
            if [*pieces.feed(data)] != [(strand.INPUT, b"")]:
                raise Refused("more came than was ordered, or something else")
            break
        done |= {"size": size, "sha256": digest}
        await self._stream.send(strand.pack(strand.END, json.dumps(done).encode()))

    async def names(self) -> None:
        """Send what the folder holds, a JSON object a line. Raises: as `held`."""
        with self._spot("read", itself=True) as (spot, done):
            # A walk of a slow disk holds up nobody, and no descriptor outlives it.
            found = await asyncio.to_thread(self._held, spot)
            await self._stream.tell({"size": len(found), "mode": 0})
            self._stream.accept()
            known = sha256(found)
            done |= {"size": len(found), "sha256": known.hexdigest()}
            await self._send(found)
            await self._stream.send(strand.pack(strand.END, json.dumps(done).encode()))

    def _held(self, spot: within.Spot) -> bytes:
        lines = [json.dumps(each._asdict()) for each in held(spot, [str(self._daemon.home.path)])]
        return "\n".join(lines).encode()

    async def _send(self, data: bytes) -> None:
        left = memoryview(data)
        while left:
            piece = bytes(left[: strand.PIECE_BYTES_MAX])
            await self._stream.send(strand.pack(strand.OUTPUT, piece))
            left = left[len(piece) :]

    async def write(self, size: int, digest: str, mode: int, *, make: bool) -> None:
        """Take it in. Raises: Forged where it is not what was ordered, Exhausted, Refused."""
        with self._spot("written", make=make) as (spot, done), within.Part(spot, digest) as part:
            have = await asyncio.to_thread(part.resume, size)
            if make and await asyncio.to_thread(within.is_there, spot, size, digest):
                # Of a folder that was copied before, this one is whole: nothing of it is to come.
                part.discard()
                await self._there(done, size, digest)
                return
            free = disk.free_bytes(Path(spot.path).parent)
            if size - have > free - DISK_RESERVE_BYTES:
                raise Exhausted(
                    f"{size - have} bytes do not fit on the disk there: free some space"
                )
            await self._stream.tell({"at": have})
            self._stream.accept()
            ended = False
            pieces = strand.Splitter()
            while not ended and (data := await self._stream.receive()):
                for name, piece in pieces.feed(data):
                    ended = ended or not piece
                    if name != strand.INPUT or part.size + len(piece) > size:
                        raise Refused("more came than was ordered, or something else")
                    await asyncio.to_thread(part.write, piece)
            done |= {"size": part.size, "sha256": part.digest}
            if not ended:
                raise Refused("it ended before all of it was there: give the same command again")
            if (part.size, part.digest) != (size, digest):
                part.discard()
                raise Forged("what came is not what was ordered, and was removed: copy it again")
            await asyncio.to_thread(part.place, mode & ~umask.of_attempts())
            await self._stream.send(strand.pack(strand.END, json.dumps(done).encode()))
