"""An address of this machine that others may dial, and who can (host/exposure.py)."""

from collections.abc import Iterable, Mapping
from typing import Final, Literal

from msgspec import Struct

Whom = Literal["computer", "mesh", "private", "public"]


class Exposed(Struct, frozen=True):
    """An address that others may dial: who can, over which interface, and why nobody can now.

    `announced` is whether machines of the fleet hear of it on the local network (links/lan.py).
    """

    address: str
    whom: Whom
    interface: str = ""
    error: str = ""
    announced: bool = False


_WORDS: Final[Mapping[str, str]] = {
    "computer": "this computer alone",
    "mesh": "the mesh",
    "private": "the private network",
    "public": "THE INTERNET",
}


def sentence(rows: Iterable[Exposed]) -> str:
    """Where that is, and for whom, in words; "" where nobody can dial anything."""
    words: dict[str, list[str]] = {}
    for row in rows:
        if not row.error:
            by = f" of {row.interface}" if row.interface and row.whom != "computer" else ""
            told = ", announced there" if row.announced else ""
            words.setdefault(f"{_WORDS[row.whom]}{by}{told}", []).append(row.address)
    return "; ".join(f"{', '.join(addresses)} ({whom})" for whom, addresses in words.items())
