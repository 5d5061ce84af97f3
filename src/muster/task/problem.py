"""What is wrong with a spec, and where.

Rule 1: a problem has a line and a column (from 1), a path such as `phases.notes.after`, and one
sentence that says what to do.
Rule 2: all problems are reported at once; a person should not have to run `check` ten times.
Rule 3: a warning never stops a run; whatever could do harm or can never work is no warning.
"""

import re
from collections.abc import Iterable, Sequence
from difflib import get_close_matches
from typing import Final, NamedTuple

from muster.errors import Malformed, MusterError


class Problem(NamedTuple):
    """One thing to change in a spec; line 0 is what was told beside it, as `--repo` was."""

    line: int
    column: int
    path: str
    sentence: str
    warning: bool = False


class SpecErrors(Malformed):
    """A spec that cannot run; `problems` is never empty and sorted by place."""

    def __init__(self, problems: Sequence[Problem]) -> None:
        self.problems = tuple(sorted(problems))
        first = self.problems[0]
        more = f" (and {len(self.problems) - 1} more)" if len(self.problems) > 1 else ""
        place = f"line {first.line}, column {first.column}: " if first.line else ""
        super().__init__(f"{place}{first.sentence}{more}")


_PLACED: Final = re.compile("line [0-9]+, column [0-9]+: ")


def of_file(error: MusterError, name: str) -> MusterError:
    """The error with the file that its place is in, itself where it has none: `SpecErrors`, also
    as a daemon told it.
    """
    return Malformed(f"{name}: {error}") if _PLACED.match(str(error)) else error


# Longer words are no typing mistakes, and comparing them costs time that an attacker chooses.
_WORD_MAX = 60


def did_you_mean(word: str, known: Iterable[str]) -> str:
    """`; did you mean "after"?` when a known word is near, else nothing."""
    near = nearest(word, known)
    return f'; did you mean "{near}"?' if near else ""


def nearest(word: str, known: Iterable[str]) -> str:
    """The known word that was most likely meant, "" where none is near."""
    if len(word) > _WORD_MAX:
        return ""
    near = get_close_matches(word.lower(), sorted(known), n=1, cutoff=0.6)
    return near[0] if near else ""


def shown(text: str) -> str:
    """A piece of hostile text, short and on one line, fit for an error message."""
    cut = text if len(text) <= _WORD_MAX else text[: _WORD_MAX - 1] + "…"
    return '"' + "".join(c if c.isprintable() else "\N{REPLACEMENT CHARACTER}" for c in cut) + '"'
