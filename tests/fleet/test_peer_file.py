"""The document of a file between two fleets: which paths are plain, and whose word it is."""

from typing import Any

import pytest
from tests.fleet.test_letter import ACME, GOOD, SHED, SHED_RECORD, YARD, YARD_RECORD, bent
from tests.fleet.world import BUILD, BUILD_RECORD, FLEET_ID, NOW
from tests.promise import proves

from muster import limits
from muster.errors import Forged, Malformed
from muster.fleet.peer_file import PATH_CHARS_MAX, File, check_path, open_file, sign_file
from muster.log import canon

PLAIN = [
    "report.pdf", "a/b/c/d/e/f/g/h", "Grüße 世界.txt", "a b", "x" * 200, "a..b", "a.", "~", "C:",
    "-rf", "$(x)", "a/b.c/d", "ü" * 100, "CON", "a\u00a0b",
]  # fmt: skip
ODD = [
    "", ".", "..", "../x", "a/../b", "a/..", "/etc/passwd", "a//b", "a/", ".ssh/id", "a/.hidden",
    "a\\b", "..\\x", "a\x00b", "a\nb", "a\x1b[2J", "a\x7f", "a\x85", "a\u202eb", "a\u2028b",
    "a\u061cb", "a\ud800b", "\udcff", "x" * 201, "ü" * 101, "/".join("abcdefghi"), "a/./b",
]  # fmt: skip


@proves("peer.file-stays-below")
def test_a_path_is_plain_names_below_a_folder_and_leads_nowhere_else():
    for path in PLAIN:
        check_path(path)
    for path in ODD:
        with pytest.raises(Malformed, match="has a plain name"):
            check_path(path)


def said(**changes: Any) -> File:
    """A file that acme's yard leaves with the build machine."""
    known = {"fleet": FLEET_ID, "by": YARD.machine, "door": BUILD.machine, "issued_ms": NOW}
    known |= {"nonce": "0" * 32, "of": ACME, "path": "a/b", "sha256": "5" * 64, "size": 3}
    return File(**{**known, **changes})


def written(signer: Any = YARD, purpose: str = "statement", **changes: Any) -> bytes:
    """The same without a look at what it says."""
    message = b"muster/peer-file/v1\n" + canon.encode(said(**changes))
    return message + b"\n" + signer.signer(purpose).sign(message).hex().encode() + b"\n"


FILE = sign_file(YARD.signer("statement"), said())


@proves("peer.file-forged", "peer.file-stays-below")
def test_a_file_is_read_with_the_machine_that_sends_it_and_signed_only_as_it_is_read():
    assert open_file(FILE, YARD_RECORD.raw, FLEET_ID) == (said(), YARD_RECORD)
    assert written() == FILE
    for path in ODD:
        with pytest.raises(Malformed):
            sign_file(YARD.signer("statement"), said(path=path))
        if not any("\ud800" <= sign <= "\udfff" for sign in path):
            # Signed all the same, by a program that nobody here made.
            with pytest.raises(Malformed):
                open_file(written(path=path), YARD_RECORD.raw, FLEET_ID)
    for changes in (
        {"size": -1}, {"size": limits.INT_ABS_MAX + 1}, {"sha256": "5" * 63}, {"sha256": "X" * 64},
        {"path": "a/" * 3 + "x" * PATH_CHARS_MAX}, {"door": "build"}, {"v": 2}, {"nonce": ""},
    ):  # fmt: skip
        with pytest.raises(Malformed):
            sign_file(YARD.signer("statement"), said(**changes))
        with pytest.raises(Malformed):
            open_file(written(**changes), YARD_RECORD.raw, FLEET_ID)


@proves("peer.file-forged")
def test_a_file_that_its_sender_did_not_announce_so_is_forged():
    forged = [
        (written(SHED), YARD_RECORD), (written(purpose="held"), YARD_RECORD),
        (FILE.replace(b"a/b", b"a/c"), YARD_RECORD), (FILE.replace(b'"size":3', b'"size":4'), YARD_RECORD),
        (bent(FILE), YARD_RECORD), (FILE, SHED_RECORD), (written(by=SHED.machine), YARD_RECORD),
        (written(of=FLEET_ID), YARD_RECORD), (written(fleet=ACME), YARD_RECORD),
        (written(BUILD, by=BUILD.machine, of=FLEET_ID), BUILD_RECORD),
    ]  # fmt: skip
    for raw, beside in forged:
        with pytest.raises(Forged):
            open_file(raw, beside.raw, FLEET_ID)
    # A letter is no file.
    with pytest.raises(Malformed, match="should begin with 'muster/peer-file/v1'"):
        open_file(GOOD, YARD_RECORD.raw, FLEET_ID)
