"""The one file that talks to SQLite: a connection whose commits are durable or fatal.

Rule 1: one connection writes, and it also checkpoints; everybody else opens `readonly`.
Rule 2: when `commit` returns, the bytes are on the platter (WAL, synchronous=FULL, fullfsync).
Rule 3: after a failed write nothing is retried on this connection. A failed fsync may have
        dropped the dirty pages, so a second fsync that succeeds proves nothing (fsyncgate).
Rule 4: a disk without room is no failed disk. The transaction is gone and nothing else: of the
        write-ahead log only what was synced before counts, and the next commit writes over what
        this one left. So it raises Exhausted, and the connection goes on.

SQLite before 3.51.3 can corrupt a WAL database when two connections write and checkpoint at the
same moment. Rule 1 keeps us out of that already; refusing the version is the second fence.
"""

import contextlib
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any, Final

import apsw

from muster.errors import NO_ROOM, USED_UP, Broken, Exhausted, MusterError
from muster.limits import PAGES_CACHED_KIB
from muster.store.slack import Slack

SqlValue = None | int | float | bytes | str

MEMORY: Final = ":memory:"
SQLITE_VERSION_MIN: Final = (3, 51, 3)
_TOKENIZER: Final = ("porter", "unicode61", "remove_diacritics", "2")
# How texts are cut into words, for a table of them.
TOKENIZE: Final = " ".join(_TOKENIZER)
# 4000 pages are 16 MB: the checkpoint pause stays near 10 ms and the WAL stays small.
WAL_PAGES_BEFORE_CHECKPOINT: Final = 4000

# These say that the file or the disk is not to be trusted; all others are our own mistakes in SQL.
_DISK_ERRORS: Final = (
    apsw.IOError,
    apsw.FullError,
    apsw.CorruptError,
    apsw.NotADBError,
    apsw.ReadOnlyError,
    apsw.CantOpenError,
    apsw.NoMemError,
)


def as_int(value: SqlValue) -> int:
    """Return the value of a column declared `int not null`."""
    assert isinstance(value, int), "strict tables hold what is declared"
    return value


def as_text(value: SqlValue) -> str:
    """Return the value of a column declared `text not null`."""
    assert isinstance(value, str), "strict tables hold what is declared"
    return value


def as_bytes(value: SqlValue) -> bytes:
    """Return the value of a column declared `blob not null`."""
    assert isinstance(value, bytes), "strict tables hold what is declared"
    return value


def check_version(version: str | None = None) -> None:
    """Refuse a SQLite that can corrupt a database.

    Raises: Broken: it is older than `SQLITE_VERSION_MIN`.
    """
    text = version or apsw.sqlite_lib_version()
    if tuple(int(part) for part in text.split(".")[:3]) < SQLITE_VERSION_MIN:
        need = ".".join(str(part) for part in SQLITE_VERSION_MIN)
        raise Broken(
            f"SQLite {text} can corrupt its write-ahead log; "
            f"install an apsw that bundles {need} or newer."
        )


class Database:
    """One connection to one database file, or to memory."""

    def __init__(
        self,
        path: Path | str,
        *,
        readonly: bool = False,
        image: bytes | None = None,
        derived: bool = False,
    ) -> None:
        """`derived` is what can be made again: a power cut may take its last commits.

        Raises: Broken: it does not open. Exhausted: there is no room to.
        """
        check_version()
        self.path = str(path)
        self.broken: str | None = None
        self.in_memory = self.path == MEMORY
        self._wal_pages = 0
        # A transaction was begun of which SQLite has not heard yet.
        self._begins = False
        self._stemmer: Any = None
        # Why the transaction that is open cannot be committed any more.
        self._without_room: Exhausted | None = None
        flags = apsw.SQLITE_OPEN_READONLY if readonly else _WRITE_FLAGS
        try:
            # 200 statements: every fold table has about six of its own.
            self._connection = apsw.Connection(self.path, flags=flags, statementcachesize=200)
            if image is not None:
                # Memory has no write-ahead log: bytes 18 and 19 of the header say so.
                plain = image[:18] + b"\x01\x01" + image[20:]
                self._connection.deserialize("main", plain)
            self._configure(readonly, derived)
        except apsw.Error as error:
            what = f"The database {self.path} does not open ({error}); "
            if self._has_no_room(error):
                raise Exhausted(what + "free some disk space.") from error
            raise Broken(
                what + "check the disk, the permissions and that it is a Muster log."
            ) from error

    def _configure(self, readonly: bool, derived: bool) -> None:
        connection = self._connection
        connection.set_busy_timeout(5_000)
        connection.pragma("cache_size", -PAGES_CACHED_KIB)
        connection.pragma("mmap_size", 0)
        # A question must not fail because the disk is full.
        connection.pragma("temp_store", 2)
        if readonly:
            connection.pragma("query_only", True)
            return
        connection.pragma("page_size", 4096)
        if not self.in_memory:
            mode = connection.pragma("journal_mode", "wal")
            if mode != "wal":
                raise Broken(
                    f"The database {self.path} is on a disk without shared memory ({mode}); "
                    "move the home of Muster to a local disk."
                )
            connection.pragma("fullfsync", True)
            connection.pragma("checkpoint_fullfsync", True)
            connection.set_wal_hook(self._on_wal_commit)
        connection.pragma("synchronous", "NORMAL" if derived else "FULL")
        connection.pragma("trusted_schema", False)

    def _on_wal_commit(self, _connection: apsw.Connection, _name: str, pages: int) -> int:
        self._wal_pages = pages
        return apsw.SQLITE_OK

    def spill(self, *, allowed: bool) -> None:
        """Whether a large transaction may begin to write before its commit, to save memory.

        Where it may not, a full disk is met at the commit and nowhere else.
        """
        self._connection.pragma("cache_spill", allowed)

    def begin(self) -> None:
        """Start a write transaction; SQLite hears of it with the first change, if there is one."""
        self._without_room = None
        self._refuse_when_broken()
        self._begins = True

    def commit(self) -> None:
        """Make everything since `begin` durable.

        Raises: Broken: it may or may not be on disk; only opening the database anew will tell.
            Exhausted: there is no room for it, and nothing of it is on disk.
        """
        if self._begins:
            # Nothing was written.
            self._begins = False
            return
        self.execute("commit")
        if self._wal_pages > WAL_PAGES_BEFORE_CHECKPOINT:
            # What was committed is safe in the log; it moves when there is room.
            with contextlib.suppress(Exhausted):
                self.checkpoint("PASSIVE")

    def erase_securely(self) -> None:
        """From now on what is deleted is overwritten where it lies."""
        self._connection.pragma("secure_delete", True)

    def stems(self, raw: bytes) -> list[tuple[int, int, str]]:
        """Return the words of a text in UTF-8: where each stands, and under what it is found."""
        if self._stemmer is None:
            self._stemmer = self._connection.fts5_tokenizer(_TOKENIZER[0], [*_TOKENIZER[1:]])
        found: list[tuple[int, int, str]] = self._stemmer(raw, apsw.FTS5_TOKENIZE_QUERY, None)
        return found

    def changes(self) -> int:
        """Return how many rows this connection has ever changed."""
        return self._connection.total_changes()

    def rollback(self) -> None:
        """Forget everything since `begin`; harmless when SQLite already did so by itself."""
        self._begins = False
        self._without_room = None
        if self._connection.in_transaction:
            try:
                self._connection.execute("rollback")
            except apsw.Error as error:
                self.broken = str(error)

    def execute(self, sql: str, bindings: Sequence[SqlValue] = ()) -> None:
        """Run a statement that changes something."""
        self._refuse_when_broken()
        try:
            if self._begins:
                self._connection.execute("begin immediate")
                self._begins = False
            self._connection.execute(sql, bindings)
        except apsw.Error as error:
            raise self._failed(error) from error

    def executemany(self, sql: str, rows: Iterable[Sequence[SqlValue]]) -> None:
        """Run a changing statement once per row."""
        self._refuse_when_broken()
        try:
            if self._begins:
                self._connection.execute("begin immediate")
                self._begins = False
            self._connection.executemany(sql, rows)
        except apsw.Error as error:
            raise self._failed(error) from error

    def query(self, sql: str, bindings: Sequence[SqlValue] = ()) -> list[tuple[SqlValue, ...]]:
        """Return all rows; still answers what it can when writing is refused.

        Raises: Broken, Exhausted: the disk. AssertionError: the question is no question, or what
            somebody typed made none of it; that is our mistake, and no disk is the worse for it.
        """
        try:
            return self._connection.execute(sql, bindings).fetchall()
        except _DISK_ERRORS as error:
            raise self._failed(error) from error
        except apsw.Error as error:
            raise AssertionError(f"The query does not run ({error}): {sql}") from error

    def checkpoint(self, mode: str) -> bool:
        """Move the write-ahead log into the database; TRUNCATE when idle, PASSIVE under load.

        False where a reader holds old pages: the next checkpoint moves them.
        """
        if self.in_memory:
            return True
        self._refuse_when_broken()
        number = {"PASSIVE": 0, "TRUNCATE": 3}[mode]
        try:
            self._connection.wal_checkpoint("main", mode=number)
        except apsw.BusyError:
            return False
        except apsw.Error as error:
            failed = self._failed(error)
            # No transaction is open that this could have spoiled.
            self._without_room = None
            raise failed from error
        self._wal_pages = 0
        return True

    def scrub(self, start: int, pages: int) -> int:
        """Overwrite what holds no data (slack.py) in so many pages from number `start` on.

        Call it between transactions. Returns where to go on, 0 where all is done: `start` where a
        reader holds old pages. It writes unused bytes only, so a crash in the middle harms nothing.
        """
        if self.in_memory:
            return 0
        if not self.checkpoint("TRUNCATE"):
            return start
        try:
            # A page that is kept in memory would be written again as it was.
            self._connection.pragma("shrink_memory")
            # Through SQLite's own files: to close another one would end the locks on this one.
            file = apsw.VFSFile("", self.path, [_PAGES_FLAGS, 0])
            try:
                slack, wrote = Slack(file.xRead), False
                end = min(start + pages, slack.pages + 1)
                for number in range(start, end):
                    for span in slack.of(number):
                        length = span.end - span.start
                        if file.xRead(length, span.start).count(0) < length:
                            file.xWrite(bytes(length), span.start)
                            wrote = True
                if wrote:
                    file.xSync(apsw.SQLITE_SYNC_FULL)
            finally:
                file.xClose()
        except apsw.Error as error:
            raise self._failed(error) from error
        return end if end <= slack.pages else 0

    def image(self) -> bytes:
        """Return the whole committed database as bytes, to be given back as `image`."""
        raw = self._connection.serialize("main")
        assert raw is not None, "main is always there"
        return raw

    def close(self) -> None:
        """Close the connection; an open transaction is forgotten."""
        try:
            self._connection.close(True)
        except apsw.Error as error:
            self.broken = str(error)

    def _refuse_when_broken(self) -> None:
        if self.broken is not None:
            raise Broken(
                f"The database {self.path} failed before ({self.broken}) and takes no more; "
                "check the disk, then start Muster again."
            )
        if self._without_room is not None:
            # SQLite may have rolled back by itself: a statement would now be a transaction alone.
            raise Exhausted(str(self._without_room))

    def _has_no_room(self, error: apsw.Error) -> bool:
        if isinstance(error, apsw.FullError | apsw.NoMemError):
            return True
        connection = getattr(self, "_connection", None)
        number = 0 if connection is None else connection.system_errno
        if isinstance(error, apsw.CantOpenError):
            return number in USED_UP
        return isinstance(error, apsw.IOError) and number in NO_ROOM

    def _failed(self, error: apsw.Error) -> MusterError:
        if self._has_no_room(error):
            self._without_room = Exhausted(
                f"The disk with {self.path} is full ({error}): nothing was written. "
                "Free some space; Muster goes on by itself."
            )
            return self._without_room
        self.broken = f"{type(error).__name__}: {error}"
        return Broken(
            f"Writing to the database {self.path} failed ({self.broken}); "
            "check the disk and its free space, then start Muster again."
        )


_WRITE_FLAGS: Final = apsw.SQLITE_OPEN_READWRITE | apsw.SQLITE_OPEN_CREATE
_PAGES_FLAGS: Final = apsw.SQLITE_OPEN_READWRITE | apsw.SQLITE_OPEN_MAIN_DB
