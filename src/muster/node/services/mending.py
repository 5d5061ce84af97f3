"""Who hears entries by a poorer way than there may be says so: a better one may be broken.

What is done about it, here and at the other end, is in node/links/mend.py.
"""

from typing import TYPE_CHECKING, Final

from muster.node import event as ev
from muster.node.part import Part
from muster.node.replica.replication import EntriesTaken

if TYPE_CHECKING:
    from muster.node.core import Core

# Of each link or mailbox it is said this often at most.
SAID_APART_MS: Final = 5_000
# And once more so long after it carried last: what is better may have broken since it was said, and
# a machine that was asked for it a moment before does nothing for a minute.
SAID_AGAIN_MS: Final = 65_000


class PoorWay(ev.Effect, frozen=True):
    """Entries came from a machine over this link, or mailbox, and there may be better ones."""

    peer: str
    link: int


class MendAsked(ev.Effect, frozen=True):
    """A machine asks in a parcel that a channel be mended; `channel` is whatever it wrote."""

    peer: str
    channel: bytes


class Mending(Part):
    name = "mending"
    effects = (PoorWay, MendAsked)

    def __init__(self, core: "Core") -> None:
        self._core = core
        self._said_ms: dict[int, int] = {}
        # When it is said of a link without that anything comes.
        self._due_ms: dict[int, int] = {}
        core.on(EntriesTaken, self._taken)
        core.on(ev.Tick, self._look)
        core.on(ev.LinkDown, self._down)

    def _taken(self, event: EntriesTaken) -> None:
        link, now_ms = self._core.links.get(event.link), self._core.now.boot_ms
        if link is not None and not link.cost:
            return
        if event.link not in self._core.sync.paths.by_link:
            return
        self._due_ms[event.link] = now_ms + SAID_AGAIN_MS
        apart_ms = self._said_ms.get(event.link, -SAID_APART_MS) + SAID_APART_MS
        if now_ms >= apart_ms:
            self._say(event.link)
        else:
            self._due_ms[event.link] = apart_ms

    def _say(self, link: int) -> None:
        session = self._core.sync.paths.by_link.get(link)
        if session is not None:
            self._said_ms[link] = self._core.now.boot_ms
            self._core.do(PoorWay(session.peer, link))

    def _look(self, _event: ev.Tick) -> None:
        now_ms = self._core.now.boot_ms
        for link in [link for link, due_ms in self._due_ms.items() if due_ms <= now_ms]:
            if now_ms - self._said_ms[link] < SAID_AGAIN_MS:
                self._due_ms[link] = now_ms + SAID_AGAIN_MS
            else:
                del self._due_ms[link]
            self._say(link)

    def _down(self, event: ev.LinkDown) -> None:
        self._said_ms.pop(event.link, None)
        self._due_ms.pop(event.link, None)
