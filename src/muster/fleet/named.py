"""Whom a person means by a word: machines and operators have one space of names.

Rule 1: a word that could mean two is refused, with what to type instead; nothing is guessed where
somebody would be shut out, or given something, by mistake.
Rule 2: a name comes before the beginning of an id: a machine may be called `deadbeef`.
Rule 3: who was revoked is meant by nobody; the refusal says that it was.
"""

import re
from typing import Final, Literal, NamedTuple

from muster.errors import Conflict, NotFound
from muster.fleet.name import short
from muster.fleet.roster import Roster

Sort = Literal["machine", "operator"]
SORTS: Final[tuple[Sort, ...]] = ("machine", "operator")

# Shorter than this a beginning of an id is more likely a word.
ID_CHARS_MIN: Final = 8
_ID: Final = re.compile(rf"[0-9a-f]{{{ID_CHARS_MIN},64}}")


class Named(NamedTuple):
    """A machine or an operator: its key is its id."""

    sort: Sort
    key: str
    name: str

    def __str__(self) -> str:
        return f"{self.sort} {self.name} ({short(self.key)})"


def everyone(roster: Roster) -> list[Named]:
    """Every machine and operator whose key counts, in the order of their keys."""
    machines = [Named("machine", m, r.name) for m, r in sorted(roster.machines.items())]
    operators = [Named("operator", k, r.name) for k, r in sorted(roster.operators.items())]
    return machines + operators


def meant(roster: Roster, text: str, sort: Sort | None = None) -> Named:
    """The one that is called so, or whose id begins so; `sort` where the person said which.

    Raises: NotFound; Conflict where it was revoked, or could be more than one.
    """
    asked = [each for each in everyone(roster) if sort in (None, each.sort)]
    found = [each for each in asked if each.name == text]
    if not found and _ID.fullmatch(text):
        found = [each for each in asked if each.key.startswith(text)]
    if len(found) == 1:
        return found[0]
    if found:
        # By its sort where that suffices, else by its id.
        sorts = [each.sort for each in found]
        ways = " or ".join(
            f"`--{each.sort}`" if sorts.count(each.sort) == 1 else f"`{each.key[:16]}`"
            for each in found
        )
        them = " and ".join(map(str, found))
        what = f"{text[:64]} could be {them}: say which with {ways}; nothing was done"
        raise Conflict(what)
    begins = text if _ID.fullmatch(text) else "no key begins so"
    gone = roster.revoked.items()
    revoked = [each for k, each in gone if text == each.name or k.startswith(begins)]
    if ours := [each for each in revoked if sort in (None, each.of)]:
        how = "left the fleet" if ours[-1].left else "is revoked already"
        raise Conflict(f"{text[:64]} {how}: its key counts no more")
    if text in roster.former and sort != "operator":
        raise NotFound(f"no machine is called {text} any more: it is {roster.now_named(text)} now")
    names = ", ".join(sorted({each.name for each in asked})) or "none"
    raise NotFound(f"no {sort or 'machine or operator'} is called {text[:64]!r}; there are {names}")


def taken(roster: Roster, name: str) -> Named | None:
    """Who has this name."""
    return next((each for each in everyone(roster) if each.name == name), None)
