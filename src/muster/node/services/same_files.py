"""Notices that a session of another machine writes the same file: what machines tell each other.

Rule 1: nothing of it is written down anywhere: these are calls that nobody answers, between
machines that have a link and can do this. What is lost comes again with the next write.
Rule 2: a machine tells of its writes at most once a second, and a machine that was away of the last
ones when it is back. Whoever tells more often is not heard.
Rule 3: which machine says something is what its link proves. The rest of it is names of agents and
sessions, and times: no text of it, and no path, reaches a session.
"""

from collections import deque
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from muster.limits import (
    SAME_FILE_APART_MS,
    SAME_FILE_CALLS_PER_MINUTE,
    SAME_FILE_WRITERS_MAX,
)
from muster.message.same_file import File, Met, Prints, Writer, Writes
from muster.message.session import SessionRow
from muster.node import event as ev
from muster.node.call.router import Router
from muster.node.counter import DECLARED, spend
from muster.node.link import SAME_FILES
from muster.node.part import Part

if TYPE_CHECKING:
    from muster.node.core import Core

DECLARED[__name__] = {
    "writes-unheard": "A machine told too often which files its sessions write.",
}

# A file and who of a machine wrote it: agent, session, and how many ms ago.
Told = tuple[str, str, Sequence[tuple[str, str, int]]]


class SameFiles(Part):
    """See the rules at the top of this file."""

    name = "same-files"

    def __init__(self, core: "Core") -> None:
        self._core, self._writes = core, Writes(core.machine)
        self._said_ms: int | None = None
        # Machines that were told what was written before they came.
        self._greeted: set[str] = set()
        # When each was heard lately; also of one that comes and goes.
        self._heard: dict[str, deque[int]] = {}
        core.on(ev.MachineGone, lambda event: self._greeted.discard(event.machine))
        core.on(ev.MachineRemoved, lambda event: self._heard.pop(event.machine, None))

    # --- sessions here --------------------------------------------------------------------

    def wrote(self, row: SessionRow, file: File, root: str, prints: Prints) -> None:
        """A session of this machine wrote a file."""
        self._writes.wrote(self._writer(row), file, root, prints, self._core.now.boot_ms)

    def due(self, row: SessionRow) -> list[Met]:
        """Who else wrote its files, of whom it was not told yet."""
        return self._writes.due(self._writer(row))

    def told(self, row: SessionRow, met: Met) -> None:
        """It is being told of this."""
        self._writes.told(self._writer(row), met)

    def again(self, row: SessionRow, met: Met) -> None:
        """Nobody printed what it was to be told."""
        self._writes.again(self._writer(row), met)

    def ended(self, row: SessionRow) -> None:
        """Its program ended."""
        self._writes.ended(self._writer(row))

    def _writer(self, row: SessionRow) -> Writer:
        return Writer(self._core.machine, row.agent, row.name)

    # --- other machines -------------------------------------------------------------------

    @property
    def needs_tick(self) -> bool:
        return self._writes.is_unsaid

    def tick(self) -> None:
        now_ms = self._core.now.boot_ms
        here = {
            link.peer: None
            for link in self._core.links.values()
            if link.peer and SAME_FILES in link.features
        }
        came = [peer for peer in here if peer not in self._greeted]
        self._greeted.update(came)
        for peer in came:
            self._say(peer, self._writes.recent(now_ms))
        is_early = self._said_ms is not None and now_ms - self._said_ms < SAME_FILE_APART_MS
        if not self._writes.is_unsaid or is_early:
            return
        self._said_ms, said = now_ms, self._writes.say(now_ms)
        for peer in here:
            if peer not in came:
                self._say(peer, said)

    def _say(self, peer: str, files: Sequence[Prints]) -> None:
        if files:
            self._core.part(Router).say(peer, "session.wrote", {"files": [list(f) for f in files]})

    def on_wrote(self, peer: str, files: Sequence[tuple[str, str]]) -> None:
        """Sessions of another machine wrote these: it is told who did here, and asked who there."""
        if self._hears(peer):
            self._answer(peer, [Prints(*each) for each in files], back=True)

    def on_met(self, peer: str, files: Sequence[Told], *, back: bool) -> None:
        """Another machine says who of its sessions wrote these, and asks who did here."""
        if not self._hears(peer):
            return
        now_ms = self._core.now.boot_ms
        found = {
            Prints(address, name): [
                (agent, session, now_ms - ago_ms) for agent, session, ago_ms in by
            ]
            for address, name, by in files
        }
        self._writes.met(peer, found, now_ms)
        if back:
            self._answer(peer, list(found), back=False)

    def _answer(self, peer: str, files: Sequence[Prints], *, back: bool) -> None:
        now_ms = self._core.now.boot_ms
        found: list[Any] = [
            [*prints, [[who.agent, who.session, now_ms - at_ms]
                       for who, at_ms in writers[-SAME_FILE_WRITERS_MAX:]]]
            for prints, writers in self._writes.shared(files, now_ms)
        ]  # fmt: skip
        if found:
            args = {"files": found, "back": back}
            self._core.part(Router).say(peer, "session.met", args)

    def _hears(self, peer: str) -> bool:
        if peer == self._core.machine:
            # A copy of this machine, whose sessions would be ours.
            return False
        heard = self._heard.setdefault(peer, deque())
        if spend(heard, SAME_FILE_CALLS_PER_MINUTE, 60_000, self._core.now.boot_ms):
            return True
        self._core.counters["writes-unheard"] += 1
        return False
