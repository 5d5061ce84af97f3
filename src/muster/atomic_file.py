"""How a small file gets to disk whole: all of it or none of it, also when the power goes.

Rule: write a temporary file beside it, fsync it, rename it over, fsync the folder.
"""

import contextlib
import os
import sys
import tempfile
from pathlib import Path

from muster.errors import MusterError, unable


def write_file(
    path: Path, data: bytes, *, runs: bool = False, mode: int = 0o600, temporary: str = ".tmp-"
) -> None:
    """Replace `path` by `data`; durable on return, and never seen half written.

    It is for its owner alone, unless its `mode` says another thing; `runs`: as a program. How the
    name of the temporary file begins is `temporary`.

    Raises: Broken, Exhausted: the disk refused; the old file is untouched.
    """
    try:
        handle, name = tempfile.mkstemp(prefix=temporary, dir=path.parent)
    except OSError as error:
        raise failed(path, error) from error
    try:
        with os.fdopen(handle, "wb") as file:
            file.write(data)
            file.flush()
            sync_handle(file.fileno())
        if runs:
            os.chmod(name, 0o700)
        elif mode != 0o600:
            os.chmod(name, mode)
        # The rename is what makes it count, so it comes only after the bytes are safe.
        os.replace(name, path)
        sync_folder(path.parent)
    except OSError as error:
        Path(name).unlink(missing_ok=True)
        raise failed(path, error) from error


def write_in(folder: int, name: str, data: bytes, *, mode: int, temporary: str) -> None:
    """As `write_file`, in a folder that is open: what becomes of its path leads nowhere else.

    Raises: OSError; the old file is untouched.
    """
    beside = f"{temporary}{os.urandom(8).hex()}"
    flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW
    handle = os.open(beside, flags, 0o600, dir_fd=folder)
    try:
        with os.fdopen(handle, "wb") as file:
            file.write(data)
            file.flush()
            if mode != 0o600:
                os.fchmod(file.fileno(), mode)
            sync_handle(file.fileno())
        os.rename(beside, name, src_dir_fd=folder, dst_dir_fd=folder)
        os.fsync(folder)
    except OSError:
        with contextlib.suppress(FileNotFoundError):
            # The rename may have been what worked.
            os.unlink(beside, dir_fd=folder)
        raise


def sync_handle(handle: int) -> None:
    """Force what was written to `handle` to the platter."""
    if sys.platform == "darwin":
        # Only macOS needs it, its fsync stops at the drive's cache; Windows does not have it.
        import fcntl  # noqa: PLC0415

        fcntl.fcntl(handle, fcntl.F_FULLFSYNC)
    else:
        os.fsync(handle)


def sync_folder(folder: Path) -> None:
    """Make a rename in `folder` durable; Windows cannot, and orders renames by itself."""
    if os.name == "nt":
        return
    handle = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def failed(path: Path, error: OSError) -> MusterError:
    """What to raise where the disk refused to write `path`."""
    why = error.strerror or error
    return unable(f"Writing {path} failed ({why}); check the disk and its free space.", error)
