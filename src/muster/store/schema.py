"""The tables that hold the log itself, and how rows are numbered.

Rule 1: entries, the heads of their streams and what folds made of them change in one transaction.
Rule 2: a stream's size is the cursor of every fold: there is no second number that could disagree.
Rule 3: an entry has one row, at `stream << 40 | seq`: a stream lies together, in order.

`admission` is the admission order of this machine: each row says that so many entries of a stream,
from `start`, became part of this database at `ms`, and that they carry the admission numbers from
`number`. A row with none says that the stream was cut back to `start` at that moment.
"""

import re
from typing import Final

from muster.errors import Broken
from muster.store.sqlite import Database, as_int, as_text

SEQ_BITS: Final = 40
SEQ_MASK: Final = (1 << SEQ_BITS) - 1
TILE_WIDTH: Final = 256
# Four bits hold levels 0 to 15 of tiles; four levels already cover 2^32 entries.
TILE_LEVEL_SHIFT: Final = 36

FORMAT: Final = 2

DDL: Final = """
create table if not exists setting(
  name text primary key, value any) without rowid, strict;
create table if not exists stream(
  id integer primary key,
  name text not null unique,
  size int not null,      -- entries that count
  held int not null,      -- entries stored: more than `size` once the stream is cut back
  range blob not null,    -- the compact range over `size` entries
  frozen int              -- where the stream was cut back, null while it lives
) strict;
create table if not exists entry(
  id integer primary key,
  hash blob not null,     -- of the header: where one rots, this tells which
  header blob not null,
  salt blob not null,
  body blob               -- null: erased or withheld
) strict;
create table if not exists rest(
  entry int primary key,  -- of an entry whose body was let go: what the folds need of it
  body blob not null) without rowid, strict;
create table if not exists leaf(
  run int not null,       -- see entry_index.py
  first blob not null,    -- the smallest key in `data`
  data blob not null,     -- pairs of the first eight bytes of a leaf hash and an entry's row
  primary key(run, first)) without rowid, strict;
create table if not exists directory(
  run integer primary key,
  upto int not null) strict; -- the last admission number that the run covers
create table if not exists tile(
  id integer primary key, -- stream << 40 | level << 36 | index
  root blob not null,
  data blob not null      -- 256 hashes of level 8 * level
) strict;
create table if not exists seal(
  id integer primary key, -- stream << 40 | the size of the prefix it proves
  size int not null,
  root blob not null,
  note blob not null,
  proof blob not null     -- from the prefix to `size`; empty when they are equal
) strict;
create table if not exists cosign(
  stream int not null, machine text not null, strength text not null,
  size int not null, root blob not null, time_s int not null, note blob not null,
  primary key(stream, machine, strength)) without rowid, strict;
create table if not exists admission(
  number integer primary key, ms int not null,
  stream int not null, start int not null, entries int not null) strict;
create index if not exists admission_stream on admission(stream, start);
create table if not exists skipped(
  entry int not null, fold text not null, reason text not null,
  primary key(entry, fold)) without rowid, strict;
create table if not exists backdated(
  stream integer primary key, -- in which a stamp was not later than all before it
  ms int not null, n int not null) strict; -- the latest of them
create table if not exists fork(
  stream integer primary key, common int not null, ms int not null,
  evidence blob not null) strict;
create table if not exists branch(
  id integer primary key, -- stream << 40 | seq, of the branch that is not ours
  header blob not null, salt blob not null, body blob) strict;
create table if not exists fold(
  name text primary key, fingerprint text not null, tables text not null) without rowid, strict;
"""

# No fold may have a table of these names.
CORE_TABLES: Final = frozenset(re.findall(r"create table if not exists (\w+)\(", DDL))


def pack(stream: int, seq: int) -> int:
    """Return the row number of an entry."""
    return stream << SEQ_BITS | seq


def unpack(row: int) -> tuple[int, int]:
    """Return the stream and the sequence number of an entry's row."""
    return row >> SEQ_BITS, row & SEQ_MASK


def tile_id(stream: int, level: int, index: int) -> int:
    """Return the row number of a tile."""
    return stream << SEQ_BITS | level << TILE_LEVEL_SHIFT | index


def prepare(database: Database) -> None:
    """Make the tables in a new database. Raises: Broken: it is of another Muster."""
    version = as_int(database.query("pragma user_version")[0][0])
    # Some of the tables are younger than the format: a database of before gets them.
    there = {as_text(name) for (name,) in database.query("select name from sqlite_master")}
    if version == FORMAT and there >= CORE_TABLES:
        return
    if version not in (0, FORMAT):
        raise Broken(
            f"The database {database.path} has format {version}, this Muster reads {FORMAT}; "
            "install the Muster that wrote it or a newer one."
        )
    database.begin()
    for statement in DDL.split(";\n"):
        if statement.strip():
            database.execute(statement)
    database.execute(f"pragma user_version = {FORMAT}")
    database.commit()
