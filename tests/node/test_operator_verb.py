"""Operators come to be and are listed; roles are given, and whoever holds the authority is a hub."""

from typing import Any

import pytest
from tests.node.cores import WALL_MS, Cores
from tests.promise import proves

from muster.errors import Denied
from muster.fleet.certificate import hub_of, issue
from muster.fleet.invite import read_invite
from muster.fleet.join import open_answer, sign_join
from muster.fleet.machine import Authority, Identity, Operator
from muster.fleet.named import everyone, meant
from muster.fleet.record import open_record, sign_operator
from muster.limits import INVITE_HOURS_MAX, OPERATORS_MAX
from muster.node import event as ev
from muster.node.incarnations.own_incarnation import FactsChanged, FreshCertificates

BOB = Operator(b"bob".ljust(32))
SEND = {"to": "all", "text": ["hi"]}


def kind(answer: Any) -> str:
    return "ok" if answer["ok"] else str(answer["error"]["kind"])


@pytest.fixture
def world() -> Cores:
    world = Cores("hub", "studio", "laptop")
    world.link("hub", "studio")
    world.pass_ms(4_000)
    return world


def add(world: Cores, name: str = "bob", key: str = BOB.key, signer: Any = None) -> Any:
    args = {"name": name, "key": key}
    statement = world.sign("operator.add", name, world["hub"], args, signer=signer)
    answer = world["hub"].call("operator.add", args, statement=statement)
    world.pass_ms(1_000)
    return answer


def orders(world: Cores, at: str, who: Operator) -> str:
    target = world[at]
    statement = world.sign("send", "all", target, SEND, signer=who.statement)
    return kind(target.call("send", SEND, statement=statement))


@proves("fleet.operator-added")
def test_an_operator_makes_another_one_who_then_orders_everywhere(world):
    assert orders(world, "studio", BOB) == "Denied"
    assert kind(add(world)) == "ok"
    for at in ("hub", "studio"):
        assert orders(world, at, BOB) == "ok"
    listed = world["studio"].call("operators", {})["value"]
    assert [(o["name"], o["state"]) for o in listed] == [("alice", "orders"), ("bob", "orders")]
    args = {"name": "bob", "operator": True}
    assert kind(world["hub"].order("revoke", "bob", args)) == "ok"
    world.pass_ms(1_000)
    assert orders(world, "studio", BOB) == "Denied"
    listed = world["studio"].call("operators", {})["value"]
    assert [(o["name"], o["state"]) for o in listed] == [("alice", "orders"), ("bob", "revoked")]
    assert kind(add(world)) == "Denied", "a revoked key never comes back"


@proves("fleet.operator-added")
def test_an_operator_needs_a_free_name_and_a_key_of_its_own(world):
    laptop = world["laptop"]
    assert kind(add(world, name="laptop")) == "Conflict"
    assert kind(add(world, name="alice")) == "Conflict"
    assert kind(add(world, key="short")) == "Malformed"
    assert kind(add(world, name="op")) == "Malformed"
    assert kind(add(world, key=laptop.id)) == "Denied"
    assert kind(add(world, key=laptop.identity.keys["statement"])) == "Denied"
    assert kind(add(world, key=world.operator.key)) == "Conflict"
    assert len(world["hub"].core.roster.operators) == 1
    assert kind(add(world)) == "ok"
    assert add(world)["value"]["fresh"] is False


@proves("fleet.operator-added")
def test_nobody_but_an_operator_makes_one_and_nobody_but_the_authority_signs_one(world):
    hub = world["hub"]
    assert kind(add(world, signer=BOB.statement)) == "Denied"
    other = Authority(b"another".ljust(32))
    forged = sign_operator(other, BOB.key, "bob", WALL_MS).decode()
    assert kind(hub.call("operator.record", {"record": forged})) == "Forged"
    assert kind(hub.call("operator.record", {"record": "nonsense"})) == "Malformed"
    good = sign_operator(world.authority, BOB.key, "bob", WALL_MS).decode()
    # Any machine of the fleet writes it down: the signature counts, not who brings it.
    assert kind(world["studio"].call("operator.record", {"record": good})) == "ok"
    world.pass_ms(1_000)
    assert orders(world, "hub", BOB) == "ok"


@proves("fleet.operator-added")
def test_there_are_as_many_operators_as_a_newcomer_can_be_told(world):
    hub = world["hub"]
    for number in range(OPERATORS_MAX):
        key = Operator(f"{number}".encode().ljust(32)).key
        record = sign_operator(world.authority, key, f"o{number}".ljust(63, "x"), WALL_MS)
        answer = hub.call("operator.record", {"record": record.decode()})
        assert kind(answer) == ("ok" if number < OPERATORS_MAX - 1 else "Refused")
    phone = Identity(b"phone".ljust(32))
    invited = hub.order("invite", "phone", {"name": "phone"})["value"]["invitation"]
    invite = read_invite(invited.partition("#")[0])
    request = sign_join(phone, invite, "phone").decode()
    link = world.stranger("hub")
    answer = hub.call("enrol", {"request": request}, link=link)
    assert len(open_answer(answer["value"].encode(), phone, world.fleet).operators) == OPERATORS_MAX


@proves("fleet.operator-added")
def test_where_every_operator_is_lost_the_authority_makes_a_new_one(world):
    hub = world["hub"]
    last = {"name": "alice", "last": True}
    assert kind(hub.order("revoke", "alice", last)) == "ok"
    assert kind(hub.order("send", "all", SEND)) == "Denied"
    record = sign_operator(world.authority, BOB.key, "bob", WALL_MS).decode()
    assert kind(hub.call("operator.record", {"record": record})) == "ok"
    assert orders(world, "hub", BOB) == "ok"


# --- roles -------------------------------------------------------------------------------------


def hears(world: Cores, name: str, address: str = "127.0.0.1:2") -> None:
    machine = world[name]
    machine.core.settings = {**machine.core.settings, "listen": address, "address": address}
    machine.step(FactsChanged(machine.facts(address=address)))
    world.pass_ms(1_000)


@proves("fleet.role-given")
def test_a_role_is_given_by_a_record_over_the_same_keys_and_all_know_it(world):
    hub = world["hub"]
    hears(world, "studio")
    before = hub.core.roster.find("studio")
    args = {"name": "studio", "roles": "hub,workstation"}
    world["studio"].effects.clear()
    assert kind(hub.order("role", "studio", args)) == "ok"
    world.pass_ms(1_000)
    after = world["studio"].core.roster.find("studio")
    assert (after.keys, after.serial) == (before.keys, before.serial + 1)
    assert set(after.roles) == {"hub", "workstation"}
    assert [e for e in world["studio"].effects if isinstance(e, FreshCertificates)]
    again = hub.order("role", "studio", args)
    assert again["value"]["fresh"] is False
    assert hub.core.roster.find("studio").serial == after.serial


@proves("fleet.role-given")
def test_a_role_that_is_none_or_of_no_use_is_refused_and_nothing_changes(world):
    hub = world["hub"]
    for args, expected in (
        ({"name": "studio", "roles": "boss"}, "Malformed"),
        ({"name": "studio", "roles": ","}, "Malformed"),
        ({"name": "nobody", "roles": "edge"}, "NotFound"),
        ({"name": "studio", "roles": "hub"}, "Refused"),
    ):
        assert kind(hub.order("role", args["name"], args)) == expected
    studio = world["studio"]
    statement = world.sign("role", "hub", studio, {"name": "hub", "roles": "edge"})
    answer = studio.call("role", {"name": "hub", "roles": "edge"}, statement=statement)
    assert kind(answer) == "NotFound", "studio does not hold the authority"
    assert {m.serial for m in hub.core.roster.machines.values()} == {1}


@proves("fleet.role-given")
def test_with_a_role_a_machine_says_where_it_is_reached_but_not_where_another_one_is(world):
    hub = world["hub"]
    hub.effects.clear()
    there = {"name": "studio", "roles": "edge", "address": "127.0.0.1:9"}
    assert kind(hub.order("role", "studio", there)) == "Refused"
    wrong = {"name": "hub", "roles": "hub", "address": "nowhere"}
    assert kind(hub.order("role", "hub", wrong)) == "Malformed"
    assert hub.core.roster.find("studio").serial == 1
    here = {"name": "hub", "roles": "hub,workstation", "address": "127.0.0.1:9"}
    assert kind(hub.order("role", "hub", here)) == "ok"
    assert ev.ReachedAt("127.0.0.1:9") in hub.effects
    invited = hub.order("invite", "nas", {"name": "nas"})["value"]["invitation"]
    assert invited.endswith("127.0.0.1:9#nas")
    hub.core.settings = {**hub.core.settings, "address_written": "127.0.0.1:9"}
    assert kind(hub.order("role", "hub", {**here, "address": "127.0.0.1:8"})) == "Refused"
    assert kind(hub.order("role", "hub", here)) == "ok"


@proves("fleet.authority-moves")
def test_whoever_holds_the_kept_authority_invites_and_is_a_hub_from_then_on(world):
    """The hub burnt. Its seeds were kept and are in studio's home now."""
    studio = world["studio"]
    world.cut("studio")
    studio.core.authority = world.authority
    invitation = {"name": "nas", "address": "127.0.0.1:2"}
    deaf = studio.order("invite", "nas", invitation)
    assert kind(deaf) == "Refused"
    assert "listen" in deaf["error"]["text"]
    assert not studio.entries("invite.open")
    hears(world, "studio")
    answer = studio.order("invite", "nas", invitation)
    assert kind(answer) == "ok", answer
    assert answer["value"]["became_hub"] == "studio"
    record = studio.core.roster.machine(studio.id)
    certificates = issue(world.authority, open_record(record.raw, world.fleet), WALL_MS)
    assert hub_of(der(certificates.tls_pem), world.fleet).machine == studio.id
    assert [e for e in studio.effects if isinstance(e, FreshCertificates)]
    assert kind(studio.order("revoke", "hub", {"name": "hub"})) == "ok"
    second = studio.order("invite", "tv", {**invitation, "name": "tv"})
    assert second["value"]["became_hub"] == ""


def der(pem: bytes) -> bytes:
    import ssl

    return ssl.PEM_cert_to_DER_cert(pem.decode())


@proves("fleet.invite-hours")
@pytest.mark.parametrize("hours", [0, -1, INVITE_HOURS_MAX + 1, 2**52])
def test_an_invitation_counts_for_bounded_hours(world, hours):
    args = {"name": "nas", "address": "127.0.0.1:1", "hours": hours}
    assert kind(world["hub"].order("invite", "nas", args)) == "Malformed"
    assert not world["hub"].entries("invite.open")
    args["hours"] = INVITE_HOURS_MAX
    answer = world["hub"].order("invite", "nas", args)
    until_ms = world.now().wall_ms + INVITE_HOURS_MAX * 3_600_000
    assert answer["value"]["until_ms"] == until_ms


# --- names ------------------------------------------------------------------------------------------


@proves("fleet.revoke-whom")
def test_a_name_comes_before_the_beginning_of_an_id():
    """A machine may be called like the beginning of another one's id."""
    ids = Cores("hub", "studio")["studio"].id
    world = Cores("hub", "studio", ids[:10])
    roster = world["hub"].core.roster
    assert meant(roster, ids[:10]).key == world[ids[:10]].id
    assert meant(roster, ids[:11]).name == "studio"
    assert {each.name for each in everyone(roster)} == {"hub", "studio", ids[:10], "alice"}


@proves("fleet.revoke-whom")
def test_an_invitation_under_an_operators_name_says_so(world):
    args = {"name": "alice", "address": "127.0.0.1:1"}
    assert world["hub"].order("invite", "alice", args)["value"]["also_operator"] is True
    args = {"name": "nas", "address": "127.0.0.1:1"}
    assert world["hub"].order("invite", "nas", args)["value"]["also_operator"] is False
    with pytest.raises(Denied):
        world["hub"].core.roster.decide(BOB.key, "invite", "nas", WALL_MS)
