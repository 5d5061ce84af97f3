"""Dates are their writer's own: what they give whoever chooses them as it likes."""

from typing import Any

import pytest
from tests.node.cores import Cores
from tests.node.test_actor import says
from tests.node.test_memory import write
from tests.promise import proves

from muster.log.clock import Stamp
from muster.log.stream import FLEET
from muster.memory.kinds import MemoryPut
from muster.memory.state import RecordName
from muster.node.services import memory
from muster.node.services.memory import Memory
from muster.node.services.presence import heard_ms_ago

YEAR_MS = 366 * 86_400_000


@pytest.fixture
def world() -> Cores:
    made = Cores("hub", "studio", "build")
    made.link("hub", "studio")
    made.link("hub", "build")
    made.pass_ms(2_000)
    return made


def ahead(world: Cores, name: str, ms: int) -> None:
    """From now on a machine dates all that it writes so far ahead of everybody."""
    store = world[name].core.store
    store._stamp = Stamp(world.now().wall_ms + ms, 0)


@proves("cli.away-since")
def test_whoever_dates_itself_ahead_was_heard_when_that_came(world: Cores) -> None:
    ahead(world, "studio", YEAR_MS)
    write(world, "studio", MemoryPut("a", "x"))
    world.pass_ms(1_000)
    hub = world["hub"].core
    size = hub.log.size(world["studio"].core.membership.own(FLEET))
    assert hub.log.entry_at(world["studio"].core.membership.own(FLEET), size - 1).stamp.ms > (
        hub.now.wall_ms + YEAR_MS // 2
    )
    world.cut("studio")
    world.pass_ms(600_000)
    assert 590_000 <= (heard_ms_ago(hub, world["studio"].id) or 0) <= 610_000


@proves("memory.dates-hide-nothing")
def test_nobody_hides_what_others_know_by_writing_much_that_is_dated_ahead(
    world: Cores, monkeypatch: Any
) -> None:
    monkeypatch.setattr(memory, "MEMORY_KEYS_LOOKED_MAX", 60)
    write(world, "build", MemoryPut("mine/first", "x"))
    ahead(world, "studio", YEAR_MS)
    for number in range(70):
        write(world, "studio", MemoryPut(f"junk/{number}", "x"))
    world.pass_ms(1_000)
    write(world, "build", MemoryPut("mine/last", "x"))
    world.pass_ms(1_000)
    keys = world["hub"].core.part(Memory).newest_keys()
    assert keys[0] == "mine/last"
    assert "mine/first" in keys
    assert len(keys) < 60


@proves("store.stamps-rise")
def test_a_persons_order_is_said_once_in_a_stream_however_often_its_machine_says_it(
    world: Cores,
) -> None:
    studio, hub = world["studio"], world["hub"].core
    old, new = (
        {"key": "port", "text": [text], **more} for text, more in (("it is 1", {}), ("it is 2", {}))
    )
    first = studio.order("remember", "port", old)["value"]["version"]
    took = next(e for e in studio.entries("order.take") if e.header.author == studio.id)
    assert studio.order("remember", "port", {**new, "over": [first[:12]]})["ok"]
    world.pass_ms(1_000)
    body = {"key": "port", "text": "it is 1"}
    says(studio, "memory.put", body, (took.id,), after=took)
    record = hub.part(Memory).records("port")[RecordName(FLEET, "port")]
    assert (record.state, [head.rank for head in record.heads]) == ("active", [2])
    (head,) = record.heads
    assert head.id.hex() != first
