"""A unit of the person's own systemd, or, as root, of the system's.

Rule 1: a unit of a person lies where their systemd reads it, which the shell may not know; and
where a shell once wrote one, it is found again.
"""

import contextlib
import os
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Final, Literal

from muster.errors import Broken, Denied, MusterError, NotFound, Unreachable
from muster.node.host import owner, program
from muster.node.host.keeper import BY_HAND, Deed, State, for_root
from muster.node.host.unit import START_S, Service, systemd_unit

SYSTEM_UNITS: Final = Path("/etc/systemd/system")
_LINGERS: Final = Path("/var/lib/systemd/linger")
_ASKED: Final = (
    "LoadState", "ActiveState", "SubState", "UnitFileState", "MainPID", "ActiveEnterTimestamp",
    "Result", "ExecMainStatus", "NRestarts",
)  # fmt: skip


class Systemd:
    """See `keeper.py` for what is asked of it."""

    def __init__(self, service: Service, folder: Path | None = None) -> None:
        self.service = service
        self.scope: Literal["user", "system"] = "system" if service.user else "user"
        self.unit = f"{service.name}.service"
        self._base = ["systemctl"] if service.user else ["systemctl", "--user"]
        # Another person's own systemd answers only that person.
        self._theirs = None if service.user else owner.stranger(Path(service.home))
        if folder is None:
            folder = unit_folders(Path(service.home), system=bool(service.user))[0]
        self.file = folder / self.unit
        self.log = f"journalctl {'' if service.user else '--user '}--unit {self.unit}"

    def prepare(self) -> None:
        # A person's own systemd runs while somebody is logged in, or it lingers.
        if self.to_do() and program.there("loginctl"):
            program.ask(["loginctl", "--no-ask-password", "enable-linger"])

    def check(self, deed: Deed = "install") -> None:
        if self._theirs is not None:
            owner.require_own(Path(self.service.home), f"service {deed}")
        if not program.there(self._base[0]):
            raise NotFound(f"there is no systemd here, as in a container; {BY_HAND}")
        if self.service.user and not os.access(self.file.parent, os.W_OK):
            raise Denied(for_root(self, deed))
        answer = program.ask([*self._base, "show-environment"])
        if answer.returncode:
            raise NotFound(
                f"no systemd answers here ({program.said(answer)}), as in a container"
                f"{'' if self.service.user else ' or without a login session'}; {BY_HAND}"
            )

    def text(self) -> bytes:
        return systemd_unit(self.service, _version()).encode()

    def state(self) -> State:
        if not self.file.exists() or not program.there(self._base[0]) or self._theirs is not None:
            return State(self.file.exists())
        found = self._show()
        return State(
            installed=True,
            enabled=found.get("UnitFileState") == "enabled",
            active=found.get("ActiveState") or "unknown",
            pid=int(found.get("MainPID") or 0),
            since=found.get("ActiveEnterTimestamp", ""),
            fails=_fails(found),
        )

    def start(self) -> None:
        self._do("daemon-reload")
        self._do("enable", self.unit)
        # What gave up too often begins to count anew; a unit that was never there has no count.
        program.ask([*self._base, "reset-failed", self.unit])
        self._do("restart", self.unit, why=f"; `{self.log} -n 20` shows what it said")

    def stop(self) -> None:
        try:
            self._do("disable", "--now", self.unit)
        except Broken:
            # A file that lies where systemd does not look runs nothing, and goes all the same.
            if self._show().get("LoadState") not in ("not-found", None):
                raise

    def forget(self) -> None:
        # What `disable` takes away, where it knew the unit.
        for wanting in self.file.parent.glob("*.wants"):
            (wanting / self.unit).unlink(missing_ok=True)
        if not program.there(self._base[0]):
            return
        answer = program.ask([*self._base, "daemon-reload"])
        if not answer.returncode:
            program.ask([*self._base, "reset-failed", self.unit])

    def to_do(self) -> list[str]:
        if self.service.user or self._theirs is not None or (_LINGERS / _me()).exists():
            return []
        answer = program.ask(["loginctl", "show-user", _me(), "--property=Linger", "--value"])
        if answer.stdout.strip() == "yes":
            return []
        return [
            f"to run without a login, and after a reboot: `sudo loginctl enable-linger {_me()}`"
        ]

    def _show(self) -> dict[str, str]:
        answer = program.ask([*self._base, "show", self.unit, f"--property={','.join(_ASKED)}"])
        return dict(line.partition("=")[::2] for line in answer.stdout.splitlines())

    def _do(self, *words: str, why: str = "") -> None:
        answer = program.ask([*self._base, *words], within_s=START_S)
        if answer.returncode:
            raise Broken(f"`{' '.join([*self._base, *words])}` failed: {program.said(answer)}{why}")


def _fails(found: Mapping[str, str]) -> str:
    """That a unit fails, as its properties say it; "" where it does not."""
    active, again = found.get("ActiveState"), int(found.get("NRestarts") or 0)
    waits = found.get("SubState", "").startswith("auto-restart")
    # While it is tried anew nothing is known of this try, and enough of those before.
    if again and (waits or active == "activating"):
        what = "fails again and again"
    elif waits:
        what = "failed, and is started again"
    elif active == "failed":
        what = "failed"
    else:
        return ""
    result, code = found.get("Result", ""), found.get("ExecMainStatus", "")
    how = f"exit {code}" if result == "exit-code" else result
    return what if how in ("", "success") else f"{what} ({how})"


def unit_folders(home: Path, *, system: bool) -> list[Path]:
    """Where a unit of this home can lie, first the one where systemd reads what is installed."""
    if system:
        return [SYSTEM_UNITS]
    theirs = owner.stranger(home)
    if theirs is not None:
        # An account without a folder of its own: ours is taken.
        with contextlib.suppress(NotFound):
            return [owner.folder_of(theirs) / owner.USER_UNITS]
    own = Path(os.path.expanduser("~")) / owner.USER_UNITS
    moved = os.environ.get("XDG_CONFIG_HOME")
    shells = [Path(moved) / "systemd" / "user", own] if moved else [own]
    read = [] if theirs is not None else _folders_of_systemd(shells)
    return list(dict.fromkeys([*read, *shells]))


def _folders_of_systemd(likely: list[Path]) -> list[Path]:
    """Where the person's systemd, which has variables of its own, reads their units."""
    if not program.there("systemctl"):
        return []
    try:
        answer = program.ask(["systemctl", "--user", "show", "--property=UnitPath", "--value"])
    except Unreachable:
        # Whoever asks it to do something hears that.
        return []
    said = answer.stdout.strip()
    if answer.returncode or not said:
        return []
    # The words are parted by blanks, which a folder's name may have as well.
    for each in likely:
        if f" {each} " in f" {said} ":
            return [each]
    # The first folder of this name is the person's; before it are those that nothing survives in.
    return [Path(each) for each in said.split() if each.endswith("/systemd/user")][:1]


def _version() -> int:
    """Of the systemd that is here, 0 where it says none."""
    found = re.match(r"systemd (\d+)", program.ask(["systemctl", "--version"]).stdout)
    return int(found[1]) if found else 0


def _me() -> str:
    try:
        return owner.name_of(os.getuid())
    except MusterError:
        # A container's user without a name.
        return str(os.getuid())
