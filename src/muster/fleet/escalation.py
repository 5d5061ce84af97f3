"""Who is told of an incident, and when: what is due, from what was told before.

Rule 1: each severity has its steps, in a table. A step goes to the services of its kind that were
not told yet; where nobody is left to tell, there is no such step.
Rule 2: the steps behind the first count from the first that was tried: whoever was told has had so
much time. A step is done when one service took it; one that failed holds up none behind it.
Rule 3: quiet hours hold warnings, and nothing graver. What was acknowledged or silenced waits until
that ends, if it is open then.
Rule 4: pager number k comes k minutes later than number 0 would: by then that one has told, and
said so in the log. None of them needs to know who is awake.
Rule 5: that it is over is told to whoever was told that it is not, when it has stayed so for
`FLAP_MS`: nobody is told of an end that is none.
Rule 6: what became graver has its steps from then, whoever was told of it when it was less.
"""

from collections.abc import Callable, Iterable, Sequence
from typing import Final, Literal, NamedTuple

from muster.fleet.incident import SEVERITIES, Incident, graver
from muster.limits import FLAP_MS, PAGER_APART_MS

As = Literal["chat", "push", "mail", "next"]
# What each step is, by its number; 0 tells that it is over.
CLOSING: Final = 0
CHAT: Final = 1
PUSH: Final = 2
MAIL: Final = 3
NEXT: Final = 4
_KINDS: Final[dict[int, As]] = {CHAT: "chat", PUSH: "push", MAIL: "mail", NEXT: "next"}
_MINUTE_MS: Final = 60_000
_DAY_MINUTES: Final = 24 * 60
# The steps of each severity, and how long after the first one each comes.
STEPS: Final[dict[str, tuple[tuple[int, int], ...]]] = {
    "notice": ((CHAT, 0),),
    "warning": ((CHAT, 0), (PUSH, 15 * _MINUTE_MS)),
    "critical": ((PUSH, 0), (MAIL, 5 * _MINUTE_MS), (NEXT, 15 * _MINUTE_MS)),
}


class Service(NamedTuple):
    """A service by its name here, and what it is used as."""

    name: str
    used_as: As


class Told(NamedTuple):
    """What a pager said of one step, of an incident that was so grave and began then.

    Older versions said nothing of the latter two: "" and 0.
    """

    level: int
    services: tuple[str, ...]
    ok: bool
    t_ms: int
    severity: str = ""
    since_ms: int = 0


class Due(NamedTuple):
    """What is to be told to these services, and when."""

    level: int
    services: tuple[str, ...]
    at_ms: int


class Hours(NamedTuple):
    """When a person sleeps and when the digest comes, in minutes of their day; no sleep: equal.

    `offset_ms` says by how much their clock is ahead of UTC at a moment.
    """

    offset_ms: Callable[[int], int] = lambda _ms: 0
    quiet: tuple[int, int] = (0, 0)
    digest: int = 8 * 60

    def awake_ms(self, ms: int) -> int:
        """The moment itself, or the end of the quiet hours in which it lies."""
        begin, end = self.quiet
        minute = self._minute(ms)
        asleep = begin <= minute < end if begin <= end else minute >= begin or minute < end
        return self._next(end, ms) if asleep else ms

    def digest_ms(self, ms: int) -> int:
        """When the next digest comes after a moment."""
        return self._next(self.digest, ms)

    def _minute(self, ms: int) -> int:
        return (ms + self.offset_ms(ms)) // _MINUTE_MS % _DAY_MINUTES

    def _next(self, minute: int, ms: int) -> int:
        """When the clock on the wall shows that minute next; where it is skipped, right after."""
        begin_ms = ms - (ms + self.offset_ms(ms)) % _MINUTE_MS
        ahead = (minute - self._minute(ms)) % _DAY_MINUTES or _DAY_MINUTES
        found_ms = begin_ms + ahead * _MINUTE_MS
        # Where the clocks were changed in between.
        changed_ms = found_ms + self.offset_ms(ms) - self.offset_ms(found_ms)
        if self.offset_ms(changed_ms) == self.offset_ms(found_ms):
            return changed_ms
        while found_ms - changed_ms > _MINUTE_MS:
            half_ms = changed_ms + (found_ms - changed_ms) // (2 * _MINUTE_MS) * _MINUTE_MS
            if self.offset_ms(half_ms) == self.offset_ms(found_ms):
                found_ms = half_ms
            else:
                changed_ms = half_ms
        return found_ms


def due(
    incident: Incident,
    told: Iterable[Told],
    services: Sequence[Service],
    hours: Hours,
    *,
    place: int,
    from_ms: int,
    now_ms: int,
) -> list[Due]:
    """What is still to be told of it by pager number `place`, which pages since `from_ms`."""
    # What began later by a clock ahead of ours than all that we say is told by that time.
    before = [each for each in told if max(each.t_ms, each.since_ms) >= incident.since_ms]
    if not incident.closed_ms:
        before = [each for each in before if _as_grave(each, incident)]
    reached = {name for each in before if each.ok and each.level for name in each.services}
    held_ms = max(from_ms, incident.silenced_ms, incident.looked.until_ms)

    def when(at_ms: int) -> int:
        if incident.severity == "warning":
            return awake_ms(at_ms, now_ms, hours, place)
        return at_ms + place * PAGER_APART_MS

    if incident.closed_ms:
        over = any(each.ok and each.level == CLOSING and each.t_ms >= incident.closed_ms
                   for each in before)  # fmt: skip
        if over or not reached or incident.severity == "notice":
            return []
        at_ms = max(incident.closed_ms + FLAP_MS, held_ms)
        # Another pager has services of its own.
        names = tuple(sorted(reached.intersection(each.name for each in services)))
        names = names or targets(CHAT, services, set())
        return [Due(CLOSING, names, when(at_ms))] if names else []
    if incident.looked.by and not incident.looked.until_ms:
        return []
    done = {each.level for each in before if each.ok}
    # The clock of whoever told of it may be ahead of ours.
    begin_ms = min(incident.grave_ms, now_ms)
    first_ms = min((each.t_ms for each in before if each.level), default=begin_ms)
    found = []
    for level, delay_ms in STEPS[incident.severity]:
        names = () if level in done else targets(level, services, reached)
        if names:
            at_ms = first_ms + delay_ms if delay_ms else begin_ms
            if incident.severity == "notice":
                at_ms = hours.digest_ms(begin_ms)
            found.append(Due(level, names, when(max(at_ms, held_ms))))
    return found


def _as_grave(told: Told, incident: Incident) -> bool:
    """Whether it was told as grave as it is: a word about less takes no step away."""
    if told.severity not in SEVERITIES:
        return told.t_ms >= incident.grave_ms
    return not graver(incident.severity, told.severity)


def awake_ms(at_ms: int, now_ms: int, hours: Hours, place: int) -> int:
    """When pager number `place` tells what is due at a moment and can wait for the morning."""
    later_ms = place * PAGER_APART_MS
    at_ms, awake_ms = hours.awake_ms(at_ms) + later_ms, hours.awake_ms(now_ms)
    # What was due before the quiet hours began waits, too, where nobody came to it.
    return awake_ms + later_ms if at_ms <= now_ms < awake_ms else at_ms


def targets(level: int, services: Sequence[Service], reached: set[str]) -> tuple[str, ...]:
    """Who hears of a step; of the first two somebody does, where anybody is there at all."""
    names = [each.name for each in services if each.used_as == _KINDS[level]]
    if not names and level in (CHAT, PUSH):
        names = [each.name for each in services if each.used_as != "next"][:1]
    return tuple(name for name in names if name not in reached)
