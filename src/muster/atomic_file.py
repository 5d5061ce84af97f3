"""How a small file gets to disk whole: all of it or none of it, also when the power goes.

Rule: write a temporary file beside it, fsync it, rename it over, fsync the folder.
"""

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
