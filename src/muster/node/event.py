"""What reaches the core of a machine, and what the core wants done; both plain data.

Rule 1: whoever drives the core (the daemon, the simulator) turns the world into events, and carries
effects out only after `Core.step` has returned: by then everything they speak of is durable.
Rule 2: an event or an effect is declared in the file of the part that it belongs to. Here is what
belongs to the core itself: links, frames, time, calls.
Rule 3: each effect has one handler, found by its type. One without is found out when the machine
starts, and not when it is wanted for the first time.
"""

import inspect
from collections.abc import Callable, Iterable, Mapping
from typing import Any, Final, TypeVar

from muster.channel.frame import Type
from muster.errors import Broken
from muster.fleet.roster import Roster
from muster.log.entry import Entry, EntryId
from muster.log.stream import StreamName
from muster.task.instruction import BeatReply, Effect, Event, Stop

__all__ = ["Effect", "Event"]

E = TypeVar("E", bound=Effect)
H = TypeVar("H")
_MARK: Final = "__effect__"
Handler = Callable[[Any], None]


class LinkUp(Event, frozen=True):
    """A link works. `peer` is what the channel proved; `local` is a program of the same user.

    `through` is the machine in the middle of a relayed link. `foreign` is a machine of another
    fleet: `peer` is "" then, for it proved to be none of ours. `attempt` is the task whose enclosed
    attempt is at the other end: it is local, and may do only what its capability says.
    """

    link: int
    peer: str = ""
    local: bool = False
    channel: str = ""
    through: str = ""
    foreign: str = ""
    attempt: str = ""


class LinkDown(Event, frozen=True):
    link: int


class Arrived(Event, frozen=True):
    """One frame came in."""

    link: int
    type: Type
    channel: int
    payload: bytes


class Tick(Event, frozen=True):
    """Time passed; nothing else happened."""


class Turn(Event, frozen=True):
    """What went on for longer than a step may have its next turn; it comes for each `Again`."""


class EntriesCame(Event, frozen=True):
    """Entries of a stream came from another machine."""

    stream: StreamName
    entries: tuple[Entry, ...]


class LeftWord(Event, frozen=True):
    """A parcel of a machine came that is newer than its others."""

    machine: str


class Prove(Event, frozen=True):
    """Somebody would rely on this link: find out whether it carries now."""

    link: int


class Committed(Event, frozen=True):
    """What the step wrote is durable. Whoever hears of it writes nothing, and may do effects."""


class RosterChanged(Event, frozen=True):
    """Who is in the fleet, and what of them is known, was combined anew."""

    after: Roster
    before: Roster | None


class MachineHere(Event, frozen=True):
    """A link to a machine of the fleet came up."""

    machine: str


class MachineGone(Event, frozen=True):
    """No link leads to a machine any more, or one to another process of it.

    `heard_ms`: when it last said something, by our clock since the start.
    """

    machine: str
    heard_ms: int


class Missed(Event, frozen=True):
    """Something of a machine is wanted now, and no link leads to it."""

    machine: str


class MachineRemoved(Event, frozen=True):
    """A machine was revoked."""

    machine: str


class HeadConfirmed(Event, frozen=True):
    """Nobody knows more of our own stream: what writes may be done."""


class NewIncarnation(Event, frozen=True):
    """We write other streams from now on."""


class DoubtOver(Event, frozen=True):
    """What was left alone while our own past was in doubt can be taken up."""


class DoubtLasts(Event, frozen=True):
    """Whoever asked at the beginning of the doubt can hear now what is waited for."""


class MemoryDoubtful(Event, frozen=True):
    """Something failed half way: what is kept in memory may not be what the store says."""


class OwnerTold(Event, frozen=True):
    """The owner of tasks on this machine tells its worker what it would tell another's."""

    said: Stop | BeatReply


class Send(Effect, frozen=True):
    """Send a frame; `bulk` waits behind what is not."""

    link: int
    frame: bytes
    bulk: bool = False


class Cut(Effect, frozen=True):
    """Close a link."""

    link: int
    reason: str


class Seek(Effect, frozen=True):
    """A machine answers nothing of what is said to it over this link: find another way."""

    peer: str
    link: int


class Perform(Effect, frozen=True):
    """A call that has to wait for input or output: run its handler in the loop."""

    link: int
    channel: int
    verb: str
    args: Mapping[str, Any]
    peer: str
    # The Request of its handler.
    ask: Any = None
    # Whose key ordered it; "" where nobody's did.
    operator: str = ""
    # The entry that says that the order was taken.
    cites: tuple[EntryId, ...] = ()


class Stray(Effect, frozen=True):
    """A frame of a stream that the core knows nothing of: its call may just have been begun."""

    link: int
    type: Type
    channel: int
    payload: bytes


class Told(Effect, frozen=True):
    """Something happened that whoever is served on this channel follows."""

    link: int
    channel: int
    news: Any


class Join(Effect, frozen=True):
    """A call that was passed on goes on as a stream: be in between, from the caller to `target`."""

    link: int
    channel: int
    target: int
    number: int


class Again(Effect, frozen=True):
    """Something is not done yet: bring a Turn, behind what has come meanwhile."""


class Note(Effect, frozen=True):
    """Something for the daemon's own log; never more than a sentence, never a secret."""

    text: str


class ReachedAt(Effect, frozen=True):
    """Others reach us under this address from now on: remember it, and tell them."""

    address: str


def effect(*of: type[E]) -> Callable[[Callable[[H, E], None]], Callable[[H, E], None]]:
    """Mark the method that carries out effects of this type, or of these."""

    def mark(method: Callable[[H, E], None]) -> Callable[[H, E], None]:
        setattr(method, _MARK, of)
        return method

    return mark


def handlers(wanted: Iterable[type[Effect]], *hands: object) -> Mapping[type[Effect], Handler]:
    """Who carries out what: the methods of `hands` that are marked so, by the type of effect.

    Raises: Broken where one that is wanted has nobody.
    """
    found: dict[type[Effect], Handler] = {
        each: getattr(hand, name)
        for hand in hands
        for name, method in inspect.getmembers(type(hand), inspect.isfunction)
        for each in getattr(method, _MARK, ())
    }
    missing = sorted(each.__name__ for each in set(wanted) - found.keys())
    if missing:
        raise Broken(f"nobody on this machine carries out {', '.join(missing)}")
    return found
