"""The files of commits that others made, in a repository of ours: measured before they are read.

Rule: what is too large, of another kind or of another name is as if it were not there. Only where
everything was made here is something that is missing a damage.
"""

import re
from collections.abc import Awaitable, Collection, Sequence
from typing import Final, NamedTuple, Protocol, TypeGuard

from muster import limits
from muster.errors import Broken, Damaged
from muster.git import command as git

FILE: Final = re.compile(r"[0-9a-f]{64}\.mp\Z")
READER: Final = re.compile(r"[0-9a-z-]{1,64}\Z")

_ACK: Final = re.compile(r"[0-9a-f]{64}\Z")
_TO: Final = re.compile(r"to\Z")
_ACKS: Final = re.compile(r"acks\Z")
_FOLDER: Final = b"40000"
_PLAIN: Final = b"100644"
# A name is `<sha256>.mp`; others may stand in a tree beside them, and few.
_TREE_BYTES_MAX: Final = 2 * limits.GIT_BOX_FILES_MAX * 95
_ACKS_BYTES_MAX: Final = limits.GIT_POST_ACKS_MAX * 65
# What git is asked to say at once, well below what is read of it.
_AT_ONCE_BYTES_MAX: Final = 8 * 1024 * 1024


class Blob(NamedTuple):
    """The object of a file, and its size in bytes."""

    id: str
    size: int


class _Said(NamedTuple):
    id: str
    kind: str
    size: int


class _Run(Protocol):
    def __call__(self, *args: str, stdin: bytes) -> Awaitable[git.Answer]: ...


class Objects:
    """What is read of one repository; `run` is git in it. Raises what git meant."""

    def __init__(self, run: _Run) -> None:
        self._run = run

    async def boxes(self, names: Sequence[str]) -> list[dict[str, Blob]]:
        """The files of each of these trees that are what a machine leaves."""
        raws = await self._small(names, "tree", _TREE_BYTES_MAX)
        trees = [_entries(raw or b"", _PLAIN, FILE, limits.GIT_BOX_FILES_MAX) for raw in raws]
        about = iter(await self._about([id for tree in trees for id in tree.values()]))
        return [
            {name: Blob(said.id, said.size) for name, said in found.items() if _is_packet(said)}
            for found in ({name: next(about) for name in tree} for tree in trees)
        ]

    async def acks(self, commits: Sequence[str], of: Collection[str]) -> list[frozenset[str]]:
        """Which of these names the lists of each of these commits hold."""
        raws = await self._small([f"{id}:acks" for id in commits], "blob", _ACKS_BYTES_MAX)
        known = {name.encode() for name in of}
        held = [known.intersection((raw or b"").split(b"\n")) for raw in raws]
        return [frozenset(name.decode() for name in each) for each in held]

    async def own(self, commit: str) -> tuple[dict[tuple[str, str], Blob], frozenset[str]]:
        """All files by reader and name, and the list, of a commit made here. Raises: Damaged."""
        (root,) = await self._whole([f"{commit}^{{tree}}"], "tree", _TREE_BYTES_MAX)
        acks = _entries(root, _PLAIN, _ACKS, 1).values()
        (listed,) = await self._whole(list(acks), "blob", _ACKS_BYTES_MAX) or [b""]
        tos = list(_entries(root, _FOLDER, _TO, 1).values())
        (to,) = await self._whole(tos, "tree", _TREE_BYTES_MAX) or [b""]
        readers = _entries(to, _FOLDER, READER, limits.GIT_BOXES_MAX)
        raws = await self._whole(list(readers.values()), "tree", _TREE_BYTES_MAX)
        files = {
            (reader, name): id
            for reader, raw in zip(readers, raws, strict=True)
            for name, id in _entries(raw, _PLAIN, FILE, limits.GIT_BOX_FILES_MAX).items()
        }
        about = await self._about(list(files.values()))
        if None in about:
            raise _damaged()
        found = {key: said for key, said in zip(files, about, strict=True) if _is_packet(said)}
        lines = listed.decode("ascii", "replace").split("\n")
        blobs = {key: Blob(said.id, said.size) for key, said in found.items()}
        return blobs, frozenset(each for each in lines if _ACK.match(each))

    async def contents(self, ids: Sequence[str]) -> list[bytes]:
        """What objects hold; the caller bounds how much that is."""
        if not ids:
            return []
        asked = "".join(f"{id}\n" for id in ids).encode()
        out = (await self._run("cat-file", "--batch", stdin=asked)).out
        found, at = [], 0
        for _ in ids:
            end = out.find(b"\n", at)
            size = out[at:end].rpartition(b" ")[2]
            if end < 0 or not size.isdigit():
                raise Broken("git cat-file did not say what an object holds.")
            found.append(out[end + 1 : end + 1 + int(size)])
            at = end + 2 + int(size)
        return found

    async def _whole(self, names: Sequence[str], kind: str, most: int) -> list[bytes]:
        raws = [raw for raw in await self._small(names, kind, most) if raw is not None]
        if len(raws) != len(names):
            raise _damaged()
        return raws

    async def _small(self, names: Sequence[str], kind: str, most: int) -> list[bytes | None]:
        """What objects hold that are of a kind and not too large; None for all others."""
        about = await self._about(names)
        sizes = {
            said.id: said.size for said in about if said and said.kind == kind and said.size <= most
        }
        held = dict[str, bytes]()
        while sizes:
            chosen, size = list[str](), 0
            while sizes and size <= _AT_ONCE_BYTES_MAX:
                id, one = sizes.popitem()
                chosen.append(id)
                size += one
            held |= zip(chosen, await self.contents(chosen), strict=True)
        return [held.get(said.id) if said is not None else None for said in about]

    async def _about(self, names: Sequence[str]) -> list[_Said | None]:
        """What objects are; None for one that is not there."""
        if not names:
            return []
        asked = "".join(f"{name}\n" for name in names).encode()
        answer = await self._run("cat-file", "--batch-check", stdin=asked)
        found = list[_Said | None]()
        for line in answer.text.splitlines():
            words = line.split(" ")
            known = len(words) == 3 and words[2].isdecimal()
            found.append(_Said(words[0], words[1], int(words[2])) if known else None)
        if len(found) != len(names):
            raise Broken(f"git cat-file answered {len(found)} of {len(names)} questions.")
        return found


def _is_packet(said: _Said | None) -> TypeGuard[_Said]:
    return said is not None and said.kind == "blob" and said.size <= limits.PACKET_BYTES_MAX


def _damaged() -> Damaged:
    return Damaged("something of what this machine left is lost in its own copy.")


def _entries(raw: bytes, mode: bytes, known: re.Pattern[str], most: int) -> dict[str, str]:
    """The objects of a tree as git keeps it (SHA-1): of this mode, and with such a name."""
    found, at = dict[str, str](), 0
    while 0 <= at < len(raw):
        space, end = raw.find(b" ", at), raw.find(b"\0", at)
        if not at < space < end:
            break
        name, id = raw[space + 1 : end].decode("utf-8", "replace"), raw[end + 1 : end + 21]
        if raw[at:space] == mode and known.match(name) and len(id) == 20:
            found[name] = id.hex()
        at = end + 21
    return dict(list(found.items())[:most])
