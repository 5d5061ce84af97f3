"""Verbs that say something. Delivered means: the recipient's machine has receipted it."""

from collections.abc import Callable
from typing import Any

import msgspec

from muster.errors import Conflict, Malformed, NotFound, Refused
from muster.fleet import kinds as fleet_kinds
from muster.fleet.record import ROLES
from muster.limits import FLEET_LIST_MAX
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
from muster.message.state import meant
from muster.node.call import LATER, Call
from muster.node.core import Core
from muster.verbs.fleet import heard_ms_ago
from muster.verbs.inbox import find, groups, keeper_of, members, peers, receipt_scope


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
    core.append("message.act", kinds.body_bytes(body), scope=receipt_scope(core, message),
                cause=(EntryId(message.id), *call.cites), actor=call.actor)  # fmt: skip
    return {"message": message.id.hex(), "state": "acted"}


def _send(core: Core, call: Call, scope: Scope, body: kinds.MessageSend, *, wait: bool) -> Any:
    stream = core.standing.own(scope)
    before = _same_key(core, stream, body) if body.key else None
    sent, seq = before or (None, core.store.size(stream))
    whom = {p.machine for p in peers(core, stream) if meant(body.to, core.machine, p)}
    if not whom:
        raise NotFound(_nobody(core, body.to[0], scope))
    if sent is None:
        entry = core.append("message.send", kinds.body_bytes(body), scope=scope,
                            cause=call.cites, actor=call.actor)  # fmt: skip
        sent, seq = entry.id, entry.header.seq
    waiting = whom - {core.machine}
    if before is not None:
        waiting -= {
            c.machine for c in core.store.cosigns(stream) if c.strength == "held" and c.size > seq
        }
    answer = {
        "message": sent.hex(),
        "fresh": before is None,
        "state": "waiting" if waiting else "stored",
        "to": body.to,
    }
    if not (wait and waiting):
        return answer
    away = [machine for machine in sorted(waiting) if core.link_to(machine) is None]
    if away:
        # Said at once: whoever waits should know that it may be for long, and for whom.
        call.more({**answer, "away": [_away(core, m) for m in away]})
    core.replication.awaited.when_held(stream, seq + 1, waiting, _ending(call, answer))
    return LATER


def _same_key(core: Core, stream: StreamName, body: kinds.MessageSend) -> tuple[bytes, int] | None:
    """The message that was sent under this key: its id and place.

    Raises: Conflict where it said something else: a key stands for one message.
    """
    for found in core.store.rows("message_key", stream=stream, dedupe=body.key):
        id = _blob(found["id"])
        for row in core.store.rows("message", stream=stream, id=id):
            same = (row["recipients"], row["text"]) == ("\n".join(body.to), body.text)
            if not same:
                raise Conflict(
                    f"the key {body.key[:60]!r} was used for another message "
                    f"({id.hex()[:12]}); nothing was sent, take a key of its own"
                )
            return id, int(str(row["seq"]))
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
        name = core.standing.name_of(address.rpartition("@")[2])
        return f"{name} is not in the fleet any more; nothing was sent"
    if scope != FLEET:
        name = scope.rpartition(".")[2]
        return (
            f"nobody else is in thread {name}; `muster thread {name} --add MACHINE` adds a "
            "machine; nothing was sent"
        )
    return "this machine is alone in its fleet: nobody would read it; nothing was sent"


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


def _group(core: Core, name: str) -> Scope:
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
    if removed and not added and scope not in groups:
        raise NotFound(f"this machine keeps no thread {name!r}: nobody can be removed from it")
    since: Any = "now" if call.args.get("fresh") else "start"
    cuts = _sizes(core, scope) if since == "now" and added else {}
    if scope not in groups:
        others = [s for s in groups if s.rpartition(".")[2] == name and core.machine in groups[s]]
        if others and not (added or removed):
            return members(core, call, others[0])
        _append(core, call, fleet_kinds.GROUP_OPEN, fleet_kinds.GroupOpen(name))
    for machine in added:
        body = fleet_kinds.GroupAdd(machine=machine, name=name, since=since, cuts=cuts)
        _append(core, call, fleet_kinds.GROUP_ADD, body)
    for machine in removed:
        _append(core, call, fleet_kinds.GROUP_REMOVE, fleet_kinds.GroupRemove(machine, name))
    core.standing.changed()
    return members(core, call, scope)


def _sizes(core: Core, scope: Scope) -> dict[str, int]:
    """Where a new member begins to read. Raises: Refused where that cannot be said."""
    store = core.store
    sizes = {str(s): store.size(s) for s in store.streams() if s.scope == scope and store.size(s)}
    if len(sizes) > FLEET_LIST_MAX:
        raise Refused(
            f"what {len(sizes)} streams of this thread said cannot be kept from a new member, only "
            f"that of {FLEET_LIST_MAX}: open another thread, or add it without --fresh"
        )
    return sizes


def _append(core: Core, call: Call, kind: str, body: Any) -> None:
    raw = canon.encode(msgspec.to_builtins(body))
    core.append(kind, raw, cause=call.cites, actor=call.actor)


def _names(value: Any) -> list[str]:
    return [value] if isinstance(value, str) and value else list(value or ())


def _text(value: Any) -> str:
    return " ".join(str(v) for v in value) if isinstance(value, list) else str(value)


def _blob(value: object) -> bytes:
    return value if isinstance(value, bytes) else b""
