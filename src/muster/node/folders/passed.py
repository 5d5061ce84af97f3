"""What the disk of a folder needs no more, said to the fleet: at most once a day.

Rule: what is said is true of the files on the disk: of each it is asked, after the moment that is
said, whether something is over what it is made of.
"""

from collections.abc import Callable

from muster.limits import CONTEXT_KEPT_MAX
from muster.log.entry import EntryId
from muster.node import event as ev
from muster.node.folders.folder import ASKED_MAX, Folder
from muster.node.host import clock
from muster.node.services.context import FilesAnswered, Place
from muster.node.services.retention import EVERY_MS, AskReplaced, WritePassed

Ask = Callable[[Callable[[int], ev.Event]], FilesAnswered]


def made_of(folder: Folder) -> frozenset[EntryId]:
    """All versions that files on a disk are made of; also those that were just replaced."""
    here = (base.over | base.counting for base in folder.bases.values())
    return frozenset().union(*here, *(old.over for old in folder.writer.old.values()))


class Passed:
    """See the rule at the top of this file; `ask` waits for the core's answer."""

    def __init__(self, ask: Ask, send: Callable[[ev.Event], None]) -> None:
        self._ask, self._send = ask, send
        self._said_ms: dict[str, int] = {}
        self._waiting: set[str] = set()

    def changed(self, name: str) -> float | None:
        """A disk is another than before: in how many seconds to `say`, None where that waits."""
        if name in self._waiting:
            return None
        self._waiting.add(name)
        since_ms = clock.boot_ms() - self._said_ms.get(name, clock.boot_ms() - EVERY_MS)
        return max(0, EVERY_MS - since_ms) / 1000

    def say(self, folder: Folder) -> bool:
        """Say it now; False where this machine may not write yet. Raises: MusterError."""
        place, kept = folder.place, list[EntryId]()
        self._waiting.discard(place.folder)
        first = self._ask(lambda number: AskReplaced(number, place))
        if not first.settled:
            return False
        every = sorted(made_of(folder))
        for at in range(0, len(every), ASKED_MAX):
            some = tuple(every[at : at + ASKED_MAX])
            kept += self._ask(lambda number, some=some: AskReplaced(number, place, some)).ids  # type: ignore[misc]
        self._said_ms[place.folder] = clock.boot_ms()
        if len(kept) <= CONTEXT_KEPT_MAX:
            self._send(WritePassed(place, first.cut, tuple(kept)))
        return True

    def end(self, place: Place) -> None:
        """This machine has the folder no more."""
        self._said_ms.pop(place.folder, None)
        self._send(WritePassed(place, {}, ended=True))
