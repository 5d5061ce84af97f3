"""The daemon as a service of this system: systemd's or launchd's, a person's or the system's own.

Rule 1: the system's own programs are asked, each by a list of words and in bounded time; what they
say no to is said with the command that a person can give.
Rule 2: what is done twice is as if it was done once, and `remove` takes away what `install` wrote;
the home is no business of either.
Rule 3: a service is known by the home that its file names, whatever its own name is: one that was
installed through another path of the home, or by an older Muster, is this home's all the same.
"""

import hashlib
import os
import shutil
import sys
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Final

from muster.atomic_file import write_file
from muster.errors import Broken, NotFound, Refused
from muster.git import untrusted_files
from muster.limits import UNIT_BYTES_MAX
from muster.node.host import owner
from muster.node.host.home import Home, default_home
from muster.node.host.keeper import BY_HAND, Manager, State
from muster.node.host.launchd import Launchd, agent_folders
from muster.node.host.systemd import Systemd, unit_folders
from muster.node.host.unit import Service, home_of, read

__all__ = [
    "BY_HAND", "Manager", "State", "everywhere", "faults", "installed", "manager_of", "says",
    "write",
]  # fmt: skip
_PASSED_ON: Final = ("LANG", "LC_ALL")


def manager_of(home: Home, *, system: bool = False) -> Manager:
    """The keeper of this home's service, of the one that is there where one is.

    Raises: Refused on a system that has none we know; NotFound where its owner has no name.
    """
    if sys.platform == "win32":
        raise Refused(
            "Windows runs no service for Muster: let the Task Scheduler start `muster up` at logon"
        )
    service = _service(home, system=system)
    made = _kind()(service)
    if _is_anothers(made.file, home):
        # The place of a default home may have been another folder's when that was installed.
        place = hashlib.sha256(os.fsencode(os.path.realpath(home.path))).hexdigest()
        made = _kind()(service._replace(name=f"{service.name}-{place[:8]}"))
    # What lies elsewhere than where the system reads is not the one that runs.
    there = (each for each in _found(home, system=system) if each.file.parent == made.file.parent)
    return next(there, made)


def installed(home: Home) -> Manager | None:
    """The service of this home, a person's before the system's; None without one."""
    return next(iter(everywhere(home)), None)


def everywhere(home: Home) -> list[Manager]:
    """Every service of this home, a person's before the system's."""
    if sys.platform == "win32":
        return []
    return [each for system in (False, True) for each in _found(home, system=system)]


def _found(home: Home, *, system: bool) -> Iterator[Manager]:
    """The services of this home of one kind, first the one in the place that the system reads."""
    try:
        service = _service(home, system=system)
        folders = _folders(home, system=system)
    except NotFound:
        # An owner without a name has no service of the system.
        return
    for folder in folders:
        made = _kind()(service, folder)
        if made.file.exists() and not _is_anothers(made.file, home):
            yield made
        for file in sorted(folder.glob(f"*muster*{made.file.suffix}")):
            if file != made.file and _names(file, home):
                yield _kind()(service._replace(name=file.stem), folder)


def _names(file: Path, home: Home) -> bool:
    """Whether a file is a service's, and of this home."""
    named = _named(file)
    return bool(named) and os.path.realpath(named) == os.path.realpath(home.path)


def _is_anothers(file: Path, home: Home) -> bool:
    """Whether a file says that it is the service of another home."""
    return bool(_named(file)) and not _names(file, home)


def _named(file: Path) -> str:
    """The home that a service's file names, "" where it names none."""
    try:
        return home_of(_text(file))
    except ValueError:
        return ""


def _text(file: Path) -> bytes:
    """A service's file. Root looks into folders of others: it may be a pipe, or have no end."""
    return untrusted_files.read(file, UNIT_BYTES_MAX, follow=True) or b""


def _kind() -> type[Systemd] | type[Launchd]:
    return Launchd if sys.platform == "darwin" else Systemd


def _folders(home: Home, *, system: bool) -> list[Path]:
    where = agent_folders if sys.platform == "darwin" else unit_folders
    return where(home.path, system=system)


def faults(manager: Manager, programs: Iterable[str]) -> list[str]:
    """What the file of a service says that is true no more, of these programs as well."""
    text = _text(manager.file)
    try:
        written = read(text)
    except ValueError as error:
        return [f"{manager.file} cannot be read: {error}"]
    if not os.path.exists(written.program):
        return [f"{written.program} is gone, which it starts"]
    if b"\nStartLimitBurst=" in text:
        return ["an older Muster wrote its unit: after thirty failed starts it is given up"]
    hidden = [p for p in programs if shutil.which(p) and not shutil.which(p, path=written.path)]
    return [f"its PATH lacks what this shell finds: {', '.join(hidden)}"] if hidden else []


def says(manager: Manager) -> bool:
    """Whether the file of a service says already what is to run."""
    return _text(manager.file) == manager.text()


def write(manager: Manager) -> bool:
    """Write the file of a service; False where it says this already."""
    if says(manager):
        return False
    text = manager.text()
    try:
        manager.file.parent.mkdir(parents=True, exist_ok=True)
        write_file(manager.file, text)
        # No secret stands in it, and who looks after the computer may read it.
        manager.file.chmod(0o644)
    except OSError as error:
        raise Broken(f"{manager.file} cannot be written: {error.strerror}") from error
    return True


def _service(home: Home, *, system: bool) -> Service:
    """What is to run: this home's daemon, by the interpreter that runs this command.

    Raises: NotFound where the system cannot name its owner.
    """
    stem, user, uid = "muster", "", os.getuid()
    if system:
        # It runs as whose home it is, whoever installs it.
        uid = owner.uid_of(home.path)
        user = owner.name_of(uid)
        stem = f"muster-{user}"
    real = os.path.realpath(home.path)
    base = default_home() if uid == os.getuid() else owner.folder_of(uid) / owner.DATA
    if real != os.path.realpath(base):
        stem += f"-{hashlib.sha256(os.fsencode(real)).hexdigest()[:8]}"
    return Service(
        name=("muster-fleet." if sys.platform == "darwin" else "") + stem,
        home=str(home.path),
        argv=(sys.executable, "-P", "-m", "muster", "--home", str(home.path), "up"),
        fallen=(sys.executable, "-P", "-m", "muster.node.fallen", str(home.path)),
        env={
            **{name: os.environ[name] for name in _PASSED_ON if os.environ.get(name)},
            "MUSTER_STATE": os.path.abspath(home.state_folder),
            "PATH": _path(os.environ, uid),
        },
        log=home.daemon_log,
        user=user,
    )


def _path(env: Mapping[str, str], uid: int) -> str:
    """Where an attempt finds programs: the PATH of the shell in which the service was installed.

    Under `sudo` that is root's: the folders that a person's own programs lie in come before it.
    """
    folders = [
        each for each in env.get("PATH", os.defpath).split(os.pathsep) if os.path.isabs(each)
    ]
    if uid != os.getuid():
        own = owner.folder_of(uid)
        mine = (own / ".local/bin", own / "bin")
        folders = [*(str(each) for each in mine if each.is_dir()), *folders]
    return os.pathsep.join(dict.fromkeys(folders))
