"""What a spec may write for an amount of memory, a range of versions, a path and a branch.

Rule 1: the text is kept as written; here it becomes MiB.
Rule 2: a `…_refusal` returns the sentence that tells what is wrong, or "" when nothing is.
"""

import re
from typing import Final

from muster.errors import Malformed
from muster.task.version import check_range

SIZE: Final = "^[1-9][0-9]{0,6}(M|G|T)(iB|B)?$"
_SIZE_MIB: Final = {"M": 1, "G": 1024, "T": 1024 * 1024}
_COMPONENT_REFUSED: Final = re.compile(r'[\x00-\x1f\x7f\\:*?"<>|]')
_SYSTEMS: Final = frozenset({"linux", "macos", "darwin", "windows"})
# What other readers of YAML take for the same.
_SWITCHES: Final = {
    **dict.fromkeys(("on", "true", "yes", "y", "1", "enforced"), "on"),
    **dict.fromkeys(("off", "false", "no", "n", "0", "none"), "off"),
}
_GIT_NAMES: Final = frozenset({".git", "git~1"})
_PATH_CHARS_MAX: Final = 200
# What a name has room for on the disks of Linux and macOS.
_PART_BYTES_MAX: Final = 255


def size_mib(text: str) -> int:
    """`8GiB`, `8GB` or `8G` -> 8192, as memory is sold. The text has been matched with SIZE."""
    digits = text.rstrip("MGTiB")
    return int(digits) * _SIZE_MIB[text[len(digits)]]


def versions_refusal(wanted: str) -> str:
    """Why this is no range of versions, or ""."""
    try:
        check_range(wanted)
    except Malformed:
        return 'is not a range of versions; write ">=3.11,<4", "3.x" or "*"'
    return ""


def system_refusal(name: str) -> str:
    """Why no machine calls its operating system so, or ""."""
    return "" if name in _SYSTEMS else "is not linux, macos, darwin or windows"


def switch_refusal(text: str) -> str:
    """Why this says neither on nor off, or ""."""
    if text in {"on", "off"}:
        return ""
    meant = _SWITCHES.get(text.lower())
    return f"is not on or off; write {meant}" if meant else "is not on or off"


def path_refusal(path: str) -> str:
    """Why this is no path inside a repository, or ""."""
    if len(path) > _PATH_CHARS_MAX:
        return f"must have at most {_PATH_CHARS_MAX} characters"
    try:
        raw = path.encode()
    except UnicodeEncodeError:
        return "must be UTF-8"
    if any(len(part) > _PART_BYTES_MAX for part in raw.split(b"/")):
        return f"must have at most {_PART_BYTES_MAX} bytes between two slashes"
    if path.startswith(("/", "~")) or re.match(r"[A-Za-z]:", path):
        return "must be relative to the repository, not a place on one machine"
    if path.startswith("-"):
        return "must not begin with a dash, which a command would take for an option"
    if _COMPONENT_REFUSED.search(path):
        return 'must not contain \\ : * ? " < > | or control characters'
    for part in path.removesuffix("/").split("/"):
        if part in ("", ".", ".."):
            return 'must be a plain path, without "..", "." or an empty part'
        # Windows and macOS read `.GIT`, `.git ` and `git~1` as `.git`: a push would write hooks.
        if part.lower().rstrip(". ") in _GIT_NAMES:
            return "must not lie in .git"
        if part.endswith((".", " ")):
            return "must not have a part that ends with a dot or a space"
    return ""


def glob_refusal(pattern: str) -> str:
    """Why this is no pattern of paths inside a repository, or ""."""
    if "**" in pattern and not re.fullmatch(r"([^*]*|\*\*|[^/]*)(/(\*\*|[^/]*))*", pattern):
        return "`**` stands alone between slashes"
    return path_refusal(re.sub(r"[*?]", "x", pattern))


def branch_refusal(branch: str) -> str:
    """Why git would not take this as a branch name, or ""."""
    parts = branch.split("/")
    bad = (
        not re.fullmatch(r"[A-Za-z0-9._/-]{1,200}", branch)
        or ".." in branch
        or branch.startswith("-")
        or any(not p or p.startswith(".") or p.endswith((".", ".lock")) for p in parts)
    )
    return "is not a branch name that git takes" if bad else ""


def branches_refusal(pattern: str) -> str:
    """Why this names no branches, or "": a branch, with `*` and `?` within and `**` across /."""
    if branch_refusal(re.sub(r"[*?]", "x", pattern)):
        return 'names no branches; write one, or some as "feature/*"'
    return ""
