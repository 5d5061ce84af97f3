"""The daemon, as the door knows it: calls over its Unix socket, each over a connection of its own.

Rule 1: whoever gives up on a call hangs up, and the daemon ends what it did for it.
Rule 2: a daemon may take its time while it lives; one that is silent is asked whether it does.
"""

import asyncio
import os
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from typing import Any, Final

from muster.channel.frame import LENGTH_BYTES, Type, decode, encode, prefixed, read_length
from muster.channel.ipc_client import peer_uid
from muster.cli import call
from muster.errors import Conflict, Malformed, Unreachable
from muster.limits import CALL_BYTES_MAX, DOOR_CALLS_MAX, FRAME_PAYLOAD_BYTES_MAX

_CHANNEL: Final = 1
_CONNECT_S: Final = 10.0


class Daemon:
    """What answers at one socket."""

    def __init__(self, path: str) -> None:
        self._path = path
        self._open = 0

    async def ask(self, verb: str, args: Mapping[str, Any], *, token: str = "") -> Any:
        """The answer of a verb, as whose `token` that is. Raises: what the daemon raised."""
        last = None
        async for each in self.stream(verb, args, token=token):
            last = each
        return last

    async def stream(
        self, verb: str, args: Mapping[str, Any], *, token: str = ""
    ) -> AsyncIterator[Any]:
        """The answers of a verb as they come, the last one last."""
        raw = call.canonical(
            {"args": dict(args), "verb": verb, **({"capability": token} if token else {})}
        )
        if len(raw) > FRAME_PAYLOAD_BYTES_MAX:
            raise Malformed(
                f"{verb} with all its arguments is {len(raw)} bytes; at most "
                f"{FRAME_PAYLOAD_BYTES_MAX} fit into a call"
            )
        if self._open >= DOOR_CALLS_MAX:
            raise Conflict(f"{DOOR_CALLS_MAX} calls are under way here; ask again when one ended")
        self._open += 1
        try:
            async with self._dialled() as (reader, writer):
                writer.write(prefixed(encode(Type.CALL, _CHANNEL, raw)))
                parts = b""
                while True:
                    mark, part = await self._next(reader)
                    parts += part
                    if len(parts) > CALL_BYTES_MAX:
                        raise Malformed(f"the answer to {verb} is longer than any answer can be")
                    if mark == b"+":
                        continue
                    yield call.value(verb, parts)
                    if mark == b".":
                        return
                    parts = b""
        finally:
            self._open -= 1

    @asynccontextmanager
    async def _dialled(self) -> AsyncIterator[tuple[asyncio.StreamReader, asyncio.StreamWriter]]:
        try:
            async with asyncio.timeout(_CONNECT_S):
                reader, writer = await asyncio.open_unix_connection(self._path)
        except (OSError, TimeoutError) as error:
            raise Unreachable(
                "the daemon of this machine does not answer; start it with `muster up --detach`"
            ) from error
        try:
            if peer_uid(writer.get_extra_info("socket")) != os.getuid():
                raise Unreachable(
                    "another user's program listens where this machine's daemon should"
                )
            yield reader, writer
        finally:
            writer.close()

    async def _next(self, reader: asyncio.StreamReader) -> tuple[bytes, bytes]:
        """The mark and the text of the next answer. Raises: Unreachable, Malformed."""
        while True:
            try:
                waiting = asyncio.ensure_future(_frame(reader))
                try:
                    while not (await asyncio.wait([waiting], timeout=call.SILENCE_S))[0]:
                        await self._lives()
                    frame = decode(waiting.result())
                finally:
                    waiting.cancel()
            except (asyncio.IncompleteReadError, OSError) as error:
                raise Unreachable("the daemon hung up; see `muster doctor`") from error
            if frame.type is Type.REPLY and frame.channel == _CHANNEL:
                return frame.payload[:1], frame.payload[1:]

    async def _lives(self) -> None:
        """Returns when it answers something. Raises: Unreachable where it does not."""
        facts = call.canonical({"args": {}, "verb": "facts"})
        async with self._dialled() as (reader, writer):
            writer.write(prefixed(encode(Type.CALL, _CHANNEL, facts)))
            try:
                async with asyncio.timeout(call.ALIVE_S):
                    await _frame(reader)
            except TimeoutError as error:
                raise Unreachable("the daemon is silent; see `muster doctor`") from error


async def _frame(reader: asyncio.StreamReader) -> bytes:
    size, last = read_length(await reader.readexactly(LENGTH_BYTES))
    body = await reader.readexactly(size)
    if last:
        raise Unreachable(f"the daemon closed the link: {body.decode(errors='replace')}")
    return body
