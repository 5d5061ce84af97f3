"""Verbs about files between fleets: leave one with a machine of another fleet, and take one."""

from typing import Annotated

from msgspec import Meta

from muster.fleet.peer_file import PATH_CHARS_MAX
from muster.limits import INT_ABS_MAX
from muster.node.links import peer_sender
from muster.node.services.peer_files import PeerFiles, Piece
from muster.node.verb import Later
from muster.verbs.declaration import Call, Core, Daemon, Perform, Request, data, pos, verb


class Put(Request, frozen=True):
    to: Annotated[str, pos("machine.fleet")]
    path: Annotated[Annotated[str, Meta(max_length=PATH_CHARS_MAX)], data()]
    source: Annotated[Annotated[str, Meta(max_length=4096)], data()]


@verb("peer.put", auth="order", runs="async", object="to", target="here", followed=True)
async def put(daemon: Daemon, call: Perform, ask: Put) -> peer_sender.Sent:
    """Leave a file of this machine with a machine of another fleet, where that grants it."""
    return await peer_sender.send(daemon, daemon.foreign.dial, ask.to, ask.path, ask.source)


class Take(Request, frozen=True):
    letter: Annotated[str, data()] = ""
    record: Annotated[str, data()] = ""
    at: Annotated[Annotated[int, Meta(ge=-1, le=INT_ABS_MAX)], data()] = -1
    piece: Annotated[str, data()] = ""


@verb("peer.file", auth="foreign")
def file(core: Core, call: Call, ask: Take) -> Piece | Later:
    """Take a piece of a file of another fleet, or say from which byte on it goes on."""
    return core.part(PeerFiles).take(call, ask.letter, ask.record, ask.at, ask.piece)
