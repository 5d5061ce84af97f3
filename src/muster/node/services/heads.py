"""Which versions of a file nobody is over: out of the tables, however many versions there are.

Rule 1: a question costs what counts of the file, and who is over that: not all that it ever was.
Rule 2: only versions are looked at whose machine may write the folder now, and those that the disk
was made of. What the others write, however much, is neither read nor judged.
Rule 3: a file that has versions has a head. What is only said again (`context.replaced`) replaces
nothing where nothing else would count: it is no version, and no list shows it.
"""

import json
from collections.abc import Collection, Iterable
from itertools import islice
from typing import TYPE_CHECKING

from muster.context.fold import TOP, VERSION, VersionRow, file_print
from muster.context.path import folded
from muster.errors import Denied
from muster.fleet.grant import ANYTHING
from muster.fleet.roster import Roster
from muster.limits import CONTEXT_BESIDE_MAX, CONTEXT_HEADS_MAX, CONTEXT_SPELLINGS_MAX
from muster.log.entry import EntryId
from muster.log.stream import MachineId, Scope, StreamName
from muster.store.sqlite import as_bytes, as_int, as_text

if TYPE_CHECKING:
    from muster.node.core import Core

# The rights on a folder, given to machines: to change files, and to make them executable.
WRITE = "context.write"
EXEC = "context.exec"
# So many names are read at once; one with more versions on top is asked for by itself.
_AHEAD_MAX = 100
_FEW = 8
# Own versions over one and the same that are looked at: a crash forgets one.
_FORGOTTEN_MAX = 20

# The streams stand in the text, as numbers of our own.
# A version that another one is over, and one that any entry is; rule 3.
_OVER_IT = """select 1 from context_over as over
  where over.target = top.id and over.file = top.file and over.stream in ({0})"""
_HEADS = f"""
with top as (
  select stream, seq, id, path, file, absent, at_ms, at_n, exists ({_OVER_IT}) as is_over
  from context_top as top where folder = ?1 and folded = ?2 and stream in ({{0}})
), counted as (select *, min(is_over) over (partition by path) as has_none from top)
select stream.name, ours.seq from (
  select stream, seq, row_number() over (
    partition by stream order by absent, at_ms desc, at_n desc, id desc) as rank
  from counted as top where is_over = 0 or (has_none and not exists ({_OVER_IT} and exists (
    select 1 from context_version as own where own.stream = over.stream and own.seq = over.seq)))
) as ours join stream on stream.id = ours.stream where rank <= ?3
"""  # noqa: S608 - of two texts above
_IS_OVER = "select 1 from context_over where target = ?1 and file = ?2 and stream in ({0}) limit 1"
_SPELLINGS = """
select distinct path from context_top where folder = ?1 and folded = ?2 and stream in ({0}) limit ?3
"""
_FIRST = """
select at_ms, at_n, id from context_version where folder = ?1 and folded = ?2 and path = ?3
and stream in ({0}) order by at_ms, at_n, id limit 1
"""
_NEWEST = """
select stream.name, ours.seq from (
  select stream, seq from context_top where folder = ?1 and folded = ?2 and path = ?3
  and stream in ({0}) order by seq desc limit ?4
) as ours join stream on stream.id = ours.stream
"""
_WITH_BYTES = """
select version.id from context_version as version
left join context_version as named on version.same <> x'' and named.id = version.same
left join context_let_go as once on version.same <> x'' and once.id = version.same
  and once.stream in ({0})
where version.folder = ?1 and version.folded = ?2 and version.path = ?3 and version.x = ?5
and version.absent = 0 and coalesce(named.sha256, once.sha256, version.sha256) = ?4
and version.stream in ({0}) order by version.at_ms desc, version.at_n desc, version.id desc limit 1
"""
_ONCE = """
select id from context_let_go where file = ?1 and sha256 = ?2 and x = ?3 and stream in ({0})
order by seq desc limit 1
"""
_IS_TOLD = "select 1 from context_let_go where id = ?1 and file = ?2 and stream in ({0}) limit 1"
_REPLACERS = """
select stream.name, over.seq from context_over as over join stream on stream.id = over.stream
where over.target = ?1 and over.file = ?2 and over.stream in ({0}) limit ?3
"""
# By an entry that is no version itself.
_SAID_AGAIN = """
select 1 from context_over as over where over.target = ?1 and over.file = ?2
and over.stream in ({0}) and not exists (
  select 1 from context_version as own
  where own.stream = over.stream and own.seq = over.seq) limit 1
"""
_STAMPS = """
select at_ms, at_n, id from context_version where folder = ?1 and folded = ?2 and stream = ?3
order by seq desc limit ?4
"""
_SAME = """
select stream.name, version.seq from context_version as version
join stream on stream.id = version.stream
where version.same = ?1 and version.stream in ({0}) limit ?2
"""
# Of these names: how many versions stand on top of those that count, and of this machine's own.
_COUNTED = """
select folded, sum(stream in ({0})), sum(stream in ({1})) from context_top
where folder = ?1 and folded in (select value from json_each(?2)) and stream in ({2})
group by folded
"""
# As `_HEADS`, of many names.
_MANY_HEADS = f"""
with top as (
  select stream, seq, id, folded, path, file, absent, exists ({_OVER_IT}) as is_over
  from context_top as top where folder = ?1
  and folded in (select value from json_each(?2)) and stream in ({{0}})
), counted as (select *, min(is_over) over (partition by path) as has_none from top)
select top.folded, stream.name, top.seq from counted as top join stream on stream.id = top.stream
where is_over = 0 or (has_none and not exists ({_OVER_IT} and exists (
  select 1 from context_version as own where own.stream = over.stream and own.seq = over.seq)))
"""  # noqa: S608 - of two texts above
_SPELLED = """
select distinct path from context_top where folder = ?1
and folded in (select value from json_each(?2)) and stream in ({0}) limit ?3
"""
_IN_FOLDER = "select 1 from context_top where folder = ?1 and stream in ({0}) limit 1"
_PATHS = "select distinct path from context_top where folder = ?1 and stream in ({0}) limit ?2"
_ANY = "select 1 from context_top where folder = ?1 and folded = ?2 and stream in ({0}) limit 1"


def may_in_folder(core: "Core", verb: str, machine: MachineId, folder: str) -> bool:
    """Whether a machine may do that in a folder now."""
    try:
        core.roster.decide(machine, verb, folder, core.now.wall_ms)
    except Denied:
        return False
    return True


def given_rights(roster: Roster) -> tuple[frozenset[str], frozenset[str]]:
    """What decides who may write: changes of anything else change no folder."""
    given = frozenset(g.id for g in roster.grants if g.grant.verb in (WRITE, EXEC, ANYTHING))
    return given, frozenset(roster.revoked)


def passed_name(stream: StreamName) -> str:
    """What `context.passed` calls a stream of its own scope."""
    return f"{stream.machine}/{stream.incarnation}"


class Heads:
    """What counts in one folder now: the rights are asked once."""

    def __init__(self, core: "Core", scope: Scope, folder: str) -> None:
        self._core, self._scope, self._folder = core, scope, folder
        self._rights: dict[tuple[str, MachineId], bool] = {}
        streams = [each for each in core.log.streams() if each.scope == scope]
        own = [each for each in streams if each.machine == core.machine]
        may = [each for each in streams if self.allows(WRITE, each.machine)]
        # Of those whose machine may write the folder now.
        self.streams = tuple(may)
        self._every, self._own, self._may = map(self._numbers, (streams, own, may))
        # Rows that were read, for whoever must not take too long.
        self.read = 0
        # The heads of names that were read at once; names of which this machine wrote nothing.
        self._ahead: dict[str, list[VersionRow]] = {}
        self._not_own: Collection[str] = ()

    def allows(self, verb: str, machine: MachineId) -> bool:
        """Whether a machine may do that in the folder now."""
        if (verb, machine) not in self._rights:
            self._rights[verb, machine] = may_in_folder(self._core, verb, machine, self._folder)
        return self._rights[verb, machine]

    def read_ahead(self, first: Iterable[str]) -> None:
        """Read what counts of the first of these names, folded, at once: where that is little.

        Each is asked for once then, and before anything changes.
        """
        names = set(islice(first, _AHEAD_MAX))
        bound = (self._folder, json.dumps([*names]))
        both = ", ".join(filter(None, (self._may, self._own)))
        found = self._core.tables.query(_COUNTED.format(self._may, self._own, both), bound)
        many = {as_text(name) for name, count, _ in found if as_int(count) > _FEW}
        self._not_own = {*names} - {as_text(name) for name, _, own in found if as_int(own)}
        self._ahead = {name: [] for name in names if name not in many}
        bound = (self._folder, json.dumps([*self._ahead]))
        heads = self._core.tables.query(_MANY_HEADS.format(self._may), bound)
        self.read += len(heads)
        places = {
            (StreamName.parse(as_text(stream)), as_int(seq)): as_text(name)
            for name, stream, seq in heads
        }
        for row in self._core.tables.at_places(VERSION, places):
            self._ahead[places[row.stream, row.seq]].append(row)

    def of(self, name: str, made_of: Iterable[EntryId] = ()) -> list[VersionRow]:
        """The heads of every path that is `name`, folded.

        `made_of` are versions that count here because this disk was made of them.
        """
        found = self._ahead.pop(name, None)
        if found is None:
            found = self._rows(_HEADS, (self._folder, name, CONTEXT_HEADS_MAX), self._may)
        more = [row for id in made_of if (row := self._kept(id, name)) is not None]
        if more:
            replaced = {(each.path, target) for each in more for target in each.targets}
            found += [row for row in more if not self._is_over(row)]
            found = [row for row in found if (row.path, row.id) not in replaced]
        return found

    def _kept(self, id: EntryId, name: str) -> VersionRow | None:
        """A version that this disk was made of, and whose machine may write here no more."""
        row = self.row(id)
        if row is None or row.folded != name or self.allows(WRITE, row.stream.machine):
            return None
        cut = self._core.roster.cut(row.stream)
        return row if cut is None or row.seq < cut else None

    def row(self, id: EntryId) -> VersionRow | None:
        """The version of this folder with an id."""
        self.read += 1
        found = self._core.tables.rows(VERSION, id=id, limit=1)
        ours = [r for r in found if r.folder == self._folder and r.stream.scope == self._scope]
        return ours[0] if ours else None

    def first(self, path: str) -> tuple[tuple[int, int], EntryId]:
        """When a path came first, and by which version of those that count."""
        bound = (self._folder, folded(path), path)
        found = self._core.tables.query(_FIRST.format(self._may), bound)
        if not found:
            return (0, 0), EntryId(b"")
        at_ms, at_n, id = found[0]
        return (as_int(at_ms), as_int(at_n)), EntryId(as_bytes(id))

    def forgotten(self, path: str, over: str) -> list[VersionRow]:
        """What this machine wrote itself over exactly this, newest first."""
        if (name := folded(path)) in self._not_own:
            return []
        bound = (self._folder, name, path, _FORGOTTEN_MAX)
        return [row for row in self._rows(_NEWEST, bound, self._own) if row.over == over]

    def with_bytes(self, path: str, digest: bytes, x: bool) -> EntryId | None:
        """The newest version of a path with these bytes, of those that count; None without one.

        Also one whose machine let it go, and of which nothing else is here than what that said.
        """
        bound = (self._folder, folded(path), path, digest, int(x))
        found = self._core.tables.query(_WITH_BYTES.format(self._may), bound)
        if not found:
            once = (file_print(self._folder, path), digest, int(x))
            found = self._core.tables.query(_ONCE.format(self._may), once)
        return EntryId(as_bytes(found[0][0])) if found else None

    def spelled(self, names: Collection[str]) -> set[str]:
        """Paths that are one of these names, folded, of those that count: so many of each."""
        most = len(names) + CONTEXT_SPELLINGS_MAX
        bound = (self._folder, json.dumps([*names]), most + 1)
        found = self._core.tables.query(_SPELLED.format(self._may), bound)
        if len(found) > most:
            return {path for name in names for path in self._spellings(name)}
        return {as_text(path) for (path,) in found}

    def _spellings(self, name: str) -> list[str]:
        bound = (self._folder, name, CONTEXT_SPELLINGS_MAX)
        return [as_text(path) for (path,) in self._core.tables.query(
            _SPELLINGS.format(self._may), bound)]  # fmt: skip

    def paths(self, most: int, *, by_any: bool = False) -> list[str]:
        """Paths that files have or had; with `by_any` also of those whose versions do not count."""
        sql = _PATHS.format(self._every if by_any else self._may)
        return [as_text(path) for (path,) in self._core.tables.query(sql, (self._folder, most))]

    def is_known(self, name: str) -> bool:
        """Whether anybody wrote a version of it, whether it counts or not."""
        sql = _ANY.format(self._every)
        return bool(self._core.tables.query(sql, (self._folder, name)))

    def replaced(self, ids: Iterable[EntryId]) -> list[EntryId]:
        """Those of these versions that some other one is over, and those that nobody knows."""
        found = ((id, self.row(id)) for id in ids)
        return [id for id, row in found if row is None or self._is_over(row)]

    def replacers(self, row: VersionRow) -> list[tuple[StreamName, int]]:
        """The entries that are over a version: some of them."""
        bound = (row.id, file_print(row.folder, row.path), CONTEXT_BESIDE_MAX)
        found = self._core.tables.query(_REPLACERS.format(self._may), bound)
        self.read += 1 + len(found)
        return [(StreamName.parse(as_text(name)), as_int(seq)) for name, seq in found]

    def not_said_again(self, row: VersionRow) -> list[EntryId]:
        """What a version is over, and its machine has not said again apart from it."""
        machine, file = row.stream.machine, file_print(row.folder, row.path)
        its = self._numbers([each for each in self.streams if each.machine == machine])
        sql = _SAID_AGAIN.format(its)
        return [id for id in sorted(row.targets) if not self._core.tables.query(sql, (id, file))]

    def newest(self, name: str, most: int) -> list[tuple[int, int, EntryId]]:
        """The stamps of the newest versions of what is `name`, folded: so many, or fewer."""
        found = list[tuple[int, int, EntryId]]()
        for number in self._may.split(", ") if self._may else ():
            bound = (self._folder, name, int(number), most)
            for at_ms, at_n, id in self._core.tables.query(_STAMPS, bound):
                found.append((as_int(at_ms), as_int(at_n), EntryId(as_bytes(id))))
            self.read += 2
        self.read += len(found) // 10
        return sorted(found, reverse=True)[:most]

    def with_same(self, id: EntryId, most: int) -> list[VersionRow]:
        """Versions that count and have the bytes of this one: so many, whatever others wrote."""
        return self._rows(_SAME, (id, most), self._may)

    def is_empty(self) -> bool:
        """Whether the folder has no version that counts."""
        return not self._core.tables.query(_IN_FOLDER.format(self._may), (self._folder,))

    def is_told(self, row: VersionRow) -> bool:
        """Whether its machine has said which bytes a version had, apart from it."""
        machine, file = row.stream.machine, file_print(row.folder, row.path)
        its = self._numbers([each for each in self.streams if each.machine == machine])
        return bool(self._core.tables.query(_IS_TOLD.format(its), (row.id, file)))

    def passed(self) -> dict[str, int]:
        """How many entries are here of each stream in which the folder has versions that count."""
        log, found = self._core.log, {}
        for stream in self.streams:
            if self._core.tables.rows(
                TOP, stream=stream, folder=self._folder, order=("path",), limit=1
            ):
                found[passed_name(stream)] = log.size(stream)
        return found

    def _is_over(self, row: VersionRow) -> bool:
        bound = (row.id, file_print(row.folder, row.path))
        return bool(self._core.tables.query(_IS_OVER.format(self._may), bound))

    def _rows(
        self, sql: str, bound: tuple[str | int | bytes, ...], streams: str
    ) -> list[VersionRow]:
        found = self._core.tables.query(sql.format(streams), bound)
        self.read += len(found)
        places = ((StreamName.parse(as_text(name)), as_int(seq)) for name, seq in found)
        rows = (self._core.tables.row(VERSION, stream, seq) for stream, seq in places)
        return [row for row in rows if row is not None]

    def _numbers(self, streams: list[StreamName]) -> str:
        """What the tables call these streams."""
        names = tuple(map(str, streams))
        marks = ", ".join("?" * len(names))
        found = self._core.tables.query(f"select id from stream where name in ({marks})", names)  # noqa: S608 - marks only
        return ", ".join(str(as_int(number)) for (number,) in found)
