"""A live link as the core sees it, what an answer is, and what may stand in one."""

import itertools
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any, Final

from msgspec import DecodeError, Struct, json

import muster.channel
from muster.errors import MusterError
from muster.limits import LINK_HEARD_APART_MS, SENTENCE_CHARS_MAX
from muster.log.proofs import Proofs
from muster.printable import visible


class Try(Struct, frozen=True):
    """Something that happened to a channel to a machine since this daemon's start: a link `stands`
    or is `gone`, a dial `failed`, or what was said over a link `answers nothing`. In a mailbox
    something was `left` or that `failed`; the machine `speaks` there, or `answers` what was left.
    """

    channel: str
    ms_ago: int
    outcome: str
    why: str = ""


class Tried(Struct, frozen=True):
    """A way to a machine and what came of it: `untried`, `failed` and why, `worked`, or `up`; a
    mailbox that refuses until somebody mends something is `broken`.
    """

    channel: str
    address: str
    state: str = "untried"
    error: str = ""


Answer = Mapping[str, Any]


class Said(Struct, frozen=True):
    """The answer of another machine: a value, or what kind of error and its text."""

    ok: bool
    value: Any = None
    error: dict[str, Any] = {}


# What this version can that an earlier one could not, said in every hello (docs/spec/sync.md).
# Whoever writes what only some read looks at it first; a name is never given another meaning.
# A machine with this one hears of files that sessions write (node/services/same_files.py).
SAME_FILES: Final = "same-files"
# One with this compares sums of all streams (log/refresh.py).
ROOTS: Final = "roots"
# One with this says the word at the port of another (channel/knock.py).
KNOCK: Final = "knock"
FEATURES: Final = ("kinds-ignore-unknown", KNOCK, "one-session", ROOTS, SAME_FILES, "want-not-now")


RELAYED_COST: Final = 100


@dataclass(slots=True)
class Link:
    """`peer` is what the channel proved; `local` is a program of the same user.

    `through` is the machine in the middle of a relayed link, "" for a link of our own; `cost` is
    what `cost` says of both. `foreign` is the machine of another fleet that it proved to come from
    (fleet/peer.py): to all but the router such a link is one that proved no machine. `attempt` is
    the task whose enclosed attempt speaks (authorize.py, rule 4).
    """

    id: int
    peer: str
    local: bool
    channel: str
    heard_ms: int
    skew_ms: int = 0
    # The peer's wall clock less the time since our start, as it said with its newest hello.
    offset_ms: int | None = None
    version: str = ""
    # The word of the process at the other end, "" until it is said, and of an older one for ever.
    process: str = ""
    # What the peer says it can, by the names of `FEATURES` and of those that came later.
    features: frozenset[str] = frozenset()
    # How often a link that proved no machine called.
    calls: int = 0
    through: str = ""
    cost: int = 0
    foreign: str = ""
    attempt: str = ""
    numbers: Iterator[int] = field(default_factory=lambda: itertools.count(1))


def cost(channel: str, through: str = "") -> int:
    """What a link costs: of two that work the one that costs less is used.

    Channels cost more the later they stand in `CHANNELS`, and a relayed link more than any other.
    """
    names = [spec.name for spec in muster.channel.CHANNELS]
    place = names.index(channel) if channel in names else len(names)
    return place + (RELAYED_COST if through else 0)


def best(links: Mapping[int, Link], machine: str, proofs: Proofs, *, direct: bool) -> int | None:
    """Over which link something is said to a machine: the best (log/proofs.py, rule 3) of those
    over which it was heard of late, for what is silent may be dead.
    """
    found = {
        n: link
        for n, link in links.items()
        if link.peer == machine and not (direct and link.through)
    }
    # That a link came says nothing of it.
    trusted = proofs.trusted(found) or list(found)
    heard_ms = max((found[n].heard_ms for n in trusted), default=0) - LINK_HEARD_APART_MS
    heard = [n for n in found if found[n].heard_ms >= heard_ms]
    return proofs.best(heard, {n: (bool(found[n].through), found[n].cost) for n in heard})


def channels(me: str, peer: str) -> Iterator[int]:
    """The numbers of the conversations that we begin: of two machines one takes the odd ones.

    Else both begin one under the same number, and a stream of one would meet a stream of the other.
    """
    return itertools.count(1 if me < peer else 2, 2)


class _Channel(Struct, forbid_unknown_fields=True):
    channel: int


class _Accepted(Struct, forbid_unknown_fields=True):
    ok: bool
    value: _Channel


def accepts(payload: bytes) -> bool:
    """Whether a REPLY says that its call goes on as a stream."""
    try:
        return payload[:1] == b"." and json.decode(payload[1:], type=_Accepted).ok
    except DecodeError:
        return False


def sentence(text: str) -> str:
    """One line of bounded length that moves no cursor, whatever hostile text it quotes."""
    cut = text if len(text) <= SENTENCE_CHARS_MAX else text[: SENTENCE_CHARS_MAX - 1] + "…"
    if cut.isascii() and cut.isprintable():
        return cut
    return visible(" ".join(cut.split()))


def failure(error: MusterError) -> Answer:
    """An error as an answer; the command ends with its exit code."""
    kind = type(error).__name__
    text = sentence(str(error))
    return {"ok": False, "error": {"kind": kind, "text": text, "exit": error.exit_code}}
