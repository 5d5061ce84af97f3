"""What a member may ask, show and vouch for: each gate between the links and the store."""

from typing import Any

import pytest
from tests.node.cores import WALL_MS, Cores, One
from tests.promise import proves

from muster.channel import frame as frames
from muster.channel.frame import Type
from muster.errors import Denied
from muster.limits import CONFIRM_MS
from muster.log import canon, wire
from muster.log import segment as segments
from muster.log.seal import make_cosign
from muster.log.stream import FLEET, StreamName, scope_group, scope_to
from muster.node import event as ev
from muster.node.attempts.blob_transfer import readable
from muster.task.instruction import Now

SHA = "ab" * 32


@pytest.fixture
def world() -> Cores:
    """A hub with a word for studio alone, which the laptop has no part in."""
    made = Cores("hub", "studio", "lap")
    made.link("hub", "studio")
    made.pass_ms(CONFIRM_MS + 500)
    assert made["hub"].order("send", "studio", {"text": ["between us"], "to": "studio"})["ok"]
    made.pass_ms(500)
    return made


def direct(world: Cores) -> StreamName:
    hub = world["hub"]
    return hub.core.membership.own(scope_to(world["studio"].identity.machine))


def shown(to: One, link: int, message: wire.Message) -> list[wire.Message]:
    """What a machine answers to a sync message on this link."""
    effects = to.core.step([ev.Arrived(link, Type.OFFER, 0, wire.encode(message))], to.world.now())
    found = [frames.decode(e.frame) for e in effects if isinstance(e, ev.Send) and e.link == link]
    return [wire.decode(f.payload) for f in found if f.type is Type.OFFER]


@pytest.mark.parametrize("question", [wire.Probe, wire.Prove])
@proves("node.gates-hold")
def test_a_machine_outside_of_a_scope_hears_nothing_about_the_stream(world, question):
    hub, stream = world["hub"], direct(world)
    outside, _ = world.link("hub", "lap")
    inside = next(n for n, each in hub.core.links.items() if each.peer == world["studio"].id)
    asked = question(str(stream), 1 if question is wire.Probe else 0)
    before = hub.core.counters["refused-refused"]
    assert shown(hub, outside, asked) == []
    assert hub.core.counters["refused-refused"] == before + 1
    assert [type(m) for m in shown(hub, inside, asked)] == [
        wire.Root if question is wire.Probe else wire.Leaf
    ]


@proves("node.gates-hold")
def test_entries_of_a_scope_that_a_machine_has_no_part_in_are_not_taken_however_genuine(world):
    studio, lap, stream = world["studio"], world["lap"], direct(world)
    _, link = world.link("studio", "lap")
    segment = studio.core.log.segment(stream, 0, 100_000, 0)
    assert segment is not None
    world["lap"].core.step(
        [ev.Arrived(link, Type.SEGMENT, 0, segments.encode(segment))], world.now()
    )
    assert lap.core.log.size(stream) == 0
    assert lap.core.counters["refused-refused"] == 1


@proves("node.gates-hold")
def test_a_member_that_came_later_gets_no_blob_of_what_was_said_before(world):
    hub, lap = world["hub"], world["lap"]
    args = {"name": "team", "add": ["studio"], "remove": []}
    assert hub.order("thread", "team", args)["ok"]
    scope = scope_group(hub.identity.machine, "team")

    def finish() -> Any:
        body = {
            "task": "t1", "epoch": [1, 1], "status": "done", "artefacts": [f"blob:{SHA}:3:out.txt"],
        }  # fmt: skip
        with hub.core.store.transaction():
            hub.core.now = world.now()
            entry = hub.core.append("attempt.finish", canon.encode(body), scope=scope)
            hub.core.store.seal_dirty(hub.core.membership.signer("seal"))
        return entry

    before = finish()
    late = {"name": "team", "add": ["lap"], "remove": [], "fresh": True}
    assert hub.order("thread", "team", late)["ok"]
    after = finish()
    assert readable(hub.core, lap.id, after.id, SHA) == after
    assert readable(hub.core, world["studio"].id, before.id, SHA) == before
    with pytest.raises(Denied):
        readable(hub.core, lap.id, before.id, SHA)


@proves("node.gates-hold")
def test_a_receipt_for_more_of_our_stream_than_there_is_is_a_hint_and_no_receipt(world):
    hub, studio = world["hub"], world["studio"]
    own = hub.core.membership.own(FLEET)
    size = hub.core.log.size(own) + 5
    signer = studio.core.membership.signer("held")
    note = make_cosign(
        world.fleet, own, size, b"r" * 32, studio.identity.machine, "held", signer, 1
    ).note
    link = next(n for n, each in hub.core.links.items() if each.peer == studio.id)
    told: list[str] = []
    hub.core.replication.awaited.when_held(
        own, size, {studio.identity.machine}, lambda: told.append("!")
    )
    shown(hub, link, wire.Cosigns([note.decode()]))
    assert hub.core.counters["cosign-ahead-of-us"] == 1
    newest = hub.core.replication.claims.newest
    assert newest is not None
    assert (newest.stream, newest.machine) == (own, studio.id)
    assert [c for c in hub.core.log.cosigns(own) if c.size == size] == []
    assert told == []


@proves("node.gates-hold")
def test_who_gives_up_waiting_for_a_receipt_leaves_nothing_behind(world):
    hub, studio = world["hub"], world["studio"]
    own, awaited = hub.core.membership.own(FLEET), hub.core.replication.awaited
    waits = {studio.identity.machine}
    first, other = (awaited.when_held(own, 10_000, set(waits), told) for told in (print, repr))
    first()
    assert [each.then for each in awaited._waiting[own]] == [repr]
    other()
    other()
    assert own not in awaited._waiting


@proves("node.gates-hold")
def test_nobody_vouches_for_a_seal_of_a_stream_that_ended(world):
    hub, lap, stream = world["hub"], world["lap"], direct(world)
    _, link = world.link("hub", "lap")
    world.pass_ms(500)
    assert lap.core.log.latest_seal(stream), "it is a witness of what it may not hold"
    assert hub.order("send", "studio", {"text": ["more"], "to": "studio"})["ok"]
    seal, size = hub.core.log.seal_of(stream), hub.core.log.size(stream)
    assert seal is not None
    head = wire.Head(
        str(stream), size, seal.note.decode(), 1,
        [h.hex() for h in hub.core.log.consistency(stream, 1, size)],
    )  # fmt: skip
    fresh = lap.core.store.image()
    assert [type(m) for m in shown(lap, link, wire.Offer([head]))] == [wire.Cosigns]
    # The same, on a machine that knows that the stream ended, wherever that is.
    world.restart("lap", fresh)
    _, link = world.link("hub", "lap")
    with lap.core.store.transaction():
        lap.core.store.freeze(stream, 100, b"proof", WALL_MS)
    before = lap.core.log.latest_seal(stream)
    assert shown(lap, link, wire.Offer([head])) == []
    assert lap.core.log.latest_seal(stream) == before


@proves("node.undo-leaves-nothing")
def test_what_is_taken_back_moves_no_clock_and_is_heard_by_nobody(world):
    core = world["hub"].core
    heard: list[str] = []
    core.on("note.test", lambda _stream, entry: heard.append(entry.header.actor))
    now = world.now()
    with core.store.transaction():
        core.now = now
        core.append("note.test", b"{}", actor="muster")
        mark = core.mark()
        core.now = Now(now.boot_ms, now.wall_ms + 3_600_000)
        core.append("note.test", b"{}", actor="late@hub")
        core.undo(mark)
        core.now = now
        after = core.append("note.test", b"{}", actor="op:next")
        core._react()
        core.store.seal_dirty(core.membership.signer("seal"))
    assert heard == ["muster", "op:next"]
    assert after.header.t[0] < now.wall_ms + 3_600_000
