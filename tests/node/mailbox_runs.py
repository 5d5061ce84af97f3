"""Machines of `cores.py` whose mailboxes are real ones, in a real folder."""

import asyncio
from collections.abc import Awaitable, Callable, Coroutine
from pathlib import Path
from types import SimpleNamespace
from typing import Any

from tests.node.cores import Cores, One

from muster.channel import drop
from muster.log.entry import Entry
from muster.log.stream import FLEET, Scope
from muster.node import event as ev
from muster.node.attempts import blob_transfer as holder
from muster.node.attempts.blob_transfer import Source
from muster.node.host.config import Config
from muster.node.links import posts
from muster.node.links.posts import Mailboxes
from muster.node.supervisor import Supervisor
from muster.store.blobs import Blobs
from muster.task import kinds
from muster.task.artefact import Artefact

EPOCH = (1, 1)


class Runs:
    """One machine of `Cores` whose mailboxes are in a folder; as much of a daemon as they need."""

    def __init__(self, one: One, place: Path) -> None:
        self.one, self.core = one, one.core
        options = drop.Options(place=str(place), deadline_s=1)
        self.blobs = Blobs(place.parent / f"blobs-{one.name}")
        self.machine = SimpleNamespace(config=Config(channel={"drop": options}), blobs=self.blobs)
        self.supervisor = Supervisor(self.core.counters, self.fail, self.fail)
        self.there = asyncio.Event()
        self.there.set()
        self.home = SimpleNamespace(path=place, variables=lambda _: {})
        self.effects = SimpleNamespace()
        self.mailboxes = Mailboxes(self, self.there, holder.check)  # type: ignore[arg-type]
        self.inbox = place / one.id

    def fail(self, why: str) -> None:
        raise AssertionError(why)

    def post(self, event: ev.Event) -> None:
        asyncio.get_running_loop().call_soon(self.step, event)

    def step(self, *events: ev.Event) -> None:
        world = self.one.world
        world.ms = int(asyncio.get_running_loop().time() * 1000)
        self.perform(self.core.step(events, world.now()))

    def perform(self, effects: list[ev.Effect]) -> None:
        handlers = ev.handlers({ev.Effect}, self, self.mailboxes)
        others, filled = [], []
        for effect in effects:
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
        self.one.world.carry_out(self.one, others)

    @ev.effect(ev.Effect)
    def nothing(self, _: Any) -> None: ...

    def send(self, to: str, text: str) -> None:
        args = {"to": to, "text": [text]}
        assert self.one.order("send", to, args)["ok"]
        # What was written has to leave: the order went past `step`.
        self.one.core.sync.posts.links_changed()
        self.step(ev.Tick())

    def deliver(self, data: bytes, task: str = "ab" * 16, scope: Scope = FLEET) -> Source:
        """An attempt of this machine that delivered these bytes as `data.bin`."""
        sha256 = self.blobs.put(data)
        self.blobs.claim(sha256, holder.attempt_claim(task, EPOCH))
        artefact = Artefact("data.bin", sha256, len(data))
        entry = self.finish(artefact, task, scope)
        return Source(artefact, entry.id, self.core.machine)

    def finish(self, artefact: Artefact, task: str, scope: Scope = FLEET) -> Entry:
        """What this machine says about the end of an attempt, sent to whoever may have it."""
        body = kinds.AttemptFinish(task, EPOCH, "done", artefacts=[str(artefact)])
        with self.core.store.transaction():
            entry = self.core.append("attempt.finish", kinds.body_bytes(body), scope=scope)
            self.core._sign()
        self.perform(self.core._released())
        self.core.sync.posts.links_changed()
        self.step(ev.Tick())
        return entry

    async def bring(self, source: Source, **more: Any) -> None:
        await holder.bring(self, source, **more)  # type: ignore[arg-type]

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
        async with asyncio.timeout(200):
            await scene

    asyncio.run(bounded())


async def until(true: Callable[[], Any]) -> None:
    async with asyncio.timeout(90):
        while not true():  # noqa: ASYNC110 - what it waits for rings no bell
            await asyncio.sleep(0.02)
