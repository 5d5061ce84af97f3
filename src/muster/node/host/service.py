"""The daemon as a service of this system: systemd's or launchd's, a person's or the system's own.

Rule 1: the system's own programs are asked, each by a list of words and in bounded time; what they
say no to is said with the command that a person can give.
Rule 2: what is done twice is as if it was done once, and `remove` takes away what `install` wrote;
the home is no business of either.
"""

import contextlib
import hashlib
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Final, NamedTuple, Protocol

from muster.atomic_file import write_file
from muster.errors import Broken, Denied, NotFound, Refused, Unreachable
from muster.limits import SERVICE_ANSWER_S
from muster.node.host.home import Home, default_home
from muster.node.host.unit import START_S, Service, launchd_plist, read, systemd_unit

BY_HAND: Final = "`muster up --detach` starts the daemon until the next reboot"
_PASSED_ON: Final = ("LANG", "LC_ALL")
_LINGERS: Final = Path("/var/lib/systemd/linger")
_SESSIONS: Final = "/run/user"


class State(NamedTuple):
    """What the system says of a service: `since` in its own words, `active` as systemd's."""

    installed: bool
    enabled: bool = False
    active: str = "inactive"
    pid: int = 0
    since: str = ""


class Manager(Protocol):
    """A system's own keeper of services, for one service of one home."""

    service: Service
    scope: str
    file: Path
    # How a person reads what the daemon says.
    log: str

    def prepare(self) -> None:
        """Have it keep the service without a login, as far as that is ours to say."""

    def check(self) -> None:
        """Raises: NotFound where there is none here; Denied where it takes more rights."""

    def text(self) -> bytes:
        """The file that says what is to run."""

    def state(self) -> State: ...

    def start(self) -> None:
        """Begin now and after each reboot, as the file says it. Raises: Broken."""

    def stop(self) -> None:
        """End now and begin no more. The file is still there."""

    def forget(self) -> None:
        """The file is gone: nothing of it is left."""

    def to_do(self) -> list[str]:
        """What is missing for a start after a reboot, each with the command a person gives."""


class Systemd:
    """A unit of the person's own systemd, or, as root, of the system's."""

    def __init__(self, service: Service) -> None:
        self.service = service
        self.scope = "system" if service.user else "user"
        self.unit = f"{service.name}.service"
        self._base = ["systemctl"] if service.user else ["systemctl", "--user"]
        own = Path(os.environ.get("XDG_CONFIG_HOME") or "~/.config").expanduser()
        folder = Path("/etc/systemd/system") if service.user else own / "systemd" / "user"
        self.file = folder / self.unit
        self.log = f"journalctl {'' if service.user else '--user '}--unit {self.unit}"

    def prepare(self) -> None:
        # A person's own systemd runs while somebody is logged in, or it lingers.
        if self.to_do() and _there("loginctl"):
            _ask(["loginctl", "--no-ask-password", "enable-linger"])

    def check(self) -> None:
        if not _there(self._base[0]):
            raise NotFound(f"there is no systemd here, as in a container; {BY_HAND}")
        if self.service.user and not os.access(self.file.parent, os.W_OK):
            raise Denied(f"a unit of the system is root's to install: `sudo {_typed()}`")
        answer = _ask([*self._base, "show-environment"])
        if answer.returncode:
            raise NotFound(
                f"no systemd answers here ({_said(answer)}), as in a container"
                f"{'' if self.service.user else ' or without a login session'}; {BY_HAND}"
            )

    def text(self) -> bytes:
        return systemd_unit(self.service).encode()

    def state(self) -> State:
        if not self.file.exists() or not _there(self._base[0]):
            return State(self.file.exists())
        wanted = ("ActiveState", "UnitFileState", "MainPID", "ActiveEnterTimestamp")
        answer = _ask([*self._base, "show", self.unit, f"--property={','.join(wanted)}"])
        found = dict(line.partition("=")[::2] for line in answer.stdout.splitlines())
        return State(
            installed=True,
            enabled=found.get("UnitFileState") == "enabled",
            active=found.get("ActiveState") or "unknown",
            pid=int(found.get("MainPID") or 0),
            since=found.get("ActiveEnterTimestamp", ""),
        )

    def start(self) -> None:
        self._do("daemon-reload")
        self._do("enable", self.unit)
        # What gave up too often begins to count anew; a unit that was never there has no count.
        _ask([*self._base, "reset-failed", self.unit])
        self._do("restart", self.unit, why=f"; `{self.log} -n 20` shows what it said")

    def stop(self) -> None:
        self._do("disable", "--now", self.unit)

    def forget(self) -> None:
        self._do("daemon-reload")
        _ask([*self._base, "reset-failed", self.unit])

    def to_do(self) -> list[str]:
        if self.service.user or (_LINGERS / _me()).exists():
            return []
        answer = _ask(["loginctl", "show-user", _me(), "--property=Linger", "--value"])
        if answer.stdout.strip() == "yes":
            return []
        return [
            f"to run without a login, and after a reboot: `sudo loginctl enable-linger {_me()}`"
        ]

    def _do(self, *words: str, why: str = "") -> None:
        answer = _ask([*self._base, *words], within_s=START_S)
        if answer.returncode:
            raise Broken(f"`{' '.join([*self._base, *words])}` failed: {_said(answer)}{why}")


class Launchd:
    """An agent of the person's session, or, as root, a daemon of the system."""

    def __init__(self, service: Service) -> None:
        self.service = service
        self.scope = "system" if service.user else "user"
        self.domain = "system" if service.user else f"gui/{os.getuid()}"
        folder = "/Library/LaunchDaemons" if service.user else "~/Library/LaunchAgents"
        self.file = Path(folder).expanduser() / f"{service.name}.plist"
        self.log = f"tail -f {service.log!r}" if " " in service.log else f"tail -f {service.log}"

    def prepare(self) -> None:
        """An agent of a session begins with it."""

    def check(self) -> None:
        if not _there("launchctl"):
            raise NotFound(f"there is no launchd here; {BY_HAND}")
        if self.service.user and os.geteuid():
            raise Denied(f"a daemon of the system is root's to install: `sudo {_typed()}`")

    def text(self) -> bytes:
        return launchd_plist(self.service)

    def state(self) -> State:
        if not self.file.exists():
            return State(installed=False)
        answer = _ask(["launchctl", "print", f"{self.domain}/{self.service.name}"])
        found = re.search(r"^\s*pid = (\d+)$", answer.stdout, re.MULTILINE)
        # What is not loaded begins at the next login, unless it was disabled.
        pid = int(found[1]) if found else 0
        return State(True, not answer.returncode, "active" if pid else "inactive", pid)

    def start(self) -> None:
        if self.state().enabled:
            self.stop()
        for words in (["enable", f"{self.domain}/{self.service.name}"],
                      ["bootstrap", self.domain, str(self.file)]):  # fmt: skip
            answer = _ask(["launchctl", *words])
            if answer.returncode:
                raise Broken(
                    f"`launchctl {' '.join(words)}` failed: {_said(answer)}; see {self.service.log}"
                )

    def stop(self) -> None:
        _ask(["launchctl", "bootout", f"{self.domain}/{self.service.name}"])

    def forget(self) -> None:
        """Whatever was stopped is known no more."""

    def to_do(self) -> list[str]:
        return []


def manager_of(home: Home, *, system: bool = False) -> Manager:
    """The keeper of this home's service. Raises: Refused on a system that has none we know."""
    service = _service(home, system=system)
    if sys.platform == "darwin":
        return Launchd(service)
    if sys.platform == "win32":
        raise Refused(
            "Windows runs no service for Muster: let the Task Scheduler start `muster up` at logon"
        )
    return Systemd(service)


def installed(home: Home) -> Manager | None:
    """The service of this home, a person's before the system's; None without one."""
    if sys.platform == "win32":
        return None
    found = (manager_of(home, system=system) for system in (False, True))
    return next((each for each in found if each.file.exists()), None)


def faults(manager: Manager, programs: Iterable[str]) -> list[str]:
    """What the file of a service says that is true no more, of these programs as well."""
    try:
        written = read(manager.file.read_bytes())
    except (OSError, ValueError) as error:
        return [f"{manager.file} cannot be read: {error}"]
    if not os.path.exists(written.program):
        return [f"{written.program} is gone, which it starts"]
    hidden = [p for p in programs if shutil.which(p) and not shutil.which(p, path=written.path)]
    return [f"its PATH lacks what this shell finds: {', '.join(hidden)}"] if hidden else []


def write(manager: Manager) -> bool:
    """Write the file of a service; False where it says this already."""
    text = manager.text()
    with contextlib.suppress(OSError):
        if manager.file.read_bytes() == text:
            return False
    try:
        manager.file.parent.mkdir(parents=True, exist_ok=True)
        write_file(manager.file, text)
        # No secret stands in it, and who looks after the computer may read it.
        manager.file.chmod(0o644)
    except OSError as error:
        raise Broken(f"{manager.file} cannot be written: {error.strerror}") from error
    return True


def _service(home: Home, *, system: bool) -> Service:
    """What is to run: this home's daemon, by the interpreter that runs this command."""
    stem, user, prefix = "muster", "", "muster-fleet." if sys.platform == "darwin" else ""
    if system:
        # It runs as whose home it is, whoever installs it.
        user = _owner(home)
        stem = f"muster-{user}"
    if not _is_default(home, user):
        stem += f"-{hashlib.sha256(os.fsencode(home.path)).hexdigest()[:8]}"
    return Service(
        name=prefix + stem,
        home=str(home.path),
        argv=(sys.executable, "-P", "-m", "muster", "--home", str(home.path), "up"),
        env={
            **{name: os.environ[name] for name in _PASSED_ON if os.environ.get(name)},
            "MUSTER_STATE": os.path.dirname(_state_of(home, user)),
            "PATH": _path(os.environ, user),
        },
        log=home.daemon_log,
        user=user,
    )


def _owner(home: Home) -> str:
    import pwd  # noqa: PLC0415 - not on every platform

    try:
        return pwd.getpwuid(os.stat(home.path).st_uid).pw_name
    except (OSError, KeyError) as error:
        raise NotFound(
            f"whose {home.path} is, cannot be told; name the home with --home"
        ) from error


def _is_default(home: Home, user: str) -> bool:
    """Whether this is the home that its person has without naming one."""
    base = default_home()
    if user and user != _me():
        base = Path(os.path.expanduser(f"~{user}")) / base.relative_to(Path.home())
    return home.path == base


def _state_of(home: Home, user: str) -> str:
    """The folder of the mark, of the person whose daemon it is, whoever installs the service."""
    if not user or user == _me() or os.environ.get("MUSTER_STATE"):
        return home.mark_folder
    return str(
        Path(os.path.expanduser(f"~{user}")) / Path(home.mark_folder).relative_to(Path.home())
    )


def _path(env: Mapping[str, str], user: str) -> str:
    """Where an attempt finds programs: the PATH of the shell in which the service was installed.

    Under `sudo` that is root's: the folders that a person's own programs lie in come before it.
    """
    folders = [
        each for each in env.get("PATH", os.defpath).split(os.pathsep) if os.path.isabs(each)
    ]
    if user and user != _me():
        own = Path(os.path.expanduser(f"~{user}"))
        mine = (own / ".local/bin", own / "bin")
        folders = [*(str(each) for each in mine if each.is_dir()), *folders]
    return os.pathsep.join(dict.fromkeys(folders))


def _me() -> str:
    import pwd  # noqa: PLC0415 - not on every platform

    try:
        return pwd.getpwuid(os.getuid()).pw_name
    except KeyError:
        # A container's user without a name.
        return str(os.getuid())


def _typed() -> str:
    return f"{os.path.abspath(sys.argv[0])} service install --system --home HOME"


def _there(program: str) -> bool:
    return shutil.which(program) is not None


def _ask(argv: list[str], within_s: float = SERVICE_ANSWER_S) -> subprocess.CompletedProcess[str]:
    """What a program of the system answers. Raises: Unreachable where it does not."""
    try:
        return subprocess.run(
            argv, stdin=subprocess.DEVNULL, capture_output=True, text=True, errors="replace",
            timeout=within_s, check=False, env=_session(),
        )  # fmt: skip
    except OSError as error:
        return subprocess.CompletedProcess(argv, 127, "", f"{argv[0]}: {error.strerror}")
    except subprocess.TimeoutExpired:
        raise Unreachable(f"`{' '.join(argv)}` gave no answer within {within_s:g} s") from None


def _session() -> Mapping[str, str]:
    """Our environment, and where the person's own systemd listens.

    A shell that `su` or cron opened has no word of the session that is there.
    """
    own = f"{_SESSIONS}/{os.getuid()}"
    if "XDG_RUNTIME_DIR" in os.environ or not os.path.isdir(own):
        return os.environ
    return {**os.environ, "XDG_RUNTIME_DIR": own}


def _said(answer: subprocess.CompletedProcess[str]) -> str:
    lines = [each.strip() for each in (answer.stderr or answer.stdout).splitlines() if each.strip()]
    return lines[0].rstrip(".")[:200] if lines else f"exit code {answer.returncode}"
