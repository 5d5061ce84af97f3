"""What was written into an attempt's folder, so that later it is known what nobody touched.

Rule 1: the notes lie in the cache, out of the agent's reach.
Rule 2: a file counts as untouched when its number, size and both times are to the nanosecond what
        they were; whoever cannot be told apart that way is read again.
Rule 3: nobody touches a file in the moment in which it was noted: the clock moves on first.

Rule 4: what changes a file's owner changes its time as well; whoever does that on purpose says so
        (`kept`), and what was untouched before still is.

Git's own index knows the same, but takes a file that was written in the same second for changed
until it has read it, and reading applies the attributes: line ends that were committed before
`.gitattributes` named them would be an agent's change.
"""

import contextlib
import os
import stat
import tempfile
import time
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Final

# A disk's clock ticks every few milliseconds; one that stands still for longer counts seconds.
_TICK_S: Final = 0.002
_TICKS_MAX: Final = 50


def write(notes: Path, folder: Path, paths: Iterable[bytes]) -> None:
    """Note these files of the folder, which were written just now. Blocks for milliseconds."""
    top, lines = os.fsencode(folder), []
    for path in paths:
        about = _about(os.path.join(top, path))
        if about:
            lines.append((about, path))
    _write(notes, lines)


@contextlib.contextmanager
def kept(notes: Path, folder: Path) -> Iterator[None]:
    """Around what changes owners in the folder and no content: what is untouched stays so.

    Nobody else writes there meanwhile. Where it is cut short, all that it reached is read again.
    """
    before = [*_unchanged(notes, folder)]
    yield
    top, lines = os.fsencode(folder), []
    for about, path in before:
        now = _about(os.path.join(top, path))
        if now.rpartition(b"-")[0] == about.rpartition(b"-")[0]:
            lines.append((now, path))
    if before:
        # They save reading, and nothing else: what is cut short matches no file.
        with contextlib.suppress(OSError):
            _write(notes, lines)


def untouched(notes: Path, folder: Path) -> Iterator[bytes]:
    """The noted files that are as they were."""
    return (path for _, path in _unchanged(notes, folder))


def _unchanged(notes: Path, folder: Path) -> Iterator[tuple[bytes, bytes]]:
    try:
        lines = notes.read_bytes().split(b"\0")
    except OSError:
        # Without notes nothing is known to be untouched: all of it is looked at.
        return
    top = os.fsencode(folder)
    for line in lines:
        about, _, path = line.partition(b" ")
        if path and about == _about(os.path.join(top, path)):
            yield about, path


def _write(notes: Path, found: list[tuple[bytes, bytes]]) -> None:
    newest_ns = max((int(about.rpartition(b"-")[2]) for about, _ in found), default=0)
    notes.parent.mkdir(exist_ok=True)
    # What is written from now on must be younger; nothing is noted where that would take too long.
    for _ in range(_TICKS_MAX):
        with tempfile.TemporaryFile(dir=notes.parent) as new:
            if os.fstat(new.fileno()).st_mtime_ns > newest_ns:
                break
        time.sleep(_TICK_S)
    else:
        found = []
    notes.write_bytes(b"\0".join(b"%s %s" % each for each in found))


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
