"""What was written into an attempt's folder, so that later it is known what nobody touched.

Rule 1: the notes lie in the cache, out of the agent's reach.
Rule 2: a file counts as untouched when its number, size and both times are to the nanosecond what
        they were; whoever cannot be told apart that way is read again.
Rule 3: nobody touches a file in the moment in which it was noted: the clock moves on first.

Git's own index knows the same, but takes a file that was written in the same second for changed
until it has read it, and reading applies the attributes: line ends that were committed before
`.gitattributes` named them would be an agent's change.
"""

import asyncio
import os
import stat
import tempfile
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Final

# A disk's clock ticks every few milliseconds; one that stands still for longer counts seconds.
_TICK_S: Final = 0.002
_TICKS_MAX: Final = 50


async def write(notes: Path, folder: Path, paths: Iterable[bytes]) -> None:
    """Note these files of the folder, which were written just now."""
    lines, newest_ns = await asyncio.to_thread(_look, folder, paths)
    notes.parent.mkdir(exist_ok=True)
    # What is written from now on must be younger; nothing is noted where that would take too long.
    for _ in range(_TICKS_MAX):
        with tempfile.TemporaryFile(dir=notes.parent) as new:
            if os.fstat(new.fileno()).st_mtime_ns > newest_ns:
                break
        await asyncio.sleep(_TICK_S)
    else:
        lines = []
    await asyncio.to_thread(notes.write_bytes, b"\0".join(lines))


def untouched(notes: Path, folder: Path) -> Iterator[bytes]:
    """The noted files that are as they were."""
    try:
        lines = notes.read_bytes().split(b"\0")
    except OSError:
        # Without notes nothing is known to be untouched: all of it is looked at.
        return
    top = os.fsencode(folder)
    for line in lines:
        about, _, path = line.partition(b" ")
        if path and about == _about(os.path.join(top, path)):
            yield path


def _look(folder: Path, paths: Iterable[bytes]) -> tuple[list[bytes], int]:
    top, lines, newest_ns = os.fsencode(folder), [], 0
    for path in paths:
        about = _about(os.path.join(top, path))
        if about:
            lines.append(b"%s %s" % (about, path))
            newest_ns = max(newest_ns, int(about.rpartition(b"-")[2]))
    return lines, newest_ns


def _about(path: bytes) -> bytes:
    """What tells a file from its next version; nothing for a folder, such as a submodule's."""
    try:
        found = os.lstat(path)
    except OSError:
        return b""
    if stat.S_ISDIR(found.st_mode):
        return b""
    parts = (found.st_ino, found.st_mode, found.st_size, found.st_mtime_ns, found.st_ctime_ns)
    return b"-".join(b"%d" % part for part in parts)
