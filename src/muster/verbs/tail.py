"""`muster tail`: what this machine takes in, its own entries and others', as it is committed.

Rule: whoever is slow, or comes back, misses no entry: each answer says from which number on it is
read again. Bodies are read by the verbs that show them, under their own authority.
"""

import asyncio
from fnmatch import fnmatchcase
from typing import Annotated

from msgspec import Meta, Struct

from muster.errors import Conflict
from muster.limits import INT_ABS_MAX, KIND_CHARS_MAX, TAIL_ENTRIES_MAX
from muster.node.services.tail import Arrival, Tail
from muster.node.verb import Line
from muster.verbs.declaration import Daemon, Perform, Request, Stream, opt, verb


class Follow(Request, frozen=True):
    since: Annotated[
        Annotated[int, Meta(ge=0, le=INT_ABS_MAX)] | None,
        opt("begin at this number, which an earlier answer told (see --json), and not now"),
    ] = None
    kind: Annotated[
        str, opt("only what is called so, as 'task.*' or 'link.*'", max_length=KIND_CHARS_MAX)
    ] = "*"


class Came(Struct, frozen=True):
    """What came since the last answer, and the `number` from which on the next is read."""

    came: list[Arrival]
    number: int


@verb(
    "tail", auth="local", runs="stream", group="What is true", followed=True, several="tells",
    harmless=True, rows="came",
    says=(
        Line("{t_ms:clock}  {machine}  {kind:bold}  {id:id}", "id"),
        Line("{t_ms:clock}  {machine}  {kind:bold}", "!id"),
    ),
)  # fmt: skip
async def tail(daemon: Daemon, call: Perform, stream: Stream, ask: Follow) -> Came:
    """What this machine takes in, as it happens, until Ctrl-C.

    Every entry that is committed here, whoever wrote it: its kind, its id, its writer, when it was
    written; and each link that comes up, or was the last to a machine. Links that changed
    meanwhile are not told to whoever comes back; `muster machines` says which are there.

        muster tail --kind 'task.*'
        muster tail --since 1200 --json
    """
    core, part = daemon.core, daemon.core.part(Tail)
    name_of = core.membership.name_of
    number = part.number if ask.since is None else ask.since
    if number > part.number:
        raise Conflict(
            f"this machine has come to number {part.number} only: {number} is of another one, or "
            "of a past that it lost; look at everything anew, and follow without --since"
        )

    part.followers.append(stream.tell_later)
    try:
        await stream.tell(Came([], number))
        while True:
            entries, number = core.log.admitted_since(number, part.number, TAIL_ENTRIES_MAX)
            came = [
                Arrival(kind, each.id.hex(), name_of(each.stream.machine), each.header.t[0])
                for each in entries
                if fnmatchcase(kind := each.header.kind, ask.kind)
            ]
            if came or number < part.number:
                await stream.tell(Came(came, number))
            if number < part.number:
                # For a quick reader `tell` does not wait; others have their turn all the same.
                await asyncio.sleep(0)
            elif (link := await stream.hear()) and fnmatchcase(link.kind, ask.kind):
                await stream.tell(Came([link], number))
    finally:
        part.followers.remove(stream.tell_later)
