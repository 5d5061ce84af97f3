"""Shutting somebody out: whatever a machine did, only who is meant, and never the last operator."""

import pytest
from tests.counters import grows
from tests.node.cores import WALL_MS, Cores, One
from tests.promise import proves

from muster.channel.frame import Type
from muster.fleet.machine import Operator
from muster.fleet.record import fitting_cuts, open_revocation, sign_operator, sign_revocation
from muster.limits import REVOCATION_BYTES_MAX, REVOCATION_REASON_CHARS_MAX
from muster.log import canon, wire
from muster.log import segment as segments
from muster.log.stream import FLEET, Incarnation, Scope, StreamName
from muster.message.fold import MESSAGE
from muster.node import event as ev
from muster.node.core import Core
from muster.node.replica import forks as fork
from muster.node.replica.forks import RolledBack

MANY = 600


def said(answer: dict) -> str:
    return str(answer["error"]["text"])


def kind(answer: dict) -> str:
    return "ok" if answer["ok"] else str(answer["error"]["kind"])


def open_streams(world: Cores, machine: One, count: int, scope: Scope = FLEET) -> None:
    """What a member whose program is not ours can do: one entry in each of so many streams."""
    core = machine.core
    for number in range(count):
        core.membership.renewed(Incarnation(f"{number + 1:032x}"))
        with core.store.transaction():
            core.append("note.x", b"{}", scope=scope)
            core.store.seal_dirty(core.membership.signer("seal"))
        if number % 200 == 199:
            world.pass_ms(500)
    world.pass_ms(2_000)


@pytest.fixture
def world() -> Cores:
    world = Cores("hub", "studio", "bad")
    world.link("hub", "studio")
    world.link("hub", "bad")
    world.pass_ms(4_000)
    return world


def streams_of(world: Cores, at: str, machine: str) -> list[StreamName]:
    return [s for s in world[at].core.log.streams() if s.machine == world[machine].id]


@proves("fleet.revocation-bounded")
def test_a_machine_that_opened_hundreds_of_streams_is_revoked_and_ends_the_same_everywhere(
    world, monkeypatch
):
    """hub, studio <- bad (600 streams): its first ones count, the flood counts for nothing."""
    monkeypatch.setattr(fork, "BURIED_PER_STEP_MAX", 40)
    honest = streams_of(world, "hub", "bad")
    before = {s: world["hub"].core.log.size(s) for s in honest}
    open_streams(world, world["bad"], MANY)
    assert len(streams_of(world, "studio", "bad")) == MANY + len(honest)
    answer = world["hub"].order("revoke", "bad", {"name": "bad", "reason": "stolen"})
    assert answer["ok"], answer
    found = answer["value"]
    assert found["streams"] == MANY + len(honest)
    assert 0 < found["streams_dropped"] < MANY
    hub = world["hub"].core
    frozen = [s for s in streams_of(world, "hub", "bad") if hub.store.log.frozen_at(s) is not None]
    assert len(frozen) < 100, "so many at once would make one step last"
    world.pass_ms(5_000)
    for at in ("hub", "studio"):
        store = world[at].core.store
        ended = {s: store.log.size(s) for s in streams_of(world, at, "bad")}
        assert all(store.log.frozen_at(s) is not None for s in ended), at
        assert {s: ended[s] for s in honest} == before, at
        assert sum(size == 0 for size in ended.values()) == found["streams_dropped"], at
        assert world["bad"].id in world[at].core.roster.revoked
    (entry,) = {e.id: e for e in hub_entries(world, "machine.revoke")}.values()
    assert len(entry.body or b"") < 64 * 1024


@proves("fleet.revocation-bounded")
def test_whoever_names_all_streams_of_a_revoked_machine_ends_no_more_of_them_in_one_step(
    world, monkeypatch
):
    """hub, studio <- bad (300 streams); studio shows them all before the hub came to most."""
    open_streams(world, world["bad"], 300)
    monkeypatch.setattr(fork, "BURIED_PER_STEP_MAX", 40)
    known = {s: world["studio"].core.log.size(s) for s in streams_of(world, "studio", "bad")}
    assert world["hub"].order("revoke", "bad", {"name": "bad", "reason": "stolen"})["ok"]
    hub = world["hub"].core
    link = hub.link_to(world["studio"].id)
    before = ended(world, "hub")
    assert before <= 40
    shown = world["studio"].core.store
    for begin in range(0, len(known), 200):
        heads = [
            wire.Head(str(s), known[s], shown.log.latest_seal(s).note.decode())
            for s in list(known)[begin : begin + 200]
        ]
        world["hub"].step(ev.Arrived(link, Type.OFFER, 0, wire.encode(wire.Offer(heads))))
    assert ended(world, "hub") == before
    world.pass_ms(100)
    assert before < ended(world, "hub") <= before + 40
    world.pass_ms(3_000)
    assert ended(world, "hub") == len(streams_of(world, "hub", "bad"))
    assert hub.counters["streams-of-revoked-machines"] == ended(world, "hub")


@proves("fleet.revocation-bounded")
def test_a_machine_that_dies_while_it_ends_the_streams_of_another_goes_on_when_it_starts(
    world, monkeypatch
):
    open_streams(world, world["bad"], 300)
    monkeypatch.setattr(fork, "BURIED_PER_STEP_MAX", 40)
    assert world["hub"].order("revoke", "bad", {"name": "bad", "reason": "stolen"})["ok"]
    assert ended(world, "hub") <= 40
    world.restart("hub")
    world.pass_ms(3_000)
    assert ended(world, "hub") == len(streams_of(world, "hub", "bad")) > 300


@proves("fleet.revocation-bounded")
def test_a_stream_that_waits_for_its_end_grows_no_more_and_is_vouched_for_no_more(
    world, monkeypatch
):
    """hub, studio <- bad: what bad wrote beyond the revocation comes while the end is still due."""
    monkeypatch.setattr(fork, "BURIED_PER_STEP_MAX", 0)
    bad, studio = world["bad"].core, world["studio"].core
    private = Scope(f"to.{world['hub'].id}")
    everybodys, hubs = bad.membership.own(FLEET), bad.membership.own(private)
    write_as(bad, FLEET, private)
    world.pass_ms(2_000)
    size, seen = studio.store.log.size(everybodys), studio.store.log.latest_seal(hubs)
    assert size
    assert seen is not None
    assert seen.size == 1
    assert world["hub"].order("revoke", "bad", {"name": "bad", "reason": "stolen"})["ok"]
    assert studio.roster.cut(hubs) == 1
    assert studio.store.log.frozen_at(hubs) is studio.store.log.frozen_at(everybodys) is None
    write_as(bad, FLEET, private)
    link = studio.link_to(world["hub"].id)
    more = segments.encode(bad.store.log.segment(everybodys, size))
    note = bad.store.log.latest_seal(hubs).note.decode()
    proof = [h.hex() for h in bad.store.log.consistency(hubs, 1, 2)]
    offer = wire.encode(wire.Offer([wire.Head(str(hubs), 2, note, 1, proof)]))
    with grows(studio, "beyond-the-end-of-a-frozen-stream"):
        world["studio"].step(ev.Arrived(link, Type.SEGMENT, 0, more))
    world["studio"].step(ev.Arrived(link, Type.OFFER, 0, offer))
    assert studio.store.log.size(everybodys) == size
    assert studio.store.log.latest_seal(hubs) == seen
    longer = wire.Offer([wire.Head(str(everybodys), size + 1)])
    world["studio"].step(ev.Arrived(link, Type.OFFER, 0, wire.encode(longer)))
    assert everybodys not in studio.sync._asked


@proves("fleet.revocation-bounded")
def test_what_a_revoked_machine_told_a_few_beyond_its_revocation_counts_there_no_more(
    world, monkeypatch
):
    """bad opens a thread and tells studio alone; the hub, which never hears of it, revokes bad."""
    bad, studio = world["bad"].core, world["studio"].core
    world.link("studio", "bad")
    world.pass_ms(1_000)
    world.cut("hub")
    with bad.store.transaction():
        bad.append("group.open", b'{"name":"plans"}')
        bad.store.seal_dirty(bad.membership.signer("seal"))
    world.pass_ms(1_000)
    thread = Scope(f"g.{world['bad'].id}.plans")
    assert thread in studio.roster.groups
    assert world["hub"].order("revoke", "bad", {"name": "bad", "reason": "stolen"})["ok"]
    monkeypatch.setattr(fork, "BURIED_PER_STEP_MAX", 0)
    world.link("hub", "studio")
    world.pass_ms(1_000)
    (stream,) = streams_of(world, "studio", "bad")
    size, cut = studio.store.log.size(stream), studio.roster.cut(stream)
    assert 0 < cut < size
    forks = studio.replication.forks
    forks.proofs()[stream] = b"a fork proof of a later place"
    with studio.store.transaction(patient=True):
        assert forks._bury(stream, WALL_MS, []) == size, "to undo a part costs the whole"
    assert stream not in forks.proofs()
    assert thread in studio.roster.groups
    monkeypatch.setattr(fork, "BURIED_PER_STEP_MAX", 20)
    forks._to_bury[stream] = None
    world.pass_ms(100)
    assert thread not in studio.roster.groups


@proves("fleet.revocation-bounded")
def test_where_the_word_of_a_revocation_is_cut_back_no_stream_ends_before_it_is_said_again(
    world, monkeypatch
):
    """hub (revokes bad) -> studio, which starts again; the hub's stream ends before that word."""
    monkeypatch.setattr(fork, "BURIED_PER_STEP_MAX", 0)
    hubs = world["hub"].core.membership.own(FLEET)
    world.pass_ms(1_000)
    before = world["studio"].core.log.size(hubs)
    assert world["hub"].order("revoke", "bad", {"name": "bad", "reason": "stolen"})["ok"]
    world.pass_ms(1_000)
    world.restart("studio")
    monkeypatch.setattr(fork, "BURIED_PER_STEP_MAX", 20)
    studio = world["studio"].core
    (stream,) = streams_of(world, "studio", "bad")
    with studio.store.transaction(patient=True):
        studio.now = studio.clock.read(world.now())
        forks = studio.replication.forks
        forks._tell(RolledBack(forks._end(hubs, before, b"{}", WALL_MS)))
        studio.membership.changed()
    assert world["bad"].id not in studio.roster.revoked
    world.ms += 100
    world["studio"].step(ev.Tick())
    assert studio.store.log.frozen_at(stream) is None
    world.pass_ms(4_000)
    assert (
        studio.store.log.frozen_at(stream)
        == studio.roster.cut(stream)
        == studio.store.log.size(stream)
    )
    assert studio.store.log.size(stream)


def write_as(core: Core, *scopes: Scope) -> None:
    with core.store.transaction():
        for scope in scopes:
            core.append("note.x", b"{}", scope=scope)
        core.store.seal_dirty(core.membership.signer("seal"))


def ended(world: Cores, at: str) -> int:
    store = world[at].core.store
    return sum(store.log.frozen_at(s) is not None for s in streams_of(world, at, "bad"))


def hub_entries(world: Cores, of_kind: str) -> list:
    return world["hub"].entries(of_kind)


@proves("fleet.revocation-bounded")
@pytest.mark.parametrize("count", [1, 460, 5_000])
def test_a_revocation_names_what_was_known_first_and_is_never_too_large(world, count):
    machine = world["bad"].id
    scope = Scope(f"g.{machine}.{'x' * 32}")
    sizes = [
        (StreamName(machine, Incarnation(f"{n:032x}"), scope), 2**40 if n else 0)
        for n in range(count)
    ]
    what = {
        "of": "machine", "key": machine, "name": "bad", "issued_ms": WALL_MS,
        "reason": "\u0001\U0001f5dd" * (REVOCATION_REASON_CHARS_MAX // 2),
    }  # fmt: skip
    cuts = fitting_cuts(world.authority, sizes, **what)
    raw = sign_revocation(world.authority, cuts=cuts, **what)
    assert len(raw) <= REVOCATION_BYTES_MAX
    assert open_revocation(raw, world.fleet).cuts == cuts
    assert list(cuts) == [str(s) for s, size in sizes if size][: len(cuts)]
    assert len(cuts) == count - 1 or len(raw) > REVOCATION_BYTES_MAX - 300
    assert len(canon.encode({"revocation": raw.decode()})) < 64 * 1024


@proves("fleet.revocation-bounded")
def test_a_reason_that_fills_the_document_is_refused_and_nothing_is_written(world):
    hub = world["hub"]
    long = {"name": "bad", "reason": "x" * (REVOCATION_REASON_CHARS_MAX + 1)}
    before = len(hub.entries("machine.revoke"))
    assert kind(hub.order("revoke", "bad", long)) == "Malformed"
    assert len(hub.entries("machine.revoke")) == before
    assert not hub.core.roster.revoked


# --- whom ---------------------------------------------------------------------------------------


def add_operator(world: Cores, name: str, seed: bytes) -> Operator:
    operator = Operator(seed.ljust(32))
    record = sign_operator(world.authority, operator.key, name, WALL_MS)
    hub = world["hub"]
    answer = hub.call("operator.record", {"record": record.decode()})
    assert answer["ok"], answer
    return operator


@proves("fleet.revoke-whom")
def test_a_name_of_a_machine_and_of_an_operator_is_refused_with_what_to_type():
    world = Cores("hub", "alice", "studio")
    hub = world["hub"]
    answer = hub.order("revoke", "alice", {"name": "alice"})
    assert kind(answer) == "Conflict"
    assert "--machine" in said(answer)
    assert "--operator" in said(answer)
    assert not hub.core.roster.revoked
    assert hub.order("revoke", "alice", {"name": "alice", "machine": True})["ok"]
    assert set(hub.core.roster.revoked) == {world["alice"].id}
    assert hub.order("send", "all", {"to": "all", "text": ["still here"]})["ok"]


@proves("fleet.revoke-whom")
def test_an_id_or_its_beginning_says_who_is_meant(world):
    hub = world["hub"]
    bad, studio = world["bad"].id, world["studio"].id
    short = {"name": bad[:7]}
    assert kind(hub.order("revoke", short["name"], short)) == "NotFound"
    begin = {"name": bad[:12]}
    assert hub.order("revoke", begin["name"], begin)["value"]["revoked"] == "bad"
    assert kind(hub.order("revoke", "bad", {"name": "bad"})) == "Conflict"
    assert hub.order("revoke", studio, {"name": studio})["value"]["revoked"] == "studio"


@proves("fleet.revoke-whom")
def test_to_say_both_or_a_sort_that_it_is_not_is_refused(world):
    hub = world["hub"]
    both = {"name": "bad", "machine": True, "operator": True}
    assert kind(hub.order("revoke", "bad", both)) == "Malformed"
    assert kind(hub.order("revoke", "bad", {"name": "bad", "operator": True})) == "NotFound"
    assert not hub.core.roster.revoked


@proves("fleet.last-operator")
def test_the_last_operator_is_only_revoked_where_that_is_said(world):
    hub = world["hub"]
    refused = hub.order("revoke", "alice", {"name": "alice"})
    assert kind(refused) == "Refused"
    assert "--last" in said(refused)
    assert hub.order("send", "all", {"to": "all", "text": ["still here"]})["ok"]
    bob = add_operator(world, "bob", b"bob")
    args = {"name": "alice"}
    signed = world.sign("revoke", "alice", hub, args, signer=bob.statement)
    assert hub.call("revoke", args, statement=signed)["ok"]
    assert set(hub.core.roster.operators) == {bob.key}
    last = {"name": "bob", "last": True}
    signed = world.sign("revoke", "bob", hub, last, signer=bob.statement)
    assert hub.call("revoke", last, statement=signed)["ok"]
    assert not hub.core.roster.operators


@proves("fleet.revoke-whom")
def test_a_machine_does_not_revoke_itself(world):
    hub = world["hub"]
    for word in ("hub", hub.id, hub.id[:16]):
        answer = hub.order("revoke", word, {"name": word})
        assert kind(answer) == "Refused", word
        assert "itself" in said(answer)
    assert not hub.core.roster.revoked
    assert world["studio"].core.roster.machines.keys() == {m.id for m in world.machines.values()}


@proves("node.revoke-cuts")
def test_what_was_held_of_a_revoked_machine_counts_on_and_its_streams_end_there(world):
    """A revocation without cuts would take back what the machine did while it was trusted."""
    studio = world["studio"]
    assert studio.order("send", "all", {"to": "all", "text": ["while I was trusted"]})["ok"]
    world.pass_ms(1_000)
    held = {s: world["hub"].core.log.size(s) for s in streams_of(world, "hub", "studio")}
    assert sum(held.values()) > 2
    assert world["hub"].order("revoke", "studio", {"name": "studio"})["ok"]
    world.pass_ms(1_000)
    for at in ("hub", "bad"):
        store = world[at].core.store
        for stream, size in held.items():
            if world[at].core.log.size(stream) or at == "hub":
                assert (store.log.size(stream), store.log.frozen_at(stream)) == (size, size), at
    (row,) = (hub := world["hub"].core).store.tables.rows(MESSAGE)
    kept = hub.store.log.entry(row.id)
    assert b"while I was trusted" in kept.body


@proves("node.refused-changes-nothing")
def test_what_is_taken_back_is_taken_back_of_the_roster_too(world):
    """Else a refused order would leave a machine shut out, or let in, until the next restart."""
    core = world["hub"].core
    before = core.roster
    what: dict = {
        "of": "machine", "key": world["bad"].id, "name": "bad", "issued_ms": WALL_MS, "reason": "x",
    }  # fmt: skip
    raw = sign_revocation(world.authority, cuts={}, **what).decode()
    with core.store.transaction():
        mark = core.mark()
        core.append("machine.revoke", canon.encode({"revocation": raw}))
        core.membership.changed()
        assert world["bad"].id in core.roster.revoked
        core.undo(mark)
        assert core.roster.revoked == before.revoked == {}
        assert set(core.roster.machines) == set(before.machines)


@proves("message.thread-keeper")
def test_the_keeper_of_a_thread_stays_in_it(world):
    hub = world["hub"]
    args = {"name": "team", "add": ["studio"]}
    assert kind(hub.order("thread", "team", args)) == "ok"
    before = hub.own_size
    leave = {"name": "team", "remove": ["studio", "hub"]}
    assert kind(hub.order("thread", "team", leave)) == "Conflict"
    (members,) = hub.core.roster.groups.values()
    assert set(members) == {hub.id, world["studio"].id}, "nobody was removed, the other neither"
    assert hub.own_size == before + 1, "the record of the refusal"


@proves("message.thread-keeper")
def test_taking_somebody_out_of_a_thread_that_is_not_there_opens_none(world):
    hub = world["hub"]
    leave = {"name": "taem", "remove": ["studio"]}
    assert kind(hub.order("thread", "taem", leave)) == "NotFound"
    assert not hub.core.roster.groups


@proves("node.revoke-cuts")
def test_entries_beyond_the_cut_are_not_taken_by_who_knew_nothing_of_the_stream():
    """Nobody offered it: a machine that was revoked, or who helps it, pushes the bytes at once."""
    world = Cores("hub", "bad", "late")
    world.link("hub", "bad")
    world.pass_ms(4_000)
    hub, bad, late = world["hub"], world["bad"], world["late"]
    stream = bad.core.membership.own(FLEET)
    cut = bad.own_size
    assert hub.order("revoke", "bad", {"name": "bad"})["ok"]
    world.cut("bad")
    with bad.core.store.transaction():
        for _ in range(5):
            bad.core.append("note.x", b"{}")
        bad.core.store.seal_dirty(bad.core.membership.signer("seal"))
    raw = hub.core.membership.revocation(bad.id)
    with late.core.store.transaction():
        body = canon.encode({"revocation": raw})
        late.core.append("machine.revoke", body)
        late.core.store.seal_dirty(late.core.membership.signer("seal"))
    late.core.membership.changed()
    # A link of the hub's, over which nothing was offered yet.
    link = 99
    late.step(ev.LinkUp(link, hub.id, local=False, channel="http"))
    assert not late.core.log.knows(stream)
    found = bad.core.log.segment(stream, 0)
    assert found is not None
    assert found.end == cut + 5
    late.step(ev.Arrived(link, Type.SEGMENT, 0, segments.encode(found)))
    assert late.core.log.size(stream) <= cut
