"""From entries to rows to the roster: who is in, who holds what, and what is skipped."""

import random
from functools import partial

import pytest
from tests.fleet.world import (
    BUILD,
    BUILD_RECORD,
    FLEET_ID,
    LAPTOP,
    LAPTOP_RECORD,
    NOW,
    OTHER_AUTHORITY,
    STUDIO,
    STUDIO_RECORD,
    World,
    give,
    record,
    revocation,
    small_fleet,
    stream,
    take,
)
from tests.promise import proves

from muster.errors import Conflict, Denied, NotFound
from muster.fleet import kinds
from muster.fleet.assembly import assemble
from muster.fleet.document import document_id
from muster.fleet.facts import Facts
from muster.fleet.folds import INCARNATION, INCIDENT
from muster.fleet.grant import Grant
from muster.fleet.machine import Identity
from muster.log.stream import JOURNAL, Scope, scope_group, scope_to

STRANGER = Identity(b"stranger".ljust(32))
TEAM = scope_group(STUDIO.machine, "team")


def revoke(world: World, who: Identity = LAPTOP, **options: object) -> None:
    body = kinds.MachineRevoke(revocation=revocation(who, **options))  # type: ignore[arg-type]
    world.write(STUDIO, kinds.MACHINE_REVOKE, body)


@proves("fleet.record-two-signatures")
def test_the_roster_finds_machines_by_id_and_name():
    roster = small_fleet().roster
    assert set(roster.machines) == {STUDIO.machine, BUILD.machine, LAPTOP.machine}
    assert (
        roster.machine(BUILD.machine)
        == roster.find("build")
        == roster.find("build")
        == BUILD_RECORD
    )
    assert roster.find(BUILD.machine) == BUILD_RECORD
    assert roster.hubs() == (STUDIO_RECORD,)
    with pytest.raises(NotFound, match="the fleet has: build, laptop, studio"):
        roster.find("nas")
    with pytest.raises(NotFound):
        roster.machine(STRANGER.machine)


@pytest.mark.parametrize(
    ("body", "reason"),
    [
        (
            kinds.MachineRecorded(
                record=record(LAPTOP, "laptop", authority=OTHER_AUTHORITY).raw.decode()
            ),
            "bad-record",
        ),
        (kinds.MachineRecorded(record="gibberish"), "bad-record"),
        (kinds.MachineRecorded(record=revocation(LAPTOP)), "bad-record"),
        ({"unknown": 1}, "bad-body"),
        ([], "bad-body"),
    ],
)
@proves("fleet.folds-total")
def test_a_record_that_does_not_hold_is_skipped_and_nothing_changes(body: object, reason: str):
    world = small_fleet()
    before = dict(world.rows)
    world.write(BUILD, kinds.MACHINE_RECORD, body)
    assert world.skipped == [reason]
    assert world.rows == before


@proves("fleet.folds-total")
def test_every_kind_survives_an_erased_body_and_a_body_that_is_no_json():
    for fold in World().folds:
        for kind in sorted(fold.kinds):
            world = World()
            world.write(STUDIO, kind, {}, erased=True)
            world.write(STUDIO, kind, None, raw_body=b"\xff{")
            assert world.skipped == ["no-body", "bad-body"], kind
            assert world.rows == {}


@proves("fleet.folds-total")
def test_authority_outside_the_fleets_own_scope_is_skipped():
    world = small_fleet()
    before = dict(world.rows)
    for scope in (JOURNAL, scope_to(BUILD.machine), TEAM):
        body = kinds.MachineRevoke(revocation=revocation(LAPTOP))
        world.write(stream(STUDIO, scope), kinds.MACHINE_REVOKE, body)
    assert world.skipped == ["wrong-scope"] * 3
    assert world.rows == before


@proves("fleet.folds-total")
def test_an_incarnation_opens_with_the_writers_own_record_and_only_once():
    world = small_fleet()
    before = dict(world.rows)
    body = kinds.MachineOpen(record=BUILD_RECORD.raw.decode())
    world.write(stream(LAPTOP), kinds.MACHINE_OPEN, body)
    world.write(
        stream(LAPTOP), kinds.MACHINE_OPEN, kinds.MachineOpen(record=LAPTOP_RECORD.raw.decode())
    )
    assert world.skipped == ["not-mine", "not-first"]
    assert world.rows == before


@proves("fleet.record-two-signatures")
def test_an_incarnation_says_where_the_earlier_one_ended():
    world = small_fleet()
    heads = {str(stream(LAPTOP)): kinds.Head(root="ab" * 32, size=7)}
    body = kinds.MachineOpen(record=LAPTOP_RECORD.raw.decode(), heads=heads)
    world.write(stream(LAPTOP, incarnation=1), kinds.MACHINE_OPEN, body)
    rows = {row.incarnation: row.heads for row in world.select(INCARNATION)}
    assert '"size":7' in rows[f"{1:032x}"]


@proves("fleet.record-two-signatures")
def test_of_two_records_the_higher_serial_counts_whoever_passes_it_on():
    world = small_fleet()
    newer = record(LAPTOP, "laptop", serial=2, roles=("workstation",))
    world.write(BUILD, kinds.MACHINE_RECORD, kinds.MachineRecorded(record=newer.raw.decode()))
    assert world.roster.find("laptop").serial == 2
    world.enrol(LAPTOP_RECORD)
    assert world.roster.find("laptop").serial == 2
    world.write(
        BUILD, kinds.MACHINE_RECORD, kinds.MachineRecorded(record=LAPTOP_RECORD.raw.decode())
    )
    assert world.skipped == ["stale"]


@proves("fleet.record-two-signatures")
def test_two_live_machines_of_one_name_are_an_error_and_not_a_guess():
    world = small_fleet()
    world.enrol(record(STRANGER, "laptop"))
    with pytest.raises(Conflict, match="More than one machine is named laptop"):
        world.roster.find("laptop")


@proves("fleet.tombstone")
def test_a_revoked_machine_is_gone_for_ever_and_its_old_seals_stay_verifiable():
    world = small_fleet()
    revoke(world)
    world.enrol(record(LAPTOP, "laptop", serial=9))
    roster = world.roster
    assert LAPTOP.machine not in roster.machines
    assert roster.known[LAPTOP.machine].keys["seal"] == LAPTOP.keys["seal"]
    with pytest.raises(Denied, match="laptop is revoked"):
        roster.machine(LAPTOP.machine)
    with pytest.raises(Denied):
        roster.find("laptop")
    with pytest.raises(Denied):
        roster.find(LAPTOP.machine)


@proves("fleet.tombstone")
def test_a_revocation_that_the_authority_did_not_sign_changes_nothing():
    world = small_fleet()
    before = dict(world.rows)
    revoke(world, authority=OTHER_AUTHORITY)
    assert world.skipped == ["bad-record"]
    assert world.rows == before


@proves("fleet.cuts")
def test_of_a_revoked_machine_only_what_the_cuts_name_still_counts():
    world = small_fleet()
    mine, journal = stream(LAPTOP), stream(LAPTOP, JOURNAL)
    assert world.roster.cut(mine) is None
    revoke(world, cuts={str(mine): 12})
    assert world.roster.cut(mine) == 12
    assert world.roster.cut(journal) == 0
    assert world.roster.cut(stream(BUILD)) is None


@proves("fleet.cuts")
def test_a_later_revocation_mends_the_cuts_wherever_it_was_heard():
    world = small_fleet()
    revoke(world, cuts={str(stream(LAPTOP)): 12}, issued_ms=NOW + 1)
    early = kinds.MachineRevoke(revocation=revocation(LAPTOP, issued_ms=NOW))
    world.write(BUILD, kinds.MACHINE_REVOKE, early)
    world.write(STUDIO, kinds.MACHINE_REVOKE, early)
    assert world.roster.cut(stream(LAPTOP)) == 12
    assert world.skipped == ["stale"]


@pytest.mark.parametrize(
    ("scope", "holders"),
    [
        (Scope("fleet"), {STUDIO, BUILD, LAPTOP}),
        (JOURNAL, {STUDIO}),
        (scope_to(BUILD.machine), {STUDIO, BUILD}),
        (scope_to(STRANGER.machine), {STUDIO}),
        (TEAM, {STUDIO, LAPTOP}),
        (scope_group(STUDIO.machine, "unknown"), {STUDIO}),
        (scope_group(BUILD.machine, "team"), {STUDIO}),
    ],
)
@proves("fleet.scope-holders")
def test_a_stream_is_held_by_its_writer_and_the_machines_of_its_scope(
    scope: Scope, holders: set[Identity]
):
    world = small_fleet()
    world.write(STUDIO, kinds.GROUP_OPEN, kinds.GroupOpen(name="team"))
    world.write(STUDIO, kinds.GROUP_ADD, kinds.GroupAdd(machine=LAPTOP.machine, name="team"))
    world.write(STUDIO, kinds.GROUP_ADD, kinds.GroupAdd(machine=STRANGER.machine, name="team"))
    may_hold = partial(world.roster.may_hold, stream(STUDIO, scope))
    assert set(filter(may_hold, world.roster.machines)) == {each.machine for each in holders}
    assert not may_hold(STRANGER.machine)


@proves("fleet.scope-holders", "fleet.tombstone")
def test_a_revoked_machine_may_hold_nothing():
    world = small_fleet()
    world.write(STUDIO, kinds.GROUP_ADD, kinds.GroupAdd(machine=LAPTOP.machine, name="team"))
    revoke(world)
    for scope in (Scope("fleet"), scope_to(LAPTOP.machine), TEAM):
        assert not world.roster.may_hold(stream(STUDIO, scope), LAPTOP.machine)
    for scope in (Scope("fleet"), scope_to(BUILD.machine), TEAM, JOURNAL):
        assert not world.roster.may_hold(stream(LAPTOP, scope), LAPTOP.machine)


@proves("fleet.groups")
def test_only_its_owner_puts_a_machine_into_a_group():
    world = small_fleet()
    world.write(STUDIO, kinds.GROUP_OPEN, kinds.GroupOpen(name="team"))
    # Somebody else's words about the group are about a group of their own.
    world.write(BUILD, kinds.GROUP_ADD, kinds.GroupAdd(machine=BUILD.machine, name="team"))
    assert not world.roster.may_hold(stream(STUDIO, TEAM), BUILD.machine)


@proves("fleet.groups")
def test_a_member_from_now_gets_each_stream_after_its_cut_and_one_from_start_everything():
    world = small_fleet()
    cuts = {str(stream(STUDIO, TEAM)): 5}
    body = kinds.GroupAdd(machine=BUILD.machine, name="team", since="now", cuts=cuts)
    world.write(STUDIO, kinds.GROUP_ADD, body)
    body = kinds.GroupAdd(machine=LAPTOP.machine, name="team", since="start", cuts=cuts)
    world.write(STUDIO, kinds.GROUP_ADD, body)
    roster = world.roster
    assert roster.held_from(stream(STUDIO, TEAM), BUILD.machine) == 5
    assert roster.held_from(stream(LAPTOP, TEAM), BUILD.machine) == 0
    assert roster.held_from(stream(STUDIO, TEAM), LAPTOP.machine) == 0


@proves("fleet.groups")
def test_a_removed_member_gets_nothing_more_also_after_the_owner_came_back_from_a_clone():
    world = small_fleet()
    world.write(STUDIO, kinds.GROUP_ADD, kinds.GroupAdd(machine=LAPTOP.machine, name="team"))
    later = stream(STUDIO, incarnation=1)
    remove = kinds.GroupRemove(machine=LAPTOP.machine, name="team")
    world.write(later, kinds.GROUP_REMOVE, remove, now_ms=NOW + 1)
    assert not world.roster.may_hold(stream(STUDIO, TEAM), LAPTOP.machine)
    again = kinds.GroupAdd(machine=LAPTOP.machine, name="team")
    world.write(later, kinds.GROUP_ADD, again, now_ms=NOW + 2)
    assert world.roster.may_hold(stream(STUDIO, TEAM), LAPTOP.machine)


@proves("fleet.groups")
def test_a_group_whose_owner_is_revoked_is_closed():
    world = small_fleet()
    team = scope_group(LAPTOP.machine, "team")
    world.write(LAPTOP, kinds.GROUP_ADD, kinds.GroupAdd(machine=BUILD.machine, name="team"))
    assert world.roster.may_hold(stream(LAPTOP, team), BUILD.machine)
    revoke(world)
    assert not world.roster.may_hold(stream(LAPTOP, team), BUILD.machine)


@proves("fleet.roster-order")
def test_rows_in_any_order_make_the_same_roster():
    world = small_fleet()
    grant = give(Grant(object="project", to=BUILD.machine, until_ms=NOW + 1, verb="run"))
    world.write(STUDIO, kinds.GRANT_GIVE, grant)
    world.write(BUILD, kinds.GRANT_TAKE, take(document_id(grant.statement.encode())))
    world.enrol(record(LAPTOP, "laptop", serial=2))
    world.write(
        BUILD, kinds.MACHINE_RECORD, kinds.MachineRecorded(record=LAPTOP_RECORD.raw.decode())
    )
    for incarnation in range(3):
        name = stream(STUDIO, incarnation=incarnation)
        world.write(name, kinds.GROUP_ADD, kinds.GroupAdd(machine=BUILD.machine, name="team"))
        world.write(name, kinds.GROUP_REMOVE, kinds.GroupRemove(machine=BUILD.machine, name="team"))
        world.write(name, kinds.MACHINE_FACTS, Facts(os="linux", arch=f"x{incarnation}"))
    wanted = world.roster
    for seed in range(20):
        shuffled = list(world.rows.items())
        random.Random(seed).shuffle(shuffled)
        world.rows = dict(shuffled)
        assert assemble(FLEET_ID, world.select, world.distinct) == wanted


@proves("fleet.roster-order")
def test_streams_folded_in_another_order_make_the_same_rows():
    world = World()
    entries = [
        world.write(
            STUDIO, kinds.MACHINE_OPEN, kinds.MachineOpen(record=STUDIO_RECORD.raw.decode())
        ),
        world.write(
            STUDIO, kinds.MACHINE_RECORD, kinds.MachineRecorded(record=BUILD_RECORD.raw.decode())
        ),
        world.write(
            BUILD, kinds.MACHINE_REVOKE, kinds.MachineRevoke(revocation=revocation(LAPTOP))
        ),
        world.write(
            BUILD, kinds.MACHINE_RECORD, kinds.MachineRecorded(record=LAPTOP_RECORD.raw.decode())
        ),
    ]
    other = World()
    for entry in (*entries[2:], *entries[:2]):
        other.fold(entry)
    assert other.rows == world.rows
    assert other.roster == world.roster


@proves("fleet.roster-order")
def test_the_newest_facts_of_a_machine_count():
    world = small_fleet()
    world.write(BUILD, kinds.MACHINE_FACTS, Facts(os="linux", arch="x86_64", gpus=("rtx",)))
    later = Facts(os="linux", arch="x86_64", tools={"python": "3.11.7"}, power="battery")
    world.write(BUILD, kinds.MACHINE_FACTS, later, now_ms=NOW + 1)
    assert world.roster.facts == {BUILD.machine: later}


@proves("fleet.incidents")
def test_the_same_incident_while_open_is_counted_and_not_repeated():
    world = small_fleet()
    disk = kinds.IncidentOpen(key="disk-full", severity="critical", title="build has no space")
    for at in range(3):
        world.write(BUILD, kinds.INCIDENT_OPEN, disk, now_ms=NOW + at)
    (row,) = world.select(INCIDENT)
    assert (row.open, row.times, row.opened_ms, row.t_ms) == (1, 3, NOW, NOW + 2)
    world.write(BUILD, kinds.INCIDENT_CLOSE, kinds.IncidentClose(key="disk-full", reason="cleaned"))
    world.write(BUILD, kinds.INCIDENT_CLOSE, kinds.IncidentClose(key="disk-full", reason="again"))
    (row,) = world.select(INCIDENT)
    assert (row.open, row.detail) == (0, "cleaned")
    assert world.skipped == ["incident-not-open"]
    world.write(BUILD, kinds.INCIDENT_OPEN, disk, now_ms=NOW + 9)
    (row,) = world.select(INCIDENT)
    assert (row.open, row.times, row.opened_ms) == (1, 1, NOW + 9)
