"""A file on its way to a machine of another fleet: its pieces, one after the other.

Rule 1: what leaves is what was hashed and signed; where it changes meanwhile the far end says so.
Rule 2: each piece is answered before the next one leaves, and says where the far end goes on: the
same order given again goes on where this one ended.
Rule 3: so slow that no fleet's bound on calls is reached.
"""

import asyncio
import base64
import os
import stat
from collections.abc import Awaitable, Callable
from hashlib import sha256
from typing import TYPE_CHECKING, Any, Final

import msgspec

from muster.channel.base import Link
from muster.channel.frame import Type, decode, encode
from muster.errors import Denied, Malformed, NotFound, Refused, Unreachable, unable
from muster.fleet.peer import split_place
from muster.fleet.peer_file import File, check_path, sign_file
from muster.limits import PEER_LETTER_BYTES_MAX, PEER_PIECE_BYTES_MAX
from muster.log import canon
from muster.node.host import within
from muster.node.link import Said
from muster.node.services.peer_files import Piece

if TYPE_CHECKING:
    from muster.node.runtime import Runtime

VERB: Final = "peer.file"
# A link to a door of a fleet, by the ids of both.
Dial = Callable[[tuple[str, str]], Awaitable[Link]]
_READ_BYTES: Final = 1024 * 1024
_ANSWER_S: Final = 60.0
# Of so many calls none waits; after them one leaves each time that so long is over.
_FREE_CALLS: Final = 20
_PACE_S: Final = 0.65


class Sent(msgspec.Struct, frozen=True):
    """It is there: from which byte on this time, its size and its digest."""

    path: str
    at: int
    size: int
    sha256: str


async def send(daemon: "Runtime", dial: Dial, to: str, path: str, source: str) -> Sent:
    """Leave a file with a machine of another fleet.

    Raises: Malformed, NotFound, Denied, Refused, Unreachable.
    """
    core = daemon.core
    agent, machine, name = split_place(to)
    fleet, peer = core.roster.peer(name)
    door = next((each for each in peer.card.doors if each.name == machine), None)
    if agent or door is None:
        names = ", ".join(f"{each.name}.{name}" for each in peer.card.doors)
        raise NotFound(f"a file goes to a machine that the card of {name} names: {names}")
    check_path(path)
    file = await asyncio.to_thread(_opened, source, str(daemon.home.path))
    try:
        size, digest = await asyncio.to_thread(_hashed, file)
        signed = File(
            fleet=fleet, by=core.machine, door=door.machine, issued_ms=core.now.wall_ms,
            nonce=os.urandom(16).hex(), of=core.membership.fleet, path=path, sha256=digest,
            size=size,
        )  # fmt: skip
        raw = sign_file(core.membership.signer("statement"), signed).decode()
        link = await dial((fleet, door.machine))
        try:
            at = await _pieces(daemon, link, raw, file, size, f"{machine}.{name}")
        finally:
            await link.close("done")
    finally:
        os.close(file)
    return Sent(f"{to}:{path}", at, size, digest)


def _opened(source: str, home: str) -> int:
    """A descriptor of the plain file that a person named. Raises: NotFound, Refused, Denied."""
    if within.is_in(os.path.realpath(source), os.path.realpath(home)):
        raise Denied("it is in Muster's own home, which holds its keys: it is never copied")
    try:
        found = os.open(source, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
    except FileNotFoundError as error:
        raise NotFound(f"there is no {source[:200]} here") from error
    except OSError as error:
        raise unable(f"{source[:200]} is not to be read: {error.strerror}", error) from error
    if not stat.S_ISREG(os.fstat(found).st_mode):
        os.close(found)
        raise Refused(f"{source[:200]} is no plain file: folders, pipes and devices are not copied")
    return found


def _hashed(file: int) -> tuple[int, str]:
    known, size = sha256(), 0
    while piece := os.read(file, _READ_BYTES):
        known.update(piece)
        size += len(piece)
    return size, known.hexdigest()


async def _pieces(  # noqa: PLR0917 - what is sent, over what, to whom
    daemon: "Runtime", link: Link, raw: str, file: int, size: int, to: str
) -> int:
    """From where it goes on to its end; where that was."""
    core, number, began, at, data = daemon.core, 0, -1, -1, b""
    record = core.roster.machine(core.machine).raw.decode()
    while True:
        number += 1
        if number > _FREE_CALLS:
            await asyncio.sleep(_PACE_S)
        args: dict[str, Any] = {"letter": raw, "record": record, "at": at}
        args["piece"] = base64.b64encode(data).decode()
        await link.send(encode(Type.CALL, number, canon.encode({"args": args, "verb": VERB})))
        said = await _answer(link, number, to)
        if said.state == "refused":
            raise Refused(f"{to} refuses the file: {said.why[:300]}")
        began = said.at if began < 0 else began
        if said.state == "stored":
            return min(began, size)
        if not at < said.at <= size:
            raise Refused(f"the file does not go on at {to}: give the same command again")
        at = said.at
        data = await asyncio.to_thread(os.pread, file, min(PEER_PIECE_BYTES_MAX, size - at), at)
        if not data:
            raise Refused("the file became shorter while it was sent: give the same command again")


async def _answer(link: Link, number: int, to: str) -> Piece:
    """Raises: Denied, Malformed, Unreachable."""
    try:
        async with asyncio.timeout(_ANSWER_S):
            type_, channel, payload = decode(await link.receive())
    except TimeoutError as error:
        raise Unreachable(f"{to} says nothing: give the same command again, it goes on") from error
    good = type_ is Type.REPLY and channel == number and payload[:1] == b"."
    if not good or len(payload) > PEER_LETTER_BYTES_MAX:
        raise Malformed(f"{to} answers what is no word about a file")
    try:
        said = msgspec.json.decode(payload[1:], type=Said)
        if said.ok:
            return msgspec.convert(said.value, Piece)
    except (msgspec.DecodeError, msgspec.ValidationError, RecursionError) as error:
        raise Malformed(f"{to} answers what is no word about a file") from error
    machine, _, fleet = to.partition(".")
    raise Denied(
        f"fleet {fleet} takes no file from here: an operator over there says `muster grant "
        f"fleet:NAME file --object {machine}`, with what this fleet is called there"
    )
