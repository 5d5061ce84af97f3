"""Overwriting what was erased where its copies may lie, a piece of the file in each turn.

Rule: it goes on until nothing is left, also after a start. Nobody waits for it, and it waits for
whoever is busy.
"""

import asyncio
from collections.abc import Callable
from typing import Final

from muster.errors import Exhausted
from muster.node import event as ev
from muster.node.services.erasure import BodyErased
from muster.node.supervisor import Supervisor
from muster.store.index import TextIndex
from muster.store.store import Store

# A megabyte: some milliseconds.
PAGES: Final = 256
# What is erased together is scrubbed together.
GATHER_S: Final = 0.1
PAUSE_S: Final = 0.005
# While somebody reads old pages, or the disk has no room.
AGAIN_S: Final = 1.0


# Overwrites what holds no data in so many pages from one on; tells where to go on, 0 at the end.
Scrub = Callable[[int, int], int]


class Scrubbing:
    """See the rule at the top of this file."""

    def __init__(self, store: Store, index: TextIndex, supervisor: Supervisor) -> None:
        self._store, self._index, self._supervisor = store, index, supervisor
        self._goes_on = False

    @ev.effect(BodyErased)
    def begin(self, _effect: BodyErased) -> None:
        """Begin, where it is not under way."""
        if not self._goes_on:
            self._goes_on = True
            self._supervisor.run("scrubbing", self._scrub())

    async def _scrub(self) -> None:
        try:
            while self._store.has_copies or self._index.has_copies:
                await asyncio.sleep(GATHER_S)
                if self._index.has_copies:
                    await self._whole(self._index.scrub)
                if self._store.has_copies:
                    await self._whole(self._piece)
        finally:
            self._goes_on = False

    async def _whole(self, scrub: Scrub) -> None:
        page = 1
        while page:
            before, page = page, scrub(page, PAGES)
            await asyncio.sleep(AGAIN_S if page == before else PAUSE_S)

    def _piece(self, page: int, most: int) -> int:
        """Of the log: where its disk fails, the daemon ends."""
        if self._store.waits:
            return page
        try:
            found = self._supervisor.step(lambda: self._store.scrub(page, most))
        except Exhausted:
            return page
        return page if found is None else found
