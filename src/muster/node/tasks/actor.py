"""Who said or did what an entry says, as far as anything proves it.

Rule 1: the actor in an entry is its writer's word. About its own agents a machine is believed; that
a person was at work is proven by the person's signed statement and by nothing else.
Rule 2: what is not proven is shown as the machine's, with what it claims beside it.
Rule 3: one order is one message. The machine that takes it writes both in one step, the message
next; what it writes later, or elsewhere, under the same order was not said by the person.
Rule 4: what somebody said over a chat service is of outside, whoever's account it is.
Rule 5: a key that was shut out signs what it likes, under any date. What came here before that was
its person's and stays so; what comes later proves nothing.
"""

from contextlib import suppress
from typing import TYPE_CHECKING, Final, Literal, NamedTuple

from msgspec import UNSET, Struct, UnsetType

from muster.errors import MusterError
from muster.fleet.chat import is_chat_actor
from muster.fleet.folds import GRANT, ORDER
from muster.fleet.kinds import ORDER_TAKE, OrderTake
from muster.fleet.statement import Statement, args_hash, is_target, open_statement, signer_of
from muster.limits import DELEGATION_DEPTH_MAX
from muster.log.clock import Stamp
from muster.log.entry import Entry
from muster.log.fold import NO_ENTRY, Skip, body_as, body_or_none
from muster.memory import ordered as memory
from muster.memory.fold import BODIES as MEMORY
from muster.memory.kinds import MemoryErase
from muster.message.kinds import MessageSend
from muster.message.ordered import is_ordered
from muster.node.call.shut_out import is_after
from muster.node.tasks.asking import asked_of
from muster.node.tasks.ended_work import orderer
from muster.node.tasks.ownership import Ownership
from muster.node.terms import terms_of
from muster.task import kinds
from muster.task.causes import Unproven
from muster.task.delegation_kinds import DelegationOpen
from muster.task.evidence import check_ordered
from muster.task.fold import RUN, TASK, RunRow
from muster.task.peer_work import HEARD

if TYPE_CHECKING:
    from muster.node.core import Core

Trust = Literal["person", "agent", "machine", "outside"]
_PERSON: Final = "op:"


class Said(NamedTuple):
    """The name to show, what it is, and what the entry claims where nothing proves that."""

    name: str
    trust: Trust
    claims: str = ""


def said(core: "Core", entry: Entry) -> Said:
    """Who is behind an entry; behind a run that an agent handed on, that agent."""
    if entry.header.kind == "run.open" and (asked := asked_of(core.log.entry, entry)) is not None:
        if foreigner := _foreigner(core, asked):
            return Said(foreigner, "machine")
        entry = asked
    actor, machine = entry.header.actor, core.membership.name_of(entry.header.author)
    if actor.startswith(_PERSON):
        # Whether the person that the entry names ordered exactly what it says.
        proven = bool(_proving(core, entry))
        return Said(actor, "person") if proven else Said(machine, "machine", actor)
    agent, at, where = actor.rpartition("@")
    if not at:
        return Said(actor, "machine")
    own = f"{agent}@{machine}"
    if is_chat_actor(actor):
        # An account of a chat service, as the machine with the bridge heard it.
        return Said(own, "outside")
    # A machine may have had another name then; that of another machine is not its to use.
    others = where != machine and where in {r.name for r in core.roster.machines.values()}
    return Said(own, "agent", actor if others else "")


def _proving(core: "Core", entry: Entry) -> list[Statement]:
    """The statements of the person that an entry names which order what it says."""
    with suppress(MusterError, Skip, ValueError):
        return [each for each in _statements(core, entry) if _is_theirs(core, entry, each)]
    return []


def _is_theirs(core: "Core", entry: Entry, statement: Statement) -> bool:
    """Whether the person that an entry names signed a statement, for this machine and in time."""
    return (
        entry.header.actor in _names(core, statement)
        and not is_after(core, entry, statement.operator)
        and is_target(statement, entry.stream.machine)
    )


def binds_all(core: "Core", erasure: Entry) -> bool:
    """Whether a person ordered all that an erasure restates, not only that its target be erased."""
    body = body_or_none(erasure, MemoryErase)
    orders = _proving(core, erasure) if body is not None else ()
    return body is not None and any(memory.binds(body, each) for each in orders)


class HandedOn(Struct, frozen=True):
    """Which agent handed on a run, and what a person signed that let it: the grant, or the spec of
    the task that it worked on.
    """

    by: str
    person: str
    session: str | UnsetType = UNSET
    grant: str | UnsetType = UNSET
    task: str | UnsetType = UNSET


def _foreigner(core: "Core", asked: Entry) -> str:
    """The machine of another fleet that asked for what its door handed on; "" for nobody."""
    for cause in asked.causes[:1]:
        came = core.log.entry(cause)
        if came is not None and came.header.author == asked.header.author:
            for row in core.tables.rows(HEARD, stream=came.stream, seq=came.header.seq):
                known = core.roster.peers.get(row.fleet)
                return f"{row.name}.{row.fleet[:12] if known is None else known.name}"
    return ""


def handed_on(core: "Core", row: RunRow) -> HandedOn | UnsetType:
    """By whom a run was handed on; nothing of one that a person ordered."""
    opening = core.log.entry(row.opened)
    asked = asked_of(core.log.entry, opening) if opening is not None else None
    body = body_or_none(asked, DelegationOpen)
    if asked is None or body is None:
        return UNSET
    who, session = said(core, asked), body.session or UNSET
    # Whoever shows no capability is a program of the machine's own user, and no daemon.
    own = who.name if who.trust == "agent" else core.membership.name_of(asked.header.author)
    by = _foreigner(core, asked) or own
    person = _behind(core, asked, body)
    if body.grant:
        return HandedOn(by, person, session, grant=body.grant)
    assign = _assignment(core, asked)
    return HandedOn(by, person, session, task=UNSET if assign is None else assign.task)


def _assignment(core: "Core", asked: Entry) -> kinds.TaskAssign | None:
    """What the agent that asked was working on."""
    return body_or_none(core.log.entry(asked.causes[0]) if asked.causes else None, kinds.TaskAssign)


def _behind(core: "Core", asked: Entry, body: DelegationOpen) -> str:
    """The person who let an agent hand on work, through all agents before it; "" for nobody."""
    for _ in range(DELEGATION_DEPTH_MAX):
        if body.grant:
            givers = (row.giver for row in core.tables.rows(GRANT, id=body.grant, limit=1))
            return next(map(core.roster.speaker, givers), "")
        assign = _assignment(core, asked)
        held = core.part(Ownership).held(TASK, assign.task) if assign else None
        run = core.part(Ownership).held(RUN, held.row.run) if held and held.row.run else None
        # A task without a run was ordered by itself.
        begun = run.row.opened if run else held.row.opened if held else NO_ENTRY
        opening = core.log.entry(begun)
        if opening is None:
            return ""
        before = asked_of(core.log.entry, opening)
        further = body_or_none(before, DelegationOpen)
        if before is None or further is None:
            return said(core, opening).name.removeprefix(_PERSON)
        asked, body = before, further
    return ""


def _names(core: "Core", statement: Statement) -> tuple[str, ...]:
    """What an operator's or a device's key is called in entries; nothing for any other key."""
    key, roster = statement.operator, core.roster
    if key in roster.operators:
        return (f"{_PERSON}{roster.operators[key].name}", f"{_PERSON}{key[:12]}")
    if key in roster.devices_ever:
        # A device speaks for its person only where its terms say so.
        roster.was_permitted(statement, statement.issued_ms)
        return (f"{_PERSON}{roster.speaker(key)}",)
    if key in roster.revoked and key not in roster.known:
        return (f"{_PERSON}{roster.revoked[key].name}", f"{_PERSON}{key[:12]}")
    return ()


def _statements(core: "Core", entry: Entry) -> list[Statement]:
    """The statements that order exactly what this entry says. Raises: where it cannot be read."""
    kind = entry.header.kind
    if kind == ORDER_TAKE:
        return [_taken(core, entry)]
    if kind == "message.send":
        body, terms = body_as(entry, MessageSend), terms_of(core, entry)
        return [
            each
            for each in _orders(core, entry)
            if is_ordered(body, entry.stream.scope, each, core.membership.name_of, terms)
        ]
    if kind in MEMORY:
        known = body_as(entry, MEMORY[kind])
        scope, names = entry.stream.scope, core.membership.name_of
        return [s for s in _orders(core, entry) if memory.is_ordered(known, scope, s, names)]
    if kind == "task.decide":
        decided = body_as(entry, kinds.TaskDecide)
        statement = open_statement(bytes.fromhex(decided.statement), core.membership.fleet)
        # Whether a person ordered this answer for this task.
        args = {
            "answer": "yes" if decided.verdict == "approve" else "no",
            "task": statement.object,
            **({"note": decided.text} if decided.text else {}),
        }
        fits = statement.verb == "decide" and decided.task.startswith(statement.object)
        return [statement] if fits and statement.args == args_hash(args) else []
    if kind in ("run.open", "task.open"):
        # What a worker would check before it runs anything of it.
        found: list[Statement] = []
        # What is not ordered was ordered by nobody, which no statement says.
        with suppress(Unproven):
            check_ordered(entry, fleet=core.membership.fleet, lookup=core.log.entry,
                          authority=lambda statement, _at_ms: found.append(statement),
                          now_ms=entry.header.t[0])  # fmt: skip
            return found
        return []
    if kind == "work.end":
        ended = body_as(entry, kinds.WorkEnd)
        statement = open_statement(bytes.fromhex(ended.statement), core.membership.fleet)
        return [statement] if orderer(core, entry) else []
    return []


def _orders(core: "Core", entry: Entry) -> list[Statement]:
    """The orders of the person that an entry names, which its own machine took just before, once.

    Whose key it is comes first: anybody can sign what is dear to read, and cite it.
    """
    found = [core.log.entry(cause) for cause in entry.causes]
    return [
        _taken(core, each)
        for each in found
        if each is not None
        and each.header.kind == ORDER_TAKE
        and each.stream[:2] == entry.stream[:2]
        and entry.stamp == Stamp(each.stamp.ms, each.stamp.n + 1)
        and _has_a_name(core, signer_of(_order_in(each), core.membership.fleet))
        and _is_theirs(core, entry, _taken(core, each))
        and _is_first(core, each)
    ]


def _has_a_name(core: "Core", key: str) -> bool:
    """Whether a key is, or was, one that orders: what any other signed is not even read."""
    roster = core.roster
    return key in roster.operators or key in roster.devices_ever or key in roster.revoked


def _is_first(core: "Core", took: Entry) -> bool:
    """Whether its machine took the order here for the first time, of all its incarnations."""
    order, store = _taken(core, took), core.store
    rows = store.tables.rows(
        ORDER, writer=took.header.author, operator=order.operator, nonce=order.nonce
    )
    entries = [store.log.entry(row.entry) for row in rows]
    came = [
        store.log.admitted(each.stream, each.header.seq) for each in entries if each is not None
    ]
    mine = store.log.admitted(took.stream, took.header.seq)
    return mine is not None and all(each is None or mine <= each for each in came)


def _taken(core: "Core", entry: Entry) -> Statement:
    return open_statement(_order_in(entry), core.membership.fleet)


def _order_in(entry: Entry) -> bytes:
    return body_as(entry, OrderTake).statement.encode()
