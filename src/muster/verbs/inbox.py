"""Verbs that read messages: what came, what was sent, what was said in a thread.

Rule 1: a page is at most `SHOWN_MAX` messages, and whoever asks can tell that there are more: the
unread come oldest first, since they may be orders of a kind, everything else newest first.
Rule 2: a question costs what it shows, not what there is: rows are read by their key, the unread
by an index, and only a bounded number is looked through.
"""

import re
from collections.abc import Callable, Iterable
from typing import Any, Final

from muster.errors import NotFound, Refused
from muster.limits import MESSAGES_SHOWN_MAX, RECEIPTS_OF_MESSAGE_MAX
from muster.log.entry import EntryId
from muster.log.stream import MachineId, Scope, StreamName, group_owner, scope_to
from muster.message import kinds
from muster.message.fold import MessageRow, ReceiptRow
from muster.message.state import Item, Peer, Receipt, Sent, deliveries, meant
from muster.message.state import inbox as inbox_of
from muster.node.actor import said
from muster.node.call import Call
from muster.node.core import Core
from muster.node.mailbox import Place
from muster.node.speaking import Speaking
from muster.store.store import Draft
from muster.verbs.listing import Room, newest_fitting, oldest_fitting, say_cut, shown_max

SHOWN_MAX: Final = 500
# `inbox --all` looks through so many of the newest messages of everybody.
_LOOKED_MAX: Final = 20_000
_MOST: Final = f"no answer has more than {MESSAGES_SHOWN_MAX}"
_HEX: Final = re.compile("[0-9a-f]{1,64}")


def inbox(core: Core, call: Call) -> Any:
    """Messages for this machine, or for one agent on it; `mark` says they were shown."""
    agent, limit = str(call.args.get("agent") or ""), _asked(call)
    if call.args.get("all"):
        before = str(call.args.get("before") or "")
        all_of_it = _newest(core, agent, find(core, before) if before else None, limit)
        found = newest_fitting(all_of_it, _text, Room(MESSAGES_SHOWN_MAX))
        if len(found) == limit or len(found) < len(all_of_it):
            first = found[0].id.hex()[:12]
            say_cut(call, len(found), "messages", f"--before {first} shows older ones")
    else:
        unread = _unread(core, agent)
        oldest = [_at(core, place.stream, place.seq) for place in unread[:limit]]
        found = oldest_fitting(oldest, _text, Room(MESSAGES_SHOWN_MAX))
        if len(unread) > len(found):
            more = f"--mark marks them as read, then the others come{_further(limit, '; ')}"
            say_cut(call, len(found), f"of {len(unread)} unread messages, the oldest,", more)
    receipts = [r for message in found for r in _receipts(core, message.id)]
    items = {item.id: item for item in inbox_of(_me(core), agent, found, receipts)}
    if call.args.get("mark"):
        _mark(core, agent, [m for m in found if not items[m.id].read])
    return [_item_view(core, message, items[message.id]) for message in found]


def _asked(call: Call) -> int:
    """How many messages an answer shows."""
    return min(shown_max(call, SHOWN_MAX), MESSAGES_SHOWN_MAX)


def _further(limit: int, before: str = "") -> str:
    """How to see more of a list that was cut, where a longer one can be had."""
    return f"{before}--limit shows more" if limit < MESSAGES_SHOWN_MAX else ""


def _text(message: Sent) -> str:
    return message.row.text


def _item_view(core: Core, message: Sent, item: Item) -> dict[str, Any]:
    return {
        "message": item.id.hex(),
        **_from(core, message),
        "machine": core.standing.name_of(item.sender),
        "text": item.row.text,
        "thread": item.row.thread,
        "subject": item.row.subject,
        "t_ms": item.row.at_ms,
        "read": item.read,
        "acted": item.acted,
    }


def _from(core: Core, message: Sent) -> dict[str, Any]:
    """Who a message is from, as far as it is proven, and what else its entry claims."""
    found = said(core, core.store.entry_at(message.stream, message.row.seq))
    claims = {"claims": found.claims} if found.claims else {}
    return {"from": found.name, "trust": found.trust, **claims}


def _mark(core: Core, agent: str, messages: Iterable[Sent]) -> None:
    """Say that these were shown: one batch for each stream that says so."""
    actor = f"{agent}@{core.name}" if agent else "muster"
    drafts: dict[Scope, list[Draft]] = {}
    for message in messages:
        body = kinds.body_bytes(kinds.MessageRead(message.id.hex()))
        draft = Draft("message.read", actor, (EntryId(message.id),), body)
        drafts.setdefault(receipt_scope(core, message), []).append(draft)
    for scope, each in drafts.items():
        core.append_all(scope, each)


def unread(core: Core) -> int:
    """How many messages are for this machine and were not marked as read."""
    return len(_unread(core))


def _unread(core: Core, agent: str = "") -> list[Place]:
    speaks = Speaking(core).speaks
    return [each for each in core.mailbox.unread(agent) if speaks(each.stream, each.seq)]


def _newest(core: Core, agent: str, before: Sent | None, limit: int) -> list[Sent]:
    """The newest messages for a reader, or the newest older than one; oldest first."""
    me, found, speaks = _me(core), [], Speaking(core).speaks
    below: dict[str, Any] = {}
    if before is not None:
        below = {"at_ms": before.row.at_ms, "id": before.id}
    rows = core.store.rows(
        "message",
        order=("-at_ms", "-id"),
        limit=_LOOKED_MAX,
        below=below,
        columns=("seq", "recipients"),
    )
    for row in rows:
        stream = StreamName.parse(str(row["stream"]))
        for_me = meant(str(row["recipients"]).split("\n"), stream.machine, me)
        seq = int(str(row["seq"]))
        if for_me and (not agent or for_me & {"", agent}) and speaks(stream, seq):
            found.append(_at(core, stream, seq))
            if len(found) == limit:
                break
    return found[::-1]


def sent(core: Core, call: Call) -> Any:
    """What was sent from here, and how far it came with each recipient, with the proof."""
    answer = []
    limit = _asked(call)
    found = _said_in(core, lambda stream: stream.machine == core.machine, limit + 1)
    shown = newest_fitting(found[-limit:], _text, Room(MESSAGES_SHOWN_MAX))
    if len(found) > len(shown):
        say_cut(call, len(shown), "messages, the newest,", _further(limit) or _MOST)
    for message in shown:
        steps = deliveries(
            message,
            peers(core, message.stream),
            _held_size(core, message.stream),
            _receipts(core, message.id),
        )
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


def threads(core: Core, call: Call) -> Any:
    """The threads this machine belongs to; with a name, what was said in it."""
    wanted = str(call.args.get("name") or "")
    room = Room(MESSAGES_SHOWN_MAX)
    found = [members(core, call, scope, room) for scope in groups(core, wanted)]
    if wanted and not found:
        raise NotFound(f"this machine is in no thread {wanted!r}; `muster threads` lists them")
    return found


def members(core: Core, call: Call, scope: Scope, room: Room | None = None) -> dict[str, Any]:
    """A thread: who belongs to it, and the newest of what was said."""
    those, name = core.roster.groups.get(scope, {}), scope.rpartition(".")[2]
    limit = _asked(call)
    found = _said_in(core, lambda stream: stream.scope == scope, limit + 1)
    shown = newest_fitting(found[-limit:], _text, room or Room(MESSAGES_SHOWN_MAX))
    if len(found) > len(shown):
        say_cut(call, len(shown), f"messages of {name}, the newest,", _further(limit) or _MOST)
    return {
        "thread": name,
        "keeper": keeper_of(core, scope) if group_owner(scope) else "",
        "members": sorted(core.standing.name_of(m) for m in those),
        "messages": [
            {
                "message": each.id.hex(),
                **_from(core, each),
                "machine": core.standing.name_of(each.stream.machine),
                "text": each.row.text,
                "t_ms": each.row.at_ms,
            }
            for each in shown
        ],
    }


def groups(core: Core, wanted: str) -> list[Scope]:
    """The groups that we belong to: all, those of a name, or NAME@MACHINE for one of those.

    Any machine can open a thread of any name and add us: a name alone may mean several.
    """
    name, at, keeper = wanted.partition("@")
    return [
        scope
        for scope, members in sorted(core.roster.groups.items())
        if core.machine in members
        and name in ("", scope.rpartition(".")[2])
        and (not at or keeper in (group_owner(scope), keeper_of(core, scope)))
    ]


def keeper_of(core: Core, scope: Scope) -> str:
    """The name of the machine that keeps a thread."""
    return core.standing.name_of(group_owner(scope) or "")


# --- rows -----------------------------------------------------------------------------------


def find(core: Core, text: str) -> Sent:
    """The one message whose id begins like this. Raises: NotFound, Refused."""
    # A pattern that somebody typed is no question for a database.
    rows: list[Any] = []
    if _HEX.fullmatch(text):
        like = f"{text.upper()}%"
        rows = core.store.query("select id from message where hex(id) like ? limit 2", (like,))
    if not rows:
        raise NotFound(f"no message begins with {text[:40]!r}; `muster inbox --all` lists them")
    if len(rows) > 1:
        raise Refused(f"more than one message begins with {text[:40]!r}; give more of its id")
    (row,) = core.store.rows("message", id=rows[0][0], limit=1)
    return _sent(row)


def receipt_scope(core: Core, message: Sent) -> Scope:
    """Where the sender can read what we say about its message."""
    scope = message.stream.scope
    if scope.startswith("to."):
        return scope_to(message.stream.machine) if message.stream.machine != core.machine else scope
    return scope


def peers(core: Core, stream: StreamName) -> list[Peer]:
    """The machines that a message in this stream can be for: those that may read it."""
    return [
        Peer(machine, record.roles)
        for machine, record in core.roster.machines.items()
        if core.standing.may_hold(stream, machine)
    ]


def _me(core: Core) -> Peer:
    record = core.roster.machines.get(core.machine)
    return Peer(core.machine, record.roles if record is not None else ())


def _said_in(core: Core, wanted: Callable[[StreamName], bool], limit: int) -> list[Sent]:
    """The newest messages of these streams, oldest first.

    Each stream's newest for itself: whoever writes much does not crowd out what others said.
    """
    speaks = Speaking(core).speaks
    places = [
        (row["at_ms"], row["id"], stream, int(str(row["seq"])))
        for stream in core.store.streams()
        if wanted(stream)
        for row in core.store.rows(
            "message", stream=stream, order=("-seq",), limit=limit, columns=("seq", "at_ms", "id")
        )
        if speaks(stream, int(str(row["seq"])))
    ]
    return [_at(core, stream, seq) for _, _, stream, seq in sorted(places)[-limit:]]


def _at(core: Core, stream: StreamName, seq: int) -> Sent:
    row = core.store.row("message", stream, seq)
    assert row is not None, "the index holds what the table holds"
    return _sent({"stream": str(stream), "seq": seq, **row})


def _sent(row: dict[str, Any]) -> Sent:
    values: Any = {name: row[name] for name in MessageRow._fields}
    return Sent(StreamName.parse(str(row["stream"])), bytes(row["id"]), MessageRow(**values))


def _receipts(core: Core, message: bytes) -> list[Receipt]:
    found = []
    rows = core.store.rows_of_each("receipt", RECEIPTS_OF_MESSAGE_MAX, ("actor",), message=message)
    for row in rows:
        values: Any = {name: row[name] for name in ReceiptRow._fields}
        machine = StreamName.parse(str(row["stream"])).machine
        found.append(Receipt(machine, message, str(row["actor"]), ReceiptRow(**values)))
    return found


def _held_size(core: Core, stream: StreamName) -> Callable[[MachineId], int]:
    sizes = {c.machine: c.size for c in core.store.cosigns(stream) if c.strength == "held"}
    return lambda machine: sizes.get(machine, 0)
