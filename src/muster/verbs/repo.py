"""Verbs about repositories: what the fleet keeps, and what of it follows an origin."""

import asyncio
import contextlib
from pathlib import Path
from typing import Annotated, Final, Literal

import msgspec
from msgspec import UNSET, Struct, UnsetType

from muster.duration import duration_of
from muster.errors import Malformed, MusterError
from muster.git import origin, repository, source
from muster.git.fence import repository_name
from muster.git.follow import Change
from muster.node.host import clock
from muster.node.host.home import DEFAULT_REPOSITORY
from muster.node.incarnations.own_incarnation import FactsChanged
from muster.node.tasks.keepers import Keepers
from muster.node.verb import Line, Loss
from muster.verbs.declaration import (
    Daemon,
    Nothing,
    Perform,
    Request,
    data,
    opt,
    pos,
    verb,
)

_ADD: Final = ("add",)
_PRUNE: Final = ("prune",)
_OLDER: Final = "30d"
_ONE: Final = ("add", "set-default", "remove", "prune")
_NAMED: Final = (*_ONE, "sync")
# A machine that is up says within a step what it keeps.
_ABOUT_S: Final = 5.0


class Action(Request, frozen=True):
    action: Annotated[
        Literal["add", "list", "sync", "set-default", "remove", "prune"],
        pos("add, list, sync, set-default, remove or prune"),
    ]
    name: Annotated[
        str, pos("its name in the fleet", kind="repository", actions=_NAMED, needed=_ONE)
    ] = ""
    path: Annotated[
        str,
        pos("a folder or an address to take it from", kind="place", actions=_ADD, needed=_ADD),
    ] = ""
    follow: Annotated[
        bool, opt("take over what changes there (this is so, but for a bundle)", actions=_ADD)
    ] = False
    no_follow: Annotated[bool, opt("never look there again", actions=_ADD)] = msgspec.field(
        default=False, name="no-follow"
    )
    older: Annotated[
        str, opt(f"what ended longer ago: 30d, 12h (default: {_OLDER})", actions=_PRUNE)
    ] = ""
    dry_run: Annotated[bool, opt("only say what would go", actions=_PRUNE)] = msgspec.field(
        default=False, name="dry-run"
    )


class Added(Struct, frozen=True):
    """`left_out` are branches of the source whose names the runs of the fleet need."""

    name: str
    head: str
    branch: str
    left_out: list[str] | UnsetType = UNSET
    origin: str | UnsetType = UNSET
    follows: bool | UnsetType = UNSET


class Kept(Struct, frozen=True):
    """A repository with the machines that keep it, or that kept it where nobody does any more."""

    name: str
    head: str
    machines: list[str]
    lost: list[str]
    branch: str | UnsetType = UNSET
    origin: str | UnsetType = UNSET
    follows: bool | UnsetType = UNSET
    synced_ms: int | UnsetType = UNSET
    error: str | UnsetType = UNSET
    unlike: list[str] | UnsetType = UNSET


@verb("repo", names="name", auth="order", runs="async", group="What is true", object="name",
      naming=True, target="hub", on="one", each=("list", "sync"), steps=True,
      undone="error",
      destroys=(
          Loss("the fleet's copy of {name} goes, with what runs made there and landed nowhere",
               when="action=remove"),
          Loss("branches and attempts of runs of {name} that ended long ago go, landed or not",
               when="action=prune !dry-run"),
      ),
      then=(Line("`muster new NAME` writes a spec for it, `muster run SPEC` runs one.",
                 "head branch !machines"),))  # fmt: skip
async def repo(daemon: Daemon, call: Perform, ask: Action) -> Added | list[Kept]:
    """Add, list and remove the fleet's repositories, and bring them up to date.

    One that is added is kept on the machine that acts, and follows where it came from: before each
    run, and on `sync`. Added once more, from where its history is, it follows that place.

        muster repo add main ~/src/project
        muster repo add frozen ~/src/project --no-follow
        muster repo list
        muster repo sync main
        muster repo set-default main
        muster repo remove frozen --yes
        muster repo prune main --older 30d --dry-run
    """
    if ask.action == "list":
        return await listing(daemon, call, Nothing())
    if ask.action != "add":
        raise Malformed(f"`repo {ask.action}` is the verb `repo.{ask.action}`")
    if not ask.name or not ask.path:
        raise Malformed("`repo add` needs a name and a path: muster repo add main ~/src/project")
    name = repository_name(ask.name)
    if ask.follow and ask.no_follow:
        raise Malformed("--follow and --no-follow say the opposite: give one of them, or none")
    follow = (not ask.no_follow) if ask.follow or ask.no_follow else None
    effects = daemon.effects
    if name in repository.listing(effects.repos):
        left_out = await effects.following.adopt(name, ask.path, follow)
    else:
        now_ms = clock.read().wall_ms
        left_out = (await repository.add(effects.repos, name, ask.path, follow, now_ms)).left_out
        daemon.post(FactsChanged(await effects.facts()))
    path = repository.find(effects.repos, name)
    kept = origin.read(path)
    return Added(
        name, await _head(path), await repository.default_branch(path), list(left_out) or UNSET,
        kept.address if kept else UNSET, kept.follows if kept else UNSET,
    )  # fmt: skip


@verb("repo.list", auth="local", runs="async")
async def listing(daemon: Daemon, call: Perform, ask: Nothing) -> list[Kept]:
    """The fleet's repositories, and where they are kept; the head of those kept here.

    One that only machines kept which count no more is there, too: it can be brought back.
    """
    roster = daemon.core.roster
    here = repository.listing(daemon.effects.repos)
    kept = {name: {daemon.core.name} for name in here}
    for machine, record in roster.machines.items():
        for name in roster.facts[machine].repositories if machine in roster.facts else ():
            kept.setdefault(name, set()).add(record.name)
    lost: dict[str, set[str]] = {}
    for machine in roster.facts.keys() - roster.machines.keys():
        for name in roster.facts[machine].repositories:
            lost.setdefault(name, set()).add(daemon.core.membership.name_of(machine))
    names = sorted(kept.keys() | lost.keys())
    # Whoever keeps them says where they are from; one that is slow or older says nothing.
    said = dict(zip(kept, await asyncio.gather(*(_about(daemon, n) for n in kept)), strict=True))
    return [
        _kept(name, sorted(kept.get(name, ())), sorted(lost.get(name, ())), said.get(name))
        for name in names
    ]


async def _about(daemon: Daemon, name: str) -> "Origin | None":
    # One that is slow, away or older says nothing of where it is from.
    with contextlib.suppress(MusterError, TimeoutError):
        async with asyncio.timeout(_ABOUT_S):
            found = await origin_of(daemon, None, Named(name=name))
            return found if found.branch else None
    return None


def _kept(name: str, machines: list[str], lost: list[str], about: "Origin | None") -> Kept:
    if about is None:
        return Kept(name, "", machines, [] if machines else lost)
    return Kept(
        name, about.head, machines, [], about.branch, about.origin, about.follows,
        about.synced_ms, about.error, about.unlike,
    )  # fmt: skip


async def _head(path: Path) -> str:
    try:
        return await repository.head(path)
    except MusterError:
        return ""


class Named(Request, frozen=True, forbid_unknown_fields=False):
    name: Annotated[str, pos("its name in the fleet")]


class Origin(Struct, frozen=True):
    """Where a repository was taken from ("": that is not known), and whether it follows that.

    `keeper` is the machine that has it, `branch` its default branch.
    """

    name: str
    keeper: str
    branch: str
    head: str
    origin: str
    follows: bool
    synced_ms: int
    error: str
    unlike: list[str]


@verb("repo.about", auth="peer", runs="async")
async def about(daemon: Daemon, call: Perform | None, ask: Named) -> Origin:
    """A repository of ours, to another machine: where it is from, and how it stands."""
    path = repository.find(daemon.effects.repos, ask.name)
    kept = origin.read(path) or origin.Origin("", follows=False)
    return Origin(
        name=ask.name,
        keeper=daemon.core.name,
        branch=await repository.default_branch(path),
        head=await _head(path),
        origin=kept.address,
        follows=kept.follows,
        synced_ms=kept.synced_ms,
        error=kept.error,
        unlike=kept.unlike,
    )


class Note(Struct, frozen=True):
    note: str


@verb("repo.follow", auth="peer", runs="async")
async def follow(daemon: Daemon, call: Perform, ask: Named) -> Note:
    """Let a repository of ours follow its origin, for a run of another machine."""
    return Note(await daemon.effects.following.fresh(ask.name))


class Sync(Request, frozen=True):
    name: Annotated[str, data()] = ""


class Synced(Struct, frozen=True):
    """What an update did to a repository; `follows` is false where there is nothing to follow."""

    name: str
    origin: str
    follows: bool
    error: str
    changes: list[Change]
    unlike: list[str]


@verb("repo.sync", auth="order", runs="async", object="name", target="hub", daily=True, on="one")
async def sync(daemon: Daemon, call: Perform, ask: Sync) -> list[Synced]:
    """Bring a repository of ours, or all that follow an origin, up to date.

    muster repo sync main
    """
    effects = daemon.effects
    names = [repository_name(ask.name)] if ask.name else sorted(repository.listing(effects.repos))
    found = []
    for name, each in [(name, effects.following.update(name)) for name in names]:
        done = await each
        kept = done.origin
        said = (name, kept.address, kept.follows, done.error)
        found.append(Synced(*said, list(done.changes), kept.unlike))
    return found


class Removed(Struct, frozen=True):
    name: str
    removed: Literal[True] = True


@verb("repo.remove", auth="order", runs="async", object="name", target="hub", on="one")
async def remove(daemon: Daemon, call: Perform, ask: Named) -> Removed:
    """Remove a repository of ours, with the results that landed nowhere.

    What its runs were and did stays readable. Its origin is not touched.
    """
    name = repository_name(ask.name)
    await daemon.effects.following.remove(name)
    daemon.post(FactsChanged(await daemon.effects.facts()))
    return Removed(name)


class Prune(Request, frozen=True):
    name: Annotated[str, data()]
    older: Annotated[str, data()] = _OLDER
    dry_run: Annotated[bool, data()] = msgspec.field(default=False, name="dry-run")


class Pruned(Struct, frozen=True):
    """The branches of runs that went, or would, and how many attempts with them; of what ended
    longer ago than `older`.
    """

    name: str
    pruned: list[str]
    attempts: int
    dry_run: bool
    older: str = ""


@verb("repo.prune", auth="order", runs="async", object="name", target="hub", on="one")
async def clean_up(daemon: Daemon, call: Perform, ask: Prune) -> Pruned:
    """Remove the branches and attempts of runs that ended long ago from a repository of ours."""
    name = repository_name(ask.name)
    age_ms = duration_of(ask.older)
    if age_ms is None:
        raise Malformed(f"{ask.older[:40]!r} is no age: write 30d, 12h or 90m")
    before_ms = clock.read().wall_ms - age_ms
    found = await daemon.effects.following.prune(name, before_ms, dry_run=ask.dry_run)
    return Pruned(name, list(found.branches), found.attempts, ask.dry_run, ask.older)


class Default(Struct, frozen=True):
    default: str


@verb("repo.set-default", auth="local", runs="async")
async def set_default(daemon: Daemon, call: Perform, ask: Named) -> Default:
    """Say which repository `muster ask` is about, in this home, where none is named."""
    name = repository_name(ask.name)
    daemon.effects.place_of(name)
    daemon.home.put(DEFAULT_REPOSITORY, f"{name}\n".encode())
    return Default(name)


@verb("repo.origin", auth="local", runs="async")
async def origin_of(daemon: Daemon, call: Perform | None, ask: Named) -> Origin:
    """Where a repository of the fleet is from, and whether it follows that; whoever keeps it.

    An older machine that keeps it does not say where from. One that says what nothing can be from
    said nothing.
    """
    name, core = repository_name(ask.name), daemon.core
    path, _ = daemon.effects.place_of(name)
    if path is not None:
        return await about(daemon, call, ask)
    keeper = core.part(Keepers).keeper(name)
    assert keeper is not None, "place_of found one"
    said = await daemon.effects.ask(keeper.machine, "repo.about", {"name": name})
    try:
        found = msgspec.convert(said, Origin)
        if found.origin:
            # People's git is given it.
            source.check(found.origin)
    except (msgspec.ValidationError, MusterError):
        return Origin(name, keeper.name, "", "", "", False, 0, f"{keeper.name} does not say", [])
    return msgspec.structs.replace(found, name=name, keeper=keeper.name)
