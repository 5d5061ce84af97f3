"""What `muster doctor --fix` does: what a person would type without having to think about it.

Rule 1: nothing is destroyed or given away, and no attempt ends: a right is taken from others, what
is down is started, a file of ours is written anew. All else stays with the command to type.
Rule 2: what is done is said, with what it cannot undo: a key that others could read stays known.
"""

import stat
import sys
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Final, NamedTuple

from msgspec import Struct

from muster.agent import catalogue
from muster.errors import Denied, MusterError
from muster.git import repository
from muster.node.host import lock, owner, service
from muster.node.host.facts import TOOLS
from muster.node.host.home import Home
from muster.verbs.daemon import ANSWER_S, begin
from muster.verbs.declaration import Context
from muster.verbs.service import install

_OURS: Final = ("seed", "authority.seed", "operator.seed", "device.seed", "agents.env", "cloud.env")


class Repair(NamedTuple):
    """One thing that can be done here, as it is said, and what does it."""

    what: str
    do: Callable[[], object]


class Repaired(Struct, frozen=True):
    """What was done, or would be; `failed` says why it could not be."""

    what: str
    failed: str = ""


def repair(context: Context, *, dry: bool) -> list[Repaired]:
    """Do what there is to do, in an order in which one helps the next; `dry`: only say it."""
    # Before anything is opened: what root makes here, its person's daemon could not open.
    owner.require_own(context.home.path, "doctor --fix")
    done: list[Repaired] = []
    try:
        # What was done before a look fails stays in the list.
        done.extend(_repaired(each, dry=dry) for each in _repairs(context))
    except (MusterError, OSError) as error:
        # What keeps us from looking keeps us from mending; doctor says the rest.
        done.append(Repaired("look for what can be mended", str(error)))
    return done


def _repaired(each: Repair, *, dry: bool) -> Repaired:
    try:
        if not dry:
            each.do()
    except (MusterError, OSError) as error:
        return Repaired(each.what, str(error))
    return Repaired(each.what)


def _repairs(context: Context) -> Iterator[Repair]:
    home = context.home
    if not home.path.is_dir():
        return
    yield from _modes(home)
    if not home.exists:
        return
    for name, path in broken_hooks(home).items():
        what = f"write the hooks of the repository {name} anew, without which no push is taken"
        yield Repair(what, partial(repository.write_guard, path))
    kept = service.installed(home)
    runs = lock.holder(home.lock) is not None
    if kept is not None:
        try:
            to_do, found = kept.to_do(), service.faults(kept, programs_of(home))
        except MusterError:
            # Doctor says what the system does not answer; the rest is mended all the same.
            to_do, found = [], []
        if to_do:
            yield Repair("let your services run without a login (linger)", partial(_linger, kept))
        if found and not (runs and _has_work(context)):
            what = f"install the service anew ({found[0]}), and start the daemon by it"
            yield Repair(what, partial(install, context, system=kept.scope == "system"))
            return
    if not runs:
        yield Repair("start the daemon", partial(begin, context))


def broken_hooks(home: Home) -> dict[str, Path]:
    """The repositories whose hooks are gone or changed, or lead to an interpreter that is gone."""
    kept = repository.listing(Path(home.repos))
    return {name: path for name, path in kept.items() if not repository.is_fenced(path)}


def programs_of(home: Home) -> list[str]:
    """What a daemon looks for on its PATH: the agents and tools that routing knows."""
    try:
        known = catalogue.load(home.path)
    except MusterError:
        # Doctor says so; of the others the built-in list is enough.
        known = catalogue.load(None)
    agents = [each.program for each in known.values() if each.program]
    return list(dict.fromkeys([*agents, *(argv[0] for argv in TOOLS.values())]))


def _linger(kept: service.Manager) -> None:
    """Raises: Denied where the system did not let us."""
    kept.prepare()
    if left := kept.to_do():
        raise Denied(f"the system did not let you; {'; '.join(left)}")


def _modes(home: Home) -> Iterator[Repair]:
    """Rights of others on what is ours alone."""
    if sys.platform == "win32":
        return
    for folder in (home.path, Path(home.mark_folder)):
        if folder.is_dir() and stat.S_IMODE(folder.stat().st_mode) & 0o077:
            yield Repair(f"shut {folder} to others (mode 700)", partial(folder.chmod, 0o700))
    for file in (home.path / name for name in _OURS):
        if file.is_file() and stat.S_IMODE(file.stat().st_mode) & 0o077:
            what = f"shut {file} to others (mode 600); whoever read it before can still do what "
            what += "you can: `muster revoke` shuts a key out"
            yield Repair(what, partial(file.chmod, 0o600))


def _has_work(context: Context) -> bool:
    """Whether an attempt would end with the daemon; a daemon that says nothing may have some."""
    try:
        return bool(context.ask("status", {}, within_s=ANSWER_S)["works"])
    except MusterError:
        return True
