"""Verbs about what was received and how far it came. Delivered means: the recipient receipted it.

Rule: a page is at most `SHOWN_MAX` messages, and whoever asks can tell that there are more: the
unread come oldest first, since they may be orders of a kind, of those that matter equally;
everything else newest first.
"""

from collections.abc import Sequence
from itertools import islice
from typing import Annotated, Any, Final, Literal

from msgspec import UNSET, Struct, UnsetType

from muster.errors import Malformed
from muster.limits import MESSAGES_MARKED_PER_TURN, MESSAGES_SHOWN_MAX
from muster.log import canon
from muster.log.stream import Scope
from muster.message import kinds, state
from muster.message.fold import RANKS, Message, MessageRow, message_of
from muster.message.session import split_address
from muster.node.services import messages
from muster.node.services.mailbox import EVERY_SESSION, Mailbox
from muster.node.services.sessions import Sessions
from muster.node.services.speakers import Speakers
from muster.node.terms import is_over, row_of
from muster.node.verb import Line, Turns
from muster.store.store import Draft
from muster.verbs.declaration import Call, Core, Request, Words, opt, pos, verb
from muster.verbs.listing import Room, Rows, newest_fitting, oldest_fitting, say_cut
from muster.verbs.message import reading_scope
from muster.verbs.thread import (
    LIMIT_HELP,
    Said,
    further,
    newest,
    rows_max,
    shown,
)

# What became of one is looked up at each of its recipients.
_SENT_PER_TURN: Final = 250
_PRIORITIES: Final = {rank: name for name, rank in RANKS.items() if name}


class Inbox(Request, frozen=True):
    agent: Annotated[str, opt("only for this agent, or agent#session", kind="agent")] = ""
    all: Annotated[bool, opt("read ones, too: the newest 100", short="a")] = False
    before: Annotated[str, opt("with --all, only what is older than this message")] = ""
    mark: Annotated[bool, opt("mark what is shown as read")] = False
    limit: Annotated[Rows, opt(LIMIT_HELP)] = None


class Item(Said, frozen=True, kw_only=True):
    """A message in an inbox."""

    thread: str
    subject: str
    read: bool
    acted: bool
    priority: Literal["high", "low"] | UnsetType = UNSET
    expires_ms: int | UnsetType = UNSET


@verb(
    "inbox", watches=("message", "group"), names="message", auth="local", group="Messages",
    harmless=True, then=(Line("`muster reply {message:id} TEXT` answers it.", "!read"),),
)  # fmt: skip
def inbox(core: Core, call: Call, ask: Inbox) -> Turns[list[Item]]:
    """Unread messages for this machine or one of its agents: those of high priority, the oldest.

    muster inbox
    muster inbox --mark
    muster inbox --agent claude#shop-3fa9
    """
    limit, room = rows_max(ask.limit), Room(MESSAGES_SHOWN_MAX)
    agent, session = split_address(ask.agent)
    wanted = core.part(Sessions).wanted(session) if session else EVERY_SESSION
    if ask.all:
        before = messages.find(core, ask.before) if ask.before else None
        all_of_it = messages.newest_for(core, agent, before, limit, wanted)
        found = newest_fitting(all_of_it, room)
        readings = [r for message in found for r in messages.readings(core, message.id)]
        if len(found) == limit or len(found) < len(all_of_it):
            first = found[0].id.hex()[:12]
            say_cut(call, len(found), "messages", f"--before {first} shows older ones")
    else:
        yield from core.part(Mailbox).whole(agent)
        speakers = Speakers(core)
        unread = core.part(Mailbox).unread(agent, wanted)
        places = (p for p in unread if speakers.speaks(p.stream, p.seq))
        oldest = [message_of(core.log.entry_at(*place)) for place in islice(places, limit)]
        found, readings = oldest_fitting(oldest, room), []
        there = core.part(Mailbox).count(speakers, agent, wanted)
        if there > len(found):
            more = f"--mark marks them as read, then the others come{further(limit, '; ')}"
            say_cut(call, len(found), f"of {there} unread messages, the oldest,", more)
    listed = state.inbox(messages.me(core), agent, found, readings)
    items = {item.message.id: item for item in listed}
    if ask.mark:
        yield from _mark(core, agent, [m for m in found if not items[m.id].read])
    return [_item(core, message, items[message.id]) for message in found]


def _item(core: Core, message: Message, item: state.Item) -> Item:
    row = row_of(core, message.entry)
    return Item(
        **shown(core, message, row),
        **_terms(row),
        thread=message.thread,
        subject=message.subject,
        read=item.read,
        acted=item.acted,
    )


def _terms(row: MessageRow | None) -> dict[str, Any]:
    """What its sender said of how it is to be taken, as fields of an answer."""
    if row is None:
        return {}
    priority = {"priority": _PRIORITIES[row.rank]} if row.rank in _PRIORITIES else {}
    return {**priority, **({"expires_ms": row.until_ms} if row.until_ms else {})}


class Mark(Request, frozen=True):
    messages: Annotated[Words, pos("message ids (their beginnings are enough)")]
    agent: Annotated[str, opt("it was this agent who was shown them", kind="agent")] = ""


class Marked(Struct, frozen=True):
    """How many became read by this, and how many were read before."""

    marked: int
    before: int


@verb("mark", auth="local", daily=True, group="Messages", harmless=True,
      says=(Line("{marked} marked as read, {before} were before"),))  # fmt: skip
def mark(core: Core, call: Call, ask: Mark) -> Turns[Marked]:
    """Say that messages were read: those and no others.

    muster mark 0827 0828
    muster mark 0827 --agent claude
    """
    if len(ask.messages) > MESSAGES_SHOWN_MAX:
        raise Malformed(f"at most {MESSAGES_SHOWN_MAX} messages are marked at once; nothing was")
    found = {}
    for number, text in enumerate(ask.messages, 1):
        message = messages.find(core, text)
        messages.require_for(core, message)
        found[message.id] = message
        if number % MESSAGES_MARKED_PER_TURN == 0:
            yield
    reader = messages.me(core)
    readings = [r for id in found for r in messages.readings(core, id)]
    items = state.inbox(reader, ask.agent, found.values(), readings)
    unread = [item.message for item in items if not item.read]
    yield from _mark(core, ask.agent, unread)
    return Marked(len(unread), len(found) - len(unread))


def _mark(core: Core, agent: str, found: Sequence[Message]) -> Turns[None]:
    """Say that these were shown: in each turn so many, one batch for each stream that says so."""
    actor = f"{agent}@{core.name}" if agent else "muster"
    for begin in range(0, len(found), MESSAGES_MARKED_PER_TURN):
        drafts: dict[Scope, list[Draft]] = {}
        for message in found[begin : begin + MESSAGES_MARKED_PER_TURN]:
            body = canon.encode(kinds.MessageRead(message.id.hex()))
            draft = Draft("message.read", actor, (message.id,), body)
            drafts.setdefault(reading_scope(core, message), []).append(draft)
        for scope, each in drafts.items():
            core.append_all(scope, each)
        yield


class Listing(Request, frozen=True):
    limit: Annotated[Rows, opt(LIMIT_HELP)] = None


class Delivery(Struct, frozen=True):
    """How far a message came with one recipient; `proof` is a size that it has receipted, or an
    entry of its own.
    """

    machine: str
    agent: str
    state: str
    proof: str | int


class Outgoing(Struct, frozen=True):
    message: str
    text: str
    t_ms: int
    to: list[Delivery]


@verb("sent", watches=("message",), names="message", auth="local", group="Messages", harmless=True)
def sent(core: Core, call: Call, ask: Listing) -> Turns[list[Outgoing]]:
    """Messages sent from here, and how far each came.

    muster sent
    """
    limit = rows_max(ask.limit)
    found = messages.newest_in(core, lambda stream: stream.machine == core.machine, limit + 1)
    listed = newest(call, found, limit, Room(MESSAGES_SHOWN_MAX), "messages")
    outgoing = []
    for number, message in enumerate(listed, 1):
        if number % _SENT_PER_TURN == 0:
            yield
        outgoing.append(
            Outgoing(message.id.hex(), message.text, message.at_ms, deliveries(core, message))
        )
    return outgoing


def deliveries(core: Core, message: Message) -> list[Delivery]:
    """How far a message came with each of its recipients."""
    over = is_over(row_of(core, message.entry), core.now.wall_ms)
    return [
        Delivery(
            core.membership.name_of(each.machine),
            each.agent,
            _step(each.step, over=over),
            each.proof.hex() if isinstance(each.proof, bytes) else each.proof,
        )
        for each in state.deliveries(
            message,
            messages.peers(core, message.stream),
            messages.held_size(core, message.stream),
            messages.readings(core, message.id),
        )
    ]


def _step(step: state.Step, *, over: bool) -> str:
    """What is shown of how far it came: what was never read and has expired goes no further."""
    return "expired" if over and step in ("waiting", "stored") else step
