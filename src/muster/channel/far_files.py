"""The files of one account behind an sshd, with the errors that files of this machine have."""

import asyncio
import errno
import stat
from typing import Any, Final, NamedTuple

from muster.channel.ssh_client import CLOSE_S, as_here

# What strangers put into a folder is read up to here.
_HELD_MAX: Final = 100_000


class FarFile(NamedTuple):
    """What lies over there, as it is: no link is followed."""

    name: str
    size: int
    mtime_s: int
    mode: int
    is_plain: bool
    is_folder: bool


class Files:
    """The files of one account. What fails raises as it would here: an OSError."""

    def __init__(self, connection: Any, client: Any) -> None:
        self._connection, self._client = connection, client

    @property
    def is_over(self) -> bool:
        return bool(self._connection.is_closed())

    async def about(self, path: str, *, follow: bool = False) -> FarFile:
        """What is at this path."""
        with as_here():
            found = await (self._client.stat(path) if follow else self._client.lstat(path))
            return _far_file("", found)

    async def held(self, folder: str) -> list[FarFile]:
        """What a folder holds, so much of it at most."""
        found = []
        with as_here():
            async for each in self._client.scandir(folder):
                if each.filename not in {".", ".."}:
                    found.append(_far_file(str(each.filename), each.attrs))
                if len(found) >= _HELD_MAX:
                    break
        return found

    async def make(self, folder: str, mode: int) -> None:
        """A folder that those may use whom the mode names."""
        with as_here():
            await self._client.mkdir(folder)
            await self._client.chmod(folder, mode)

    async def read(self, path: str, most: int) -> bytes:
        with as_here():
            async with self._client.open(path, "rb") as file:
                return bytes(await file.read(most, 0))

    async def write(self, path: str, data: bytes, mode: int) -> None:
        """A new file, durable where that sshd can make it so."""
        with as_here():
            async with self._client.open(path, "xb") as file:
                await file.write(data)
                await self._sync(file)
            await self._client.chmod(path, mode)

    async def _sync(self, file: Any) -> None:
        try:
            with as_here():
                await file.fsync()
        except OSError as error:
            if error.errno != errno.ENOTSUP:
                raise

    async def rename(self, path: str, to: str) -> None:
        """Over what is there."""
        with as_here():
            await self._client.posix_rename(path, to)

    async def remove(self, path: str) -> None:
        with as_here():
            await self._client.remove(path)

    async def close(self) -> None:
        """Hang up; returns soon, whatever the far end does."""
        self._client.exit()
        self._connection.close()
        try:
            async with asyncio.timeout(CLOSE_S):
                with as_here():
                    await self._connection.wait_closed()
        except OSError:
            # The far end did not take leave in time (TimeoutError is one of these), or is gone.
            self._connection.abort()


def _far_file(name: str, found: Any) -> FarFile:
    mode = found.permissions or 0
    sort = stat.S_IFMT(mode)
    about = (found.size or 0, int(found.mtime or 0), mode & 0o7777)
    return FarFile(name, *about, sort == stat.S_IFREG, sort == stat.S_IFDIR)
