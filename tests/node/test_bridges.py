"""The processes of chat bridges, begun again and again: what they are told, and a person is told."""

import asyncio
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from tests.promise import proves

from muster.bridge.base import Post
from muster.node import bridges
from muster.node.counter import Counts
from muster.node.host import keychain
from muster.node.host.chat_config import ChatConfig
from muster.node.host.secret_store import SecretStore
from muster.node.incidents import Noticed
from muster.node.services.chat import BridgeHeard, BridgeKept
from muster.node.services.chat_posts import BridgeDown, BridgeShow, BridgeShown, BridgeUp

TOKEN, SECOND = "token-that-nobody-reads", "another-that-nobody-reads"
# What processes say, each in turn.
ODD = """print('{"type":"heard","number":1,"heard":{"type":"passed","odd":"no event"}}')"""
REFUSED = f"""print('{{"type":"ends","why":"{TOKEN} is not accepted","lasting":true}}')"""
RUNS = """print('{"type":"runs"}', flush=True);"""
GREETED = f"""import sys; sys.stdin.readline(); {RUNS}"""
STAYS = f"""{GREETED} sys.stdin.read()"""
# It says what it is shown, by what it calls a post, and what is kept, as what it cannot read.
TELLS = f"""
import json
{GREETED}
print('{{"type":"heard","number":7,"heard":{{"type":"passed"}}}}', flush=True)
for raw in sys.stdin:
    told = json.loads(raw)
    said = {{"type": "heard", "number": 8, "heard": {{"type": "passed", "odd": f"{{told['number']}}"}}}}
    if told["type"] == "show":
        said = {{"type": "shown", "number": told["number"], "key": "k", "ref": told["post"]["text"]}}
        if "refuse" in said["ref"]:
            said["refused"] = "/bot{TOKEN}/ did not take it"
    print(json.dumps(said), flush=True)
"""
FORGES = f"""
{RUNS}
print('{{"type":"shown","number":3,"key":"k","ref":"x"}}', flush=True)
"""
BOTH = f"""
import json, sys
begin = json.loads(sys.stdin.readline())
{RUNS}
sys.stdin.readline()
told = [begin["token"], begin["options"]["app_token"]]
why = f"{{told == ['{TOKEN}', '{SECOND}']}}: {{told}}"
print(json.dumps({{"type": "ends", "why": why, "lasting": True}}))
"""
MUCH = f"""
{RUNS}
for number in range(20):
    print('{{"type":"heard","number":1,"heard":{{"type":"passed"}}}}', flush=True)
"""


class Daemon:
    """What bridges have of a daemon; `programs` are what their processes run, the last for ever."""

    def __init__(self, home: Path, monkeypatch: pytest.MonkeyPatch, *programs: str) -> None:
        self.told, self.open, self.rested = list[Any](), set[str](), list[float]()
        self.counters, self.kept = Counts(), dict[str, Callable[[], Any]]()
        self._programs, self._changed = list(programs), asyncio.Event()
        self.store = SecretStore(home)
        self.store.put("BOT", TOKEN, 0, "file")
        self.store.put("APP", SECOND, 0, "file")
        core = SimpleNamespace(
            counters=self.counters,
            part=lambda _: SimpleNamespace(cursor=lambda _: ""),
            incidents=SimpleNamespace(is_open=lambda key: key in self.open),
        )
        names = {"telegram": "BOT", "matrix": "OTHER"}
        config = {name: ChatConfig(token=token) for name, token in names.items()}
        config["slack"] = ChatConfig(token="BOT", app_token="APP")
        runtime: Any = SimpleNamespace(
            core=core,
            machine=SimpleNamespace(config=SimpleNamespace(chat=config)),
            home=SimpleNamespace(path=home),
            effects=SimpleNamespace(environ={}),
            supervisor=SimpleNamespace(keep=self.kept.__setitem__),
            post=self.post,
        )
        self._next = lambda: monkeypatch.setattr(bridges, "ARGV", ("-S", "-c", self._program()))
        self._next()
        own = SimpleNamespace(**{**vars(asyncio), "sleep": self._rest})
        monkeypatch.setattr(bridges, "asyncio", own)
        self.bridges = bridges.Bridges(runtime)
        self.bridges.begin()

    def _program(self) -> str:
        return self._programs.pop(0) if len(self._programs) > 1 else self._programs[0]

    async def _rest(self, pause_s: float) -> None:
        self.rested.append(pause_s)
        self._next()
        await asyncio.sleep(0)

    def post(self, event: Any) -> None:
        self.told.append(event)
        if isinstance(event, Noticed):
            (self.open.add if event.title else self.open.discard)(event.key)
        self._changed.set()

    async def until(self, holds: Callable[[], Any]) -> None:
        async with asyncio.timeout(30):
            while not holds():
                self._changed.clear()
                await self._changed.wait()

    def live(self, work: Callable[[], Any], *services: str) -> None:
        """Keep the bridges to these until the work is done."""

        async def living() -> None:
            tasks = [asyncio.ensure_future(self.kept[f"chat-{each}"]()) for each in services]
            await work()
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)

        asyncio.run(living())

    def count(self, *kinds: type) -> int:
        return len([each for each in self.told if isinstance(each, kinds)])

    @property
    def noticed(self) -> list[str]:
        return [each.title for each in self.told if isinstance(each, Noticed)]

    def refs(self) -> list[str]:
        return [each.ref for each in self.told if isinstance(each, BridgeShown)]


@proves("chat.process")
def test_a_bridge_that_ends_is_counted_and_begun_again_and_a_person_told_once(
    tmp_path, monkeypatch
):
    daemon = Daemon(tmp_path, monkeypatch, ODD, REFUSED, REFUSED, STAYS)
    # Three ended; the fourth runs, and what was told is over at once.
    daemon.live(lambda: daemon.until(lambda: daemon.count(BridgeUp)), "telegram")
    assert daemon.counters == {"bridge-started": 4, "bridge-failed": 3, "bridge-odd": 1}
    assert daemon.count(BridgeDown) == 4
    assert daemon.open == set()
    title, over = daemon.noticed
    assert "is not accepted" in title
    assert TOKEN not in title
    assert over == ""
    first, *others = daemon.rested
    assert min(others) * 1_000 >= bridges.LASTING_MS > first * 1_000


@proves("chat.process")
def test_a_service_of_two_tokens_gets_both_over_its_pipe_and_says_neither(tmp_path, monkeypatch):
    daemon = Daemon(tmp_path, monkeypatch, BOTH)

    async def work() -> None:
        await daemon.until(lambda: daemon.count(BridgeUp))
        # What it has stays hidden, whatever is kept now.
        for name in ("BOT", "APP"):
            daemon.store.put(name, f"the one of tomorrow, {name}", 0, "file")
        daemon.bridges._show(BridgeShow("slack", 1, "k", Post("C1", "x")))
        await daemon.until(lambda: daemon.noticed)

    daemon.live(work, "slack")
    (title,) = daemon.noticed
    assert "True: " in title
    assert TOKEN not in title
    assert SECOND not in title


@proves("chat.process")
def test_a_bridge_that_works_for_a_moment_each_time_is_told_and_stays_so_until_it_runs_on(
    tmp_path, monkeypatch
):
    daemon = Daemon(tmp_path, monkeypatch, f"{RUNS}{ODD}")
    daemon.live(lambda: daemon.until(lambda: daemon.counters["bridge-started"] == 6), "telegram")
    assert daemon.count(BridgeUp) >= 5
    (title,) = daemon.noticed
    assert "ends, and says nothing" in title
    assert daemon.open == {"chat-telegram"}
    # It is silent, and no failure of its own makes it one that works; that it runs on does.
    monkeypatch.setattr(bridges, "STEADY_S", 0.01)
    again = Daemon(tmp_path, monkeypatch, "", "", "", STAYS)
    again.live(lambda: again.until(lambda: again.noticed[1:]), "telegram")
    assert again.noticed == [title, ""]
    assert again.counters == {"bridge-started": 4, "bridge-failed": 3}


@proves("chat.process")
def test_a_post_hides_whatever_is_secret_now_whichever_bridge_has_it(tmp_path, monkeypatch):
    daemon = Daemon(tmp_path, monkeypatch, TELLS)
    daemon.store.put("OTHER", "token-of-the-other", 0, "file")

    async def work() -> None:
        number = 100

        async def posted(text: str) -> str:
            nonlocal number
            number += 1
            post = Post("!room", text)
            daemon.bridges._show(BridgeShow("telegram", number, "k", post))
            before = len(daemon.refs())
            await daemon.until(lambda: len(daemon.refs()) > before)
            return daemon.refs()[-1]

        await daemon.until(lambda: daemon.count(BridgeUp) == 2)
        assert await posted(f"a {TOKEN} b") == "a [BOT] b"
        assert await posted("a token-of-the-other b") == "a [OTHER] b"
        # Set now, and replaced: the process has the one before.
        daemon.store.put("LATE", "late-and-secret", 0, "file")
        daemon.store.put("BOT", "another-token", 0, "file")
        said = await posted(f"late-and-secret {TOKEN} another-token")
        assert said == "[LATE] [BOT] [BOT]"
        monkeypatch.setattr(keychain, "BACKENDS", (("tests.node.memory_keyring", "Keyring"),))
        daemon.store.put("CHAIN", "kept-in-a-keychain", 0, "keychain")
        assert await posted("kept-in-a-keychain") == "[CHAIN]"
        monkeypatch.setattr(keychain, "BACKENDS", ())
        daemon.store.put("LAST", "the-last-secret", 0, "file")
        assert await posted("the-last-secret") == "[LAST]"
        await posted("refuse this")
        assert daemon.told[-1].refused == "/bot[BOT]/ did not take it"
        # A line that is too long is a post that was refused, and nothing that is left out.
        daemon.bridges._show(BridgeShow("telegram", 99, "k", Post("!room", "\0" * 60_000)))
        await daemon.until(lambda: daemon.told[-1].number == 99)
        assert "at most" in daemon.told[-1].refused
        # Where nobody can say what is secret nothing is posted.
        (tmp_path / "secrets" / "index.json").chmod(0o644)
        daemon.bridges._show(BridgeShow("telegram", 98, "k", Post("!room", "hello")))
        await daemon.until(lambda: "chat-telegram" in daemon.open)
        assert "hello" not in daemon.refs()
        assert "chmod 600" in daemon.noticed[-1]

    daemon.live(work, "telegram", "matrix")


@proves("chat.process")
def test_a_bridge_is_heard_as_far_as_it_waits_and_told_of_what_it_said_itself(
    tmp_path, monkeypatch
):
    daemon = Daemon(tmp_path, monkeypatch, MUCH, MUCH, MUCH, TELLS)

    async def work() -> None:
        await daemon.until(lambda: daemon.count(BridgeUp) == 4)
        await daemon.until(lambda: daemon.count(BridgeHeard) > 3 * bridges.UNKEPT_MAX)
        heard = [each for each in daemon.told if isinstance(each, BridgeHeard)]
        assert len(heard) == 3 * bridges.UNKEPT_MAX + 1
        assert len({each.number for each in heard}) == len(heard)
        # What an earlier process said is kept now: that is nothing to this one.
        for each in heard:
            daemon.bridges._kept(BridgeKept("telegram", each.number))
        await daemon.until(lambda: daemon.count(BridgeHeard) > len(heard))
        assert daemon.told[-1].heard.odd == "7"

    daemon.live(work, "telegram")
    assert "does not wait" in daemon.noticed[0]
    # Of posts, too, it speaks as often as it was told.
    daemon = Daemon(tmp_path, monkeypatch, FORGES)
    daemon.live(lambda: daemon.until(lambda: daemon.noticed), "telegram")
    assert "a post that it was not told of" in daemon.noticed[0]
    assert daemon.refs() == []
