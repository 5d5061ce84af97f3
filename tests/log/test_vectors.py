"""The frozen bytes of tests/vectors: read, checked against the code, never written."""

import hashlib
import json
from base64 import b64encode
from pathlib import Path
from typing import Any

import pytest
from tests.log.material import Nodes
from tests.log.test_verifier import check, verifier
from tests.promise import proves

from muster.errors import Refused
from muster.log import canon, entry, note, seal, segment, tree
from muster.log.clock import Stamp
from muster.log.entry import EntryId
from muster.log.keys import Signer
from muster.log.stream import StreamName

FOLDER = Path(__file__).parents[1] / "vectors"


def load(name: str) -> Any:
    return json.loads((FOLDER / f"{name}.json").read_text(encoding="utf-8"))


CANON, STREAM, ENTRY, TREE = load("canon"), load("stream"), load("entry"), load("tree")
SEAL, SEGMENT, EXPORT = load("seal"), load("segment"), load("export")


@proves("log.vectors-frozen")
def test_the_vector_files_are_the_ones_that_were_frozen():
    sums = dict(
        reversed(line.split("  ")) for line in (FOLDER / "SHA256SUMS").read_text().splitlines()
    )
    found = {
        path.name: hashlib.sha256(path.read_bytes()).hexdigest() for path in FOLDER.glob("*.json")
    }
    assert {name: found.get(name) for name in sums} == sums


@proves("log.vectors-accepted")
@pytest.mark.parametrize("case", CANON["accept"], ids=lambda case: case["text"][:20])
def test_frozen_canonical_json_is_read_and_written_alike(case):
    raw = bytes.fromhex(case["hex"])
    assert raw == case["text"].encode()
    assert canon.encode(canon.decode(raw, "A vector", size_max=1000)) == raw


@proves("log.vectors-refused")
@pytest.mark.parametrize("case", CANON["refuse"], ids=lambda case: case["why"])
def test_frozen_other_json_is_refused(case):
    with pytest.raises(Refused):
        canon.decode(bytes.fromhex(case["hex"]), "A vector", size_max=1000)


@proves("log.vectors-accepted", "log.vectors-refused")
def test_frozen_stream_names_are_told_apart():
    for text in STREAM["accept"]:
        assert str(StreamName.parse(text)) == text
    for text in STREAM["refuse"]:
        with pytest.raises(Refused):
            StreamName.parse(text)


@proves("log.vectors-accepted")
@pytest.mark.parametrize("case", ENTRY["accept"], ids=lambda case: case["what"])
def test_frozen_entries_are_composed_and_parsed_alike(case):
    body, salt = bytes.fromhex(case["body_hex"]), bytes.fromhex(case["salt"])
    cause = [EntryId(bytes.fromhex(each)) for each in case["cause"]]
    made = entry.compose(
        StreamName.parse(case["stream"]),
        case["seq"],
        Stamp(*case["t"]),
        case["kind"],
        case["actor"],
        cause,
        body,
        salt,
    )
    assert made.raw.decode() == case["header"]
    assert made.id.hex() == case["id"]
    assert entry.parse(case["header"].encode(), salt, body) == made
    assert hashlib.sha256(b"\x00" + case["header"].encode()).hexdigest() == case["id"]


@proves("log.vectors-refused")
@pytest.mark.parametrize("case", ENTRY["refuse"], ids=lambda case: case["why"])
def test_frozen_wrong_entries_are_refused(case):
    body = None if case["body_hex"] is None else bytes.fromhex(case["body_hex"])
    with pytest.raises(Refused):
        entry.parse(case["header"].encode(), bytes.fromhex(case["salt"]), body)


@proves("log.vectors-accepted")
def test_frozen_roots_and_proofs_are_generated_and_hold():
    roots = [bytes.fromhex(each) for each in TREE["roots"]]
    leaves = [tree.leaf_hash(b"muster leaf %d" % n) for n in range(13)]
    nodes, compact = Nodes(), tree.Range()
    for leaf in leaves:
        nodes.append(leaf)
        compact.append(leaf)
    assert compact.encode().hex() == TREE["range_13"]
    assert [tree.root_at(nodes, size) for size in range(14)] == roots
    for case in TREE["inclusion"]:
        index, size, proof = case["index"], case["size"], [*map(bytes.fromhex, case["proof"])]
        assert tree.inclusion_proof(nodes, index, size) == proof
        assert tree.verify_inclusion(leaves[index], index, size, proof, roots[size])
    for case in TREE["consistency"]:
        old, new, proof = case["old"], case["new"], [*map(bytes.fromhex, case["proof"])]
        assert tree.consistency_proof(nodes, old, new) == proof
        assert tree.verify_consistency(old, new, roots[old], roots[new], proof)


def vkey(name: str, type_: bytes, public: bytes) -> str:
    """The verifier key text that other signed-note tools take."""
    return f"{name}+{note.key_id(name, type_, public).hex()}+{b64encode(type_ + public).decode()}"


def open_note(kind: str, text: str) -> seal.Seal | seal.Cosign:
    raw, public = text.encode(), bytes.fromhex(SEAL["keys"][kind])
    if kind == "seal":
        return seal.open_seal(raw, SEAL["fleet"], public)
    keys = {"seen": bytes(32), "held": bytes(32), kind: public}
    return seal.open_cosign(raw, SEAL["fleet"], **keys)


@proves("log.vectors-accepted")
@pytest.mark.parametrize("case", SEAL["accept"], ids=lambda case: f"{case['kind']}-{case['size']}")
def test_frozen_seals_and_cosigns_open_and_are_made_alike(case):
    opened, root = open_note(case["kind"], case["note"]), bytes.fromhex(case["root"])
    assert (opened.size, opened.root) == (case["size"], root)
    signer = Signer(bytes.fromhex(SEAL["seeds"][case["kind"]]))
    stream = StreamName.parse(SEAL["stream"])
    if case["kind"] == "seal":
        made = seal.make_seal(SEAL["fleet"], stream, case["size"], root, signer)
    else:
        made = seal.make_cosign(
            SEAL["fleet"],
            stream,
            case["size"],
            root,
            case["machine"],
            case["kind"],
            signer,
            case["time_s"],
        )
    assert made == opened


@proves("log.vectors-accepted")
def test_frozen_verifier_keys_are_what_note_tools_take():
    stream, machine = SEAL["stream"], SEAL["accept"][2]["machine"]
    keys = {kind: bytes.fromhex(each) for kind, each in SEAL["keys"].items()}
    origin = f"muster/{SEAL['fleet']}/{stream}"
    assert vkey(origin, note.TYPE_ED25519, keys["seal"]) == SEAL["vkeys"]["seal"]
    seen = vkey(f"muster/{machine}", note.TYPE_COSIGNATURE, keys["seen"])
    assert seen == SEAL["vkeys"]["seen"]


@proves("log.vectors-refused")
@pytest.mark.parametrize("case", SEAL["refuse"], ids=lambda case: f"{case['kind']}: {case['why']}")
def test_frozen_wrong_notes_are_refused(case):
    with pytest.raises(Refused):
        open_note(case["kind"], case["note"])


@proves("log.vectors-accepted")
@pytest.mark.parametrize("case", SEGMENT["accept"], ids=lambda case: case["what"])
def test_frozen_segments_are_read_and_written_alike(case):
    raw = bytes.fromhex(case["hex"])
    it = segment.decode(raw)
    assert (it.start, len(it.entries), len(it.proof)) == (
        case["start"],
        case["entries"],
        case["proof"],
    )
    assert segment.encode(it) == raw


@proves("log.vectors-refused")
@pytest.mark.parametrize("case", SEGMENT["refuse"], ids=lambda case: case["why"])
def test_frozen_wrong_segments_are_refused(case):
    with pytest.raises(Refused):
        segment.decode(bytes.fromhex(case["hex"]))


@proves("log.vectors-accepted", "log.verifier-accepts")
def test_the_frozen_export_holds():
    files = {name: text.encode() for name, text in EXPORT["files"].items()}
    wrong, lines = verifier.verify_export(files, EXPORT["fleet"], EXPORT["now_s"])
    assert wrong == []
    assert f"exposure window: {EXPORT['exposed']} entries" in "\n".join(lines)
    assert check(files | {"0.seals": b""}, EXPORT["fleet"])
