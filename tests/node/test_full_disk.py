"""A full disk, as the core and the daemon around it see it."""

import asyncio
from typing import Any

import apsw
import pytest
from tests.node.cores import LOCAL, Cores, attempt_ended
from tests.promise import proves

from muster.channel import frame as frames
from muster.channel.frame import Type
from muster.errors import Broken, Exhausted
from muster.fleet.folds import INCIDENT
from muster.limits import EVENTS_WAITING_MAX
from muster.log import canon
from muster.node import event as ev
from muster.node.counter import Counts
from muster.node.host import disk
from muster.node.services.full_disk import FullDisk, put_off
from muster.node.services.health import HadNoRoom
from muster.node.supervisor import Supervisor
from muster.node.tasks.attempt_body import AttemptEvent


class Full:
    """The connection of a store whose disk has no room for a commit while `full`."""

    def __init__(self, real: Any) -> None:
        self.real = real
        self.full = True

    def execute(self, sql: str, bindings: Any = ()) -> Any:
        if sql == "commit" and self.full:
            self.real.execute("rollback")
            raise apsw.FullError("database or disk is full")
        return self.real.execute(sql, bindings)

    def __getattr__(self, name: str) -> Any:
        return getattr(self.real, name)


def fill(core: Any) -> Full:
    core.store._database._connection = full = Full(core.store._database._connection)
    return full


def call(verb: str, args: dict[str, Any], **more: Any) -> ev.Arrived:
    return ev.Arrived(LOCAL, Type.CALL, 7, canon.encode({"args": args, "verb": verb, **more}))


@proves("node.disk-full")
def test_a_step_that_finds_no_room_is_released_whole_when_there_is_some():
    world = Cores("hub", "studio")
    world.link("hub", "studio")
    hub = world["hub"]
    args = {"text": ["hello"], "to": "studio"}
    full = fill(hub.core)
    with pytest.raises(Exhausted):
        hub.core.step(
            [call("send", args, statement=world.sign("send", "studio", hub, args))], world.now()
        )
    world.drain()
    assert world["studio"].entries("message.send") == []
    before = hub.core.effects
    # Its user is answered meanwhile, and nothing of the step gets out with the answers.
    asked = hub.core.questions([call("status", {})], world.now())
    assert [frames.decode(e.frame).type for e in asked if isinstance(e, ev.Send)] == [Type.REPLY]
    status = frames.decode(asked[0].frame).payload
    assert b"stands still" in status
    assert hub.core.effects == before
    refused = hub.core.questions(
        [call("send", args, statement=world.sign("send", "studio", hub, args))], world.now()
    )
    assert b'"kind":"Exhausted"' in frames.decode(refused[0].frame).payload
    with pytest.raises(Exhausted):
        hub.core.resume(world.now())
    full.full = False
    world.carry_out(hub, hub.core.resume(world.now()))
    world.drain()
    assert len(world["studio"].entries("message.send")) == 1
    hub.step(HadNoRoom(5_000, ("task abc",), 3))
    row = next(r for r in hub.core.tables.rows(INCIDENT) if r.key == "disk-full")
    assert "6 s" in row.title
    assert "task abc" in row.detail
    assert "3 lines" in row.detail
    assert hub.core.counters["disk-full"] == 1


@proves("node.disk-full")
def test_orders_are_refused_before_the_last_room_is_gone_and_questions_are_not():
    hub = Cores("hub")["hub"]
    hub.core.store.low = True
    args = {"text": ["hello"], "to": "hub"}
    answer = hub.order("send", "hub", args)
    assert answer["error"]["kind"] == "Exhausted"
    assert answer["error"]["exit"] == 9
    assert hub.call("status", {})["ok"]
    hub.core.store.low = False
    assert hub.order("send", "hub", args)["ok"]


def test_whoever_waits_for_an_answer_of_a_step_that_waits_is_told_so_and_not_answered_twice():
    def reply(link: int, channel: int, payload: bytes) -> ev.Send:
        return ev.Send(link, frames.encode(Type.REPLY, channel, payload))

    kept = [reply(1, 5, b"*{}"), ev.Send(2, frames.encode(Type.OFFER, 0, b"{}")), ev.Cut(3, "x")]
    effects = [reply(1, 7, b"+part"), kept[0], reply(1, 7, b".{}"), *kept[1:]]
    held, told = put_off(effects, Exhausted("the disk is full."))
    assert held == kept
    (answer,) = told
    assert isinstance(answer, ev.Send)
    assert answer.link == 1
    assert b"counts as soon as there is room" in frames.decode(answer.frame).payload


class Machine:
    """What a room needs around it; `full` commits fail."""

    def __init__(self, *, broken: bool = False) -> None:
        self.full, self.broken = True, broken
        self.links: dict[int, Any] = {}
        self.effects: list[ev.Effect] = []
        self.posted: list[ev.Event] = []
        self.performed: list[ev.Effect] = []
        self.relieved = 0
        self.fatal: list[str] = []
        self.over = asyncio.Event()
        supervisor = Supervisor(Counts(), self.ended, self.ended)
        self.room = FullDisk(
            self,
            supervisor,
            self.performed.extend,
            self.post,
            self.relieve,  # type: ignore[arg-type]
        )

    def ended(self, why: str) -> None:
        self.fatal.append(why)
        self.over.set()

    def post(self, event: ev.Event) -> None:
        self.posted.append(event)
        if isinstance(event, HadNoRoom):
            self.over.set()

    def resume(self, _now: Any) -> list[ev.Effect]:
        if self.broken:
            raise Broken("the disk is gone")
        if self.full:
            raise Exhausted("full")
        return [ev.Note("released")]

    async def relieve(self) -> str:
        self.relieved += 1
        self.full = False
        return "task abc"


@pytest.fixture
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("muster.node.services.full_disk.RETRY_S", 0.001)
    monkeypatch.setattr("muster.node.services.full_disk.RELIEF_S", 0.002)


@proves("node.disk-full")
def test_what_happens_on_a_full_disk_waits_in_its_order_and_what_fills_it_is_ended(quick):
    async def scenario() -> Machine:
        machine = Machine()
        machine.room.is_full(Exhausted("full"))
        local, peer = ev.LinkUp(1, "", True), ev.LinkUp(2, "abc")
        frame = ev.Arrived(1, Type.CALL, 1, b"")
        line = AttemptEvent("t", (1, 1), "agent.output", {})
        end = attempt_ended("t", (1, 1), "failed")
        asked = machine.room.sort([local, peer, frame, ev.Arrived(2, Type.OFFER, 0, b""), end])
        assert asked == [local, frame]
        assert machine.room.sort([line] * (EVENTS_WAITING_MAX + 5)) == []
        assert machine.room.sort([ev.LinkDown(1)]) == [ev.LinkDown(1)]
        # A question that takes several turns is answered, too.
        assert machine.room.sort([ev.Turn()]) == [ev.Turn()]
        assert not machine.room.there.is_set()
        async with asyncio.timeout(5):
            await machine.over.wait()
        assert machine.posted[:3] == [peer, ev.Arrived(2, Type.OFFER, 0, b""), end]
        return machine

    machine = asyncio.run(scenario())
    told = machine.posted[-1]
    assert isinstance(told, HadNoRoom)
    assert told.ended == ("task abc",)
    assert told.dropped == 8
    assert len(machine.posted) == EVENTS_WAITING_MAX + 1
    assert machine.performed == [ev.Note("released")]
    assert machine.relieved == 1
    assert machine.fatal == []


@proves("node.disk-full")
def test_a_disk_that_fails_while_a_step_waits_still_ends_the_daemon(quick):
    async def scenario() -> Machine:
        machine = Machine(broken=True)
        machine.room.is_full(Exhausted("full"))
        async with asyncio.timeout(5):
            await machine.over.wait()
        return machine

    assert asyncio.run(scenario()).fatal == ["the disk is gone"]


def test_what_a_folder_holds_is_counted_through_no_link_and_to_a_bound(tmp_path, monkeypatch):
    (tmp_path / "big").write_bytes(b"x" * 1_000_000)
    inside = tmp_path / "a"
    inside.mkdir()
    (inside / "small").write_bytes(b"x" * 10_000)
    (inside / "out").symlink_to("/usr")
    assert 1_010_000 <= disk.written_bytes(tmp_path, 0) < 1_200_000
    monkeypatch.setattr(disk, "FILES_MAX", 1)
    disk.written_bytes(tmp_path, 0)
    assert disk.written_bytes(tmp_path / "nowhere", 0) == 0
    assert disk.free_bytes(tmp_path) > 0
    assert disk.free_bytes(tmp_path / "nowhere" / "at all") == 1 << 62
