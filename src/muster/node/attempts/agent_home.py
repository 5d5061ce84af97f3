"""What is written into the home of an enclosed agent, in which an attempt may have been before.

Rule: nothing in there is believed. No link is followed, nothing that waits for a reader is opened,
and whatever stands in the place of ours is replaced or moved aside.
"""

import contextlib
import os
import secrets
import stat
from pathlib import Path
from typing import Final

_FOLDER: Final = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC


def write_into(home: Path, name: str, text: str) -> None:
    """A file below a home in which an attempt was: whatever stands in its place is replaced, and no
    link is followed. Raises: OSError.
    """
    folder = os.open(home, _FOLDER)
    try:
        *above, last = name.split("/")
        for part in above:
            inner = _folder_in(folder, part)
            os.close(folder)
            folder = inner
        fresh = f".muster-{secrets.token_hex(8)}"
        flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW
        with open(os.open(fresh, flags, 0o600, dir_fd=folder), "w", encoding="utf-8") as file:
            file.write(text)
        with contextlib.suppress(OSError):
            # A folder there is in the way; it stays, under another name.
            if stat.S_ISDIR(os.stat(last, dir_fd=folder, follow_symlinks=False).st_mode):
                os.rename(last, f"{fresh}.before", src_dir_fd=folder, dst_dir_fd=folder)
        os.rename(fresh, last, src_dir_fd=folder, dst_dir_fd=folder)
    finally:
        os.close(folder)


def _folder_in(folder: int, name: str) -> int:
    """A folder of this name in an open one, made anew in the place of what is none."""
    with contextlib.suppress(FileExistsError):
        os.mkdir(name, 0o700, dir_fd=folder)
    try:
        return os.open(name, _FOLDER, dir_fd=folder)
    except NotADirectoryError:
        os.unlink(name, dir_fd=folder)
        os.mkdir(name, 0o700, dir_fd=folder)
        return os.open(name, _FOLDER, dir_fd=folder)
