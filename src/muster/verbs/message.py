"""Verbs that say something to others. Delivered means: the recipient's machine has receipted it."""

from typing import Annotated, Final, Literal

from msgspec import UNSET, Struct, UnsetType
from msgspec.structs import replace

from muster.channel import CHANNELS
from muster.errors import Conflict, Malformed, NotFound, Refused
from muster.log.entry import Entry
from muster.log.fold import body_as
from muster.log.stream import MachineId, Scope, is_group, scope_to
from muster.message import kinds
from muster.message.fold import MESSAGE_KEY, Message
from muster.message.session import split_address
from muster.node.services import messages
from muster.node.services.letter_waits import LetterWaits
from muster.node.services.letters import Letters
from muster.node.services.presence import heard_ms_ago
from muster.node.terms import terms_of
from muster.node.verb import LATER, Later, Line
from muster.verbs.declaration import Call, Core, Request, Words, opt, pos, verb
from muster.verbs.recipient import check_session, nobody, place

_MESSAGE: Final = pos("message id (its beginning is enough)", kind="message")


class Send(Request, frozen=True):
    to: Annotated[
        str,
        pos("machine, agent@machine, agent@machine#session, role:NAME, thread:NAME, all, or "
            "machine.fleet in another fleet", kind="machine"),
    ]  # fmt: skip
    text: Annotated[Words, pos("what to say")]
    key: Annotated[str, opt("an idempotency key")] = ""
    wait: Annotated[bool, opt("return only when it is stored at the other end")] = False
    timeout: Annotated[
        str, opt("with --wait, give up waiting after this time: 30s, 5m, 2h", unsigned=True)
    ] = ""
    priority: Annotated[kinds.Priority, opt("high: shown before others; low: after them")] = ""
    expires: Annotated[str, opt("nobody is shown it as unread after this time: 2h, 3d")] = ""
    alarm: Annotated[
        str, opt("a person is told where it waits for longer: 10m; else 24h, for high ones 15m")
    ] = ""


class Away(Struct, frozen=True):
    """A machine without a link to this one, how long ago it was heard of, if ever, and the
    mailboxes that it has come by at since this daemon's start.
    """

    machine: str
    heard_ms_ago: int | UnsetType = UNSET
    mailboxes: list[str] | UnsetType = UNSET


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
    muster send build 'lunch is here' --expires 1h --priority low
    muster send 'claude@studio#shop-3fa9' 'the tests pass here'
    """
    text = " ".join(ask.text)
    if not text.strip():
        raise Malformed("a message needs a text; say what you want to say")
    address, session = split_address(ask.to)
    if "." in address:
        return _send_out(core, call, ask, text)
    scope, to = place(core, address)
    if session:
        check_session(core, to[0], session)
    terms = kinds.MessageTerms("", ask.priority, ask.expires, ask.alarm, to_session=session)
    body = kinds.MessageSend(to, text, key=ask.key)
    return _send(core, call, scope, body, terms, wait=ask.wait)


def _send_out(core: Core, call: Call, ask: Send, text: str) -> Sent | Later:
    """To another fleet: settled by the receipt of its door, and by nothing else.

    Raises: besides, what a letter that was sent before came to, where nothing more comes of it.
    """
    if ask.priority or ask.expires or ask.alarm or "#" in ask.to:
        raise Malformed(
            "a letter to another fleet has no priority, no terms and no session: how it is shown "
            "there is theirs to say"
        )
    letters = core.part(Letters)
    letter, fresh = letters.send(call, ask.to, text, ask.key)
    answer = Sent(letter, fresh, "waiting", [ask.to])
    stored = replace(answer, state="stored")
    if letters.is_settled(letter):
        return stored
    if not ask.wait:
        return answer
    core.part(LetterWaits).wait(call, letter, stored)
    return LATER


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
    if origin := core.part(Letters).origin(message):
        raise Refused(
            f"this is a letter of another fleet, and an answer is a letter, too: `muster send "
            f"{origin} TEXT`; nothing was sent"
        )
    scope, sender = message.stream.scope, message.stream.machine
    agent, at, _ = message.entry.header.actor.partition("@")
    body = kinds.MessageSend(
        ["all"] if is_group(scope) else [f"{agent}@{sender}" if at else sender],
        " ".join(ask.text),
        thread=message.thread,
        reply_to=message.id.hex(),
    )
    # In a thread all of its members hear the answer, and no session alone.
    asked = None if is_group(scope) or not at else terms_of(core, message.entry)
    terms = kinds.MessageTerms("", to_session=asked.from_session if asked is not None else "")
    return _send(core, call, scope_to(sender) if scope.startswith("to.") else scope, body, terms)


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
    call.write(body, scope=reading_scope(core, message), cause=(message.id,))
    return Acted(message.id.hex())


_NO_TERMS: Final = kinds.MessageTerms("")


def _send(
    core: Core,
    call: Call,
    scope: Scope,
    body: kinds.MessageSend,
    terms: kinds.MessageTerms,
    *,
    wait: bool = False,
) -> Sent | Later:
    terms = replace(terms, from_session=call.session)
    kinds.check_send(body)
    kinds.check_terms(terms)
    stream = core.membership.own(scope)
    before = _same_key(core, scope, body, terms.to_session) if body.key else None
    if before is not None:
        stream = before.stream
    id, seq = (before.id, before.header.seq) if before else (None, core.log.size(stream))
    whom = messages.receivers(core, stream, body.to)
    if not whom:
        raise NotFound(nobody(core, body.to[0], scope))
    if id is None:
        entry = call.write(body, scope=scope)
        id, seq = entry.id, entry.header.seq
        if terms != _NO_TERMS:
            # Right behind the message, and in the same step: so it is found, and never half.
            call.write(replace(terms, message=id.hex()), scope=scope)
    waiting = whom - {core.machine}
    if before is not None:
        held = messages.held_size(core, stream)
        waiting = {machine for machine in waiting if held(machine) <= seq}
    answer = Sent(id.hex(), before is None, "waiting" if waiting else "stored", body.to)
    if not (wait and waiting):
        return answer
    gone = [each for each in sorted(waiting) if core.link_to(each) is None]
    if gone:
        # Said at once: whoever waits should know that it may be for long, and for whom.
        call.more(replace(answer, away=[_away(core, each) for each in gone]))
    stored = replace(answer, state="stored")
    core.replication.awaited.when_held(stream, seq + 1, waiting, lambda: call.end(stored))
    return LATER


def _away(core: Core, machine: MachineId) -> Away:
    heard_ms = heard_ms_ago(core, machine)
    worked = {way.channel for way in core.ways_to(machine) if way.state == "worked"}
    met = [each.name for each in CHANNELS if each.shape == "post" and each.name in worked]
    name = core.membership.name_of(machine)
    return Away(name, UNSET if heard_ms is None else heard_ms, met or UNSET)


def _same_key(core: Core, scope: Scope, body: kinds.MessageSend, to_session: str) -> Entry | None:
    """The message that was sent under this key, in whichever incarnation.

    Raises: Conflict where it said something else: a key stands for one message.
    """
    for found in core.tables.rows(MESSAGE_KEY, writer=core.machine, dedupe=body.key):
        entry = core.log.entry(found.id) if found.stream.scope == scope else None
        if entry is None:
            continue
        said, terms = body_as(entry, kinds.MessageSend), terms_of(core, entry) or _NO_TERMS
        if (said.to, said.text, terms.to_session) != (body.to, body.text, to_session):
            raise Conflict(
                f"the key {body.key[:60]!r} was used for another message "
                f"({entry.id.hex()[:12]}); nothing was sent, take a key of its own"
            )
        return entry
    return None


def reading_scope(core: Core, message: Message) -> Scope:
    """Where the sender can read what we say about its message."""
    scope, sender = message.stream.scope, message.stream.machine
    return scope_to(sender) if scope.startswith("to.") and sender != core.machine else scope
