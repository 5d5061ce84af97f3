"""A part of a machine's core: one service, in one file.

Rule 1: a part says itself what it needs: its tables, the effects that it asks for, and, in its
constructor (`Core.on`), the entries and events that it hears of. `parts.py` names it as well.
Rule 2: each call of a part is a unit of its own (guard.py): what fails in it keeps no other part
from its turn.
Rule 3: only a part that is `dirty` is asked to `flush`. Whoever gives it something to do says so:
what does not concern a part costs it nothing.
"""

from collections.abc import Iterable, Sequence
from typing import Any, ClassVar

from muster.log.stream import FleetId
from muster.node.event import Effect


class Part:
    """See the rules at the top of this file. What a part has no need of, it leaves out."""

    # What failures of it are told under.
    name: ClassVar[str] = ""
    # Whoever drives the core has a handler for each of them before it begins.
    effects: ClassVar[tuple[type[Effect], ...]] = ()
    # Without it there is no machine: where its start fails, the machine does not start.
    vital: ClassVar[bool] = False
    # Whether `flush` has something to do.
    dirty = False

    def __init__(self, core: object) -> None:
        """Find the parts before this one in `parts.py`, and say what this one hears of."""

    @staticmethod
    def folds(fleet: FleetId) -> Sequence[Any]:  # noqa: ARG004 - as all of them are called
        """The folds that make its tables, in the order in which an entry meets them."""
        return ()

    def start(self) -> None:
        """Take up what the store says was going on; once, in the order of `parts.py`."""

    @property
    def needs_tick(self) -> bool:
        """Whether it runs against the time: the next tick is to come soon."""
        return False

    def tick(self) -> None:
        """Time passed, and our own history is confirmed."""

    def flush(self) -> None:
        """Do what is still to be done in this step; our own history is confirmed."""


def all_folds(fleet: FleetId, parts: Iterable[type[Part]]) -> tuple[Any, ...]:
    """The folds of all of them, in the order in which an entry meets them."""
    return tuple(fold for part in parts for fold in part.folds(fleet))
