"""What was said to another fleet, and heard of one, as rows: whose it is, and about which task."""

from typing import Any

from msgspec.structs import replace
from tests.fleet.test_letter import ACME, SHED_RECORD, YARD, YARD_RECORD
from tests.fleet.test_peer_work import RAW, WORKS, written
from tests.fleet.world import BUILD, FLEET_ID, NOW, STUDIO
from tests.promise import proves
from tests.task.world import Stream

from muster.fleet.document import document_id
from muster.fleet.peer_work import sign_work
from muster.task.peer_work import HEARD, SAID, PeerHear, PeerSay, PeerWorkFold

TASK = document_id(RAW["task"])
NAMES = ("task", "cancel", "report")


def _stream(machine: str = BUILD.machine) -> Stream:
    return Stream(machine, folds=(PeerWorkFold(FLEET_ID),))


def _heard(raw: bytes, beside: Any = YARD_RECORD) -> PeerHear:
    return PeerHear(raw.decode(), beside.raw.decode())


@proves("peer.task-once", "peer.work-forged")
def test_what_another_fleet_said_is_a_row_once_with_the_task_that_it_is_about():
    stream = _stream()
    for name in NAMES:
        stream.append(_heard(RAW[name]), at_ms=NOW + 1)
    rows = {row.what: row for row in stream.rows.every(HEARD)}
    assert [(rows[n].about, rows[n].number, rows[n].state) for n in NAMES] == [
        (TASK, 0, ""), ("5" * 64, 0, ""), ("5" * 64, 1, "done"),
    ]  # fmt: skip
    assert {row[3:6] for row in rows.values()} == {(ACME, YARD.machine, "yard")}
    assert [rows[name].letter for name in NAMES] == [document_id(RAW[name]) for name in NAMES]
    for name in NAMES:
        stream.append(_heard(RAW[name]), at_ms=NOW + 2)
    assert stream.skipped == ["peer-work-known"] * 3
    assert {row.t_ms for row in stream.rows.every(HEARD)} == {NOW + 1}


@proves("peer.work-forged")
def test_what_was_not_said_so_or_at_another_door_is_no_row():
    stream = _stream()
    for name in NAMES:
        stream.append(_heard(RAW[name], SHED_RECORD))
        stream.append(_heard(RAW[name].replace(b'"nonce":"0', b'"nonce":"1')))
        stream.append(PeerHear("ä", ""))
        stream.append(_heard(written(name, replace(WORKS[name], door=STUDIO.machine))))
    assert stream.skipped == [*["peer-work-forged"] * 3, "peer-work-of-another-door"] * 3
    stream.append_raw("peer.hear", b"[]")
    stream.append_raw("peer.say", b"[]")
    assert stream.skipped[12:] == ["bad-body"] * 2
    assert stream.rows.held == {}


@proves("peer.task-once", "peer.work-forged")
def test_what_this_machine_said_to_another_fleet_is_its_own_word_under_its_key():
    ours = {"fleet": ACME, "by": BUILD.machine, "door": YARD.machine, "of": FLEET_ID}
    works = {name: replace(work, **ours) for name, work in WORKS.items()}
    made = {n: sign_work(BUILD.signer("statement"), work).decode() for n, work in works.items()}
    stream = _stream()
    for name in NAMES:
        stream.append(PeerSay(ACME, made[name], "k" if name == "task" else ""), at_ms=NOW)
    rows = {row.what: row for row in stream.rows.every(SAID)}
    assert [(rows[n].about, rows[n].number, rows[n].state, rows[n].dedupe) for n in NAMES] == [
        (document_id(made["task"].encode()), 0, "", "k"), ("5" * 64, 0, "", ""),
        ("5" * 64, 1, "done", ""),
    ]  # fmt: skip
    assert {(row.fleet, row.door, row.t_ms) for row in rows.values()} == {(ACME, YARD.machine, NOW)}
    # Another machine's word, and what is said to another fleet than it is for.
    theirs = _stream(STUDIO.machine)
    theirs.append(PeerSay(ACME, made["task"]))
    theirs.append(PeerSay("e" * 64, made["task"]))
    theirs.append(PeerSay(FLEET_ID, RAW["task"].decode()))
    assert theirs.skipped == ["peer-work-of-another", "peer-work-forged", "peer-work-of-another"]
    assert theirs.rows.held == {}
