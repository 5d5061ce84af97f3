"""The full text of what was written, beside the log: derived, and made anew when in any doubt.

Rule 1: nothing is only here. The file may be deleted, cut short, damaged, of another Muster or of
another log at any moment: whoever opens it hears why it was made anew, and nothing else happens.
Rule 2: its cursor is an admission number, and moves in the transaction that holds what it covers.
It is given only what the log has committed, and remembers the entry before the cursor: a log that
fell back or is another one has another entry there.
Rule 3: what leaves it leaves with its words: rows and terms are overwritten where they lie, the
write-ahead log is folded in at once, and copies are scrubbed (slack.py). The number that SQLite
keeps for applications is 1 as long as there may be some.
Rule 4: it keeps texts and gives places. Whether what stands there counts, its reader finds out.
"""

import contextlib
import os
import stat
from collections.abc import Callable, Collection, Sequence
from pathlib import Path
from typing import Final, NamedTuple

from muster.errors import Broken
from muster.store import query
from muster.store.sqlite import MEMORY, TOKENIZE, Database, SqlValue, as_bytes, as_int, as_text

FORMAT: Final = 1
DDL: Final = f"""
create virtual table fts using fts5(key, text, tags, tokenize='{TOKENIZE}');
insert into fts(fts, rank) values('secure-delete', 1);
create virtual table word using fts5vocab(fts, 'row');
create table place(id integer primary key, name text not null unique) strict;
create table doc(
  id integer primary key, -- the row of its entry
  kind text not null,
  place int not null,     -- the scope of its stream
  number int not null,    -- its admission number
  live int not null       -- 0 where something is said to replace it: it is found last
) strict;
create table doubt(id integer primary key) strict; -- what is said to be erased, and is there yet
create table cursor(next int not null, before blob not null) strict;
insert into cursor values(0, x'');
pragma user_version = {FORMAT}
"""
_TABLES: Final = {"fts", "word", "place", "doc", "doubt", "cursor"}
# A key says most, a tag more than one word of many.
_FIND: Final = """
select doc.id, doc.kind, doc.number, bm25(fts, 4.0, 1.0, 2.0) as score
from fts cross join doc on doc.id = fts.rowid where fts match ?1
and doc.place in (select id from place where name in (select value from json_each(?2)))
and (?3 = '' or doc.kind = ?3) and doc.number < ?4
order by (doc.live or ?5) desc, score, doc.id desc limit ?6
"""
# A line around the words that were found: so many words, some of them before the first.
EXCERPT_WORDS: Final = 30
EXCERPT_WORDS_BEFORE: Final = 4
EXCERPT_CHARS_MAX: Final = 300
# Of a long text its beginning is looked through, and so many places where one may begin.
EXCERPT_LOOKED_BYTES: Final = 8 * 1024
EXCERPTS_TRIED: Final = 32
# Counts of words that are dear to find out and hardly change; as many as a question may have.
COUNTS_KEPT_MAX: Final = 4_096
EVERY_NUMBER: Final = 1 << 62

# Why the index was made anew: a word for each.
ABSENT: Final = "absent"
CUT_SHORT: Final = "cut-short"
NEWER: Final = "newer"
OLDER: Final = "older"
DAMAGED: Final = "damaged"
OTHER_LOG: Final = "other-log"


class Document(NamedTuple):
    """What is found: the row of its entry, of which kind, where, and its admission number."""

    row: int
    kind: str
    scope: str
    number: int
    live: bool
    key: str
    text: str
    tags: str = ""


class Page(NamedTuple):
    """What the log says up to a cursor, whose last entry is `before`.

    `replaced` are rows that something is over, `gone` those whose words leave, `doubted` those that
    are said to be erased and have their words yet, `cut` ranges of rows that count no more.
    """

    next: int
    before: bytes
    documents: Sequence[Document] = ()
    replaced: Sequence[int] = ()
    gone: Sequence[int] = ()
    doubted: Sequence[int] = ()
    cut: Sequence[tuple[int, int]] = ()


class Hit(NamedTuple):
    """A place that a question found: the row of its entry, of which kind, and its number."""

    row: int
    kind: str
    number: int


class Found(NamedTuple):
    """What a question found, the best first, and the stems of its words."""

    stems: frozenset[str]
    hits: list[Hit]


class TextIndex:
    """The index in one file, or in memory. Creating the object touches nothing."""

    def __init__(self, path: str) -> None:
        self._path = path
        self._database: Database | None = None
        # Which file is open, and how large it was.
        self._file = (0, 0)
        self._size = 0
        self._cursor = 0
        self._counts: dict[str, int] = {}
        # Whether its file may hold copies of what left it.
        self.has_copies = False

    @property
    def cursor(self) -> int:
        """The admission number of the first entry that is not in it; 0 before it is open."""
        return self._cursor

    def open(self, before: Callable[[int], bytes]) -> str:
        """Be there, whole and of this log; returns why it was made anew, "" where it was not.

        `before` gives the id of the entry with an admission number, b"" for none.
        Raises: Broken, Exhausted: it cannot be made.
        """
        if self._database is not None:
            why = self._spoiled()
            if not why:
                return ""
            self._make(why)
            return why
        if self._path == MEMORY:
            self._make(ABSENT)
            return ""
        why = ABSENT
        if os.path.lexists(self._path):
            try:
                self._open()
                why = self._unfit(before)
            except Broken:
                why = DAMAGED
        if why:
            self._make(why)
        return why

    def make_anew(self) -> None:
        """Begin it again, empty. Raises: Broken, Exhausted."""
        self._make(DAMAGED)

    def put(self, page: Page) -> None:
        """Take in what the log says from the cursor on. Raises: Broken, Exhausted."""
        database = self._there()
        database.begin()
        done = False
        try:
            self._write(database, page)
            database.commit()
            done = True
        finally:
            if not done:
                database.rollback()
        self._cursor = page.next
        if page.gone or page.cut:
            self.has_copies = True
            database.checkpoint("TRUNCATE")
            self._counts.clear()
        self._note_size()

    def _write(self, database: Database, page: Page) -> None:
        places = self._places(database, {each.scope for each in page.documents})
        database.executemany(
            "insert or replace into fts(rowid, key, text, tags) values(?, ?, ?, ?)",
            [(each.row, each.key, each.text, each.tags) for each in page.documents],
        )
        database.executemany(
            "insert or replace into doc(id, kind, place, number, live) values(?, ?, ?, ?, ?)",
            [
                (each.row, each.kind, places[each.scope], each.number, int(each.live))
                for each in page.documents
            ],
        )
        self._retire(database, page)
        database.execute("update cursor set next = ?, before = ?", (page.next, page.before))
        if page.gone or page.cut:
            database.execute("pragma application_id = 1")

    @staticmethod
    def _retire(database: Database, page: Page) -> None:
        """What counts less than it did, or not at all any more."""
        database.executemany(
            "update doc set live = 0 where id = ?", [(row,) for row in page.replaced]
        )
        database.executemany(
            "insert or ignore into doubt select id from doc where id = ?",
            [(row,) for row in page.doubted],
        )
        ranges = [*((row, row + 1) for row in page.gone), *page.cut]
        for table, column in (("fts", "rowid"), ("doc", "id"), ("doubt", "id")):
            database.executemany(
                f"delete from {table} where {column} >= ? and {column} < ?",  # noqa: S608 - both are ours
                ranges,
            )

    def find(
        self,
        text: str,
        scopes: Collection[str],
        most: int,
        *,
        kind: str = "",
        tags: Collection[str] = (),
        until: int = EVERY_NUMBER,
        replaced: bool = False,
    ) -> Found:
        """Return the best places for the words of a text.

        Of documents in these scopes, of one kind where it is given, with all of the tags, admitted
        before `until`. What something replaces comes last, or in its turn where it is asked for.
        Raises: Broken: the index is damaged.
        """
        database, raw = self._there(), text.encode("utf-8", "replace")
        words = query.telling(
            (raw[start:end].decode("utf-8", "replace"), stem)
            for start, end, stem in database.stems(raw)
        )
        asked = query.match(words, self._records)
        if not asked:
            return Found(frozenset(), [])
        for tag in tags:
            asked = f"({asked}) AND (tags : {query.phrase(tag)})"
        names = "[" + ",".join(f'"{scope}"' for scope in scopes) + "]"
        bound: tuple[SqlValue, ...] = (asked, names, kind, until, int(replaced), most)
        return Found(
            frozenset(stem for _, stem in words),
            [
                Hit(as_int(row), as_text(of_kind), as_int(number))
                for row, of_kind, number, _ in database.query(_FIND, bound)
            ],
        )

    def excerpt(self, found: Found, text: str) -> str:
        """Return a line of a text with as many of the words that were found as it can have."""
        raw = text.encode("utf-8", "replace")[:EXCERPT_LOOKED_BYTES]
        stems = self._there().stems(raw)
        at = [n for n, (_, _, stem) in enumerate(stems) if stem in found.stems][:EXCERPTS_TRIED]
        if not at:
            return _line(text)

        def different(first: int) -> int:
            return len({stems[n][2] for n in at if first <= n < first + EXCERPT_WORDS})

        best = max(0, max(at, key=different) - EXCERPT_WORDS_BEFORE)
        last = min(best + EXCERPT_WORDS, len(stems)) - 1
        start = stems[best][0] if best else 0
        end = stems[last][1] if last < len(stems) - 1 else len(raw)
        shown = _line(raw[start:end].decode("utf-8", "ignore"))
        return f"{'…' * bool(best)}{shown}{'…' * (end < len(raw))}"

    def shared(self, found: Found, row: int) -> int:
        """Return how many of the words that were asked for stand at a place, each once."""
        rows = self._there().query("select key || ' ' || text from fts where rowid = ?", (row,))
        raw = as_text(rows[0][0]).encode()[:EXCERPT_LOOKED_BYTES] if rows else b""
        return len({stem for _, _, stem in self._there().stems(raw)} & found.stems)

    def scopes(self) -> list[str]:
        """Return every scope that something here was written in."""
        return [as_text(name) for (name,) in self._there().query("select name from place")]

    def doubted(self, after: int, most: int) -> list[int]:
        """Return rows that are said to be erased and have their words yet, beyond one of them."""
        found = self._there().query(
            "select id from doubt where id > ? order by id limit ?", (after, most)
        )
        return [as_int(row) for (row,) in found]

    def _records(self, stem: str) -> int:
        """How many documents have a word, nearly: what many have is counted now and then."""
        known = self._counts.get(stem)
        if known is not None:
            return known
        found = self._there().query("select doc from word where term = ?", (stem,))
        count = as_int(found[0][0]) if found else 0
        if count >= query.RARE_RECORDS_MAX:
            if len(self._counts) >= COUNTS_KEPT_MAX:
                self._counts.clear()
            self._counts[stem] = count
        return count

    def scrub(self, start: int, pages: int) -> int:
        """Overwrite copies of what left it, in so many pages of the file from `start` (1) on.

        Returns where to go on, `start` while a reader keeps them, 0 at the end: what had left when
        it began has no copy then. Raises: Broken, Exhausted.
        """
        database = self._database
        if database is None:
            return 0
        if start == 1:
            # What leaves from now on asks for another round.
            self.has_copies = False
        following = database.scrub(start, pages)
        if not following and not self.has_copies:
            database.execute("pragma application_id = 0")
        return following

    # --- the file ----------------------------------------------------------------------------

    def _there(self) -> Database:
        if self._database is None:
            raise Broken(f"The index {self._path} is not open; ask again.")
        return self._database

    def _places(self, database: Database, scopes: Collection[str]) -> dict[str, int]:
        """The numbers of scopes."""
        database.executemany(
            "insert or ignore into place(name) values(?)", [(scope,) for scope in sorted(scopes)]
        )
        return {
            as_text(name): as_int(number)
            for number, name in database.query("select id, name from place")
        }

    def _open(self) -> None:
        database = Database(self._path, derived=True)
        database.erase_securely()
        self._database = database
        self._note_size()

    def _unfit(self, before: Callable[[int], bytes]) -> str:
        """Why what is open is of no use, "" where it is the index of this log."""
        database = self._there()
        version = as_int(database.query("pragma user_version")[0][0])
        if version != FORMAT:
            return NEWER if version > FORMAT else OLDER
        tables = {as_text(name) for (name,) in database.query("select name from sqlite_schema")}
        if not tables >= _TABLES:
            return DAMAGED
        found = database.query("select next, before from cursor")
        if len(found) != 1:
            return DAMAGED
        self._cursor = as_int(found[0][0])
        self.has_copies = database.query("pragma application_id") == [(1,)]
        known = before(self._cursor - 1) if self._cursor else b""
        return "" if known == as_bytes(found[0][1]) else OTHER_LOG

    def _spoiled(self) -> str:
        """Why what is open is not what it was: somebody deleted the file, or cut it short."""
        if self._path == MEMORY:
            return ""
        try:
            there = Path(self._path).lstat()
        except OSError:
            return ABSENT
        if (there.st_dev, there.st_ino) != self._file:
            return ABSENT
        return CUT_SHORT if there.st_size < self._size else ""

    def _note_size(self) -> None:
        """The file never shrinks by our own hand."""
        if self._path != MEMORY:
            there = Path(self._path).lstat()
            self._file, self._size = (there.st_dev, there.st_ino), there.st_size

    def _make(self, why: str) -> None:
        self.close()
        self._cursor, self.has_copies = 0, False
        self._counts.clear()
        if self._path != MEMORY:
            try:
                self._remove()
                Path(self._path).touch(mode=0o600, exist_ok=False)
            except OSError as error:
                raise Broken(
                    f"The index {self._path} ({why}) cannot be made anew: {error.strerror}; move "
                    "it away, the next question makes one."
                ) from error
        self._open()
        database = self._there()
        for statement in DDL.split(";\n"):
            database.execute(statement)
        self._note_size()

    def _remove(self) -> None:
        for name in (self._path, f"{self._path}-wal", f"{self._path}-shm"):
            # Not each of the three is always there.
            with contextlib.suppress(FileNotFoundError):
                if stat.S_ISDIR(os.lstat(name).st_mode):
                    raise IsADirectoryError(0, "it is a folder")
                Path(name).unlink()

    def close(self) -> None:
        """Close the file; what is asked next opens it again."""
        database, self._database = self._database, None
        if database is not None:
            database.close()


def _line(text: str) -> str:
    """A text as one line, which fits on some."""
    line = " ".join(text[: 8 * EXCERPT_CHARS_MAX].split())
    return line if len(line) <= EXCERPT_CHARS_MAX else line[: EXCERPT_CHARS_MAX - 1] + "…"
