"""The mailboxes of real cores over a real folder: what waits, what is dropped, what is given up."""

import asyncio
import hashlib
import os
import sys
from collections import Counter
from collections.abc import Awaitable, Callable, Coroutine
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from tests.node.cores import Cores, One
from tests.promise import proves

from muster.channel import drop
from muster.channel.base import Own
from muster.errors import Broken
from muster.fleet.parcel import ITEM_HEAD_BYTES, Item
from muster.limits import MAILBOX_BYTES_MAX, PARCEL_BYTES_MAX
from muster.node import event as ev
from muster.node.host.config import Config
from muster.node.links import posts
from muster.node.links.posts import Mailboxes, ParcelBox
from muster.node.supervisor import Supervisor

pytest.importorskip("pyrage", reason="pip install 'muster-fleet[sealed]'")


class Runs:
    """One machine of `Cores` whose mailboxes are in a folder; as much of a daemon as they need."""

    def __init__(self, one: One, place: Path) -> None:
        self.one, self.core = one, one.core
        options = drop.Options(place=str(place), deadline_s=1)
        self.machine = SimpleNamespace(config=Config(channel={"drop": options}))
        self.supervisor = Supervisor(self.core.counters, self.fail, self.fail)
        self.there = asyncio.Event()
        self.there.set()
        nobody: Any = None
        own = Own(one.id, nobody, nobody)
        self.mailboxes = Mailboxes(self, own, self.there)  # type: ignore[arg-type]
        self.inbox = place / one.id

    def fail(self, why: str) -> None:
        raise AssertionError(why)

    def post(self, event: ev.Event) -> None:
        asyncio.get_running_loop().call_soon(self.step, event)

    def step(self, *events: ev.Event) -> None:
        world = self.one.world
        world.ms = int(asyncio.get_running_loop().time() * 1000)
        handlers = ev.handlers({ev.Effect}, self, self.mailboxes)
        others, filled = [], []
        for effect in self.core.step(events, world.now()):
            if isinstance(effect, ev.Send) and effect.link < 0:
                box = self.mailboxes.box(effect.link)
                assert box is not None
                box.put(effect.frame, bulk=effect.bulk)
                filled.append(box)
            elif type(effect) in handlers:
                handlers[type(effect)](effect)
            else:
                others.append(effect)
        for box in filled:
            box.release()
        world.carry_out(self.one, others)

    @ev.effect(ev.Effect)
    def nothing(self, _: Any) -> None: ...

    def send(self, to: str, text: str) -> None:
        args = {"to": to, "text": [text]}
        assert self.one.order("send", to, args)["ok"]
        # What was written has to leave: the order went past `step`.
        self.one.core.sync.posts.links_changed()
        self.step(ev.Tick())

    def texts(self) -> list[str]:
        return [each["text"] for each in self.one.call("inbox", {})["value"]]


def play(
    tmp_path: Path, monkeypatch: Any, scenario: Callable[..., Awaitable[None]], *names: str
) -> None:
    place = tmp_path / "place"
    place.mkdir()

    async def scene() -> None:
        world = Cores(*(names or ("hub", "studio")))
        world.ms = int(asyncio.get_running_loop().time() * 1000)
        monkeypatch.setattr(
            posts.clock, "boot_ms", lambda: int(asyncio.get_running_loop().time() * 1000) + 1_000
        )
        machines = [Runs(machine, place) for machine in world.machines.values()]
        # Their own history is confirmed by now.
        for _ in range(3):
            world.pass_ms(4_000)
        try:
            for each in machines:
                each.mailboxes.begin()
            await scenario(place, *machines)
        finally:
            for each in machines:
                await each.mailboxes.close()
                await each.supervisor.stop()

    run(scene())


def run(scene: Coroutine[Any, Any, None]) -> None:
    async def bounded() -> None:
        async with asyncio.timeout(90):
            await scene

    asyncio.run(bounded())


async def until(true: Callable[[], Any]) -> None:
    async with asyncio.timeout(40):
        while not true():  # noqa: ASYNC110 - what it waits for rings no bell
            await asyncio.sleep(0.02)


@proves("node.mailboxes-full-disk")
def test_while_the_disk_is_full_parcels_wait_where_they_are(tmp_path, monkeypatch):
    async def scenario(place: Path, hub: Runs, studio: Runs) -> None:
        hub.send("studio", "one")
        await until(lambda: studio.texts() == ["one"])
        studio.there.clear()
        hub.send("studio", "two")
        await until(lambda: list(studio.inbox.glob("*.mp")))
        await asyncio.sleep(0.3)
        assert studio.texts() == ["one"]
        assert list(studio.inbox.glob("*.mp"))
        studio.there.set()
        await until(lambda: studio.texts() == ["one", "two"])
        await until(lambda: not list(studio.inbox.glob("*.mp")))

    play(tmp_path, monkeypatch, scenario)


@proves("node.mailboxes-bounded")
def test_what_is_no_parcel_is_counted_and_gone(tmp_path, monkeypatch):
    async def scenario(place: Path, hub: Runs, studio: Runs) -> None:
        await until(studio.inbox.is_dir)
        for number in range(200):
            raw = b"age-encryption.org/v1\n" * number
            (studio.inbox / f"{hashlib.sha256(raw).hexdigest()}.mp").write_bytes(raw)
        hub.send("studio", "hi")
        await until(lambda: studio.texts() == ["hi"])
        await until(lambda: not list(studio.inbox.glob("*.mp")))
        assert studio.core.counters["parcels-refused-malformed"] == 200

    play(tmp_path, monkeypatch, scenario)


@proves("node.mailboxes-bounded")
def test_a_mailbox_that_is_full_holds_up_no_other_and_one_that_comes_back_goes_on(
    tmp_path, monkeypatch
):
    async def scenario(place: Path, hub: Runs, studio: Runs, nas: Runs) -> None:
        await until(nas.inbox.is_dir)
        await nas.mailboxes.close()
        with (nas.inbox / "full").open("wb") as file:
            file.truncate(MAILBOX_BYTES_MAX)
        hub.send("nas", "to nas")
        hub.send("studio", "to studio")
        await until(lambda: studio.texts() == ["to studio"])
        await until(lambda: hub.core.counters["post-exhausted"])
        assert "full" in hub.mailboxes.shown(nas.one.id)[0].error
        os.rename(place, tmp_path / "away")
        hub.send("studio", "meanwhile")
        await until(lambda: hub.core.counters["post-unreachable"])
        os.rename(tmp_path / "away", place)
        await until(lambda: studio.texts() == ["to studio", "meanwhile"])
        (nas.inbox / "full").unlink()
        await until(lambda: len(list(nas.inbox.glob("*.mp"))) > 0)

    play(tmp_path, monkeypatch, scenario, "hub", "studio", "nas")


@proves("node.mailboxes-bounded")
def test_what_waits_for_one_mailbox_is_bounded():
    counters, pace = Counter[str](), posts.PACES["drop"]
    place: Any = SimpleNamespace(pace=pace, core=SimpleNamespace(counters=counters))
    box, frame = ParcelBox(place, -1, "studio"), b"x" * 200_000
    for _ in range(100):
        box.put(frame, bulk=True)
    room = pace.flight_bytes // len(frame)
    assert counters == {"parcels-without-room": 100 - room}
    box.put(b"a receipt", bulk=False)
    found: list[Item] = []
    while items := box.items():
        assert sum(len(item.body) + ITEM_HEAD_BYTES for item in items) <= PARCEL_BYTES_MAX
        found += items
    assert found[0].body == b"a receipt"
    assert len(found) == room + 1
    box.put(frame, bulk=False)
    assert len(box.items()) == 1


@proves("node.mailboxes-bounded")
def test_a_machine_that_is_to_use_a_place_and_cannot_seal_says_what_to_install(
    tmp_path, monkeypatch
):
    async def scenario() -> None:
        world = Cores("hub")
        monkeypatch.setitem(sys.modules, "pyrage", None)
        monkeypatch.delitem(sys.modules, "muster.channel.sealed", raising=False)
        with pytest.raises(Broken, match=r"pip install 'muster-fleet\[drop\]'"):
            Runs(world["hub"], tmp_path)

    run(scenario())
