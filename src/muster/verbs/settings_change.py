"""How `muster install` changes a file of a person: looked at again, whole or not at all.

Rule 1: what was shown is what is changed. A file that is not any more what it was is left alone.
Rule 2: a temporary file has our name, so that one that was left by a crash is known and goes.
Rule 3: for one project alone nothing outside of it is touched: a link that leads out is none of
ours, whoever made it and when.
"""

import difflib
import os
import stat
from collections.abc import Iterable
from pathlib import Path
from typing import NamedTuple

from muster.agent.plugin.place import Place
from muster.atomic_file import write_file
from muster.errors import Conflict, Refused, unable
from muster.verbs.installed import RECORD, read_file


class Change(NamedTuple):
    """What a file is now, and what it is to be: None where it is no more.

    `made` is the outermost folder that was made for it, "" for none.
    """

    path: Path
    now: bytes | None
    after: bytes | None
    made: str = ""


def is_inside(path: Path, project: str, own: Path) -> bool:
    """Whether a file lies in the project that alone is meant, or in our own folder."""
    if not project or path.is_relative_to(own):
        return True
    return Path(os.path.realpath(path)).is_relative_to(os.path.realpath(project))


def check_inside(path: Path, project: str, own: Path) -> None:
    """Raises: Refused where a link of the project leads out of it."""
    if not is_inside(path, project, own):
        raise Refused(
            f"{path} leads out of {project}, to {os.path.realpath(path)}, and nothing was changed; "
            "take that link away, or leave --project out"
        )


def check_unchanged(changes: list[Change]) -> None:
    """Raises: Conflict where a file is not any more what was shown."""
    for change in changes:
        if change.now != change.after and read_file(change.path) != change.now:
            raise Conflict(
                f"{change.path} was changed while you were asked; nothing of it was written, so "
                "begin again"
            )


def replace(change: Change, place: Place, project: str) -> None:
    """Write it, or take it away with the folders that were made for it, unless somebody changed it
    meanwhile. Raises: Conflict, Refused.

    Through a link to where the file is: a person's settings may lie elsewhere.
    """
    path, real = change.path, Path(os.path.realpath(change.path))
    if not is_inside(path, project, place.own):
        if change.now != change.after:
            check_inside(path, project, place.own)
        return
    check_unchanged([change])
    if change.after is None:
        if change.now is not None:
            real.unlink(missing_ok=True)
        for folder in real.parents if change.made else ():
            if not _is_empty(folder):
                break
            folder.rmdir()
            if folder == Path(change.made):
                break
    elif change.now != change.after:
        # Its rights are those that it has by now: a person may have taken some away since.
        mode = 0o600 if change.now is None else stat.S_IMODE(real.stat().st_mode)
        write(path, change.after, mode, place.name)


def shown(change: Change, own: Path) -> str:
    """What would change, as people read it; of a file in our own folder that it is written."""
    if change.path.is_relative_to(own) and change.after is not None:
        lines = change.after.count(b"\n")
        what = "a new file" if change.now is None else "written anew"
        return f"{change.path}: {what} of Muster's own, {lines} lines"
    path, now, after = change.path, change.now, change.after
    old, new = ((each or b"").decode(errors="replace").splitlines() for each in (now, after))
    names = ("/dev/null" if now is None else str(path), "/dev/null" if after is None else str(path))
    return "\n".join(difflib.unified_diff(old, new, *names, lineterm="", n=2))


def write(path: Path, data: bytes, mode: int, tag: str) -> None:
    """Write a file whole, with the folders that it needs. Raises: Broken, Exhausted."""
    real = Path(os.path.realpath(path))
    try:
        real.parent.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise unable(f"{real.parent} cannot be made ({error.strerror})", error) from error
    write_file(real, data, mode=mode, temporary=f".tmp-{tag}-")


def sweep(files: Iterable[str], place: Place, project: str) -> None:
    """Take away what a crash left half written beside these files, where they lie inside."""
    inside = [each for each in map(Path, files) if is_inside(each, project, place.own)]
    for folder in {Path(os.path.realpath(each)).parent for each in inside}:
        for each in folder.glob(f".tmp-{place.name}-????????"):
            each.unlink(missing_ok=True)


def missing(path: Path) -> str:
    """The outermost folder that has to be made for a file; "" for none."""
    gone = [each for each in Path(os.path.realpath(path)).parents if not each.exists()]
    return str(gone[-1]) if gone else ""


def prune(place: Place) -> None:
    """Take away our folder's empty folders, the record of it, and it."""
    if not place.own.is_dir():
        return
    for path in sorted(place.own.rglob("*"), reverse=True):
        if path.match(f".tmp-{place.name}-????????"):
            path.unlink(missing_ok=True)
        elif _is_empty(path):
            path.rmdir()
    (place.own / RECORD).unlink(missing_ok=True)
    if _is_empty(place.own):
        place.own.rmdir()


def _is_empty(folder: Path) -> bool:
    return folder.is_dir() and not any(folder.iterdir())
