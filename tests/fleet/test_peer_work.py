"""A task, its cancelling and a report between two fleets: whose word each is, and in which bounds."""

from typing import Any

import pytest
from msgspec.structs import replace
from tests.fleet.test_letter import ACME, GOOD, SHED, SHED_RECORD, YARD, YARD_RECORD, bent
from tests.fleet.world import BUILD, BUILD_RECORD, FLEET_ID, NOW
from tests.promise import proves

from muster import limits
from muster.errors import Forged, Malformed
from muster.fleet.peer_work import (
    OVER,
    Came,
    Cancel,
    Report,
    Task,
    open_work,
    sign_work,
    sort_of,
    work_of,
)
from muster.log import canon

SAID = {"fleet": FLEET_ID, "by": YARD.machine, "door": BUILD.machine, "issued_ms": NOW}
SAID |= {"nonce": "0" * 32, "of": ACME}
CAME = Came("work", "done", said="it is done")
WORKS: dict[str, Any] = {
    "task": Task(**SAID, to="build", spec="a spec"),
    "cancel": Cancel(**SAID, task="5" * 64, reason="no more"),
    "report": Report(**SAID, task="5" * 64, number=1, state="done", came=(CAME,)),
}
RAW = {name: sign_work(YARD.signer("statement"), work) for name, work in WORKS.items()}


def written(name: str, work: Any, signer: Any = YARD, purpose: str = "statement") -> bytes:
    """The document without a look at what it says."""
    message = f"muster/peer-{name}/v1\n".encode() + canon.encode(work)
    return message + b"\n" + signer.signer(purpose).sign(message).hex().encode() + b"\n"


@proves("peer.work-forged")
def test_each_document_is_read_with_the_machine_that_signed_it_and_as_what_it_is():
    for name, work in WORKS.items():
        assert open_work(RAW[name], YARD_RECORD.raw, FLEET_ID) == (work, YARD_RECORD)
        assert (work_of(RAW[name], FLEET_ID), sort_of(work)) == (work, name)
        assert written(name, work) == RAW[name]
    assert {"done", "failed", "cancelled", "refused", "late"} == OVER


@proves("peer.work-forged")
def test_what_its_sender_did_not_say_so_is_forged():
    for name, work in WORKS.items():
        raw, other = RAW[name], replace(work, nonce="1" * 32)
        # Another word under the signature of the first.
        moved = written(name, other).split(b"\n")[:2] + raw.split(b"\n")[2:]
        for made, beside in (
            (written(name, work, SHED), YARD_RECORD),
            (written(name, work, purpose="held"), YARD_RECORD),
            (b"\n".join(moved), YARD_RECORD),
            (bent(raw), YARD_RECORD),
            (raw, SHED_RECORD),
            (written(name, replace(work, by=SHED.machine)), YARD_RECORD),
            (written(name, replace(work, of=FLEET_ID)), YARD_RECORD),
            (written(name, replace(work, fleet=ACME)), YARD_RECORD),
            (written(name, replace(work, by=BUILD.machine, of=FLEET_ID), BUILD), BUILD_RECORD),
        ):
            with pytest.raises(Forged):
                open_work(made, beside.raw, FLEET_ID)


# What is changed of a document; no reader takes it, and nobody signs it.
ODD: list[tuple[str, dict[str, Any]]] = [
    ("task", {"spec": ""}),
    ("task", {"spec": "x" * (limits.PEER_SPEC_BYTES_MAX + 1)}),
    ("task", {"to": "Build"}),
    ("task", {"to": "../x"}),
    ("task", {"repo": "x" * 201}),
    ("task", {"door": "build"}),
    ("task", {"issued_ms": -1}),
    ("task", {"v": 2}),
    ("cancel", {"task": "5"}),
    ("cancel", {"reason": "x" * (limits.REASON_CHARS_MAX + 1)}),
    ("report", {"number": 0}),
    ("report", {"number": limits.PEER_REPORTS_MAX + 1}),
    ("report", {"state": "well"}),
    ("report", {"came": (CAME,) * (limits.DELEGATED_TASKS_MAX + 1)}),
    ("report", {"summary": "x" * (limits.PEER_SAID_CHARS_MAX + 1)}),
    ("report", {"came": (replace(CAME, said="x" * (limits.PEER_SAID_CHARS_MAX + 1)),)}),
]


@proves("peer.work-forged", "peer.work-bounded")
def test_a_document_of_other_fields_is_neither_read_nor_signed():
    for name, changes in ODD:
        work = replace(WORKS[name], **changes)
        with pytest.raises(Malformed):
            open_work(written(name, work), YARD_RECORD.raw, FLEET_ID)
        with pytest.raises(Malformed):
            sign_work(YARD.signer("statement"), work)
    # Each is what its first line says, and a letter is none of them.
    for name, other in (("task", "cancel"), ("cancel", "report"), ("report", "task")):
        with pytest.raises(Malformed):
            open_work(written(name, WORKS[other]), YARD_RECORD.raw, FLEET_ID)
    for raw in (GOOD, b"", b"\n", b"\xff" * 60, b"muster/peer-task/v2\n{}\n", RAW["task"][:-1]):
        with pytest.raises(Malformed):
            open_work(raw, YARD_RECORD.raw, FLEET_ID)


@proves("peer.work-bounded")
def test_what_fits_into_no_entry_is_never_signed():
    task = WORKS["task"]
    most = replace(task, spec="x" * limits.PEER_SPEC_BYTES_MAX)
    assert work_of(sign_work(YARD.signer("statement"), most), FLEET_ID) == most
    # Every quote is two signs in the document, and four in the entry that keeps it.
    with pytest.raises(Malformed, match="longer than any that fits into an entry"):
        sign_work(YARD.signer("statement"), replace(task, spec='"' * limits.PEER_SPEC_BYTES_MAX))
    over = RAW["task"] + b" " * limits.PEER_LETTER_BYTES_MAX
    with pytest.raises(Malformed, match="longer than any that fits into an entry"):
        open_work(over, YARD_RECORD.raw, FLEET_ID)
