"""Version ranges of tools: `>=3.11,<4`, `3.x`, `!=18.2`, `*`. Small and total.

Rule 1: a version is the first dotted number in what a tool prints: `git version 2.43.0` is 2.43.0,
        `v20.1.0` is 20.1.0, `1.1.1w` is 1.1.1. Whatever follows the numbers does not count, so
        `3.12.0rc1` is 3.12.0.
Rule 2: missing parts are zero where versions are ordered: 3.11 equals 3.11.0.
Rule 3: a bare number is a prefix: `3.11` and `3.11.x` both take every 3.11.

Why not `packaging`: it knows PEP 440, the versions of Python distributions. Tools print what they
like (`24.0.7-ce`, `go1.22`, `1.1.1w`), which it refuses, and a range in a spec must never depend on
how a tool names its pre-releases. It would be a dependency for fewer lines than these.
"""

import re

from muster.errors import Malformed
from muster.limits import RANGE_CHARS_MAX

Version = tuple[int, ...]

# At most four parts of at most eight digits: no tool needs more, and the match stays linear.
_NUMBER = re.compile(r"(?<![\d.])(\d{1,8}(?:\.\d{1,8}){0,3})")
_CLAUSE = re.compile(
    r"(>=|<=|==|!=|~=|>|<|=|)\s*v?(\d{1,8}(?:\.\d{1,8}){0,3})((?:\.[x*])?)", re.ASCII
)


def version_of(text: str) -> Version | None:
    """The version in what a tool printed; None when there is no number in it."""
    found = _NUMBER.search(text[:4096])
    return tuple(int(part) for part in found[1].split(".")) if found else None


def in_range(version: str, wanted: str) -> bool:
    """Whether a version is in a range.

    Raises:
        Malformed: the range is not one; a version that is none is in no range but `*`.

    """
    clauses = check_range(wanted)
    have = version_of(version)
    return not clauses or (have is not None and all(_holds(have, clause) for clause in clauses))


def check_range(wanted: str) -> list[tuple[str, Version]]:
    """The clauses of a range, each its sign and version. Raises Malformed when it is none."""
    text = wanted.strip()
    if text in {"", "*", "x", "any"}:
        return []
    if len(text) > RANGE_CHARS_MAX:
        raise Malformed(f"a version range has at most {RANGE_CHARS_MAX} characters")
    clauses = []
    for part in text.split(","):
        found = _CLAUSE.fullmatch(part.strip())
        if found is None or (found[3] and found[1] not in {"", "=", "==", "!="}):
            raise Malformed(f"{wanted!r} is no version range; write for example >=3.11,<4 or 3.x")
        version = tuple(int(number) for number in found[2].split("."))
        prefix = found[3] or not found[1]
        clauses.append(((found[1].replace("==", "=") or "=") + ("*" if prefix else ""), version))
    return clauses


def _holds(have: Version, clause: tuple[str, Version]) -> bool:
    sign, wanted = clause
    width = max(len(have), len(wanted))
    a, b = (version + (0,) * (width - len(version)) for version in (have, wanted))
    # Compatible release: the last part may grow, what stands before it may not change.
    same_head = a[: max(1, len(wanted) - 1)] == b[: max(1, len(wanted) - 1)]
    prefix = a[: len(wanted)] == wanted
    answers = {
        ">=": a >= b, "<=": a <= b, ">": a > b, "<": a < b, "=": a == b, "!=": a != b,
        "~=": a >= b and same_head, "=*": prefix, "!=*": not prefix,
    }  # fmt: skip
    return answers[sign]
