"""What must be true of a fleet at rest, read from its databases and its repository directly.

Nothing here asks a daemon, and the tables are compared with the entries they were folded from:
a daemon that fools itself cannot fool this. Each check raises AssertionError with what is wrong.
"""

import json
import re
import sqlite3
import subprocess
from collections import Counter
from pathlib import Path
from typing import Any

from muster.fleet.machine import Identity
from muster.git.fence import Epoch, fence_epoch
from muster.log.entry import parse
from muster.log.seal import open_seal
from muster.log.stream import StreamName
from muster.log.tree import Range
from muster.node.part import all_folds
from muster.node.parts import PARTS
from muster.store.store import Store
from tests.e2e.fleet import Fleet, Machine
from tests.e2e.load import PHASES, PROMISED, Acknowledged

_SEQ = (1 << 40) - 1
# What a restart may legitimately leave behind: the same statement taken by two machines.
EXPECTED_SKIPS: frozenset[str] = frozenset()


class Log:
    """One machine's database, read while its daemon may be running."""

    def __init__(self, machine: Machine) -> None:
        self.machine = machine
        self._database = sqlite3.connect(f"file:{machine.home.database}?mode=ro", uri=True)
        self._database.row_factory = sqlite3.Row

    def rows(self, sql: str, *values: Any) -> list[sqlite3.Row]:
        return self._database.execute(sql, values).fetchall()

    def streams(self) -> dict[str, tuple[int, int]]:
        """The number and the size of each stream that is held here."""
        found = self.rows("select id, name, size from stream where size > 0")
        return {row["name"]: (row["id"], row["size"]) for row in found}

    def entries(self, stream: int) -> list[sqlite3.Row]:
        low = stream << 40
        return self.rows(
            "select id, header, salt, body from entry where id between ? and ? order by id",
            low, low | _SEQ,
        )  # fmt: skip

    def close(self) -> None:
        self._database.close()


def shared(name: str, machine: Machine) -> bool:
    """Whether a machine is a member of this stream's scope."""
    stream = StreamName.parse(name)
    if stream.scope == "fleet" or stream.machine == machine.id:
        return True
    return stream.scope == f"to.{machine.id}"


def converged(fleet: Fleet) -> str:
    """Why the machines do not yet hold the same; "" when they do."""
    logs = [Log(machine) for machine in fleet.machines.values()]
    try:
        held = {log.machine.name: log.streams() for log in logs}
    finally:
        for log in logs:
            log.close()
    for name in sorted({name for streams in held.values() for name in streams}):
        sizes = {
            machine.name: held[machine.name].get(name, (0, 0))[1]
            for machine in fleet.machines.values()
            if shared(name, machine)
        }
        if len(set(sizes.values())) > 1:
            return f"{name[:12]}…{name.rpartition('/')[2][:12]}: {sizes}"
    return ""


def check_logs(fleet: Fleet, skips: frozenset[str] = EXPECTED_SKIPS) -> None:
    """Every log: contiguous, rightly signed, the same everywhere, and folded exactly once.

    `skips` are the reasons for which entries may count for nothing.
    """
    roots: dict[tuple[str, int], bytes] = {}
    for machine in fleet.machines.values():
        log = Log(machine)
        try:
            for name, (number, size) in log.streams().items():
                root = _check_stream(fleet, log, name, number, size)
                known = roots.setdefault((name, size), root)
                assert known == root, f"{name} differs on {machine.name} at the same size"
            _check_counts(log, skips)
        finally:
            log.close()


def _check_stream(fleet: Fleet, log: Log, name: str, number: int, size: int) -> bytes:
    stream = StreamName.parse(name)
    rows = log.entries(number)
    found = [row["id"] & _SEQ for row in rows]
    assert found == list(range(size)), (
        f"{name} on {log.machine.name} is not 0 to {size}: {found[-5:]}"
    )
    grown = Range()
    for seq, row in enumerate(rows):
        entry = parse(row["header"], row["salt"], row["body"])
        assert (entry.stream, entry.header.seq) == (stream, seq), f"{name}/{seq} is misplaced"
        grown.append(entry.id)
    seals = log.rows("select size, root, note, id from seal where id >> 40 = ?", number)
    assert any(row["size"] >= size for row in seals), f"{name} ends without a seal"
    public = _writer(fleet, stream.machine)
    for row in seals:
        seal = open_seal(row["note"], fleet.fleet, public)
        if seal.size == size:
            assert seal.root == grown.root(), f"the seal of {name} is of other entries"
    return grown.root()


def _writer(fleet: Fleet, machine: str) -> bytes:
    identity = next(m.identity for m in fleet.machines.values() if m.id == machine)
    assert isinstance(identity, Identity)
    return bytes.fromhex(identity.keys["seal"])


def _check_counts(log: Log, skips: frozenset[str]) -> None:
    """Each table has exactly one row for each entry that opens one."""
    kinds: Counter[tuple[int, str]] = Counter()
    for row in log.rows("select id, header from entry"):
        kinds[row["id"] >> 40, json.loads(row["header"])["kind"]] += 1
    for table, kind in (("message", "message.send"), ("task", "task.open"), ("run", "run.open"),
                        ("attempt", "attempt.start")):  # fmt: skip
        entries = Counter({stream: n for (stream, k), n in kinds.items() if k == kind})
        rows = Counter(
            {r[0]: r[1] for r in log.rows(f"select stream, count(*) from {table} group by 1")}
        )
        if table == "attempt":
            # A refusal has a row and no start.
            rows = Counter({r[0]: r[1] for r in log.rows(
                "select stream, count(*) from attempt where length(started) = 32 group by 1")})  # fmt: skip
        assert entries == rows, f"{log.machine.name}: {dict(entries)} {kind}, {dict(rows)} rows"
    skipped = log.rows("select reason, count(*) n from skipped group by 1")
    bad = {r["reason"]: r["n"] for r in skipped if r["reason"] not in skips}
    assert not bad, f"{log.machine.name} skipped entries: {bad}"


def check_acknowledged(fleet: Fleet, known: Acknowledged) -> None:
    """Whatever a client got an answer for is in the tables of every machine that should have it."""
    logs = {name: Log(machine) for name, machine in fleet.machines.items()}
    try:
        everywhere = {
            name: {row["id"].hex() for row in log.rows("select id from message")}
            for name, log in logs.items()
        }
        for each in known.messages.values():
            for name in (each.sender, each.receiver):
                assert each.id in everywhere[name], f"{name} lost a message it acknowledged: {each}"
        for name, log in logs.items():
            _check_keys(log)
            tasks = {r["task"]: r["state"] for r in log.rows("select task, state from task")}
            lost = known.tasks - set(tasks)
            assert not lost, f"{name} lost {len(lost)} acknowledged tasks: {sorted(lost)[:3]}"
            wrong = {t: s for t, s in tasks.items() if s != "done"}
            assert not wrong, f"{name}: tasks that are not done: {list(wrong.items())[:5]}"
            runs = {r["run"]: r["state"] for r in log.rows("select run, state from run")}
            assert set(known.runs) <= set(runs), f"{name} lost a run"
            assert set(runs.values()) <= {"done"}, f"{name}: {runs}"
    finally:
        for log in logs.values():
            log.close()


def _check_keys(log: Log) -> None:
    """However often it was asked for: one entry for each key, in the bytes, not in a table."""
    sent = log.rows(
        "select id >> 40 stream, json_extract(cast(body as text), '$.key') key, count(*) n from entry"
        " where json_extract(cast(header as text), '$.kind') = 'message.send' group by 1, 2"
    )
    twice = [tuple(row) for row in sent if row["key"] and row["n"] > 1]
    assert not twice, f"{log.machine.name} has a message twice: {twice}"


def git(repo: Path, *args: str) -> str:
    done = subprocess.run(["git", *args], cwd=repo, capture_output=True, check=False)
    assert done.returncode == 0, f"git {' '.join(args)}: {done.stderr.decode()}"
    return done.stdout.decode()


def check_repository(fleet: Fleet, repo: Path, known: Acknowledged) -> None:
    """One promoted commit per phase, the settled one, under the fence's epoch; nothing else."""
    log = Log(fleet.hub)
    try:
        tasks = log.rows(
            "select run, phase, task, commit_id, epoch_order, epoch_count from task where run != ''"
        )
        assigned = {
            (r["task"], r["epoch_order"], r["epoch_count"]): r["machine"]
            for r in log.rows("select distinct task, epoch_order, epoch_count, machine from task_hist "
                              "where length(assigned) = 32 and state = 'leased'")
        }  # fmt: skip
    finally:
        log.close()
    listed = git(
        repo,
        "for-each-ref",
        "--format=%(objectname) %(refname)",
        "refs/heads/muster",
        "refs/muster",
    )
    refs = {line.split(" ")[1]: line.split(" ")[0] for line in listed.splitlines()}
    expected = {f"refs/heads/muster/{run}/{phase}" for run in known.runs for phase in PHASES}
    promoted = {ref for ref in refs if ref.startswith("refs/heads/muster/")}
    assert promoted == expected, f"branches that differ: {sorted(promoted ^ expected)}"
    for row in tasks:
        branch = f"refs/heads/muster/{row['run']}/{row['phase']}"
        epoch = Epoch(row["epoch_order"], row["epoch_count"])
        moves = git(repo, "reflog", "show", "--format=%H", branch).split()
        assert moves == [row["commit_id"]], f"{branch} moved {len(moves)} times: {moves}"
        fence = fence_epoch(
            git(repo, "cat-file", "blob", f"refs/muster/fence/{row['task']}").encode()
        )
        assert fence == epoch, f"the fence of {row['task']} is {fence}, settled was {epoch}"
        attempts = {
            r: c for r, c in refs.items() if r.startswith(f"refs/muster/attempt/{row['task']}/")
        }
        assert attempts.get(f"refs/muster/attempt/{row['task']}/{epoch}") == row["commit_id"]
        for ref in attempts:
            order, count = map(int, re.findall(r"(\d+)-(\d+)$", ref)[0])
            assert (order, count) <= epoch, f"{ref} is beyond its fence {fence}"
            assert (row["task"], order, count) in assigned, f"{ref} was pushed but never assigned"
        promised = PROMISED[row["phase"]].format(name=known.runs[row["run"]])
        text = git(repo, "show", f"{branch}:{promised}")
        assert text, f"{branch} does not have {promised}"


def check_notes(notes: Path) -> None:
    """No epoch of a task was ever begun twice."""
    lines = notes.read_text().split("\n") if notes.exists() else []
    begun = Counter(line for line in lines if line)
    twice = {line: n for line, n in begun.items() if n > 1}
    assert not twice, f"attempts that ran twice: {twice}"


def check_refold(machine: Machine) -> None:
    """Folding everything anew gives the tables that are there. The daemon must be stopped."""
    store = Store(
        machine.home.database, fleet=machine.fleet.fleet, machine=machine.id,
        rng=lambda n: b"\0" * n, folds=all_folds(machine.fleet.fleet, PARTS),
    )  # fmt: skip
    try:
        before = _digests(store)
        for _ in store.rebuild():
            pass
        assert _digests(store) == before, f"the tables of {machine.name} are not what its log says"
    finally:
        store.close()


def _digests(store: Store) -> dict[str, list[tuple[Any, ...]]]:
    tables = [t for fold in all_folds(store.fleet, PARTS) for t in fold.tables]
    return {t.name: sorted(map(repr, store.tables.rows(t, limit=10_000_000))) for t in tables}  # type: ignore[misc]
