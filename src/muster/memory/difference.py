"""What changed between two texts, by lines (pure).

Rule: it costs little whatever the texts are. What they begin and end with alike is set aside first;
of what is left, more than a look can compare is told as gone and come, whole.
"""

import difflib
from typing import Final

# Lines of the one times lines of the other: a comparison of so many takes some milliseconds.
_PAIRS_MAX: Final = 20_000
# Lines that are shown around a change.
_AROUND: Final = 2


def difference(old: str, new: str) -> list[str]:
    """The lines that differ behind `-` and `+`, those around them behind a blank, and `…` where
    some are left out; [] where nothing differs.
    """
    before, after = old.split("\n") if old else [], new.split("\n") if new else []
    start = _alike(before, after)
    end = _alike(before[start:][::-1], after[start:][::-1])
    gone, come = before[start : len(before) - end], after[start : len(after) - end]
    if not gone and not come:
        return []
    told = [f"  {line}" for line in before[:start]]
    if len(gone) * len(come) > _PAIRS_MAX:
        told += [*(f"- {line}" for line in gone), *(f"+ {line}" for line in come)]
    else:
        # A line that is in both is one, however often it is there.
        matcher = difflib.SequenceMatcher(None, gone, come, autojunk=False)
        for tag, i, j, m, n in matcher.get_opcodes():
            if tag == "equal":
                told += [f"  {line}" for line in gone[i:j]]
            else:
                told += [f"- {line}" for line in gone[i:j]]
                told += [f"+ {line}" for line in come[m:n]]
    told += [f"  {line}" for line in before[len(before) - end :]]
    return _near(told)


def _alike(one: list[str], two: list[str]) -> int:
    """How many lines two texts begin with alike."""
    count = 0
    for mine, other in zip(one, two, strict=False):
        if mine != other:
            break
        count += 1
    return count


def _near(told: list[str]) -> list[str]:
    """Without what is far from every change."""
    changes = [n for n, line in enumerate(told) if not line.startswith(" ")]
    kept = sorted({n for at in changes for n in range(at - _AROUND, at + _AROUND + 1)})
    lines, last = list[str](), -1
    for n in kept:
        if 0 <= n < len(told):
            lines += ["…"] if n != last + 1 else []
            lines.append(told[n])
            last = n
    return [*lines, "…"] if last != len(told) - 1 else lines
