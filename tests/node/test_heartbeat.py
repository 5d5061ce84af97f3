"""The sign of life that an address of the web gets."""

import asyncio
from types import SimpleNamespace
from typing import Any

import pytest
from tests.promise import proves

from muster.limits import HEARTBEAT_S
from muster.node.counter import Counts
from muster.node.services import notifier
from muster.node.services.pager import Page, Paged


@proves("notify.heartbeat")
def test_a_sign_of_life_that_nobody_takes_is_counted_and_given_again(monkeypatch):
    said, asked, rested = ["no answer", "", "no answer"], [], []

    async def ask(what: Any) -> str:
        asked.append(what)
        return said.pop(0)

    async def sleep(pause_s: float) -> None:
        rested.append(pause_s)
        if not said:
            raise asyncio.CancelledError

    monkeypatch.setattr(notifier, "ask", ask)
    monkeypatch.setattr(notifier.asyncio, "sleep", sleep)
    core = SimpleNamespace(counters=Counts())
    config = SimpleNamespace(heartbeat=SimpleNamespace(url="http://a.test/alive"))
    daemon: Any = SimpleNamespace(core=core, machine=SimpleNamespace(config=config))
    made = notifier.Notifier.__new__(notifier.Notifier)
    made._daemon = daemon
    with pytest.raises(asyncio.CancelledError):
        asyncio.run(made._beat())
    assert asked == [{"get": "http://a.test/alive"}] * 3
    assert rested == [HEARTBEAT_S] * 3
    assert core.counters == {"heartbeats-failed": 2}


@proves("notify.broken-is-said")
def test_a_mistake_of_ours_is_told_to_the_pager_as_well(monkeypatch, tmp_path):
    async def deliver(_home: Any, name: str, _title: str, _body: str) -> str:
        if name == "phone":
            raise ZeroDivisionError
        return ""

    monkeypatch.setattr(notifier, "deliver", deliver)
    posted: list[Any] = []
    made = notifier.Notifier.__new__(notifier.Notifier)
    made._daemon, made._home = SimpleNamespace(post=posted.append), tmp_path  # type: ignore[assignment]
    with pytest.raises(ZeroDivisionError):
        asyncio.run(made._page(Page(7, ("phone", "team"), "smoke", "smoke")))
    assert posted == [
        Paged(7, (("phone", "it could not be tried (ZeroDivisionError)"), ("team", "")))
    ]
