"""What a machine does while nothing happens, and how soon it does what waits."""

import asyncio
import json
from types import SimpleNamespace
from typing import Any

import pytest
from tests.node.cores import WALL_MS, Cores
from tests.promise import proves

from muster.channel import frame as frames
from muster.limits import BEAT_MS
from muster.log.refresh import REFRESH_MS
from muster.node import daemon as daemons
from muster.node import event as ev
from muster.node.daemon import Daemon
from muster.node.installation import Installation
from muster.node.tasks.worker import _ACTIVE_MS, _IDLE_BEATS, _IDLE_TURN, WorkerService
from muster.task.instruction import Now


class Listening(Cores):
    """Two cores, and every call that one makes of the other."""

    def __init__(self, *others: str) -> None:
        self.calls: list[tuple[str, str, Any]] = []
        # What was said of streams, by its type.
        self.said: list[str] = []
        super().__init__("hub", "studio", *others)
        for other in ("hub", *others):
            self.link(other, "studio")
        self.pass_ms(BEAT_MS)

    def deliver(self, to: str) -> None:
        raw = next(item[2] for item in self._under_way if item[0] == to)
        frame = frames.decode(raw)
        if frame.type is frames.Type.CALL:
            call = json.loads(frame.payload)
            self.calls.append((to, call["verb"], call["args"]))
        elif frame.type is frames.Type.OFFER:
            self.said.append(json.loads(frame.payload)["type"])
        super().deliver(to)

    def beats(self, to: str, ms: int) -> int:
        self.calls.clear()
        self.pass_ms(ms)
        return sum(each[:2] == (to, "beat") for each in self.calls)


@pytest.fixture
def world():
    return Listening()


def give(world: Listening) -> str:
    needs = {"machine": "studio"}
    return world["hub"].submit(agent=["shell"], do="sleep 60", needs=needs)


@proves("node.beats-where-work-is")
def test_an_owner_that_gave_nothing_hears_one_beat_of_eight_and_answers_none(world):
    rounds = 3
    assert world.beats("hub", rounds * _IDLE_BEATS * BEAT_MS) == rounds
    assert not [call for call in world.calls if call[1] == "hold"]


@proves("node.beats-where-work-is")
def test_of_many_that_gave_nothing_the_hub_hears_each_time_and_few_of_the_others_in_turn():
    others = [f"m{number}" for number in range(_IDLE_TURN + 2)]
    crowd = Listening(*others)
    worker = crowd["studio"].core.part(WorkerService)
    first, second = worker._idle(set()), worker._idle(set())
    assert first & second >= {crowd["hub"].id}
    assert (len(first), len(second)) == (_IDLE_TURN + 1, _IDLE_TURN + 1)
    assert first | second == {crowd[name].id for name in ("hub", *others)}


@proves("node.beats-where-work-is")
def test_an_owner_whose_work_is_here_hears_every_beat_and_renews_its_lease(world):
    task = give(world)
    assert world.beats("hub", 10 * BEAT_MS) >= 9
    assert [call for call in world.calls if call[1] == "hold"]
    assert world.beats("studio", 10 * BEAT_MS) <= 2, "the hub holds nothing of the studio's"
    assert world["hub"].task(task).losses == 0


@proves("node.beats-where-work-is")
def test_an_owner_whose_work_is_over_hears_every_beat_for_a_while(world):
    needs = {"machine": "studio"}
    world["hub"].submit(needs=needs)
    assert world.beats("hub", 10 * BEAT_MS) >= 9
    world.pass_ms(_ACTIVE_MS)
    assert world.beats("hub", 2 * _IDLE_BEATS * BEAT_MS) == 2


@proves("node.quiet-is-cheap")
def test_what_came_wants_a_tick_and_after_it_none_is_wanted(world):
    hub, studio = world["hub"], world["studio"]
    world.pass_ms(1_000)
    assert (hub.core.needs_tick, studio.core.needs_tick) == (False, False)
    assert hub.order("send", "all", {"text": ["hi"], "to": "all"})["ok"]
    # The receipt waits for a transaction that writes, and the news of it for the others.
    assert (hub.core.needs_tick, studio.core.needs_tick) == (True, True)
    world.pass_ms(200)
    assert (hub.core.needs_tick, studio.core.needs_tick) == (False, False)


@proves("log.sync-compares")
def test_two_machines_at_rest_say_of_all_their_streams_one_sum_a_minute(world):
    world.pass_ms(2 * REFRESH_MS)
    world.said.clear()
    world.pass_ms(3 * REFRESH_MS)
    assert world.said == ["roots"] * 3
    for name in ("hub", "studio"):
        (session,) = world[name].core.sync.sessions.values()
        session.compares = False
    world.pass_ms(2 * REFRESH_MS)
    assert set(world.said) == {"roots", "offer", "cosigns"}


@proves("node.quiet-is-cheap")
def test_whoever_works_or_owns_what_is_open_wants_each_tick(world):
    give(world)
    world.pass_ms(5_000)
    assert (world["hub"].core.needs_tick, world["studio"].core.needs_tick) == (True, True)


@proves("node.quiet-is-cheap")
def test_a_tick_that_is_wanted_comes_soon_and_else_there_are_two_in_a_second(monkeypatch):
    monkeypatch.setattr(daemons, "TICK_S", 0.0)
    monkeypatch.setattr(daemons, "QUIET_TICK_S", 3600.0)
    posted: list[ev.Event] = []

    async def drive() -> None:
        half: Any = SimpleNamespace(
            _tick_wanted=asyncio.Event(),
            core=SimpleNamespace(store=SimpleNamespace(low=False)),
            home=SimpleNamespace(path="/"),
            room=SimpleNamespace(full=False),
            post=posted.append,
        )
        ticking = asyncio.ensure_future(Daemon._ticks(half))
        counts = []
        for wanted in (False, True, False):
            if wanted:
                half._tick_wanted.set()
            for _ in range(20):
                await asyncio.sleep(0)
            counts.append(len(posted))
        ticking.cancel()
        assert counts == [0, 1, 1]

    asyncio.run(drive())


@proves("node.quiet-is-cheap")
def test_the_mark_of_a_machine_that_wrote_nothing_is_not_looked_at_again(world, monkeypatch):
    studio = world["studio"]
    written: list[Any] = []
    half: Any = SimpleNamespace(
        _core=studio.core, _mark_due=0, _marking=None, _noted={}, identity=studio.identity,
        store=studio.core.store,
        _marker=SimpleNamespace(submit=lambda _write, mark, *_a, **_k: written.append(mark)),
        _mark=SimpleNamespace(write=None),
    )  # fmt: skip
    half._heads = lambda core: Installation._heads(half, core)
    half._mark_of = lambda core: core
    for ms in (1_000_000, 2_000_000):
        studio.core.now = Now(ms, WALL_MS)
        Installation.note_heads(half)
    assert len(written) == 1
    assert studio.order("send", "all", {"text": ["hi"], "to": "all"})["ok"]
    studio.core.now = Now(3_000_000, WALL_MS)
    Installation.note_heads(half)
    assert len(written) == 2
