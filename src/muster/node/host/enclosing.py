"""Whether this machine can enclose work; where it cannot, what keeps it from that and what helps.

Rule 1: what counts is a try, as the user that work would run as: a program that is there may still
        be kept from it, and what keeps it may be gone after an update.
Rule 2: why a try failed is looked for afterwards, in what this system says of itself. What nothing
        explains is told in the words of the program.
Rule 3: it is tried anew every FACTS_REFRESH_MS, and never in the loop: a try takes a moment.
"""

import os
import shutil
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Final, NamedTuple

from muster import limits
from muster.agent.sandbox.probe import probe
from muster.errors import MusterError
from muster.node.host.sandbox_config import PROGRAM, SandboxConfig, uid_of
from muster.task.openings import OFF
from muster.task.route import ENFORCED, SANDBOX, UNENCLOSED

# (program, uid that it drops to, 0 for our own) -> "", or what the program said.
Try = Callable[[str, int], str]

_CAUSE_CHARS_MAX: Final = 180
_READ_BYTES_MAX: Final = 4096
_SECCOMP_FILTERED: Final = "2"

_ELSEWHERE: Final = (
    'or `default = "off"` under [sandbox] in config.toml, for an owner who accepts that such work '
    "can do all that they can"
)
_OTHER: Final = f"give such work to another machine, {_ELSEWHERE}"


class Obstacle(NamedTuple):
    """What keeps a machine from enclosing work, as a few words, and what a person does about it."""

    cause: str
    mend: str


class System(NamedTuple):
    """What a system says of itself that may keep a program from making namespaces."""

    platform: str
    # AppArmor lets only programs that it knows make user namespaces (Ubuntu 23.10 and newer).
    apparmor: bool = False
    # How many user namespaces there may be, and whether anybody but root makes them.
    namespaces: str = ""
    unprivileged: str = ""
    # In a container, whose filter of system calls forbids it (Docker's, if nothing else is said).
    container: bool = False
    filtered: bool = False


def system() -> System:
    """What this system says of itself."""
    filters = [line for line in _read("/proc/self/status").splitlines() if "Seccomp:" in line]
    return System(
        platform=sys.platform,
        apparmor=_read("/proc/sys/kernel/apparmor_restrict_unprivileged_userns") == "1",
        namespaces=_read("/proc/sys/user/max_user_namespaces"),
        unprivileged=_read("/proc/sys/kernel/unprivileged_userns_clone"),
        container=any(map(os.path.exists, ("/.dockerenv", "/run/.containerenv"))),
        filtered=bool(filters) and filters[0].split()[-1] == _SECCOMP_FILTERED,
    )


def obstacle(said: str, here: System) -> Obstacle:
    """What kept a program that said this from enclosing, on such a system."""
    if here.platform == "win32":
        return Obstacle("Windows runs no attempts enclosed", _OTHER)
    if here.platform == "darwin":
        return Obstacle("Muster does not enclose work on macOS yet", _OTHER)
    if here.namespaces == "0":
        return Obstacle(
            "this system allows no user namespaces (user.max_user_namespaces is 0)",
            "sudo sysctl user.max_user_namespaces=15000, and the same in /etc/sysctl.d",
        )
    if here.unprivileged == "0":
        return Obstacle(
            "this system lets root alone make user namespaces",
            "sudo sysctl kernel.unprivileged_userns_clone=1, and the same in /etc/sysctl.d",
        )
    if here.apparmor:
        return Obstacle(
            "AppArmor keeps bubblewrap from making user namespaces",
            "put a profile into /etc/apparmor.d that lets bwrap have `userns,` (Ubuntu's package "
            "apparmor-profiles has one: bwrap-userns-restrict), then: sudo systemctl reload "
            "apparmor",
        )
    if here.container and here.filtered:
        return Obstacle(
            "this container's seccomp profile forbids user namespaces",
            "start the container with a profile that lets it unshare, clone and mount (docker run "
            f"--security-opt seccomp=FILE), {_ELSEWHERE}",
        )
    words = "".join(each if each.isprintable() else " " for each in said).strip()
    return Obstacle((words or "it was tried, and failed")[:_CAUSE_CHARS_MAX], _OTHER)


MISSING: Final = Obstacle(
    "bubblewrap is not installed",
    "install the package bubblewrap (apt, dnf, pacman and apk all call it so)",
)


class Enclosing:
    """Whether it can here, as it was found last."""

    def __init__(self, attempt: Try = probe, look: Callable[[], System] = system) -> None:
        self._try, self._look = attempt, look
        self._found: dict[tuple[str, int], tuple[int, Obstacle | None]] = {}

    def obstacle(self, config: SandboxConfig, path: str | None, now_ms: int) -> Obstacle | None:
        """What keeps it from enclosing, None for nothing. Blocks while it is tried."""
        here = self._look()
        if here.platform in {"win32", "darwin"}:
            return obstacle("", here)
        program = program_of(config, path)
        if not program:
            named = config.program
            return Obstacle(f"{named} is not there", MISSING.mend) if named else MISSING
        try:
            user = uid_of(config.user)
        except MusterError as error:
            return Obstacle(str(error)[:_CAUSE_CHARS_MAX], "`user` under [sandbox] in config.toml")
        known = self._found.get((program, user))
        if known is None or now_ms - known[0] >= limits.FACTS_REFRESH_MS:
            said = self._try(program, user)
            known = (now_ms, obstacle(said, here) if said else None)
            self._found = {(program, user): known}
        return known[1]

    def fact(self, config: SandboxConfig, path: str | None, now_ms: int) -> dict[str, str]:
        """What the machine says of its sandbox, as facts say it: older machines read its tools."""
        found, off = self.obstacle(config, path, now_ms), config.default == OFF
        if found is None:
            return {SANDBOX: UNENCLOSED if off else ENFORCED}
        return {SANDBOX: f"{UNENCLOSED}: {found.cause}" if off else found.cause}


def program_of(config: SandboxConfig, path: str | None) -> str:
    """What encloses here, as a whole path; "" where there is none."""
    return shutil.which(config.program or PROGRAM, path=path) or ""


def _read(path: str) -> str:
    try:
        return Path(path).read_bytes()[:_READ_BYTES_MAX].decode("utf-8", "replace").strip()
    except OSError:
        return ""
