"""A repository served over frames: git's own server programs, and the tunnel to them.

Rule 1: the daemon proves who asks and sets MUSTER_PEER; nothing the other side says can change it.
Rule 2: nobody's memory grows because somebody else is slow: each direction has a window, and
        what was written to git, not what arrived, gives it back.
Rule 3: a tunnel that ends early takes its git process with it.

The tunnel knows three kinds of frame, named like the types of the frame spec in lower case, so
that the node maps them without this file knowing channels:

    data    bytes; empty means that this direction has ended
    credit  u32: so many more bytes may come
    close   the end of both directions; JSON {"code": 0} or {"code": 1, "error": "…"}
"""

import asyncio
import contextlib
import json
import os
import signal
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Final, Literal, NamedTuple, cast

from muster import limits
from muster.errors import Malformed, MusterError, unable
from muster.git import command as git
from muster.git import repository

Kind = Literal["data", "credit", "close"]
Service = Literal["git-upload-pack", "git-receive-pack"]
Send = Callable[[Kind, bytes], Awaitable[None]]
Pair = tuple[asyncio.StreamReader, asyncio.StreamWriter]

SERVICES: Final[tuple[Service, ...]] = ("git-upload-pack", "git-receive-pack")
_GRANT_BYTES: Final = limits.GIT_WINDOW_BYTES // 4
_GRACE_S: Final = 5.0


class Request(NamedTuple):
    """A tunnel somebody asked for."""

    machine: str
    repo: str
    service: Service


def parse(question: object) -> Request:
    """The fields of a `git.connect` call. Raises Malformed."""
    fields = question if isinstance(question, dict) else {}
    machine, repo, service = (fields.get(key) for key in ("machine", "repo", "service"))
    if not isinstance(machine, str) or not isinstance(repo, str) or service not in SERVICES:
        raise Malformed("A git.connect call names a machine, a repository and a git service.")
    return Request(machine, repo, cast("Service", service))


class Server:
    """One running `git receive-pack` or `git upload-pack`."""

    def __init__(self, process: asyncio.subprocess.Process) -> None:
        self._process = process
        assert process.stdout is not None
        assert process.stdin is not None
        # asyncio's process pipes are stream pairs, as the tunnel wants them.
        self.pair: Pair = (process.stdout, process.stdin)
        self._said = asyncio.create_task(self._read_errors())

    async def wait(self) -> tuple[int, str]:
        """The exit code and the first useful line of standard error."""
        code = await self._process.wait()
        said = await self._said
        return code, git.reason(said) if code else ""

    async def stop(self) -> None:
        """End git and what it started; harmless when it has ended."""
        if self._process.returncode is None:
            # Git removes its lock files on TERM; KILL would leave them for the next push.
            self._signal(signal.SIGTERM)
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(_GRACE_S):
                    await self._process.wait()
            self._signal(signal.SIGKILL)
            await self._process.wait()
        self._said.cancel()
        await asyncio.wait([self._said])

    def _signal(self, number: int) -> None:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self._process.pid, number)

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
        process = await asyncio.create_subprocess_exec(
            *git.command([service.removeprefix("git-"), str(repo)], hooks=True),
            cwd=repo,
            env=env,
            stdin=asyncio.subprocess.PIPE,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.PIPE,
            start_new_session=True,
        )
    except OSError as error:
        what = f"git cannot be started: {error}; install git 2.29 or newer."
        raise unable(what, error) from error
    return Server(process)


class Tunnel:
    """One stream pair carried over frames.

    `feed` is called with each frame of the far side, from the moment the tunnel is announced;
    `run` joins it to git. What waits for git is bounded by what was granted.
    """

    def __init__(self, send: Send) -> None:
        self._send = send
        self._window = _Window()
        self._granted = limits.GIT_WINDOW_BYTES
        # Bytes, not frames: a million frames of one byte each must cost a million bytes.
        self._waiting = bytearray()
        self._ended = False
        self._arrived = asyncio.Event()
        self._gone = asyncio.Event()
        self._fault: Malformed | None = None

    def feed(self, kind: Kind, payload: bytes) -> None:
        """Take one frame; never waits, never raises. A frame against the rules ends the tunnel."""
        if self._gone.is_set():
            return
        try:
            self._accept(kind, payload)
        except Malformed as error:
            self._fault = error
            self._gone.set()

    async def run(self, pair: Pair) -> bool:
        """Carry until the reader has ended (True) or the far side has left (False).

        Raises Malformed when the far side broke the rules.
        """
        reader, writer = pair
        giving = asyncio.create_task(self._give(reader))
        others = [asyncio.create_task(self._take(writer)), asyncio.create_task(self._gone.wait())]
        try:
            await asyncio.wait([giving, *others], return_when=asyncio.FIRST_COMPLETED)
        finally:
            self._gone.set()
            for task in (giving, *others):
                task.cancel()
            await asyncio.wait([giving, *others])
        if self._fault is not None:
            raise self._fault
        for task in (giving, others[0]):
            if not task.cancelled():
                task.result()
        return not giving.cancelled()

    async def close(self, payload: bytes) -> None:
        """Tell the far side how it ended."""
        await self._send("close", payload)

    def _accept(self, kind: Kind, payload: bytes) -> None:
        if kind == "close":
            self._gone.set()
        elif kind == "credit":
            if len(payload) != 4:
                raise Malformed("A credit frame holds four bytes.")
            self._window.add(int.from_bytes(payload, "big"))
        elif self._ended or len(payload) > self._granted:
            raise Malformed("The other side sent more bytes than it was granted.")
        else:
            self._granted -= len(payload)
            self._waiting += payload
            self._ended = not payload
            self._arrived.set()

    async def _give(self, reader: asyncio.StreamReader) -> None:
        """What git says, as far as the window is open."""
        while True:
            chunk = await reader.read(await self._window.wait())
            self._window.add(-len(chunk))
            await self._send("data", chunk)
            if not chunk:
                return

    async def _take(self, writer: asyncio.StreamWriter) -> None:
        """What the far side says, to git; what git has taken is granted again."""
        owed = 0
        while True:
            await self._arrived.wait()
            self._arrived.clear()
            data, self._waiting = bytes(self._waiting), bytearray()
            ended = self._ended
            await _write(writer, data, ended)
            owed += len(data)
            if owed >= _GRANT_BYTES and not ended:
                self._granted += owed
                await self._send("credit", owed.to_bytes(4, "big"))
                owed = 0


async def serve_tunnel(
    repo: Path,
    service: Service,
    tunnel: Tunnel,
    *,
    peer: str,
    sock: str,
) -> int:
    """`serve` and a tunnel together, to the closing frame; git's exit code. Raises nothing.

    The far side learns of every end by the closing frame, also when git could not be started.
    """
    code, said, server = 1, "the tunnel was cut", None
    try:
        server = await serve(repo, service, peer=peer, sock=sock)
        if await tunnel.run(server.pair):
            async with asyncio.timeout(_GRACE_S):
                code, said = await server.wait()
    except TimeoutError:
        said = "git did not end; it was stopped"
    except MusterError as error:
        said = str(error)
    finally:
        if server is not None:
            await server.stop()
    answer = {"code": 0} if code == 0 else {"code": 1, "error": said}
    await tunnel.close(json.dumps(answer).encode())
    return code


class _Window:
    """How many bytes may still be sent."""

    def __init__(self) -> None:
        self._room = limits.GIT_WINDOW_BYTES
        self._open = asyncio.Event()
        self._open.set()

    async def wait(self) -> int:
        await self._open.wait()
        return min(self._room, limits.GIT_DATA_BYTES_MAX)

    def add(self, count: int) -> None:
        self._room += count
        if self._room > limits.GIT_WINDOW_BYTES:
            raise Malformed("The other side granted more bytes than it was sent.")
        if self._room > 0:
            self._open.set()
        else:
            self._open.clear()


async def _write(writer: asyncio.StreamWriter, data: bytes, ended: bool) -> None:
    # Git may have ended before it read everything; its answer is still to come. uvloop reports
    # a closed pipe as a RuntimeError, asyncio as a ConnectionError.
    with contextlib.suppress(ConnectionError, RuntimeError):
        writer.write(data)
        await writer.drain()
        if ended:
            writer.write_eof()
