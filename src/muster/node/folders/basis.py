"""What the files on this disk are made of: kept durably, by folder and path.

Rule 1: `over` of a version is what stands here, never what the machine holds: a file that was
edited during an outage must not replace what came meanwhile.
Rule 2: it holds for one folder on the disk, in one scope. Where another one gets the name, nothing
is known: its files were not deleted there.
Rule 3: what is about to be done to a file is written down before it is done, so that whoever
starts after a crash knows what that file is.
Rule 4: where it is damaged it begins anew: what each file is made of is found again in the log.

One thread reads and writes it.
"""

import contextlib
import os
from collections.abc import Iterable
from pathlib import Path
from typing import Final, NamedTuple

from muster.errors import Broken
from muster.log.entry import EntryId
from muster.log.fold import NO_ENTRY
from muster.log.stream import FLEET
from muster.node.folders.signature import Signature, in_64_bits
from muster.store.sqlite import Database, SqlValue, as_bytes, as_int, as_text

_BASE: Final = (
    "create table if not exists base(folder text, path text, mtime int, size int, inode int, x int,"
    " there int, digest blob, said_x int, over blob, behind blob, holder blob,"
    " primary key(folder, path)) without rowid, strict"
)
_AIM: Final = (
    "create table if not exists aim(folder text, name text, path text, digest blob, said_x int,"
    " made_of blob, over blob, primary key(folder, name)) without rowid, strict"
)
_LIES: Final = (
    "create table if not exists lies(folder text primary key, top text, inode int)"
    " without rowid, strict"
)
# What a home of before does not say of a folder: its scope, and the device that it was on.
_LIES_MORE: Final = (
    "create table if not exists lies_more(folder text primary key, scope text, device int)"
    " without rowid, strict"
)
_ID_BYTES: Final = 32


class Base(NamedTuple):
    """A file as it was last seen, or written: no signature where there is none.

    `over` are the versions it was made of. `behind`: where its last version counts for nobody,
    since this machine may not write there, what the file was made of before.
    """

    signature: Signature | None
    digest: bytes
    said_x: bool
    over: frozenset[EntryId]
    behind: frozenset[EntryId] | None = None
    # A version that has these bytes itself.
    holder: EntryId = NO_ENTRY

    @property
    def counting(self) -> frozenset[EntryId]:
        """What of it counts for others."""
        return self.over if self.behind is None else self.behind


class Aim(NamedTuple):
    """What is done to a file: under `name` lies the new one, and then the old."""

    name: str
    path: str
    digest: bytes
    said_x: bool
    made_of: frozenset[EntryId]
    over: frozenset[EntryId]


class Basis:
    """See the rules at the top of this file. Raises: Broken, Exhausted."""

    def __init__(self, path: Path) -> None:
        self._database = Database(path)
        # What the last moment before a power cut loses is found again: a file that is a version is
        # known by its bytes. To wait for the platter would cost each file thrice the time.
        self._database.execute("pragma synchronous = normal")
        self._database.begin()
        for each in (_BASE, _AIM, _LIES, _LIES_MORE):
            self._database.execute(each)
        self._database.commit()
        if not self.is_whole:
            self._database.close()
            raise Broken(f"{path} is damaged")

    @property
    def is_whole(self) -> bool:
        """Whether it can be read and written."""
        if self._database.broken is not None:
            return False
        try:
            return self._database.query("pragma quick_check(1)") == [("ok",)]
        except Broken:
            return False

    def lies_at(self, folder: str, top: str, inode: int, scope: str = FLEET) -> None:
        """The folder lies there from now on; what is known of another place is forgotten."""
        where = (top, in_64_bits(inode))
        found = self._database.query("select top, inode from lies where folder = ?", (folder,))
        more = self._database.query("select scope from lies_more where folder = ?", (folder,))
        before = as_text(more[0][0]) if more else FLEET
        if found and (tuple(found[0]) != where or before != scope):
            self.forget(folder)
        self._database.begin()
        self._database.execute("insert or replace into lies values(?, ?, ?)", (folder, *where))
        self._database.execute(
            "insert into lies_more values(?, ?, null) on conflict(folder) do update set scope = ?2",
            (folder, scope),
        )
        self._database.commit()

    def device(self, folder: str) -> int | None:
        """The device that the folder was on when it was last taken up."""
        found = self._database.query("select device from lies_more where folder = ?", (folder,))
        return as_int(found[0][0]) if found and found[0][0] is not None else None

    def on_device(self, folder: str, device: int) -> None:
        """The folder is on this device."""
        self._database.begin()
        self._database.execute("update lies_more set device = ? where folder = ?", (device, folder))
        self._database.commit()

    def bases(self, folder: str) -> dict[str, Base]:
        """All files of a folder."""
        sql = (
            "select path, there, mtime, size, inode, x, digest, said_x, over, behind, holder "
            "from base where folder = ?"
        )
        return {as_text(row[0]): _base(row[1:]) for row in self._database.query(sql, (folder,))}

    def aims(self, folder: str) -> list[Aim]:
        """What was being done when this machine ended."""
        sql = "select name, path, digest, said_x, made_of, over from aim where folder = ?"
        return [
            Aim(
                as_text(name), as_text(path), as_bytes(digest), bool(said_x), _ids(made_of),
                _ids(over),
            )
            for name, path, digest, said_x, made_of, over in self._database.query(sql, (folder,))
        ]  # fmt: skip

    def save(self, folder: str, bases: dict[str, Base | None]) -> None:
        """What files are made of from now on; None: nothing is known of a path any more."""
        self._database.begin()
        gone = [(folder, path) for path, base in bases.items() if base is None]
        self._database.executemany("delete from base where folder = ? and path = ?", gone)
        kept = [(folder, path, *_row(base)) for path, base in bases.items() if base is not None]
        self._database.executemany(
            f"insert or replace into base values({', '.join('?' * 12)})", kept
        )
        self._database.commit()

    def aim(self, folder: str, aims: Iterable[Aim]) -> None:
        """These are about to be done."""
        self._database.begin()
        self._database.executemany(
            "insert or replace into aim values(?, ?, ?, ?, ?, ?, ?)",
            [
                (folder, a.name, a.path, a.digest, a.said_x, b"".join(sorted(a.made_of)),
                 b"".join(sorted(a.over)))
                for a in aims
            ],
        )  # fmt: skip
        self._database.commit()

    def done(self, folder: str, names: Iterable[str]) -> None:
        """Nothing lies under these names any more."""
        self._database.begin()
        self._database.executemany(
            "delete from aim where folder = ? and name = ?", [(folder, name) for name in names]
        )
        self._database.commit()

    def forget(self, folder: str) -> None:
        """Nothing is known of this folder any more."""
        self._database.begin()
        self._database.execute("delete from base where folder = ?", (folder,))
        self._database.execute("delete from aim where folder = ?", (folder,))
        self._database.execute("delete from lies where folder = ?", (folder,))
        self._database.execute("delete from lies_more where folder = ?", (folder,))
        self._database.commit()

    def close(self) -> None:
        self._database.close()


def open_basis(path: Path) -> tuple[Basis, str]:
    """What is remembered there, and what was wrong with it, "" for nothing (rule 4).

    Raises: Broken, Exhausted: nothing can be remembered there.
    """
    try:
        return Basis(path), ""
    except Broken as error:
        aside = path.with_name(f"{path.name}.damaged")
        if not path.exists():
            raise
        for end in ("", "-wal", "-shm"):
            # Of an earlier time there is no more than one.
            with contextlib.suppress(FileNotFoundError):
                os.replace(f"{path}{end}", f"{aside}{end}")
        return Basis(path), f"{error}: it lies in {aside} now"


def _ids(raw: SqlValue) -> frozenset[EntryId]:
    found = as_bytes(raw)
    return frozenset(EntryId(found[at : at + _ID_BYTES]) for at in range(0, len(found), _ID_BYTES))


def _base(row: tuple[SqlValue, ...]) -> Base:
    there, mtime, size, inode, x, digest, said_x, over, behind, holder = row
    signature = Signature(as_int(mtime), as_int(size), as_int(inode), as_int(x)) if there else None
    behind_ids = None if behind is None else _ids(behind)
    return Base(
        signature, as_bytes(digest), bool(said_x), _ids(over), behind_ids, EntryId(as_bytes(holder))
    )  # fmt: skip


def _row(base: Base) -> tuple[SqlValue, ...]:
    at = base.signature or Signature(0, 0, 0, 0)
    behind = None if base.behind is None else b"".join(sorted(base.behind))
    return (
        at.mtime_ns, at.size, at.inode, at.x, int(base.signature is not None), base.digest,
        int(base.said_x), b"".join(sorted(base.over)), behind, base.holder,
    )  # fmt: skip
