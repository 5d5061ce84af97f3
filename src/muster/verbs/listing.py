"""How long a list is, and what is said where it was cut.

Rule: a list is filtered before it is cut, and a cut is said: what is not shown looks as if it were
not there.
"""

from typing import Final

from muster.errors import Malformed
from muster.node.call import Call

# An answer of so many rows is a few megabytes, below what an answer may be.
LIMIT_MAX: Final = 5_000


def shown_max(call: Call, usual: int) -> int:
    """How many rows are asked for. Raises: Malformed."""
    found = call.args.get("limit") or usual
    if not isinstance(found, int) or not 0 < found <= LIMIT_MAX:
        raise Malformed(f"a list has 1 to {LIMIT_MAX} rows: --limit {found!r} is none of that")
    return found


def say_cut(call: Call, limit: int, what: str, more: str) -> None:
    """Tell, before the list itself, that there is more of it."""
    if call.channel:
        call.more({"note": f"only {limit} {what} are shown, and there are more: {more}"})
