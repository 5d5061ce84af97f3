"""Which context folders this machine has, and where they lie: kept in its home, for it alone."""

import json
from pathlib import Path
from typing import Final

import msgspec
from msgspec import Struct

from muster.context.kinds import check_folder
from muster.errors import Broken, Conflict, MusterError, NotFound, unable
from muster.log.stream import FLEET, Scope
from muster.node.host.home import Home
from muster.node.services.context import Place

# Each has a watch of its own; chosen arbitrarily.
FOLDERS_MAX: Final = 30


class Mapped(Struct, frozen=True):
    """A folder by its name, and where it lies here.

    `inode` tells it from another one in its place; `large`: also files that are larger than usual.
    """

    name: str
    path: str
    inode: int
    scope: str = FLEET
    large: bool = False
    # The only names that are synced; none: all.
    only: tuple[str, ...] = ()

    @property
    def place(self) -> Place:
        return Place(Scope(self.scope), self.name)


class FolderMap:
    """The folders of a home, by name."""

    def __init__(self, home: Home) -> None:
        self._home = home

    def read(self) -> dict[str, Mapped]:
        """Raises: Broken where what is written down there cannot be read."""
        try:
            raw = self._home.context_map.read_bytes()
        except FileNotFoundError:
            return {}
        except OSError as error:
            raise unable(f"{self._home.context_map} cannot be read ({error})", error) from error
        try:
            found = msgspec.json.decode(raw, type=list[Mapped])
            return {check_folder(each.name): each for each in found}
        except (msgspec.MsgspecError, MusterError) as error:
            raise Broken(
                f"{self._home.context_map} is not as Muster writes it ({error}): move it away, and "
                "say `muster context map` for each folder anew"
            ) from error

    def put(self, mapped: Mapped) -> None:
        """From now on this folder lies there. Raises: Conflict, Broken."""
        found = self.read()
        if len(found) >= FOLDERS_MAX and mapped.name not in found:
            raise Conflict(f"this machine has {FOLDERS_MAX} context folders: remove one of them")
        # Whoever looked before may have waited, and another one have come first.
        if other := overlapping(Path(mapped.path), found, mapped.name):
            raise Conflict(overlap_told(Path(mapped.path), found[other]))
        self._write({**found, mapped.name: mapped})

    def remove(self, name: str) -> Mapped:
        """From now on this machine has no such folder; its files stay. Raises: NotFound, Broken."""
        found = self.read()
        if name not in found:
            have = ", ".join(sorted(found)) or "none"
            raise NotFound(f"this machine has no context folder {name[:64]!r}; it has: {have}")
        gone = found.pop(name)
        self._write(found)
        return gone

    def _write(self, found: dict[str, Mapped]) -> None:
        listed = [msgspec.to_builtins(each) for _, each in sorted(found.items())]
        self._home.put_context_map(json.dumps(listed, indent=1).encode())


def overlapping(path: Path, others: dict[str, Mapped], name: str) -> str:
    """The folder in which a path lies, or that lies in it; "" for none."""
    for other in others.values():
        there = Path(other.path)
        if other.name != name and (there == path or there in path.parents or path in there.parents):
            return other.name
    return ""


def overlap_told(path: Path, other: Mapped) -> str:
    """Why a folder is none, where another one has its files."""
    return (
        f"the context folder {other.name} lies at {other.path}: one file of {path} cannot be in "
        f"two of them; `muster context remove {other.name}` ends that one"
    )
