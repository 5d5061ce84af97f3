"""What a phase promised to deliver: whether it is in the commit, and if not, why.

Rule 1: a deliverable is delivered when it is in the commit, and not because it lies in the folder.
Rule 2: the reason is what the folder shows: a link, a repository of its own, a pipe, nothing.
"""

import contextlib
import os
import stat
from collections.abc import Mapping
from pathlib import Path, PurePosixPath

from muster.errors import Malformed
from muster.git import command as git


def inside(text: str) -> str:
    """A deliverable's path, which must stay in the work folder."""
    path = PurePosixPath(text)
    if not text or path.is_absolute() or ".." in path.parts or ".git" in path.parts:
        raise Malformed(
            f"The deliverable {git.clean(text)!r} must be a path inside the work folder."
        )
    return str(path)


def obstacle(root: Path, path: str, nested: list[bytes]) -> str:
    """Why a deliverable cannot be in the commit, as far as the folder tells; "" where it can.

    `-` stands for what is simply not there.
    """
    at, parts = root, PurePosixPath(path).parts
    for number, part in enumerate(parts, 1):
        at /= part
        try:
            mode = at.lstat().st_mode
        except OSError:
            return "-"
        here = at.relative_to(root)
        if os.fsencode(here) in nested:
            return f"{here} is a git repository of its own; remove its .git"
        if stat.S_ISLNK(mode):
            if number < len(parts):
                return f"it is behind the link {here}"
            # It leads nowhere or in a circle, and is refused as the sentence below says.
            with contextlib.suppress(OSError, RuntimeError):
                if at.resolve(strict=True).is_relative_to(root.resolve()):
                    return ""
            return "it is a link that leads out of the folder"
        if number == len(parts) and not stat.S_ISREG(mode) and not stat.S_ISDIR(mode):
            return "it is neither a file nor a folder"
    return ""


async def missing(
    folder: Path, store: git.Git, tree: str, obstacles: Mapping[str, str]
) -> tuple[str, ...]:
    """The promised files that are not in the written tree, with what is known of the reason."""
    found, asked = [], {path for path, why_not in obstacles.items() if not why_not}
    targets = _targets(folder, asked)
    names, held = sorted(asked.union(targets.values()) - {"."}), set[str]()
    if names:
        # An argument list has a bound, and a deliverable at most a few hundred characters. With -t
        # a folder is named also where git looks into it for another one of the paths.
        listed = await store.names("ls-tree", "-t", "-z", "--name-only", tree, "--", *names)
        held = {os.fsdecode(name) for name in listed}
    for path, why_not in obstacles.items():
        why = why_not
        if not why_not and path not in held:
            empty = (folder / path).is_dir()
            why = "nothing is in it that git keeps" if empty else "git does not keep it"
        if not why and targets.get(path, ".") != "." and targets[path] not in held:
            why = "it is a link to what is not in the commit"
        if why:
            found.append(path if why == "-" else f"{path} ({why})")
    return tuple(found)


def _targets(folder: Path, paths: set[str]) -> dict[str, str]:
    """Where those of the paths that are links lead, inside the folder."""
    root, links = folder.resolve(), [path for path in paths if (folder / path).is_symlink()]
    return {path: (folder / path).resolve().relative_to(root).as_posix() for path in links}
