"""Who revokes an operator says what of the key still counts, and what it signs later is nothing."""

from typing import Any

import msgspec
import pytest
from tests.node.cores import WALL_MS, Cores, One
from tests.node.test_incidents import say
from tests.promise import proves

from muster.fleet import kinds
from muster.fleet.acknowledgement import VERB, name_of
from muster.fleet.document import document_id
from muster.fleet.grant import Grant, sign_give, sign_take
from muster.fleet.machine import Operator
from muster.fleet.record import sign_revocation
from muster.limits import OPERATOR_END_NAMES_MAX
from muster.log import canon
from muster.log.stream import FLEET
from muster.node.incarnations.doubt import Doubt
from muster.node.services import operator_end

BOB = Operator(b"bob".ljust(32))
HELD = Operator(b"holder".ljust(32))
DAY_MS = 24 * 3_600_000
SEND = {"to": "all", "text": ["hi"]}


@pytest.fixture
def world() -> Cores:
    made = Cores("hub", "studio", "laptop")
    for name in ("studio", "laptop"):
        made.link("hub", name)
    made.pass_ms(4_000)
    added = {"name": "bob", "key": BOB.key}
    assert made["hub"].order("operator.add", "bob", added)["ok"]
    made.pass_ms(1_000)
    return made


def give(world: Cores, verb: str) -> str:
    """A grant of Alice's, through the hub; its id."""
    grant = Grant("*", HELD.key, WALL_MS + DAY_MS, verb)
    raw = sign_give(
        world.operator.statement, world.fleet, grant, nonce=verb.encode().ljust(16),
        issued_ms=WALL_MS,
    )  # fmt: skip
    options = {"grant": msgspec.to_builtins(grant), "statement": raw.decode()}
    args = {"to": HELD.key, "verb": verb}
    assert world["hub"].order("grant", verb, args, options=options)["ok"]
    world.pass_ms(500)
    return document_id(raw)


def write(machine: One, kind: str, body: Any) -> None:
    """A machine writes what it likes into its own stream."""
    core = machine.core
    core.now = machine.world.now()
    with core.store.transaction():
        core.append(kind, canon.encode(msgspec.to_builtins(body)))
        core.store.seal_dirty(core.membership.signer("seal"))
    core.sync.after_commit(core.now.boot_ms)
    machine.world.pass_ms(2_000)


def taking(world: Cores, id_: str) -> kinds.GrantTake:
    raw = sign_take(BOB.statement, world.fleet, id_, nonce=bytes(16), issued_ms=WALL_MS)
    return kinds.GrantTake(id_, raw.decode())


def may(machine: One, verb: str) -> bool:
    return any(g.grant.to == HELD.key and g.grant.verb == verb for g in machine.core.roster.grants)


def revoke(world: Cores) -> None:
    assert world["hub"].order("revoke", "bob", {"name": "bob", "operator": True})["ok"]
    assert world["hub"].entries(kinds.OPERATOR_END), "in the same step, before anything else comes"
    world.pass_ms(1_000)


@proves("fleet.operator-end")
def test_a_stolen_operators_key_takes_nothing_back_once_it_is_revoked(world):
    first, second = give(world, "send"), give(world, "cancel")
    write(world["studio"], kinds.GRANT_TAKE, taking(world, first))
    for machine in world.machines.values():
        assert (may(machine, "send"), may(machine, "cancel")) == (False, True)
    revoke(world)
    # A member that has the key goes on, and dates as it likes.
    write(world["studio"], kinds.GRANT_TAKE, taking(world, second))
    for machine in world.machines.values():
        assert (may(machine, "send"), may(machine, "cancel")) == (False, True)
    statement = world.sign("send", "all", world["laptop"], SEND, signer=HELD.statement)
    assert world["laptop"].call("send", SEND, statement=statement)["error"]["kind"] == "Denied"
    assert len(world["hub"].entries(kinds.OPERATOR_END)) == 1


@proves("fleet.operator-end")
def test_whom_an_older_version_revoked_gets_an_end_from_the_authoritys_machine_alone(world):
    first, second = give(world, "send"), give(world, "cancel")
    write(world["studio"], kinds.GRANT_TAKE, taking(world, first))
    raw = sign_revocation(
        world.authority, of="operator", key=BOB.key, name="bob", cuts={}, reason="left",
        issued_ms=WALL_MS + world.ms,
    )  # fmt: skip
    write(world["hub"], kinds.MACHINE_REVOKE, kinds.MachineRevoke(raw.decode()))
    (told,) = world["laptop"].entries(kinds.OPERATOR_END)
    assert told.header.author == world["hub"].id
    write(world["studio"], kinds.GRANT_TAKE, taking(world, second))
    for machine in world.machines.values():
        assert (may(machine, "send"), may(machine, "cancel")) == (False, True)
    world.pass_ms(2_000)
    assert len(world["hub"].entries(kinds.OPERATOR_END)) == 1, "it is said once"


@proves("fleet.operator-end")
def test_a_machine_in_doubt_of_its_past_does_not_say_what_counted(world):
    hub = world["hub"]
    raw = sign_revocation(
        world.authority, of="operator", key=BOB.key, name="bob", cuts={}, reason="left",
        issued_ms=WALL_MS + world.ms,
    )  # fmt: skip
    world.cut("hub")
    with hub.core.store.transaction():
        hub.core.part(Doubt).begin(("It was set back.",))
    write(hub, kinds.MACHINE_REVOKE, kinds.MachineRevoke(raw.decode()))
    assert hub.core.part(Doubt).waits
    assert hub.entries(kinds.OPERATOR_END) == []
    for name in ("studio", "laptop"):
        world.link("hub", name)
    world.pass_ms(4_000)
    assert not hub.core.part(Doubt).waits
    assert len(hub.entries(kinds.OPERATOR_END)) == 1


@proves("fleet.operator-end")
def test_what_others_gave_is_named_before_all_that_nobody_knows(world):
    """Who has the key can sign takings of what never was, to leave no room."""
    given = give(world, "send")
    studio = world["studio"]
    with studio.core.store.transaction():
        studio.core.now = world.now()
        for number in range(OPERATOR_END_NAMES_MAX + 20):
            body = taking(world, f"{number:064x}")
            studio.core.append(kinds.GRANT_TAKE, canon.encode(msgspec.to_builtins(body)))
        studio.core.store.seal_dirty(studio.core.membership.signer("seal"))
    studio.core.sync.after_commit(studio.core.now.boot_ms)
    world.pass_ms(3_000)
    write(studio, kinds.GRANT_TAKE, taking(world, given))
    revoke(world)
    for machine in world.machines.values():
        assert not may(machine, "send")


def looking(world: Cores, of: kinds.Fork | kinds.Told) -> bytes:
    args = {"incident": name_of(of), "note": "seen"}
    statement = world.sign(VERB, name_of(of), world["hub"], args, signer=BOB.statement)
    return canon.encode(kinds.IncidentAcknowledge("seen", of, statement))


@proves("fleet.operator-end", "fleet.incident-acknowledged")
def test_what_is_open_here_is_named_before_all_that_was_acknowledged_and_never_was(
    world, monkeypatch
):
    monkeypatch.setattr(operator_end, "OPERATOR_END_NAMES_MAX", 5)
    hub, studio = world["hub"], world["studio"]
    say(studio, "smoke", "critical", "there is smoke")
    studio.core.sync.after_commit(studio.core.now.boot_ms)
    world.pass_ms(1_000)
    (smoke,) = hub.call("incidents", {})["value"]
    stream = str(studio.core.membership.own(FLEET))
    real = kinds.Told("smoke", stream, smoke["t_ms"])
    assert name_of(real) == smoke["id"]
    every = [kinds.Told(f"never-{n}", stream, n) for n in range(1_000)]
    # By name, and by when they were written, they come first.
    made_up = [of for of in every if name_of(of) < name_of(real)][:40]
    assert len(made_up) == 40
    with studio.core.store.transaction():
        studio.core.now = world.now()
        for of in (*made_up, real):
            studio.core.append(kinds.INCIDENT_ACKNOWLEDGE, looking(world, of))
        studio.core.store.seal_dirty(studio.core.membership.signer("seal"))
    studio.core.sync.after_commit(studio.core.now.boot_ms)
    world.pass_ms(1_000)
    revoke(world)
    # What the key signs later is nothing.
    say(studio, "flood", "critical", "there is water")
    studio.core.sync.after_commit(studio.core.now.boot_ms)
    world.pass_ms(1_000)
    (flood,) = [i for i in hub.call("incidents", {})["value"] if i["key"] == "flood"]
    late = looking(world, kinds.Told("flood", stream, flood["t_ms"]))
    write(studio, kinds.INCIDENT_ACKNOWLEDGE, msgspec.json.decode(late))
    never = looking(world, kinds.Fork(7, stream))
    write(studio, kinds.INCIDENT_ACKNOWLEDGE, msgspec.json.decode(never))
    assert hub.call("forks", {})["value"] == []
    for machine in world.machines.values():
        seen = {i["key"]: i["by"] for i in machine.call("incidents", {})["value"] if i["open"]}
        assert seen == {"smoke": "bob", "flood": ""}, machine.name
