"""Messages as this machine holds them: by id, the newest of some streams, and what came of each.

Rule: a question costs what it shows, not what there is: rows are read by their key, and only a
bounded number is looked through.
"""

import re
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any, Final

from muster.errors import NotFound, Refused
from muster.limits import READINGS_OF_MESSAGE_MAX
from muster.log.stream import MachineId, StreamName
from muster.message.fold import MESSAGE, READING, Message, ReadingRow, message_of
from muster.message.state import Peer, meant, recipients
from muster.node.services.speakers import Speakers

if TYPE_CHECKING:
    from muster.node.core import Core

# So many of the newest messages of everybody are looked through for those of one reader.
_LOOKED_MAX: Final = 20_000
# Entries of any kind that are looked at for one beginning: enough to know that it is not enough.
_ALIKE_MAX: Final = 1_000
_HEX: Final = re.compile("[0-9a-f]{1,64}")


def find(core: "Core", text: str) -> Message:
    """The one message whose id begins like this. Raises: NotFound, Refused."""
    found: list[Message] = []
    # What somebody typed may be no id at all.
    alike = core.log.entries_like(text) if _HEX.fullmatch(text) else iter(())
    for looked, entry in enumerate(alike, 1):
        if entry.header.kind == "message.send":
            there = core.tables.row(MESSAGE, entry.stream, entry.header.seq) is not None
            found += [message_of(entry)] if there else []
        if len(found) > 1 or looked > _ALIKE_MAX:
            raise Refused(f"more than one message begins with {text[:40]!r}; give more of its id")
    if not found:
        raise NotFound(f"no message begins with {text[:40]!r}; `muster inbox --all` lists them")
    return found[0]


def newest_for(
    core: "Core",
    agent: str,
    before: Message | None,
    limit: int,
    wanted: Callable[[str], bool],
) -> list[Message]:
    """The newest messages for a reader, or the newest older than one; oldest first.

    `wanted` says whether what is for one of its live sessions counts, "" for none.
    """
    reader, found, speaks = me(core), [], Speakers(core).speaks
    below: dict[str, Any] = {}
    if before is not None:
        below = {"at_ms": before.at_ms, "id": before.id}
    rows = core.tables.rows(MESSAGE, order=("-at_ms", "-id"), limit=_LOOKED_MAX, below=below)
    for row in rows:
        for_it = is_for(agent, row.recipients, row.stream, reader)
        if for_it and wanted(row.session) and speaks(row.stream, row.seq):
            found.append(message_of(core.log.entry_at(row.stream, row.seq)))
            if len(found) == limit:
                break
    return found[::-1]


def newest_in(core: "Core", wanted: Callable[[StreamName], bool], limit: int) -> list[Message]:
    """The newest messages of these streams, oldest first.

    Each stream's newest for itself: whoever writes much does not crowd out what others said.
    """
    speaks = Speakers(core).speaks
    places = [
        (row.at_ms, row.id, stream, row.seq)
        for stream in core.log.streams()
        if wanted(stream)
        for row in core.tables.rows(MESSAGE, stream=stream, order=("-seq",), limit=limit)
        if speaks(stream, row.seq)
    ]
    newest = sorted(places)[-limit:]
    return [message_of(core.log.entry_at(stream, seq)) for _, _, stream, seq in newest]


def is_for(agent: str, to: str, stream: StreamName, machine: Peer) -> bool:
    """Whether a message to these addresses is for an agent of a machine; "" for any reader."""
    found = meant(to.split("\n"), stream.machine, machine)
    return bool(found) and (not agent or bool(found & {"", agent}))


def readings(core: "Core", message: bytes) -> list[ReadingRow]:
    """What readers said of a message."""
    return core.tables.rows_of_each(READING, READINGS_OF_MESSAGE_MAX, ("actor",), message=message)


def held_size(core: "Core", stream: StreamName) -> Callable[[MachineId], int]:
    """How much of a stream each machine has receipted."""
    sizes = {c.machine: c.size for c in core.log.cosigns(stream) if c.strength == "held"}
    return lambda machine: sizes.get(machine, 0)


def peers(core: "Core", stream: StreamName) -> list[Peer]:
    """The machines that a message in this stream can be for: those that may read it."""
    return [
        Peer(machine, record.roles)
        for machine, record in core.roster.machines.items()
        if core.membership.may_hold(stream, machine)
    ]


def receivers(core: "Core", stream: StreamName, to: Sequence[str]) -> set[MachineId]:
    """The machines that a message in this stream is for."""
    return {p.machine for p in peers(core, stream) if meant(to, stream.machine, p)}


def require_for(core: "Core", message: Message) -> None:
    """Raises Refused where a message is not for this machine: nobody counts what it says of it."""
    if meant(message.to, message.stream.machine, me(core)):
        return
    known = core.roster.machines
    whom = {m for m, _ in recipients(message, peers(core, message.stream)) if m in known}
    names = sorted(core.membership.name_of(machine) for machine in whom)
    if not names:
        raise Refused("that message is for no machine that is in the fleet; nobody acts on it")
    went = names[0] if len(names) == 1 else f"{', '.join(names[:-1])} and {names[-1]}"
    raise Refused(
        f"that message is not for {core.name}, and only who got it can act on it; it went to "
        f"{went}: `muster ack {message.id.hex()[:12]} --on {names[0]}`"
    )


def me(core: "Core") -> Peer:
    """This machine, as one of those that a message is for."""
    record = core.roster.machines.get(core.machine)
    return Peer(core.machine, record.roles if record is not None else ())
