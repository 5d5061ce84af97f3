"""What the disk of a folder has, and needs no more, said to the fleet: that at most once a day.

Rule 1: what is said is true of the files on the disk: of each it is asked, after the moment that is
said, whether something is over what it is made of, or over what a copy may still be said to be.
Rule 2: what is to be said is due until it was said, whatever fails meanwhile.
Rule 3: a folder that is opened says it at once: what was said may be of another disk, or that there
is none.
"""

from collections.abc import Callable, Iterable
from typing import Final

from muster.limits import CONTEXT_KEPT_MAX
from muster.log.entry import EntryId
from muster.node import event as ev
from muster.node.folders.below import ASKED_MAX
from muster.node.folders.folder import Folder
from muster.node.folders.holders import MOMENT_MS
from muster.node.host import clock
from muster.node.services.context import FilesAnswered, Place, WriteRoot
from muster.node.services.retention import EVERY_MS, AskReplaced, WritePassed

Ask = Callable[[Callable[[int], ev.Event]], FilesAnswered]

# A disk that is far behind, or of which more was just replaced than can be said: soon again.
_AGAIN_MS: Final = 2 * MOMENT_MS


def made_of(folder: Folder) -> frozenset[EntryId]:
    """All versions that files on a disk are made of; also those that were just replaced."""
    here = (base.over | base.counting for base in folder.bases.values())
    return frozenset().union(*here, *(old.over for old in folder.writer.old.values()))


class Passed:
    """See the rules at the top of this file; `ask` waits for the core's answer."""

    def __init__(self, ask: Ask, send: Callable[[ev.Event], None]) -> None:
        self._ask, self._send = ask, send
        self._roots: dict[str, bytes] = {}
        self._said_ms: dict[str, int] = {}
        # When it is to be said of a folder, or tried again.
        self.due_ms: dict[str, int] = {}

    def opened(self, name: str) -> None:
        """What is said of a folder from now on is of another disk."""
        for each in (self._roots, self._said_ms, self.due_ms):
            each.pop(name, None)

    def tell_root(self, folder: Folder) -> None:
        """A disk may be another than before: what it needs no more is said once in a day."""
        name, now_ms = folder.place.folder, clock.boot_ms()
        if folder.root == self._roots.get(name):
            return
        self._roots[name] = folder.root
        self._send(WriteRoot(folder.place, folder.root))
        due_ms = self._said_ms.get(name, now_ms - EVERY_MS) + EVERY_MS
        self.due_ms.setdefault(name, max(now_ms, due_ms))

    def due(self, now_ms: int, again_ms: int) -> list[str]:
        """The folders that are to `say` it now; each is due again, then, unless it did."""
        names = [name for name, due_ms in self.due_ms.items() if due_ms <= now_ms]
        self.due_ms.update(dict.fromkeys(names, again_ms))
        return names

    def say(self, folder: Folder) -> bool:
        """Say it now; False where this machine may not write yet. Raises: MusterError."""
        place, name = folder.place, folder.place.folder
        first = self._ask(lambda number: AskReplaced(number, place))
        if not first.settled:
            # What its disk has was not written either.
            self._roots.pop(name, None)
            return False
        now_ms = clock.boot_ms()
        kept = self._replaced(place, made_of(folder))
        every = kept | self._replaced(place, folder.holders.nameable)
        if len(every) <= CONTEXT_KEPT_MAX:
            self._send(WritePassed(place, first.cut, tuple(every)))
            self._said_ms[name] = now_ms
            self.due_ms.pop(name, None)
            if every:
                # They may be needed no more by then, though nothing else changes.
                self.due_ms[name] = now_ms + EVERY_MS
            return True
        if len(kept) > CONTEXT_KEPT_MAX:
            # What was said before may be of another disk: it needs everything.
            self._send(WritePassed(place, {}))
        self.due_ms[name] = now_ms + _AGAIN_MS
        return True

    def _replaced(self, place: Place, ids: Iterable[EntryId]) -> frozenset[EntryId]:
        every, found = sorted(ids), set[EntryId]()
        for at in range(0, len(every), ASKED_MAX):
            some = tuple(every[at : at + ASKED_MAX])
            found.update(self._ask(lambda number, some=some: AskReplaced(number, place, some)).ids)  # type: ignore[misc]
        return frozenset(found)

    def end(self, place: Place) -> None:
        """This machine has the folder no more."""
        self.opened(place.folder)
        self._send(WritePassed(place, {}, ended=True))
