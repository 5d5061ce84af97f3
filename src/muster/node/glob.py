"""What an `each:` glob matches among the files of a commit."""

import fnmatch
from collections.abc import Iterable


def matching(files: Iterable[str], glob: str) -> tuple[str, ...]:
    """The files, or for a glob that ends in `/` the folders, that `glob` matches, in order.

    `*` and `?` stay within one name, `**` crosses folders; as in a shell.
    """
    folders = glob.endswith("/")
    pattern = glob.rstrip("/").split("/")
    names = dict.fromkeys(
        part for file in files for part in (_folders(file) if folders else (file,))
    )
    return tuple(sorted(name for name in names if _fits(name.split("/"), pattern)))


def _folders(file: str) -> list[str]:
    parts = file.split("/")[:-1]
    return ["/".join(parts[: i + 1]) for i in range(len(parts))]


def _fits(parts: list[str], pattern: list[str]) -> bool:
    if not pattern:
        return not parts
    if pattern[0] == "**":
        return any(_fits(parts[i:], pattern[1:]) for i in range(len(parts) + 1))
    if not parts or not fnmatch.fnmatchcase(parts[0], pattern[0]):
        return False
    return _fits(parts[1:], pattern[1:])
