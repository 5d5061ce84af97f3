"""What keeps a service: what every system's keeper of services does for one daemon of one home."""

from pathlib import Path
from typing import Final, Literal, NamedTuple, Protocol

from muster.node.host import owner
from muster.node.host.unit import Service

BY_HAND: Final = "`muster up --detach` starts the daemon until the next reboot"
Deed = Literal["install", "remove", "start"]
_DEEDS: Final[dict[Deed, str]] = {"install": "install", "remove": "take away", "start": "start"}


class State(NamedTuple):
    """What the system says of a service: `since` in its own words, `active` as systemd's."""

    installed: bool
    enabled: bool = False
    active: str = "inactive"
    pid: int = 0
    since: str = ""
    # That it fails, how often and how, where it does.
    fails: str = ""


class Manager(Protocol):
    """A system's own keeper of services, for one service of one home."""

    service: Service
    scope: Literal["user", "system"]
    file: Path
    # How a person reads what the daemon says.
    log: str

    def prepare(self) -> None:
        """Have it keep the service without a login, as far as that is ours to say."""

    def check(self, deed: Deed = "install") -> None:
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


def command(manager: Manager, deed: Deed) -> str:
    """What a person types to have that done to a service."""
    words, home = f"service {'remove' if deed == 'remove' else 'install'}", manager.service.home
    if manager.scope == "system":
        return f"sudo {owner.command(Path(home), f'{words} --system')}"
    theirs = owner.stranger(Path(home))
    return f"muster {words}" if theirs is None else owner.command_as(theirs, Path(home), words)


def for_root(manager: Manager, deed: Deed) -> str:
    """What is said to a person who may not do that to a service of the system."""
    return f"a service of the system is root's to {_DEEDS[deed]}: `{command(manager, deed)}`"


def why_it_fails(manager: Manager) -> str:
    """The command that shows what it said last."""
    return f"{manager.log} -n 20" if manager.log.startswith("journalctl") else manager.log
