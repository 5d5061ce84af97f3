"""Whether a link carries: a question over each, which has to be answered over that very link.

Rule 1: it is asked when the link came, when what was said over it is not answered, and before
another link is ended for it; until an answer comes. A no is one: a machine that does not know the
verb proves both directions by it.
Rule 2: a link over which nothing was answered in time is in doubt, and whoever dials hears of it
(log/proofs.py says what that means). It goes on being used where there is no other.
"""

from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from muster.channel.frame import Type
from muster.limits import PROOF_MS, PROOF_MS_MAX
from muster.log import canon
from muster.node import event as ev
from muster.node.call.router import Router
from muster.node.part import Part

if TYPE_CHECKING:
    from muster.node.core import Core
    from muster.node.link import Answer

QUESTION: Final = "ping.answer"


@dataclass(slots=True)
class _Question:
    """One that is under way."""

    channel: int
    asked_ms: int
    # How long an answer is waited for; the next time twice as long, for the network may be slow.
    patience_ms: int


class Proving(Part):
    name = "proving"
    effects = (ev.Seek,)

    def __init__(self, core: "Core") -> None:
        self._core = core
        self._questions: dict[int, _Question] = {}
        core.on(ev.LinkUp, self._up)
        core.on(ev.LinkDown, self._down)
        core.on(ev.Prove, self._prove)
        core.on(ev.Tick, self._look)
        core.on(ev.Committed, self._doubt_silent)

    def _up(self, event: ev.LinkUp) -> None:
        if event.peer in self._core.roster.machines:
            self._ask(event.link, PROOF_MS)

    def _down(self, event: ev.LinkDown) -> None:
        # Whoever waits for an answer hears that the link is gone: that is none.
        self._questions.pop(event.link, None)

    def _prove(self, event: ev.Prove) -> None:
        if event.link in self._core.links and event.link not in self._questions:
            self._ask(event.link, PROOF_MS)

    def _ask(self, link: int, patience_ms: int) -> None:
        def answered(_answer: "Answer") -> None:
            if self._questions.pop(link, None) is not None:
                self._core.sync.proved(link, self._core.now.boot_ms)

        core = self._core
        channel = next(core.links[link].numbers)
        core.part(Router).asked[link, channel] = answered
        core.send(link, Type.CALL, channel, canon.encode({"args": {}, "verb": QUESTION}))
        self._questions[link] = _Question(channel, core.now.boot_ms, patience_ms)

    def _look(self, _event: ev.Tick) -> None:
        now_ms = self._core.now.boot_ms
        for link, question in list(self._questions.items()):
            if now_ms - question.asked_ms >= question.patience_ms:
                self._core.part(Router).forget(link, question.channel)
                self._doubt(link)
                self._ask(link, min(2 * question.patience_ms, PROOF_MS_MAX))

    def _doubt(self, link: int) -> None:
        """Say it once, until it is proven."""
        core = self._core
        proofs = core.sync.paths.proofs
        if not proofs.is_doubted(link):
            proofs.doubt(link, core.now.boot_ms)
            core.do(ev.Seek(core.links[link].peer, link))

    def _doubt_silent(self, _event: ev.Committed) -> None:
        """Nobody answers what `sync` says over these links."""
        sync = self._core.sync
        for link in sync.unanswered.values():
            session = sync.paths.by_link.get(link)
            # It may have been answered in the very step in which it was said.
            if session is not None and session.unanswered and link in self._core.links:
                self._doubt(link)
                self._prove(ev.Prove(link))
        sync.unanswered.clear()
