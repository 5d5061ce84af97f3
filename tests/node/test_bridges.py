"""The processes of chat bridges, begun again and again: what is counted, and what a person is told."""

import asyncio
from types import SimpleNamespace
from typing import Any

import pytest
from tests.promise import proves

from muster.node import bridges
from muster.node.counter import Counts
from muster.node.host.chat_config import ChatConfig
from muster.node.host.secret_store import SecretStore
from muster.node.incidents import Noticed
from muster.node.services.chat import BridgeHeard
from muster.node.services.chat_posts import BridgeDown

TOKEN = "token-that-nobody-reads"
REFUSED = f'{{"type":"ends","why":"{TOKEN} is not accepted","lasting":true}}'
ODD = '{"type":"heard","number":1,"heard":{"type":"passed","odd":"no event"}}'


@proves("chat.process")
def test_a_bridge_that_ends_is_counted_and_begun_again_and_a_person_told_once(
    tmp_path, monkeypatch
):
    told, open_, rested = list[Any](), set[str](), list[float]()

    def post(event: Any) -> None:
        told.append(event)
        if isinstance(event, Noticed):
            open_.add(event.key)

    async def sleep(pause_s: float) -> None:
        rested.append(pause_s)
        # No reason in the first; then it says why, and that beginning again does not help.
        made.argv = ["-c", f"print({REFUSED!r})"]
        if len(rested) == 3:
            raise asyncio.CancelledError

    SecretStore(tmp_path).put("BOT", TOKEN, 0, "file")
    core = SimpleNamespace(
        counters=Counts(),
        part=lambda _: SimpleNamespace(cursor=lambda _: ""),
        incidents=SimpleNamespace(is_open=lambda key: key in open_),
    )
    kept = dict[str, Any]()
    config = SimpleNamespace(chat={"telegram": ChatConfig(token="BOT")})
    daemon: Any = SimpleNamespace(
        core=core,
        machine=SimpleNamespace(config=config),
        home=SimpleNamespace(path=tmp_path),
        effects=SimpleNamespace(environ={}),
        supervisor=SimpleNamespace(keep=kept.__setitem__),
        post=post,
    )
    made = bridges.Bridges(daemon)
    made.argv = ["-c", f"print({ODD!r})"]
    made.begin()
    own = SimpleNamespace(**{**vars(asyncio), "sleep": sleep})
    monkeypatch.setattr(bridges, "asyncio", own)
    with pytest.raises(asyncio.CancelledError):
        asyncio.run(kept["chat-telegram"]())
    assert core.counters == {"bridge-started": 3, "bridge-failed": 3, "bridge-odd": 1}
    kinds = [type(each) for each in told if not isinstance(each, BridgeHeard)]
    assert kinds == [BridgeDown, BridgeDown, Noticed, BridgeDown]
    (noticed,) = (each for each in told if isinstance(each, Noticed))
    assert "is not accepted" in noticed.title
    assert TOKEN not in noticed.title
    assert min(rested[1:]) * 1_000 >= bridges.LASTING_MS > rested[0] * 1_000
