"""Verbs that say something to others. Delivered means: the recipient's machine has receipted it."""

from typing import Annotated, Final, Literal

from msgspec import UNSET, Struct, UnsetType
from msgspec.structs import replace

from muster.errors import Conflict, Malformed, NotFound, Refused
from muster.fleet.record import ROLES
from muster.log.fold import body_as
from muster.log.stream import FLEET, Scope, StreamName, group_owner, is_group, scope_to
from muster.message import kinds
from muster.message.fold import MESSAGE_KEY, Message
from muster.node.services import messages
from muster.node.services.presence import heard_ms_ago
from muster.node.verb import LATER, Later, Line
from muster.verbs.declaration import Call, Core, Request, Words, opt, pos, verb
from muster.verbs.thread import (
    groups,
    keeper_of,
)

_MESSAGE: Final = pos("message id (its beginning is enough)", kind="message")


class Send(Request, frozen=True):
    to: Annotated[str, pos("machine, agent@machine, role:NAME, thread:NAME or all", kind="machine")]
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
    muster send build 'lunch is here' --expires 1h --priority low
    """
    text = " ".join(ask.text)
    if not text.strip():
        raise Malformed("a message needs a text; say what you want to say")
    scope, to = _place(core, ask.to)
    terms = kinds.check_terms(kinds.MessageTerms("", ask.priority, ask.expires, ask.alarm))
    body = kinds.MessageSend(to, text, key=ask.key)
    return _send(core, call, scope, body, terms, wait=ask.wait)


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
    call.write(body, scope=reading_scope(core, message), cause=(message.id,))
    return Acted(message.id.hex())


_NO_TERMS: Final = kinds.MessageTerms("")


def _send(
    core: Core,
    call: Call,
    scope: Scope,
    body: kinds.MessageSend,
    terms: kinds.MessageTerms = _NO_TERMS,
    *,
    wait: bool = False,
) -> Sent | Later:
    kinds.check_send(body)
    stream = core.membership.own(scope)
    before = _same_key(core, stream, body) if body.key else None
    id, seq = before or (None, core.log.size(stream))
    whom = messages.receivers(core, stream, body.to)
    if not whom:
        raise NotFound(_nobody(core, body.to[0], scope))
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
        if (said.to, said.text) != (body.to, body.text):
            raise Conflict(
                f"the key {body.key[:60]!r} was used for another message "
                f"({entry.id.hex()[:12]}); nothing was sent, take a key of its own"
            )
        return entry.id, entry.header.seq
    return None


def _nobody(core: Core, address: str, scope: Scope) -> str:
    """Why a message is for nobody."""
    if address.startswith("role:"):
        role = address.removeprefix("role:")
        roles = {r for m, each in core.roster.machines.items() if m != core.machine
                 for r in each.roles}  # fmt: skip
        having = f"the others have {', '.join(sorted(roles))}" if roles else "it is alone"
        return f"no other machine has the role {role} ({having}); nothing was sent"
    if address != kinds.EVERYONE:
        name = core.membership.name_of(address.rpartition("@")[2])
        return f"{name} is not in the fleet any more; nothing was sent"
    if scope != FLEET:
        name = scope.rpartition(".")[2]
        return (
            f"nobody else is in thread {name}; `muster thread {name} --add MACHINE` adds a "
            "machine; nothing was sent"
        )
    return "this machine is alone in its fleet: nobody would read it; nothing was sent"


def _place(core: Core, to: str) -> tuple[Scope, list[str]]:
    """The stream a message belongs into, and its addresses. Raises: NotFound."""
    if to == "all":
        return FLEET, ["all"]
    if to.startswith("role:"):
        if to.removeprefix("role:") not in ROLES:
            raise NotFound(f"{to} is no role; there are {', '.join(ROLES)}")
        return FLEET, [to]
    if to.startswith("thread:"):
        return group_of(core, to.removeprefix("thread:")), ["all"]
    agent, at, name = to.rpartition("@")
    try:
        machine = core.roster.find(name).machine
    except NotFound as error:
        raise NotFound(f"{str(error).rstrip('.')}{_instead(core, to)}") from error
    scope = scope_to(machine)
    facts = core.roster.facts.get(machine)
    if at and facts is not None and agent not in facts.agents:
        there = ", ".join(sorted(facts.agents)) or "none"
        raise NotFound(f"no agent {agent[:40]!r} is on {name} (agents there: {there})")
    return scope, [f"{agent}@{machine}" if at else machine]


def _instead(core: Core, to: str) -> str:
    """What somebody may have meant who named no machine, to be said behind that."""
    agent, at, name = to.rpartition("@")
    names = {record.name for record in core.roster.machines.values()}
    people = {operator.name for operator in core.roster.operators.values()}
    if at and agent in names:
        return f"; the agent stands first: {name}@{agent}"
    if to in ROLES:
        return f"; whoever has the role is role:{to}"
    if to.removeprefix("op:") in people:
        return f"; {to.removeprefix('op:')} is a person, who reads the inbox of a machine"
    return ""


def group_of(core: Core, name: str) -> Scope:
    """The group of this name that we belong to. Raises: NotFound, Refused."""
    found = groups(core, name) if name else []
    if not found:
        raise NotFound(
            f"this machine is in no thread {name!r}; open it with `muster thread {name}`"
        )
    if len(found) > 1:
        mine = [scope for scope in found if group_owner(scope) == core.machine]
        if mine:
            return mine[0]
        names = " or ".join(f"thread:{name}@{keeper_of(core, scope)}" for scope in found[:6])
        raise Refused(f"several machines keep a thread {name!r}: say {names}")
    return found[0]


def reading_scope(core: Core, message: Message) -> Scope:
    """Where the sender can read what we say about its message."""
    scope, sender = message.stream.scope, message.stream.machine
    return scope_to(sender) if scope.startswith("to.") and sender != core.machine else scope
