"""Two copies of one machine at once: each hears that the other lives, whoever they are linked to."""

import json
from typing import Any

import pytest
from tests.node.cores import Cores, One
from tests.promise import proves

from muster.channel.frame import Type
from muster.errors import Refused
from muster.fleet.life import open_life, sign_life
from muster.limits import (
    CONFIRM_MS,
    LIFE_SILENT_MS,
    LIVES_PER_MACHINE,
    LIVES_PER_MINUTE_MAX,
    LIVES_REMEMBERED,
)
from muster.node import event as ev
from muster.node.incarnations.lives import Lives

ARGS = {"text": ["pay"], "to": "all"}


def copies(*, apart: bool) -> tuple[Cores, One, One]:
    """studio, and a copy of its home with its mark: both go on with one incarnation.

    The hub has a link to studio, and the copy one to the hub or, `apart`, to the laptop.
    """
    world = Cores("hub", "studio", "lap")
    world.link("hub", "studio")
    world.link("hub", "lap")
    world.pass_ms(CONFIRM_MS + 500)
    studio = world["studio"]
    twin = One(world, "studio", 1)
    twin.name, twin.starts = "twin", 7
    world.machines["twin"] = twin
    twin.boot(studio.core.store.image())
    world.link("lap" if apart else "hub", "twin")
    return world, studio, twin


def told(one: One) -> list[dict[str, Any]]:
    return [
        i for i in one.call("incidents", {})["value"] if i["open"] and i["key"].startswith("clone-")
    ]


@pytest.mark.parametrize("apart", [False, True])
@proves("node.copies-are-told")
def test_two_copies_hear_of_each_other_within_a_second_and_everybody_says_so(apart):
    world, studio, twin = copies(apart=apart)
    world.pass_ms(1_000)
    assert studio.core.part(Lives).beside == twin.core.part(Lives).life
    assert twin.core.part(Lives).beside == studio.core.part(Lives).life
    for name in ("hub", "studio", "lap"):
        assert told(world[name]), name
        assert "two copies of studio" in told(world[name])[0]["title"]
    for copy in (studio, twin):
        assert any("two copies of studio" in n for n in copy.notes)
        assert "copy of this machine" in copy.call("status", {})["value"]["doubt"]["reasons"][0]
        assert copy.core.counters["copies"] == 1


@proves("node.copies-are-told")
def test_neither_obeys_takes_a_task_or_receipts_what_others_wrote():
    world, studio, twin = copies(apart=True)
    world.pass_ms(1_000)
    hub = world["hub"]
    sent = hub.order("send", "studio", {"text": ["to one of you"], "to": "studio"})["value"]
    for _ in range(4):
        hub.submit()
        world.pass_ms(500)
    for copy in (studio, twin):
        found = copy.order("send", "all", ARGS)
        assert found["error"]["kind"] == "Conflict"
        assert "another copy" in found["error"]["text"]
    assert studio.id not in {e.header.author for e in hub.entries("attempt.start")}
    stored = next(m for m in hub.call("sent", {})["value"] if m["message"] == sent["message"])
    assert stored["to"][0]["state"] == "waiting", "nobody knows which of them has it"


@proves("node.copies-are-told")
def test_when_one_of_them_is_gone_the_other_goes_on_and_receipts_what_it_has():
    world, studio, twin = copies(apart=False)
    world.pass_ms(1_000)
    hub = world["hub"]
    sent = hub.order("send", "studio", {"text": ["to one of you"], "to": "studio"})["value"]
    world.pass_ms(500)
    world.cut("twin")
    del world.machines["twin"]
    assert twin.core.part(Lives).beside
    world.pass_ms(LIFE_SILENT_MS + 6_000)
    assert studio.core.part(Lives).beside is None
    assert not [i for i in told(studio) if i["machine"] == "studio"]
    stored = next(m for m in hub.call("sent", {})["value"] if m["message"] == sent["message"])
    assert stored["to"][0]["state"] == "stored"
    assert studio.order("send", "all", ARGS)["ok"]


@proves("node.copies-are-told")
def test_a_machine_that_was_started_again_is_no_copy_whatever_links_are_left_of_the_old_one():
    world = Cores("hub", "studio", "lap")
    world.link("hub", "studio")
    world.link("hub", "lap")
    world.link("lap", "studio")
    world.pass_ms(CONFIRM_MS + 500)
    for _ in range(3):
        # Its links die without a word: the others go on believing in them.
        image = world["studio"].core.store.image()
        world._links = {k: v for k, v in world._links.items() if "studio" not in (k[0], v[0])}
        world["studio"].boot(image)
        world.link("hub", "studio")
        world.link("lap", "studio")
        world.pass_ms(LIFE_SILENT_MS)
    for name in ("hub", "studio", "lap"):
        assert told(world[name]) == []
    assert world["studio"].order("send", "all", ARGS)["ok"]


def say(to: One, link: int, raw: str) -> None:
    """A hello with somebody's word comes over a link."""
    hello = json.dumps({"life": raw, "muster": "test", "wall_ms": 1}).encode()
    to.step(ev.Arrived(link, Type.HELLO, 0, hello))


def word(one: One, life: str, **more: Any) -> str:
    return sign_life(one.identity, one.world.fleet, life, **more).decode()


@proves("node.copies-are-told")
def test_nobody_else_can_make_a_machine_doubt_itself():
    world = Cores("hub", "studio", "lap")
    link, _ = world.link("studio", "lap")
    world.pass_ms(CONFIRM_MS + 500)
    studio, lap = world["studio"], world["lap"]
    mine = studio.core.part(Lives).life
    # A member's own words about our life, and what is not signed by whom it names.
    say(studio, link, word(lap, "1" * 32, beside=mine))
    say(studio, link, word(studio, "2" * 32, beside=mine).replace('"life":"2', '"life":"3'))
    assert studio.core.counters["refused-forged"] == 1
    # An old life of ours, recorded and shown again: it names none that began later.
    for number in range(3):
        say(studio, link, word(studio, "4" * 32, beside="5" * 32, number=number))
    assert studio.core.part(Lives).beside is None
    # The same words twice, or earlier ones, bring nothing back.
    say(studio, link, word(studio, "6" * 32, beside=mine, number=9))
    assert studio.core.part(Lives).beside == "6" * 32
    world.pass_ms(LIFE_SILENT_MS + 200)
    assert studio.core.part(Lives).beside is None
    for number in (9, 8):
        say(studio, link, word(studio, "6" * 32, beside=mine, number=number))
    assert studio.core.part(Lives).beside is None


@proves("node.copies-are-told")
def test_a_member_that_says_lives_without_end_fills_nothing_and_blames_nobody_who_passes_them_on():
    world = Cores("hub", "studio", "lap")
    links = [world.link("hub", "lap")[0] for _ in range(2)]
    world.link("hub", "studio")
    hub, lap, studio = world["hub"], world["lap"], world["studio"]
    for number in range(2 * LIVES_PER_MINUTE_MAX):
        say(hub, links[number % 2], word(lap, f"{number:032x}"))
    world.drain()
    for one in (hub, studio):
        assert not [e for e in one.effects if isinstance(e, ev.Cut)], one.name
        assert not [k for k in one.core.counters if k.startswith("refused-")]
    assert studio.core.counters["lives-dropped"] == 0
    assert hub.core.counters["lives-dropped"] > LIVES_PER_MINUTE_MAX
    assert told(hub) == []
    assert len(hub.core.part(Lives)._words[lap.identity.machine]) <= LIVES_PER_MACHINE
    assert len(hub.core.part(Lives)._numbers[lap.identity.machine]) <= LIVES_REMEMBERED
    stranger = world.stranger("hub")
    outsider = One(world, "outsider", 9)
    say(hub, stranger, word(outsider, "1" * 32))
    fresh = next(n for n, each in hub.core.links.items() if each.peer == world["studio"].id)
    say(hub, fresh, word(outsider, "1" * 32))
    assert outsider.identity.machine not in hub.core.part(Lives)._words
    # Who was silent meanwhile is heard, over the links of those who passed the flood on.
    say(hub, fresh, word(studio, "e" * 32))
    assert "e" * 32 in hub.core.part(Lives)._words[studio.identity.machine]
    world.ms += 60_000
    say(hub, links[0], word(lap, "e" * 32))
    assert "e" * 32 in hub.core.part(Lives)._words[lap.identity.machine], (
        "a minute later it may again"
    )


@proves("node.copies-are-told")
def test_no_incident_of_a_third_keeps_others_from_telling():
    world = Cores("hub", "studio", "lap")
    link, _ = world.link("hub", "lap")
    world.pass_ms(CONFIRM_MS + 500)
    hub, studio, lap = world["hub"], world["studio"], world["lap"]
    key = f"clone-{studio.id[:16]}"
    with lap.core.store.transaction():
        lap.core.incidents.open(key, "notice", "nothing")
        lap.core._sign()
    world.pass_ms(1_000)
    assert [i["title"] for i in told(hub)] == ["nothing"]
    one, other = "1" * 32, "2" * 32
    say(hub, link, word(studio, one, beside=other))
    say(hub, link, word(studio, other, beside=one))
    assert any("two copies of studio" in i["title"] for i in told(hub))


@proves("node.copies-are-told")
def test_recorded_words_of_a_copy_that_ended_bring_it_back_for_nobody():
    world = Cores("hub", "studio", "lap")
    link, _ = world.link("studio", "lap")
    world.pass_ms(CONFIRM_MS + 500)
    studio = world["studio"]
    copy = word(studio, "6" * 32, beside=studio.core.part(Lives).life, number=9)
    say(studio, link, copy)
    assert studio.core.part(Lives).beside
    world.pass_ms(LIFE_SILENT_MS + 200)
    assert studio.core.part(Lives).beside is None
    # The words of its own earlier starts are genuine, and push the copy's out of those that are kept.
    for number in range(LIVES_PER_MACHINE + 1):
        say(studio, link, word(studio, f"{number:032x}"))
    say(studio, link, copy)
    assert studio.core.part(Lives).beside is None


@proves("node.copies-are-told")
def test_the_word_of_a_process_is_for_one_fleet_and_signed_by_its_machine():
    world = Cores("hub")
    hub = world["hub"]
    raw = word(hub, "1" * 32, beside="2" * 32, number=3).encode()
    found = open_life(raw, world.fleet)
    assert (found.life, found.beside, found.number) == ("1" * 32, "2" * 32, 3)
    with pytest.raises(Refused):
        open_life(raw, type(world.fleet)("0" * 64))
    with pytest.raises(Refused):
        open_life(raw.replace(b'"number":3', b'"number":4'), world.fleet)


@proves("node.copies-are-told")
def test_two_whose_neighbours_meet_later_hear_of_each_other_then():
    world = Cores("hub", "studio", "lap")
    world.link("hub", "studio")
    world.pass_ms(CONFIRM_MS + 500)
    twin = One(world, "studio", 1)
    twin.name, twin.starts = "twin", 7
    world.machines["twin"] = twin
    twin.boot(world["studio"].core.store.image())
    world.link("lap", "twin")
    world.pass_ms(1_000)
    assert twin.core.part(Lives).beside is None
    world.link("hub", "lap")
    world.pass_ms(1_000)
    assert twin.core.part(Lives).beside == world["studio"].core.part(Lives).life
    assert world["studio"].core.part(Lives).beside == twin.core.part(Lives).life
