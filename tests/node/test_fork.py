"""What a fork takes back, and what it never may."""

from collections.abc import Callable
from typing import Any

import msgspec
import pytest
from tests.node.cores import WALL_MS, Cores, One
from tests.promise import proves

from muster.fleet import kinds
from muster.fleet.acknowledgement import VERB, name_of
from muster.fleet.document import document_id
from muster.fleet.folds import MACHINE, TAKEN
from muster.fleet.grant import TAKE
from muster.fleet.machine import Operator
from muster.fleet.permanent import permanent
from muster.log import canon
from muster.log.stream import FLEET, StreamName, scope_group
from muster.node.incarnations import republish
from muster.node.replica import forks
from muster.store.sqlite import Database

ONCE = {"text": "once", "to": "all"}


def forked(branch: Callable[[One], Any]) -> Any:
    """The hub ran twice from one copy; `branch` happened to the one that is here now.

    common -> branch        (hub)
    common -> "elsewhere"   (its copy, which studio saw)
    """
    world = Cores("hub", "studio")
    hub = world["hub"]
    assert hub.order("send", "all", {"text": "before", "to": "all"})["ok"]
    world.link("hub", "studio")
    world.pass_ms(1_000)
    world.cut("hub")
    common = hub.core.store.image()
    found = branch(hub)
    mine = hub.core.store.image()
    world.restart("hub", common)
    hub.core.settled = True
    assert hub.order("send", "all", {"text": "elsewhere", "to": "all"})["ok"]
    world.link("hub", "studio")
    world.pass_ms(1_000)
    world.restart("hub", mine)
    hub.core.settled = True
    return world, found


def meets(world: Cores) -> None:
    """The hub meets who saw the other branch; the stream freezes on both."""
    old = world["hub"].core.membership.incarnation
    world.link("hub", "studio")
    world.pass_ms(5_000)
    assert world["hub"].core.membership.incarnation != old
    for machine in world.machines.values():
        store = machine.core.store
        assert [s for s in store.log.streams() if store.log.frozen_at(s) is not None], machine.name


def ordered(hub: One) -> bytes:
    """An operator's order, obeyed; its very bytes."""
    statement = hub.world.sign("send", "all", hub, ONCE)
    raw = canon.encode({"args": ONCE, "statement": statement, "verb": "send"})
    answer = hub.raw(raw)
    assert answer is not None
    assert answer["ok"], answer
    return raw


def taken(hub: One, by: Operator | None = None) -> str:
    """A grant that the operator (or whoever) takes back; its id."""
    args = {"grant": "x"}
    signer = None if by is None else by.statement
    given = hub.world.sign("grant", "x", hub, args, to="fleet")
    grant = document_id(given.encode())
    taking = hub.world.sign(TAKE, grant, hub, {"id": grant}, to="fleet", signer=signer)
    with hub.core.store.transaction():
        hub.core.now = hub.world.now()
        body = kinds.GrantTake(grant, taking)
        hub.core.append(kinds.GRANT_TAKE, canon.encode(msgspec.to_builtins(body)))
        hub.core.store.seal_dirty(hub.core.membership.signer("seal"))
    assert hub.core.tables.rows(TAKEN, id=grant), hub.core.tables.skipped()
    return grant


@proves("node.orders-once")
def test_an_order_of_a_branch_that_was_rolled_back_is_not_obeyed_again():
    world, once = forked(ordered)
    meets(world)
    hub = world["hub"]
    before = hub.sizes()
    answer = hub.raw(once)
    assert answer is not None
    assert not answer["ok"]
    assert "taken already" in answer["error"]["text"]
    assert hub.sizes() == before
    counters = hub.core.counters
    assert counters["said-again"] == 1
    assert (counters["disputes"], counters["forks"], counters["incarnations"]) == (1, 1, 1)


@proves("node.orders-once")
def test_an_order_that_has_expired_is_not_said_again():
    world, _ = forked(ordered)
    world.ms += 120_000
    meets(world)
    assert world["hub"].core.counters["said-again"] == 0


@proves("fleet.what-lasts")
def test_a_grant_that_was_taken_in_a_branch_stays_taken_after_the_rollback():
    world, grant = forked(taken)
    meets(world)
    for machine in world.machines.values():
        assert machine.core.tables.rows(TAKEN, id=grant), machine.name


NOBODY = Operator(b"nobody".ljust(32))


def many(by: Operator | None) -> Callable[[One], list[str]]:
    return lambda hub: [taken(hub, by) for _ in range(3)]


@proves("fleet.only-who-counts-lasts")
def test_what_a_key_without_any_right_signed_is_never_said_again():
    world, _ = forked(many(NOBODY))
    before = {m.name: m.own_size for m in world.machines.values()}
    meets(world)
    for machine in world.machines.values():
        assert machine.core.counters["said-again"] == 0, machine.name
    # Studio lost nothing of its own and so writes nothing.
    assert world["studio"].own_size == before["studio"]


@proves("fleet.only-who-counts-lasts")
def test_what_a_revoked_operator_once_took_is_said_again():
    """The operator's key was revoked since: what it took stays taken all the same."""

    def take_and_revoke(hub: One) -> str:
        grant = taken(hub)
        args = {"name": "alice", "last": True}
        assert hub.order("revoke", "alice", args)["ok"]
        return grant

    world, grant = forked(take_and_revoke)
    meets(world)
    for machine in world.machines.values():
        assert machine.core.tables.rows(TAKEN, id=grant), machine.name
        assert not machine.core.roster.operators, machine.name


@proves("fleet.only-who-counts-lasts")
def test_of_one_key_only_so_much_is_said_again(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(republish, "LASTING_PER_SIGNER_MAX", 2)
    world, _ = forked(many(None))
    meets(world)
    hub = world["hub"].core
    assert (hub.counters["said-again"], hub.counters["lasting-not-said-again"]) == (2, 1)


@proves("fleet.only-who-counts-lasts")
def test_orders_and_decisions_of_keys_without_any_right_do_not_last():
    world = Cores("hub")
    hub = world["hub"]
    stream, note = str(hub.core.membership.own(FLEET)), "seen"
    of = kinds.Fork(1, stream)
    fork = name_of(of)
    for signer, expected in ((NOBODY.statement, False), (None, True)):
        order = hub.world.sign("send", "all", hub, ONCE, signer=signer)
        said = {"fork": fork, "note": note}
        older = hub.world.sign("fork.close", fork, hub, said, signer=signer)
        word = hub.world.sign(VERB, fork, hub, {"incident": fork, "note": note}, signer=signer)
        closing = kinds.ForkClose(1, note, "0" * 64, older, stream)
        bodies = {
            kinds.ORDER_TAKE: {"grant": "0" * 64, "statement": order},
            kinds.FORK_CLOSE: msgspec.to_builtins(closing),
            kinds.INCIDENT_ACKNOWLEDGE: msgspec.to_builtins(
                kinds.IncidentAcknowledge(note, of, word)
            ),
        }
        for kind, body in bodies.items():
            with hub.core.store.transaction():
                entry = hub.core.append(kind, canon.encode(body))
                hub.core.store.seal_dirty(hub.core.membership.signer("seal"))
            assert (permanent(entry, hub.core.roster, hub.id) is not None) is expected, kind


@proves("fleet.what-lasts")
def test_what_a_crash_kept_from_being_said_again_is_said_at_the_next_start():
    world, grant = forked(taken)
    hub = world["hub"]
    hub.core._hears[forks.RolledBack].clear()
    meets(world)
    assert not hub.core.tables.rows(TAKEN, id=grant)
    hub.incarnation = hub.core.membership.incarnation
    world.restart("hub")
    world.link("hub", "studio")
    world.pass_ms(5_000)
    for machine in world.machines.values():
        assert machine.core.tables.rows(TAKEN, id=grant), machine.name


@proves("fleet.what-lasts")
def test_what_nobody_signed_does_not_last():
    world = Cores("hub")
    hub = world["hub"]
    bodies = {
        kinds.MACHINE_REVOKE: {"revocation": "{}"},
        kinds.GRANT_TAKE: {"id": "0" * 64, "statement": "{}"},
        kinds.ORDER_TAKE: {"grant": "0" * 64, "statement": "{}"},
    }
    for kind, body in bodies.items():
        with hub.core.store.transaction():
            entry = hub.core.append(kind, canon.encode(body))
            hub.core.store.seal_dirty(hub.core.membership.signer("seal"))
        assert permanent(entry, hub.core.roster, hub.id) is None
    with hub.core.store.transaction():
        order = hub.world.sign("send", "all", hub, ONCE)
        entry = hub.core.append(
            kinds.ORDER_TAKE, canon.encode({"grant": "0" * 64, "statement": order})
        )
        hub.core.store.seal_dirty(hub.core.membership.signer("seal"))
    assert permanent(entry, hub.core.roster, hub.id) is not None
    other = Cores("hub", "studio")["studio"].id
    assert permanent(entry, hub.core.roster, other) is None, "others' orders are theirs"


def members(machine: One, name: str = "team") -> set[str]:
    """Who is in the hub's thread, as a machine has it."""
    core = machine.core
    scope = scope_group(machine.world["hub"].id, name)
    return {core.membership.name_of(m) for m in core.roster.groups.get(scope, {})}


def thread(hub: One, name: str = "team", **change: list[str]) -> None:
    args = {"add": [], "name": name, "remove": [], **change}
    assert hub.order("thread", name, args)["ok"]


def with_thread() -> Cores:
    world = Cores("hub", "studio", "lap")
    world.link("hub", "studio")
    world.link("hub", "lap")
    world.pass_ms(4_000)
    thread(world["hub"], add=["studio", "lap"])
    world.pass_ms(500)
    return world


def copied(world: Cores, common: bytes) -> None:
    """A copy of the hub's home goes on from before, and meets the studio: its stream forks."""
    world.cut("hub")
    world.restart("hub", common)
    world["hub"].core.settled = True
    assert world["hub"].order("send", "all", {"text": "elsewhere", "to": "all"})["ok"]
    world.link("hub", "studio")
    world.pass_ms(5_000)
    assert any(world["studio"].core.log.frozen_at(s) for s in world["studio"].core.log.streams())


@proves("fleet.removal-lasts")
def test_who_saw_a_removal_leaves_the_member_out_though_its_keeper_lost_it():
    world = with_thread()
    hub, studio = world["hub"], world["studio"]
    common = hub.core.store.image()
    thread(hub, remove=["lap"])
    world.pass_ms(500)
    assert members(studio) == {"hub", "studio"}
    copied(world, common)
    # The copy never had the removal, and its branch is what the keeper goes on with.
    assert members(studio) == {"hub", "studio"}
    stream = StreamName(studio.id, studio.core.membership.incarnation, scope_group(hub.id, "team"))
    assert not studio.core.membership.may_hold(stream, world["lap"].id)
    # Also after a restart, which has the evidence and nothing else.
    world.restart("studio")
    assert members(studio) == {"hub", "studio"}
    # The keeper may let it in again: what is said later counts.
    world.link("hub", "studio")
    world.link("hub", "lap")
    world.pass_ms(5_000)
    thread(hub, add=["lap"])
    world.pass_ms(1_000)
    assert "lap" in members(studio)


@proves("fleet.removal-lasts")
def test_a_keeper_says_again_whom_it_put_out_in_a_branch_that_was_rolled_back():
    world = with_thread()
    hub = world["hub"]
    common = hub.core.store.image()
    world.cut("hub")
    thread(hub, remove=["lap"])
    mine = hub.core.store.image()
    world.restart("hub", common)
    hub.core.settled = True
    assert hub.order("send", "all", {"text": "elsewhere", "to": "all"})["ok"]
    world.link("hub", "studio")
    world.pass_ms(1_000)
    world.restart("hub", mine)
    hub.core.settled = True
    world.link("hub", "studio")
    world.link("hub", "lap")
    world.pass_ms(6_000)
    for name in ("hub", "studio", "lap"):
        assert members(world[name]) == {"hub", "studio"}, name
    said = hub.core.counters["said-again"]
    assert said
    hub.incarnation = hub.core.membership.incarnation
    world.restart("hub")
    assert hub.core.counters["said-again"] == 0, "once is enough"


@proves("fleet.removal-lasts")
def test_others_write_nothing_for_a_keepers_removals_however_many_it_forked_away():
    world = with_thread()
    hub = world["hub"]
    common = hub.core.store.image()
    for n in range(20):
        thread(hub, f"t{n}", add=["lap"])
        thread(hub, f"t{n}", remove=["lap"])
    world.pass_ms(500)
    before = {name: world[name].own_size for name in ("studio", "lap")}
    copied(world, common)
    for name in before:
        assert world[name].core.counters["said-again"] == 0
    assert world["studio"].own_size - before["studio"] < 10


@proves("node.newest-by-index")
def test_a_stream_that_ends_before_its_first_entry_costs_what_it_wrote(monkeypatch):
    """It looked through the rows of everybody in each table that is kept by id."""
    world = Cores("hub", "studio")
    world.link("hub", "studio")
    world.pass_ms(2_000)
    hub, theirs = world["hub"], world["studio"].core.membership.own(FLEET)
    asked: dict[str, Any] = {}
    query = Database.query

    def seen(self: Database, sql: str, bindings: Any = ()) -> Any:
        asked[sql] = bindings
        return query(self, sql, bindings)

    monkeypatch.setattr(Database, "query", seen)
    with hub.core.store.transaction():
        hub.core.store.freeze(theirs, 0, b"{}", WALL_MS)
    monkeypatch.undo()
    assert hub.core.tables.rows(MACHINE, stream=theirs) == []
    steps = [
        str(step)
        for sql, bindings in asked.items()
        for *_, step in hub.core.tables.query(f"explain query plan {sql}", bindings)
    ]
    assert len(steps) > 20
    assert [step for step in steps if step.startswith("SCAN") and "runs" not in step] == []
