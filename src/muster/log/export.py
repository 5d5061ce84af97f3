"""The text of an export: a directory that anyone can check without Muster.

Rule 1: every byte of an export is bound by a hash or a signature, or has only one spelling;
so a single changed byte anywhere is found by verify/muster_verify.py.
Rule 2: this file writes texts; who reads the store and writes the files is elsewhere.

    manifest.json    the streams, the fleet's documents, and whether all causes are inside
    <n>.jsonl        one line per entry of stream <n>, from 0 on
    <n>.seals        the writer's seals, one after the other
    <n>.cosigns      the other machines' cosigns, one after the other

docs/spec/log.md, section "Export", is the normative description.
"""

from collections.abc import Sequence
from typing import NamedTuple

from muster.log import canon
from muster.log.entry import Entry
from muster.log.stream import FleetId, StreamName

VERSION = 1
MANIFEST = "manifest.json"


class Listed(NamedTuple):
    """A stream of the export: its files are named `<file>.jsonl`, `.seals` and `.cosigns`."""

    file: str
    stream: StreamName
    size: int
    root: bytes


def line(entry: Entry) -> bytes:
    """Return the line of one entry, newline included."""
    body: str | dict[str, str] | None = None
    if entry.body is not None:
        try:
            body = entry.body.decode()
        except UnicodeDecodeError:
            # Nothing of ours writes such a body, but it was accepted and must be shown.
            body = {"hex": entry.body.hex()}
    salt = None if entry.body is None else entry.salt.hex()
    # A body is text of up to 64 KiB in a string: far from the limits of canonical JSON.
    return canon.encode({"body": body, "header": entry.raw.decode(), "salt": salt}) + b"\n"


def manifest(
    fleet: FleetId,
    streams: Sequence[Listed],
    records: Sequence[bytes],
    revocations: Sequence[bytes],
    *,
    closed: bool,
) -> bytes:
    """Return manifest.json. `closed` claims that every cause of an entry is in the export."""
    listed = [
        {"file": each.file, "root": each.root.hex(), "size": each.size, "stream": str(each.stream)}
        for each in streams
    ]
    said = {
        "closed": closed,
        "fleet": fleet,
        "records": [each.decode() for each in records],
        "revocations": [each.decode() for each in revocations],
        "streams": listed,
        "v": VERSION,
    }
    return canon.encode(said) + b"\n"
