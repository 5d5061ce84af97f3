"""Verbs about messages. Delivered means: the recipient's machine has receipted it.

Rule: a page is at most `SHOWN_MAX` messages, and whoever asks can tell that there are more: the
unread come oldest first, since they may be orders of a kind, everything else newest first.
"""

from collections.abc import Iterable
from itertools import islice
from typing import Annotated, Final, Literal

from msgspec import UNSET, Struct, UnsetType
from msgspec.structs import replace

from muster.errors import Conflict, Malformed, NotFound
from muster.limits import MESSAGES_SHOWN_MAX
from muster.log import canon
from muster.log.fold import body_as
from muster.log.stream import Scope, StreamName, is_group, scope_to
from muster.message import kinds, state
from muster.message.fold import MESSAGE_KEY, Message, message_of
from muster.message.session import split_address
from muster.node.services import messages
from muster.node.services.mailbox import EVERY_SESSION, Mailbox
from muster.node.services.presence import heard_ms_ago
from muster.node.services.sessions import Sessions
from muster.node.services.speakers import Speakers
from muster.node.verb import LATER, Later, Line, Turns
from muster.store.store import Draft
from muster.verbs.declaration import Call, Core, Request, Words, opt, pos, verb
from muster.verbs.listing import Room, Rows, newest_fitting, oldest_fitting, say_cut
from muster.verbs.recipient import check_session, nobody, place
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
_MESSAGE: Final = pos("message id (its beginning is enough)", kind="message")


class Send(Request, frozen=True):
    to: Annotated[
        str,
        pos("machine, agent@machine, agent@machine#session, role:NAME, thread:NAME or all",
            kind="machine"),
    ]  # fmt: skip
    text: Annotated[Words, pos("what to say")]
    key: Annotated[str, opt("an idempotency key")] = ""
    wait: Annotated[bool, opt("return only when it is stored at the other end")] = False
    timeout: Annotated[
        str, opt("with --wait, give up waiting after this time: 30s, 5m, 2h", unsigned=True)
    ] = ""


class Away(Struct, frozen=True):
    """A machine without a link to this one, and how long ago it was heard of, if ever."""

    machine: str
    heard_ms_ago: int | UnsetType = UNSET


class Sent(Struct, frozen=True):
    """A message that is written down; `away` while its caller waits for machines that are."""

    message: str
    fresh: bool
    state: Literal["waiting", "stored"]
    to: list[str]
    away: list[Away] | UnsetType = UNSET


@verb("send", auth="agent", agents=True, daily=True, group="Messages", object="to",
      harmless=True, followed=True)  # fmt: skip
def send(core: Core, call: Call, ask: Send) -> Sent | Later:
    """Send a message to a machine, an agent, a role, a thread or all.

    muster send build 'the tests moved to tests/' --wait
    muster send thread:team 'who is up?'
    muster send 'claude@studio#shop-3fa9' 'the tests pass here'
    """
    text = " ".join(ask.text)
    if not text.strip():
        raise Malformed("a message needs a text; say what you want to say")
    address, session = split_address(ask.to)
    scope, to = place(core, address)
    if session:
        check_session(core, to[0], session)
    body = kinds.MessageSend(to, text, key=ask.key, to_session=session)
    return _send(core, call, scope, body, wait=ask.wait)


class Reply(Request, frozen=True):
    message: Annotated[str, _MESSAGE]
    text: Annotated[Words, pos("what to say")]


@verb("reply", auth="agent", agents=True, daily=True, group="Messages",
      object="message", harmless=True)  # fmt: skip
def reply(core: Core, call: Call, ask: Reply) -> Sent | Later:
    """Answer a message.

    muster reply 0827 'seen' --on build
    """
    message = messages.find(core, ask.message)
    scope, sender = message.stream.scope, message.stream.machine
    agent, at, _ = message.entry.header.actor.partition("@")
    body = kinds.MessageSend(
        ["all"] if is_group(scope) else [f"{agent}@{sender}" if at else sender],
        " ".join(ask.text),
        thread=message.thread,
        reply_to=message.id.hex(),
        # In a thread all of its members hear the answer, and no session alone.
        to_session="" if is_group(scope) or not at else message.from_session,
    )
    return _send(core, call, scope_to(sender) if scope.startswith("to.") else scope, body)


class Ack(Request, frozen=True):
    message: Annotated[str, _MESSAGE]
    note: Annotated[str, opt("what came of it", empty=True)] = ""


class Acted(Struct, frozen=True):
    message: str
    state: Literal["acted"] = "acted"


@verb("ack", auth="agent", agents=True, daily=True, group="Messages", object="message",
      says=(Line("{message:id}  {state}"),))  # fmt: skip
def ack(core: Core, call: Call, ask: Ack) -> Acted:
    """Say that you acted on a message.

    muster ack 0827 --note 'moved them'
    """
    message = messages.find(core, ask.message)
    messages.require_for(core, message)
    body = kinds.MessageAct(message.id.hex(), text=ask.note[:2000])
    call.write(body, scope=_reading_scope(core, message), cause=(message.id,))
    return Acted(message.id.hex())


def _send(
    core: Core, call: Call, scope: Scope, body: kinds.MessageSend, *, wait: bool = False
) -> Sent | Later:
    body = replace(body, from_session=call.session)
    kinds.check_send(body)
    stream = core.membership.own(scope)
    before = _same_key(core, stream, body) if body.key else None
    id, seq = before or (None, core.log.size(stream))
    whom = messages.receivers(core, stream, body.to)
    if not whom:
        raise NotFound(nobody(core, body.to[0], scope))
    if id is None:
        entry = call.write(body, scope=scope)
        id, seq = entry.id, entry.header.seq
    waiting = whom - {core.machine}
    if before is not None:
        held = messages.held_size(core, stream)
        waiting = {machine for machine in waiting if held(machine) <= seq}
    answer = Sent(id.hex(), before is None, "waiting" if waiting else "stored", body.to)
    if not (wait and waiting):
        return answer
    gone = [(each, heard_ms_ago(core, each)) for each in waiting if core.link_to(each) is None]
    if gone:
        # Said at once: whoever waits should know that it may be for long, and for whom.
        name_of = core.membership.name_of
        away = [Away(name_of(m), UNSET if ms is None else ms) for m, ms in sorted(gone)]
        call.more(replace(answer, away=away))
    stored = replace(answer, state="stored")
    core.replication.awaited.when_held(stream, seq + 1, waiting, lambda: call.end(stored))
    return LATER


def _same_key(core: Core, stream: StreamName, body: kinds.MessageSend) -> tuple[bytes, int] | None:
    """The message that was sent under this key: its id and place.

    Raises: Conflict where it said something else: a key stands for one message.
    """
    for found in core.tables.rows(MESSAGE_KEY, stream=stream, dedupe=body.key):
        entry = core.log.entry(found.id)
        if entry is None:
            continue
        said = body_as(entry, kinds.MessageSend)
        if (said.to, said.text, said.to_session) != (body.to, body.text, body.to_session):
            raise Conflict(
                f"the key {body.key[:60]!r} was used for another message "
                f"({entry.id.hex()[:12]}); nothing was sent, take a key of its own"
            )
        return entry.id, entry.header.seq
    return None


# --- to read what was said ------------------------------------------------------------------


class Inbox(Request, frozen=True):
    agent: Annotated[str, opt("only for this agent, or agent#session", kind="agent")] = ""
    all: Annotated[bool, opt("read ones, too: the newest 500", short="a")] = False
    before: Annotated[str, opt("with --all, only what is older than this message")] = ""
    mark: Annotated[bool, opt("mark what is shown as read")] = False
    limit: Annotated[Rows, opt(LIMIT_HELP)] = None


class Item(Said, frozen=True, kw_only=True):
    """A message in an inbox."""

    thread: str
    subject: str
    read: bool
    acted: bool


@verb(
    "inbox", watches=("message", "group"), names="message", auth="local", group="Messages",
    harmless=True, then=(Line("`muster reply {message:id} TEXT` answers it.", "!read"),),
)  # fmt: skip
def inbox(core: Core, call: Call, ask: Inbox) -> Turns[list[Item]]:
    """Unread messages for this machine or one of its agents, the oldest first.

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
        _mark(core, agent, [m for m in found if not items[m.id].read])
    return [
        Item(
            **shown(core, message),
            thread=message.thread,
            subject=message.subject,
            read=items[message.id].read,
            acted=items[message.id].acted,
        )
        for message in found
    ]


def _mark(core: Core, agent: str, found: Iterable[Message]) -> None:
    """Say that these were shown: one batch for each stream that says so."""
    actor = f"{agent}@{core.name}" if agent else "muster"
    drafts: dict[Scope, list[Draft]] = {}
    for message in found:
        body = canon.encode(kinds.MessageRead(message.id.hex()))
        draft = Draft("message.read", actor, (message.id,), body)
        drafts.setdefault(_reading_scope(core, message), []).append(draft)
    for scope, each in drafts.items():
        core.append_all(scope, each)


def _reading_scope(core: Core, message: Message) -> Scope:
    """Where the sender can read what we say about its message."""
    scope, sender = message.stream.scope, message.stream.machine
    return scope_to(sender) if scope.startswith("to.") and sender != core.machine else scope


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
        whom = [
            Delivery(
                core.membership.name_of(each.machine),
                each.agent,
                each.step,
                each.proof.hex() if isinstance(each.proof, bytes) else each.proof,
            )
            for each in state.deliveries(
                message,
                messages.peers(core, message.stream),
                messages.held_size(core, message.stream),
                messages.readings(core, message.id),
            )
        ]
        outgoing.append(Outgoing(message.id.hex(), message.text, message.at_ms, whom))
    return outgoing
