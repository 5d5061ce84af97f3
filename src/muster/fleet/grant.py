"""Grants: who may ask for what, until when. What no grant allows is denied.

Rule 1: the answer is given once, by the machine that acts, for this one action; it cites the
grant, and the citation is recorded. A refusal is recorded too.
Rule 2: an operator holds everything, by the authority's record. Anybody else holds what was
given to exactly this key, this agent on this machine, or a role of the machine.
Rule 3: an operator may give anything. Another key may give verb V only when an operator gave
it `grant` on V and V itself, on at least that object and for at least that long. It cannot
hand on the right to give: authority is never more than one step away from an operator.
Rule 4: a grant that was taken stays taken, whoever shows the old statement again.
Rule 5: an agent is named with its machine's id, not its name: a name can be reused. So is another
fleet with its own; a grant to it lets its machines ask over a link, and no key of it order.
An account of a chat is named with the machine whose bridge hears it; it holds `CHAT_VERBS` alone.

Rule 6: `delegate` lets a machine hand on work for its agents. Such a grant names the verb, never
`*`, has bounds, and comes from an operator: nobody got more by an order of before.

There are no patterns: a verb or object is named exactly, or is `*`.
"""

import re
from collections.abc import Collection, Iterable, Mapping
from typing import Annotated, Final, NamedTuple

from msgspec import Meta, Struct

from muster import limits
from muster.errors import Denied, Malformed
from muster.fleet.document import document_id
from muster.fleet.name import Milliseconds, Size, Word, short
from muster.fleet.statement import EVERY_MACHINE, Statement, sign_statement, tells_all
from muster.log.keys import Signer
from muster.log.stream import FleetId, MachineId

ANYTHING: Final = "*"
# The verb whose object is another verb: holding it lets a key give that other verb.
GRANT: Final = "grant"
# The verbs of the two statements about grants.
GIVE: Final = "grant.give"
TAKE: Final = "grant.take"
# What a machine does for its agents; its object is the machine that may be asked.
DELEGATE: Final = "delegate"

# What whoever orders work that is not enclosed holds beside the order; its object is that of the
# order, the name of a spec.
UNENCLOSED: Final = "unenclosed"

# What a machine of another fleet may ask to be done here; its object is the machine.
TASK: Final = "task"
# What a machine of another fleet may leave here: files, on the machine that is the object.
FILE: Final = "file"

# What stands before the id of another fleet that something is given to.
FLEET_GRANTEE: Final = "fleet:"

# What stands before an account of a chat service that something is given to, and what it may be
# given: whoever takes the account over can do this much, and no more (chat.py).
CHAT_GRANTEE: Final = "chat."
CHAT_VERBS: Final[Mapping[str, str]] = {
    "acknowledge": "incident", "approve": "class", "incidents": "", "status": "", "tasks": "",
    "why": "task",
}  # fmt: skip
# Of `approve` the object is a class of approvals; these classes never are from a chat.
CHAT_NEVER: Final = frozenset({"grant", "push", "revoke", "run", "secret", "spend"})

_CLASS: Final = re.compile(r"class:([a-z][a-z-]{0,31})")

# What a service is called, and what it calls an account.
CHAT_SERVICE: Final = "[a-z]{1,16}"
CHAT_ACCOUNT: Final = "[A-Za-z0-9@._=/+:-]{1,100}"
_CHAT_KEY: Final = rf"chat\.{CHAT_SERVICE}\.{CHAT_ACCOUNT}@[0-9a-f]{{64}}"
CHAT_KEY_PATTERN: Final = rf"^{_CHAT_KEY}\Z"
_TO: Final = (
    r"^([0-9a-f]{64}|[a-z0-9-]{1,63}@[0-9a-f]{64}|[a-z][a-z-]{0,31}|fleet:[0-9a-f]{64}"
    rf"|{_CHAT_KEY})\Z"
)
_TO_RE: Final = re.compile(_TO)


class Bounds(Struct, frozen=True, forbid_unknown_fields=True, omit_defaults=True):
    """How much a machine may hand on by one grant: runs in a day and open at once.

    `depth` says how often what was handed on is handed on again, 1 for never. Without `agents` any
    but the shell, without `repos` any repository, without `timeout_ms` as long as a phase may take.
    """

    at_once: Annotated[int, Meta(ge=1, le=limits.DELEGATIONS_MAX)]
    per_day: Annotated[int, Meta(ge=1, le=limits.DELEGATIONS_MAX)]
    agents: Annotated[tuple[Word, ...], Meta(max_length=limits.FLEET_LIST_MAX)] = ()
    depth: Annotated[int, Meta(ge=1, le=limits.DELEGATION_DEPTH_MAX)] = 1
    repos: Annotated[tuple[Word, ...], Meta(max_length=limits.FLEET_LIST_MAX)] = ()
    timeout_ms: Milliseconds = 0
    # Of `file` alone: how large each may be, and below which folder they lie; "" is the inbox.
    bytes_max: Size = 0
    folder: Annotated[str, Meta(max_length=200)] = ""


class Grant(Struct, frozen=True, forbid_unknown_fields=True, omit_defaults=True):
    """`to` a key, an agent (`name@<machine id>`), a role, `fleet:<id>` or an account of a chat
    (`chat.<service>.<account>@<id of the machine with the bridge>`); until `until_ms`.

    `bounds` are of `delegate`, and of what another fleet may ask for. Whoever does not know them
    refuses the whole grant.
    """

    object: Word
    to: Annotated[str, Meta(pattern=_TO)]
    until_ms: Milliseconds
    verb: Word
    bounds: Bounds | None = None


def is_bounded(verb: str, to: str) -> bool:
    """Whether such a grant has bounds, and only an operator gives it."""
    return verb == DELEGATE or (verb in (TASK, FILE) and to.startswith(FLEET_GRANTEE))


class Given(NamedTuple):
    """A grant, who gave it, and the id of the signed document that says so."""

    id: str
    giver: str
    grant: Grant
    # How long one order by this grant may live (ms); 0 sets no bound beside the statement's own.
    life_ms: int = 0
    # When its document was signed, by the clock of whoever did.
    issued_ms: int = 0


def agent_key(agent: str, machine: MachineId) -> str:
    """What an agent on a machine is called in grants."""
    return f"{agent}@{machine}"


def sign_give(
    signer: Signer, fleet: FleetId, grant: Grant, *, nonce: bytes, issued_ms: int
) -> bytes:
    """The statement that gives `grant`; it cannot be given by this document after its own end."""
    if not _TO_RE.match(grant.to):
        raise Malformed(
            f"A grant cannot be to {grant.to!r}: name a key, a role, or an agent as "
            "name@<machine id> (a machine's name can be reused, its id cannot), or fleet:<id> for "
            "another fleet."
        )
    until_ms = min(grant.until_ms, issued_ms + limits.STATEMENT_LIFE_MS_MAX)
    return sign_statement(
        signer,
        fleet=fleet,
        verb=GIVE,
        object=grant.verb,
        target=EVERY_MACHINE,
        args=grant,
        nonce=nonce,
        issued_ms=issued_ms,
        until_ms=until_ms,
    )


def sign_take(
    signer: Signer, fleet: FleetId, grant_id: str, *, nonce: bytes, issued_ms: int
) -> bytes:
    """The statement that takes back the grant of this id, for ever."""
    return sign_statement(
        signer,
        fleet=fleet,
        verb=TAKE,
        object=grant_id,
        target=EVERY_MACHINE,
        args={"id": grant_id},
        nonce=nonce,
        issued_ms=issued_ms,
        until_ms=issued_ms + limits.STATEMENT_LIFE_MS_MAX,
    )


def gives(statement: Statement, grant: Grant) -> bool:
    """Whether the statement gives exactly this grant."""
    return tells_all(statement, GIVE, grant.verb, grant)


def takes(statement: Statement, grant_id: str) -> bool:
    """Whether the statement takes exactly this grant."""
    return tells_all(statement, TAKE, grant_id, {"id": grant_id})


def root_grant(operator: str, record: bytes) -> Given:
    """What the authority's operator record amounts to: everything, without end."""
    everything = Grant(object=ANYTHING, to=operator, until_ms=limits.INT_ABS_MAX, verb=ANYTHING)
    return Given(document_id(record), "", everything)


def is_for_chat(grant: Grant) -> bool:
    """Whether an account of a chat may hold it at all, whoever gave it.

    `approve` names one class and never all: what is added later is not given today.
    """
    if grant.verb == "approve":
        found = _CLASS.fullmatch(grant.object)
        return found is not None and found[1] not in CHAT_NEVER
    return grant.verb in CHAT_VERBS


def effective(roots: Iterable[Given], given: Iterable[Given]) -> tuple[Given, ...]:
    """The grants that count: the operators' own, those they gave, and one step of delegation."""
    roots = tuple(roots)
    given = tuple(
        g for g in given if not g.grant.to.startswith(CHAT_GRANTEE) or is_for_chat(g.grant)
    )
    operators = {root.grant.to for root in roots}
    direct = tuple(g for g in given if g.giver in operators)
    delegated = tuple(
        g for g in given if g.giver not in operators and _may_give(g.giver, g.grant, direct)
    )
    return roots + direct + delegated


def decide(  # noqa: PLR0917 - the question has this many parts, in this order
    grants: Iterable[Given],
    key: str,
    verb: str,
    object: str,
    now_ms: int,
    roles: Collection[str] = (),
    life_ms: int = 0,
    *,
    who: str = "",
    on: str = "",
) -> str:
    """The id of the grant that lets `key` do this now; raises Denied when there is none.

    `grants` are the effective ones. `roles` are those of the machine that `key` belongs to.
    `life_ms` is how long the order itself may be shown, from its issue to its end. `who` is what
    a person calls the key's owner, `on` the object.
    Of several grants the most exact and then the longest is cited, so that every machine
    cites the same.
    """
    held = [g for g in grants if g.grant.to == key or g.grant.to in roles]
    fitting = [g for g in held if _covers(g.grant, verb, object)]
    bound = [g for g in fitting if not g.life_ms or life_ms <= g.life_ms]
    valid = [g for g in bound if now_ms <= g.grant.until_ms]
    if valid:
        exact = [
            (g.grant.verb == ANYTHING, g.grant.object == ANYTHING, -g.grant.until_ms, g.id)
            for g in valid
        ]
        return min(exact)[-1]
    object = on or object
    who = who or (f"key {short(key)}" if len(key) == 64 else key.partition("@")[0])
    if fitting and not bound:
        allowed_s = max(g.life_ms for g in fitting) // 1000
        raise Denied(
            f"{who} may order {verb} on {object}, but only by one that ends within {allowed_s} s, "
            f"and this one may be shown for {life_ms // 1000} s."
        )
    if fitting:
        ended_s = (now_ms - max(g.grant.until_ms for g in fitting)) // 1000
        raise Denied(
            f"{who} may order {verb} on {object} no longer: the grant ended {ended_s} s ago."
        )
    raise Denied(
        f"{who} may not order {verb} on {object}: no grant allows it; ask an operator for one"
        f"{_way(who, verb, object)}."
    )


def _way(who: str, verb: str, object: str) -> str:
    """What an operator types so that it is allowed, where that is known of whoever was refused."""
    sort, _, name = who.partition(" ")
    if sort == "key":
        given = f"`muster grant KEY {verb} --object {object}`"
        return f" ({given}) or to be one (`muster operator add NAME --key KEY`)"
    if who.startswith("the device "):
        return f" (`muster device add {name.removeprefix('device ')} --may {verb}`)"
    if sort == "machine" and " " not in name:
        return f" (`muster grant machine:{name} {verb} --object {object}`)"
    return ""


def _covers(grant: Grant, verb: str, object: str) -> bool:
    return grant.verb in (verb, ANYTHING) and grant.object in (object, ANYTHING)


def _may_give(giver: str, grant: Grant, direct: Iterable[Given]) -> bool:
    # `*` would include `grant` itself, and so a second step of delegation.
    if grant.verb in (ANYTHING, GRANT, GIVE, TAKE) or is_bounded(grant.verb, grant.to):
        return False
    held = [g.grant for g in direct if g.grant.to == giver and g.grant.until_ms >= grant.until_ms]
    may_give = any(g.verb == GRANT and g.object in (grant.verb, ANYTHING) for g in held)
    # Holding `grant` on V does not count as holding V: both must have been given.
    has_it = any(g.verb != GRANT and _covers(g, grant.verb, grant.object) for g in held)
    return may_give and has_it
