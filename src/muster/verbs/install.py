"""`muster install` and `muster uninstall`: Muster in the agent programs of a person.

Rule 1: what is to change of a person's is shown first, whole, and written when they say yes; of
our own folder the files are named.
Rule 2: what each file was is kept, for its owner alone, until all of it is taken out again; so a
file that nobody changed since is as it was, byte for byte, and in one that somebody did all that
is not ours stays, and so do its rights.
Rule 3: to install twice changes nothing.
Rule 4: whatever moment it is cut off at, either verb afterwards comes to what it would have.
Rule 5: for one project alone nothing outside of it is written, whichever links it has.
"""

import stat
from importlib.util import find_spec
from pathlib import Path
from typing import Annotated, Final, Literal

import msgspec
from msgspec import Struct

from muster.agent.plugin.edit import Edit, Whole, left_over, put, take
from muster.agent.plugin.place import Place
from muster.agent.plugin.programs import PROGRAMS, program
from muster.agent.plugin.settings import check_free
from muster.errors import Conflict, NotFound
from muster.extra import bring
from muster.verbs.client import Finding
from muster.verbs.declaration import Context, Request, opt, pos, verb
from muster.verbs.installed import (
    RECORD,
    Kept,
    Record,
    as_bytes,
    as_text,
    place_of,
    read_file,
    read_record,
    sha,
)
from muster.verbs.settings_change import (
    Change,
    check_inside,
    check_unchanged,
    is_inside,
    missing,
    prune,
    replace,
    shown,
    sweep,
    write,
)

_YES: Final = ("y", "yes")
# What the door imports, and a plain install does not bring.
_NEEDED: Final = ("mcp", "starlette", "uvicorn")
_NAMED: Final = pos(f"the program: {', '.join(PROGRAMS)}")


class Install(Request, frozen=True):
    program: Annotated[str, _NAMED]
    yes: Annotated[bool, opt("write it without asking")] = False
    project: Annotated[bool, opt("only for the folder you are in")] = False


class Uninstall(Request, frozen=True):
    program: Annotated[str, _NAMED]
    yes: Annotated[bool, opt("take it out without asking")] = False


class Touched(Struct, frozen=True):
    """A file: what happened, or would happen, to it."""

    file: str
    state: Literal["written", "changed", "as it was", "removed", "kept what was changed since"]


class Installed(Struct, frozen=True):
    """`done` says whether it was written; `next` what its person does now."""

    program: str
    title: str
    done: bool
    files: list[Touched]
    next: str = ""


@verb("install", auth="local", runs="client", group="Messages", on="none")
def install(context: Context, ask: Install) -> Installed | Finding:
    """Put Muster into an agent program: messages, memory and notices come into its sessions.

    What would change is shown first. It writes hooks and a server of tools into the settings of the
    program, or a plugin; `uninstall` takes all of it out again, byte for byte.

        muster install claude
        muster install codex --yes
    """
    home, known = context.home, program(ask.program)
    home.require()
    place = place_of(home, ask.program, Path.cwd() if ask.project else None)
    record, wanted = read_record(place.own), known.edits(place)
    project, kept = str(place.project or ""), dict(record.files)
    if kept and record.project != project:
        where = f"in {record.project} alone" if record.project else "for all folders"
        raise Conflict(
            f"Muster is in {known.title} {where}: `muster uninstall {ask.program}` first"
        )
    changes = []
    for edit in wanted:
        check_inside(edit.path, project, place.own)
        now, old = read_file(edit.path), kept.get(str(edit.path))
        if isinstance(edit, Whole) and not edit.path.is_relative_to(place.own):
            check_free(edit.path, "content", now is None or old is not None)
        was = as_bytes(old.before) if old is not None else None
        after = put(edit, _without_older(old, edit, now))
        if after != now:
            mode = stat.S_IMODE(edit.path.stat().st_mode) if now is not None else 0o600
            changes.append(Change(edit.path, now, after))
            # What stood there without us: as it was kept, or what somebody made of it since.
            same = old is not None and old.is_as_written(now)
            before = old.before if old is not None and same else as_text(take(edit, now, was))
            made = old.made if old is not None else missing(edit.path)
            older = sha(now) if now is not None and same else ""
            kept[str(edit.path)] = Kept(before, sha(after), edit, mode, made, older)
    names = {str(edit.path) for edit in wanted}
    # Of an older version, and not needed any more.
    old_ones = [name for name in kept if name not in names]
    changes += [_taken(name, kept[name], place.own, project) for name in old_ones]
    if not changes:
        return Installed(ask.program, known.title, True, _states(wanted, set()), known.next)
    for change in changes:
        if change.now != change.after:
            context.say(shown(change, place.own))
    changed = {change.path for change in changes}
    if not (ask.yes or _agrees(context, f"Write this into {known.title}? (y/N)")):
        return Finding(Installed(ask.program, known.title, False, _states(wanted, changed)), 1)
    check_unchanged(changes)
    # First what is needed to undo it: a crash in between leaves nothing that cannot be.
    _note(place, Record(kept, project, place.python))
    sweep(kept, place, project)
    for change in changes:
        replace(change, place, project)
    if old_ones:
        rest = {name: each for name, each in kept.items() if name in names}
        _note(place, Record(rest, project, place.python))
    needed = [name for name in _NEEDED if find_spec(name) is None]
    if needed:
        context.note(
            f"its tools answer when {' and '.join(needed)} can be imported: "
            f"`{bring('doors')}`; messages come in without them"
        )
    files = _states(wanted, changed, done=True)
    return Installed(ask.program, known.title, True, files, known.next)


@verb("uninstall", auth="local", runs="client", group="Messages", on="none")
def uninstall(context: Context, ask: Uninstall) -> Installed | Finding:
    """Take Muster out of an agent program again: its files are as they were.

    What somebody changed in one of them since stays, and is said.

        muster uninstall claude
    """
    home, known = context.home, program(ask.program)
    home.require()
    place = place_of(home, ask.program, None)
    record = read_record(place.own)
    kept, project = record.files, record.project
    if not kept:
        # An install that was cut off before it began may have left something in our own folder.
        prune(place)
        raise NotFound(f"Muster is not in {known.title}: nothing was put there from this home")
    changes = [_taken(name, each, place.own, project) for name, each in kept.items()]
    for change in changes:
        if change.now != change.after and not change.path.is_relative_to(place.own):
            context.say(shown(change, place.own))
    if not (ask.yes or _agrees(context, f"Take this out of {known.title}? (y/N)")):
        files = [Touched(str(change.path), "as it was") for change in changes]
        return Finding(Installed(ask.program, known.title, False, files), 1)
    check_unchanged(changes)
    files = [
        Touched(
            str(change.path),
            "kept what was changed since" if not is_inside(change.path, project, place.own)
            else "removed" if change.after is None
            else "as it was" if change.now is None or each.is_as_written(change.now)
            else "kept what was changed since",
        )
        for change, each in zip(changes, kept.values(), strict=True)
    ]  # fmt: skip
    sweep(kept, place, project)
    for change in changes:
        replace(change, place, project)
    prune(place)
    return Installed(ask.program, known.title, True, files, known.next)


def _note(place: Place, record: Record) -> None:
    """Write down what is needed to undo an install."""
    write(place.own / RECORD, msgspec.json.encode(record, enc_hook=str), 0o600, place.name)


def _taken(name: str, kept: Kept, own: Path, project: str) -> Change:
    """A file without us; one that somebody removed since stays removed, and of ours in a person's
    folder one that they changed is theirs; nothing where a link leads out of the project now.

    Raises: Malformed.
    """
    path = Path(name)
    if not is_inside(path, project, own):
        return Change(path, None, None)
    now = read_file(path)
    if kept.is_as_written(now):
        return Change(path, now, as_bytes(kept.before), kept.made)
    if isinstance(kept.edit, Whole) and not path.is_relative_to(own):
        return Change(path, now, now, kept.made)
    after = take(kept.edit, now, as_bytes(kept.before))
    return Change(path, now, after, kept.made)


def _without_older(old: Kept | None, edit: Edit, now: bytes | None) -> bytes | None:
    """A file without what only an older version put in."""
    if old is None or now is None:
        return now
    if sha(now) == old.older:
        # Cut off before ours was put over it: what the older one put in is known no more.
        return as_bytes(old.before)
    gone = left_over(old.edit, edit)
    return now if gone is None else take(gone, now, as_bytes(old.before))


def _agrees(context: Context, what: str) -> bool:
    return context.question(what, "n").strip().lower() in _YES


def _states(edits: list[Edit], changed: set[Path], *, done: bool = False) -> list[Touched]:
    return [
        Touched(
            str(edit.path),
            "as it was" if edit.path not in changed or not done
            else "written" if isinstance(edit, Whole) else "changed",
        )
        for edit in edits
    ]  # fmt: skip
