"""Verbs about what lies in context folders: who has what, how a file was, how a conflict ends.

Rule 1: what counts is judged as for the disk (node/services/context.py): what a machine wrote that
may not is shown, and is no version that could be taken.
Rule 2: whoever ends a conflict takes a version that is there: no text is made up here.
"""

import asyncio
import base64
from pathlib import Path
from typing import Annotated, Final

from msgspec import UNSET, Struct, UnsetType

from muster.context.fold import AT, VERSION, VersionRow
from muster.context.kinds import ContextPut
from muster.context.path import folded
from muster.context.state import File, Version, files
from muster.errors import Conflict, NotFound, Refused
from muster.limits import CONTEXT_OVER_MAX, REPLY_PART_BYTES
from muster.log.stream import FLEET, Scope
from muster.node.folders.mapping import Mapped
from muster.node.folders.state import State
from muster.node.services.context import Contexts, Place
from muster.node.services.heads import WRITE
from muster.node.services.messages import held_size
from muster.verbs.context import Named, here_folder
from muster.verbs.declaration import Call, Core, Daemon, Perform, Request, data, verb
from muster.verbs.task import moment

# Versions that are read before others have their turn.
_PAGE: Final = 200
# No entry has this number.
_EVERY_SEQ: Final = 2**62


class Folder(Struct, frozen=True, kw_only=True):
    """A context folder, how it is here, and who else has it.

    `machines` say of each other machine whether its *disk* has the same, and whether it holds what
    this one wrote; `left` are files that are not as others have them, each with the reason.
    """

    folder: str
    state: str
    files: int
    path: str
    machines: list[str]
    conflicts: int
    left: dict[str, str]
    doubtful: dict[str, str]
    waits: str | UnsetType = UNSET


@verb("context.status", auth="local", runs="async")
async def status(daemon: Daemon, call: Perform, ask: Named) -> list[Folder]:
    """The context folders of this machine: how they are here, and who has what."""
    here = daemon.folders.map.read()
    if ask.name:
        here_folder(daemon, ask.name)
    found = []
    for mapped in here.values():
        if ask.name in ("", mapped.name):
            found.append(_shown(daemon, mapped, daemon.folders.state(mapped.name)))
            await asyncio.sleep(0)
    return found


def _shown(daemon: Daemon, mapped: Mapped, state: State | None) -> Folder:
    path, waits = mapped.path, daemon.folders.unwatched(mapped.name) or UNSET
    machines = _machines(daemon.core, mapped.place)
    if state is None:
        return Folder(folder=mapped.name, state="beginning", files=0, path=path, machines=machines,
                      conflicts=0, left={}, doubtful={}, waits=waits)  # fmt: skip
    word = "failed" if state.failed else "conflict" if state.conflicts else "same"
    word = "partly" if word == "same" and state.left else word
    left = {**state.left, **({"": state.failed} if state.failed else {})}
    return Folder(
        folder=mapped.name, state=word, files=state.files, path=path, machines=machines,
        conflicts=len(state.conflicts), left=left, doubtful=dict(state.doubtful), waits=waits,
    )  # fmt: skip


def _machines(core: Core, place: Place) -> list[str]:
    """Who has the folder: of each machine what its disk has, and whether it holds our versions."""
    own = core.membership.own(place.scope)
    rows = [r for r in core.tables.rows(AT, folder=place.folder) if r.stream.scope == place.scope]
    newest = {r.stream.machine: r for r in sorted(rows, key=lambda r: r.at_ms)}
    ours = newest.get(core.machine)
    written = core.tables.rows(
        VERSION, writer=core.machine, folder=place.folder, order=("-seq",), limit=1
    )
    held = held_size(core, own)
    found = []
    for machine, record in sorted(core.roster.machines.items(), key=lambda each: each[1].name):
        row = newest.get(machine)
        if machine == core.machine or not core.membership.may_hold(own, machine):
            continue
        disk = "not there"
        if row is not None:
            disk = "same" if ours is not None and row.root == ours.root else "other"
        holds = not written or written[0].stream != own or held(machine) > written[0].seq
        found.append(f"{record.name}: {disk}" + ("" if holds else ", has not all of ours"))
    return found


class Shown(Struct, frozen=True, kw_only=True):
    """One version of a file. `state`: here (on the disks), beside, replaced, or not applied."""

    version: str
    state: str
    machine: str
    t_ms: int
    size: int
    gone: bool
    over: list[str]


class InConflict(Struct, frozen=True):
    """A file that was changed in ways that do not fit together: the first is on the disks."""

    folder: str
    path: str
    versions: list[Shown]


@verb("context.conflicts", auth="local", runs="async")
async def conflicts(daemon: Daemon, call: Perform, ask: Named) -> list[InConflict]:
    """The files that wait for somebody to say which version is to be."""
    found = []
    for mapped in daemon.folders.map.read().values():
        state = daemon.folders.state(mapped.name)
        if state is None or ask.name not in ("", mapped.name):
            continue
        for path in sorted(state.conflicts):
            heads = [s for s in _history(daemon.core, mapped.place, path) if s.state != "replaced"]
            found.append(InConflict(mapped.name, path, heads))
            await asyncio.sleep(0)
    return found


class Find(Request, frozen=True):
    file: Annotated[str, data()] = ""
    place: Annotated[str, data()] = ""


class Found(Struct, frozen=True):
    folder: str
    path: str
    scope: str


@verb("context.find", auth="local", runs="async")
async def find(daemon: Daemon, call: Perform, ask: Find) -> Found:
    """The file that a person means: FOLDER/PATH, or where it lies on this disk."""
    here = daemon.folders.map.read()
    name, _, path = ask.file.partition("/")
    if name in here and path:
        return Found(name, path, here[name].scope)
    if ask.place:
        place = await asyncio.to_thread(_resolved, ask.place)
        for mapped in here.values():
            if Path(mapped.path) in place.parents:
                path = str(place.relative_to(mapped.path))
                return Found(mapped.name, path, mapped.scope)
    have = ", ".join(sorted(here)) or "none"
    raise NotFound(f"{ask.file[:80]!r} is in no context folder of this machine (it has: {have})")


def _resolved(text: str) -> Path:
    path = Path(text)
    return path.parent.resolve() / path.name


class OfFile(Request, frozen=True):
    name: Annotated[str, data()] = ""
    path: Annotated[str, data()] = ""


@verb("context.log", auth="local", runs="async", names="version")
async def log(daemon: Daemon, call: Perform, ask: OfFile) -> list[Shown]:
    """Every version of a file, the oldest first."""
    found = _history(daemon.core, here_folder(daemon, ask.name).place, ask.path)
    if not found:
        raise NotFound(f"no version of {ask.path[:80]} is known; `muster context status` says why")
    return found


def _history(core: Core, place: Place, path: str) -> list[Shown]:
    part = core.part(Contexts)
    rows, file = part.versions(place, path), part.file(place, path)
    may = {row.stream.machine: part.may_write(place.folder, row.stream.machine) for row in rows}
    states = {}
    if file is not None:
        states = {h.id: "here" if h.id in file.made_of else "beside" for h in file.heads}
        # However long ago it was written: it counts.
        shown = {row.id for row in rows}
        heads = part.heads(place)
        found = (heads.row(id) for id in states if id not in shown)
        rows = [*(row for row in found if row is not None), *rows]
    return [
        Shown(
            version=row.id.hex(), machine=core.membership.name_of(row.stream.machine),
            state=states.get(row.id, "replaced") if may.get(row.stream.machine, True)
            else "not applied",
            t_ms=row.at_ms, size=row.size, gone=bool(row.absent),
            over=[each.hex()[:12] for each in sorted(row.targets)],
        )
        for row in rows
    ]  # fmt: skip


class Get(OfFile, frozen=True):
    at: Annotated[str, data()] = ""
    version: Annotated[str, data()] = ""


class Got(Struct, frozen=True):
    """A file as it was: its bytes as text, or in base64 where they are none."""

    path: str
    version: str
    text: str | UnsetType = UNSET
    b64: str | UnsetType = UNSET


@verb("context.get", auth="local", runs="async")
async def get(daemon: Daemon, call: Perform, ask: Get) -> Got:
    """A file of a context folder as it is on the disks, or as this machine had it at a time."""
    core, place = daemon.core, here_folder(daemon, ask.name).place
    part = core.part(Contexts)
    file = part.file(place, ask.path)
    if ask.at:
        file = await _file_at(core, place, ask.path, moment(ask.at, core.now.wall_ms))
    row = None if file is None else part.heads(place).row(file.winner.id)
    if row is None or row.absent:
        raise NotFound(f"{ask.path[:80]} was not there")
    where = part.bytes_of(row)
    if where is None:
        let_go = core.log.is_let_go(row.stream, row.seq)
        why = "were let go: it was replaced long ago, and often" if let_go else "are not here"
        raise NotFound(f"the bytes of {ask.path[:80]} as it was then {why}")
    raw = where.data
    if raw is None:
        raw = await asyncio.to_thread(daemon.machine.blobs.get, where.digest.hex())
    if len(raw) > REPLY_PART_BYTES * 16:
        raise Refused(f"{ask.path[:80]} has {len(raw)} bytes: look at it where it lies")
    try:
        return Got(ask.path, row.id.hex(), text=raw.decode())
    except UnicodeDecodeError:
        return Got(ask.path, row.id.hex(), b64=base64.b64encode(raw).decode())


async def _file_at(core: Core, place: Place, path: str, at_ms: int) -> File | None:
    """What counted of a path at a time, of what counts now: a page at a time, for all there was."""
    part, found = core.part(Contexts), list[Version]()
    may = part.heads(place)
    for stream in core.log.streams():
        if stream.scope != place.scope or not may.allows(WRITE, stream.machine):
            continue
        seq = _EVERY_SEQ
        while True:
            rows = core.tables.rows(
                VERSION, order=("-seq",), limit=_PAGE, below={"seq": seq}, stream=stream,
                folder=place.folder, folded=folded(path),
            )  # fmt: skip
            counted = [r for r in rows if r.path == path and _admitted_ms(core, r) <= at_ms]
            found += map(part.version, counted)
            if len(rows) < _PAGE:
                break
            seq = rows[-1].seq
            await asyncio.sleep(0)
    return files(found).get(path)


def _admitted_ms(core: Core, row: VersionRow) -> int:
    found = core.log.admitted(row.stream, row.seq)
    return found[1] if found is not None else row.at_ms


class Resolve(OfFile, frozen=True):
    scope: Annotated[str, data()] = FLEET
    take: Annotated[str, data()] = ""


class Resolved(Struct, frozen=True):
    """The version that is on every disk from now on, over all that there were."""

    folder: str
    path: str
    version: str


@verb("context.resolve", auth="order", runs="step", object="name", on="one")
def resolve(core: Core, call: Call, ask: Resolve) -> Resolved:
    """End a conflict: one of the versions, or what is on the disks now, replaces all others."""
    part = core.part(Contexts)
    place = Place(Scope(ask.scope), ask.name)
    if not part.may_write(place.folder, core.machine):
        raise Refused(
            f"{core.name} may not write {place.folder}: `muster grant machine:{core.name} "
            f"{WRITE} --object {place.folder}`, as the operator"
        )
    file = part.file(place, ask.path)
    if file is None or not file.is_conflict:
        raise Conflict(f"{ask.path[:80]} has no conflict: nothing was done")
    taken = [head for head in file.heads if head.id.hex().startswith(ask.take)]
    chosen_head = file.winner if not ask.take else taken[0] if len(taken) == 1 else None
    if chosen_head is None:
        every = ", ".join(head.id.hex()[:12] for head in file.heads)
        raise NotFound(f"{ask.take[:20]!r} is none of the versions that count ({every})")
    over = [head.id.hex() for head in file.heads[:CONTEXT_OVER_MAX]]
    entry = call.write(_taking(part, place, chosen_head, over), scope=place.scope)
    return Resolved(place.folder, ask.path, entry.id.hex())


def _taking(part: Contexts, place: Place, head: Version, over: list[str]) -> ContextPut:
    """A version with the bytes of another one."""
    if head.gone:
        return ContextPut(place.folder, head.path, over, gone=1)
    row = part.heads(place).row(head.id)
    where = None if row is None else part.bytes_of(row)
    if where is None:
        raise NotFound(f"the bytes of version {head.id.hex()[:12]} are not here: take another one")
    return ContextPut(place.folder, head.path, over, same=where.entry.hex(), x=1 if head.x else 0)
