"""Machines of other fleets: what they may call, how often, and until when.

Rule 1: they reach the verbs that say `foreign`, of this very machine, and nothing else; what one of
them may do then, grants to its fleet say, and the verb asks them.
Rule 2: every refusal reads the same. What is here, who is here and why something was refused is for
machines of this fleet to know.
Rule 3: so many calls of one fleet in a minute, however many links it has; one more cuts its link.
Rule 4: once its fleet is removed, its links are cut in the same step.
"""

from collections import defaultdict, deque
from typing import TYPE_CHECKING, Final

from muster.errors import Denied
from muster.fleet.letter import Said
from muster.fleet.peer import Foreign, foreign
from muster.limits import (
    CLOCK_SKEW_MS,
    PEER_CALLS_PER_MINUTE_MAX,
    PEER_LETTER_LIFE_MS,
    PEERS_MAX,
)
from muster.node import event as ev
from muster.node.call.answers import Request
from muster.node.counter import DECLARED, spend
from muster.node.link import Link
from muster.node.part import Part
from muster.node.verb import Verb

if TYPE_CHECKING:
    from muster.node.core import Core

DECLARED[__name__] = {
    "guests-cut": "A link of another fleet was cut: it called too often, or was let in no more.",
}

REFUSED: Final = "nothing here answers that"


def guest_of(core: "Core", link: str) -> Foreign:
    """Which machine of another fleet calls. Raises: Denied where that fleet was removed since."""
    guest = foreign(link)
    assert guest is not None, "the router lets in nobody else"
    if guest.fleet not in core.roster.peers:
        raise Denied("it was removed while the call waited for our history")
    return guest


def check_brought(core: "Core", guest: Foreign, document: Said, what: str) -> None:
    """Raises: Denied unless who calls says it itself, to this machine, and not long ago."""
    if (document.of, document.by, document.door) != (guest.fleet, guest.machine, core.machine):
        raise Denied(f"the {what} is another machine's, or for another one")
    age_ms = core.now.wall_ms - document.issued_ms
    if not -CLOCK_SKEW_MS <= age_ms <= PEER_LETTER_LIFE_MS:
        raise Denied(f"the {what} is too old, or from a time to come")


class Guests(Part):
    """See the rules at the top of this file."""

    name = "guests"

    def __init__(self, core: "Core") -> None:
        self._core = core
        self._calls: dict[str, deque[int]] = defaultdict(deque)
        core.on(ev.RosterChanged, self._changed)

    def hears(self, link: Link) -> bool:
        """Whether a call of this link is read at all."""
        guest, now_ms = foreign(link.foreign), self._core.now.boot_ms
        if guest is None or guest.fleet not in self._core.roster.peers:
            self._cut(link, "nobody is here")
            return False
        if len(self._calls) > PEERS_MAX:
            self._calls.clear()
        if spend(self._calls[guest.fleet], PEER_CALLS_PER_MINUTE_MAX, 60_000, now_ms):
            return True
        self._cut(link, "too many calls")
        return False

    def check(self, verb: Verb | None, request: Request) -> None:
        """Raises: Denied, unless it is a verb for other fleets, asked of this machine itself."""
        if verb is None or verb.auth != "foreign" or request.on or request.hops:
            raise Denied(REFUSED)

    def _changed(self, event: ev.RosterChanged) -> None:
        for link in self._core.links.values():
            guest = foreign(link.foreign)
            if guest is not None and guest.fleet not in event.after.peers:
                self._cut(link, "nobody is here")

    def _cut(self, link: Link, why: str) -> None:
        self._core.counters["guests-cut"] += 1
        self._core.do(ev.Cut(link.id, why))
