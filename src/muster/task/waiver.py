"""When a person need not be asked: a rule that the operator signed, held against facts.

Rule 1: the rule is in the signed spec (`unless` of a phase by human). The owner decides by what it
        holds itself: the lines of the change, counted in git, and the results that it settled.
Rule 2: whatever cannot be counted is too much: the person is asked.
Rule 3: the numbers stand beside the decision, whichever way it went.
"""

import re
from collections.abc import Collection, Iterator
from typing import Final, NamedTuple

from muster.task.local_paths import Finding
from muster.task.spec import Spec, Unless

_HUNK: Final = re.compile(rb"@@ -\d+(?:,(\d+))? \+\d+(?:,(\d+))? @@")
# Nobody reads a longer one at once: so much of a line counts as one.
_LINE_BYTES: Final = 200
_SUBMODULE: Final = b"Subproject commit "


class Decision(NamedTuple):
    """Whether the person need not be asked, and the sentence with the numbers."""

    waived: bool
    sentence: str


def decide(
    rule: Unless, lines: int | None, streaks: Collection[tuple[str, int]], why: str = ""
) -> Decision:
    """`lines` of the change, None where they cannot be counted (`why`), and past the rule's any
    number for more; `streaks` of each author, of whom two may have the same name.
    """
    said = f"rule: at most {rule.lines} lines, {rule.passed} passed in a row"
    if lines is None or not streaks:
        return Decision(False, f"asked: {why or 'there is no change to count'} ({said})")
    author, streak = min(streaks, key=lambda each: (each[1], each[0]))
    waived = lines <= rule.lines and streak >= rule.passed
    by = f" of {author}" if len(streaks) > 1 or not waived else ""
    count = f"{lines} line{'s' * (lines != 1)}"
    if lines > rule.lines:
        count = f"more than {rule.lines} line{'s' * (rule.lines != 1)}"
    numbers = f"{count}, {streak} passed in a row{by}"
    return Decision(waived, f"{'not ' * waived}asked: {numbers} ({said})")


def lines_of(patch: bytes, most: int) -> int | None:
    """How many lines a patch without context adds and takes away; None where that says nothing.
    Past `most` nobody counts on.

    A file that changes in nothing but its mode or its name counts as a line; a submodule holds
    whatever it likes.
    """
    total = left = pending = at = 0
    # Line by line as it lies there: as objects the lines of a patch take many times its size.
    while at < len(patch) and total <= most:
        end = patch.find(b"\n", at)
        end = len(patch) if end < 0 else end
        line, at = patch[at:end], end + 1
        if left and line[:1] in (b"+", b"-"):
            if line[1:].startswith(_SUBMODULE):
                return None
            # To many a language a carriage return ends a line.
            inner = line.rstrip(b"\r").count(b"\r")
            total += 1 + max((len(line) - 1) // _LINE_BYTES, inner)
            left -= 1
        elif line.startswith(b"diff --git "):
            total += pending
            left, pending = 0, 1
        elif found := _HUNK.match(line):
            left = sum(int(count) if count is not None else 1 for count in found.groups())
            pending = 0
    return total + pending


def waivers(spec: Spec, repo: str) -> Iterator[Finding]:
    """What a rule that asks no person cannot be."""
    for name, phase in spec.phases.items():
        if phase.unless is None:
            continue
        what = ""
        if not phase.by_human:
            what = "says when no person is asked; it goes with by: human only"
        elif not phase.prerequisites:
            what = "looks at the change of the phases before, and there is none; say after: NAME"
        elif not repo:
            what = "counts the lines of a change, and the spec names no repository; add repo: NAME"
        if what:
            yield Finding(name, "unless", what)
