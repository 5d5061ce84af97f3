"""A repository served: git's own server programs, whose two pipes a stream carries.

Rule 1: the daemon proves who asks and sets MUSTER_PEER; nothing the other side says can change it.
Rule 2: a server program never outlives the stream that it speaks through: the caller stops it.
"""

import asyncio
import contextlib
import os
import signal
from pathlib import Path
from typing import Final, Literal

from muster import child_process, limits
from muster.errors import Malformed, Refused, Unreachable, unable
from muster.git import command as git
from muster.git import repository

Service = Literal["git-upload-pack", "git-receive-pack"]

SERVICES: Final[tuple[Service, ...]] = ("git-upload-pack", "git-receive-pack")
_GRACE_S: Final = 5.0


class Server:
    """One running `git receive-pack` or `git upload-pack`."""

    def __init__(self, process: child_process.ChildProcess) -> None:
        self._process = process
        assert process.stdout is not None
        assert process.stdin is not None
        self.pair = (process.stdout, process.stdin)
        self._said = asyncio.create_task(self._read_errors())

    async def finish(self) -> None:
        """Git has said everything and is to end. Raises: Refused with its first useful line."""
        try:
            async with asyncio.timeout(_GRACE_S):
                code, said = await self._process.wait(), await self._said
        except TimeoutError as error:
            raise Unreachable("git did not end; it was stopped") from error
        if code:
            raise Refused(git.reason(said) or f"git ended with exit code {code}")

    async def stop(self) -> None:
        """End git and what it started; harmless when it has ended."""
        if self._process.returncode is None:
            # Git removes its lock files on TERM; KILL would leave them for the next push.
            with contextlib.suppress(ProcessLookupError):
                os.killpg(self._process.pid, signal.SIGTERM)
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(_GRACE_S):
                    await self._process.wait()
        self._said.cancel()
        await asyncio.wait([self._said])
        await self._process.end()

    async def _read_errors(self) -> str:
        assert self._process.stderr is not None
        kept = b""
        while chunk := await self._process.stderr.read(4096):
            kept = (kept + chunk)[-limits.GIT_ERROR_BYTES_MAX :]
        return kept.decode("utf-8", "replace")


async def serve(repo: Path, service: Service, *, peer: str, sock: str) -> Server:
    """Start git's server program for a machine whose identity the caller has proven.

    The guard is checked first: without its hooks nothing is served. Raises Broken.
    """
    if service not in SERVICES or not peer:
        raise Malformed(f"{service!r} for {peer!r} is not something git serves.")
    repository.check(repo)
    env = git.environment(
        {"MUSTER_PEER": peer, "MUSTER_SOCK": sock, "MUSTER_REPO": repo.name.removesuffix(".git")}
    )
    try:
        process = await child_process.start(
            *git.command([service.removeprefix("git-"), str(repo)], hooks=True),
            cwd=repo,
            env=env,
            stdin=asyncio.subprocess.PIPE,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.PIPE,
        )
    except OSError as error:
        what = f"git cannot be started: {error}; install git 2.29 or newer."
        raise unable(what, error) from error
    return Server(process)
