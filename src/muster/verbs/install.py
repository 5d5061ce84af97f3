"""`muster install` and `muster uninstall`: Muster in the agent programs of a person.

Rule 1: what is to change of a person's is shown first, whole, and written when they say yes; of
our own folder the files are named.
Rule 2: what each file was is kept, for its owner alone, until all of it is taken out again; so a
file that nobody changed since is as it was, byte for byte, and in one that somebody did all that
is not ours stays.
Rule 3: to install twice changes nothing.
"""

import difflib
import stat
from importlib.util import find_spec
from pathlib import Path
from typing import Annotated, Final, Literal, NamedTuple

import msgspec
from msgspec import Struct

from muster.agent.plugin.edit import Edit, Whole, put, take
from muster.agent.plugin.programs import PROGRAMS, program
from muster.agent.plugin.settings import check_free
from muster.atomic_file import write_file
from muster.errors import Conflict, NotFound, unable
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


class _Change(NamedTuple):
    """What a file is now, and what it is to be: None where it is no more."""

    path: Path
    now: bytes | None
    after: bytes | None
    mode: int = 0o600
    made: str = ""


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
        now, old = read_file(edit.path), kept.get(str(edit.path))
        if isinstance(edit, Whole) and not edit.path.is_relative_to(place.own):
            check_free(edit.path, "content", now is None or old is not None)
        after = put(edit, now)
        if after != now:
            mode = stat.S_IMODE(edit.path.stat().st_mode) if now is not None else 0o600
            changes.append(_Change(edit.path, now, after, mode))
            # What stood there without us: as it was kept, or what somebody made of it since.
            same = old is not None and now is not None and old.written == sha(now)
            was = as_bytes(old.before) if old is not None else None
            before = old.before if old is not None and same else as_text(take(edit, now, was))
            made = old.made if old is not None else _missing(edit.path)
            kept[str(edit.path)] = Kept(before, sha(after), edit, mode, made)
    names = {str(edit.path) for edit in wanted}
    # Of an older version, and not needed any more.
    old_ones = [name for name in kept if name not in names]
    changes += [_taken(name, kept.pop(name), place.own) for name in old_ones]
    if not changes:
        return Installed(ask.program, known.title, True, _states(wanted, set()), known.next)
    for change in changes:
        context.say(_shown(change, place.own))
    changed = {change.path for change in changes}
    if not (ask.yes or _agrees(context, f"Write this into {known.title}? (y/N)")):
        return Finding(Installed(ask.program, known.title, False, _states(wanted, changed)), 1)
    _check_unchanged(changes)
    # First what is needed to undo it: a crash in between leaves nothing that cannot be.
    _write(
        place.own / RECORD,
        msgspec.json.encode(Record(kept, project, place.python), enc_hook=str),
        0o600,
    )
    for change in changes:
        _replace(change)
    needed = [name for name in _NEEDED if find_spec(name) is None]
    if needed:
        context.note(
            f"its tools answer when {' and '.join(needed)} can be imported: `pip install "
            "'muster-fleet[doors]'` where Muster is installed; messages come in without them"
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
    kept = read_record(place.own).files
    if not kept:
        raise NotFound(f"Muster is not in {known.title}: nothing was put there from this home")
    changes = [_taken(name, each, place.own) for name, each in kept.items()]
    for change in changes:
        if change.now != change.after and not change.path.is_relative_to(place.own):
            context.say(_shown(change, place.own))
    if not (ask.yes or _agrees(context, f"Take this out of {known.title}? (y/N)")):
        files = [Touched(str(change.path), "as it was") for change in changes]
        return Finding(Installed(ask.program, known.title, False, files), 1)
    _check_unchanged(changes)
    files = [
        Touched(
            str(change.path),
            "removed" if change.after is None
            else "as it was" if change.now is None or sha(change.now) == each.written
            else "kept what was changed since",
        )
        for change, each in zip(changes, kept.values(), strict=True)
    ]  # fmt: skip
    for change in changes:
        _replace(change)
    (place.own / RECORD).unlink(missing_ok=True)
    _prune(place.own)
    return Installed(ask.program, known.title, True, files, known.next)


def _taken(name: str, kept: Kept, own: Path) -> _Change:
    """A file without us; one that somebody removed since stays removed, and of ours in a person's
    folder one that they changed is theirs. Raises: Malformed.
    """
    path = Path(name)
    now = read_file(path)
    if now is not None and sha(now) == kept.written:
        return _Change(path, now, as_bytes(kept.before), kept.mode, kept.made)
    if isinstance(kept.edit, Whole) and not path.is_relative_to(own):
        return _Change(path, now, now, kept.mode, kept.made)
    return _Change(path, now, take(kept.edit, now, as_bytes(kept.before)), kept.mode, kept.made)


def _check_unchanged(changes: list[_Change]) -> None:
    """Raises: Conflict where a file is not any more what was shown."""
    for change in changes:
        if read_file(change.path) != change.now:
            raise Conflict(
                f"{change.path} was changed while you were asked; nothing of it was written, so "
                "begin again"
            )


def _replace(change: _Change) -> None:
    """Write it, or take it away, unless somebody changed it meanwhile. Raises: Conflict.

    Through a link to where the file is: a person's settings may lie elsewhere.
    """
    _check_unchanged([change])
    if change.now == change.after:
        return
    if change.after is None:
        real = change.path.resolve()
        real.unlink(missing_ok=True)
        for folder in real.parents if change.made else ():
            if not _is_empty(folder):
                break
            folder.rmdir()
            if folder == Path(change.made):
                break
    else:
        _write(change.path, change.after, change.mode)


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


def _shown(change: _Change, own: Path) -> str:
    """What would change, as people read it; of a file in our own folder that it is written."""
    if change.path.is_relative_to(own) and change.after is not None:
        lines = change.after.count(b"\n")
        what = "a new file" if change.now is None else "written anew"
        return f"{change.path}: {what} of Muster's own, {lines} lines"
    path, now, after = change.path, change.now, change.after
    old, new = ((each or b"").decode(errors="replace").splitlines() for each in (now, after))
    names = ("/dev/null" if now is None else str(path), "/dev/null" if after is None else str(path))
    return "\n".join(difflib.unified_diff(old, new, *names, lineterm="", n=2))


def _write(path: Path, data: bytes, mode: int) -> None:
    real = path.resolve()
    try:
        real.parent.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise unable(f"{real.parent} cannot be made ({error.strerror})", error) from error
    write_file(real, data)
    if mode != 0o600:
        real.chmod(mode)


def _missing(path: Path) -> str:
    """The outermost folder that has to be made for a file; "" for none."""
    gone = [each for each in path.resolve().parents if not each.exists()]
    return str(gone[-1]) if gone else ""


def _is_empty(folder: Path) -> bool:
    return folder.is_dir() and not any(folder.iterdir())


def _prune(folder: Path) -> None:
    """Take away our folder's empty folders, and it."""
    for path in sorted(folder.rglob("*"), reverse=True):
        if _is_empty(path):
            path.rmdir()
    if _is_empty(folder):
        folder.rmdir()
