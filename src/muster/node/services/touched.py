"""Which files of context folders what came in a step may change, asked at once for all of it.

Rule: a file that a version came of is told whatever else is found.
"""

from typing import TYPE_CHECKING

from muster.context.fold import VERSION, VersionRow
from muster.context.kinds import ContextPut
from muster.context.path import folded
from muster.limits import CONTEXT_VERSIONS_READ_MAX
from muster.log.entry import EntryId
from muster.log.stream import MachineId, Scope, StreamName
from muster.node.services.heads import WRITE, Heads

if TYPE_CHECKING:
    from muster.node.core import Core

# A scope and a folder.
_Where = tuple[Scope, str]


class Touched:
    """See the rule at the top of this file."""

    def __init__(self, core: "Core") -> None:
        self._core = core
        self._paths: dict[_Where, set[str]] = {}
        # Of the versions that came: their names, folded, by machine; and their ids.
        self._names: dict[_Where, dict[MachineId, set[str]]] = {}
        self._ids: list[EntryId] = []

    def touch(self, scope: Scope, folder: str, path: str) -> None:
        """What counts of a file may be something else."""
        self._paths.setdefault((scope, folder), set()).add(path)

    def came(self, body: ContextPut, stream: StreamName, id: EntryId) -> None:
        """A version came of another machine."""
        self.touch(stream.scope, body.folder, body.path)
        by = self._names.setdefault((stream.scope, body.folder), {})
        by.setdefault(stream.machine, set()).add(folded(body.path))
        self._ids.append(id)

    def told(self) -> dict[_Where, set[str]]:
        """The paths that were touched since, by scope and folder."""
        (names, self._names), (ids, self._ids) = (self._names, {}), (self._ids, [])
        for (scope, folder), by in names.items():
            heads = Heads(self._core, scope, folder)
            counting = {n for machine in by if heads.allows(WRITE, machine) for n in by[machine]}
            # Of those that some disk takes for one, another may have the name from now on.
            self._paths[scope, folder] |= heads.spelled(counting)
        for row in self._naming(ids):
            self.touch(row.stream.scope, row.folder, row.path)
        paths, self._paths = self._paths, {}
        return paths

    def _naming(self, ids: list[EntryId]) -> list[VersionRow]:
        """Versions that named the bytes of these before they came."""
        tables, most = self._core.tables, CONTEXT_VERSIONS_READ_MAX
        found = tables.with_any(VERSION, "same", ids, most)
        if found is None:
            found = [row for id in ids for row in tables.rows(VERSION, same=id, limit=most)]
        return found
