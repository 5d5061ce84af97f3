"""The stand-alone verifier against an honest export and against every way to tamper with one."""

import importlib.util
import json
import subprocess
import sys
from collections.abc import Iterable
from pathlib import Path
from types import ModuleType

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tests.promise import proves

from muster.fleet.machine import Authority, Identity
from muster.fleet.record import sign_binding, sign_record, sign_revocation
from muster.log import export, seal
from muster.log.clock import Stamp
from muster.log.entry import Entry, EntryId, compose
from muster.log.stream import Incarnation, Scope, StreamName, scope_to
from muster.log.tree import Range

SCRIPT = Path(__file__).parents[2] / "verify" / "muster_verify.py"
NOW_S = 1_790_010_000
T_MS = 1_790_000_000_000
CA, STRANGER_CA = Authority(b"c" * 32), Authority(b"x" * 32)
STUDIO, BUILD, STRANGER = Identity(b"s" * 32), Identity(b"b" * 32), Identity(b"x" * 32)
INCARNATION = Incarnation("ab" * 16)

Files = dict[str, bytes]


def load() -> ModuleType:
    spec = importlib.util.spec_from_file_location("muster_verify", SCRIPT)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


verifier = load()


def check(files: Files, fleet: str | None = None, now_s: int = NOW_S) -> list[str]:
    return verifier.verify_export(files, fleet, now_s)[0]


def signed_text(kind: str, body: dict[str, object], signer) -> str:
    """A document of the fleet, well signed whatever it says."""
    message = f"{kind}\n" + json.dumps(body, sort_keys=True, separators=(",", ":"))
    return f"{message}\n{signer.sign(message.encode()).hex()}\n"


def record(identity: Identity, name: str, authority: Authority = CA) -> bytes:
    binding = sign_binding(identity, authority.fleet, name)
    return sign_record(authority, binding, roles=["hub"], serial=1, issued_ms=T_MS)


def write(
    name: StreamName, bodies: Iterable[bytes], cause: list[EntryId], step_ms: int = 1
) -> list[Entry]:
    return [
        compose(
            name, n, Stamp(T_MS + n * step_ms, 0), "message.send", "op:ann", cause, body, bytes(16)
        )
        for n, body in enumerate(bodies)
    ]


def root_of(entries: list[Entry]) -> bytes:
    tree = Range()
    for entry in entries:
        tree.append(entry.id)
    return tree.root()


class Draft:
    """One stream of an export that is being made, honest until somebody changes it."""

    def __init__(self, writer: Identity, scope: Scope, entries_of: list[bytes], cause=()) -> None:
        self.writer, self.name = writer, StreamName(writer.machine, INCARNATION, scope)
        self.entries = write(self.name, entries_of, list(cause))
        self.seals: list[bytes] = []
        self.cosigns: list[bytes] = []

    def seal(self, size: int, root: bytes | None = None, signer=None) -> "Draft":
        head = root_of(self.entries[:size]) if root is None else root
        key = signer or self.writer.signer("seal")
        self.seals.append(seal.make_seal(CA.fleet, self.name, size, head, key).note)
        return self

    def cosign(self, by: Identity, strength, size: int, time_s=NOW_S, root=None) -> "Draft":
        head = root_of(self.entries[:size]) if root is None else root
        key = by.signer(strength)
        made = seal.make_cosign(CA.fleet, self.name, size, head, by.machine, strength, key, time_s)
        self.cosigns.append(made.note)
        return self


def drafts() -> list[Draft]:
    first = Draft(STUDIO, Scope("fleet"), [b'{"text":"h\xc3\xa9 %d"}' % n for n in range(7)])
    first.seal(3).seal(7).cosign(BUILD, "held", 3, NOW_S - 9).cosign(BUILD, "seen", 5)
    second = Draft(BUILD, scope_to(STUDIO.machine), [b"{}", b"\xff\x00"], [first.entries[2].id])
    second.entries[0] = second.entries[0].without_body()
    second.seal(2).cosign(STUDIO, "held", 2)
    return [first, second]


def listed(streams: list[Draft]) -> list[export.Listed]:
    return [
        export.Listed(str(n), each.name, len(each.entries), root_of(each.entries))
        for n, each in enumerate(streams)
    ]


RECORDS = [record(STUDIO, "studio"), record(BUILD, "build")]


def pack(streams: list[Draft], records=None, revocations=(), items=None, closed=True) -> Files:
    files = {
        "manifest.json": export.manifest(
            CA.fleet,
            listed(streams) if items is None else items,
            RECORDS if records is None else records,
            revocations,
            closed=closed,
        )
    }
    for n, each in enumerate(streams):
        files[f"{n}.jsonl"] = b"".join(map(export.line, each.entries))
        files[f"{n}.seals"] = b"".join(each.seals)
        files[f"{n}.cosigns"] = b"".join(each.cosigns)
    return files


HONEST = pack(drafts())


def revoke(cuts: dict[str, int]) -> bytes:
    return sign_revocation(
        CA, of="machine", key=STUDIO.machine, name="studio", cuts=cuts, reason="", issued_ms=T_MS
    )


@proves("log.verifier-accepts")
def test_an_honest_export_holds_and_the_summary_states_the_exposure_window():
    wrong, lines = verifier.verify_export(HONEST, CA.fleet, NOW_S)
    assert wrong == []
    text = "\n".join(lines)
    assert "2 machines, 2 streams" in text
    assert "9 entries hold" in text
    assert "1 of them are without" in text
    assert "exposure window: 2 entries" in text
    assert f"{drafts()[0].name}: seq 5 to 6" in text


@proves("log.verifier-accepts")
def test_the_script_runs_alone_and_its_exit_code_tells(tmp_path):
    for name, raw in HONEST.items():
        (tmp_path / name).write_bytes(raw)

    def run(*arguments: str) -> subprocess.CompletedProcess[str]:
        # -I: neither the source tree nor the environment can lend it a muster module.
        command = [sys.executable, "-I", str(SCRIPT), str(tmp_path), *arguments]
        return subprocess.run(command, capture_output=True, text=True, check=False, timeout=60)

    good = run("--fleet", CA.fleet)
    assert (good.returncode, good.stderr) == (0, "")
    assert run("--fleet", STRANGER_CA.fleet).returncode == 1
    lines = HONEST["0.jsonl"].split(b"\n")
    (tmp_path / "0.jsonl").write_bytes(b"\n".join(lines[:4] + lines[5:]))
    bad = run()
    assert bad.returncode == 1
    assert "seq 4: the header says seq 5" in bad.stdout
    assert "muster" not in {
        line.split()[1].split(".")[0]
        for line in SCRIPT.read_text(encoding="utf-8").splitlines()
        if line.startswith(("import ", "from "))
    }


@proves("log.verifier-accepts")
def test_a_directory_that_is_not_there_is_a_usage_error(tmp_path):
    command = [sys.executable, "-I", str(SCRIPT), str(tmp_path / "none")]
    assert subprocess.run(command, capture_output=True, check=False, timeout=60).returncode == 2


@proves("log.verifier-every-byte")
@settings(max_examples=300, deadline=None)
@given(st.sampled_from(sorted(HONEST)), st.integers(0, 10**6), st.integers(1, 255))
def test_any_changed_byte_anywhere_is_found(name, place, change):
    raw = bytearray(HONEST[name])
    raw[place % len(raw)] ^= change
    assert check(HONEST | {name: bytes(raw)})


@proves("log.verifier-every-byte")
@settings(max_examples=150, deadline=None)
@given(st.sampled_from(sorted(HONEST)), st.integers(0, 10**6), st.integers(0, 255))
def test_any_inserted_byte_or_cut_file_is_found(name, place, byte):
    raw = HONEST[name]
    at = place % len(raw)
    assert check(HONEST | {name: raw[:at] + bytes([byte]) + raw[at:]})
    # A file that ends after a whole note is a shorter list of witnesses, which proves less.
    if raw[:at] and not (name.endswith("s") and raw[:at].count(b"\n") % 5 == 0):
        assert check(HONEST | {name: raw[:at]})


@proves("log.verifier-every-byte")
@settings(max_examples=100, deadline=None)
@given(st.sampled_from(sorted(HONEST)), st.binary(max_size=200))
def test_arbitrary_files_are_findings_and_never_a_crash(name, raw):
    if raw or name.endswith("seals"):
        assert check(HONEST | {name: raw})


@proves("log.verifier-every-byte")
@pytest.mark.parametrize("bomb", [b"[" * 1_000_000, b'{"a":' * 100_000, b"9" * 100_000])
def test_a_bomb_in_any_file_is_a_finding(bomb):
    for name in HONEST:
        assert check(HONEST | {name: bomb + b"\n"})


def line_edit(number: int, edit) -> Files:
    """The honest export with one line of stream 0 changed, written canonically."""
    lines = HONEST["0.jsonl"].split(b"\n")
    value = json.loads(lines[number])
    edit(value)
    text = json.dumps(value, sort_keys=True, separators=(",", ":"), ensure_ascii=False)
    lines[number] = text.encode()
    return HONEST | {"0.jsonl": b"\n".join(lines)}


def header_edit(number: int, **changes) -> Files:
    def edit(value):
        header = json.loads(value["header"]) | changes
        value["header"] = json.dumps(header, sort_keys=True, separators=(",", ":"))

    return line_edit(number, edit)


@proves("log.verifier-names-entries")
@pytest.mark.parametrize(
    ("files", "found"),
    [
        (lambda: header_edit(2, actor="op:eve"), "are not those of the seal"),
        (lambda: header_edit(2, seq=9), "seq 2: the header says seq 9"),
        (lambda: header_edit(2, author=BUILD.machine), "seq 2: the header says author"),
        (
            lambda: header_edit(2, stream=f"{STUDIO.machine}/{INCARNATION}/journal"),
            "seq 2: the header says stream",
        ),
        (lambda: header_edit(2, t=[1, 0]), "seq 2: the time is not later"),
        (lambda: header_edit(2, v=2), "seq 2: the field v"),
        (lambda: header_edit(2, kind="Bad"), "seq 2: the field kind"),
        (lambda: header_edit(2, extra=1), "seq 2: the header has other fields"),
        (lambda: line_edit(2, lambda v: v.update(body='{"text":"no"}')), "seq 2: the body is not"),
        (lambda: line_edit(2, lambda v: v.update(salt="00" * 15 + "01")), "seq 2: the body is not"),
        (lambda: line_edit(2, lambda v: v.update(salt=None)), "seq 2: the body has no salt"),
        (lambda: line_edit(2, lambda v: v.update(body=None)), "seq 2: the body is gone but"),
        (lambda: line_edit(2, lambda v: v.update(x=1)), "seq 2: the line has other fields"),
        (
            lambda: line_edit(2, lambda v: v.update(header=v["header"] + " ")),
            "seq 2: the header is",
        ),
    ],
)
def test_a_changed_entry_is_named(files, found):
    assert any(found in each for each in check(files())), check(files())


@proves("log.verifier-names-entries")
def test_removed_repeated_and_swapped_entries_are_named():
    lines = HONEST["0.jsonl"].split(b"\n")[:-1]
    for order, found in (
        ([0, 1, 3, 4, 5, 6], "seq 2: the header says seq 3"),
        ([0, 1, 1, 2, 3, 4, 5, 6], "seq 2: the header says seq 1"),
        ([0, 2, 1, 3, 4, 5, 6], "seq 1: the header says seq 2"),
        ([0, 1, 2, 3, 4, 5], "seq 6: missing, though the seal"),
        ([0, 1, 2, 3], "seq 4: missing, though the seen of " + BUILD.machine),
    ):
        raw = b"".join(lines[n] + b"\n" for n in order)
        wrong = check(HONEST | {"0.jsonl": raw})
        assert any(found in each for each in wrong), wrong


@proves("log.verifier-names-entries")
def test_a_withheld_body_is_no_finding_but_is_counted():
    def withhold(value):
        value.update(body=None, salt=None)

    wrong, lines = verifier.verify_export(line_edit(2, withhold), None, NOW_S)
    assert wrong == []
    assert "2 of them are without" in "\n".join(lines)


def tampered(change, **packing) -> list[str]:
    streams = drafts()
    change(streams[0])
    return check(pack(streams, **packing))


@proves("log.verifier-names-seals")
@pytest.mark.parametrize(
    ("change", "found"),
    [
        (lambda d: d.seal(7, b"r" * 32), "FORK"),
        (lambda d: d.seal(4, b"r" * 32), "the entries below seq 4 are not those of the seal"),
        (lambda d: d.seal(9, b"r" * 32), "seq 7: missing, though the seal"),
        (lambda d: d.seal(7, signer=STRANGER.signer("seal")), "signed by another key"),
        (lambda d: d.seal(7, signer=STUDIO.signer("held")), "signed by another key"),
        (lambda d: d.seals.pop(), "seq 3: no seal of its writer covers it"),
        (lambda d: d.seals.clear(), "seq 0: no seal of its writer covers it"),
        (lambda d: d.cosign(BUILD, "seen", 7, root=b"r" * 32), "FORK"),
        (lambda d: d.cosign(BUILD, "seen", 6, root=b"r" * 32), "the entries below seq 6"),
        (lambda d: d.cosign(BUILD, "seen", 8, root=b"r" * 32), "seq 7: missing"),
        (lambda d: d.cosign(STRANGER, "seen", 7), "no machine of the fleet"),
        (lambda d: d.cosign(BUILD, "held", 7, NOW_S - 10), "is older than"),
        (lambda d: d.cosign(BUILD, "held", 7, NOW_S + 4000), "is from the future"),
        (lambda d: d.cosigns.append(d.seals[0]), "no machine of the fleet"),
        (lambda d: d.seals.append(d.cosigns[0]), "has another key name"),
        (lambda d: d.seals.append(drafts()[1].seals[0]), "is of another fleet or stream"),
    ],
)
def test_a_wrong_seal_or_cosign_is_named(change, found):
    wrong = tampered(change)
    assert any(found in each and str(drafts()[0].name) in each for each in wrong), wrong


@proves("log.verifier-names-seals")
def test_history_rewritten_and_sealed_again_by_its_owner_is_found_by_the_cosign():
    streams = drafts()
    rewritten = Draft(STUDIO, Scope("fleet"), [b'{"text":"other"}'] * 7).seal(3).seal(7)
    rewritten.cosigns = streams[0].cosigns
    wrong = check(pack([rewritten, streams[1]], closed=False))
    assert any("FORK" in each or "not those of the" in each for each in wrong)


@proves("log.verifier-names-seals")
def test_a_cosign_of_oneself_does_not_close_the_exposure_window():
    alone = Draft(STUDIO, Scope("fleet"), [b"{}"] * 4).seal(4).cosign(STUDIO, "held", 4)
    wrong, lines = verifier.verify_export(pack([alone]), None, NOW_S)
    assert wrong == []
    assert "exposure window: 4 entries" in "\n".join(lines)


@proves("log.verifier-names-documents")
@pytest.mark.parametrize(
    ("packing", "found"),
    [
        ({"records": RECORDS[1:]}, "there is no machine record of"),
        ({"records": [*RECORDS, record(STRANGER, "x", STRANGER_CA)]}, "of another fleet"),
        ({"records": [RECORDS[0].replace(b'"serial":1', b'"serial":2')]}, "not signed by"),
        ({"revocations": [RECORDS[0]]}, "not a muster/revocation/v1 document"),
        ({"items": listed(drafts())[:1]}, "is not in the manifest"),
        ({"items": [*listed(drafts()), listed(drafts())[0]._replace(file="2")]}, "twice"),
        (
            {"items": [listed(drafts())[0], listed(drafts())[1]._replace(file="5")]},
            "'1.cosigns' is not in",
        ),
        (
            {"items": [listed(drafts())[0]._replace(size=6), listed(drafts())[1]]},
            "another size or root",
        ),
    ],
)
def test_a_wrong_manifest_is_named(packing, found):
    wrong = check(pack(drafts(), **packing))
    assert any(found in each for each in wrong), wrong


@proves("log.verifier-names-documents")
def test_a_machine_that_only_the_fleet_signed_is_no_machine():
    # The authority alone cannot enrol a key whose holder did not ask.
    forged = sign_binding(STRANGER, CA.fleet, "studio").replace(
        STRANGER.machine.encode(), STUDIO.machine.encode()
    )
    body = json.loads(RECORDS[0].split(b"\n")[1]) | {"binding": forged.decode()}
    text = json.dumps(body, sort_keys=True, separators=(",", ":"))
    message = b"muster/record/v1\n" + text.encode()
    raw = message + b"\n" + CA.record.sign(message).hex().encode() + b"\n"
    wrong = check(pack(drafts(), records=[raw, RECORDS[1]]))
    assert any("binding" in each and "not signed" in each for each in wrong), wrong


@proves("log.verifier-names-documents")
def test_an_export_that_claims_to_be_closed_names_the_missing_cause():
    second = drafts()[1]
    items = [export.Listed("0", second.name, 2, root_of(second.entries))]
    wrong = check(pack([second], items=items))
    assert any("seq 0: its cause" in each for each in wrong), wrong
    assert check(pack([second], items=items, closed=False)) == []


@proves("log.verifier-revocation")
def test_entries_beyond_the_cut_of_a_revoked_machine_are_named():
    streams = drafts()
    name = str(streams[0].name)
    assert check(pack(streams, revocations=[revoke({name: 7})])) == []
    wrong = check(pack(streams, revocations=[revoke({name: 5})]))
    assert wrong == [f"stream {name}: seq 5: from here on nothing counts, its machine is revoked"]
    assert any(
        "seq 0: from here on" in each for each in check(pack(streams, revocations=[revoke({})]))
    )


@proves("log.verifier-revocation")
def test_what_a_revoked_machine_cosigned_no_longer_vouches():
    streams = drafts()
    wrong, lines = verifier.verify_export(
        pack(streams, revocations=[revoke({str(streams[0].name): 7})]), None, NOW_S
    )
    assert wrong == []
    assert "exposure window: 4 entries" in "\n".join(lines)


@pytest.fixture
def alone(monkeypatch) -> ModuleType:
    """The verifier on a computer that has no library for signatures."""
    for name in ("cryptography.exceptions", "cryptography.hazmat.primitives.asymmetric.ed25519"):
        monkeypatch.setitem(sys.modules, name, None)
    module = load()
    assert module.Ed25519PublicKey is None
    return module


@proves("log.verifier-alone")
def test_the_script_reads_alike_without_any_library(alone):
    assert verifier.Ed25519PublicKey is not None
    honest = alone.verify_export(HONEST, CA.fleet, NOW_S)
    assert honest == verifier.verify_export(HONEST, CA.fleet, NOW_S)
    first, second = (HONEST[f"{n}.seals"].split(b"\n") for n in (0, 1))
    # The signature of another seal, under the right name and key id: only Ed25519 can tell.
    lines = [*first[:4], first[9], *first[5:]]
    assert lines != first != second
    wrong = alone.verify_export(HONEST | {"0.seals": b"\n".join(lines)}, None, NOW_S)[0]
    assert "does not hold" in wrong[0]


# RFC 8032, section 7.1, tests 1 to 3: public key, message, signature.
RFC_8032 = [
    (
        "d75a980182b10ab7d54bfed3c964073a0ee172f3daa62325af021a68f707511a", "",
        ("e5564300c360ac729086e2cc806e828a84877f1eb8e5d974d873e065224901555fb8821590a33bacc61e39701cf9b46b"
        "d25bf5f0595bbe24655141438e7a100b"),
    ),
    (
        "3d4017c3e843895a92b70aa74d1b7ebc9c982ccf2ec4968cc0cd55f12af4660c", "72",
        ("92a009a9f0d4cab8720e820b5f642540a2b27b5416503f8fb3762223ebdb69da085ac1e43e15996e458f3613d0f11d8c"
        "387b2eaeb4302aeeb00d291612bb0c00"),
    ),
    (
        "fc51cd8e6218a1a38da47ed00230f0580816ed13ba3303ac5deb911548908025", "af82",
        ("6291d657deec24024827e69c3abe01a30ce548a284743a445e3680d7db5ac3ac18ff9b538d16f290ae67f760984dc659"
        "4a7c15e9716ed28dc027beceea1ec40a"),
    ),
]  # fmt: skip


@proves("log.verifier-alone")
@pytest.mark.parametrize(("public", "message", "signature"), RFC_8032)
def test_the_signatures_of_the_rfc_hold_in_their_only_spelling(alone, public, message, signature):
    key, text, made = map(bytes.fromhex, (public, message, signature))
    assert alone.signed(key, text, made)
    assert not alone.signed(key, text + b"x", made)
    for at in range(0, 64, 7):
        changed = bytearray(made)
        changed[at] ^= 0x10
        assert not alone.signed(key, text, bytes(changed))
    # The same number once more, beyond the order: libraries that take it know two signatures.
    twice = int.from_bytes(made[32:], "little") + alone.L
    assert not alone.signed(key, text, made[:32] + twice.to_bytes(32, "little"))
    for odd in (made[:63], made + b"\0", b""):
        assert not alone.signed(key, text, odd)


@proves("log.verifier-alone")
def test_what_is_no_point_or_one_in_a_second_spelling_is_no_key(alone):
    field = alone.P
    for raw in (
        (field + 1).to_bytes(32, "little"),  # one, spelled with the field added
        (1 | 1 << 255).to_bytes(32, "little"),  # a zero x that claims to be odd
        (2).to_bytes(32, "little"),  # no x fits
        bytes(31),
    ):
        with pytest.raises(alone.Wrong):
            alone.point(raw)


def with_entry(kind: str, body: dict[str, object], *, revocations=(), withheld=False) -> Files:
    """An export whose first stream passes a document on."""
    streams = drafts()
    first = streams[0]
    raw = json.dumps(body, sort_keys=True, separators=(",", ":")).encode()
    entry = compose(
        first.name, 7, Stamp(T_MS + 9, 0), kind, "muster", [], raw, bytes(16)
    )  # fmt: skip
    first.entries.append(entry.without_body() if withheld else entry)
    first.seal(8)
    return pack(streams, revocations=revocations)


@proves("log.verifier-manifest")
@pytest.mark.parametrize("withheld", [False, True])
def test_a_revocation_that_the_manifest_leaves_out_is_found_in_the_streams(withheld):
    cuts = {str(drafts()[0].name): 8}
    text = revoke(cuts)
    body = {"revocation": text.decode()}
    honest = with_entry("machine.revoke", body, revocations=[text])
    assert check(honest) == []
    wrong, lines = verifier.verify_export(
        with_entry("machine.revoke", body, withheld=withheld), None, NOW_S
    )
    what = "is withheld" if withheld else "is not in manifest.json"
    assert wrong == [f"stream {drafts()[0].name}: seq 7: its revocation {what}"]
    if not withheld:
        # It counts all the same: what the revoked machine cosigned vouches for nothing.
        assert "exposure window: 5 entries" in "\n".join(lines)


@proves("log.verifier-manifest")
def test_a_revocation_cannot_be_hidden_by_writing_its_body_in_hex():
    files = with_entry("machine.revoke", {"revocation": revoke({}).decode()})
    lines = files["0.jsonl"].split(b"\n")
    line = json.loads(lines[7])
    line["body"] = {"hex": line["body"].encode().hex()}
    lines[7] = json.dumps(line, sort_keys=True, separators=(",", ":")).encode()
    wrong = check(files | {"0.jsonl": b"\n".join(lines)})
    assert wrong == [f"stream {drafts()[0].name}: seq 7: the body is text, put in hex"]


@proves("log.verifier-manifest")
def test_a_stricter_cut_and_a_newer_record_in_the_streams_are_found():
    name = str(drafts()[0].name)
    entry = {"revocation": revoke({name: 5}).decode()}
    wrong = check(with_entry("machine.revoke", entry, revocations=[revoke({name: 8})]))
    assert f"stream {name}: seq 5: from here on nothing counts, its machine is revoked" in wrong
    assert f"stream {name}: seq 7: its revocation is not in manifest.json" in wrong
    binding = sign_binding(BUILD, CA.fleet, "build")
    newer = sign_record(CA, binding, roles=["hub"], serial=2, issued_ms=T_MS).decode()
    for kind, body in (("machine.record", {"record": newer}),
                       ("machine.open", {"heads": {}, "record": newer})):  # fmt: skip
        assert check(with_entry(kind, body)) == [
            f"stream {name}: seq 7: its record is not in manifest.json"
        ]


@proves("log.verifier-manifest")
def test_a_document_in_an_entry_that_does_not_hold_or_is_older_is_no_finding():
    name = str(drafts()[0].name)
    forged = revoke({name: 8}).decode().replace('"name":"studio"', '"name":"studiO"')
    for kind, body in (
        ("machine.revoke", {"revocation": forged}),
        ("machine.revoke", {"revocation": 7}),
        ("machine.revoke", {}),
        ("machine.record", {"record": record(STRANGER, "x", STRANGER_CA).decode()}),
        ("machine.record", {"record": RECORDS[1].decode()}),
    ):
        assert check(with_entry(kind, body)) == []


@proves("log.verifier-every-byte")
def test_a_record_of_a_hostile_fleet_is_a_finding_and_never_a_crash():
    # The authority of an export is whoever made it: signed does not mean well-formed.
    for keys in ({}, [], {"seal": []}, {"seal": {}, "seen": 1, "held": None}, 7, None):
        body = {"fleet": CA.fleet, "keys": keys, "machine": STUDIO.machine, "name": "studio"}
        binding = signed_text("muster/binding/v1", body, STUDIO.root)
        text = signed_text(
            "muster/record/v1", {"binding": binding, "fleet": CA.fleet, "serial": 1}, CA.record
        )
        assert check(pack(drafts(), records=[text.encode(), RECORDS[1]]))


@proves("log.verifier-every-byte")
def test_a_name_in_an_export_cannot_speak_to_the_terminal():
    note = drafts()[0].seals[0].replace(b" muster/", b" \x1b[2Jmuster/")
    wrong = check(HONEST | {"0.cosigns": note, "\x1b[2J": b""})
    assert wrong
    assert all("\x1b" not in each for each in wrong + check(HONEST | {"0.cosigns": note}))


@proves("log.verifier-every-byte")
def test_a_spare_bit_of_base64_is_found():
    for name in ("0.seals", "1.cosigns"):
        raw = HONEST[name]
        end = len(raw.rstrip(b"=\n")) - 1
        assert raw[end + 1 :] in {b"=\n", b"==\n"}
        changed = raw[:end] + bytes([raw[end] + 1]) + raw[end + 1 :]
        assert any("canonical base64" in each for each in check(HONEST | {name: changed}))


@proves("log.verifier-revocation")
def test_of_two_revocations_of_one_machine_the_stricter_cut_counts():
    streams = drafts()
    name = str(streams[0].name)
    for pair in ([{name: 7}, {name: 5}], [{name: 5}, {name: 7}]):
        wrong = check(pack(streams, revocations=[revoke(each) for each in pair]))
        assert len(wrong) == 1
        assert "seq 5: from here on" in wrong[0]
    assert check(pack(streams, revocations=[revoke({}), revoke({name: 7})]))
