"""`audit verify` over stores that are damaged in every way we can think of.

fleet:  ann (whose log it is), bob (who witnesses), cy (revoked)
streams: ann/fleet with everybody's records, ann/journal, cy/fleet
"""

import json
import runpy
import secrets
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import apsw
import msgspec
import pytest

from muster.errors import MusterError
from muster.fleet.acknowledgement import VERB, name_of
from muster.fleet.kinds import Fork
from muster.fleet.machine import Authority, Identity, Operator
from muster.fleet.operator_end import sign_end
from muster.fleet.record import sign_binding, sign_operator, sign_record, sign_revocation
from muster.fleet.statement import EVERY_MACHINE, sign_statement
from muster.log import canon
from muster.log.admit import Taken
from muster.log.clock import Stamp
from muster.log.entry import compose
from muster.log.fork import Branch, make_fork
from muster.log.seal import make_cosign, make_seal
from muster.log.stream import FLEET, JOURNAL, Incarnation, StreamName
from muster.log.tree import Range, inclusion_proof, leaf_hash
from muster.store.schema import pack
from muster.store.store import Draft, Store
from muster.verbs import audit
from muster.verbs.log_source import database_source, open_source
from muster.verbs.verify import verify
from tests.log.material import Nodes
from tests.promise import proves

AUTHORITY = Authority(b"a" * 32)
OTHER = Authority(b"z" * 32)
ANN, BOB, CY = (Identity(name * 32) for name in (b"1", b"2", b"3"))
INCARNATION = Incarnation("0" * 32)
NOW = 1_790_000_000_000
MINE = StreamName(ANN.machine, INCARNATION, FLEET)
DIARY = StreamName(ANN.machine, INCARNATION, JOURNAL)
THEIRS = StreamName(CY.machine, INCARNATION, FLEET)
# A header that is as well-formed as before, of another kind.
RENAMED = (
    "update entry set header = cast(replace(header, 'kind\":\"', 'kind\":\"x') as blob) "
    "where id = {8}"
)
SWAP = (
    "update entry set (hash, header, salt, body) = "
    "(select hash, header, salt, body from entry where id = {8}) where id = {7}"
)


def record(identity, name, authority=AUTHORITY):
    binding = sign_binding(identity, authority.fleet, name)
    return sign_record(authority, binding, roles=("hub",), serial=1, issued_ms=NOW)


def draft(kind, **body):
    return Draft(kind, "muster", (), canon.encode(body))


class World:
    """A store on disk that can be damaged behind its back."""

    def __init__(self, folder):
        self.path = str(folder / "log.db")
        store = Store(self.path, fleet=AUTHORITY.fleet, machine=ANN.machine,
                      rng=secrets.token_bytes)  # fmt: skip
        with store.transaction():
            store.append(
                MINE,
                [draft("machine.record", record=record(i, n).decode())
                 for i, n in ((ANN, "ann"), (BOB, "bob"), (CY, "cy"))],
                NOW,
            )  # fmt: skip
            store.append(DIARY, [draft("agent.output", text=str(n)) for n in range(300)], NOW)
            store.seal_dirty(ANN.signer("seal"))
        with store.transaction():
            store.append(DIARY, [draft("agent.output", text="last")], NOW)
            store.seal_dirty(ANN.signer("seal"))
            self.cosign(store, DIARY, 290)
            self.cosign(store, MINE, 3)
        self.take_from_cy(store)
        store.close()

    def cosign(self, store, stream, size, by=BOB, strength="held"):
        root = store.log.root_at(stream, size)
        note = make_cosign(AUTHORITY.fleet, stream, size, root, by.machine, strength,
                           by.signer(strength), NOW // 1000)  # fmt: skip
        store.put_cosign(note)

    def take_from_cy(self, store):
        entries, after = [], Range()
        for seq in range(5):
            body = canon.encode({"text": str(seq)})
            entries.append(compose(THEIRS, seq, Stamp(NOW, seq), "agent.output", "muster", (),
                                   body, secrets.token_bytes(16)))  # fmt: skip
            after.append(entries[-1].id)
        seal = make_seal(AUTHORITY.fleet, THEIRS, 5, after.root(), CY.signer("seal"))
        with store.transaction():
            store.take(Taken(THEIRS, 0, tuple(entries), after, seal, ()), NOW)

    def sql(self, text, *values):
        connection = apsw.Connection(self.path)
        connection.execute(text, values)
        connection.close()

    def row(self, stream, seq):
        connection = apsw.Connection(self.path)
        (number,) = connection.execute(
            "select id from stream where name = ?", (str(stream),)
        ).fetchone()
        connection.close()
        return pack(number, seq)

    def report(self, own=ANN.machine, fleet=AUTHORITY.fleet):
        return verify(database_source(self.path), fleet, lambda done: None, own)

    def wrong(self, **more):
        return self.report(**more).findings()


@pytest.fixture
def world(tmp_path):
    return World(tmp_path)


@proves("cli.audit")
def test_a_whole_log_holds_and_its_exposure_window_is_a_number(world):
    report = world.report()
    assert report.findings() == []
    exposed = {each.stream.name: each.exposed for each in report.streams}
    assert exposed == {MINE: 0, DIARY: 11, THEIRS: 5}
    assert sum(each.entries for each in report.streams) == 309


@proves("cli.audit")
def test_an_erased_body_breaks_nothing_and_is_counted(world):
    world.sql("update entry set body = null, salt = x'' where id = ?", world.row(DIARY, 7))
    report = world.report()
    assert report.findings() == []
    assert sum(each.withheld for each in report.streams) == 1


@proves("cli.audit-damage")
@pytest.mark.parametrize(
    ("damage", "says"),
    [
        ("update entry set body = x'7b7d' where id = {7}", "seq 7: The body"),
        ("update entry set header = cast(header || x'20' as blob) where id = {7}", "seq 7: "),
        (RENAMED,
         "seq 8: its header is not the one that was written here"),
        ("update entry set hash = zeroblob(32) where id = {8}",
         "seq 8: its header is not the one that was written here"),
        (SWAP, "seq 7: here lies entry 8"),
        ("delete from entry where id = {300}", "seq 300: missing"),
        ("delete from entry where id = {7}", "seq 7: here lies entry 8"),
        ("delete from seal where id between {0} and {301}", "no seal of its writer"),
        ("update seal set note = cast(replace(note, x'0a333031', x'0a333030') as blob) where id = {301}",
         "seal at 301"),
        ("update stream set size = 300, held = 300 where name like '%/journal'",
         "seq 300: missing, its own seal is over 301"),
        ("update stream set range = zeroblob(length(range)) where name like '%/journal'",
         "range"),
    ],
)  # fmt: skip
def test_damage_is_named_with_its_stream_and_place(world, damage, says):
    for seq in (0, 7, 8, 300, 301):
        damage = damage.replace(f"{{{seq}}}", str(world.row(DIARY, seq)))
    world.sql(damage)
    found = world.wrong()
    assert any(text.startswith(f"stream {DIARY}: ") and says in text for text in found), found
    assert not any(str(MINE) in text or str(THEIRS) in text for text in found)


@proves("cli.audit-damage")
def test_an_end_that_another_machine_saw_is_missed_when_it_was_cut_off(world):
    store = Store(world.path, fleet=AUTHORITY.fleet, machine=ANN.machine, rng=secrets.token_bytes)
    before = store.image()
    with store.transaction():
        store.append(DIARY, [draft("agent.output", text="regret")], NOW)
        store.seal_dirty(ANN.signer("seal"))
    root = store.log.root_at(DIARY, 302)
    store.close()
    old = Store(":memory:", fleet=AUTHORITY.fleet, machine=ANN.machine,
                rng=secrets.token_bytes, image=before)  # fmt: skip
    note = make_cosign(AUTHORITY.fleet, DIARY, 302, root, BOB.machine, "seen",
                       BOB.signer("seen"), NOW // 1000)  # fmt: skip
    with old.transaction():
        old.put_cosign(note)
    with open(world.path, "wb") as file:
        file.write(old.image())
    old.close()
    assert world.wrong() == [f"stream {DIARY}: seq 301: missing, bob saw 302 entries"]
    # Of another machine's log that is only the ordinary lag.
    assert world.wrong(own="") == []


@proves("cli.audit-signers")
def test_a_seal_or_cosign_by_another_key_is_named(world):
    forged = make_seal(AUTHORITY.fleet, DIARY, 301, b"r" * 32, BOB.signer("seal"))
    world.sql("update seal set note = ? where id = ?", forged.note, world.row(DIARY, 301))
    assert any("signed by another key" in text for text in world.wrong())


@proves("cli.audit-signers")
def test_a_cosign_over_other_entries_is_named(world):
    note = make_cosign(AUTHORITY.fleet, DIARY, 290, b"r" * 32, BOB.machine, "held",
                       BOB.signer("held"), NOW // 1000)  # fmt: skip
    world.sql("update cosign set note = ? where size = 290", note.note)
    (found,) = world.wrong()
    assert "cosign at 290" in found
    assert "the held of bob" in found


@proves("cli.audit-signers")
def test_a_log_of_another_fleet_does_not_hold(world):
    found = world.wrong(fleet=OTHER.fleet)
    assert len(found) == 3
    assert all("no record that the fleet signed" in text for text in found)


@proves("cli.audit-revoked")
def test_entries_beyond_a_revocation_are_named_and_its_cosigns_vouch_for_nothing(world):
    store = Store(world.path, fleet=AUTHORITY.fleet, machine=ANN.machine, rng=secrets.token_bytes)
    raw = sign_revocation(AUTHORITY, of="machine", key=CY.machine, name="cy",
                          cuts={str(THEIRS): 3}, reason="lost", issued_ms=NOW)  # fmt: skip
    with store.transaction():
        store.append(MINE, [draft("machine.revoke", revocation=raw.decode())], NOW)
        store.seal_dirty(ANN.signer("seal"))
        world.cosign(store, DIARY, 301, by=CY)
    store.close()
    report = world.report()
    assert report.findings() == [
        f"stream {THEIRS}: seq 3: from here on nothing counts, its machine is revoked"
    ]
    (diary,) = (each for each in report.streams if each.stream.name == DIARY)
    assert diary.exposed == 11


@proves("cli.audit-revoked")
def test_a_stream_that_was_cut_back_at_its_revocation_is_well_and_without_one_it_is_not(world):
    evidence = canon.encode({"cut": 3, "revoked": CY.machine})
    store = Store(world.path, fleet=AUTHORITY.fleet, machine=ANN.machine, rng=secrets.token_bytes)
    raw = sign_revocation(AUTHORITY, of="machine", key=CY.machine, name="cy",
                          cuts={str(THEIRS): 3}, reason="lost", issued_ms=NOW)  # fmt: skip
    with store.transaction():
        store.freeze(THEIRS, 3, evidence, NOW)
    (unfounded,) = [text for text in world.wrong() if "cut back" in text]
    assert "nothing in the log revokes" in unfounded
    with store.transaction():
        store.append(MINE, [draft("machine.revoke", revocation=raw.decode())], NOW)
        store.seal_dirty(ANN.signer("seal"))
    store.close()
    assert world.wrong() == []


@proves("cli.audit-fork")
def test_a_fork_is_named_with_its_place_and_forged_evidence_is_not_believed(world):
    def branch(text):
        entry = compose(THEIRS, 5, Stamp(NOW, 9), "agent.output", "muster", (),
                        canon.encode({"text": text}), b"s" * 16)  # fmt: skip
        nodes = Nodes()
        for header, *_ in source.rows(theirs):
            nodes.append(leaf_hash(header))
        nodes.append(entry.id)
        root = Range()
        for index in range(6):
            root.append(nodes.subtree(0, index))
        seal = make_seal(AUTHORITY.fleet, THEIRS, 6, root.root(), CY.signer("seal"))
        proof = [each.hex() for each in inclusion_proof(nodes, 5, 6)]
        return Branch(seal.note.decode(), entry.raw.decode(), proof)

    source = database_source(world.path)
    (theirs,) = (each for each in source.streams if each.name == THEIRS)
    evidence = make_fork(THEIRS, 5, branch("yes"), branch("no"))
    forged = make_fork(THEIRS, 5, branch("yes"), branch("yes"))
    for raw, says in ((evidence, f"stream {THEIRS}: seq 5: FORKED"), (forged, "does not hold")):
        world.sql("insert or replace into fork values(?, 5, 0, ?)",
                  world.row(THEIRS, 0) >> 40, raw)  # fmt: skip
        (found,) = world.wrong()
        assert says in found
    _closes(world, evidence)


def _closes(world, evidence):
    """A stranger's word about the fork changes nothing; an operator's makes it a closed matter."""
    world.sql("update fork set evidence = ?", evidence)
    of = Fork(5, str(THEIRS))
    fork = name_of(of)
    for seed, kept in ((b"x" * 32, 1), (b"o" * 32, 0)):
        operator = Operator(seed)
        signed = sign_statement(
            operator.statement, fleet=AUTHORITY.fleet, verb=VERB, object=fork,
            target=EVERY_MACHINE, args={"incident": fork, "note": "a backup"}, nonce=bytes(16),
            issued_ms=NOW, until_ms=NOW + 1,
        ).decode()  # fmt: skip
        store = Store(
            world.path, fleet=AUTHORITY.fleet, machine=ANN.machine, rng=secrets.token_bytes
        )
        raw = sign_operator(AUTHORITY if not kept else OTHER, operator.key, "alice", NOW).decode()
        body = {"note": "a backup", "of": msgspec.to_builtins(of)}
        with store.transaction():
            store.append(MINE, [
                draft("incident.acknowledge", **body, statement=signed),
                draft("operator.record", record=raw),
            ], NOW)  # fmt: skip
            store.seal_dirty(ANN.signer("seal"))
        store.close()
        report = verify(database_source(world.path), AUTHORITY.fleet, lambda _: None)
        assert len(report.findings()) == kept
        assert [f["closed"] for f in report.forks] == [not kept]
    _exports(world)
    _ends(world, fork)


def _exports(world):
    """Of a stream whose fork was closed the part before it is exported, and holds alone."""
    folder = Path(world.path).parent / "closed-fork"
    context: Any = SimpleNamespace(more=lambda _value: None)
    audit._export(context, database_source(world.path), AUTHORITY.fleet, folder)
    files = {each.name: each.read_bytes() for each in folder.iterdir()}
    listed = json.loads(files["manifest.json"])["streams"]
    assert [each["size"] for each in listed if each["stream"] == str(THEIRS)] == [5]
    script = Path(__file__).parents[2] / "verify" / "muster_verify.py"
    alone = runpy.run_path(str(script))["verify_export"]
    wrong, _ = alone(files, AUTHORITY.fleet, NOW // 1000 + 60)
    assert wrong == []


def _ends(world, fork):
    """The operator is revoked: the fork is closed as long as the end of the key names it."""
    key = Operator(b"o" * 32).key
    raw = sign_revocation(
        AUTHORITY, of="operator", key=key, name="alice", cuts={}, reason="left", issued_ms=NOW
    )
    for forks, closed in (((), False), ((fork,), True)):
        end = sign_end(AUTHORITY, operator=key, taken=(), forks=forks, issued_ms=NOW)
        store = Store(
            world.path, fleet=AUTHORITY.fleet, machine=ANN.machine, rng=secrets.token_bytes
        )
        with store.transaction():
            store.append(MINE, [
                draft("machine.revoke", revocation=raw.decode()),
                draft("operator.end", end=end.decode()),
            ], NOW)  # fmt: skip
            store.seal_dirty(ANN.signer("seal"))
        store.close()
        report = verify(database_source(world.path), AUTHORITY.fleet, lambda _: None)
        assert [f["closed"] for f in report.forks] == [closed]


def exported(world, tmp_path) -> Path:
    folder = tmp_path / "exported"
    context: Any = SimpleNamespace(more=lambda _value: None)
    audit._export(context, database_source(world.path), AUTHORITY.fleet, folder)
    return folder


def of_folder(folder: Path) -> list[str]:
    try:
        return verify(open_source(str(folder)), AUTHORITY.fleet, lambda _: None).findings()
    except MusterError as error:
        return [str(error)]


def _cut_off(folder: Path) -> None:
    """The end is gone, with every head over it; the manifest says how much there was."""
    lines = (folder / "1.jsonl").read_bytes().split(b"\n")
    (folder / "1.jsonl").write_bytes(b"\n".join(lines[:-2]) + b"\n")
    seals = (folder / "1.seals").read_bytes().split(b"\n")
    (folder / "1.seals").write_bytes(b"\n".join(seals[:-6]) + b"\n" if len(seals) > 6 else b"")


def _says_less(folder: Path) -> None:
    manifest = json.loads((folder / "manifest.json").read_bytes())
    manifest["streams"][0]["size"] -= 1
    (folder / "manifest.json").write_bytes(canon.encode(manifest) + b"\n")


def _twice(folder: Path) -> None:
    manifest = json.loads((folder / "manifest.json").read_bytes())
    manifest["streams"].append(manifest["streams"][0])
    (folder / "manifest.json").write_bytes(canon.encode(manifest) + b"\n")


def _left_out(folder: Path) -> None:
    manifest = json.loads((folder / "manifest.json").read_bytes())
    del manifest["streams"][0]
    (folder / "manifest.json").write_bytes(canon.encode(manifest) + b"\n")


@proves("cli.audit-export-manifest")
@pytest.mark.parametrize(
    ("harm", "says"),
    [
        (_cut_off, "another size or root"),
        (_says_less, "another size or root"),
        (_twice, "twice"),
        (_left_out, "is not in its manifest.json"),
    ],
)
def test_an_export_is_what_its_manifest_says(world, tmp_path, harm, says):
    folder = exported(world, tmp_path)
    assert of_folder(folder) == []
    harm(folder)
    assert any(says in each for each in of_folder(folder)), of_folder(folder)
