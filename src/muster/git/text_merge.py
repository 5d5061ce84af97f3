"""Two texts that come from a third made one, where they changed different lines.

Rule 1: what is not clean is no merge: no marker is ever written into anybody's file.
Rule 2: line ends are bytes; but where only one side changed them all, the lines are compared
without, and the result gets that side's. `git merge-file` takes such a side for a change of every
line.
"""

import asyncio
import tempfile
from pathlib import Path
from typing import Final

from muster.git import command as git

_NAMES: Final = ("first", "base", "second")
# More conflicts than this are this number, and 255 says that a side is no text.
_CODES: Final = range(256)


async def merge_texts(first: bytes, base: bytes, second: bytes, *, union: bool) -> bytes | None:
    """The merge; None where it is not clean, or a side is no text. Raises: Unreachable, Broken.

    `union`: where both added lines at one place, those of both, as in a log.
    """
    if any(b"\0" in side for side in (first, base, second)):
        return None
    ends = [_ends(side) for side in (first, base, second)]
    end = _changed(*ends)
    sides = [first, base, second]
    if len(set(ends)) > 1:
        if None in ends:
            return None
        sides = [side.replace(b"\r\n", b"\n") for side in sides]
    with tempfile.TemporaryDirectory(prefix="muster-merge-") as folder:
        await asyncio.to_thread(_lay_out, Path(folder), sides)
        how = ["--union"] if union else []
        args = ["merge-file", "-p", "-q", *how, *_NAMES]
        done = await git.run_async(args, Path(folder), codes=_CODES)
    if done.code:
        return None
    if len(set(ends)) > 1 and end == b"\r\n":
        return done.out.replace(b"\n", b"\r\n")
    return done.out


def _lay_out(folder: Path, sides: list[bytes]) -> None:
    for name, side in zip(_NAMES, sides, strict=True):
        (folder / name).write_bytes(side)


def _ends(text: bytes) -> bytes | None:
    """How the lines of a text end; None where not all end alike."""
    crlf = text.count(b"\r\n")
    if not crlf:
        return b"\n"
    return b"\r\n" if crlf == text.count(b"\n") else None


def _changed(first: bytes | None, base: bytes | None, second: bytes | None) -> bytes | None:
    """How the lines of the result end: as of the side that changed that."""
    return second if first == base else first
