"""What a phase without a repository delivered, as text in an entry; marks as `ls -F` sets them.

    blob:<sha256>:<size>:<path>       a file
    blob:<sha256>:<size>:<path>*      a file that can be executed
    blob:<sha256>:<size>:<path>/      a folder, as a tar whose bytes depend on its content alone

Rule 1: artefacts are blobs only where the entry has no commit; with one they are paths in it, and
a file of an agent that is named like a blob names none.
Rule 2: the text comes from another machine: a path that could leave its folder is no artefact.
Rule 3: of two artefacts for one place, or one inside the other, the later phase's counts; where
neither phase is later, none is taken silently.
"""

import re
from collections.abc import Iterable, Mapping, Sequence
from collections.abc import Set as AbstractSet
from typing import Final, Literal, NamedTuple

from muster import limits
from muster.errors import Malformed, Refused
from muster.task.units import path_refusal

Shape = Literal["file", "program", "folder"]

_FORM: Final = re.compile(r"blob:([0-9a-f]{64}):(0|[1-9][0-9]{0,11}):(.{1,200}?)([*/]?)", re.DOTALL)
_MARKS: Final[dict[str, Shape]] = {"": "file", "*": "program", "/": "folder"}
_MARK_OF: Final = {shape: mark for mark, shape in _MARKS.items()}


class Artefact(NamedTuple):
    """One deliverable; `path` is relative to the attempt's folder and has no mark at its end."""

    path: str
    sha256: str
    size: int
    shape: Shape = "file"

    def __str__(self) -> str:
        return f"blob:{self.sha256}:{self.size}:{self.path}{_MARK_OF[self.shape]}"


def parse(text: str) -> Artefact:
    """The artefact that a text names. Raises: Malformed."""
    found = _FORM.fullmatch(text)
    if found is None:
        raise Malformed(f"{text[:80]!r} does not name a blob")
    sha256, size, path = found[1], int(found[2]), found[3]
    if refusal := path_refusal(path):
        raise Malformed(f"an artefact's path {path[:80]!r} {refusal}")
    if size > limits.BLOB_BYTES_MAX:
        most = limits.BLOB_BYTES_MAX
        raise Malformed(f"{path[:80]!r} is {size} bytes; a blob has at most {most}")
    return Artefact(path, sha256, size, _MARKS[found[4]])


def named(commit: str, artefacts: Sequence[str]) -> tuple[Artefact, ...]:
    """The blobs that a result names: none where it has a commit. Raises: Malformed."""
    if commit:
        return ()
    return tuple(parse(text) for text in artefacts)


def laid_over(
    delivered: Mapping[str, Iterable[Artefact]], above: Mapping[str, AbstractSet[str]]
) -> list[tuple[str, Artefact]]:
    """What several phases delivered, as it lies in one folder, in the order to place it.

    `delivered` has a phase after those `above` it. What a phase delivers replaces what phases above
    it delivered there, as its commit would; it had that in its folder.

    Raises: Refused: two phases of which neither is above the other deliver one place.
    """
    places: dict[str, tuple[str, Artefact]] = {}
    below: dict[str, set[str]] = {}
    for phase, artefacts in delivered.items():
        for each in artefacts:
            # Without case, as some disks compare: `Report` must not replace `report` on one of two.
            key = each.path.casefold()
            parts = key.split("/")
            folders = ["/".join(parts[:count]) for count in range(1, len(parts))]
            inside = {key, *below.get(key, ())} & places.keys()
            for other in (*inside, *(folder for folder in folders if folder in places)):
                if places[other][0] not in above.get(phase, ()):
                    both = (places[other], (phase, each))
                    what = " and ".join(f"phase {who} delivers {one.path}" for who, one in both)
                    what += ": they cannot lie in one folder; let one of them deliver to another"
                    raise Refused(f"{what} path")
            for other in inside:
                del places[other]
            places[key] = (phase, each)
            for folder in folders:
                below.setdefault(folder, set()).add(key)
    return list(places.values())
