"""Where the bytes of versions come from: out of the entry, from our disk, or from a peer.

Rule 1: so many blobs are under way at once; the other files wait for their turn.
Rule 2: what nobody has now is asked for again in `AGAIN_S`, and keeps no other one waiting.
"""

import asyncio
from collections.abc import Callable, Coroutine, Iterable
from typing import Any, Final

from muster.errors import MusterError
from muster.log.entry import EntryId
from muster.node.attempts.blob_transfer import entry_claim
from muster.node.runtime import Runtime
from muster.node.services.context import Bytes

# Each is read by a peer that has other things to do as well.
FETCHES_MAX: Final = 8
AGAIN_S: Final = 30.0

Fetch = Callable[[str, Bytes], Coroutine[Any, Any, None]]


class Fetches:
    """See the rules at the top of this file. `settle` is told of paths whose bytes may be here."""

    def __init__(
        self, daemon: Runtime, fetch: Fetch, settle: Callable[[str, frozenset[str]], None]
    ) -> None:
        self._blobs, self._machine = daemon.machine.blobs, daemon.core.machine
        self._fetch, self._settle = fetch, settle
        self._loop = asyncio.get_running_loop()
        # Versions whose bytes are under way, and those that nobody had a moment ago.
        self._under_way: set[EntryId] = set()
        self._in_vain: set[EntryId] = set()
        # Paths that wait for their turn, by folder; of the thread that asks.
        self._waiting: dict[str, dict[str, None]] = {}

    def bytes_at(self, folder: str, path: str, where: Bytes) -> Iterable[bytes] | None:
        """The bytes of a version; None where they are still to come: the path is told then."""
        if where.data is not None:
            return (where.data,)
        name, claim = where.digest.hex(), entry_claim(where.entry)
        ours = where.machine == self._machine or claim in self._blobs.claims(name)
        if ours and self._blobs.intact(name):
            return self._blobs.read(name)
        if where.entry in self._under_way or where.entry in self._in_vain:
            return None
        if len(self._under_way) >= FETCHES_MAX:
            self._waiting.setdefault(folder, {})[path] = None
            return None
        self._under_way.add(where.entry)
        asyncio.run_coroutine_threadsafe(self._bring(folder, path, where), self._loop)
        return None

    def more(self, folder: str) -> frozenset[str]:
        """Paths whose turn it is."""
        waiting, room = self._waiting.get(folder, {}), FETCHES_MAX - len(self._under_way)
        some = frozenset(list(waiting)[: max(0, room)])
        for path in some:
            del waiting[path]
        return some

    async def _bring(self, folder: str, path: str, where: Bytes) -> None:
        try:
            await self._fetch(path, where)
        except MusterError:
            # It is told as not here and tried again; `blob_transfer` counted each reason.
            self._in_vain.add(where.entry)
        finally:
            # Whatever became of it: its place is another one's now.
            self._under_way.discard(where.entry)
        # Whoever waits has its turn; of this one it is seen that nothing is here.
        self._settle(folder, frozenset({path}))
        if where.entry in self._in_vain:
            await asyncio.sleep(AGAIN_S)
            self._in_vain.discard(where.entry)
            self._settle(folder, frozenset({path}))
