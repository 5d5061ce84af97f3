"""This machine's hand at the leases of a NATS cluster: it asks, writes, and tells the core.

Rule 1: nothing is asked while nobody is gone; then it is over a connection that is closed after.
Rule 2: what comes of it is told as it is: until when this machine is elected, counted from before
it asked; a machine that slept since is not.
Rule 3: a server that gives no answer is left for another one. Without any nobody is elected.
"""

import asyncio
import contextlib
import json
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, Final

from muster.channel.base import Post
from muster.errors import Exhausted, MusterError, Unreachable
from muster.limits import CLOCK_AHEAD_MS_MAX, ELECTION_BYTES_MAX, ELECTION_RENEW_MS
from muster.node import event as ev
from muster.node.counter import DECLARED, labelled
from muster.node.host import clock
from muster.node.runtime import Runtime
from muster.node.supervisor import say
from muster.node.tasks.elections import Campaign, Elected
from muster.task.election import Candidate, Seen, Write

if TYPE_CHECKING:
    from muster.channel.nats_lease import Leased, NatsLeases

DECLARED[__name__] = {
    "election-<error>": "What is asked of a NATS server for an election was not answered.",
}

NATS: Final = "nats"
# How soon one that gave no answer is left for another one: before a lease is lost.
_AGAIN_S: Final = 1.0
# How often in a row somebody may be first before that.
_TRIES: Final = 16


class Elector:
    """See the rules at the top of this file."""

    def __init__(self, daemon: Runtime, post_of: Callable[[str], Post | None]) -> None:
        self._daemon, self._post_of = daemon, post_of
        self._seeking: dict[str, _Seeking] = {}

    @ev.effect(Campaign)
    def campaign(self, effect: Campaign) -> None:
        """Begin, change or end what is sought."""
        known = self._seeking.get(effect.of)
        if not effect.named:
            if known is not None:
                del self._seeking[effect.of]
                known.end()
        elif known is None or known.named != effect.named:
            if known is not None:
                known.end()
            found = self._seeking[effect.of] = _Seeking(effect, self._daemon, self._open)
            self._daemon.supervisor.run(f"election-{effect.of[:12]}", found.keep())
        else:
            known.say(effect.place)

    def _open(self) -> "NatsLeases | None":
        """What to ask; None where this machine uses no NATS server."""
        post = self._post_of(NATS)
        if post is None:
            return None
        from muster.channel import nats  # noqa: PLC0415 - it stands on an extra

        return post.leases() if isinstance(post, nats.NatsPost) else None


class _Seeking:
    """The work of one machine that is gone."""

    def __init__(
        self, effect: Campaign, daemon: Runtime, open_leases: "Callable[[], NatsLeases | None]"
    ) -> None:
        self._of, self.named, self._daemon = effect.of, effect.named, daemon
        self._open = open_leases
        me = daemon.core.machine
        self._candidate = Candidate(me, self.named, clock.boot_ms())
        self._candidate.place = effect.place
        self._sooner, self._ended = asyncio.Event(), False
        self._told: Elected | None = None
        # Why the servers could not be asked the last time, as it was said.
        self._why = ""

    def say(self, place: int) -> None:
        """Stand under a higher place from now on."""
        self._candidate.place = place
        self._sooner.set()

    def end(self) -> None:
        self._ended = True
        self._sooner.set()

    async def keep(self) -> None:
        """Seek election until that is not wanted any more."""
        leases = self._open()
        if leases is None:
            return
        try:
            while not self._ended:
                try:
                    pause_s = await self._ask(leases)
                    self._why = ""
                except (Unreachable, Exhausted) as error:
                    pause_s = _AGAIN_S
                    self._survived(error)
                    await leases.elsewhere()
                    try:
                        # At a server of others nobody made the place for it.
                        await leases.keep()
                    except MusterError as again:
                        self._survived(again)
                self._tell()
                with contextlib.suppress(TimeoutError):
                    await asyncio.wait_for(self._sooner.wait(), pause_s)
                self._sooner.clear()
        finally:
            await leases.close()

    def _survived(self, error: MusterError) -> None:
        self._daemon.core.counters[labelled("election", error)] += 1
        if str(error) != self._why:
            self._why = str(error)
            say(f"nobody can be elected now: {error}")

    async def _ask(self, leases: "NatsLeases") -> float:
        """Look, and write where that is due; returns how long to wait before the next time.

        Raises: Unreachable, Exhausted.
        """
        candidate = self._candidate
        if not candidate.held_until_ms(clock.boot_ms()):
            await self._look(leases)
        for _ in range(_TRIES):
            write = candidate.due(clock.boot_ms())
            if write is None:
                return ELECTION_RENEW_MS / 1000
            asked_ms = clock.boot_ms()
            revision = await leases.write(self._of, _said(write), write.above)
            if revision is not None:
                candidate.wrote(write, revision, asked_ms, clock.boot_ms())
                return ELECTION_RENEW_MS / 1000
            # Another one was first: one who was named, or somebody who counts for nothing.
            await self._look(leases)
        return _AGAIN_S

    async def _look(self, leases: "NatsLeases") -> None:
        newest, found = await leases.last_of(self._of, self.named)
        now_ms, most = clock.boot_ms(), clock.read().wall_ms + CLOCK_AHEAD_MS_MAX
        self._candidate.saw(newest, map(_seen, found), now_ms, most)

    def _tell(self) -> None:
        candidate = self._candidate
        until_ms = candidate.held_until_ms(clock.boot_ms())
        told = Elected(self._of, candidate.held_place, until_ms, candidate.living_ms)
        if told != self._told and not self._ended:
            self._told = told
            self._daemon.post(told)


def _said(write: Write) -> bytes:
    return json.dumps({"place": write.place}).encode()


def _seen(found: "Leased") -> Seen:
    """What somebody wrote there; what is no word of ours says nothing of a place."""
    place: Any = 0
    if len(found.said) <= ELECTION_BYTES_MAX:
        # What is no word of ours says nothing of a place.
        with contextlib.suppress(ValueError, RecursionError):
            said = json.loads(found.said)
            place = said.get("place", 0) if isinstance(said, dict) else 0
    whole = isinstance(place, int) and not isinstance(place, bool) and 0 <= place < 2**53
    return Seen(found.revision, found.by, place if whole else 0)
