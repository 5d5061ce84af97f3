"""What an `each:` glob matches among the files of a commit.

Rule: the time for one name grows with its parts times the pattern's, whatever both are: they come
from others, and a pattern of many `**` must not stand still over a deep folder.
"""

import fnmatch
import re
from collections.abc import Iterable
from typing import Final

_ANY: Final = "**"


def matching(files: Iterable[str], glob: str) -> tuple[str, ...]:
    """The files, or for a glob that ends in `/` the folders, that `glob` matches, in order.

    `*` and `?` stay within one name, `**` crosses folders; as in a shell.
    """
    folders = glob.endswith("/")
    # What each part of the pattern matches; None for `**`.
    pattern = [
        None if part == _ANY else re.compile(fnmatch.translate(part))
        for part in glob.rstrip("/").split("/")
    ]
    names = set[str]()
    for file in files:
        above = file.split("/")[:-1]
        names |= {"/".join(above[: i + 1]) for i in range(len(above))} if folders else {file}
    return tuple(sorted(name for name in names if _fits(name.split("/"), pattern)))


def _fits(parts: list[str], pattern: list[re.Pattern[str] | None]) -> bool:
    at = _open(pattern, {0})
    for part in parts:
        on = set()
        for place in at:
            wanted = pattern[place] if place < len(pattern) else _END
            if wanted is None:
                on.add(place)
            elif wanted.match(part):
                on.add(place + 1)
        if not on:
            return False
        at = _open(pattern, on)
    return len(pattern) in at


# Matches no part: behind the end of a pattern nothing more may come.
_END: Final = re.compile(r"(?!)")


def _open(pattern: list[re.Pattern[str] | None], at: set[int]) -> set[int]:
    """These places in a pattern, and those behind a `**` that takes nothing more."""
    found = set(at)
    for place in at:
        on = place
        while on < len(pattern) and pattern[on] is None:
            on += 1
            found.add(on)
    return found
