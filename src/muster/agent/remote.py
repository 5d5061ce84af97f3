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
from muster.agent import git, repository
from muster.errors import Broken, Malformed

Kind = Literal["data", "credit", "close"]
Service = Literal["git-upload-pack", "git-receive-pack"]
Piece = tuple[Kind, bytes]
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
        raise Broken(f"git cannot be started: {error}; install git 2.29 or newer.") from error
    return Server(process)


async def tunnel(pair: Pair, send: Send, frames: "asyncio.Queue[Piece]") -> None:
    """Carry one stream pair over frames until the reader has ended or the far side closed.

    `send` may wait; `frames` gets the far side's frames and needs no bound of its own, since a
    peer that sends more than it was granted is refused. Raises Malformed.
    """
    reader, writer = pair
    window = _Window()
    # `taking` goes on after the far side's last data, because its credit is still needed; it
    # ends only when the far side closes, and `giving` when git has said everything.
    taking = asyncio.create_task(_take(writer, send, frames, window))
    giving = asyncio.create_task(_give(reader, send, window))
    try:
        await asyncio.wait([taking, giving], return_when=asyncio.FIRST_COMPLETED)
    finally:
        for task in (taking, giving):
            task.cancel()
        await asyncio.wait([taking, giving])
    for task in (taking, giving):
        if not task.cancelled():
            task.result()


async def serve_tunnel(
    repo: Path,
    service: Service,
    send: Send,
    frames: "asyncio.Queue[Piece]",
    *,
    peer: str,
    sock: str,
) -> int:
    """`serve` and `tunnel` together, to the closing frame; git's exit code."""
    server = await serve(repo, service, peer=peer, sock=sock)
    code, said = 1, "the tunnel was cut"
    try:
        await tunnel(server.pair, send, frames)
        async with asyncio.timeout(_GRACE_S):
            code, said = await server.wait()
    except TimeoutError:
        said = "git did not end; it was stopped"
    except Malformed as error:
        said = str(error)
    finally:
        await server.stop()
    answer = {"code": 0} if code == 0 else {"code": 1, "error": said}
    await send("close", json.dumps(answer).encode())
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


async def _give(reader: asyncio.StreamReader, send: Send, window: _Window) -> None:
    """What git says, as far as the window is open."""
    while True:
        chunk = await reader.read(await window.wait())
        window.add(-len(chunk))
        await send("data", chunk)
        if not chunk:
            return


async def _take(
    writer: asyncio.StreamWriter, send: Send, frames: "asyncio.Queue[Piece]", window: _Window
) -> None:
    """What the far side says, to git, until it closes the tunnel."""
    granted, owed = limits.GIT_WINDOW_BYTES, 0
    while True:
        kind, payload = await frames.get()
        if kind == "close":
            return
        if kind == "credit":
            if len(payload) != 4:
                raise Malformed("A credit frame holds four bytes.")
            window.add(int.from_bytes(payload, "big"))
        elif payload:
            granted -= len(payload)
            if granted < 0:
                raise Malformed("The other side sent more bytes than it was granted.")
            await _write(writer, payload)
            owed += len(payload)
            if owed >= _GRANT_BYTES:
                await send("credit", owed.to_bytes(4, "big"))
                granted, owed = granted + owed, 0
        elif writer.can_write_eof():
            writer.write_eof()


async def _write(writer: asyncio.StreamWriter, payload: bytes) -> None:
    # Git may have ended with an error before it read everything; its answer is still to come.
    with contextlib.suppress(ConnectionError):
        writer.write(payload)
        await writer.drain()
