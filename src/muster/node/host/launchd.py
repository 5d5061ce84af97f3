"""An agent of the person's session, or, as root, a daemon of the system."""

import os
import re
from pathlib import Path
from typing import Final, Literal

from muster.errors import Broken, Denied, NotFound
from muster.node.host import owner, program
from muster.node.host.keeper import BY_HAND, Deed, State, for_root
from muster.node.host.unit import Service, launchd_plist

_DAEMONS: Final = Path("/Library/LaunchDaemons")


class Launchd:
    """See `keeper.py` for what is asked of it."""

    def __init__(self, service: Service, folder: Path | None = None) -> None:
        self.service = service
        self.scope: Literal["user", "system"] = "system" if service.user else "user"
        self.domain = "system" if service.user else f"gui/{os.getuid()}"
        self._theirs = None if service.user else owner.stranger(Path(service.home))
        if folder is None:
            folder = agent_folders(Path(service.home), system=bool(service.user))[0]
        self.file = folder / f"{service.name}.plist"
        self.log = f"tail -f {service.log!r}" if " " in service.log else f"tail -f {service.log}"

    def prepare(self) -> None:
        """An agent of a session begins with it."""

    def check(self, deed: Deed = "install") -> None:
        if self._theirs is not None:
            owner.require_own(Path(self.service.home), f"service {deed}")
        if not program.there("launchctl"):
            raise NotFound(f"there is no launchd here; {BY_HAND}")
        if self.service.user and os.geteuid():
            raise Denied(for_root(self, deed))

    def text(self) -> bytes:
        return launchd_plist(self.service)

    def state(self) -> State:
        if not self.file.exists() or self._theirs is not None:
            return State(self.file.exists())
        answer = program.ask(["launchctl", "print", f"{self.domain}/{self.service.name}"])
        found = re.search(r"^\s*pid = (\d+)$", answer.stdout, re.MULTILINE)
        # What is not loaded begins at the next login, unless it was disabled.
        pid = int(found[1]) if found else 0
        ended = re.search(r"^\s*last exit code = (\d+)", answer.stdout, re.MULTILINE)
        fails = f"failed (exit {ended[1]})" if ended and int(ended[1]) and not pid else ""
        active = "active" if pid else "inactive"
        return State(True, not answer.returncode, active, pid, fails=fails)

    def start(self) -> None:
        if self.state().enabled:
            self.stop()
        for words in (["enable", f"{self.domain}/{self.service.name}"],
                      ["bootstrap", self.domain, str(self.file)]):  # fmt: skip
            answer = program.ask(["launchctl", *words])
            if answer.returncode:
                raise Broken(
                    f"`launchctl {' '.join(words)}` failed: {program.said(answer)}; "
                    f"see {self.service.log}"
                )

    def stop(self) -> None:
        program.ask(["launchctl", "bootout", f"{self.domain}/{self.service.name}"])

    def forget(self) -> None:
        """Whatever was stopped is known no more."""

    def to_do(self) -> list[str]:
        return []


def agent_folders(home: Path, *, system: bool) -> list[Path]:
    """Where a plist of this home can lie."""
    if system:
        return [_DAEMONS]
    theirs = owner.stranger(home)
    person = owner.folder_of(os.getuid() if theirs is None else theirs)
    return [person / "Library/LaunchAgents"]
