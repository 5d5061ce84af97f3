"""Who of several goes on with the work of a machine that is gone: a lease at a NATS quorum says it.

Rule 1: an operator named them all. The lease chooses among them, and gives nobody a right: what a
server makes up can at worst choose another one of them.
Rule 2: holders are ranked by the revision, which is the place of a write in the servers' stream: a
write says above which one it comes, and of those that say the same one is kept. A clock, each
machine's own, says when to try and when to stop, and ranks nobody.
Rule 3: a holder says the place under which it adopts, above the one of the holder before. So
a later revision is a higher generation in the log and at the fences of git, where whoever held it
before is refused.
Rule 4: only what is acknowledged says that there is a quorum; servers without one answer a read.
A holder stops before anybody else may begin, and one whose revision does not rise is gone.
Rule 5: what others wrote there who were not named is nothing: of each who was named the last is
judged, with the highest place of all of them. A write says above which one of anybody's it comes,
as that is what servers compare; one that was refused for a stranger's is made again.
"""

from collections.abc import Collection, Iterable
from typing import Final, NamedTuple

from muster.limits import ELECTION_HELD_MS, ELECTION_TTL_MS

NEVER: Final = 0


class Seen(NamedTuple):
    """The last that one of them wrote of a lease; `revision` 0 where nobody ever did."""

    revision: int = 0
    by: str = ""
    place: int = 0


class Write(NamedTuple):
    """What to write, above which revision."""

    above: int
    place: int


class Candidate:
    """One who was named, about the work of one machine; `named` are all of them."""

    def __init__(self, me: str, named: Collection[str], now_ms: int) -> None:
        self._me, self._named = me, frozenset(named)
        # The newest of those who were named, since when; and of anybody, at the same moment.
        self._seen: Seen | None = None
        self._seen_ms = now_ms
        self._newest = 0
        # The highest place that anybody else who was named ever said, and that this one did.
        self._others_place = self._own_place = 0
        # The revision of ours that was acknowledged last, under which place, and until when we act.
        self._held = Seen()
        self._until_ms = NEVER
        # When anybody who was named was last seen to have written it.
        self.living_ms = now_ms
        # The lowest place that is of use to us.
        self.place = 0

    def held_until_ms(self, now_ms: int) -> int:
        """Until when we hold it, by our boot clock; 0 where we do not."""
        return self._until_ms if now_ms < self._until_ms else NEVER

    @property
    def held_place(self) -> int:
        """The place that was acknowledged with what we hold."""
        return self._held.place

    def saw(self, newest: int, written: Iterable[Seen], now_ms: int, place_max: int) -> None:
        """The servers say that this is the newest revision, and what each wrote last until then.

        No machine comes to a place above `place_max`: who said so lied.
        """
        found = [each for each in written if each.by in self._named]
        seen = max(found, default=Seen())
        if self._seen is None or seen.revision != self._seen.revision:
            self._seen_ms = now_ms
            # What lies there since before may be of one who is gone.
            if seen.by in self._named - {self._me} and self._seen is not None:
                self.living_ms = now_ms
        self._seen, self._newest = seen, newest
        for each in found:
            if each.place < place_max and each.by == self._me:
                self._own_place = max(self._own_place, each.place)
            elif each.place < place_max:
                self._others_place = max(self._others_place, each.place)
        if seen.revision != self._held.revision:
            self._until_ms = NEVER

    def due(self, now_ms: int) -> Write | None:
        """What to write now; None where another one has it, or nothing was seen yet."""
        seen = self._seen
        if seen is None:
            return None
        waits = seen.by in self._named - {self._me}
        if waits and now_ms - self._seen_ms < ELECTION_TTL_MS:
            return None
        return Write(self._newest, max(self.place, self._own_place, self._others_place + 1))

    def wrote(self, written: Write, revision: int, asked_ms: int, now_ms: int) -> None:
        """It was acknowledged, having been asked at that time."""
        if revision <= written.above:
            # No server of NATS counts so: whatever this is, it is no lease.
            return
        self._seen = self._held = Seen(revision, self._me, written.place)
        self._newest, self._own_place = revision, max(self._own_place, written.place)
        self._seen_ms = now_ms
        self._until_ms = asked_ms + ELECTION_HELD_MS
        self.living_ms = now_ms
