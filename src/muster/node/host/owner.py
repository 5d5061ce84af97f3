"""Whose a home is, and where that person's own folders are: root works on homes of others.

Rule 1: what root writes into another person's home as itself, that person's daemon cannot open any
more; so whoever would open it asks here first.
Rule 2: the variables of root's shell say nothing of another person's folders: theirs are where the
platform puts them.
"""

import contextlib
import os
import shlex
import shutil
import sys
from pathlib import Path
from typing import Final

from muster.errors import Denied, NotFound

_MAC: Final = sys.platform == "darwin"
# Below the folder of a person, where no variable says another place.
DATA: Final = Path("Library/Application Support/muster" if _MAC else ".local/share/muster")
STATE: Final = Path("Library/Application Support/muster" if _MAC else ".local/state/muster")
USER_UNITS: Final = Path(".config/systemd/user")


def uid_of(home: Path) -> int:
    """Raises: NotFound where it cannot be told."""
    try:
        return home.stat().st_uid
    except OSError as error:
        raise NotFound(f"whose {home} is, cannot be told: {error.strerror}") from error


def name_of(uid: int) -> str:
    """Raises: NotFound for a user without a name, as a container has them."""
    import pwd  # noqa: PLC0415 - not on every platform

    try:
        return pwd.getpwuid(uid).pw_name
    except KeyError as error:
        raise NotFound(f"the user {uid} has no name on this system") from error


def called(uid: int) -> str:
    """A user as `sudo -u` takes one: a name, or the number where there is none."""
    try:
        return name_of(uid)
    except NotFound:
        return f"#{uid}"


def folder_of(uid: int) -> Path:
    """The folder of a person. Raises: NotFound for another user without a name."""
    if uid == os.getuid():
        return Path(os.path.expanduser("~"))
    return Path(os.path.expanduser(f"~{name_of(uid)}"))


def stranger(home: Path) -> int | None:
    """The uid of the person whose home this is; None where it is ours, or not there."""
    if sys.platform == "win32":
        return None
    me, found = os.geteuid(), None
    # A folder that a container was handed may be anybody's: whoever wrote the seed lives in it.
    for each in (home, home / "seed"):
        try:
            uid = each.stat().st_uid
        except OSError:
            # It is not there, or not for us to see: then it tells of nobody.
            continue
        if uid == me:
            return None
        found = uid if found is None else found
    return found


def require_own(home: Path, words: str) -> None:
    """Raises: Denied where the home is another person's, with the command as that person."""
    theirs = stranger(home)
    if theirs is not None:
        raise Denied(
            f"{home} belongs to {called(theirs)}, who could not open what is written there as "
            f"{called(os.geteuid())}: `{command_as(theirs, home, words)}`"
        )


def command_as(uid: int, home: Path, words: str) -> str:
    """A command about this home as root types it for the person whose home it is."""
    return f"sudo -u {shlex.quote(called(uid))} {command(home, words)}"


def command(home: Path, words: str) -> str:
    """A command about this home as a person types it, also under `sudo`."""
    typed = os.path.abspath(shutil.which(sys.argv[0]) or sys.argv[0])
    # Started as `python -m muster`, that is a file which no shell runs.
    known = os.path.basename(typed) == "muster" and os.access(typed, os.X_OK)
    program = shlex.quote(typed) if known else f"{shlex.quote(sys.executable)} -m muster"
    return f"{program} {words} --home {shlex.quote(str(home))}"


def whose(name: str) -> str:
    """For who was refused a file: whose the nearest folder is that can be seen, and what to do.

    "" where that cannot be told. Mostly it is the home of who typed `sudo` once.
    """
    if sys.platform == "win32" or not name:
        return ""
    path = Path(name).absolute()
    for seen in (path, *path.parents):
        # What cannot be seen is in a folder above, which may be seen.
        with contextlib.suppress(OSError):
            uid, me = seen.lstat().st_uid, os.geteuid()
            if uid == me:
                mode = f"`ls -ld {seen}` shows what its mode allows you"
                return f"{mode}, `chmod u+rwX {seen}` changes it"
            said = f"{seen} belongs to {called(uid)} and you are {called(me)}"
            return f"{said}: be that user, or give another home with --home"
    return ""
