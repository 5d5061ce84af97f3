"""What the disk and the kernel can do to a store: kill, tear, fill up, rot."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import apsw
import pytest
from tests.digest import tables_digest
from tests.promise import proves
from tests.store.world import NOTE, NOW_MS, OWNER, Machine, job, note

from muster.errors import Broken
from muster.store import sqlite
from muster.store.store import Store

ROOT = Path(__file__).parents[2]

# Prints the size after each commit that returned; killed at any moment.
WRITER = """
import sys
from tests.store.world import Machine, job, note
a = Machine(1, sys.argv[1])
print("ready", flush=True)
while True:
    a.write(a.fleet, job(f"j{a.store.log.size(a.fleet) % 5}", "open"), note("x" * 500))
    print(a.store.log.size(a.fleet), flush=True)
"""


def whole(machine):
    """Every entry is there, proved, folded once, and sealed."""
    store = machine.store
    size = store.log.size(machine.fleet)
    assert store.log.root_at(machine.fleet, size) == store.log.state(machine.fleet).range.root()
    digest = tables_digest(store)
    assert len(store.tables.rows(NOTE)) == size // 2
    list(store.rebuild())
    assert tables_digest(store) == digest
    assert store.tables.query("pragma integrity_check") == [("ok",)]
    assert size == 0 or store.log.seal_of(machine.fleet).size == size
    return size


@proves("store.kill")
@pytest.mark.parametrize("delay_ms", [1, 15, 40, 80, 130])
def test_a_killed_writer_loses_no_committed_entry(tmp_path, delay_ms):
    path = tmp_path / "log.db"
    env = {**os.environ, "PYTHONPATH": f"{ROOT}:{ROOT / 'src'}"}
    with subprocess.Popen(
        [sys.executable, "-c", WRITER, str(path)], stdout=subprocess.PIPE, env=env, cwd=ROOT
    ) as writer:
        assert writer.stdout.readline() == b"ready\n"
        time.sleep(delay_ms / 1000)  # real time is what is tested here
        writer.send_signal(signal.SIGKILL)
        told = [int(line) for line in writer.stdout.read().split(b"\n")[:-1]]
    a = Machine(1, path)
    assert whole(a) in {max(told, default=0), max(told, default=0) + 2}
    a.write(a.fleet, note("on"), job("x", "open"))
    a.store.close()


@proves("store.torn")
def test_a_torn_log_opens_at_the_last_whole_commit(tmp_path):
    a = Machine(1, tmp_path / "log.db")
    sizes = [0]
    wal = tmp_path / "log.db-wal"
    for _ in range(5):
        a.write(a.fleet, note("x"), job("y", "open"))
        sizes.append(wal.stat().st_size)
    database, log = (tmp_path / "log.db").read_bytes(), wal.read_bytes()
    a.store.close()
    for number, cut in enumerate((sizes[3] - 1, sizes[3], sizes[3] + 5000, sizes[4] - 4097)):
        folder = tmp_path / str(number)
        folder.mkdir()
        (folder / "log.db").write_bytes(database)
        (folder / "log.db-wal").write_bytes(log[:cut])
        torn = Machine(1, folder / "log.db")
        assert whole(torn) == (4 if cut < sizes[3] else 6)
        torn.store.close()


@proves("store.broken")
def test_a_failed_commit_is_never_tried_again(monkeypatch):
    a = Machine(1)
    a.write(a.fleet, note("x"))
    execute = apsw.Connection.execute

    class Failing:
        """The connection, whose fsync fails once."""

        def __init__(self, real):
            self.real = real

        def execute(self, sql, bindings=()):
            if sql == "commit":
                raise apsw.IOError("disk I/O error")
            return execute(self.real, sql, bindings)

        def __getattr__(self, name):
            return getattr(self.real, name)

    real = a.store._database._connection
    a.store._database._connection = Failing(real)
    with pytest.raises(Broken):
        a.write(a.fleet, note("lost"))
    a.store._database._connection = real
    with pytest.raises(Broken, match="start Muster again"):
        a.write(a.fleet, note("more"))


@proves("store.rot")
@pytest.mark.parametrize("column", ["header", "body"])
def test_an_entry_that_rotted_is_reported_and_never_served(tmp_path, column):
    a = Machine(1, tmp_path / "log.db")
    a.write(a.fleet, note("x"), note("y"), note("z"))
    a.store.close()
    raw = apsw.Connection(str(tmp_path / "log.db"))
    raw.execute(
        f"update entry set {column} = cast(replace({column}, '}}', ']') as blob) where id & 1 = 1"
    )
    raw.close()
    b = Machine(1, tmp_path / "log.db")
    with pytest.raises(Broken, match=r"entry 1 of .* rotted"):
        b.store.log.segment(b.fleet, 0)
    with pytest.raises(Broken, match="rotted"):
        b.store.log.entry_at(b.fleet, 1)
    assert b.store.log.entry_at(b.fleet, 0).header.seq == 0
    b.store.close()


@proves("store.old-sqlite")
def test_an_old_sqlite_is_refused():
    sqlite.check_version()
    sqlite.check_version("3.51.3")
    for version in ("3.40.1", "3.51.2"):
        with pytest.raises(Broken, match=r"SQLite .* can corrupt .*; install an apsw"):
            sqlite.check_version(version)


@proves("store.old-sqlite")
def test_a_database_of_a_newer_muster_is_refused(tmp_path):
    a = Machine(1, tmp_path / "log.db")
    a.store._database.execute("pragma user_version = 9")
    a.store.close()
    with pytest.raises(Broken, match="format 9"):
        Machine(1, tmp_path / "log.db")


@proves("store.rot")
def test_a_header_that_rotted_into_another_fine_one_is_not_served_either(tmp_path):
    a = Machine(1, tmp_path / "log.db")
    a.write(a.fleet, note("x"), note("y"), note("z"))
    a.store.close()
    raw = apsw.Connection(str(tmp_path / "log.db"))
    raw.execute(
        "update entry set header = cast(replace(header, 'note.', 'nota.') as blob) where id & 1 = 1"
    )
    raw.close()
    b = Machine(1, tmp_path / "log.db")
    with pytest.raises(Broken, match=r"entry 1 of .* rotted"):
        b.store.log.entry_at(b.fleet, 1)
    assert b.store.log.entry_at(b.fleet, 2).header.seq == 2
    b.store.close()


def test_what_is_no_database_is_refused_in_one_sentence(tmp_path):
    (tmp_path / "log.db").write_bytes(b"not a database at all" * 400)
    with pytest.raises(Broken, match="does not open"):
        Machine(1, tmp_path / "log.db")
    with pytest.raises(Broken, match="does not open"):
        Machine(1, tmp_path / "nowhere" / "log.db")


def test_a_reader_sees_commits_and_cannot_write(tmp_path):
    a = Machine(1, tmp_path / "log.db")
    a.write(a.fleet, note("x"))
    reader = sqlite.Database(tmp_path / "log.db", readonly=True)
    assert reader.query("select text from note") == [("x",)]
    with pytest.raises(Broken):
        reader.execute("delete from note")
    a.write(a.fleet, note("y"))
    a.store.idle()
    assert len(reader.query("select text from note")) == 2
    reader.close()
    a.store.close()


def test_the_write_ahead_log_is_folded_in_when_idle(tmp_path):
    a = Machine(1, tmp_path / "log.db")
    a.write(a.fleet, *[note("x" * 1000)] * 50)
    assert (tmp_path / "log.db-wal").stat().st_size > 50_000
    a.store.idle()
    assert (tmp_path / "log.db-wal").stat().st_size == 0
    a.store.close()


def test_opening_does_not_need_the_folds(tmp_path):
    a = Machine(1, tmp_path / "log.db")
    a.write(a.fleet, note("x"))
    a.store.close()
    bare = Store(tmp_path / "log.db", fleet=OWNER, machine=a.id, rng=a.random.randbytes)
    assert bare.log.size(a.fleet) == 1
    assert bare.log.admitted(a.fleet, 0) == (0, NOW_MS + 1)
    bare.close()
