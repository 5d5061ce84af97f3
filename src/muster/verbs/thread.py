"""Verbs about threads: groups of machines that read what is said among them."""

from typing import Annotated, Any, Final, Literal

from msgspec import UNSET, Struct, UnsetType, field

from muster.errors import Conflict, NotFound, Refused
from muster.fleet import kinds
from muster.limits import FLEET_LIST_MAX, MESSAGES_SHOWN_MAX
from muster.log.stream import Scope, group_owner, scope_group
from muster.message.fold import Message, MessageRow
from muster.node.services import messages
from muster.node.services.threads import groups, keeper_of
from muster.node.tasks.actor import said
from muster.node.terms import row_of, terms_in
from muster.verbs.declaration import Call, Core, Request, Words, opt, pos, verb
from muster.verbs.listing import Room, Rows, newest_fitting, say_cut

SHOWN_MAX: Final = 100
LIMIT_HELP: Final = f"show so many at most, up to {MESSAGES_SHOWN_MAX}"


class Said(Struct, frozen=True, kw_only=True):
    """A message as it is shown: who it is from as far as that is proven, and what it claims; the
    live session that said it, and the one that it is for.
    """

    message: str
    by: str = field(name="from")
    trust: str
    claims: str | UnsetType = UNSET
    session: str | UnsetType = UNSET
    for_session: str | UnsetType = UNSET
    machine: str
    text: str
    t_ms: int


class Thread(Struct, frozen=True):
    thread: str
    keeper: str
    members: list[str]
    messages: list[Said]


class Threads(Request, frozen=True):
    name: Annotated[str, pos("one thread", kind="thread")] = ""
    limit: Annotated[Rows, opt(LIMIT_HELP)] = None


@verb(
    "threads", watches=("message", "group"), names="thread", auth="local", group="Messages",
    harmless=True,
)  # fmt: skip
def threads(core: Core, call: Call, ask: Threads) -> list[Thread]:
    """The threads this machine belongs to, and what was said.

    muster threads
    muster threads team
    """
    room = Room(MESSAGES_SHOWN_MAX)
    found = [_thread(core, call, scope, room, ask.limit) for scope in groups(core, ask.name)]
    if ask.name and not found:
        raise NotFound(f"this machine is in no thread {ask.name!r}; `muster threads` lists them")
    return found


class Change(Request, frozen=True):
    name: Annotated[str, pos("the thread", kind="thread")]
    add: Annotated[Words, opt("add this machine; give it several times")] = ()
    remove: Annotated[Words, opt("remove this machine; give it several times")] = ()
    fresh: Annotated[bool, opt("new members get nothing old")] = False


@verb("thread", auth="agent", daily=True, group="Messages", object="name", naming=True,
      harmless=True)  # fmt: skip
def thread(core: Core, call: Call, ask: Change) -> Thread:
    """Open a group thread, or change its members.

    muster thread team --add build --add laptop
    """
    name, scope, known = ask.name, scope_group(core.machine, ask.name), core.roster.groups
    # Found before anything is written: a name that is wrong must leave no half of a change.
    added = [core.roster.find(each).machine for each in ask.add]
    removed = [core.roster.find(each).machine for each in ask.remove]
    if core.machine in removed:
        raise Conflict("the keeper of a thread stays in it")
    if removed and not added and scope not in known:
        raise NotFound(f"this machine keeps no thread {name!r}: nobody can be removed from it")
    cuts = _sizes(core, scope) if ask.fresh and added else {}
    room = Room(MESSAGES_SHOWN_MAX)
    if scope not in known:
        others = [s for s in known if s.rpartition(".")[2] == name and core.machine in known[s]]
        if others and not (added or removed):
            return _thread(core, call, others[0], room)
        call.write(kinds.GroupOpen(name))
    since: Literal["now", "start"] = "now" if ask.fresh else "start"
    for machine in added:
        call.write(kinds.GroupAdd(machine=machine, name=name, since=since, cuts=cuts))
    for machine in removed:
        call.write(kinds.GroupRemove(machine, name))
    core.membership.changed()
    return _thread(core, call, scope, room)


def _sizes(core: Core, scope: Scope) -> dict[str, int]:
    """Where a new member begins to read. Raises: Refused where that cannot be said."""
    store = core.store
    sizes = {
        str(s): store.log.size(s)
        for s in store.log.streams()
        if s.scope == scope and store.log.size(s)
    }
    if len(sizes) > FLEET_LIST_MAX:
        raise Refused(
            f"what {len(sizes)} streams of this thread said cannot be kept from a new member, only "
            f"that of {FLEET_LIST_MAX}: open another thread, or add it without --fresh"
        )
    return sizes


def _thread(core: Core, call: Call, scope: Scope, room: Room, limit: int | None = None) -> Thread:
    """A thread: who belongs to it, and the newest of what was said."""
    those, name = core.roster.groups.get(scope, {}), scope.rpartition(".")[2]
    most = rows_max(limit)
    found = messages.newest_in(core, lambda stream: stream.scope == scope, most + 1)
    newer = newest(call, found, most, room, f"messages of {name}")
    return Thread(
        name,
        keeper_of(core, scope) if group_owner(scope) else "",
        sorted(core.membership.name_of(m) for m in those),
        [Said(**shown(core, each)) for each in newer],
    )


def shown(core: Core, message: Message, row: MessageRow | None = None) -> dict[str, Any]:
    """A message as a `Said`: by its id, and who it is from as far as it is proven.

    `row` is the message's own, for whoever looked it up already.
    """
    found = said(core, message.entry)
    terms = terms_in(core, message.entry, row or row_of(core, message.entry))
    return {
        "message": message.id.hex(),
        "by": found.name,
        "trust": found.trust,
        "claims": found.claims or UNSET,
        "session": (terms.from_session if terms is not None else "") or UNSET,
        "for_session": (terms.to_session if terms is not None else "") or UNSET,
        "machine": core.membership.name_of(message.stream.machine),
        "text": message.text,
        "t_ms": message.at_ms,
    }


def rows_max(limit: int | None) -> int:
    """How many messages an answer shows."""
    return min(limit or SHOWN_MAX, MESSAGES_SHOWN_MAX)


def newest(call: Call, found: list[Message], limit: int, room: Room, what: str) -> list[Message]:
    """The newest of what was found that may be shown; where there is more, that is said."""
    newer = newest_fitting(found[-limit:], room)
    if len(found) > len(newer):
        most = f"no answer has more than {MESSAGES_SHOWN_MAX}"
        say_cut(call, len(newer), f"{what}, the newest,", further(limit) or most)
    return newer


def further(limit: int, before: str = "") -> str:
    """How to see more of a list that was cut, where a longer one can be had."""
    return f"{before}--limit shows more" if limit < MESSAGES_SHOWN_MAX else ""
