"""A value that is too large for the entry that yields it, as text in that entry.

    blob:<sha256>:<size>     the whole value is a blob of this many bytes
    over:<size>              it was longer than anything that is handed on, and only its end is kept

Rule 1: the entry's `values` keep the end of such a value, marked, for people to read; whoever works
with it takes the whole, or is refused.
Rule 2: the text comes from another machine: a size beyond the bound is no blob.
Rule 3: it stands among the values, as `large:` and the name of the value that it is about. To a
machine of an older version it is one value more that nobody names, and the end is what it has.
"""

import re
from collections.abc import Mapping
from typing import Final, NamedTuple

from muster import limits
from muster.errors import Malformed

_PREFIX: Final = "large:"
_FORM: Final = re.compile(r"(?:blob:([0-9a-f]{64})|over):(0|[1-9][0-9]{0,14})")


class Large(NamedTuple):
    """`sha256` is "" where there is no blob of it."""

    size: int
    sha256: str = ""

    def __str__(self) -> str:
        return f"blob:{self.sha256}:{self.size}" if self.sha256 else f"over:{self.size}"


def parse(text: str) -> Large:
    """What a text says of a large value. Raises: Malformed."""
    found = _FORM.fullmatch(text)
    if found is None:
        raise Malformed(f"{text[:80]!r} does not name a large value")
    large = Large(int(found[2]), found[1] or "")
    if large.sha256 and large.size > limits.VALUE_BYTES_MAX:
        raise Malformed(f"a value of {large.size} bytes is more than anything that is handed on")
    return large


def told(large: Mapping[str, str]) -> dict[str, str]:
    """What is large, by value, as it stands among the values."""
    return {_PREFIX + name: text for name, text in large.items()}


def apart(values: Mapping[str, str]) -> tuple[dict[str, str], dict[str, str]]:
    """The values of an entry, and by value what it says of those that are large."""
    large = {n.removeprefix(_PREFIX): t for n, t in values.items() if n.startswith(_PREFIX)}
    return {n: t for n, t in values.items() if not n.startswith(_PREFIX)}, large


def shown(text: str, size: int) -> str:
    """The end of a large value, with a mark that says how much of it this is."""
    raw = text.encode("utf-8", "replace")[-limits.VALUE_SHOWN_BYTES :]
    return f"[the last {len(raw)} of {size} bytes]\n" + raw.decode("utf-8", "ignore")
