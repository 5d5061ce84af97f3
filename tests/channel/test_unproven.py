"""Who is let in at the door, who goes for it, and what that leaves for everybody else."""

import random
import resource

import pytest
from tests.promise import proves

from muster.channel import unproven as doors
from muster.channel.unproven import LINKED, SPEAKING, UnprovenPeers, group_of
from muster.limits import DOOR_ADDRESSES_MAX, DOOR_KNOCKS_BURST, DOOR_KNOCKS_PER_S


class World:
    """A door, and who was cut."""

    def __init__(self, places: int = 8) -> None:
        self.door = UnprovenPeers(places, random.Random(7).randrange)
        self.cut: list[str] = []
        self.now_s = 100.0

    def knock(self, address: str, name: str = "") -> doors.UnprovenPeer | None:
        return self.door.knock(address, lambda: self.cut.append(name or address), self.now_s)


@proves("channel.door-fair")
def test_a_full_door_lets_one_more_in_and_whoever_has_most_loses_one():
    world = World(8)
    honest = [world.knock(f"192.0.2.{n}", "honest") for n in (1, 2)]
    for _ in range(40):
        assert world.knock("198.51.100.9", "flood") is not None
    assert len(world.door) == 8
    assert set(world.cut) == {"flood"}
    assert world.knock("192.0.2.3", "honest") is not None
    assert set(world.cut) == {"flood"}
    for visitor in honest:
        assert visitor is not None
        world.door.leave(visitor)
        world.door.leave(visitor)
    assert len(world.door) == 6


@proves("channel.door-fair")
def test_of_one_address_those_go_first_that_got_least_far():
    world = World(4)
    far = [world.knock("192.0.2.1", "far") for _ in range(3)]
    for visitor in far:
        assert visitor is not None
        visitor.stage = SPEAKING
    for _ in range(20):
        assert world.knock("192.0.2.1", "silent") is not None
    assert set(world.cut) == {"silent"}


@proves("channel.door-fair")
def test_behind_one_address_a_newcomer_survives_a_flood_often_enough_to_get_in(monkeypatch):
    monkeypatch.setattr("muster.limits.DOOR_KNOCKS_BURST", 10_000)
    survived = 0
    for seed in range(200):
        world = World(128)
        world.door = UnprovenPeers(128, random.Random(seed).randrange)
        for _ in range(128):
            world.knock("192.0.2.1", "flood")
        world.knock("192.0.2.1", "honest")
        for _ in range(100):
            world.knock("192.0.2.1", "flood")
        survived += "honest" not in world.cut
    # (127/128)^100 is about 0.46: one try in two, whoever keeps on flooding.
    assert 60 < survived < 130


@proves("channel.door-fair")
def test_an_address_that_knocks_too_fast_is_turned_away_and_forgiven():
    world = World(4)
    taken = [world.knock("192.0.2.1") for _ in range(DOOR_KNOCKS_BURST + 50)]
    assert sum(v is not None for v in taken) == DOOR_KNOCKS_BURST
    assert world.knock("192.0.2.2") is not None, "others are not asked to pay for it"
    world.now_s += 1
    taken = [world.knock("192.0.2.1") for _ in range(3 * DOOR_KNOCKS_PER_S)]
    assert sum(v is not None for v in taken) == DOOR_KNOCKS_PER_S


@proves("channel.door-fair")
def test_a_machine_that_proved_itself_has_knocked_for_nothing():
    world = World(4)
    for _ in range(10 * DOOR_KNOCKS_BURST):
        visitor = world.knock("192.0.2.1")
        assert visitor is not None
        world.door.leave(visitor, proved=True)
    assert world.cut == []


@proves("channel.door-fair")
def test_what_is_remembered_of_addresses_is_bounded():
    world = World(4)
    for number in range(3 * DOOR_ADDRESSES_MAX):
        world.knock(f"10.{number >> 16}.{number >> 8 & 255}.{number & 255}")
    assert len(world.door._patience) <= DOOR_ADDRESSES_MAX
    assert len(world.door) == len(world.door._visitors) == 4


def test_one_user_of_a_network_counts_as_one_address():
    assert group_of("2001:db8:1:2::1") == group_of("2001:db8:1:2:ffff::9%eth0")
    assert group_of("2001:db8:1:2::1") != group_of("2001:db8:1:3::1")
    assert group_of("::ffff:192.0.2.7") == group_of("192.0.2.7") == "192.0.2.7"
    assert group_of("no address") == "no address"


def test_only_those_of_a_stage_make_place_for_one_of_that_stage():
    world = World(8)
    linked = world.knock("192.0.2.1", "linked")
    assert linked is not None
    linked.stage = LINKED
    for _ in range(5):
        world.knock("192.0.2.2", "silent")
    world.door.make_place(LINKED)
    assert world.cut == ["linked"]
    world.door.make_place(LINKED)
    assert world.cut == ["linked"]
    world.door.end()
    assert (len(world.door), len(world.cut)) == (0, 6)


@proves("channel.descriptors-kept")
@pytest.mark.parametrize(("soft", "last"), [(1024, 767), (100, 49), (8192, 7935)])
def test_the_last_descriptors_are_not_for_strangers(soft, last, monkeypatch):
    monkeypatch.setattr(doors.resource, "getrlimit", lambda _: (soft, soft))
    assert doors.is_spare(last)
    assert not doors.is_spare(last + 1)
    assert doors.is_spare(last + 1, 1)
    monkeypatch.setattr(doors.resource, "getrlimit", lambda _: (resource.RLIM_INFINITY,) * 2)
    assert doors.is_spare(10**6)


@proves("channel.descriptors-kept")
def test_a_start_asks_for_as_many_descriptors_as_its_user_may_have(monkeypatch):
    asked: list[tuple[int, int]] = []
    monkeypatch.setattr(doors.resource, "setrlimit", lambda _, pair: asked.append(pair))
    for soft, hard in ((256, 1000), (256, resource.RLIM_INFINITY), (9000, 9000)):
        monkeypatch.setattr(doors.resource, "getrlimit", lambda _, s=soft, h=hard: (s, h))
        doors.raise_descriptors(8192)
    assert asked == [(1000, 1000), (8192, resource.RLIM_INFINITY)]

    def refuse(_number: int, _pair: tuple[int, int]) -> None:
        raise ValueError("not here")

    monkeypatch.setattr(doors.resource, "setrlimit", refuse)
    monkeypatch.setattr(doors.resource, "getrlimit", lambda _: (256, 1000))
    doors.raise_descriptors(8192)
