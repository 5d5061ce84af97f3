"""The process of a bridge, with a service that is a list: whose its cursor is, and when it works."""

import asyncio
from typing import Any, ClassVar

import pytest
from tests.promise import proves

from muster.bridge import process
from muster.bridge.base import Button, Hear, Limits, Passed, Post, Slow
from muster.bridge.wire import Begin, Durable, Ends, Heed, Runs, Show, Shown, line, read_word
from muster.errors import Unreachable


class Listed:
    """A service; `did` is what was asked of it, in order, and `ready` that it answers."""

    limits: ClassVar[Limits] = Limits(100, 3, 64)
    who = "bot"
    did: ClassVar[list[str]] = []
    ready: ClassVar[asyncio.Event]

    def __init__(self, token: str, options: Any) -> None: ...

    async def begin(self) -> str:
        self.did.append("begin")
        if self.did == ["begin"]:
            raise Slow(0)
        return self.who

    async def run(self, cursor: str, hear: Hear) -> None:
        self.did.append(f"run {cursor}")
        await self.ready.wait()
        await hear(Passed())
        await hear(Passed(), "seven")
        raise Unreachable("over")

    async def post(self, post: Post, key: str) -> str:
        self.did.append(f"post {post.text[:5]}" + " with a button" * len(post.buttons))
        return key

    async def edit(self, ref: str, post: Post, key: str) -> None: ...

    async def close(self) -> None: ...


@pytest.fixture(autouse=True)
def listed(monkeypatch):
    monkeypatch.setattr(process, "load", lambda _: Listed)


def lived(cursor: str, url: str = "https://a", text: str = "hello") -> tuple[list[str], list[Any]]:
    """What is asked of the service, and what is said, from the first line to the end."""
    Listed.did, said = [], list[Any]()

    async def live() -> None:
        Listed.ready, told = asyncio.Event(), asyncio.Queue[bytes]()

        def say(raw: bytes) -> None:
            word = read_word(raw)
            said.append(word)
            if isinstance(word, Heed):
                told.put_nowait(line(Durable(word.number)))

        told.put_nowait(line(Begin("listed", "token", {"url": url}, cursor)))
        told.put_nowait(line(Show(1, "key", Post("!room", text, (Button("y", "yes", "!"),)))))
        living = asyncio.ensure_future(process.Process(told.get, say).live())
        for _ in range(20):
            await asyncio.sleep(0)
        # It knows who it is and has a post; nothing answered what it listens to.
        assert (said, len(Listed.did), told.qsize()) == ([], 3, 0)
        Listed.ready.set()
        assert await living == 1

    asyncio.run(live())
    assert Listed.did[:2] == ["begin", "begin"]
    return Listed.did[2:], said


@proves("chat.contract")
def test_a_cursor_is_of_one_bot_at_one_server_and_of_another_it_is_none(monkeypatch):
    def begun(cursor: str, **more: Any) -> tuple[str, str]:
        """Where it went on, and the cursor in the end."""
        did, said = lived(cursor, **more)
        return did[0], next(each.cursor for each in said if isinstance(each, Heed) and each.cursor)

    where, cursor = begun("")
    assert where == "run "
    assert cursor.endswith(" seven")
    assert begun(cursor) == ("run seven", cursor)
    # As it was written before it said whose it is.
    for old in ("seven", '{"since": "s1", "last": {}}', "0123456789abcdef"):
        assert begun(old) == (f"run {old}", cursor)
    where, other = begun(cursor, url="https://b")
    assert (where, other != cursor) == ("run ", True)
    monkeypatch.setattr(Listed, "who", "another bot")
    where, other = begun(cursor)
    assert (where, other != cursor) == ("run ", True)


@proves("chat.process")
def test_a_bridge_runs_once_what_it_listens_to_has_answered_and_posts_from_then_on():
    did, said = lived("")
    assert did[:2] == ["run ", "post hello with a button"]
    kinds = [type(each) for each in said]
    assert kinds[0] is Runs
    assert kinds.count(Runs) == 1
    assert (kinds.count(Shown), kinds[-1]) == (1, Ends)


@proves("chat.words")
def test_a_post_that_is_cut_has_no_buttons():
    for text in ("hello" * 20 + "!", "hello" + "\u3000" * 20):
        assert lived("", text=text)[0][1] == "post hello"
    assert lived("", text="hello" * 20)[0][1] == "post hello with a button"
