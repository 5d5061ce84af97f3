"""Verbs about messages. Delivered means: the recipient's machine has receipted it."""

import re
from collections.abc import Callable, Mapping
from typing import Any

import msgspec

from muster.errors import Conflict, Malformed, NotFound, Refused
from muster.fleet import kinds as fleet_kinds
from muster.fleet.record import ROLES
from muster.log import canon
from muster.log.entry import EntryId
from muster.log.stream import (
    FLEET,
    MachineId,
    Scope,
    StreamName,
    group_owner,
    scope_group,
    scope_to,
)
from muster.message import kinds
from muster.message.fold import MessageRow, ReceiptRow, row_of
from muster.message.state import Peer, Receipt, Sent, deliveries, recipients
from muster.message.state import inbox as inbox_of
from muster.node.actor import said
from muster.node.call import LATER, Call
from muster.node.core import Core
from muster.verbs.fleet import heard_ms_ago
from muster.verbs.listing import say_cut, shown_max

SHOWN_MAX = 500
_HEX = re.compile("[0-9a-f]{1,64}")


def send(core: Core, call: Call) -> Any:
    """Send; with `wait` the answer comes when every recipient's machine has stored it."""
    args = call.args
    text = _text(args.get("text", ""))
    if not text.strip():
        raise Malformed("a message needs a text; say what you want to say")
    scope, to = _place(core, str(args["to"]))
    body = kinds.check_send(kinds.MessageSend(to, text, key=str(args.get("key") or "")))
    return _send(core, call, scope, body, wait=bool(args.get("wait")))


def reply(core: Core, call: Call) -> Any:
    """Answer a message, where it was said."""
    message = find(core, str(call.args["message"]))
    scope = message.stream.scope
    if scope.startswith("to."):
        scope = scope_to(message.stream.machine)
    sender = message.row.actor
    agent, at, _ = sender.partition("@")
    to = f"{agent}@{message.stream.machine}" if at else str(message.stream.machine)
    everyone = scope != FLEET and scope.startswith("g.")
    body = kinds.check_send(
        kinds.MessageSend(
            ["all"] if everyone else [to],
            _text(call.args.get("text", "")),
            thread=message.row.thread,
            reply_to=message.id.hex(),
        )
    )
    return _send(core, call, scope, body, wait=False)


def ack(core: Core, call: Call) -> Any:
    """Say that a message was acted on."""
    message = find(core, str(call.args["message"]))
    body = kinds.MessageAct(message.id.hex(), text=str(call.args.get("note") or "")[:2000])
    core.append("message.act", kinds.body_bytes(body), scope=_receipt_scope(core, message),
                cause=(EntryId(message.id), *call.cites), actor=call.actor)  # fmt: skip
    return {"message": message.id.hex(), "state": "acted"}


def _send(core: Core, call: Call, scope: Scope, body: kinds.MessageSend, *, wait: bool) -> Any:
    stream = core.standing.own(scope)
    if body.key:
        for row in core.store.rows("message_key", stream=stream, dedupe=body.key):
            return {"message": _blob(row["id"]).hex(), "fresh": False}
    entry = core.append("message.send", kinds.body_bytes(body), scope=scope,
                        cause=call.cites, actor=call.actor)  # fmt: skip
    sent = Sent(stream, entry.id, row_of(entry, body))
    meant = {m for m, _ in recipients(sent, _peers(core))}
    waiting = meant - {core.machine}
    state = "stored" if meant and not waiting else "waiting"
    answer = {"message": entry.id.hex(), "fresh": True, "state": state, "to": body.to}
    if not (wait and waiting):
        return answer
    away = [machine for machine in sorted(waiting) if core.link_to(machine) is None]
    if away:
        # Said at once: whoever waits should know that it may be for long, and for whom.
        call.more({**answer, "away": [_away(core, m) for m in away]})
    core.replication.when_held(stream, entry.header.seq + 1, waiting, _ending(call, answer))
    return LATER


def _away(core: Core, machine: MachineId) -> dict[str, Any]:
    """A machine without a link to this one, and how long ago it was heard of, if ever."""
    found: dict[str, Any] = {"machine": core.standing.name_of(machine)}
    heard = heard_ms_ago(core, machine)
    return found if heard is None else {**found, "heard_ms_ago": heard}


def _ending(call: Call, answer: dict[str, Any]) -> Callable[[], None]:
    return lambda: call.end({**answer, "state": "stored"})


def _place(core: Core, to: str) -> tuple[Scope, list[str]]:
    """The stream a message belongs into, and its addresses. Raises: NotFound."""
    if to == "all":
        return FLEET, ["all"]
    if to.startswith("role:"):
        if to.removeprefix("role:") not in ROLES:
            raise NotFound(f"{to} is no role; there are {', '.join(ROLES)}")
        return FLEET, [to]
    if to.startswith("thread:"):
        return _group(core, to.removeprefix("thread:")), ["all"]
    agent, at, name = to.rpartition("@")
    machine = core.roster.find(name).machine
    scope = scope_to(machine)
    return scope, [f"{agent}@{machine}" if at else machine]


def _groups(core: Core, wanted: str) -> list[Scope]:
    """The groups that we belong to: all, those of a name, or NAME@MACHINE for one of those.

    Any machine can open a thread of any name and add us: a name alone may mean several.
    """
    name, at, keeper = wanted.partition("@")
    return [
        scope
        for scope, members in sorted(core.roster.groups.items())
        if core.machine in members
        and name in ("", scope.rpartition(".")[2])
        and (not at or keeper in (group_owner(scope), _keeper(core, scope)))
    ]


def _keeper(core: Core, scope: Scope) -> str:
    return core.standing.name_of(group_owner(scope) or "")


def _group(core: Core, name: str) -> Scope:
    """The group of this name that we belong to. Raises: NotFound, Refused."""
    found = _groups(core, name) if name else []
    if not found:
        raise NotFound(
            f"this machine is in no thread {name!r}; open it with `muster thread {name}`"
        )
    if len(found) > 1:
        mine = [scope for scope in found if group_owner(scope) == core.machine]
        if mine:
            return mine[0]
        names = " or ".join(f"thread:{name}@{_keeper(core, scope)}" for scope in found[:6])
        raise Refused(f"several machines keep a thread {name!r}: say {names}")
    return found[0]


# --- reading ------------------------------------------------------------------------------


def inbox(core: Core, call: Call) -> Any:
    """Messages for this machine, or for one agent on it; `mark` says they were shown."""
    agent = str(call.args.get("agent") or "")
    peers, me = _peers(core), core.machine
    roles = next((p.roles for p in peers if p.machine == me), ())
    messages = _messages(core)
    by_id = {message.id: message for message in messages}
    items = inbox_of(Peer(me, roles), agent, messages, _receipts(core, writer=me))
    limit = shown_max(call, SHOWN_MAX)
    wanted = [i for i in items if call.args.get("all") or not i.read]
    shown = wanted[-limit:]
    if len(shown) < len(wanted):
        more = "--mark marks them as read, then the others come; --limit shows more"
        say_cut(call, limit, f"of {len(wanted)} messages", more)
    answer = []
    for item in shown:
        answer.append(
            {
                "message": item.id.hex(),
                **_sender(core, item.id),
                "machine": core.standing.name_of(item.sender),
                "text": item.row.text,
                "thread": item.row.thread,
                "subject": item.row.subject,
                "t_ms": item.row.at_ms,
                "read": item.read,
                "acted": item.acted,
            }
        )
        if call.args.get("mark") and not item.read:
            message = by_id[item.id]
            actor = f"{agent}@{core.name}" if agent else "muster"
            body = kinds.MessageRead(item.id.hex())
            scope, cause = _receipt_scope(core, message), (EntryId(message.id),)
            core.append(
                "message.read", kinds.body_bytes(body), scope=scope, cause=cause, actor=actor
            )
    return answer


def _sender(core: Core, message: bytes) -> dict[str, Any]:
    """Who a message is from, as far as it is proven, and what else its entry claims."""
    entry = core.store.entry(EntryId(message))
    if entry is None:
        return {"from": "", "trust": "machine"}
    found = said(core, entry)
    claims = {"claims": found.claims} if found.claims else {}
    return {"from": found.name, "trust": found.trust, **claims}


def unread(core: Core) -> int:
    """How many of the newest messages are for this machine and were not marked as read."""
    roles = core.roster.machine(core.machine).roles if core.machine in core.roster.machines else ()
    newest = _messages(core, SHOWN_MAX)
    if not newest:
        return 0
    read = _receipts(core, writer=core.machine)
    return len(inbox_of(Peer(core.machine, roles), "", newest, read, unread_only=True))


def sent(core: Core, call: Call) -> Any:
    """What was sent from here, and how far it came with each recipient, with the proof."""
    receipts, peers = _receipts(core), _peers(core)
    limit = shown_max(call, SHOWN_MAX)
    messages = _messages(core, limit + 1, writer=core.machine)
    if len(messages) > limit:
        say_cut(call, limit, "messages, the newest,", "--limit shows more")
    answer = []
    for message in messages[-limit:]:
        steps = deliveries(message, peers, _held_size(core, message.stream), receipts)
        answer.append(
            {
                "message": message.id.hex(),
                "text": message.row.text,
                "t_ms": message.row.at_ms,
                "to": [
                    {
                        "machine": core.standing.name_of(d.machine),
                        "agent": d.agent,
                        "state": d.step,
                        "proof": d.proof.hex() if isinstance(d.proof, bytes) else d.proof,
                    }
                    for d in steps
                ],
            }
        )
    return answer


def thread(core: Core, call: Call) -> Any:
    """Open a thread, change who belongs to it, or say who does."""
    name = str(call.args["name"])
    scope = scope_group(core.machine, name)
    groups = core.roster.groups
    # Found before anything is written: a name that is wrong must leave no half of a change.
    added = [core.roster.find(each).machine for each in _names(call.args.get("add"))]
    removed = [core.roster.find(each).machine for each in _names(call.args.get("remove"))]
    if core.machine in removed:
        raise Conflict("the keeper of a thread stays in it")
    if scope not in groups:
        others = [s for s in groups if s.rpartition(".")[2] == name and core.machine in groups[s]]
        if others and not (added or removed):
            return _members(core, call, others[0])
        _append(core, call, fleet_kinds.GROUP_OPEN, fleet_kinds.GroupOpen(name))
    since: Any = "now" if call.args.get("fresh") else "start"
    for machine in added:
        cuts = _sizes(core, scope) if since == "now" else {}
        body = fleet_kinds.GroupAdd(machine=machine, name=name, since=since, cuts=cuts)
        _append(core, call, fleet_kinds.GROUP_ADD, body)
    for machine in removed:
        _append(core, call, fleet_kinds.GROUP_REMOVE, fleet_kinds.GroupRemove(machine, name))
    core.standing.changed()
    return _members(core, call, scope)


def threads(core: Core, call: Call) -> Any:
    """The threads this machine belongs to; with a name, what was said in it."""
    wanted = str(call.args.get("name") or "")
    found = [_members(core, call, scope) for scope in _groups(core, wanted)]
    if wanted and not found:
        raise NotFound(f"this machine is in no thread {wanted!r}; `muster threads` lists them")
    return found


def _members(core: Core, call: Call, scope: Scope) -> dict[str, Any]:
    members, name = core.roster.groups.get(scope, {}), scope.rpartition(".")[2]
    keeper = group_owner(scope)
    limit = shown_max(call, SHOWN_MAX)
    streams = [s for s in core.store.streams() if s.scope == scope]
    # Each member's newest for itself: whoever writes much does not crowd out what others said.
    said = [m for stream in streams for m in _messages(core, limit + 1, stream=stream)]
    said.sort(key=lambda m: (m.row.at_ms, m.id))
    if len(said) > limit:
        say_cut(call, limit, f"messages of {name}, the newest,", "--limit shows more")
    return {
        "thread": name,
        "keeper": core.standing.name_of(keeper) if keeper else "",
        "members": sorted(core.standing.name_of(m) for m in members),
        "messages": [_message_view(core, m) for m in said[-limit:]],
    }


def _message_view(core: Core, message: Sent) -> dict[str, Any]:
    return {
        "message": message.id.hex(),
        **_sender(core, message.id),
        "machine": core.standing.name_of(message.stream.machine),
        "text": message.row.text,
        "t_ms": message.row.at_ms,
    }


def _sizes(core: Core, scope: Scope) -> dict[str, int]:
    return {str(s): core.store.size(s) for s in core.store.streams() if s.scope == scope}


# --- rows -----------------------------------------------------------------------------------


def find(core: Core, text: str) -> Sent:
    """The one message whose id begins like this. Raises: NotFound, Refused."""
    # A pattern that somebody typed is no question for a database.
    if not _HEX.fullmatch(text):
        raise NotFound(f"no message begins with {text[:40]!r}; `muster inbox --all` lists them")
    rows = core.store.query(
        "select id from message where hex(id) like ? limit 2", (f"{text.upper()}%",)
    )
    ids = [_blob(row[0]) for row in rows]
    if not ids:
        raise NotFound(f"no message begins with {text[:40]!r}; `muster inbox --all` lists them")
    if len(ids) > 1:
        raise Refused(f"more than one message begins with {text[:40]!r}; give more of its id")
    (row,) = core.store.rows("message", id=ids[0], limit=1)
    return _sent(row)


def _receipt_scope(core: Core, message: Sent) -> Scope:
    """Where the sender can read what we say about its message."""
    scope = message.stream.scope
    if scope.startswith("to."):
        return scope_to(message.stream.machine) if message.stream.machine != core.machine else scope
    return scope


def _messages(core: Core, newest: int = 0, **where: Any) -> list[Sent]:
    """Messages by the senders' clocks; of all, or only of so many that are the newest."""
    if newest:
        rows = core.store.rows("message", order=("-at_ms",), limit=newest, **where)[::-1]
    else:
        rows = core.store.rows("message", order=("at_ms",), limit=100_000, **where)
    return [_sent(row) for row in rows]


def _sent(row: Mapping[str, Any]) -> Sent:
    values: Any = {name: row[name] for name in MessageRow._fields}
    return Sent(StreamName.parse(str(row["stream"])), _blob(row["id"]), MessageRow(**values))


def _receipts(core: Core, **where: Any) -> list[Receipt]:
    found = []
    for row in core.store.rows("receipt", limit=100_000, **where):
        values: Any = {name: row[name] for name in ReceiptRow._fields}
        machine = StreamName.parse(str(row["stream"])).machine
        found.append(
            Receipt(machine, _blob(row["message"]), str(row["actor"]), ReceiptRow(**values))
        )
    return found


def _peers(core: Core) -> list[Peer]:
    return [Peer(m, record.roles) for m, record in core.roster.machines.items()]


def _held_size(core: Core, stream: StreamName) -> Callable[[MachineId], int]:
    sizes = {c.machine: c.size for c in core.store.cosigns(stream) if c.strength == "held"}
    return lambda machine: sizes.get(machine, 0)


def _append(core: Core, call: Call, kind: str, body: Any) -> None:
    raw = canon.encode(msgspec.to_builtins(body))
    core.append(kind, raw, cause=call.cites, actor=call.actor)


def _names(value: Any) -> list[str]:
    return [value] if isinstance(value, str) and value else list(value or ())


def _text(value: Any) -> str:
    return " ".join(str(v) for v in value) if isinstance(value, list) else str(value)


def _blob(value: object) -> bytes:
    return value if isinstance(value, bytes) else b""
