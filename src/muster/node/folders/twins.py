"""Names that disks without case, or with another Unicode, take for one: one of them is synced."""

from collections.abc import Mapping

from muster.context.path import folded
from muster.node.folders.basis import Base


class Twins:
    """Which file of `bases`, the files as they are known, has each name."""

    def __init__(self, bases: Mapping[str, Base]) -> None:
        self._bases = bases
        self._names = {folded(path): path for path, b in bases.items() if b.signature}

    def look(self, path: str) -> None:
        """A file may be there, or may be gone."""
        base, name = self._bases.get(path), folded(path)
        if base is not None and base.signature is not None:
            self._names[name] = path
        elif self._names.get(name) == path:
            del self._names[name]

    def told(self, path: str) -> str:
        """Which other file has the name of this one, "" for none."""
        other = self._names.get(folded(path), path)
        base = self._bases.get(other)
        if other == path or base is None or base.signature is None:
            return ""
        return f"{other} has this name on disks without case: rename one of them"
