"""Which messages are unread here, by reader: an index over what the folds wrote.

Rule 1: it is made of the changes of two tables since it last looked, so that a question costs what
is new and not what there ever was; all of it can be made again from the store.
Rule 2: it is asked before the asking call writes: what that call may take back was never in it.

A reader is an agent's name, or "" for whoever sits here, to whom everybody's receipts count.
"""

from collections.abc import Iterator
from typing import Any, Final, NamedTuple

from muster.log.stream import StreamName
from muster.message.state import Peer, meant
from muster.node.standing import Standing
from muster.store.store import Store

# Rows that are looked at between two questions to the database.
_PAGE: Final = 5_000
# Each reader's index is a few words for each unread message; a daemon has few agents.
READERS_MAX: Final = 16


class Place(NamedTuple):
    """Where an unread message stands; sorted by the senders' clocks, each sender's in its order."""

    at_ms: int
    stream: StreamName
    seq: int
    id: bytes


class _View:
    """What one reader has not read."""

    def __init__(self, me: Peer, agent: str) -> None:
        self.me = me
        self.agent = agent
        self.unread: dict[bytes, Place] = {}
        self._ids: dict[tuple[StreamName, int], bytes] = {}
        # Who gave receipts for what, as far as it was not unread here: it may come later.
        self._read: dict[bytes, set[str]] = {}
        self._messages = self._receipts = 0

    def look(self, store: Store) -> bool:
        """Take in what is new; False where a receipt was taken back and all is to be made anew."""
        fresh = not self._receipts
        for at, gone, stream, (message, actor) in _changes(
            store, "receipt", ("message", "actor"), self._receipts
        ):
            self._receipts = at
            if stream.machine != self.me.machine or not self._is_mine(str(actor)):
                continue
            if gone and not fresh:
                return False
            if gone:
                self._read.get(message, set()).discard(actor)
            elif self.unread.pop(message, None) is None:
                self._read.setdefault(message, set()).add(actor)
        columns = ("seq", "id", "recipients", "at_ms")
        for at, gone, stream, (seq, id, to, at_ms) in _changes(
            store, "message", columns, self._messages
        ):
            self._messages = at
            if gone:
                self.unread.pop(self._ids.pop((stream, seq), b""), None)
                continue
            if self._read.get(id) or id in self.unread:
                continue
            found = meant(str(to).split("\n"), stream.machine, self.me)
            if found and (not self.agent or found & {"", self.agent}):
                self.unread[id] = Place(at_ms, stream, seq, id)
                self._ids[stream, seq] = id
        return True

    def _is_mine(self, actor: str) -> bool:
        return not self.agent or actor.partition("@")[0] == self.agent


class Mailbox:
    """The unread messages of this machine."""

    def __init__(self, store: Store, standing: Standing) -> None:
        self._store = store
        self._standing = standing
        self._views: dict[str, _View] = {}

    def unread(self, agent: str = "") -> list[Place]:
        """What this reader has not read, the oldest first."""
        machine = self._standing.machine
        record = self._standing.roster.machines.get(machine)
        me = Peer(machine, record.roles if record is not None else ())
        view = self._views.pop(agent, None)
        if view is None or view.me != me or not view.look(self._store):
            view = _View(me, agent)
            view.look(self._store)
        while len(self._views) >= READERS_MAX:
            del self._views[next(iter(self._views))]
        self._views[agent] = view
        return sorted(view.unread.values())


def _changes(
    store: Store, table: str, columns: tuple[str, ...], after: int
) -> Iterator[tuple[int, bool, StreamName, tuple[Any, ...]]]:
    while True:
        page = store.changes(table, columns, after=after, limit=_PAGE)
        yield from page
        if len(page) < _PAGE:
            return
        after = page[-1][0]
