"""Grants and capabilities: default deny, one step of delegation, and what was taken stays so."""

import pytest
from tests.fleet.world import (
    ALICE,
    AUTHORITY,
    BUILD,
    FLEET_ID,
    HOUR,
    LAPTOP,
    MALLORY,
    NONCE,
    NOW,
    STUDIO,
    World,
    give,
    operator,
    revocation,
    small_fleet,
    stream,
    take,
)
from tests.promise import proves

from muster.errors import Denied, Forged, Malformed
from muster.fleet import folds, kinds
from muster.fleet.capability import Capability, check_capability, make_capability, read_token
from muster.fleet.document import document_id
from muster.fleet.grant import ANYTHING, Grant, agent_key, sign_give
from muster.fleet.machine import Operator
from muster.fleet.record import sign_revocation
from muster.fleet.statement import check_order, open_statement, sign_statement
from muster.log.stream import MachineId

BOB = Operator(b"bob".ljust(32))
CLAUDE = agent_key("claude", BUILD.machine)
UNTIL = NOW + HOUR


def grant(
    to: str = BOB.key, verb: str = "run", object: str = "project", until_ms: int = UNTIL
) -> Grant:
    return Grant(object=object, to=to, until_ms=until_ms, verb=verb)


def given(world: World, body: kinds.GrantGive) -> str:
    world.write(STUDIO, kinds.GRANT_GIVE, body)
    return document_id(body.statement.encode())


def may(
    world: World, key: str, verb: str = "run", object: str = "project", now_ms: int = NOW
) -> bool:
    try:
        return bool(world.roster.decide(key, verb, object, now_ms))
    except Denied:
        return False


@proves("fleet.default-deny")
def test_what_no_grant_allows_is_denied_with_a_sentence():
    world = small_fleet()
    with pytest.raises(
        Denied, match=r"may not order run on project: no grant allows it; ask an operator"
    ):
        world.roster.decide(BOB.key, "run", "project", NOW)


@proves("fleet.refusals-name-people")
def test_a_refusal_calls_whom_it_refuses_as_people_do_and_says_what_would_help():
    world = small_fleet()

    def refused(key: str, verb: str = "revoke") -> str:
        with pytest.raises(Denied) as error:
            world.roster.decide(key, verb, "x", NOW)
        return str(error.value)

    assert refused(BUILD.machine).startswith("machine build may not order revoke on x")
    assert "`muster grant machine:build revoke --object x`" in refused(BUILD.machine)
    assert refused(f"claude@{BUILD.machine}").startswith("claude on machine build may not")
    assert "muster operator add NAME --key KEY" in refused(BOB.key)
    world.write(STUDIO, kinds.MACHINE_REVOKE, kinds.MachineRevoke(revocation(LAPTOP)))
    assert refused(LAPTOP.machine).startswith("machine laptop is revoked")
    raw = sign_revocation(
        AUTHORITY, of="operator", key=ALICE.key, name="alice", cuts={}, reason="lost", issued_ms=NOW
    )
    world.write(STUDIO, kinds.MACHINE_REVOKE, kinds.MachineRevoke(raw.decode()))
    assert refused(ALICE.key, "run").startswith("operator alice is revoked")
    assert "`muster operator list`" in refused(ALICE.key)
    assert not any(key[:8] in refused(key) for key in (ALICE.key, BUILD.machine))


@proves("fleet.default-deny")
def test_an_operator_may_do_everything_and_the_citation_is_its_record():
    roster = small_fleet().roster
    assert roster.decide(ALICE.key, "run", "project", NOW) == document_id(operator(ALICE, "alice"))


@proves("fleet.default-deny")
def test_an_operator_the_authority_did_not_sign_may_do_nothing():
    world = small_fleet()
    message = operator(ALICE, "alice").replace(ALICE.key.encode(), MALLORY.key.encode())
    world.write(STUDIO, kinds.OPERATOR_RECORD, kinds.OperatorRecorded(record=message.decode()))
    assert world.skipped == ["bad-record"]
    assert not may(world, MALLORY.key)


@proves("fleet.default-deny")
def test_a_grant_allows_its_verb_on_its_object_until_its_time_and_is_cited():
    world = small_fleet()
    id_ = given(world, give(grant()))
    assert world.roster.decide(BOB.key, "run", "project", UNTIL) == id_
    assert not may(world, BOB.key, verb="cancel")
    assert not may(world, BOB.key, object="other")
    assert not may(world, MALLORY.key)
    with pytest.raises(Denied, match="the grant ended 2 s ago"):
        world.roster.decide(BOB.key, "run", "project", UNTIL + 2000)


@proves("fleet.default-deny")
def test_a_star_means_every_verb_or_object_and_the_exact_grant_is_cited_first():
    world = small_fleet()
    given(world, give(grant(object=ANYTHING), nonce=b"1" * 16))
    exact = given(world, give(grant(), nonce=b"2" * 16))
    assert may(world, BOB.key, object="other")
    assert world.roster.decide(BOB.key, "run", "project", NOW) == exact
    given(world, give(grant(verb=ANYTHING, object="box"), nonce=b"3" * 16))
    assert may(world, BOB.key, verb="exec", object="box")
    assert not may(world, BOB.key, verb="exec", object="project")


@proves("fleet.default-deny")
def test_a_grant_to_an_agent_is_for_that_agent_on_that_machine():
    world = small_fleet()
    given(world, give(grant(to=CLAUDE)))
    assert may(world, CLAUDE)
    assert not may(world, agent_key("claude", LAPTOP.machine))
    assert not may(world, agent_key("codex", BUILD.machine))
    assert not may(world, BUILD.machine)


@proves("fleet.default-deny", "fleet.names")
def test_a_grant_to_a_machine_by_name_is_refused_because_names_are_reused():
    with pytest.raises(Malformed, match="its id cannot"):
        sign_give(ALICE.statement, FLEET_ID, grant(to="claude@build"), nonce=NONCE, issued_ms=NOW)


@proves("fleet.default-deny")
def test_a_grant_to_a_role_is_for_machines_of_that_role_and_not_their_agents():
    world = small_fleet()
    given(world, give(grant(to="mobile")))
    assert may(world, LAPTOP.machine)
    assert not may(world, BUILD.machine)
    assert not may(world, agent_key("claude", LAPTOP.machine))


@proves("fleet.default-deny", "fleet.folds-total")
def test_a_statement_for_another_grant_gives_nothing():
    world = small_fleet()
    wider = kinds.GrantGive(grant=grant(object=ANYTHING), statement=give(grant()).statement)
    world.write(STUDIO, kinds.GRANT_GIVE, wider)
    order = sign_statement(
        ALICE.statement,
        fleet=FLEET_ID,
        verb="run",
        object="project",
        target="fleet",
        args={},
        nonce=NONCE,
        issued_ms=NOW,
        until_ms=UNTIL,
    )
    world.write(STUDIO, kinds.GRANT_GIVE, kinds.GrantGive(grant=grant(), statement=order.decode()))
    assert world.skipped == ["other-grant", "other-grant"]
    assert list(world.select(folds.GRANT)) == []


@proves("fleet.delegation")
def test_a_key_without_the_right_to_give_gives_nothing():
    world = small_fleet()
    given(world, give(grant(), nonce=b"1" * 16))
    given(world, give(grant(to=CLAUDE), by=BOB))
    given(world, give(grant(to=MALLORY.key), by=MALLORY))
    assert not may(world, CLAUDE)
    assert not may(world, MALLORY.key)


def delegating() -> World:
    """Bob may run the project, and may give others that right."""
    world = small_fleet()
    given(world, give(grant(), nonce=b"1" * 16))
    given(world, give(grant(verb="grant", object="run"), nonce=b"2" * 16))
    return world


@proves("fleet.delegation")
def test_a_key_with_the_right_to_give_hands_on_what_it_holds():
    world = delegating()
    body = give(grant(to=CLAUDE), by=BOB)
    world.roster.check_give(open_statement(body.statement.encode(), FLEET_ID), body.grant)
    with pytest.raises(Forged, match="another grant"):
        world.roster.check_give(open_statement(body.statement.encode(), FLEET_ID), grant())
    given(world, body)
    assert may(world, CLAUDE)


@pytest.mark.parametrize(
    "wider",
    [
        grant(to=CLAUDE, object=ANYTHING),
        grant(to=CLAUDE, object="other"),
        grant(to=CLAUDE, verb=ANYTHING),
        grant(to=CLAUDE, verb="cancel"),
        grant(to=CLAUDE, until_ms=UNTIL + 1),
        grant(to=CLAUDE, verb="grant", object="run"),
    ],
)
@proves("fleet.delegation")
def test_nobody_hands_on_more_than_they_hold_nor_the_right_to_give(wider: Grant):
    world = delegating()
    before = world.roster.grants
    body = give(wider, by=BOB)
    with pytest.raises(Denied, match="may not give"):
        world.roster.check_give(open_statement(body.statement.encode(), FLEET_ID), wider)
    given(world, body)
    assert world.roster.grants == before


@proves("fleet.delegation")
def test_holding_everything_but_the_right_to_give_hands_on_nothing():
    world = small_fleet()
    given(world, give(grant(verb=ANYTHING, object=ANYTHING)))
    before = world.roster.grants
    given(world, give(grant(to=CLAUDE), by=BOB))
    assert world.roster.grants == before


@proves("fleet.delegation")
@pytest.mark.parametrize("verb", ["grant", "grant.give", "grant.take", ANYTHING])
def test_who_holds_everything_and_may_give_everything_still_cannot_hand_on_the_right_to_give(
    verb: str,
):
    world = small_fleet()
    everything = grant(verb=ANYTHING, object=ANYTHING)
    given(world, give(everything, nonce=b"1" * 16))
    given(world, give(grant(verb="grant", object=ANYTHING), nonce=b"2" * 16))
    before = world.roster.grants
    given(world, give(grant(to=CLAUDE, verb=verb, object="run"), by=BOB))
    assert world.roster.grants == before
    given(world, give(grant(to=CLAUDE, verb="run"), by=BOB))
    assert world.roster.grants != before


@proves("fleet.delegation", "fleet.tombstone")
def test_what_a_revoked_machine_handed_on_counts_no_more():
    world = small_fleet()
    key = LAPTOP.keys["statement"]
    given(world, give(grant(to=key), nonce=b"1" * 16))
    given(world, give(grant(to=key, verb="grant", object="run"), nonce=b"2" * 16))
    given(world, give(grant(to=CLAUDE), by=LAPTOP))
    assert may(world, CLAUDE)
    world.write(STUDIO, kinds.MACHINE_REVOKE, kinds.MachineRevoke(revocation=revocation(LAPTOP)))
    assert not may(world, CLAUDE)


@proves("fleet.grant-taken")
def test_a_grant_that_was_taken_stays_taken_whoever_shows_it_again():
    world = small_fleet()
    body = give(grant())
    id_ = given(world, body)
    world.write(STUDIO, kinds.GRANT_TAKE, take(id_))
    assert not may(world, BOB.key)
    world.write(BUILD, kinds.GRANT_GIVE, body)
    world.write(stream(STUDIO, incarnation=1), kinds.GRANT_GIVE, body)
    assert not may(world, BOB.key)


@proves("fleet.grant-taken")
def test_a_stranger_cannot_take_a_grant():
    world = small_fleet()
    id_ = given(world, give(grant()))
    world.write(STUDIO, kinds.GRANT_TAKE, take(id_, by=MALLORY))
    world.write(STUDIO, kinds.GRANT_TAKE, take(id_, by=BOB))
    assert may(world, BOB.key)
    other = kinds.GrantTake(id=id_, statement=take("0" * 64).statement)
    world.write(STUDIO, kinds.GRANT_TAKE, other)
    assert world.skipped == ["other-grant"]
    assert may(world, BOB.key)


def revoke(world: World, key: str, name: str) -> None:
    raw = sign_revocation(
        AUTHORITY, of="operator", key=key, name=name, cuts={}, reason="left", issued_ms=NOW
    )
    world.write(STUDIO, kinds.MACHINE_REVOKE, kinds.MachineRevoke(revocation=raw.decode()))


@proves("fleet.tombstone")
def test_a_revoked_operator_may_do_nothing_and_what_it_gave_counts_no_more():
    world = small_fleet()
    world.operator(BOB, "bob")
    given(world, give(grant(to=CLAUDE), by=BOB))
    assert may(world, CLAUDE)
    revoke(world, BOB.key, "bob")
    assert not may(world, BOB.key)
    assert not may(world, CLAUDE)
    world.operator(BOB, "bob")
    assert not may(world, BOB.key)


@proves("fleet.tombstone")
def test_no_key_of_a_revoked_machine_and_no_agent_on_it_may_do_anything():
    world = small_fleet()
    statement_key = LAPTOP.keys["statement"]
    agent = agent_key("claude", LAPTOP.machine)
    for at, key in enumerate((LAPTOP.machine, statement_key, agent)):
        given(world, give(grant(to=key), nonce=bytes([at]) * 16))
        assert may(world, key)
    world.write(STUDIO, kinds.MACHINE_REVOKE, kinds.MachineRevoke(revocation=revocation(LAPTOP)))
    for key in (LAPTOP.machine, statement_key, agent):
        with pytest.raises(Denied, match="is revoked"):
            world.roster.decide(key, "run", "project", NOW)


@proves("fleet.statement-bounds", "fleet.default-deny")
def test_a_good_order_by_a_key_without_a_grant_is_denied():
    roster = small_fleet().roster
    for who in (ALICE, BOB):
        raw = sign_statement(
            who.statement,
            fleet=FLEET_ID,
            verb="run",
            object="project",
            target=BUILD.machine,
            args=[1],
            nonce=NONCE,
            issued_ms=NOW,
            until_ms=UNTIL,
        )
        statement = open_statement(raw, FLEET_ID)
        check_order(
            statement,
            verb="run",
            object="project",
            machine=MachineId(BUILD.machine),
            args=[1],
            now_ms=NOW,
        )
        if who is ALICE:
            assert roster.permit(statement, NOW)
            continue
        with pytest.raises(Denied, match="no grant allows it"):
            roster.permit(statement, NOW)


SECRET = bytes(range(32))


def capability() -> tuple[str, Capability]:
    return make_capability(
        SECRET, task="t1", agent="claude", verbs=("send", "memory"), until_ms=UNTIL
    )


@proves("fleet.capability")
def test_a_capability_allows_its_verbs_until_its_time():
    token, kept = capability()
    assert read_token(token) == ("t1", kept.sha256)
    check_capability(kept, token, "send", UNTIL)
    with pytest.raises(Denied, match="may not run"):
        check_capability(kept, token, "run", NOW)
    with pytest.raises(Denied, match="ended"):
        check_capability(kept, token, "send", UNTIL + 1)


@proves("fleet.capability")
def test_a_capability_of_another_task_or_secret_is_refused():
    _, kept = capability()
    for secret, task in ((SECRET, "t2"), (bytes(32), "t1")):
        token, _ = make_capability(
            secret, task=task, agent="claude", verbs=("send",), until_ms=UNTIL
        )
        with pytest.raises(Denied, match="another task"):
            check_capability(kept, token, "send", NOW)


@proves("fleet.capability", "fleet.secrets-stay-inside")
def test_only_a_hash_of_a_capability_is_kept_and_no_error_repeats_the_token():
    token, kept = capability()
    assert SECRET.hex() not in repr(kept)
    with pytest.raises(Malformed) as caught:
        read_token(token + "x")
    assert SECRET.hex() not in str(caught.value)
