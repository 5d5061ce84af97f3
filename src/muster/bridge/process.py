"""One bridge in a process of its own: from lines to the service, and back.

Rule 1: posts go out one after the other, in the order in which they were wanted. Where the service
asks to wait, all of them wait.
Rule 2: whatever fails ends the process with a line that says why; it holds nothing that the daemon
does not have.
Rule 3: it ends with its standard input, which is the daemon's to close.
Rule 4: a cursor has before it whose it is: the bot, and its server. Another one's is none. What an
earlier Muster wrote has nobody before it, and is ours.
"""

import asyncio
import hashlib
import itertools
import re
from collections.abc import Awaitable, Callable
from typing import Final

from msgspec.structs import replace

from muster.bridge.base import HEARD_CHARS_MAX, Bridge, Heard, Passed, Said, patient
from muster.bridge.services import load
from muster.bridge.wire import (
    Begin,
    Durable,
    Ends,
    Heed,
    Runs,
    Show,
    Shown,
    ToDaemon,
    line,
    read_order,
    read_word,
)
from muster.bridge.words import cut, fits
from muster.errors import Broken, Denied, Malformed, MusterError

Lines = Callable[[], Awaitable[bytes]]
Say = Callable[[bytes], None]
_WHOSE: Final = re.compile(r"([0-9a-f]{16}) ")


class Process:
    """See the rules at the top of this file; `lines` gives the next line, b"" at the end."""

    def __init__(self, lines: Lines, say: Say) -> None:
        self._lines, self._say_bytes = lines, say
        self._numbers = itertools.count(1)
        self._kept: dict[int, asyncio.Future[None]] = {}
        self._shows: asyncio.Queue[Show] = asyncio.Queue()
        self._runs = asyncio.Event()
        self._whose = ""

    async def live(self) -> int:
        """The exit code; 0 when the daemon ended it."""
        try:
            begin = read_order(await self._lines())
            if not isinstance(begin, Begin):
                raise Malformed("the first line between daemon and bridge is not `begin`")
            bridge = load(begin.service)(begin.token, begin.options)
        except MusterError as error:
            return self._ends(error)
        try:
            return await self._serve(bridge, begin)
        finally:
            await bridge.close()

    async def _serve(self, bridge: Bridge, begin: Begin) -> int:
        running = [
            asyncio.ensure_future(work)
            for work in (self._run(bridge, begin), self._post(bridge), self._listen())
        ]
        try:
            done, _ = await asyncio.wait(running, return_when=asyncio.FIRST_COMPLETED)
            for task in running:
                if task in done:
                    task.result()
        except MusterError as error:
            return self._ends(error)
        finally:
            for task in running:
                task.cancel()
            await asyncio.gather(*running, return_exceptions=True)
        return 0

    def _ends(self, error: MusterError) -> int:
        lasting = isinstance(error, Denied | Broken)
        self._say(Ends(str(error)[:1_000], lasting=lasting))
        return 77 if lasting else 1

    def _say(self, message: ToDaemon) -> None:
        self._say_bytes(line(message))

    async def _listen(self) -> None:
        """Take the daemon's lines until there are none."""
        while raw := await self._lines():
            message = read_order(raw)
            if isinstance(message, Durable):
                kept = self._kept.pop(message.number, None)
                if kept is not None and not kept.done():
                    kept.set_result(None)
            elif isinstance(message, Show):
                self._shows.put_nowait(message)

    async def _run(self, bridge: Bridge, begin: Begin) -> None:
        named = f"{begin.options.get('url', '')}\n{await patient(bridge.begin)}"
        self._whose = hashlib.sha256(named.encode()).hexdigest()[:16]
        found = _WHOSE.match(begin.cursor)
        cursor = begin.cursor[found.end() :] if found else begin.cursor
        await bridge.run("" if found and found[1] != self._whose else cursor, self._hear)

    async def _hear(self, heard: Heard, cursor: str = "") -> None:
        if not self._runs.is_set():
            self._runs.set()
            self._say(Runs())
        cursor = f"{self._whose} {cursor}" if cursor else ""
        number = next(self._numbers)
        kept = self._kept[number] = asyncio.get_running_loop().create_future()
        try:
            self._say_bytes(_heed(number, heard, cursor))
            await kept
        finally:
            self._kept.pop(number, None)

    async def _post(self, bridge: Bridge) -> None:
        await self._runs.wait()
        while True:
            show = await self._shows.get()
            self._say(await self._shown(bridge, show))

    async def _shown(self, bridge: Bridge, show: Show) -> Shown:
        post = show.post
        if not fits(post.text, bridge.limits.text_chars):
            # Whoever presses has read all of it.
            post = replace(post, buttons=())
        try:
            if show.ref:
                await patient(lambda: bridge.edit(show.ref, post, show.key))
                return Shown(show.number, show.key, show.ref)
            ref = await patient(lambda: bridge.post(post, show.key))
            return Shown(show.number, show.key, ref)
        except Malformed as error:
            return Shown(show.number, show.key, refused=str(error)[:500])


def _heed(number: int, heard: Heard, cursor: str) -> bytes:
    """The line of what was heard, or that it has no room in one. Raises: Malformed: the cursor."""
    if isinstance(heard, Said):
        # Half a letter, which JSON can spell, is none.
        text = heard.text.encode("utf-8", "replace").decode()
        heard = replace(heard, text=cut(text, HEARD_CHARS_MAX))
    try:
        raw = line(Heed(number, heard, cursor))
        read_word(raw)
    except Malformed as error:
        raw = line(Heed(number, Passed(str(error)), cursor))
        read_word(raw)
    return raw
