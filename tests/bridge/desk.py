"""What a chat service is to the contract: people say and press things, and look at what is there.

A desk is one service on this computer: a fake that speaks its protocol, or the real server. A test
drives the bridge's process over its lines, as the daemon does.
"""

import asyncio
from collections.abc import Sequence
from typing import Any, NamedTuple, Self

from muster.bridge.base import Button, Post, Pressed, Said
from muster.bridge.process import Process
from muster.bridge.wire import (
    Begin,
    Durable,
    Ends,
    Heed,
    Runs,
    Show,
    Shown,
    line,
    read_word,
)

WAIT_S = 30.0
LOOK, AGAIN = Button("a0123", "I look at it", "👀"), Button("a4567", "I look at it", "👀")
YES, NO = (
    Button("y01234567:0123456789ab", "allow", "✅"),
    Button("n01234567:0123456789ab", "no", "❌"),
)


class Seen(NamedTuple):
    """A post as people see it now."""

    ref: str
    text: str
    buttons: Sequence[str]


class Desk:
    """See the top of this file. `room` is where everybody is, `private` where one and the bot are."""

    name = ""
    token, url, room = "", "", ""
    # Whether an equal key makes one post, and whether it says so by 429.
    idempotent = False
    # Whether what is said in the room has a name that an answer stands below.
    below = False
    # Where the bridge before was: an answer to a first word may be some minutes old (Synapse).
    cursor = ""
    # What ids have in them where each bot counts by itself.
    bot = ""

    async def open(self) -> None: ...

    async def close(self) -> None: ...

    async def say(self, account: str, text: str, *, private: bool = False) -> None: ...

    async def edit_last(self, account: str, text: str) -> None: ...

    async def press(self, account: str, ref: str, button: Button) -> None: ...

    async def seen(self) -> list[Seen]: ...

    async def slow_down(self) -> None: ...

    async def revoke(self) -> None: ...

    async def cut(self) -> None: ...

    def account(self, name: str) -> str:
        return name


class Hub:
    """The daemon's side of the lines of one bridge, for as long as it lives."""

    def __init__(self, desk: Desk, cursor: str = "") -> None:
        self.desk, self.cursor = desk, cursor
        self._to: asyncio.Queue[bytes] = asyncio.Queue()
        self.heard: list[Said | Pressed] = []
        self.shown: dict[int, Shown] = {}
        self.ends: Ends | None = None
        self.keeps = True
        self._changed = asyncio.Event()
        self._number = 0

    async def __aenter__(self) -> Self:
        options: dict[str, Any] = {"url": self.desk.url, "room": self.desk.room}
        options |= getattr(self.desk, "options", {})
        self._to.put_nowait(line(Begin(self.desk.name, self.desk.token, options, self.cursor)))
        self._task = asyncio.ensure_future(Process(self._to.get, self._says).live())
        return self

    async def __aexit__(self, *_: object) -> None:
        self.desk.cursor = self.cursor
        self._to.put_nowait(b"")
        await asyncio.wait_for(self._task, WAIT_S)

    def _says(self, raw: bytes) -> None:
        word = read_word(raw)
        if isinstance(word, Heed):
            if self.keeps:
                if not hasattr(word.heard, "id"):
                    pass
                elif word.heard.id not in {each.id for each in self.heard}:
                    self.heard.append(word.heard)
                self.cursor = word.cursor or self.cursor
                self._to.put_nowait(line(Durable(word.number)))
        elif isinstance(word, Shown):
            self.shown[word.number] = word
        elif isinstance(word, Ends):
            self.ends = word
        else:
            assert isinstance(word, Runs)
        self._changed.set()

    async def until(self, holds: Any) -> None:
        async with asyncio.timeout(WAIT_S):
            while not holds():
                self._changed.clear()
                await self._changed.wait()

    def texts(self) -> list[str]:
        return [each.text for each in self.heard if isinstance(each, Said)]

    async def post(
        self,
        text: str,
        buttons: tuple[Button, ...] = (),
        *,
        key: str = "",
        ref: str = "",
        room: str = "",
    ) -> Shown:
        self._number += 1
        number = self._number
        post = Post(room or self.desk.room, text, buttons)
        self._to.put_nowait(line(Show(number, key or f"k{number}", post, ref)))
        await self.until(lambda: number in self.shown or self.ends)
        assert not self.ends, self.ends
        return self.shown[number]

    async def over(self) -> Ends:
        await asyncio.wait_for(asyncio.shield(self._task), WAIT_S)
        assert self.ends is not None
        return self.ends
