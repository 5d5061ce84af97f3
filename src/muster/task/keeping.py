"""Who keeps a repository in place of a machine that is gone: whoever goes on with its work.

Rule 1: a `repo.adopt` cites the operator's order by which its writer goes on with that machine's
work, as an adoption does (adoption.py), and counts by the same rules: a member's own word moves no
repository.
Rule 2: of several about one repository the one with the highest generation counts, and only as long
as its writer has the repository; see node/tasks/keepers.py.
"""

from collections.abc import Iterable
from typing import Annotated, Final, NamedTuple

from msgspec import Meta

from muster.log.entry import Entry, EntryId
from muster.log.fold import Rows, Skip, Table, body_as
from muster.log.kind import kind
from muster.log.stream import StreamName
from muster.task.kinds import Body, Count, MachineWord

RepoWord = Annotated[str, Meta(pattern=r"^[a-z0-9]([a-z0-9-]{0,62}[a-z0-9])?\Z")]


@kind("repo.adopt")
class RepoAdopt(Body, frozen=True):
    """A machine keeps a repository from now on, in place of the machine `of`.

    It cites the operator's order as its machine took it, or that it stands in.
    """

    repo: RepoWord
    of: MachineWord
    generation: Count


class KeepingRow(NamedTuple):
    """The newest word of this stream's machine that it keeps a repository."""

    stream: StreamName
    repo: str
    of: str
    generation: int
    entry: EntryId


KEEPING: Final = Table("keeping", KeepingRow, indexes=(("repo",),))


class KeepingFold:
    """The stream of a machine that goes on with another's repositories."""

    name = "keeping"
    tables = (KEEPING,)
    kinds = frozenset({"repo.adopt"})

    def apply(self, entry: Entry, rows: Rows) -> Iterable[NamedTuple]:
        body = body_as(entry, RepoAdopt)
        if body.of == rows.stream.machine:
            raise Skip("its-own")
        known = rows.get(KEEPING, body.repo)
        if known is not None and known.generation >= body.generation:
            raise Skip("keeping-older")
        return (KeepingRow(rows.stream, body.repo, body.of, body.generation, entry.id),)
