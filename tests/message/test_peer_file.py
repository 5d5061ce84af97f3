"""Files of another fleet as entries: a row for each document that is for its own writer."""

from typing import Any

from tests.fleet.test_letter import ACME, SHED_RECORD, YARD_RECORD
from tests.fleet.test_peer_file import FILE, said, written
from tests.fleet.world import BUILD, FLEET_ID, NOW, STUDIO
from tests.promise import proves
from tests.task.world import Stream

from muster.fleet.document import document_id
from muster.message.peer_file import FILE as FILES
from muster.message.peer_file import PeerFile, PeerFileFold

GRANT = "9" * 64


def _stream(machine: str = BUILD.machine) -> Stream:
    return Stream(machine, folds=(PeerFileFold(FLEET_ID),))


def _left(raw: bytes = FILE, beside: Any = YARD_RECORD) -> PeerFile:
    return PeerFile(GRANT, raw.decode(), beside.raw.decode())


@proves("peer.file-by-grant")
def test_a_file_that_another_fleet_begins_to_leave_is_a_row_however_often_it_begins():
    stream = _stream()
    stream.append(_left(), at_ms=NOW + 1)
    stream.append(_left(), at_ms=NOW + 2)
    # Told apart by what was signed: the same name and digest once more is another document.
    other = written(nonce="1" * 32)
    stream.append(_left(other), at_ms=NOW + 3)
    rows = {row.letter: row for row in stream.rows.every(FILES)}
    assert rows.keys() == {document_id(FILE), document_id(other)}
    first = rows[document_id(FILE)]
    assert first[2:] == (ACME, "a/b", "5" * 64, NOW + 2)
    assert (first.path, first.sha256) == (said().path, said().sha256)
    assert stream.skipped == []


@proves("peer.file-forged")
def test_what_is_forged_or_for_another_machine_is_no_row():
    stream = _stream()
    for body in (
        _left(beside=SHED_RECORD), _left(FILE.replace(b"a/b", b"a/c")), _left(written(path="../x")),
        PeerFile(GRANT, "", ""), PeerFile(GRANT, "ä", YARD_RECORD.raw.decode()),
    ):  # fmt: skip
        stream.append(body)
    assert stream.skipped == ["peer-file-forged"] * 5
    stream.append_raw("peer.file", b"{}")
    stream.append(_left(written(door=STUDIO.machine)))
    assert stream.skipped[5:] == ["bad-body", "peer-file-of-another"]
    assert stream.rows.held == {}
    # Whoever has it may write down that it has.
    theirs = _stream(STUDIO.machine)
    theirs.append(_left(written(door=STUDIO.machine)))
    assert len(theirs.rows.every(FILES)) == 1
