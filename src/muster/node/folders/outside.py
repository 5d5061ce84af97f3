"""What a context folder needs of the machine around it; each may raise: MusterError."""

from collections.abc import Callable, Iterable, Mapping
from typing import Protocol

from muster.context.kinds import ContextPut
from muster.log.entry import EntryId
from muster.node.services.context import Bytes, Place, Unknown, Wanted

# The ids of versions that were written, and whether this machine may write there.
Written = Callable[[], tuple[tuple[EntryId, ...], bool]]


class Outside(Protocol):
    """What a folder needs of the machine around it. Each may raise: MusterError."""

    def wanted(
        self, place: Place, made_of: Mapping[str, frozenset[EntryId]], unknown: Unknown
    ) -> tuple[tuple[Wanted, ...], bool]:
        """What is to lie at these paths, and whether this machine may write there.

        `unknown` are files of which nothing is known: they may be versions of before.
        """

    def paths(self, place: Place) -> tuple[str, ...]:
        """All paths that a folder has, or had."""

    def begin_write(self, place: Place, bodies: list[ContextPut]) -> Written:
        """Begin to write versions; what is returned waits until that is durable.

        It must be called: what it says is what the files are made of.
        """

    def claim(self, blob: str, id: EntryId) -> None:
        """This blob is here as what this version names, and is kept."""

    def bytes_at(self, place: Place, path: str, where: Bytes) -> Iterable[bytes] | None:
        """The bytes of a version; None where they are still to come: the path is told then."""

    def merge(self, first: bytes, base: bytes, second: bytes, *, union: bool) -> bytes | None:
        """Two texts as one; None where that is not clean."""

    def again(self, place: Place, paths: frozenset[str], *, settle: bool, after_ms: int) -> None:
        """Bring these paths once more, so much later: to be looked at, or settled as well."""
