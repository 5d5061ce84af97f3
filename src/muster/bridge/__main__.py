"""The process of a bridge: `python -m muster.bridge`, started by the daemon."""

import asyncio
import os
import sys

from muster.bridge.process import Process
from muster.bridge.wire import LINE_BYTES_MAX


async def _run() -> int:
    loop = asyncio.get_running_loop()
    reader = asyncio.StreamReader(limit=LINE_BYTES_MAX)
    await loop.connect_read_pipe(lambda: asyncio.StreamReaderProtocol(reader), sys.stdin)

    # What a client prints is no line of ours: it goes where its errors go.
    words = os.dup(1)
    os.dup2(2, 1)

    def say(raw: bytes) -> None:
        os.write(words, raw)

    async def lines() -> bytes:
        try:
            return await reader.readline()
        except ValueError:
            # Longer than any line may be.
            return b""

    return await Process(lines, say).live()


if __name__ == "__main__":
    sys.exit(asyncio.run(_run()))
