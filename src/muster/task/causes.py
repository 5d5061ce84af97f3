"""From an entry to what it cites: the links of a chain of causes, each looked at for what it is.

Rule 1: nothing is fetched. What is missing is a refusal, as what does not fit is.
Rule 2: an owner that had to begin a new incarnation repeats what is still open, citing what it
repeats: what counts is where it was first written.
"""

from collections.abc import Callable
from typing import Final

from muster.errors import Denied, Malformed
from muster.log.entry import Entry, EntryId
from muster.task import kinds

Lookup = Callable[[EntryId], Entry | None]
# Every new incarnation of an owner may repeat an opening once.
_REPETITIONS_MAX: Final = 64


class Unproven(Denied):
    """An assignment without sufficient evidence; `reason` is a stable word-with-dashes."""

    def __init__(self, reason: str, sentence: str) -> None:
        super().__init__(sentence)
        self.reason = reason


def origin(entry: Entry, lookup: Lookup) -> Entry:
    """Where the owner first wrote this: in a new incarnation it repeats what is still open.

    A repetition has the same kind, author and body, and cites what it repeats.
    """
    for _ in range(_REPETITIONS_MAX):
        for cause in entry.causes:
            found = lookup(cause)
            if found is None or found.body is None:
                continue
            alike = (found.header.kind, found.header.author, found.body)
            if alike == (entry.header.kind, entry.header.author, entry.body):
                entry = found
                break
        else:
            return entry
    raise Unproven("repeated-too-often", "the order was repeated more often than anyone restarts")


def read(entry: Entry, kind: str, type_: type[kinds.B], what: str) -> kinds.B:
    if entry.header.kind != kind:
        raise Unproven(f"{what}-other-kind", f"a cause is {entry.header.kind}, not {kind}")
    if entry.body is None:
        raise Unproven(f"{what}-no-body", f"the body of {kind} was erased or withheld")
    try:
        return kinds.read(type_, entry.body)
    except Malformed as error:
        text = f"the body of {kind} cannot be read: {error}"
        raise Unproven(f"{what}-bad-body", text) from error


def cause_of(entry: Entry, kind: str, lookup: Lookup) -> Entry:
    """The one cause of that kind. It must be of the same owner: nobody opens for another."""
    word = kind.partition(".")[0] if kind == "run.open" else "open"
    for cause in entry.causes:
        found = lookup(cause)
        if found is not None and found.header.kind == kind:
            if found.header.author != entry.header.author:
                raise Unproven(f"{word}-other-owner", f"{kind} was written by another machine")
            return found
    raise Unproven(f"{word}-missing", f"this machine has no {kind} for {entry.header.kind}")
