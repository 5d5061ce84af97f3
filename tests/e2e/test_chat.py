"""A daemon with a bridge in a process of its own: from a code to an approval, over a restart."""

import asyncio
import os
import threading
from pathlib import Path
from typing import Any

import pytest

from muster.node.host.secret_store import SecretStore
from tests.bridge.telegrams import Telegrams
from tests.e2e.agents import muster
from tests.e2e.fleet import Fleet, until
from tests.promise import proves

pytestmark = [pytest.mark.e2e, pytest.mark.timeout(180)]
CANARY = "canary-7d1f-do-not-post-me"


class Beside:
    """The service in a loop of its own."""

    def __init__(self) -> None:
        self.desk, self._loop = Telegrams(), asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, daemon=True)
        self._thread.start()

    def do(self, work: Any) -> Any:
        return asyncio.run_coroutine_threadsafe(work, self._loop).result(30)

    def close(self) -> None:
        self.do(self.desk.close())
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join(10)
        self._loop.close()


@proves("chat.process", "chat.linked-by-code")
def test_a_bridge_of_a_daemon_links_answers_posts_and_says_when_its_token_is_refused():
    pytest.importorskip("telegram")
    service = Beside()
    service.do(service.desk.open())
    try:
        with Fleet(("hub",)) as fleet:
            _with_bridge(fleet, service)
    finally:
        service.close()


def _with_bridge(fleet: Fleet, service: Beside) -> None:
    desk, hub = service.desk, fleet.hub
    told = f'chat.telegram.token = "BOT"\nchat.telegram.room = "{desk.room}"\n'
    told += f'chat.telegram.url = "{desk.url}"\n'
    config = hub.home.path / "config.toml"
    config.write_text(told + config.read_text())
    store = SecretStore(hub.home.path)
    store.put("BOT", desk.token, 0, "file")
    store.put("CANARY", CANARY, 0, "file")
    fleet.start()
    posts = lambda: [each.text for each in service.do(desk.seen())]  # noqa: E731
    until(lambda: "getUpdates" in desk.asked, "the bridge reads")
    _holds_nothing(fleet, desk)
    code = hub.order("chat.link", "telegram", {"days": 30, "service": "telegram"})["code"]
    service.do(desk.say("mallory", "muster status"))
    service.do(desk.say("alice", code, private=True))
    until(lambda: any("is linked by" in text for text in posts()), "the account is linked")
    service.do(desk.say("alice", "muster status"))
    until(lambda: any(text.startswith("hub: ") for text in posts()), "it is answered")
    # The daemon dies; what was said meanwhile is heard once, and what it wants to post is posted.
    hub.kill()
    for number in range(5):
        service.do(desk.say("alice", f"while you were away {number}"))
    hub.start()
    said = lambda: [m["text"] for m in hub.ask("inbox", {"limit": 100})]  # noqa: E731
    until(lambda: len(said()) == 5, "what was said is in the inbox")
    assert sorted(said()) == [f"while you were away {number}" for number in range(5)]
    assert sum("is linked by" in text for text in posts()) == 1
    args = {"message": hub.ask("inbox", {"limit": 1})[0]["message"], "text": [f"see {CANARY}"]}
    hub.order("reply", args["message"], args)
    until(lambda: any("[CANARY]" in text for text in posts()), "the answer is there")
    assert CANARY not in str(posts())
    service.do(desk.revoke())
    until(lambda: _alarm(hub), "a person is told")
    assert "does not accept the token" in _alarm(hub)
    assert desk.token not in hub.log() + str(hub.ask("incidents"))
    listed = muster(fleet, hub, "chat", "list")
    assert f"telegram:{desk.account('alice')}" in listed.out


def _alarm(hub: Any) -> str:
    found = [each for each in hub.ask("incidents") if each["key"] == "chat-telegram"]
    return str(found[0]["title"]) if found and found[0]["open"] else ""


def _holds_nothing(fleet: Fleet, desk: Telegrams) -> None:
    """The process of the bridge has its token in no argument and no environment."""
    found = 0
    for each in Path("/proc").iterdir():
        if not each.name.isdigit():
            continue
        try:
            argv = (each / "cmdline").read_bytes()
            if b"muster.bridge" not in argv or int((each / "stat").read_text().split()[3]) == 1:
                continue
            environ = (each / "environ").read_bytes()
        except OSError:
            continue
        found += 1
        assert desk.token.encode() not in argv + environ
        assert b"MUSTER_HOME" not in environ
    assert found >= 1 or os.name != "posix"
