"""Machines that only meet at a place: what their parcels do, and what they never do."""

import random

import pytest
from tests.counters import grows
from tests.node.cores import One
from tests.promise import proves

from muster.channel import frame as frames
from muster.channel.base import Packet
from muster.channel.frame import Type
from muster.fleet.parcel import FRAME, MEND, Heard, Item, write_parcel
from muster.log import wire
from muster.log.segment import Segment
from muster.log.stream import FLEET
from muster.log.sync import REFRESH_MS
from muster.node import event as ev
from muster.node.incarnations.own_incarnation import FactsChanged
from muster.node.links.paces import PACES
from muster.node.services.mending import MendAsked, PoorWay
from muster.node.services.parcels import Parcels, PlaceOpened

pytest.importorskip("pyrage", reason="pip install 'muster-fleet[sealed]'")
from tests.node.places import OTHER, PLACE, Places


@pytest.fixture
def world() -> Places:
    world = Places("hub", "studio")
    world.pass_ms(8_000)
    return world


def send(world: Places, to: str, text: str, by: str = "hub") -> None:
    assert world[by].order("send", to, {"to": to, "text": [text]})["ok"]


def texts(machine: One) -> list[str]:
    return [message["text"] for message in machine.call("inbox", {})["value"]]


def receipted(writer: One, by: One) -> bool:
    """Whether the receiver's own receipts for all that was written are here."""
    log = writer.core.log
    return all(
        any(
            c.machine == by.id and c.strength == "held" and c.size == log.size(s)
            for c in log.cosigns(s)
        )
        for s in log.streams()
        if s.machine == writer.id and writer.core.membership.may_hold(s, by.id)
    )


@proves("node.parcels-carry", "log.post-receipt-alone")
def test_a_message_arrives_and_counts_by_the_receivers_receipt(world):
    hub, studio = world["hub"], world["studio"]
    world.away = True
    send(world, "studio", "hi")
    world.pass_ms(1_000)
    assert texts(studio) == []
    assert not receipted(hub, studio)
    world.away = False
    world.absent = {"hub"}
    world.pass_ms(1_000)
    assert texts(studio) == ["hi"]
    assert not receipted(hub, studio), "that it lies there, or was read, is no receipt"
    world.absent = set()
    world.pass_ms(1_000)
    assert receipted(hub, studio)
    assert world.refused == []


@proves("node.parcels-carry")
def test_a_quiet_place_stays_quiet(world):
    count = len(world.left)
    world.pass_ms(300_000)
    assert len(world.left) == count


@proves("node.parcels-carry")
def test_a_third_machine_and_a_revocation_are_heard_of_through_a_neighbour():
    """laptop -- hub == place == studio: laptop and studio never meet, and only the hub has both."""
    world = Places("hub", "studio", "laptop", visitors=["hub", "studio"])
    world.link("hub", "laptop")
    world.pass_ms(10_000)
    laptop, studio = world["laptop"], world["studio"]
    laptop.step(FactsChanged(laptop.facts(cpus=99)))
    world.pass_ms(10_000)
    assert studio.core.roster.facts[laptop.id].cpus == 99
    own = laptop.core.membership.own(FLEET)
    receipts = [c for c in laptop.core.log.cosigns(own) if c.machine == studio.id]
    assert [(c.strength, c.size) for c in receipts] == [("held", laptop.own_size)]
    assert world["hub"].order("revoke", "laptop", {"name": "laptop", "reason": "lost"})["ok"]
    world.pass_ms(10_000)
    assert world["laptop"].id in world["studio"].core.roster.revoked
    assert all(peer != world["laptop"].id for _, peer in world["studio"].core.part(Parcels)._boxes)


@proves("node.parcels-carry")
def test_a_revoked_machine_is_left_nothing_and_heard_no_more():
    world = Places("hub", "studio", "bad")
    world.pass_ms(8_000)
    assert world["hub"].order("revoke", "bad", {"name": "bad", "reason": "stolen"})["ok"]
    world.pass_ms(8_000)
    count = len(world.left)
    send(world, "studio", "after it")
    send(world, "hub", "from the grave", by="bad")
    world.pass_ms(8_000)
    assert texts(world["hub"]) == []
    assert ("hub", "bad") not in [pair[:2] for pair in world.left[count:]]
    assert [each for each in world.refused if each.startswith("Denied")]
    assert texts(world["studio"]) == ["after it"]


@proves("node.parcels-no-presence", "log.post-no-session")
def test_nobody_is_taken_to_be_here_for_a_parcel(world):
    heard = []
    world["hub"].core._hears[ev.MachineHere].append(("test", heard.append))
    send(world, "studio", "hi")
    world.pass_ms(REFRESH_MS + 5_000)
    hub, studio = world["hub"], world["studio"]
    assert texts(studio) == ["hi"]
    assert hub.core.link_to(studio.id) is None
    assert not hub.core.sync.sessions
    assert [link for link in hub.core.links.values() if link.peer] == []
    (row,) = [r for r in hub.call("machines", {})["value"] if r["name"] == "studio"]
    assert row["state"] != "up"
    assert heard == []


@proves("node.parcels-no-way-back")
def test_what_comes_again_in_any_order_moves_nothing_back(world):
    rng = random.Random(5)
    for number in range(6):
        send(world, "studio", f"hub {number}")
        send(world, "hub", f"studio {number}", by="studio")
        world.pass_ms(700)
    old = list(world.left)
    sizes = [machine.sizes() for machine in world.machines.values()]
    for _ in range(3):
        count = len(world.left)
        for _, to, packet in rng.sample(old, len(old)):
            world.take(world[to], [Packet("again", packet)])
        world.pass_ms(20_000)
        assert [each for _, _, each in world.frames(count) if isinstance(each, Segment)] == []
        assert [machine.sizes() for machine in world.machines.values()] == sizes
    for name in ("hub", "studio"):
        assert world[name].core.counters["parcels-again"] > 10


@proves("node.parcels-no-way-back")
@pytest.mark.parametrize("asks", ["want", "probe", "prove"])
def test_what_a_parcel_asks_for_is_sent_where_its_writer_knew_this_very_process(world, asks):
    """A want of before the start may be years old: the writer got it since, or asks again."""
    hub, studio = world["hub"], world["studio"]
    send(world, "studio", "hi")
    world.pass_ms(3_000)
    parcels = studio.core.part(Parcels)
    stream = str(hub.core.membership.own(FLEET))
    message, answer = {
        "want": (wire.Want(stream, 0), Segment),
        "probe": (wire.Probe(stream, 1), wire.Root),
        "prove": (wire.Prove(stream, 0), wire.Leaf),
    }[asks]
    items = [Item(FRAME, frames.encode(Type.OFFER, 0, wire.encode(message)))]

    def ask(number: int, heard: Heard) -> list:
        count = len(world.left)
        raw = write_parcel(
            studio.identity, world.fleet, hub.id, Heard(parcels.life, number), heard, 1, items
        )
        from muster.channel.sealed import seal

        world.take(hub, [Packet("x", seal(raw, bytes.fromhex(hub.identity.keys["age"])))])
        world.pass_ms(1_000)
        return [
            each
            for _, to, each in world.frames(count)
            if isinstance(each, answer) and to == "studio"
        ]

    assert ask(1, parcels.heard(hub.id)) == [], "it is older than others of this process"
    assert ask(1_000, Heard("f" * 32, 3)) == [], "it is for another process of ours"
    assert ask(1_001, parcels.heard(hub.id)), "it is new, and for us"


@proves("node.parcels-once")
@pytest.mark.parametrize("committed", [False, True], ids=["before-commit", "after-commit"])
def test_a_machine_killed_while_it_deals_with_a_parcel_takes_it_once(world, committed):
    studio = world["studio"]
    world.absent = {"studio"}
    send(world, "studio", "once")
    world.pass_ms(1_000)
    lying = dict(world.lying["studio"])
    before = studio.core.store.image()
    world.take(studio)
    assert texts(studio) == ["once"]
    # It is killed before its place could forget the parcel, and perhaps before the commit.
    world.lying["studio"] = lying
    world.said.clear()
    world.restart("studio", None if committed else before)
    assert texts(studio) == (["once"] if committed else [])
    world.absent = set()
    world.pass_ms(20_000)
    assert texts(studio) == ["once"]
    assert receipted(world["hub"], studio)
    assert not world.lying.get("studio")


@proves("node.parcels-once")
def test_what_fails_in_a_parcel_stops_nothing_and_is_said_again(world, monkeypatch):
    studio = world["studio"]
    on_segment, failures = studio.core.replication.on_segment, iter(range(2))

    def fails(*args):
        if next(failures, None) is not None:
            raise ValueError("a mistake of ours")
        on_segment(*args)

    monkeypatch.setattr(studio.core.replication, "on_segment", fails)
    send(world, "studio", "hi")
    world.pass_ms(500)
    assert texts(studio) == []
    assert not world.lying.get("studio"), "what fails is not read again and again"
    assert studio.core.counters["failed-parcel"]
    world.pass_ms(60_000)
    assert texts(studio) == ["hi"]


@proves("node.parcels-faults")
def test_what_has_no_place_in_a_parcel_is_counted_and_moves_nothing(world):
    hub, studio = world["hub"], world["studio"]
    sizes = hub.sizes()
    for type, payload in (
        (Type.CALL, b'{"args":{},"verb":"status"}'),
        (Type.HELLO, b"{}"),
        (Type.OFFER, b"nonsense"),
        (Type.SEGMENT, b"nonsense"),
        (Type.REPLY, b"."),
    ):
        before = sum(n for name, n in hub.core.counters.items() if name.startswith("refused-"))
        raw = world.desks["studio"].write(hub.id, [Item(FRAME, frames.encode(type, 0, payload))])
        world.take(hub, [Packet("x", raw)])
        after = sum(n for name, n in hub.core.counters.items() if name.startswith("refused-"))
        assert after == before + 1, type
    whole = wire.encode(wire.Offer([], whole=True))
    raw = world.desks["studio"].write(hub.id, [Item(FRAME, frames.encode(Type.OFFER, 0, whole))])
    world.take(hub, [Packet("x", raw)])
    assert not any(box.session.greeted for box in hub.core.sync.posts.boxes.values())
    assert hub.sizes() == sizes
    assert hub.answers == [] or hub.answers[-1]["ok"]
    send(world, "studio", "it goes on")
    world.pass_ms(2_000)
    assert texts(studio) == ["it goes on"]


@proves("node.parcels-carry")
def test_a_machine_that_was_set_back_learns_of_it_by_a_parcel(world):
    studio = world["studio"]
    image = studio.core.store.image()
    send(world, "hub", "later", by="studio")
    world.pass_ms(3_000)
    assert texts(world["hub"]) == ["later"]
    incarnation = studio.core.membership.incarnation
    world.restart("studio", image)
    world.pass_ms(60_000)
    assert studio.core.membership.incarnation != incarnation
    assert studio.call("status", {})["ok"]
    send(world, "hub", "goes on", by="studio")
    world.pass_ms(60_000)
    assert texts(world["hub"])[-1] == "goes on"


@proves("node.parcels-set-back")
def test_a_machine_that_begins_on_an_older_disk_gets_again_what_it_had_receipted(world):
    hub, image = world["hub"], world["studio"].core.store.image()
    send(world, "studio", "hi")
    world.pass_ms(PACES["drop"].retry_ms_max)
    assert receipted(hub, world["studio"])
    world.restart("studio", image)
    assert texts(world["studio"]) == []
    world.pass_ms(10_000)
    assert texts(world["studio"]) == ["hi"]
    assert world.refused == []


@proves("node.parcels-set-back")
def test_who_begins_again_and_again_is_told_all_no_more_often_than_a_place_bears(world):
    world.pass_ms(PACES["drop"].retry_ms_max)
    count = len(world.left)
    for _ in range(8):
        world.restart("studio")
        world.pass_ms(10_000)
    stream = str(world["hub"].core.membership.own(FLEET))
    told = [
        offer
        for by, _, offer in world.frames(count)
        if by == "hub" and isinstance(offer, wire.Offer)
        if stream in {head.stream for head in offer.heads}
    ]
    assert len(told) == 1


@proves("node.parcels-set-back")
def test_who_begins_again_is_told_all_also_where_its_own_parcels_do_not_lie():
    """The place that its parcels come by takes none of ours: what it lost comes by the other."""
    world = Places("hub", "studio")
    hub = world["hub"]
    world.full.add("hub")
    for machine in world.machines.values():
        machine.step(PlaceOpened(OTHER, world.pace))
    world.pass_ms(8_000)
    image = world["studio"].core.store.image()
    send(world, "studio", "hi")
    world.pass_ms(PACES["drop"].retry_ms_max)
    assert texts(world["studio"]) == ["hi"]
    assert receipted(hub, world["studio"])
    world.restart("studio", image)
    world["studio"].step(PlaceOpened(OTHER, world.pace))
    world.pass_ms(10_000)
    assert texts(world["studio"]) == ["hi"]


@proves("log.post-falls-silent")
def test_a_stream_that_is_not_for_a_peer_is_not_looked_at_again_and_again_in_its_mailbox():
    world = Places("hub", "studio", "laptop")
    world.pass_ms(8_000)
    send(world, "laptop", "not for the studio")
    world.pass_ms(10_000)
    # Whoever begins shows the studio the seals of it.
    world.restart("hub")
    world.pass_ms(10_000)
    send(world, "hub", "and now the hub hears the studio", by="studio")
    world.pass_ms(10_000)
    assert texts(world["laptop"]) == ["not for the studio"]
    assert world.look_at["hub"] > world.now().boot_ms + 5_000


@proves("node.mends")
def test_entries_that_came_by_a_parcel_are_said_to_have_and_a_request_counts_while_it_is_new(world):
    hub, studio = world["hub"], world["studio"]
    studio.effects.clear()
    send(world, "studio", "hi")
    world.pass_ms(1_000)
    box = studio.core.part(Parcels).number(PLACE, hub.id)
    assert [each for each in studio.effects if isinstance(each, PoorWay)] == [PoorWay(hub.id, box)]
    raw = world.desks["hub"].write(studio.id, [Item(MEND, b"http"), Item(MEND, b"\xff")])
    for _ in range(3):
        world.take(studio, [Packet("x", raw)])
    asked = [each for each in studio.effects if isinstance(each, MendAsked)]
    assert asked == [MendAsked(hub.id, b"http"), MendAsked(hub.id, b"\xff")]


@proves("node.parcels-faults")
def test_a_frame_that_only_a_later_version_knows_takes_nothing_else_of_its_parcel_along(world):
    studio = world["studio"]
    send(world, "studio", "hi")
    world.absent = {"studio"}
    world.pass_ms(1_000)
    ((_, packet),) = world.lying["studio"].items()
    known = [Item(FRAME, frames.encode(type, 0, raw)) for type, raw in
             world.desks["studio"].open(PLACE, Packet("", packet)).frames]  # fmt: skip
    later = frames.encode(Type.OFFER, 0, b"x")
    odd = [
        Item(FRAME, each) for each in (b"\xff" + later[1:], later[:1] + b"\xfe" + later[2:], b"")
    ]
    world.lying.clear()
    with grows(studio.core, "parcels-came"):
        world.take(studio, [Packet("x", world.desks["hub"].write(studio.id, odd + known))])
    assert texts(studio) == ["hi"]
    assert studio.core.counters["parcel-frames-unknown"] == len(odd)
    assert world.refused == []


@proves("log.post-due")
def test_beside_a_link_a_place_carries_what_there_is_to_compare(world):
    world.link("hub", "studio")
    world.pass_ms(1_000)
    count = len(world.left)
    for number in range(20):
        send(world, "studio", f"{number}")
        world.pass_ms(600)
    assert len(world.left) == count
    world.pass_ms(600_000)
    said = [each for _, _, each in world.frames(count)]
    assert {type(each) for each in said} == {wire.Offer, wire.Cosigns}
    assert len(world.left) - count <= 4
    # The link stays up and carries nothing.
    world.cut("hub")
    world.join("hub", "studio")
    count = len(world.left)
    send(world, "studio", "over the place")
    world.pass_ms(15_000)
    assert texts(world["studio"])[-1] == "over the place"
    assert len(world.left) > count


@proves("node.parcels-carry")
def test_a_machine_alone_with_a_place_comes_to_know_its_own_past():
    """Nobody greets it: it goes on after the time that is for those who may know more."""
    world = Places("hub", "studio")
    world.pass_ms(8_000)
    assert all(machine.core.settled for machine in world.machines.values())
    world.restart("studio")
    world.pass_ms(8_000)
    assert world["studio"].core.settled
    send(world, "hub", "here", by="studio")
    world.pass_ms(8_000)
    assert texts(world["hub"]) == ["here"]
