"""What a machine counts of itself: `status` shows it, docs/spec/counters.md explains it.

Rule 1: a name is declared once, by the module that counts it, with a sentence for who sees it rise.
Rule 2: what nobody declared cannot be counted.
Rule 3: where one name counts several things it ends in a label, as `call-<error>` does.

    DECLARED[__name__] = {"disputes": "Two copies of a stream differ."}
    counters["disputes"] += 1
"""

from collections import Counter, deque
from typing import Final

# The names and sentences of each module.
DECLARED: Final[dict[str, dict[str, str]]] = {}


def labelled(name: str, *labels: str | Exception) -> str:
    """A name with its label; an error is labelled by its kind."""
    words = (type(e).__name__.lower() if isinstance(e, Exception) else e for e in labels)
    return "-".join([name, *words])


class Counts(Counter[str]):
    """How often what happened, by name."""

    def __missing__(self, name: str) -> int:
        for declared in (each for names in DECLARED.values() for each in names):
            plain, label, _ = declared.partition("<")
            if name == plain or (label and name.startswith(plain)):
                return 0
        raise KeyError(f"{name} is counted, and nobody declared it")


def has_room(spent: deque[int], most: int, per_ms: int, now_ms: int) -> bool:
    """Whether one more is within what so much time has room for."""
    while spent and now_ms - spent[0] >= per_ms:
        spent.popleft()
    return len(spent) < most


def spend(spent: deque[int], most: int, per_ms: int, now_ms: int) -> bool:
    """Whether one more is within what so much time has room for; then it is spent."""
    room = has_room(spent, most, per_ms, now_ms)
    if room:
        spent.append(now_ms)
    return room
