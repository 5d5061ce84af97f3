"""Two machines that nobody can dial reach each other through one that both have a link to."""

import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from msgspec.structs import replace

from muster.channel import FIRST, http
from muster.node.host.config import config_text
from tests.e2e.fleet import Fleet, Machine, until
from tests.promise import proves

pytestmark = [pytest.mark.e2e, pytest.mark.timeout(120)]

SECRET = "the safe is behind the picture"


@pytest.fixture
def fleet() -> Iterator[Fleet]:
    with Fleet(["hub", "studio", "laptop"], deaf=["studio", "laptop"]) as fleet:
        yield fleet.start()


def together(one: Machine, other: Machine) -> None:
    until(lambda: other.name in one.linked(), f"{one.name} reaches {other.name}")
    until(lambda: one.name in other.linked(), f"{other.name} reaches {one.name}")


def say(sender: Machine, to: Machine, text: str) -> None:
    args = {"text": [text], "to": to.name, "wait": True}
    with sender.client(timeout_s=2) as client:
        assert client.order("send", to.name, args)["state"] == "stored"


def on_disk(machine: Machine, text: str) -> list[str]:
    """The files of a machine's home that contain a text."""
    wanted = text.encode()
    return [
        str(path)
        for path in Path(machine.home.path).rglob("*")
        if path.is_file() and wanted in path.read_bytes()
    ]


@proves("node.spokes-meet")
def test_a_message_between_two_spokes_is_delivered_and_read_within_two_seconds(fleet: Fleet):
    studio, laptop = fleet["studio"], fleet["laptop"]
    together(studio, laptop)
    say(studio, laptop, SECRET)
    say(laptop, studio, "understood")
    assert [m["text"] for m in laptop.ask("inbox", {"mark": True})] == [SECRET]
    until(lambda: studio.ask("sent")[0]["to"][0]["state"] == "read", "the receipt came back")


@proves("node.relay-sealed")
def test_the_hub_holds_nothing_of_what_it_passes_on(fleet: Fleet):
    studio, laptop = fleet["studio"], fleet["laptop"]
    together(studio, laptop)
    say(studio, laptop, SECRET)
    assert fleet.hub.ask("status")["counters"]["relays"] >= 1
    # Also what is still in memory and in the write-ahead log reaches the disk.
    fleet.hub.stop()
    laptop.stop()
    assert on_disk(laptop, SECRET), "the text can be found where it may be"
    assert on_disk(fleet.hub, SECRET) == []


@proves("node.spokes-meet")
def test_two_spokes_find_each_other_again_after_the_hub_or_one_of_them_was_away(fleet: Fleet):
    studio, laptop = fleet["studio"], fleet["laptop"]
    together(studio, laptop)
    fleet.hub.kill()
    until(lambda: not studio.linked(), "studio sees nobody")
    fleet.hub.start()
    together(studio, laptop)
    say(studio, laptop, "after the hub")
    laptop.kill()
    with studio.client() as client:
        sent = client.order("send", "laptop", {"text": ["while you were away"], "to": "laptop"})
    assert sent["state"] == "waiting"
    laptop.start()
    until(lambda: len(laptop.ask("inbox")) == 2, "what was said meanwhile", within_s=5)
    say(laptop, studio, "I am back")


@proves("node.relay-revoked")
def test_a_revoked_spoke_is_reached_and_relayed_by_nobody(fleet: Fleet):
    studio, laptop, hub = fleet["studio"], fleet["laptop"], fleet.hub
    together(studio, laptop)
    hub.order("revoke", "laptop", {"name": "laptop", "reason": "stolen"})
    until(lambda: studio.linked() == {"hub"}, "studio cut laptop")
    until(lambda: hub.linked() == {"studio"}, "the hub cut laptop")
    until(lambda: laptop.linked() == set(), "laptop reaches nobody")
    before = hub.ask("status")["counters"]["relays"]
    time.sleep(2)
    assert hub.ask("status")["counters"]["relays"] == before
    assert studio.linked() == {"hub"}


@proves("node.spokes-meet")
def test_who_is_reached_through_another_machine_is_shown_as_that(fleet: Fleet):
    studio, laptop = fleet["studio"], fleet["laptop"]
    together(studio, laptop)
    shown = {m["name"]: m for m in studio.ask("machines")}
    assert (shown["laptop"]["channel"], shown["laptop"]["through"]) == ("relay", "hub")
    assert "through" not in shown["hub"]
    assert studio.ask("status")["machines"]["through"] == {"laptop": "hub"}


@proves("node.relay-bounds")
def test_a_machine_that_can_be_dialled_is_not_relayed():
    with Fleet(["hub", "studio", "laptop"], deaf=["laptop"]) as fleet:
        fleet.start()
        together(fleet["studio"], fleet["laptop"])
        until(
            lambda: all(
                m.get("channel", "http") == "http" for m in fleet["laptop"].ask("machines")
            ),
            "laptop dialled studio itself",
        )


@proves("node.relay-once")
def test_a_direct_way_that_opens_later_takes_the_place_of_the_relay(fleet: Fleet):
    studio, laptop = fleet["studio"], fleet["laptop"]
    together(studio, laptop)
    studio.stop()
    listen = f"127.0.0.1:{studio.port}"
    options = {FIRST: http.Options(listen)}
    studio.home.put("config.toml", config_text(replace(studio.home.config(), channel=options)))
    studio.start()

    def ways() -> set[tuple[str, str]]:
        return {
            (m["channel"], m.get("through", ""))
            for one, other in ((studio, laptop), (laptop, studio))
            for m in one.ask("machines")
            if m["name"] == other.name and "channel" in m
        }

    until(lambda: ways() == {("http", "")}, lambda: f"a direct link, not {ways()}")
    say(laptop, studio, "directly")
