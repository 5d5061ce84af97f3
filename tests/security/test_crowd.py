"""A member that writes a great many rows: none of those that others wrote is lost behind them."""

from typing import Any

import msgspec
import pytest

from muster import limits
from muster.channel.frame import Type
from muster.fleet import folds, kinds
from muster.fleet.document import document_id
from muster.fleet.facts import Facts
from muster.fleet.folds import GRANT, TAKEN
from muster.fleet.grant import Grant, sign_give, sign_take
from muster.fleet.record import sign_binding, sign_record
from muster.log import canon
from muster.log.stream import FLEET, Incarnation, StreamName, group_owner, scope_group
from muster.node import event as ev
from muster.node.replica import membership
from muster.node.tasks import worker
from muster.node.tasks.worker import WorkerService
from muster.store.table_reader import TableReader
from muster.task.fold import ATTEMPT, TASK
from tests.fleet.world import (
    ALICE,
    AUTHORITY,
    BUILD,
    BUILD_RECORD,
    FLEET_ID,
    LAPTOP,
    LAPTOP_RECORD,
    NOW,
    STUDIO,
    operator,
    revocation,
)
from tests.promise import proves
from tests.security.peer import Peer
from tests.security.target import MEMBER, Target

OTHER = 9
DAY_MS = 86_400_000


@pytest.fixture
def target(monkeypatch: pytest.MonkeyPatch) -> Target:
    """A machine that answers three rows to who does not ask for more; in life it is 100,000."""
    kwdefaults: Any = TableReader.rows.__kwdefaults__
    monkeypatch.setitem(kwdefaults, "limit", 3)
    target = Target()
    target.step(ev.LinkUp(OTHER, LAPTOP.machine, False, "http"))
    return target


def send(target: Target, link: int, peer: Peer, start: int = 0) -> None:
    target.frame(link, Type.SEGMENT, peer.segment(start))


def body(value: Any) -> bytes:
    return canon.encode(msgspec.to_builtins(value))


def taking(signer: Any, grant: str, number: int) -> bytes:
    nonce = number.to_bytes(16, "big")
    raw = sign_take(signer, FLEET_ID, grant, nonce=nonce, issued_ms=NOW)
    return body(kinds.GrantTake(grant, raw.decode()))


@proves("fleet.roster-is-whole")
def test_what_an_operator_took_stays_taken_behind_any_number_of_a_members_takings(target):
    member, other = Peer(), Peer(LAPTOP, LAPTOP_RECORD)
    own = member.identity.signer("statement")
    key = own.public.hex()
    grant = Grant("*", key, NOW + DAY_MS, "run")
    raw = sign_give(ALICE.statement, FLEET_ID, grant, nonce=bytes(16), issued_ms=NOW).decode()
    member.write(kinds.GRANT_GIVE, body(kinds.GrantGive(grant, raw)))
    for number in range(5):
        member.write(kinds.GRANT_TAKE, taking(own, f"{number:064x}", number))
    send(target, MEMBER, member)
    assert [g.grant for g in target.core.roster.grants if g.grant.to == key] == [grant]
    other.write(kinds.GRANT_TAKE, taking(ALICE.statement, document_id(raw.encode()), 9))
    send(target, OTHER, other)
    assert [g.grant for g in target.core.roster.grants if g.grant.to == key] == []


@proves("fleet.roster-is-whole")
def test_who_was_put_out_of_a_thread_stays_out_behind_any_number_of_a_members_threads(target):
    member, keeper = Peer(), Peer(LAPTOP, LAPTOP_RECORD)
    out = member.identity.machine
    for number in range(5):
        body_ = body(kinds.GroupAdd(machine=out, name=f"t{number}"))
        member.write(kinds.GROUP_ADD, body_)
    send(target, MEMBER, member)
    keeper.write(kinds.GROUP_OPEN, body(kinds.GroupOpen("plans")))
    keeper.write(kinds.GROUP_ADD, body(kinds.GroupAdd(machine=out, name="plans")))
    send(target, OTHER, keeper)
    members = target.core.roster.groups[scope_group(LAPTOP.machine, "plans")]
    assert out in members
    keeper.write(kinds.GROUP_REMOVE, body(kinds.GroupRemove(machine=out, name="plans")))
    send(target, OTHER, keeper, 3)
    members = target.core.roster.groups[scope_group(LAPTOP.machine, "plans")]
    assert out not in members


@proves("fleet.roster-is-whole")
def test_of_a_member_that_keeps_threads_without_end_the_newest_count_and_none_come_back(
    target, monkeypatch
):
    monkeypatch.setattr(membership, "GROUP_ROWS_OF_KEEPER_MAX", 4)
    member, keeper = Peer(), Peer(LAPTOP, LAPTOP_RECORD)
    out, in_ = member.identity.machine, STUDIO.machine
    keeper.write(kinds.GROUP_OPEN, body(kinds.GroupOpen("plans")))
    for machine in (out, in_):
        keeper.write(kinds.GROUP_ADD, body(kinds.GroupAdd(machine=machine, name="plans")))
    keeper.write(kinds.GROUP_REMOVE, body(kinds.GroupRemove(machine=out, name="plans")))
    for number in range(9):
        add = kinds.GroupAdd(machine=in_, name=f"t{number}")
        member.write(kinds.GROUP_ADD, body(add))
    send(target, MEMBER, member)
    send(target, OTHER, keeper)
    groups = target.core.roster.groups
    assert set(groups[scope_group(LAPTOP.machine, "plans")]) == {LAPTOP.machine, in_}
    kept = [scope for scope in groups if group_owner(scope) == member.identity.machine]
    assert kept == [scope_group(member.identity.machine, f"t{n}") for n in (8, 7, 6, 5)]


@proves("store.no-crowding-out")
def test_of_each_machine_so_many_rows_are_read_in_one_order(target):
    """In life the bound is 256 or more; here a member writes six rows, somebody else one."""
    member, other = Peer(), Peer(LAPTOP, LAPTOP_RECORD)
    for number in range(6):
        body = {"task": "ab" * 16, "epoch": [1, number + 2]}
        member.write("attempt.start", canon.encode(body))
    other.write("attempt.start", canon.encode({"task": "ab" * 16, "epoch": [1, 1]}))
    send(target, MEMBER, member)
    send(target, OTHER, other)
    order = ("-epoch_count",)
    found = target.store.tables.rows_of_each(ATTEMPT, 2, order, task="ab" * 16)
    assert [row.epoch_count for row in found] == [7, 6, 1]
    assert len(target.store.tables.rows_of_each(ATTEMPT, 7, order, task="ab" * 16)) == 7


@proves("store.no-crowding-out")
def test_an_assignment_is_taken_up_after_a_start_behind_any_number_of_a_members_tasks(
    target, monkeypatch
):
    """What a member says that it gave us must not hide what we gave ourselves."""
    monkeypatch.setattr(limits, "ASSIGNMENTS_RECALLED_MAX", 2)
    member = Peer()
    for number in range(6):
        task = f"{number:032x}"
        template = {"agent": ["noop"], "do": "{}", "v": 1}
        opened = member.write("task.open", canon.encode({"task": task, "template": template}))
        assign = {
            "task": task,
            "epoch": [1, 1],
            "machine": STUDIO.machine,
            "agent": "noop",
            "lease_ms": 30_000,
        }
        member.write("task.assign", canon.encode(assign), cause=(opened.id,))
    send(target, MEMBER, member)
    assert len(target.store.tables.rows(TASK, state="leased", machine=STUDIO.machine, limit=9)) == 6
    taken = list[str]()
    working = target.core.part(WorkerService)
    monkeypatch.setattr(worker, "attempts_of", lambda *_attempt: [])
    monkeypatch.setattr(
        working, "_on_assign", lambda _stream, entry: taken.append(entry.header.author)
    )
    template = {"agent": ["shell"], "do": "sleep 60", "v": 1}
    with target.store.transaction():
        opened = target.core.append(
            "task.open", canon.encode({"task": "f" * 32, "template": template})
        )
        assign = {
            "task": "f" * 32,
            "epoch": [1, 1],
            "machine": STUDIO.machine,
            "agent": "shell",
            "lease_ms": 30_000,
        }
        target.core.append("task.assign", canon.encode(assign), cause=(opened.id,))
    taken.clear()
    working._recall_assignments()
    assert sorted(taken) == sorted([STUDIO.machine, *[member.identity.machine] * 2])


@proves("fleet.roster-is-whole")
def test_of_a_keepers_memberships_so_many_bytes_make_the_roster_and_the_newest_count(
    target, monkeypatch
):
    """Each may say of 256 streams where it begins; thousands of them held a step for seconds."""
    monkeypatch.setattr(membership, "GROUP_BYTES_OF_KEEPER_MAX", 700)
    member, keeper = Peer(), Peer(LAPTOP, LAPTOP_RECORD)
    cuts = {f"{BUILD.machine}/{1:032x}/fleet": 3, f"{LAPTOP.machine}/{1:032x}/fleet": 4}
    for number in range(9):
        add = kinds.GroupAdd(machine=STUDIO.machine, name=f"t{number}", since="now", cuts=cuts)
        member.write(kinds.GROUP_ADD, body(add))
    add = kinds.GroupAdd(machine=STUDIO.machine, name="plans", since="now", cuts=cuts)
    keeper.write(kinds.GROUP_ADD, body(add))
    send(target, MEMBER, member)
    send(target, OTHER, keeper)
    groups = target.core.roster.groups
    assert groups[scope_group(LAPTOP.machine, "plans")][STUDIO.machine] == cuts
    kept = {scope for scope in groups if group_owner(scope) == member.identity.machine}
    assert kept == {scope_group(member.identity.machine, f"t{n}") for n in (8, 7, 6)}


@proves("fleet.roster-is-whole")
def test_a_document_that_is_said_again_in_every_stream_is_read_once_and_the_newest_counts(
    target, monkeypatch
):
    """A member has thousands of streams; every entry about the fleet asks for the roster."""
    monkeypatch.setattr(membership, "STREAMS_READ_WHOLE_MAX", 4)
    member, own = Peer(), BUILD
    shut = {"revocation": revocation(LAPTOP)}
    grant = Grant("*", own.signer("statement").public.hex(), NOW + DAY_MS, "run")
    given = sign_give(ALICE.statement, FLEET_ID, grant, nonce=bytes(16), issued_ms=NOW).decode()
    newer = sign_record(
        AUTHORITY, sign_binding(own, FLEET_ID, "build"), roles=["edge"], serial=9, issued_ms=NOW
    ).decode()
    for number in range(9):
        member.incarnation = Incarnation(f"{number + 1:032x}")
        opened = kinds.MachineOpen(record=BUILD_RECORD.raw.decode())
        member.write("machine.open", body(opened))
        member.write("machine.facts", body(Facts("linux", "x86_64", labels=(f"n{number}",))))
        member.write("machine.logins", canon.encode({"logins": {"shell": f"{number}"}}))
        way = {"address": f"h:{number + 1}", "channel": "http"}
        member.write("machine.reach", canon.encode({"reach": [way]}))
        member.write("operator.record", canon.encode({"record": operator(ALICE, "alice").decode()}))
        member.write("machine.revoke", canon.encode(shut))
        member.write(kinds.GRANT_GIVE, body(kinds.GrantGive(grant, given)))
        if number == 4:
            member.write("machine.record", canon.encode({"record": newer}))
        send(target, MEMBER, member)
    looked, store = list[Any](), target.store.tables
    asked = {name: getattr(store, name) for name in ("rows", "newest", "distinct")}

    def count(name: str) -> Any:
        def ask(*args: Any, **named: Any) -> Any:
            found = asked[name](*args, **named)
            looked.extend(found)
            return found

        return ask

    for name in asked:
        monkeypatch.setattr(store, name, count(name))
    target.core.membership.changed()
    roster = target.core.roster
    assert len(looked) < 20, "nine streams say seven things each"
    assert roster.machines[BUILD.machine].roles == ("edge",)
    assert roster.facts[BUILD.machine].labels == ("n8",)
    assert roster.facts[BUILD.machine].logins == {"shell": "8"}
    assert [way.address for way in roster.facts[BUILD.machine].reach] == ["h:9"]
    assert LAPTOP.machine in roster.revoked
    assert [each.grant for each in roster.grants if each.giver] == [grant]
    many, limit = roster, 10_000
    monkeypatch.setattr(membership, "STREAMS_READ_WHOLE_MAX", limit)
    target.core.membership.changed()
    assert target.core.roster == many, "read whole it is the same"


@proves("fleet.roster-is-whole")
def test_of_removals_beyond_forks_the_newest_of_each_keeper_are_kept(target, monkeypatch):
    monkeypatch.setattr(membership, "GROUP_ROWS_OF_KEEPER_MAX", 3)
    held = target.core.membership
    for keeper in (BUILD, LAPTOP):
        for number in range(6):
            stream = StreamName(keeper.machine, Incarnation(f"{number + 1:032x}"), FLEET)
            row = folds.MemberRow(stream, f"t{number}", STUDIO.machine, 0, "start", "{}", number, 0)
            held.left_out(stream, [row] * 2)
    found = [each for each in held._rows(folds.MEMBER) if not each.member]
    assert sorted((r.name, r.stream.machine) for r in found) == sorted(
        (f"t{n}", keeper.machine) for keeper in (BUILD, LAPTOP) for n in (3, 4, 5)
    )


@proves("fleet.roster-is-whole")
def test_what_a_member_signs_for_itself_is_not_even_looked_at(target):
    """Combining the roster is asked for by every entry about the fleet."""
    member = Peer()
    own = member.identity.signer("statement")
    for number in range(5):
        grant = Grant("*", f"{number:064x}", NOW + DAY_MS, "run")
        nonce = number.to_bytes(16, "big")
        raw = sign_give(own, FLEET_ID, grant, nonce=nonce, issued_ms=NOW).decode()
        member.write(kinds.GRANT_GIVE, body(kinds.GrantGive(grant, raw)))
        member.write(kinds.GRANT_TAKE, taking(own, f"{number:064x}", number))
    send(target, MEMBER, member)
    assert target.store.tables.rows(GRANT)
    assert target.store.tables.rows(TAKEN)
    looked, asked = list[tuple[Any, str]](), target.store.tables.distinct

    def distinct(table: Any, columns: tuple[str, ...], /, **named: Any) -> Any:
        looked.extend((table, by) for by in named.values())
        return asked(table, columns, **named)

    target.store.tables.distinct = distinct  # type: ignore[method-assign]
    target.core.membership.changed()
    for key in target.core.roster.operators:
        assert {(GRANT, key), (TAKEN, key)} <= {*looked}
    assert own.public.hex() not in {by for _, by in looked}
