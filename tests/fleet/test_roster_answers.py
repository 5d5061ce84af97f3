"""What the roster answers: who is meant, who keeps what, who may, and who hands on work."""

import dataclasses
from typing import Any

import pytest
from msgspec import to_builtins
from msgspec.structs import replace
from tests.fleet.test_device import KEY, order, with_device
from tests.fleet.test_grant import revoke
from tests.fleet.test_peer import ACME, CARD
from tests.fleet.world import (
    ALICE,
    BUILD,
    HOUR,
    LAPTOP,
    MALLORY,
    NOW,
    STUDIO,
    World,
    give,
    revocation,
    small_fleet,
    stream,
)
from tests.promise import proves

from muster.errors import Conflict, Denied, NotFound
from muster.fleet import kinds
from muster.fleet.chat import Chat, chat_key
from muster.fleet.facts import Facts
from muster.fleet.grant import DELEGATE, FLEET_GRANTEE, TASK, Bounds, Grant
from muster.fleet.peer import PeerFleet, read_card
from muster.fleet.roster import Roster
from muster.log.stream import FLEET, scope_group, scope_to

BOUNDS = Bounds(at_once=2, per_day=5)


def _with(roster: Roster, **changes: Any) -> Roster:
    return dataclasses.replace(roster, **changes)


def _granted(*grants: Grant) -> World:
    world = small_fleet()
    for n, grant in enumerate(grants):
        world.write(
            STUDIO, kinds.GRANT_GIVE, give(grant, nonce=bytes([n]) * 16, issued_ms=NOW - HOUR)
        )
    assert world.skipped == []
    return world


@proves("fleet.renamed", "peer.both-operators")
def test_a_word_that_could_mean_two_or_meant_another_is_no_guess():
    roster = small_fleet().roster
    named = _with(roster, former={"old": BUILD.machine, "laptop": BUILD.machine})
    with pytest.raises(NotFound, match="No machine is named old any more: it is build"):
        named.find("old")
    # Who has a name now has it.
    assert named.find("laptop").machine == LAPTOP.machine
    acme = PeerFleet("acme", read_card(CARD))
    peered = _with(roster, peers={ACME: acme})
    assert peered.peer("acme") == peered.peer(ACME) == (ACME, acme)
    twice = _with(roster, peers={ACME: acme, "e" * 64: acme})
    with pytest.raises(Conflict, match=f"{ACME[:12]} and eeeeeeeeeeee; remove one by its id"):
        twice.peer("acme")
    assert twice.peer("e" * 64) == ("e" * 64, acme)
    with pytest.raises(NotFound, match="there are: acme"):
        peered.peer("other")


# Who says that it has `main`, what is granted, and whom it is fetched from.
HUB, MEMBER = STUDIO.machine, BUILD.machine
MAIN = Grant("main", MEMBER, NOW + HOUR, "repo")
KEEPERS = [
    ((), (), None),
    ((HUB,), (), HUB),
    ((MEMBER,), (), None),
    ((MEMBER,), (MAIN,), MEMBER),
    ((MEMBER,), (replace(MAIN, object="other"),), None),
    ((MEMBER,), (replace(MAIN, verb="run"),), None),
    ((MEMBER,), (replace(MAIN, to=LAPTOP.machine),), None),
    ((MEMBER,), (replace(MAIN, until_ms=NOW - 1),), None),
    ((LAPTOP.machine, MEMBER), (MAIN,), MEMBER),
    ((HUB, MEMBER), (MAIN,), HUB),
    # Who was granted it and does not have it is asked in vain.
    ((), (MAIN,), None),
]


@proves("fleet.repository-keeper")
def test_a_repository_is_fetched_from_a_hub_that_has_it_or_who_was_granted_it():
    machines = {each.machine: each for each in (STUDIO, BUILD, LAPTOP)}
    for having, grants, keeper in KEEPERS:
        world = _granted(*grants)
        for machine in having:
            facts = Facts("linux", "x86_64", repositories=("main", "more"))
            world.write(machines[machine], kinds.MACHINE_FACTS, to_builtins(facts))
        found = world.roster.keeper("main", NOW)
        assert (found.machine if found else None) == keeper, (having, grants)
        assert world.roster.keeper("none", NOW) is None


@proves("fleet.scope-holders")
def test_a_writer_has_all_of_its_own_streams_and_a_member_what_its_group_says():
    team = stream(STUDIO, scope_group(STUDIO.machine, "team"))
    roster = _with(small_fleet().roster, groups={team.scope: {BUILD.machine: {str(team): 7}}})
    assert roster.held_from(team, STUDIO.machine) == 0
    assert roster.held_from(team, BUILD.machine) == 7
    for name in (stream(STUDIO, FLEET), stream(STUDIO, scope_to(BUILD.machine))):
        assert roster.held_from(name, BUILD.machine) == 0


@proves("fleet.default-deny", "fleet.refusals-name-people")
def test_an_object_that_names_a_machine_is_its_id_and_is_shown_by_its_name():
    roster = _granted(Grant("notes", MALLORY.key, NOW + HOUR, "run")).roster
    assert roster.may(MALLORY.key, "run", "notes", NOW)
    for key, verb, object, at_ms in (
        (MALLORY.key, "run", "other", NOW), (MALLORY.key, "ask", "notes", NOW),
        (MALLORY.key, "run", "notes", NOW + HOUR + 1), ("f" * 64, "run", "notes", NOW),
    ):  # fmt: skip
        assert not roster.may(key, verb, object, at_ms)
    for said, object in (("build", MEMBER), ("build:inbox", f"{MEMBER}:inbox"), (MEMBER, MEMBER)):
        assert roster.object_of_machine(said) == object
        assert roster.called_object(object) == said.replace(MEMBER, "build")
    with pytest.raises(NotFound):
        roster.object_of_machine("nas:inbox")
    assert roster.called_object("notes:x") == "notes:x"
    assert roster.called_object("e" * 64) == "e" * 12
    assert roster.called(f"claude@{MEMBER}") == "claude on machine build"
    assert roster.called(BUILD.keys["statement"]) == "machine build"
    assert roster.called(f"{FLEET_GRANTEE}{ACME}") == f"fleet {ACME[:12]}…"
    peered = _with(roster, peers={ACME: PeerFleet("acme", read_card(CARD))})
    assert peered.called(f"{FLEET_GRANTEE}{ACME}") == "fleet acme"
    assert roster.called("e" * 64) == "key eeeeeeeeeeee…"


@proves("chat.linked-by-code")
def test_an_account_is_the_one_that_was_linked_at_that_machine_and_in_that_workspace():
    link = Chat("1" * 64, ALICE.key, BUILD.machine, "matrix", "", "@ann:example.org", NOW, NOW)
    roster = _with(small_fleet().roster, chats={link.key: link})
    assert link.key == chat_key("matrix", "@ann:example.org", BUILD.machine)
    assert roster.chat("matrix", "", "@ann:example.org", BUILD.machine) == link
    for said in (
        ("slack", "", link.account, BUILD.machine), ("matrix", "w", link.account, BUILD.machine),
        ("matrix", "", "@bob:example.org", BUILD.machine),
        ("matrix", "", link.account, STUDIO.machine), ("matrix", "", "no account", BUILD.machine),
    ):  # fmt: skip
        with pytest.raises(Denied, match="is not linked"):
            roster.chat(*said)


@proves("fleet.default-deny", "fleet.device-rights")
def test_what_was_an_order_when_it_was_given_stays_one_whoever_was_shut_out_since():
    world = with_device()
    mine, stranger = order("run", "nightly"), order("run", "nightly", key=MALLORY.statement)
    world.roster.was_permitted(mine, NOW)
    by_alice = order("revoke", "laptop", key=ALICE.statement)
    world.roster.was_permitted(by_alice, NOW)
    for never in (stranger, order("run", "other"), order("run", "nightly", life_ms=HOUR)):
        with pytest.raises(Denied):
            world.roster.was_permitted(never, NOW)
    # By a grant it is one, for as long as that is.
    world.write(STUDIO, kinds.GRANT_GIVE, give(Grant("nightly", MALLORY.key, NOW + HOUR, "run")))
    world.roster.was_permitted(stranger, NOW)
    with pytest.raises(Denied):
        world.roster.was_permitted(stranger, NOW + HOUR + 1)
    revoke(world, ALICE.key, "alice")
    roster = world.roster
    assert not roster.may(ALICE.key, "revoke", "laptop", NOW)
    for ordered in (mine, by_alice):
        roster.was_permitted(ordered, NOW)
        with pytest.raises(Denied):
            roster.permit(ordered, NOW)
    assert roster.speaker(ALICE.key) == "alice"
    assert roster.speaker(KEY.public.hex()) == "alice.laptop"
    assert roster.speaker(MALLORY.key) == MALLORY.key[:12]


@proves("delegation.default-deny", "peer.task-default-deny")
def test_whose_agents_hand_on_work_is_what_an_operator_granted_a_live_machine_or_fleet():
    grants = [
        Grant("*", BUILD.machine, NOW - 1, DELEGATE, BOUNDS),
        Grant("*", "mobile", NOW + HOUR, DELEGATE, BOUNDS),
        Grant("*", BUILD.machine, NOW + HOUR, "run"),
        Grant("*", f"{FLEET_GRANTEE}{ACME}", NOW + HOUR, TASK, BOUNDS),
        Grant("*", f"{FLEET_GRANTEE}{'e' * 64}", NOW + HOUR, TASK, BOUNDS),
    ]
    world = _granted(*grants)
    roster = world.roster
    handed = lambda machine: [each.grant for each in roster.delegating(machine)]  # noqa: E731
    # Also one that has ended: whoever looks says so.
    assert handed(BUILD.machine) == [grants[0]]
    assert handed(LAPTOP.machine) == [grants[1]]
    assert handed(STUDIO.machine) == handed("e" * 64) == []
    assert roster.asking() == roster.asking(ACME) == ()
    peered = _with(roster, peers={ACME: PeerFleet("acme", read_card(CARD))})
    assert [each.grant for each in peered.asking()] == [grants[3]]
    assert [each.grant for each in peered.asking(ACME)] == [grants[3]]
    assert peered.asking("e" * 64) == peered.asking(ACME, "file") == ()
    assert roster.speaking_for(BUILD.keys["statement"]) == BUILD.machine
    assert roster.speaking_for(BUILD.keys["tls"]) is roster.speaking_for(ALICE.key) is None
    # A machine that was shut out hands on nothing; whose its key was is still known.
    world.write(STUDIO, kinds.MACHINE_REVOKE, kinds.MachineRevoke(revocation(LAPTOP)))
    gone = world.roster
    assert gone.delegating(LAPTOP.machine) == ()
    assert gone.speaking_for(LAPTOP.keys["statement"]) == LAPTOP.machine
