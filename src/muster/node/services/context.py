"""What is to lie in context folders: what counts of each file, for whoever writes it to the disk.

Rule 1: what counts is judged here, at the moment when it is to be written: a version counts where
its machine may write the folder now (`context.write`), or where this disk was made of it before.
What a revoked machine wrote beyond its end counts nowhere.
Rule 2: a version that does not count stays, and is shown; it is never written to a disk.
Rule 3: whoever watches folders is outside of the core: it asks and writes by events, and is
answered by effects, which come when all they speak of is durable.
"""

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

from muster.context.fold import AT, VERSION, ContextFold, VersionRow
from muster.context.kinds import ContextAt, ContextPut, held
from muster.context.path import folded
from muster.context.state import File, Version, files, merge_of, named
from muster.errors import Denied
from muster.fleet.grant import ANYTHING
from muster.fleet.roster import Roster
from muster.limits import CONTEXT_OVER_MAX, CONTEXT_VERSIONS_READ_MAX
from muster.log import canon
from muster.log.entry import Entry, EntryId
from muster.log.fold import NO_ENTRY, body_or_none
from muster.log.stream import FleetId, MachineId, Scope, StreamName
from muster.node import event as ev
from muster.node.part import Part
from muster.store.store import Draft

if TYPE_CHECKING:
    from muster.node.core import Core

# The rights on a folder, given to machines: to change files, and to make them executable.
WRITE = "context.write"
EXEC = "context.exec"


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
    `x` what is done of it here. `known` are versions over exactly what the disk was made of. `why`
    says what keeps the path from the disk.
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


class AskFiles(ev.Event, frozen=True):
    """What is to lie at these paths; with each what its file on the disk was made of."""

    number: int
    place: Place
    paths: Mapping[str, frozenset[EntryId]]


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
        self._touched: dict[Place, set[str]] = {}
        core.on("context.put", self._came)
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

    def wanted(self, place: Place, paths: Mapping[str, frozenset[EntryId]]) -> list[Wanted]:
        """What is to lie at each of these paths."""
        may = _Rights(self._core, place.folder)
        return [self._wanted(place, path, made_of, may) for path, made_of in paths.items()]

    def versions(self, place: Place, path: str) -> list[VersionRow]:
        """Every version of a path, the oldest first."""
        rows = [row for row in self._rows(place, folded(path)) if row.path == path]
        return sorted(rows, key=lambda row: (row.at_ms, row.at_n, row.id))

    def may_write(self, folder: str, machine: MachineId) -> bool:
        """Whether what a machine writes counts in a folder, now."""
        return _Rights(self._core, folder).allows(WRITE, machine)

    def paths(self, place: Place) -> list[str]:
        """Every path of a folder, also those whose files are gone."""
        streams = {
            row[0] for row in self._core.tables.distinct(VERSION, ("path",), folder=place.folder)
        }
        return sorted(streams)

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
        there = self._core.tables.row(VERSION, entry.stream, entry.header.seq)
        if there is None:
            return None
        data = None if body.blob else held(body)
        return Bytes(there.sha256, there.size, data, entry.id, entry.stream.machine)

    def _wanted(
        self, place: Place, path: str, made_of: frozenset[EntryId], may: "_Rights"
    ) -> Wanted:
        rows = {row.id: row for row in self._rows(place, folded(path))}
        every = [self.version(row) for row in rows.values()]
        counts = [each for each in every if may.count(rows[each.id], made_of)]
        found = files(counts)
        file = found.get(path)
        # What this machine wrote itself over exactly this, before it could remember that it did.
        known = {
            (each.digest, each.x): each.id
            for each in every
            if each.path == path and each.over == made_of and not each.gone
        }
        if file is None:
            why = "no machine that wrote it may write here" if rows else ""
            return Wanted(path, as_is=True, known=known, why=why)
        has_name = named(found.values())
        if has_name is not None and has_name.path != path:
            gone = f"{has_name.path} has this name on disks without case"
            return Wanted(path, known=known, why=gone)
        return self._of_file(file, rows, counts, may, known)

    def _of_file(
        self, file: File, rows: Mapping[EntryId, VersionRow], counts: list[Version],
        may: "_Rights", known: Mapping[tuple[bytes, bool], EntryId],
    ) -> Wanted:  # fmt: skip
        winner = file.winner
        wanted = Wanted(file.path, file.made_of, known=known)
        if winner.gone:
            return wanted
        where = self.bytes_of(rows[winner.id])
        if where is None:
            return wanted._replace(as_is=True, why="its bytes are not here yet")
        x = winner.x and any(may.allows(EXEC, rows[id].stream.machine) for id in file.made_of)
        wanted = wanted._replace(content=where, x=x, said_x=winner.x, conflict=file.is_conflict)
        merge = merge_of(file, counts)
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

    def _rows(self, place: Place, name: str) -> list[VersionRow]:
        found = self._core.tables.rows_of_each(
            VERSION,
            CONTEXT_VERSIONS_READ_MAX,
            ("-at_ms", "-at_n"),
            folder=place.folder,
            folded=name,
        )
        return [row for row in found if row.stream.scope == place.scope]

    # --- what the watcher says ------------------------------------------------------------------

    def _asked(self, event: AskFiles) -> None:
        wanted = tuple(self.wanted(event.place, event.paths))
        allowed = self.may_write(event.place.folder, self._core.machine)
        self._core.do(FilesAnswered(event.number, wanted=wanted, allowed=allowed))

    def _asked_paths(self, event: AskPaths) -> None:
        self._core.do(FilesAnswered(event.number, paths=tuple(self.paths(event.place))))

    def _write(self, event: WriteFiles) -> None:
        if not self._core.settled:
            self._core.do(FilesAnswered(event.number, settled=False))
            return
        drafts = [Draft("context.put", "muster", (), canon.encode(body)) for body in event.bodies]
        entries = self._core.append_all(event.place.scope, drafts)
        allowed = self.may_write(event.place.folder, self._core.machine)
        ids = tuple(entry.id for entry in entries)
        self._core.do(FilesAnswered(event.number, ids=ids, allowed=allowed))

    def _write_root(self, event: WriteRoot) -> None:
        own = self._core.membership.own(event.place.scope)
        said = self._core.tables.row(AT, own, event.place.folder)
        if self._core.settled and (said is None or said.root != event.root):
            body = ContextAt(event.place.folder, event.root.hex())
            self._core.append_body(body, scope=event.place.scope)

    # --- what comes -----------------------------------------------------------------------------

    def _came(self, stream: StreamName, entry: Entry) -> None:
        body = body_or_none(entry, ContextPut)
        own = stream.machine == self._core.machine and entry.header.actor == "muster"
        if body is None or own:
            # What the disk has already.
            return
        place, name = Place(stream.scope, body.folder), folded(body.path)
        # Of those that some disk takes for one, another may have the name from now on.
        names = self._core.tables.distinct(VERSION, ("path",), folder=body.folder, folded=name)
        for path in {body.path, *(path for (path,) in names)}:
            self._touch(place, path)
        # Whoever named these bytes before they came.
        for row in self._core.tables.rows(VERSION, same=entry.id, limit=CONTEXT_VERSIONS_READ_MAX):
            self._touch(Place(row.stream.scope, row.folder), row.path)

    def _touch(self, place: Place, path: str) -> None:
        self._touched.setdefault(place, set()).add(path)
        self._core.when_done(self._tell)

    def _tell(self) -> None:
        touched, self._touched = self._touched, {}
        for place, paths in touched.items():
            self._core.do(FilesChanged(place, tuple(sorted(paths))))

    def _roster_changed(self, event: ev.RosterChanged) -> None:
        before, after = event.before, event.after
        if before is None or _rights(before) != _rights(after):
            self._core.do(FilesChanged(None))


class _Rights:
    """What machines may in a folder now, asked once each."""

    def __init__(self, core: "Core", folder: str) -> None:
        self._core, self._folder = core, folder
        self._known: dict[tuple[str, MachineId], bool] = {}

    def allows(self, verb: str, machine: MachineId) -> bool:
        if (verb, machine) not in self._known:
            try:
                self._core.roster.decide(machine, verb, self._folder, self._core.now.wall_ms)
            except Denied:
                self._known[verb, machine] = False
            else:
                self._known[verb, machine] = True
        return self._known[verb, machine]

    def count(self, row: VersionRow, made_of: frozenset[EntryId]) -> bool:
        """See rule 1 of this file."""
        cut = self._core.roster.cut(row.stream)
        if cut is not None and row.seq >= cut:
            return False
        return row.id in made_of or self.allows(WRITE, row.stream.machine)


def _merged_bit(first: bool, base: bool, second: bool) -> bool:
    """The side that changed it says what it is."""
    return second if first == base else first


def _rights(roster: Roster) -> tuple[frozenset[str], frozenset[str]]:
    """What decides who may write: changes of anything else change no folder."""
    given = frozenset(g.id for g in roster.grants if g.grant.verb in (WRITE, EXEC, ANYTHING))
    return given, frozenset(roster.revoked)
