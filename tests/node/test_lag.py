"""Connected is not replicating: who is linked and receipts nothing is told to a person."""

import pytest
from tests.node.cores import Cores, One
from tests.promise import proves

from muster.fleet.folds import INCIDENT
from muster.limits import LAG_LOOK_MS, LAG_MS
from muster.node import event as ev


def lag(machine: One) -> list[tuple[str, int]]:
    """The incidents of this kind, and whether each is open."""
    rows = machine.core.tables.rows(INCIDENT, writer=machine.id, begins={"key": "lag-"})
    return [(row.title, row.open) for row in rows]


def wait(world: Cores, ms: int) -> None:
    """As `pass_ms`, in fewer ticks."""
    for _ in range(ms // 5_000):
        world.ms += 5_000
        for machine in world.machines.values():
            machine.step(ev.Tick())
        world.drain()


@pytest.fixture
def world():
    world = Cores("hub", "studio")
    world.link("hub", "studio")
    world.pass_ms(1_000)
    wait(world, LAG_LOOK_MS)
    return world


def deafen(world: Cores) -> dict[tuple[str, int], tuple[str, int]]:
    """What the studio says goes nowhere from here on; how it was."""
    lost = {place: to for place, to in world._links.items() if place[0] == "studio"}
    for place in lost:
        del world._links[place]
    return lost


def send(world: Cores, text: str) -> None:
    assert world["hub"].order("send", "studio", {"text": [text], "to": "studio"})["ok"]


@proves("node.lag-is-told")
def test_a_machine_that_is_linked_and_receipts_nothing_is_told_once_until_its_receipt_comes(world):
    hub = world["hub"]
    lost = deafen(world)
    send(world, "one")
    wait(world, LAG_MS)
    assert lag(hub) == []
    wait(world, 2 * LAG_LOOK_MS)
    ((title, is_open),) = lag(hub)
    assert is_open
    assert "studio is linked over http" in title
    assert "for 2 minutes it has receipted none of" in title
    send(world, "two")
    wait(world, 3 * LAG_LOOK_MS)
    assert len(lag(hub)) == 1
    world._links.update(lost)
    wait(world, 2 * LAG_LOOK_MS)
    assert lag(hub) == [(title, 0)]


@proves("node.lag-is-told")
def test_a_machine_whose_receipts_come_or_that_is_away_is_no_riddle(world):
    hub = world["hub"]
    for number in range(6):
        send(world, str(number))
        wait(world, LAG_LOOK_MS)
    world.cut("studio")
    send(world, "later")
    wait(world, LAG_MS + 2 * LAG_LOOK_MS)
    assert lag(hub) == []


@proves("node.lag-is-told")
def test_a_machine_that_goes_away_ends_it(world):
    hub = world["hub"]
    deafen(world)
    send(world, "one")
    wait(world, LAG_MS + 2 * LAG_LOOK_MS)
    assert [is_open for _, is_open in lag(hub)] == [1]
    (link,) = [n for n, each in hub.core.links.items() if each.peer == world["studio"].id]
    hub.step(ev.LinkDown(link))
    wait(world, 2 * LAG_LOOK_MS)
    assert [is_open for _, is_open in lag(hub)] == [0]
