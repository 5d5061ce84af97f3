"""What is to lie in context folders: what counts of each file, for whoever writes it to the disk.

Rule 1: what counts is judged here, at the moment when it is to be written: a version counts where
its machine may write the folder now (`context.write`), or where this disk was made of it before.
What a revoked machine wrote beyond its end counts nowhere.
Rule 2: a version that does not count stays, and is shown; it is never written to a disk.
Rule 3: whoever watches folders is outside of the core: it asks and writes by events, and is
answered by effects, which come when all they speak of is durable.
Rule 4: an answer takes no more than a step may: what it leaves out is asked again.
"""

from collections.abc import Iterable, Mapping, Sequence
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, Final, NamedTuple

from muster.context.fold import AT, PASSED, VERSION, ContextFold, VersionRow
from muster.context.kinds import ContextAt, ContextPut, ContextReplaced, check_put, held
from muster.context.path import folded
from muster.context.state import File, Version, file_of, merge_of, named
from muster.errors import Malformed, Refused
from muster.limits import (
    CONTEXT_OVER_MAX,
    CONTEXT_PATHS_MAX,
    CONTEXT_SPELLINGS_MAX,
    CONTEXT_STEP_ROWS,
    CONTEXT_UNHEARD_MAX,
    CONTEXT_VERSIONS_READ_MAX,
)
from muster.log import canon
from muster.log.entry import Entry, EntryId
from muster.log.fold import NO_ENTRY, body_or_none
from muster.log.stream import FleetId, MachineId, Scope, StreamName
from muster.node import event as ev
from muster.node.part import Part
from muster.node.services.heads import EXEC, WRITE, Heads, given_rights, may_in_folder
from muster.node.services.touched import Touched
from muster.store.store import Draft

if TYPE_CHECKING:
    from muster.node.core import Core


# Why a version is not on a disk whose bytes are still to come.
NOT_HERE: Final = "its bytes are not here yet"


class Place(NamedTuple):
    """A context folder as all machines name it: by its name, in a scope."""

    scope: Scope
    folder: str


class Bytes(NamedTuple):
    """Where the bytes of a version are: `data`, or a blob under an entry of a machine."""

    digest: bytes
    size: int
    data: bytes | None
    entry: EntryId
    machine: MachineId


class Wanted(NamedTuple):
    """What is to lie at a path: `content`, nothing without it, or as it is where `as_is`.

    `made_of` are the versions that the disk then has, `said_x` what they say of the executable bit,
    `x` what is done of it here. `known` are versions that the file on the disk may be already: what
    this machine wrote over exactly that, and of an unknown file the one with its bytes. `why` says
    what keeps the path from the disk.
    """

    path: str
    made_of: frozenset[EntryId] = frozenset()
    content: Bytes | None = None
    x: bool = False
    said_x: bool = False
    as_is: bool = False
    known: Mapping[tuple[bytes, bool], EntryId] = {}
    merge: tuple[Bytes, Bytes, Bytes] | None = None
    merge_over: frozenset[EntryId] = frozenset()
    merge_x: bool = False
    conflict: bool = False
    why: str = ""


# Files on a disk of which nothing is known: by path their bytes' SHA-256, and the executable bit.
Unknown = Mapping[str, tuple[bytes, bool]]


class AskFiles(ev.Event, frozen=True):
    """What is to lie at these paths; with each what its file on the disk was made of."""

    number: int
    place: Place
    paths: Mapping[str, frozenset[EntryId]]
    unknown: Unknown = MappingProxyType({})


class AskPaths(ev.Event, frozen=True):
    """All paths that a folder has, or had."""

    number: int
    place: Place


class WriteFiles(ev.Event, frozen=True):
    """Versions of files, as the disk has them."""

    number: int
    place: Place
    bodies: tuple[ContextPut, ...]


class WriteRoot(ev.Event, frozen=True):
    """What the whole of a folder is on this disk."""

    place: Place
    root: bytes


class FilesAnswered(ev.Effect, frozen=True):
    """What was asked or written under this number."""

    number: int
    wanted: tuple[Wanted, ...] = ()
    paths: tuple[str, ...] = ()
    ids: tuple[EntryId, ...] = ()
    # Whether this machine may write there: else what it wrote counts for nobody.
    allowed: bool = False
    # Whether it may write anything yet.
    settled: bool = True
    # Why nothing of it was written.
    refused: str = ""
    # How many entries of each stream are here, in which the folder has versions that count.
    cut: Mapping[str, int] = MappingProxyType({})


class FilesChanged(ev.Effect, frozen=True):
    """What counts at these paths may be something else; without a place, anywhere."""

    place: Place | None
    paths: tuple[str, ...] = ()


class Contexts(Part):
    """See the rules at the top of this file."""

    name = "context"
    effects = (FilesAnswered, FilesChanged)

    def __init__(self, core: "Core") -> None:
        self._core = core
        self._touched = Touched(core)
        core.on("context.put", self._came)
        core.on("context.replaced", self._came_again)
        core.on(ev.RosterChanged, self._roster_changed)
        core.on(ev.HeadConfirmed, lambda _: core.do(FilesChanged(None)))
        core.on(AskFiles, self._asked)
        core.on(AskPaths, self._asked_paths)
        core.on(WriteFiles, self._write)
        core.on(WriteRoot, self._write_root)

    @staticmethod
    def folds(fleet: FleetId) -> Sequence[Any]:  # noqa: ARG004 - as of every part
        return (ContextFold(),)

    # --- what is asked --------------------------------------------------------------------------

    def wanted(
        self, place: Place, paths: Mapping[str, frozenset[EntryId]], unknown: Unknown
    ) -> list[Wanted]:
        """What is to lie at these paths: at the first so many, as rule 4 has it."""
        heads, found = self.heads(place), list[Wanted]()
        own = self._core.membership.own(place.scope)
        had = self._core.tables.row(AT, own, place.folder) is not None
        heads.read_ahead(map(folded, paths))
        for path, made_of in paths.items():
            wanted = self._wanted(heads, path, made_of)
            # What was deleted comes back by no copy of before, where this machine had the folder.
            if path in unknown and (had or wanted.content is not None):
                id = heads.with_bytes(path, *unknown[path])
                known = {unknown[path]: id} if id is not None else {}
                wanted = wanted._replace(known={**known, **wanted.known})
            found.append(wanted)
            if heads.read > CONTEXT_STEP_ROWS:
                break
        return found

    def heads(self, place: Place) -> Heads:
        """What counts in a folder now."""
        return Heads(self._core, place.scope, place.folder)

    def versions(self, place: Place, path: str) -> list[VersionRow]:
        """Versions of a path, of each machine the newest, the oldest first."""
        name = folded(path)
        found = self._core.tables.rows_of_each(
            VERSION, CONTEXT_VERSIONS_READ_MAX, ("-at_ms", "-at_n"),
            folder=place.folder, folded=name,
        )  # fmt: skip
        rows = [row for row in found if row.path == path and row.stream.scope == place.scope]
        return sorted(rows, key=lambda row: (row.at_ms, row.at_n, row.id))

    def file(self, place: Place, path: str) -> File | None:
        """What counts of a path; None where nothing does."""
        rows = [row for row in self.heads(place).of(folded(path)) if row.path == path]
        return file_of(path, map(self.version, rows)) if rows else None

    def may_write(self, folder: str, machine: MachineId) -> bool:
        """Whether what a machine writes counts in a folder, now."""
        return may_in_folder(self._core, WRITE, machine, folder)

    def paths(self, place: Place) -> list[str]:
        """The paths of a folder that count, also those whose files are gone; some that do not."""
        heads = self.heads(place)
        found = {*heads.paths(CONTEXT_PATHS_MAX), *heads.paths(CONTEXT_UNHEARD_MAX, by_any=True)}
        return sorted(found)

    def bytes_of(self, row: VersionRow) -> Bytes | None:
        """Where the bytes of a version are; None where it is gone, or they are nowhere here."""
        if row.absent:
            return None
        entry = self._core.log.entry(row.same or row.id)
        body = body_or_none(entry, ContextPut)
        if entry is None or body is None or body.gone or body.same:
            return None
        if entry.stream.scope != row.stream.scope:
            return None
        place = entry.stream, entry.header.seq
        there = row if row.same == NO_ENTRY else self._core.tables.row(VERSION, *place)
        if there is None:
            return None
        data = None if body.blob else held(body)
        return Bytes(there.sha256, there.size, data, entry.id, entry.stream.machine)

    def _wanted(self, heads: Heads, path: str, made_of: frozenset[EntryId]) -> Wanted:
        name = folded(path)
        rows = {row.id: row for row in heads.of(name, made_of)}
        by_path: dict[str, list[Version]] = {}
        for row in rows.values():
            by_path.setdefault(row.path, []).append(self.version(row))
        found = {each: file_of(each, versions) for each, versions in by_path.items()}
        # What this machine wrote itself over exactly this, before it could remember that it did.
        over = " ".join(sorted(id.hex() for id in made_of))
        own = [self.version(row) for row in heads.forgotten(path, over) if not row.absent]
        known = {(each.digest, each.x): each.id for each in reversed(own)}
        file = found.get(path)
        if file is None:
            why = "no machine that wrote it may write here" if heads.is_known(name) else ""
            return Wanted(path, as_is=True, known=known, why=why)
        has_name = self._named(found.values(), heads)
        if has_name is not None and has_name.path != path:
            gone = f"{has_name.path} has this name on disks without case"
            return Wanted(path, known=known, why=gone)
        return self._of_file(file, rows, heads, known)

    @staticmethod
    def _named(found: Iterable[File], heads: Heads) -> File | None:
        """Of files whose paths some disk takes for one: the one that has the name."""
        live = sorted((each for each in found if not each.winner.gone), key=lambda f: f.path)
        if len(live) < 2:
            return live[0] if live else None
        some = live[:CONTEXT_SPELLINGS_MAX]
        return named(each._replace(since=heads.first(each.path)) for each in some)

    def _of_file(
        self, file: File, rows: dict[EntryId, VersionRow], heads: Heads,
        known: Mapping[tuple[bytes, bool], EntryId],
    ) -> Wanted:  # fmt: skip
        winner = file.winner
        wanted = Wanted(file.path, file.made_of, known=known)
        if winner.gone:
            return wanted
        where = self.bytes_of(rows[winner.id])
        if where is None:
            return wanted._replace(as_is=True, why=NOT_HERE)
        x = winner.x and any(heads.allows(EXEC, rows[id].stream.machine) for id in file.made_of)
        wanted = wanted._replace(content=where, x=x, said_x=winner.x, conflict=file.is_conflict)

        def look(id: EntryId) -> Version | None:
            row = rows.get(id) or heads.row(id)
            if row is None or row.path != file.path:
                return None
            rows[id] = row
            return self.version(row)

        merge = merge_of(file, look) if file.is_conflict else None
        if merge is None:
            return wanted
        three = [self.bytes_of(rows[v.id]) for v in (merge.first, merge.base, merge.second)]
        first, base, second = three
        if first is None or base is None or second is None:
            return wanted
        contents = (merge.first.content, merge.second.content)
        over = [head.id for head in file.heads if head.content in contents]
        if len(over) > CONTEXT_OVER_MAX:
            return wanted
        return wanted._replace(
            merge=(first, base, second),
            merge_over=frozenset(over),
            merge_x=_merged_bit(merge.first.x, merge.base.x, merge.second.x),
        )

    def version(self, row: VersionRow) -> Version:
        """A row as far as it matters for what counts."""
        digest = row.sha256
        if row.same != NO_ENTRY:
            there = self.bytes_of(row)
            digest = there.digest if there is not None else b""
        return Version(
            row.id, row.path, digest, row.size, bool(row.absent), bool(row.x),
            (row.at_ms, row.at_n), row.targets,
        )  # fmt: skip

    # --- what the watcher says ------------------------------------------------------------------

    def _asked(self, event: AskFiles) -> None:
        wanted = tuple(self.wanted(event.place, event.paths, event.unknown))
        allowed = self.may_write(event.place.folder, self._core.machine)
        self._core.do(FilesAnswered(event.number, wanted=wanted, allowed=allowed))

    def _asked_paths(self, event: AskPaths) -> None:
        self._core.do(FilesAnswered(event.number, paths=tuple(self.paths(event.place))))

    def _write(self, event: WriteFiles) -> None:
        if not self._core.settled:
            self._core.do(FilesAnswered(event.number, settled=False))
            return
        try:
            # As whoever reads it does: what nobody can use is no version.
            raw = [canon.encode(check_put(body)) for body in event.bodies]
            drafts = [Draft("context.put", "muster", (), each) for each in raw]
            entries = self._core.append_all(event.place.scope, drafts)
        except (Malformed, Refused) as error:
            # Whoever asked waits for an answer.
            self._core.do(FilesAnswered(event.number, refused=str(error)))
            return
        allowed = self.may_write(event.place.folder, self._core.machine)
        ids = tuple(entry.id for entry in entries)
        self._core.do(FilesAnswered(event.number, ids=ids, allowed=allowed))

    def _write_root(self, event: WriteRoot) -> None:
        own = self._core.membership.own(event.place.scope)
        said = self._core.tables.row(AT, own, event.place.folder)
        passed = self._core.tables.row(PASSED, own, event.place.folder)
        # It has the folder again: what it said before is that it has not.
        is_anew = said is None or said.root != event.root or (passed is not None and passed.ended)
        if self._core.settled and is_anew:
            body = ContextAt(event.place.folder, event.root.hex())
            self._core.append_body(body, scope=event.place.scope)

    # --- what comes -----------------------------------------------------------------------------

    def _came(self, stream: StreamName, entry: Entry) -> None:
        body = body_or_none(entry, ContextPut)
        own = stream.machine == self._core.machine and entry.header.actor == "muster"
        if body is None or own:
            # What the disk has already.
            return
        self._touched.came(body, stream, entry.id)
        self._core.when_done(self._tell)

    def _came_again(self, stream: StreamName, entry: Entry) -> None:
        """Of what it names some was taken for current here, where what replaced it had no body."""
        body = body_or_none(entry, ContextReplaced)
        if body is not None and stream.machine != self._core.machine:
            self._touched.touch(stream.scope, body.folder, body.path)
            self._core.when_done(self._tell)

    def _tell(self) -> None:
        for (scope, folder), paths in self._touched.told().items():
            self._core.do(FilesChanged(Place(scope, folder), tuple(sorted(paths))))

    def _roster_changed(self, event: ev.RosterChanged) -> None:
        before, after = event.before, event.after
        if before is None or given_rights(before) != given_rights(after):
            self._core.do(FilesChanged(None))


def _merged_bit(first: bool, base: bool, second: bool) -> bool:
    """The side that changed it says what it is."""
    return second if first == base else first
