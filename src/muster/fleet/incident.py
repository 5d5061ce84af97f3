"""An incident as people are told of it: one trouble once, however many machines tell of it.

Rule 1: a key `<kind>:<object>` names what it is about, so whoever tells of it tells of the same.
Any other key is about the machine that tells of it.
Rule 2: whose tellings overlap, or follow each other within `FLAP_MS`, tell of one trouble. What
opens again so soon calls nobody anew, but once: when it has done so `FLAPS_TOLD` times.
Rule 3: nothing here reads a clock, and who is who the caller knows.

    open -> notified -> acknowledged (until) -> closed

An incident is open while one machine says so. It is acknowledged while each of those that say so
was looked at, and silenced while somebody wants to hear of nothing of its kind.
"""

from collections.abc import Collection, Iterable, Mapping, Sequence
from typing import Final, Literal, NamedTuple

from muster.limits import FLAP_MS

State = Literal["open", "notified", "acknowledged", "closed"]
SEVERITIES: Final = ("notice", "warning", "critical")


class Looked(NamedTuple):
    """Who looked at an incident, "" for nobody.

    `until_ms` is 0 where it is until it is told again; of nobody it is when somebody's word ended.
    """

    by: str = ""
    note: str = ""
    issued_ms: int = 0
    until_ms: int = 0


class Silence(NamedTuple):
    """For which keys nobody is called, and until when."""

    fits: str
    until_ms: int
    by: str = ""
    why: str = ""


class Telling(NamedTuple):
    """What one machine says; `id` is what it is acknowledged by."""

    machine: str
    id: str
    key: str
    open: bool
    severity: str
    title: str
    detail: str
    flaps: int
    opened_ms: int
    since_ms: int
    t_ms: int
    looked: Looked = Looked()
    # Since when it is as grave as it is; 0 where that is since it began.
    grave_ms: int = 0


class Incident(NamedTuple):
    """One trouble: those that tell of it, the gravest and newest first.

    `since_ms` is when it began, `grave_ms` when it became as grave as it is, `closed_ms` when the
    last one said that it is over, 0 while open. `silenced_ms` is the end of the longest silence for
    it, also of one that is over.
    """

    key: str
    tellings: tuple[Telling, ...]
    since_ms: int
    closed_ms: int
    looked: Looked
    silenced_ms: int
    grave_ms: int

    @property
    def first(self) -> Telling:
        return self.tellings[0]

    @property
    def severity(self) -> str:
        return self.first.severity

    @property
    def machines(self) -> tuple[str, ...]:
        """Who sees it, or saw it."""
        seen = [each for each in self.tellings if each.open] or self.tellings
        return tuple(dict.fromkeys(each.machine for each in seen))

    @property
    def flaps(self) -> int:
        return max(each.flaps for each in self.tellings)

    def state(self, *, notified: bool) -> State:
        if self.closed_ms:
            return "closed"
        if self.looked.by:
            return "acknowledged"
        return "notified" if notified else "open"


def graver(severity: str, than: str) -> bool:
    return SEVERITIES.index(severity) > SEVERITIES.index(than)


def is_shared(key: str) -> bool:
    """Whether a key names what it is about, so that every machine may tell of it."""
    kind, colon, object = key.partition(":")
    return bool(kind and colon and object)


def key_of(key: str, machine: str) -> str:
    """What an incident is called in the fleet: with the machine where it is about that."""
    return key if is_shared(key) else f"{key}@{machine[:16]}"


def called_by(key: str, name: str) -> str:
    """What people call an incident: its key, with the name of the machine where it is about that.

    Without an `@`: in a message it would call somebody.
    """
    return key if is_shared(key) else f"{key}/{name}"


def fits(pattern: str, text: str) -> bool:
    """Whether a text is what a pattern says; `*` is anything. It takes no time to speak of."""
    head, *rest = pattern.split("*")
    if not rest:
        return text == pattern
    *middle, tail = rest
    if not text.startswith(head) or not text.endswith(tail):
        return False
    at, end = len(head), len(text) - len(tail)
    for part in middle:
        found = text.find(part, at, max(at, end))
        if found < 0:
            return False
        at = found + len(part)
    return at <= end


def gathered(
    tellings: Iterable[Telling], silences: Collection[Silence] = (), names: Mapping[str, str] = {}
) -> list[Incident]:
    """The incidents that these tell of. `names` of the machines are what people silence them by."""
    by_key: dict[str, list[Telling]] = {}
    for each in tellings:
        by_key.setdefault(key_of(each.key, each.machine), []).append(each)
    return [_one(key, found, silences, names) for key, found in by_key.items()]


def _one(
    key: str, found: list[Telling], silences: Collection[Silence], names: Mapping[str, str]
) -> Incident:
    same = _last_trouble(found)
    open_ones = [each for each in same if each.open]
    counts = open_ones or same
    same.sort(
        key=lambda each: (each.open, SEVERITIES.index(each.severity), each.t_ms), reverse=True
    )
    looked = Looked()
    if open_ones and all(each.looked.by for each in open_ones):
        looked = max((each.looked for each in open_ones), key=lambda word: word.issued_ms)
        # Only as long as the word about each of them counts.
        ends = [each.looked.until_ms for each in open_ones if each.looked.until_ms]
        looked = looked._replace(until_ms=min(ends, default=0))
    elif open_ones:
        looked = Looked(until_ms=max(e.looked.until_ms for e in open_ones if not e.looked.by))
    called = {counts[0].key}
    called |= {called_by(each.key, names.get(each.machine, each.machine[:16])) for each in counts}
    quiet = [s.until_ms for s in silences if any(fits(s.fits, name) for name in called)]
    since_ms = min(each.since_ms for each in same)
    closed_ms = 0 if open_ones else max(each.t_ms for each in same)
    gravest = [each for each in counts if each.severity == same[0].severity]
    grave_ms = min(max(each.grave_ms, each.since_ms) for each in gravest)
    silenced_ms = max(quiet, default=0)
    return Incident(key, tuple(same), since_ms, closed_ms, looked, silenced_ms, grave_ms)


def _last_trouble(found: Sequence[Telling]) -> list[Telling]:
    """Those that overlap or follow each other soon, back from the newest."""
    newest_first = sorted(found, key=_end_ms, reverse=True)
    same, begin_ms = [newest_first[0]], newest_first[0].since_ms
    for each in newest_first[1:]:
        if each.open or _end_ms(each) + FLAP_MS >= begin_ms:
            same.append(each)
            begin_ms = min(begin_ms, each.since_ms)
    return same


def _end_ms(each: Telling) -> float:
    return float("inf") if each.open else each.t_ms
