"""The store: everything a machine remembers, in one database, changed only in transactions.

Rule 1: entries, the tables folded from them, heads and seals commit together or not at all. That
        is what makes delivery exactly once.
Rule 2: nothing leaves this machine before `transaction` returned: a crash may forget, it may never
        equivocate.
Rule 3: one seal per stream and commit, never per entry.
Rule 4: after a failed commit the store refuses to write; what is true is on the disk, and only
        opening it anew will tell.
Rule 5: a commit for which the disk has no room is no failure: it is tried again when there is. A
        patient transaction waits for that as it stands: its own reads see it, nothing else may be
        written, and nobody hears of it before `recommit` returned.

    with store.transaction():
        store.append(journal, [Draft("note.put", "muster", (), b"{}")], now_ms)
        store.take(taken, now_ms)
        seals = store.seal_dirty(signer)
    # here it is durable

The store is synchronous and belongs to one thread. It reads no clock: time comes as an argument.
"""

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import NamedTuple

from muster.errors import Conflict, Exhausted, NotFound
from muster.limits import SALT_BYTES
from muster.log import clock
from muster.log.admit import Taken
from muster.log.clock import Stamp
from muster.log.entry import Entry, EntryId, compose
from muster.log.fold import Fold
from muster.log.keys import Signer
from muster.log.seal import Cosign, Seal, make_seal
from muster.log.stream import FleetId, MachineId, StreamName
from muster.log.tree import Range
from muster.store.contents import Contents
from muster.store.log_reader import LogReader
from muster.store.schema import pack
from muster.store.sqlite import MEMORY, SqlValue, as_int
from muster.store.streams import Head
from muster.store.table_reader import TableReader
from muster.store.tree import StreamTree

# A refold at opening reads this many entries of a run at a time.
REFOLD_ENTRIES = 1000

# The setting that counts what was erased since the last scrubbing.
_COPIES = "erased"

_NO_ROOM = (
    "the disk of this machine is full, so nothing can be written now; free some space, "
    "and Muster goes on by itself"
)


class Draft(NamedTuple):
    """An entry to be: `body` is canonical JSON."""

    kind: str
    actor: str
    cause: Sequence[EntryId]
    body: bytes


class Store:
    """A fleet's streams as one machine holds them: `log` reads them, `tables` what they mean."""

    def __init__(
        self,
        path: Path | str,
        *,
        fleet: FleetId,
        machine: MachineId,
        rng: Callable[[int], bytes],
        folds: Sequence[Fold] = (),
        image: bytes | None = None,
    ) -> None:
        """Open the database at `path` (`:memory:` for none), or the one in `image`.

        `rng` gives that many random bytes. Folds that are new or changed are folded now.

        Raises: Broken: the database does not open, is of a newer Muster, or SQLite is too old.
        """
        self.fleet = fleet
        self.machine = machine
        self._rng = rng
        self._contents = contents = Contents(path, folds, image)
        self.log, self.tables = LogReader(contents), TableReader(contents)
        self._database, self._streams = contents.database, contents.streams
        self._admission, self._folding = contents.admission, contents.folding
        self._index, self._cosigns = contents.index, contents.cosigns
        # What this transaction did, each ready to be done once more; see `undo`.
        self._done: list[Callable[[], object]] = []
        self._changes = 0
        self._open = False
        # A patient transaction waits for room.
        self.waits = False
        # There is little room: nothing new is to be begun. Whoever can see the disk says so.
        self.low = False
        # What `_COPIES` was when the scrubbing began.
        self._erased_before: SqlValue = None
        self._stamp = clock.ZERO
        self._unsealed: dict[int, Head] = {}
        self._load_own()
        with self.transaction():
            fresh = self._folding.changed()
            if fresh and self._admission.next:
                for _ in self._folding.refold(self._admission, self._run_entries, only=fresh):
                    pass
        self._database.spill(allowed=False)

    # --- transactions ------------------------------------------------------------------------

    @contextmanager
    def transaction(self, *, patient: bool = False) -> Iterator[None]:
        """Make everything inside durable on leaving, or nothing of it when it raises.

        Raises: Broken: the disk failed; nothing is certain and nothing more is written.
            Exhausted: the disk is full. A `patient` transaction `waits` then for `recommit`; of
            any other nothing is left.
        """
        assert not self._open, "transactions do not nest"
        if self.waits:
            raise Exhausted(_NO_ROOM)
        self._database.begin()
        self._index.begin()
        self._changes = self._database.changes()
        self._open = True
        done = False
        try:
            yield
            waiting = list(self._cosigns.waiting.values())
            self._flush()
            try:
                self._database.commit()
            except Exhausted:
                if patient:
                    self._wait_for_room(waiting)
                raise
            done = True
        finally:
            self._open = False
            if not self.waits:
                self._done.clear()
                if not done:
                    self._forget()
        self._folding.trim()

    def _wait_for_room(self, waiting: list[Cosign]) -> None:
        """Do all of a transaction again but its commit, which took it back."""
        self._open = True
        again, self._done, stamp = self._done, [], self._stamp
        self._forget()
        self._database.begin()
        for step in again:
            step()
        for cosign in waiting:
            self.put_cosign(cosign)
        self._stamp = stamp
        self._flush()
        self.waits = True

    def recommit(self) -> None:
        """Commit the transaction that `waits`, now that there may be room.

        Raises: Exhausted: there is none yet. Broken: the disk failed.
        """
        assert self.waits, "nothing waits for room"
        try:
            self._database.commit()
        except Exhausted:
            self._wait_for_room([])
            raise
        finally:
            self._open = False
        self.waits = False
        self._done.clear()
        self._folding.trim()

    def check_room(self) -> None:
        """Raises: Exhausted where nothing new is to be begun: there is too little room for it."""
        if self.waits or self.low:
            raise Exhausted(_NO_ROOM)

    def _check_open(self, what: str) -> None:
        if self.waits and not self._open:
            raise Exhausted(_NO_ROOM)
        assert self._open, f"{what} belongs into a transaction"

    def mark(self) -> tuple[int, Stamp]:
        """This moment of the transaction, to which `undo` leads back. It costs next to nothing."""
        return len(self._done), self._stamp

    def undo(self, mark: tuple[int, Stamp]) -> None:
        """Take back what this transaction did after `mark`; call it before any `seal_dirty`.

        All is rolled back and what came before done again: a savepoint would cost everybody.
        """
        self._check_open("undoing")
        kept, stamp = mark
        waiting = list(self._cosigns.waiting.values())
        again, self._done = self._done[:kept], []
        self._forget()
        self._database.begin()
        for step in again:
            step()
        for cosign in waiting:  # what others vouched for is true still
            self.put_cosign(cosign, may_wait=True)
        self._stamp = stamp

    def _flush(self) -> None:
        self._contents.settle()
        self._folding.flush()
        self._streams.flush()
        self._admission.flush()
        self._index.flush()
        self._cosigns.flush(writes=self._database.changes() != self._changes)

    def _forget(self) -> None:
        self._database.rollback()
        self._contents.cache.clear()
        self._cosigns.forget()
        self._contents.roots.clear()
        self._contents.tiles.cache.clear()
        self._folding.forget()
        if self._database.broken is None:
            self._streams.load()
            self._admission.load()
            self._index.forget()
            self._load_own()

    def _load_own(self) -> None:
        """Find our clock and our streams without a seal.

        The clock is later than all that was written here, and than what was taken in, as far as it
        was heard. It is read off the newest entries: to remember it would cost each commit a page.
        """
        stamp = clock.ZERO
        for head in self._streams.heads.values():
            for entry in self.log.read(head.id, head.held - 1, 1) if head.held else ():
                if head.name.machine == self.machine:
                    stamp = max(stamp, entry.stamp)
                    continue
                admitted = self._admission.of(head.id, head.held - 1)
                stamp = clock.merge(stamp, entry.stamp, admitted[1] if admitted else 0)
        self._stamp = stamp
        self._unsealed = {
            head.id: head
            for head in self._streams.heads.values()
            if head.name.machine == self.machine
            and head.frozen is None
            and head.size > (head.tip.size if head.tip else 0)
        }

    # --- our own streams -----------------------------------------------------------------------

    def append(self, stream: StreamName, drafts: Sequence[Draft], now_ms: int) -> list[Entry]:
        """Add entries to a stream of ours; durable, and to be sent, only after the transaction.

        Raises: Conflict: the stream is another machine's, or forked.
            Malformed: a draft makes no entry; nothing was added.
        """
        self._check_open("append")
        if stream.machine != self.machine:
            raise Conflict(f"The stream {stream} is written by its own machine only.")
        head = self._streams.open(stream)
        if head.frozen is not None:
            raise Conflict(f"The stream {stream} forked; open a new incarnation.")
        salts = self._rng(SALT_BYTES * len(drafts))
        stamp = self._stamp
        entries = []
        salt_at = 0
        for seq, draft in enumerate(drafts, head.size):
            stamp = clock.tick(stamp, now_ms)
            salt = salts[salt_at : salt_at + SALT_BYTES]
            salt_at += SALT_BYTES
            entries.append(
                compose(stream, seq, stamp, draft.kind, draft.actor, draft.cause, draft.body, salt)
            )
        self._stamp = stamp
        self._write(stream, entries, now_ms)
        return entries

    def _write(self, stream: StreamName, entries: list[Entry], now_ms: int) -> None:
        head = self._streams.open(stream)
        after = head.range
        for entry in entries:
            after.append(entry.id)
        if head.fresh and head.fresh_ms != now_ms:
            self._contents.settle_stream(head)
        self._streams.grow(head, entries, after, now_ms)
        self._unsealed[head.id] = head
        self._done.append(partial(self._write, stream, entries, now_ms))

    def seal_dirty(self, signer: Signer) -> list[Seal]:
        """Seal every stream of ours that grew; call it last in the transaction."""
        self._check_open("sealing")
        seals = []
        for head in self._unsealed.values():
            # Receipts will come for this very size, when the stream may have moved on.
            root = self.log.root_at(head.name, head.size)
            seals.append(make_seal(self.fleet, head.name, head.size, root, signer))
        for seal in seals:
            self._keep_own(seal)
        return seals

    def _keep_own(self, seal: Seal) -> None:
        head = self._streams.open(seal.stream)
        self._streams.seal(head, seal)
        self._unsealed.pop(head.id, None)
        self._done.append(partial(self._keep_own, seal))

    # --- other machines' streams -----------------------------------------------------------------

    def take(self, taken: Taken, now_ms: int) -> None:
        """Keep entries that `admit` let in, with the seal that came with them.

        Raises: Conflict: the stream moved since `admit` looked; admit the segment again.
        """
        self._check_open("take")
        head = self._streams.open(taken.stream)
        if head.size != taken.start:
            raise Conflict(f"The stream {taken.stream} moved on; admit the segment again.")
        if head.fresh:
            self._contents.settle_stream(head)
        self._streams.grow(head, taken.entries, taken.after, now_ms)
        self._stamp = clock.merge(self._stamp, taken.entries[-1].stamp, now_ms)
        self._streams.settle_seals(head)
        if taken.seal.size == head.size:
            self._streams.seal(head, taken.seal)
        else:
            self._streams.seal_prefix(head, taken.seal, taken.proof)
        self._done.append(partial(self.take, taken, now_ms))

    def put_seal(self, seal: Seal) -> bool:
        """Keep a checked seal, also of a stream that is not held; False when it is not newer."""
        self._check_open("keeping a seal")
        self._done.append(partial(self.put_seal, seal))
        return self._streams.seal(self._streams.open(seal.stream), seal)

    def put_cosign(self, cosign: Cosign, *, may_wait: bool = False) -> bool:
        """Keep a checked cosign; False when a larger one of its machine and strength is kept.

        Of a stream of which nothing is here it is not kept: anybody may cosign what is nowhere.

        Another machine's `may_wait` for the next transaction that writes: see `Cosigns`.
        """
        self._check_open("keeping a cosign")
        head = self._streams.heads.get(cosign.stream)
        if head is None:
            return False
        self._done.append(partial(self.put_cosign, cosign, may_wait=may_wait))
        return self._cosigns.put(head, cosign, may_wait=may_wait)

    @property
    def needs_tick(self) -> bool:
        """Whether something waits for a transaction that writes, or for `flush_cosigns`."""
        return bool(self._cosigns.waiting)

    def flush_cosigns(self) -> None:
        """Write with this transaction what waited for one; call it now and then."""
        self._cosigns.due |= self.needs_tick

    # --- rare ------------------------------------------------------------------------------------

    def freeze(
        self,
        stream: StreamName,
        common: int,
        evidence: bytes,
        now_ms: int,
        branch: Sequence[Entry] = (),
    ) -> bool:
        """Cut a forked stream back to its first `common` entries and let it grow no more.

        Both branches stay: ours beyond `common` (`entry_at` still gives it), the other one as far
        as `branch` has it. False when the stream was frozen there, or earlier, before.
        """
        self._check_open("freezing")
        head = self._streams.open(stream)
        if head.frozen is not None and head.frozen <= common:
            return False
        self._contents.settle()
        self._contents.roots.clear()
        size = min(common, head.size)
        before = self._admission.of(head.id, size - 1) if size else None
        number = self._admission.add(now_ms, head.id, size, 0)
        if size < head.size:
            self._folding.cut_back(head.id, size, before[0] if before else -1, number)
        tree, packed, start = (
            StreamTree(self._contents.tiles, head.id),
            [size.to_bytes(8, "big")],
            0,
        )
        for level in range(size.bit_length() - 1, -1, -1):
            if size >> level & 1:
                packed.append(tree.subtree(level, start >> level))
                start += 1 << level
        self._streams.cut_back(head, common, Range.decode(b"".join(packed)))
        self._unsealed.pop(head.id, None)
        self._database.execute(
            "insert or replace into fork(stream, common, ms, evidence) values(?, ?, ?, ?)",
            (head.id, common, now_ms, evidence),
        )
        self._database.executemany(
            "insert or replace into branch(id, header, salt, body) values(?, ?, ?, ?)",
            [(pack(head.id, e.header.seq), e.raw, e.salt, e.body) for e in branch],
        )
        self._done.append(partial(self.freeze, stream, common, evidence, now_ms, branch))
        return True

    def drop(self, stream: StreamName) -> bool:
        """Forget a stream of which no entry ever was here; False where that is not so."""
        self._check_open("dropping")
        head = self._streams.heads.get(stream)
        if head is None or head.held or head.frozen is not None:
            return False
        self._cosigns.drop(head)
        self._streams.drop(head)
        self._contents.roots.clear()
        self._done.append(partial(self.drop, stream))
        return True

    def erase_body(self, stream: StreamName, seq: int) -> None:
        """Erase one body and its salt, here: tables are as if it had never come, proofs stay valid.

        It costs the rows of that entry where they are its alone, else all of its stream.

        Raises: NotFound: there is no such entry here.
        """
        self._check_open("erasing")
        head = self._streams.of(stream)
        if not 0 <= seq < head.held:
            raise NotFound(f"The entry {seq} of {stream} is not on this machine.")
        self._contents.settle()
        row = pack(head.id, seq)
        # Without this SQLite leaves the bytes in the freed part of the page.
        self._database.execute("pragma secure_delete = on")
        self._database.execute("update entry set salt = x'', body = null where id = ?", (row,))
        self._database.execute("delete from rest where entry = ?", (row,))
        self._contents.cache.drop(row)
        self._folding.flush()
        self._folding.fold_anew(
            self._admission, self._run_entries, head.id, self.log.entry_at(stream, seq),
            counts=seq < head.size,
        )  # fmt: skip
        self._database.execute("pragma secure_delete = off")
        # Copies of it may lie in the write-ahead log, and in unused bytes of the file.
        self._keep(_COPIES, as_int(self.recall(_COPIES) or 0) + 1)
        self._done.append(partial(self.erase_body, stream, seq))

    def let_go(self, stream: StreamName, seq: int, rest: bytes) -> None:
        """Let the body of an entry go, here, for its room: tables stay as they are.

        `rest` is what the folds make the same rows of when they read the entry again. It costs the
        same whatever the stream holds; what of the bytes is on the disk is overwritten in time.

        Raises: NotFound: there is no such entry here.
        """
        self._check_open("letting go")
        head = self._streams.of(stream)
        if not 0 <= seq < head.held:
            raise NotFound(f"The entry {seq} of {stream} is not on this machine.")
        self._contents.settle()
        row = pack(head.id, seq)
        self._database.execute("insert or replace into rest(entry, body) values(?, ?)", (row, rest))
        self._database.execute("update entry set salt = x'', body = null where id = ?", (row,))
        self._contents.cache.drop(row)
        self._done.append(partial(self.let_go, stream, seq, rest))

    @property
    def has_copies(self) -> bool:
        """Whether the disk may hold copies of what was erased, beside what it holds."""
        return bool(self.recall(_COPIES))

    def scrub(self, start: int, pages: int) -> int:
        """Overwrite copies of what was erased, in so many pages of the file from `start` (1) on.

        Call it between transactions. Returns where to go on, 0 where the last was reached: what was
        erased when page 1 was done has no copy then. `start` again: a reader keeps them for now.
        """
        if start == 1:
            self._erased_before = self.recall(_COPIES)
        following = self._database.scrub(start, pages)
        if not following and self.recall(_COPIES) == self._erased_before:
            with self.transaction():
                self.remember(_COPIES, 0)
        return following

    def rebuild(self) -> Iterator[tuple[int, int]]:
        """Fold every entry again, in admission order; gives (entries done, entries to do).

        It is one transaction of its own: use nothing else of the store until it is exhausted.
        """
        sql = "select coalesce(sum(entries), 0) from admission"
        total = as_int(self._database.query(sql)[0][0])
        # It changes every table: to keep all of that in memory until the commit would be too much.
        self._database.spill(allowed=True)
        try:
            with self.transaction():
                for done in self._folding.refold(self._admission, self._run_entries):
                    yield done, total
        finally:
            self._database.spill(allowed=False)

    def _run_entries(self, stream: int, start: int, count: int) -> Iterator[Entry]:
        for at in range(start, start + count, REFOLD_ENTRIES):
            yield from self.log.read(stream, at, min(REFOLD_ENTRIES, start + count - at))

    def recall(self, name: str) -> SqlValue:
        """Return the setting `name`, None when it was never remembered."""
        found = self._database.query("select value from setting where name = ?", (name,))
        return found[0][0] if found else None

    def remember(self, name: str, value: SqlValue) -> None:
        """Keep a setting of this machine."""
        self._check_open("remembering")
        self._keep(name, value)
        self._done.append(partial(self.remember, name, value))

    def _keep(self, name: str, value: SqlValue) -> None:
        self._database.execute(
            "insert or replace into setting(name, value) values(?, ?)", (name, value)
        )

    def idle(self) -> None:
        """Fold the write-ahead log into the database; call it when nothing happens."""
        self._database.checkpoint("TRUNCATE")

    @property
    def broken(self) -> str | None:
        """Why nothing more is written, None while all is well."""
        return self._database.broken

    def image(self) -> bytes:
        """Return the committed database as bytes: what the disk would hold after a crash."""
        assert not self._open, "an image is taken between transactions"
        return self._database.image()

    def close(self) -> None:
        """Close the database."""
        self._database.close()


__all__ = ["MEMORY", "Draft", "Store"]
