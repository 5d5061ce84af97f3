"""Whose packets are taken next at a mailbox: everybody's in turn, and last what is nobody's.

Rule 1: of what waits there one packet is taken of each writer, and then the next of each. So
whoever leaves much there makes itself wait, and nobody else.
Rule 2: the writer is told from outside, before anything is read: by a subject, a branch, or the
name of a file. Only machines of the fleet have a turn: who claims a thousand names has none more.
What claims to be of no machine of the fleet comes after all others.
Rule 3: in a name it is more than a claim: its mark is made with a secret that writer and receiver
alone have. So nobody makes the queue of another one longer.
Rule 4: a name of old tells no writer. What has one has a turn together; in that the newest is taken
as well as what comes next after the last look, so that no heap of it keeps the rest of it waiting.

    <sha256>.mp                          of old, and for who does not say that it reads the other
    of-<hint>-<mark>-<sha256>.mp         each 16 digits, the last 64; it sorts behind all of old

    hint   HMAC-SHA256(secret, "muster/hint/v1 <writer>"), its first 16 digits
    mark   HMAC-SHA256(secret, "muster/mark/v1 <writer> <sha256>"), its first 16 digits
"""

import hmac
import re
from bisect import bisect_right
from collections.abc import Callable, Iterable, Iterator, Mapping
from itertools import islice
from typing import Any, Final, Generic, NamedTuple, TypeVar

T = TypeVar("T")

NAMED: Final = "of-"
# What names of packets match; the hash comes first of its groups.
NAME: Final = re.compile(r"(?:of-[0-9a-f]{16}-[0-9a-f]{16}-)?([0-9a-f]{64})\.mp\Z")
_DIGITS: Final = 16
# Who has which hint at a place, and the secret of it.
Hints = Mapping[str, tuple[str, bytes]]
# The writer of what has a name of old.
UNTOLD: Final = ""
_NOBODY: Final = "-"


def in_turn(
    waiting: Mapping[str, Iterable[T]], after: str = "", last: Iterable[T] = ()
) -> Iterator[tuple[str, T]]:
    """Of each writer one and then of each the next, begun with whoever comes behind `after`.

    At the end comes what is nobody's; its writer is "".
    """
    writers = sorted(waiting)
    begin = bisect_right(writers, after)
    # One by one: where an order goes on is where somebody read, and no further.
    queues = [(writer, iter(waiting[writer])) for writer in writers[begin:] + writers[:begin]]
    while queues:
        left = list[tuple[str, Iterator[T]]]()
        for writer, queue in queues:
            for item in islice(queue, 1):
                yield writer, item
                left.append((writer, queue))
        queues = left
    for item in last:
        yield UNTOLD, item


class Names:
    """What packets are called at a place where this machine takes and leaves them.

    `secrets` are those that it shares with each other machine of the fleet, by its id; who has
    none has an empty one. `reads` is whether a machine is known to take what has such a name.
    """

    def __init__(
        self,
        machine: str,
        secrets: Callable[[], Mapping[str, bytes]],
        reads: Callable[[str], bool],
    ) -> None:
        self._machine, self._secrets, self._reads = machine, secrets, reads
        self._known: Mapping[str, bytes] = {}
        self._hints: dict[str, tuple[str, bytes]] = {}

    def name(self, to: str, sha256: str) -> str:
        """What a packet of this machine for another one is called."""
        secret = self._told_by(to)
        return _named(secret, self._machine, sha256) if secret else f"{sha256}.mp"

    def ours(self, to: str) -> Callable[[str], bool]:
        """Which names for a machine count as this one's: of old ones all, nobody knows whose."""
        secret, machine = self._told_by(to), self._machine
        if not secret:
            return lambda name: not name.startswith(NAMED)
        begin = f"{NAMED}{_hint(secret, machine)}"
        return lambda name: (
            name.startswith(begin) and name == _named(secret, machine, sha256_of(name))
        )

    def _told_by(self, to: str) -> bytes:
        return self._secrets().get(to, b"") if self._reads(to) else b""

    def hints(self) -> Hints:
        """Of all that may have left something here. It is never changed, so threads may read it."""
        secrets = self._secrets()
        if secrets != self._known:
            held = [(each, secret) for each, secret in secrets.items() if secret]
            self._known = dict(secrets)
            self._hints = {_hint(secret, each): (each, secret) for each, secret in held}
        return self._hints


def writer_of(name: str, hints: Hints) -> str | None:
    """Who wrote what has this name: UNTOLD where it does not tell, None where it is nobody."""
    if not name.startswith(NAMED):
        return UNTOLD
    _, hint, mark, rest = name.split("-")
    writer, secret = hints.get(hint, ("", b""))
    made = _mark(secret, writer, rest.removesuffix(".mp"))
    return writer if writer and hmac.compare_digest(made, mark) else None


def sha256_of(name: str) -> str:
    """The hash that a name says."""
    return name[-67:-3]


class Lying(NamedTuple, Generic[T]):
    """Something that lies at a place: of whom it is, when it came, and where in it it stands."""

    writer: str | None
    age: Any
    at: Any
    item: T


class Looks(Generic[T]):
    """In which order what lies at a place is read, and where the next look goes on."""

    def __init__(self) -> None:
        self._after = ""
        # Where the last look ended in what tells no writer, and in what is nobody's.
        self._ended: dict[str, Any] = {}

    @property
    def ended(self) -> Any:
        """Where the last look ended in what tells no writer; None where there was none."""
        return self._ended.get(UNTOLD)

    def restart(self) -> None:
        """Nothing comes behind where the last look ended: what tells no writer begins anew."""
        self._ended.pop(UNTOLD, None)

    def order(self, lying: Iterable[Lying[T]], *, is_all: bool = True) -> Iterator[T]:
        """What lies there in the order in which it is read, as far as somebody reads.

        `is_all`: nothing lies there besides, so that behind its end comes its beginning.
        """
        waiting: dict[str, list[Lying[T]]] = {}
        nobodys: list[Lying[T]] = []
        for each in lying:
            box = nobodys if each.writer is None else waiting.setdefault(each.writer, [])
            box.append(each)
        queues = {writer: _oldest_first(box) for writer, box in waiting.items() if writer}
        if UNTOLD in waiting:
            queues[UNTOLD] = self._from_both_ends(UNTOLD, waiting[UNTOLD], is_all)
        last = self._from_both_ends(_NOBODY, nobodys, is_all)
        for writer, each in in_turn(queues, self._after, last):
            self._after = writer
            yield each.item

    def _from_both_ends(
        self, whose: str, lying: list[Lying[T]], is_all: bool
    ) -> Iterator[Lying[T]]:
        """What comes after the last look and then before it; with each of it, the newest."""
        seen = set[Any]()
        ended = self._ended.get(whose)
        there = sorted(lying, key=lambda each: each.at)
        begin = 0 if ended is None else bisect_right(there, ended, key=lambda each: each.at)
        newest = iter(sorted(lying, key=lambda each: each.age, reverse=True))
        for number, each in enumerate(there[begin:] + there[:begin], begin):
            if each.at not in seen:
                if is_all or number < len(there):
                    self._ended[whose] = each.at
                seen.add(each.at)
                yield each
            for new in newest:
                if new.at not in seen:
                    seen.add(new.at)
                    yield new
                    break


def _oldest_first(lying: list[Lying[T]]) -> Iterator[Lying[T]]:
    return iter(sorted(lying, key=lambda each: each.age))


def _named(secret: bytes, writer: str, sha256: str) -> str:
    return f"{NAMED}{_hint(secret, writer)}-{_mark(secret, writer, sha256)}-{sha256}.mp"


def _hint(secret: bytes, writer: str) -> str:
    return _digits(secret, f"muster/hint/v1 {writer}")


def _mark(secret: bytes, writer: str, sha256: str) -> str:
    return _digits(secret, f"muster/mark/v1 {writer} {sha256}")


def _digits(secret: bytes, said: str) -> str:
    return hmac.digest(secret, said.encode(), "sha256").hex()[:_DIGITS]
