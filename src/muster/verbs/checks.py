"""One thing that doctor looked at, and what becomes of one that cannot be looked at.

Rule: a check that fails is one line, and takes no other check with it: a home in which one thing
is damaged is the one that a person wants to hear everything about.
"""

from collections.abc import Callable, Iterable, Iterator

from msgspec import Struct

from muster.errors import MISTAKES, MusterError
from muster.node.host.owner import whose

_REPORT = "where that file is not damaged it is our mistake: please report it"


class Check(Struct, frozen=True):
    """One thing looked at; `mend` says what to do, "" where there is nothing to do."""

    name: str
    state: str
    text: str
    mend: str = ""


def guarded(name: str, mend: str, look: Callable[[], object], well: str) -> Iterator[Check]:
    """A check that is well when it raises nothing."""

    def looks() -> Iterator[Check]:
        look()
        yield Check(name, "ok", well)

    return tried(name, mend, looks)


def tried(name: str, mend: str, look: Callable[[], Iterable[Check]]) -> Iterator[Check]:
    """What a look found, and a line of this name where it could not go on."""
    try:
        yield from look()
    except MusterError as error:
        yield Check(name, "wrong", str(error), mend)
    except PermissionError as error:
        yield Check(name, "wrong", str(error), whose(str(error.filename or "")) or mend)
    except OSError as error:
        yield Check(name, "wrong", str(error), mend)
    except MISTAKES as error:
        what = f"it could not be looked at ({type(error).__name__}: {error})"
        yield Check(name, "wrong", what, mend or _REPORT)
