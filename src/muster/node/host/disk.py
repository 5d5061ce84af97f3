"""How much of the disk is free, and how much of it a folder holds."""

import os
import shutil
from pathlib import Path
from typing import Final

from muster.limits import DISK_RESERVE_BYTES

# An attempt that wrote less than this is not what fills a disk.
MUCH_BYTES: Final = 4 * 1024 * 1024
# Looking at more files than this takes seconds; so many are much, whatever they hold.
FILES_MAX: Final = 100_000


def given_bytes(folder: Path) -> int:
    """What a folder holds before its agent begins: nothing of it did the agent write.

    0 where it cannot all be counted: later looks may count other files of it, so all of them do.
    """
    total, whole = _count(folder)
    return total if whole else 0


def written_bytes(folder: Path, given: int) -> int:
    """How much more a folder holds than it was given; of very many files all that is counted."""
    total, whole = _count(folder)
    return total - given if whole else total


def _count(folder: Path) -> tuple[int, bool]:
    """The bytes on the disk below a folder that were counted, and whether they are all; follows
    no link.
    """
    total = 0
    left = FILES_MAX
    todo = [str(folder)]
    while todo and left > 0:
        try:
            with os.scandir(todo.pop()) as found:
                for each in found:
                    left -= 1
                    if each.is_dir(follow_symlinks=False):
                        todo.append(each.path)
                    total += each.stat(follow_symlinks=False).st_blocks * 512
        except OSError:
            # It goes away while we look, or belongs to somebody else.
            continue
    return total, left > 0


def changed_ms(folder: Path, since_ms: int) -> int:
    """When something below a folder changed last, where that was after a moment, else 0: by the
    clock of its disk, which may be ahead of ours. Git's own files aside; follows no link.

    Of very many files also where not all were looked at.
    """
    last_ns, left, todo = since_ms * 1_000_000, FILES_MAX, [str(folder)]
    unlike_ns = last_ns + 1_000_000
    while todo and left > 0:
        try:
            with os.scandir(todo.pop()) as found:
                for each in found:
                    left -= 1
                    if each.name == ".git":
                        continue
                    if each.is_dir(follow_symlinks=False):
                        todo.append(each.path)
                    last_ns = max(last_ns, each.stat(follow_symlinks=False).st_mtime_ns)
        except OSError:
            # It goes away while we look: that is a change as well.
            last_ns = max(last_ns, unlike_ns)
    if left <= 0:
        last_ns = max(last_ns, unlike_ns)
    # Rounded up: what is written in one millisecond is one change.
    last_ms = -(-last_ns // 1_000_000)
    return last_ms if last_ms > since_ms else 0


def free_bytes(folder: Path) -> int:
    """What this user may still write on the disk of a folder; plenty where nobody can tell."""
    try:
        return shutil.disk_usage(folder).free
    except OSError:
        return 1 << 62


def free_files_percent(folder: Path) -> int:
    """How many more files the disk of a folder has room for; -1 where it counts none."""
    try:
        found = os.statvfs(folder)
    except OSError:
        return -1
    return found.f_favail * 100 // found.f_files if found.f_files else -1


def is_full(folder: Path) -> bool:
    """Whether so little is free that whoever writes may fail for it."""
    return free_bytes(folder) < DISK_RESERVE_BYTES
