"""`muster install` and `muster uninstall`: Muster in the agent programs of a person.

Rule 1: what is to change is shown first, whole, and written when the person says yes.
Rule 2: what each file was is kept, for its owner alone, until all of it is taken out again; so a
file that nobody changed since is as it was, byte for byte, and in one that somebody did all that
is not ours stays.
Rule 3: to install twice changes nothing.
"""

import base64
import difflib
import hashlib
import os
import stat
import sys
from pathlib import Path
from typing import Annotated, Any, Final, Literal

import msgspec
from msgspec import Struct

from muster.agent.plugin.edit import SETTINGS_BYTES_MAX, Edit, Whole, put, take
from muster.agent.plugin.place import Place
from muster.agent.plugin.programs import PROGRAMS, program
from muster.atomic_file import write_file
from muster.errors import Conflict, Malformed, NotFound, unable
from muster.node.host.home import Home
from muster.verbs.client import Finding
from muster.verbs.declaration import Context, Request, opt, pos, verb

_YES: Final = ("y", "yes")
_RECORD: Final = "installed.json"
# Not the one of an environment that may be gone tomorrow, where the system has one.
_PYTHONS: Final = ("/usr/bin/python3",)
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


class _Record(Struct, frozen=True, forbid_unknown_fields=True):
    """What one install wrote: by file, and for which project alone."""

    files: dict[str, "_Kept"] = {}
    project: str = ""


class _Kept(Struct, frozen=True, forbid_unknown_fields=True):
    """What a file was before, and what was written over it (its sha256)."""

    before: str | None
    written: str
    mode: int = 0o600


@verb("install", auth="local", runs="client", group="Messages", on="none")
def install(context: Context, ask: Install) -> Installed | Finding:
    """Put Muster into an agent program: messages, memory and notices come into its sessions.

    What would change is shown first. It writes a plugin or hooks of the program; `uninstall` takes
    all of it out again, byte for byte.

        muster install claude
        muster install codex --yes
    """
    home, known = context.home, program(ask.program)
    home.require()
    place = _place(home, ask.program, Path.cwd() if ask.project else None)
    record, wanted = _read_record(place.own), known.edits(place)
    project, kept = str(place.project or ""), dict(record.files)
    if kept and record.project != project:
        where = f"in {record.project} alone" if record.project else "for all folders"
        raise Conflict(
            f"Muster is in {known.title} {where}: `muster uninstall {ask.program}` first"
        )
    changes = []
    for edit in wanted:
        now = _read(edit.path)
        after = put(edit, now)
        if after != now:
            changes.append((edit, now, after))
    if not changes:
        return Installed(ask.program, known.title, True, _states(wanted, set()), known.next)
    for edit, now, after in changes:
        context.say(_diff(edit.path, now, after))
    if not (ask.yes or _agrees(context, f"Write this into {known.title}? (y/N)")):
        files = _states(wanted, {edit.path for edit, _, _ in changes})
        return Finding(Installed(ask.program, known.title, False, files), 1)
    for edit, now, after in changes:
        old = kept.get(str(edit.path))
        changed_since = old is None or now is None or old.written != _sha(now)
        # What stood there without us: as it was kept, or what somebody made of it since.
        before = take(edit, now) if changed_since or old is None else _bytes(old.before)
        mode = stat.S_IMODE(edit.path.stat().st_mode) if now is not None else 0o600
        kept[str(edit.path)] = _Kept(_text(before), _sha(after), mode)
    # First what is needed to undo it: a crash in between leaves nothing that cannot be.
    _write(place.own / _RECORD, msgspec.json.encode(_Record(kept, project)), 0o600)
    for edit, _, after in changes:
        _write(edit.path, after, kept[str(edit.path)].mode)
    files = _states(wanted, {edit.path for edit, _, _ in changes}, done=True)
    return Installed(ask.program, known.title, True, files, known.next)


@verb("uninstall", auth="local", runs="client", group="Messages", on="none")
def uninstall(context: Context, ask: Uninstall) -> Installed | Finding:
    """Take Muster out of an agent program again: its files are as they were.

    What somebody changed in one of them since stays, and is said.

        muster uninstall claude
    """
    home, known = context.home, program(ask.program)
    home.require()
    place = _place(home, ask.program, None)
    record = _read_record(place.own)
    kept = record.files
    if not kept:
        raise NotFound(f"Muster is not in {known.title}: nothing was put there from this home")
    place = place._replace(project=Path(record.project) if record.project else None)
    edits = {str(edit.path): edit for edit in known.edits(place)}
    plan: list[tuple[Path, bytes | None, bytes | None, bool]] = []
    for name, each in kept.items():
        now = _read(Path(name))
        if now is None or _sha(now) == each.written:
            plan.append((Path(name), now, _bytes(each.before), False))
        else:
            found = edits.get(name)
            rest = take(found, now) if found is not None else now
            plan.append((Path(name), now, rest, True))
    for path, now, after, _ in plan:
        if now != after and not path.is_relative_to(place.own):
            context.say(_diff(path, now, after))
    if not (ask.yes or _agrees(context, f"Take this out of {known.title}? (y/N)")):
        files = [Touched(str(path), "as it was") for path, *_ in plan]
        return Finding(Installed(ask.program, known.title, False, files), 1)
    files = []
    for path, now, after, changed in plan:
        if after is None:
            path.unlink(missing_ok=True)
        elif now != after:
            _write(path, after, kept[str(path)].mode)
        state: Any = "kept what was changed since" if changed else "removed"
        files.append(Touched(str(path), state if after is None or changed else "as it was"))
    (place.own / _RECORD).unlink(missing_ok=True)
    _prune(place.own)
    return Installed(ask.program, known.title, True, files, known.next)


def _place(home: Home, name: str, project: Path | None) -> Place:
    python = next((each for each in _PYTHONS if os.access(each, os.X_OK)), sys.executable)
    return Place(
        Path.home(), os.environ, home.path / "plugins" / name, python, home.socket, _read, project
    )


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


def _diff(path: Path, now: bytes | None, after: bytes | None) -> str:
    """What would change, as people read it."""
    old, new = ((each or b"").decode(errors="replace").splitlines() for each in (now, after))
    names = ("/dev/null" if now is None else str(path), "/dev/null" if after is None else str(path))
    return "\n".join(difflib.unified_diff(old, new, *names, lineterm="", n=2))


def _read(path: Path) -> bytes | None:
    """Raises: Malformed: it is no file of settings; Broken: it cannot be read."""
    try:
        with path.open("rb") as file:
            found = file.read(SETTINGS_BYTES_MAX + 1)
    except FileNotFoundError:
        return None
    except OSError as error:
        raise unable(f"{path} cannot be read ({error.strerror}); mend it first", error) from error
    if len(found) > SETTINGS_BYTES_MAX:
        raise Malformed(f"{path} is larger than any settings are; nothing was changed")
    return found


def _write(path: Path, data: bytes, mode: int) -> None:
    """Through a link to where the file is: a person's settings may lie elsewhere."""
    real = path.resolve()
    try:
        real.parent.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise unable(f"{real.parent} cannot be made ({error.strerror})", error) from error
    write_file(real, data)
    if mode != 0o600:
        real.chmod(mode)


def _prune(folder: Path) -> None:
    """Take away our folder's empty folders, and it."""
    for path in sorted(folder.rglob("*"), reverse=True):
        if path.is_dir() and not any(path.iterdir()):
            path.rmdir()
    if folder.is_dir() and not any(folder.iterdir()):
        folder.rmdir()


def _read_record(folder: Path) -> _Record:
    raw = _read(folder / _RECORD)
    if raw is None:
        return _Record()
    try:
        return msgspec.json.decode(raw, type=_Record)
    except msgspec.DecodeError as error:
        raise Malformed(
            f"{folder / _RECORD} cannot be read ({error}): take Muster's lines out by hand, then "
            "remove that file"
        ) from error


def _sha(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()


def _text(data: bytes | None) -> str | None:
    return None if data is None else base64.b64encode(data).decode()


def _bytes(text: str | None) -> bytes | None:
    return None if text is None else base64.b64decode(text)
