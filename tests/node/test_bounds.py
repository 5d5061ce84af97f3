"""What a member can make grow on another machine, how far, and what is left when it is revoked."""

import random

import pytest
from tests.node.cores import LOCAL, Cores
from tests.promise import proves

from muster.channel.frame import Type
from muster.limits import EARLY_RECEIPTS_MAX, LINK_CALLS_OPEN_MAX, NAMES_REMEMBERED_MAX
from muster.log import canon, wire
from muster.log import segment as segments
from muster.log.seal import make_cosign, make_seal
from muster.log.stream import FLEET, JOURNAL, Incarnation, MachineId, StreamName
from muster.node import event as ev
from muster.node.call.router import Router
from muster.node.replica.waiting_receipts import EarlyReceipts


class Rogue:
    """Studio's keys and its link to the hub, in the hands of a program that is not ours."""

    def __init__(self) -> None:
        self.world = Cores("hub", "studio", "laptop")
        self.link, _ = self.world.link("hub", "studio")
        self.world.link("hub", "laptop")
        self.world.pass_ms(1_000)
        self.world.frozen.add("studio")
        self.hub, self.studio = self.world["hub"], self.world["studio"]
        self.random = random.Random(1)

    def name(self, machine: str = "", scope: str = FLEET) -> StreamName:
        hex = self.random.randbytes
        who = machine or hex(32).hex()
        return StreamName(MachineId(who), Incarnation(hex(16).hex()), scope)  # type: ignore[arg-type]

    def say(self, message: wire.Message) -> None:
        self.hub.step(ev.Arrived(self.link, Type.OFFER, 0, wire.encode(message)))

    def cosign(self, stream: StreamName, size: int = 5) -> str:
        signer = self.studio.identity.signer("held")
        made = make_cosign(
            self.world.fleet, stream, size, b"r" * 32, self.studio.id, "held", signer, 1
        )
        return made.note.decode()

    def seal(self, stream: StreamName, size: int = 5) -> str:
        signer = self.studio.identity.signer("seal")
        return make_seal(self.world.fleet, stream, size, b"r" * 32, signer).note.decode()

    def rows(self) -> dict[str, int]:
        tables = ("stream", "cosign", "seal", "fork")
        query = self.hub.core.tables.query
        return {t: int(query(f"select count(*) from {t}")[0][0]) for t in tables}  # type: ignore[arg-type]

    def revoke(self) -> None:
        answer = self.hub.order("revoke", "studio", {"name": "studio", "reason": "bad"})
        assert answer["ok"], answer
        self.world.pass_ms(5_000)


@pytest.fixture
def rogue() -> Rogue:
    return Rogue()


@proves("node.member-bounded", "store.streams-bounded")
def test_receipts_of_streams_that_are_nowhere_make_no_row_and_go_with_the_link(rogue):
    core, before = rogue.hub.core, rogue.rows()
    for _ in range(EARLY_RECEIPTS_MAX // 100 + 3):
        rogue.say(wire.Cosigns([rogue.cosign(rogue.name()) for _ in range(100)]))
    assert rogue.rows() == before
    assert sum(map(len, core.replication.early._links.values())) == EARLY_RECEIPTS_MAX
    session = core.sync.sessions[rogue.link]
    assert len(session.cosigns) + len(session.lanes) < 50
    rogue.hub.step(ev.LinkDown(rogue.link))
    assert sum(map(len, core.replication.early._links.values())) == 0
    assert rogue.rows() == before


@proves("store.streams-bounded", "log.sync-gossip")
def test_a_receipt_that_came_before_its_stream_counts_once_the_stream_is_here(rogue):
    core = rogue.hub.core
    laptop = rogue.world["laptop"].core
    stream = laptop.membership.own(JOURNAL)
    rogue.world.frozen.add("laptop")
    laptop.now = rogue.world.now()
    with laptop.store.transaction():
        laptop.append("note.put", b"{}", scope=JOURNAL)
        laptop.store.seal_dirty(laptop.membership.signer("seal"))
    root = laptop.store.log.root_at(stream, 1)
    assert not core.log.knows(stream)
    signer = rogue.studio.identity.signer("held")
    note = make_cosign(rogue.world.fleet, stream, 1, root, rogue.studio.id, "held", signer, 1).note
    rogue.say(wire.Cosigns([note.decode()]))
    assert not core.log.knows(stream)
    seal = laptop.store.log.seal_of(stream)
    segment = laptop.store.log.segment(stream, 0)
    link = core.link_to(rogue.world["laptop"].id)
    rogue.hub.step(ev.Arrived(link, Type.SEGMENT, 0, segments.encode(segment)))
    rogue.hub.step(
        ev.Arrived(
            link,
            Type.OFFER,
            0,
            wire.encode(wire.Offer([wire.Head(str(stream), 1, seal.note.decode())])),
        )
    )
    assert note in {c.note for c in core.log.cosigns(stream)}
    assert sum(map(len, core.replication.early._links.values())) == 0


@proves("node.member-bounded", "store.streams-bounded")
def test_a_member_seals_so_many_streams_of_its_own_and_all_are_gone_when_it_is_revoked(
    rogue, monkeypatch
):
    monkeypatch.setattr("muster.store.log_reader.STREAMS_OF_MACHINE_MAX", 60)
    core, before = rogue.hub.core, rogue.rows()
    there = core.store._streams.counts[rogue.studio.id]
    laptop = rogue.world["laptop"].id
    for _ in range(5):
        # Hub is outside of this scope, and so a witness of it.
        names = [rogue.name(rogue.studio.id, f"to.{laptop}") for _ in range(40)]
        rogue.say(wire.Offer([wire.Head(str(n), 5, rogue.seal(n)) for n in names]))
    assert core.store._streams.counts[rogue.studio.id] == 60
    assert rogue.rows()["stream"] == before["stream"] + 60 - there
    assert core.counters["streams-without-a-place"] == 200 - 60 + there
    assert len(core.replication._faults) == 0, "no fault of a peer that passes them on"
    rogue.revoke()
    after = rogue.rows()
    assert after["stream"] <= before["stream"] + 1
    assert after["cosign"] <= before["cosign"] + 6
    # What is offered of them later makes no row again.
    link = core.link_to(laptop)
    names = [rogue.name(rogue.studio.id) for _ in range(40)]
    rogue.hub.step(
        ev.Arrived(
            link,
            Type.OFFER,
            0,
            wire.encode(wire.Offer([wire.Head(str(n), 5, rogue.seal(n)) for n in names])),
        )
    )
    assert rogue.rows()["stream"] == after["stream"]


@proves("store.streams-bounded")
def test_a_stream_that_is_dropped_is_gone_after_a_restart_and_can_be_met_again(rogue):
    core = rogue.hub.core
    name = rogue.name(rogue.studio.id, f"to.{rogue.world['laptop'].id}")
    rogue.say(wire.Offer([wire.Head(str(name), 5, rogue.seal(name))]))
    assert core.log.knows(name)
    before = rogue.rows()
    with core.store.transaction():
        assert core.store.drop(name)
        assert not core.store.drop(name)
        assert not core.store.drop(core.membership.own(FLEET))
    assert not core.log.knows(name)
    assert rogue.rows()["stream"] == before["stream"] - 1
    rogue.world.restart("hub")
    assert not rogue.hub.core.log.knows(name)


@proves("node.member-bounded")
def test_names_that_a_peer_makes_up_are_not_remembered_without_end(rogue):
    membership = rogue.hub.core.membership
    for _ in range(NAMES_REMEMBERED_MAX + 1_000):
        membership.may_hold(rogue.name(), rogue.hub.id)
        membership.key_of(MachineId(rogue.random.randbytes(32).hex()), "seal")
    assert len(membership._holders) <= NAMES_REMEMBERED_MAX
    assert len(membership._keys) <= NAMES_REMEMBERED_MAX


@proves("node.member-bounded")
def test_a_flood_of_offers_is_dealt_with_and_grows_no_further(rogue):
    session = rogue.hub.core.sync.sessions[rogue.link]
    before = rogue.rows()
    for _ in range(20):
        rogue.say(
            wire.Offer([wire.Head(str(rogue.name(rogue.studio.id)), 5) for _ in range(1_000)])
        )
    assert len(session.lanes) <= 2_100
    assert rogue.rows() == before
    rogue.hub.step(ev.LinkDown(rogue.link))
    assert len(rogue.hub.core.sync._asked) == 0


@proves("node.member-bounded")
def test_calls_that_wait_for_a_start_are_so_many_for_each_link_and_go_with_it(rogue):
    hub = rogue.hub
    hub.core.settled = False
    raw = canon.encode({"args": {"request": "x"}, "verb": "renew"})
    hub.step(
        *[ev.Arrived(rogue.link, Type.CALL, n, raw) for n in range(1, LINK_CALLS_OPEN_MAX + 50)]
    )
    hub.step(*[ev.Arrived(LOCAL, Type.CALL, n, raw) for n in range(1, LINK_CALLS_OPEN_MAX + 50)])
    assert len(hub.core.part(Router).waiting) == 2 * LINK_CALLS_OPEN_MAX
    hub.step(ev.LinkDown(rogue.link))
    assert len(hub.core.part(Router).waiting) == LINK_CALLS_OPEN_MAX


def test_early_receipts_are_given_out_once_in_order_and_the_oldest_goes_first():
    said = EarlyReceipts()
    one, other = (StreamName(MachineId("a" * 64), Incarnation(f"{n:032x}"), FLEET) for n in (1, 2))
    for n in range(EARLY_RECEIPTS_MAX + 1):
        said.keep(7, one if n % 2 else other, str(n).encode())
    said.keep(8, one, b"x")
    assert sum(map(len, said._links.values())) == EARLY_RECEIPTS_MAX + 1
    found = said.of(one)
    assert found[0] == (7, b"1")
    assert found[-1] == (8, b"x")
    assert said.of(one) == []
    assert said.of(other)[0] == (7, b"2")
    said.closed(8)
    assert not any(said._links.values())
