"""Verbs about context folders: to have one, to see who has what, to end a conflict.

Rule 1: a folder that an agent obeys is an order: who may write it is a grant, which the command
signs where the operator stands (`context.write`, and `context.exec` for what can be executed).
Rule 2: where a folder lies is each machine's own business; its name is the fleet's.
Rule 3: nothing is ever deleted by taking a folder away from a machine: its files stay there.
"""

import asyncio
import os
from pathlib import Path
from typing import Annotated, Any, Final, Literal

from msgspec import Struct

from muster.context.ignore import IGNORE_FILE, read_pattern
from muster.context.kinds import check_folder
from muster.errors import Conflict, NotFound, Refused
from muster.limits import GRANT_DAYS_MAX
from muster.log.stream import FLEET, Scope
from muster.node.folders.choice import check_folder_fit
from muster.node.folders.disk import Disk
from muster.node.folders.mapping import Mapped
from muster.node.folders.onestep import InTheWay
from muster.node.folders.preset import Preset, chosen
from muster.node.services.context import Contexts
from muster.node.services.heads import EXEC, WRITE
from muster.node.services.threads import group_of
from muster.verbs.declaration import (
    Context,
    Core,
    Daemon,
    Perform,
    Request,
    Words,
    data,
    opt,
    pos,
    verb,
)

_ADD: Final = ("add",)
_MAP: Final = ("add", "map")
_FILE: Final = ("resolve", "log", "get")
_WHAT: Final = ("map", *_FILE, "ignore", "remove")
_SECOND: Final = ("map", "ignore")


class Action(Request, frozen=True):
    action: Annotated[
        Literal["add", "map", "status", "conflicts", "resolve", "log", "get", "ignore", "remove"],
        pos("add PATH; map NAME PATH; status, conflicts [NAME]; resolve, log, get FILE; "
            "ignore NAME PATTERN; remove NAME"),
    ]  # fmt: skip
    what: Annotated[str, pos("a folder's name, its place (add), or a file in it", needed=_WHAT)] = (
        ""
    )
    more: Annotated[
        str, pos("where it lies here (map), or what to leave out", actions=_SECOND, needed=_SECOND)
    ] = ""
    name: Annotated[str, opt("what it is called in the fleet", actions=_ADD)] = ""
    preset: Annotated[Preset, opt("what of an agent program it is", actions=_MAP)] = ""
    writers: Annotated[
        Words, opt("a machine that may write it as well, or all; several times", actions=_ADD)
    ] = ()
    programs: Annotated[bool, opt("what they write may be executed as well", actions=_ADD)] = False
    scope: Annotated[str, opt("who may have it: fleet, thread:NAME", actions=_MAP)] = ""
    large: Annotated[bool, opt("files of more than 1 MiB as well", actions=_MAP)] = False
    both: Annotated[
        bool, opt("keep what differs here beside what the fleet has", actions=("map",))
    ] = False
    take: Annotated[str, opt("the version to have (its beginning)", actions=("resolve",))] = ""
    at: Annotated[str, opt("as it was: 10m (ago) or 2026-11-20T23:00", actions=("get",))] = ""


@verb("context", auth="local", runs="client", group="Memory", on="one",
      each=("status", "conflicts", "log"))  # fmt: skip
def context(context: Context, ask: Action) -> Any:
    """Keep folders the same on several machines: what agents read beside a repository.

    muster context add ~/notes --name notes --writers all
    muster context map notes '~/notes' --on studio
    muster context status
    muster context log notes/plan.md
    muster context get notes/plan.md --at 1h
    muster context ignore notes '*.draft'
    muster context conflicts
    muster context remove notes
    """
    what, on = ask.what, context.on
    if ask.action == "add":
        return _add(context, ask)
    if ask.action in ("status", "conflicts"):
        return context.ask(f"context.{ask.action}", {"name": what} if what else {}, on=on)
    if ask.action == "map":
        # In the other one's own home, where it is quoted and the shell has left it as it is.
        there = on and ask.more.startswith("~")
        asked: dict[str, Any] = {"name": what, "path": ask.more if there else str(_place(ask.more))}
        asked |= {"preset": ask.preset, "scope": ask.scope, "large": ask.large, "both": ask.both}
        return context.ask("context.map", {k: v for k, v in asked.items() if v}, on=on)
    if ask.action == "ignore":
        return context.ask("context.ignore", {"name": what, "pattern": ask.more}, on=on)
    if ask.action == "remove":
        return context.ask("context.remove", {"name": what}, on=on)
    found = context.ask("context.find", {"file": what, "place": str(_place(what))}, on=on)
    file = {"name": found["folder"], "path": found["path"]}
    if ask.action == "resolve":
        file |= {"scope": found["scope"], **({"take": ask.take} if ask.take else {})}
    if ask.action == "get":
        file |= {"at": ask.at} if ask.at else {}
    return context.ask(f"context.{ask.action}", file, on=on)


def _place(text: str) -> Path:
    """A place as seen from where the person stands."""
    return Path(os.path.abspath(Path(text).expanduser())) if text else Path()


def _add(context: Context, ask: Action) -> Any:
    place = str(_place(ask.what)) if ask.what else ""
    asked: dict[str, Any] = {"name": ask.name, "path": place}
    asked |= {"preset": ask.preset, "scope": ask.scope, "large": ask.large, "both": True}
    asked = {k: v for k, v in asked.items() if v}
    # What would be refused is refused before anything is granted.
    planned = context.ask("context.plan", {**asked, "writers": list(ask.writers)}, on=context.on)
    rights = [WRITE, *([EXEC] if ask.programs else [])]
    for machine in planned["writers"]:
        for right in rights:
            given = {"to": f"machine:{machine}", "verb": right, "object": planned["folder"]}
            context.ask("grant", {**given, "days": GRANT_DAYS_MAX})
    return context.ask("context.map", {**asked, "name": planned["folder"]}, on=context.on)


# --- in the daemon: where a folder lies ----------------------------------------------------------


class Lay(Request, frozen=True):
    name: Annotated[str, data()] = ""
    path: Annotated[str, data()] = ""
    preset: Annotated[Preset, data()] = ""
    scope: Annotated[str, data()] = ""
    large: Annotated[bool, data()] = False
    both: Annotated[bool, data()] = False


class Plan(Lay, frozen=True):
    writers: Annotated[Words, data()] = ()


class Planned(Struct, frozen=True):
    """What a folder would be called, where it would lie, and who is to write it."""

    folder: str
    path: str
    writers: list[str]


@verb("context.plan", auth="local", runs="async")
async def plan(daemon: Daemon, call: Perform, ask: Plan) -> Planned:
    """What `context add` would do, and nothing is done."""
    mapped = await _mapped(daemon, ask)
    core = daemon.core
    writers = [core.name, *ask.writers]
    if "all" in writers:
        writers = [core.name, *sorted(m.name for m in core.roster.machines.values())]
    names = [core.roster.find(name).name for name in dict.fromkeys(writers)]
    return Planned(mapped.name, mapped.path, list(dict.fromkeys(names)))


class Laid(Struct, frozen=True):
    """A context folder of this machine, and where it lies."""

    folder: str
    path: str
    machine: str


@verb("context.map", auth="order", runs="async", object="name", naming=True, on="one")
async def maphere_folder(daemon: Daemon, call: Perform, ask: Lay) -> Laid:
    """From now on this machine has a context folder."""
    mapped = await _mapped(daemon, ask)
    if not ask.both:
        await _check_alike(daemon, mapped)
    daemon.folders.map.put(mapped)
    daemon.folders.add(mapped)
    return Laid(mapped.name, mapped.path, daemon.core.name)


async def _mapped(daemon: Daemon, ask: Lay) -> Mapped:
    """The folder as it would be. Raises: NotFound, Refused, Conflict, Malformed."""
    found = await asyncio.to_thread(chosen, ask.preset, ask.path, ask.name, Path.home())
    name = check_folder(found.name)
    scope = _scope(daemon.core, ask.scope)
    others = daemon.folders.map.read()
    top = await check_folder_fit(found.path, daemon.home, others, name, found.only)
    inode = (await asyncio.to_thread(top.stat)).st_ino
    return Mapped(name, str(top), inode, scope, ask.large, found.only)


async def _check_alike(daemon: Daemon, mapped: Mapped) -> None:
    """Raises: Conflict where a file there is other than what the fleet has under its name."""
    core = daemon.core
    part, differing = core.part(Contexts), list[str]()
    disk = Disk(Path(mapped.path), mapped.inode)
    for path in part.paths(mapped.place):
        (wanted,) = part.wanted(mapped.place, {path: frozenset()}, {})
        content = wanted.content
        if content is not None and await asyncio.to_thread(_other, disk, path, content.digest):
            differing.append(path)
        await asyncio.sleep(0)
    if differing:
        some = ", ".join(differing[:3]) + (", …" if len(differing) > 3 else "")
        raise Conflict(
            f"{len(differing)} files in {mapped.path} are others than the fleet has ({some}): move "
            "them away, or keep both with --both, and end each conflict by `muster context resolve`"
        )


def _other(disk: Disk, path: str, digest: bytes) -> bool:
    """Whether a plain file there has other bytes: no link is followed, and no pipe waited for."""
    try:
        found = disk.digest(path)
    except (InTheWay, OSError):
        return False
    return found is not None and found != digest


class Named(Request, frozen=True):
    name: Annotated[str, data()] = ""


class Removed(Struct, frozen=True):
    folder: str
    left: str


@verb("context.remove", auth="order", runs="async", object="name", on="one")
async def remove(daemon: Daemon, call: Perform, ask: Named) -> Removed:
    """This machine has the folder no longer; its files stay."""
    gone = daemon.folders.map.remove(ask.name)
    daemon.folders.drop(gone.name)
    return Removed(gone.name, gone.path)


class Left(Struct, frozen=True):
    folder: str
    pattern: str


class Leave(Named, frozen=True):
    pattern: Annotated[str, data()] = ""


@verb("context.ignore", auth="order", runs="async", object="name", on="one")
async def ignore(daemon: Daemon, call: Perform, ask: Leave) -> Left:
    """Leave files of a folder out, on every machine: a line more in its `.musterignore`."""
    mapped = here_folder(daemon, ask.name)
    read_pattern(ask.pattern)
    await asyncio.to_thread(_add_line, Path(mapped.path, IGNORE_FILE), ask.pattern)
    return Left(mapped.name, ask.pattern)


def _add_line(path: Path, line: str) -> None:
    def opened(name: str, flags: int) -> int:
        # Through a link the line would be written outside of the folder.
        return os.open(name, flags | os.O_NOFOLLOW, 0o644)

    try:
        with open(path, "a+", encoding="utf-8", opener=opened) as file:
            file.seek(0)
            before = file.read()
            file.write(("" if before.endswith("\n") or not before else "\n") + line + "\n")
    except OSError as error:
        raise Refused(f"{path} cannot be written ({error.strerror})") from error


def here_folder(daemon: Daemon, name: str) -> Mapped:
    """A context folder of this machine. Raises: NotFound."""
    found = daemon.folders.map.read().get(name)
    if found is None:
        raise NotFound(
            f"this machine has no context folder {name[:64]!r}; `muster context map NAME PATH` "
            "says where it is to lie here"
        )
    return found


def _scope(core: Core, text: str) -> Scope:
    """The scope that somebody typed. Raises: NotFound, Refused."""
    if text in ("", "fleet"):
        return FLEET
    if text.startswith("thread:"):
        return group_of(core, text.removeprefix("thread:"))
    raise NotFound(f"{text[:60]!r} is no scope of a folder: there are fleet and thread:NAME")
