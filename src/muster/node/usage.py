"""How much of the disk is free, and how much of it a folder holds."""

import os
import shutil
from pathlib import Path
from typing import Final

# An attempt that holds less than this is not what fills a disk.
MUCH_BYTES: Final = 4 * 1024 * 1024
# Looking at more files than this takes seconds; so many are much, whatever they hold.
FILES_MAX: Final = 100_000


def held_bytes(folder: Path) -> int:
    """The bytes on the disk below a folder, as far as they can be counted; follows no link."""
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
    return total


def free_bytes(folder: Path) -> int:
    """What this user may still write on the disk of a folder; plenty where nobody can tell."""
    try:
        return shutil.disk_usage(folder).free
    except OSError:
        return 1 << 62
