"""Accounts of chat services: which of them an operator let speak here, and what each may.

Rule 1: an account is what the service itself tells it by: never a name, never an e-mail address,
which anybody may change into another person's. With it stands where it is (a workspace, a server),
and the machine whose bridge hears it.
Rule 2: an operator orders the link; the machine with the bridge then shows a code once, and whoever
sends it in private is the account. One order links one account: the first one counts, and of an
order that was used in several streams nobody.
Rule 3: a link gives `DEFAULT`, until its end. Whatever else was given to the account ends with the
link that stood when it was given, and does not come back with another one. The link is taken back
as a grant is, by the id of its statement.
"""

import hashlib
import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Annotated, Final, NamedTuple

from msgspec import Meta, Struct
from msgspec.structs import replace

from muster import limits
from muster.errors import Malformed
from muster.fleet.acknowledgement import name_of
from muster.fleet.device_fold import checked
from muster.fleet.document import document_id
from muster.fleet.grant import (
    ANYTHING,
    CHAT_ACCOUNT,
    CHAT_GRANTEE,
    CHAT_SERVICE,
    Given,
    Grant,
)
from muster.fleet.kinds import Told
from muster.fleet.name import Hex32
from muster.fleet.statement import Statement, args_hash, open_statement
from muster.log.entry import Entry
from muster.log.fold import Rows, Skip, Table, body_as
from muster.log.kind import kind
from muster.log.stream import FleetId, MachineId, StreamName

CHAT_LINK: Final = "chat.link"
CHAT_ACKNOWLEDGE: Final = "chat.acknowledge"
# What a linked account may where nobody says more.
DEFAULT: Final = ("acknowledge", "incidents", "status", "tasks", "why")
# How long after the order an account may show its code.
CODE_MS: Final = 10 * 60_000
CODE_CHARS: Final = 8
# No letter that looks like another one; 32 signs, so 8 of them are 40 bits.
CODE_ALPHABET: Final = "23456789ABCDEFGHJKLMNPQRSTUVWXYZ"
DAY_MS: Final = 24 * 3_600_000

Service = Annotated[str, Meta(pattern=rf"^{CHAT_SERVICE}\Z")]
Account = Annotated[str, Meta(pattern=rf"^{CHAT_ACCOUNT}\Z")]
# Where the account is, "" for a service that has no such thing.
Workspace = Annotated[str, Meta(pattern=rf"^({CHAT_ACCOUNT})?\Z")]
_ACTOR: Final = re.compile(rf"chat-{CHAT_SERVICE}-[0-9a-f]{{12}}@")


@kind(CHAT_LINK)
class ChatLinked(Struct, frozen=True, forbid_unknown_fields=True):
    """`chat.link`: this account showed the code of this order. `code` is its SHA-256."""

    account: Account
    code: Hex32
    days: Annotated[int, Meta(ge=1, le=limits.GRANT_DAYS_MAX)]
    service: Service
    statement: str
    workspace: Workspace = ""


@kind(CHAT_ACKNOWLEDGE)
class ChatAcknowledged(Struct, frozen=True, forbid_unknown_fields=True):
    """`chat.acknowledge`: this account said that it looked at an incident. Never at a fork."""

    account: Account
    of: Told
    service: Service
    workspace: Workspace = ""


class ChatRow(NamedTuple):
    stream: StreamName
    id: str
    machine: str
    operator: str
    service: str
    workspace: str
    account: str
    issued_ms: int
    until_ms: int


class ChatAcknowledgedRow(NamedTuple):
    stream: StreamName
    incident: str
    # What grants call it.
    account: str
    workspace: str
    # Whose telling it is, and the key under which it was told.
    about: str
    key: str
    t_ms: int


CHAT: Final = Table("fleet_chat", ChatRow, indexes=(("operator",),))
CHAT_ACKNOWLEDGED: Final = Table(
    "fleet_chat_acknowledged", ChatAcknowledgedRow, key=2, indexes=(("incident",), ("key",))
)


class Chat(NamedTuple):
    """A linked account, and the id of the statement that let it in."""

    id: str
    operator: str
    machine: MachineId
    service: str
    workspace: str
    account: str
    issued_ms: int
    until_ms: int

    @property
    def key(self) -> str:
        return chat_key(self.service, self.account, self.machine)

    def given(self) -> list[Given]:
        """What the link itself gives, as grants of its operator."""
        return [
            Given(self.id, self.operator, Grant(ANYTHING, self.key, self.until_ms, verb))
            for verb in DEFAULT
        ]


def chat_key(service: str, account: str, machine: str) -> str:
    """What an account is called in grants. Raises: Malformed."""
    if not re.fullmatch(CHAT_ACCOUNT, account):
        raise Malformed(
            f"{account[:60]!r} is no account that can be linked: letters, digits and @._=/+:- alone"
        )
    return f"{CHAT_GRANTEE}{service}.{account}@{machine}"


def code_of(drawn: bytes) -> str:
    """The code that these random bytes are, `CODE_CHARS` of them."""
    return "".join(CODE_ALPHABET[each % len(CODE_ALPHABET)] for each in drawn)


def code_form(text: str) -> str:
    """The code that somebody typed, in the form that is hashed; "" where it cannot be one."""
    word = text.strip().upper().replace("-", "")
    return word if len(word) == CODE_CHARS and set(word) <= set(CODE_ALPHABET) else ""


def code_hash(code: str) -> str:
    """What a link says of the code that was shown."""
    return hashlib.sha256(b"muster/chat-code/v1\n" + code.encode()).hexdigest()


def link_args(service: str, days: int) -> dict[str, object]:
    """What an operator signs of a link."""
    return {"days": days, "service": service}


def links(statement: Statement, body: ChatLinked, machine: MachineId) -> bool:
    """Whether the statement orders a link of this service, on this machine."""
    return (statement.verb, statement.object, statement.target, statement.args) == (
        CHAT_LINK, body.service, machine, args_hash(link_args(body.service, body.days))
    )  # fmt: skip


def _link(entry: Entry, rows: Rows, fleet: FleetId) -> Iterable[NamedTuple]:
    body = body_as(entry, ChatLinked)
    statement = checked("bad-statement", open_statement, body.statement, fleet)
    if not links(statement, body, entry.stream.machine):
        raise Skip("other-terms")
    late_ms = entry.header.t[0] - statement.issued_ms - CODE_MS - limits.CLOCK_SKEW_MS
    if late_ms > 0:
        raise Skip("late")
    id_ = document_id(body.statement.encode())
    if rows.get(CHAT, id_) is not None:
        raise Skip("code-used")
    issued_ms = statement.issued_ms
    times = (issued_ms, issued_ms + body.days * DAY_MS)
    what = (body.service, body.workspace, body.account, *times)
    return [ChatRow(rows.stream, id_, entry.stream.machine, statement.operator, *what)]


def _acknowledge(entry: Entry, rows: Rows, _fleet: FleetId) -> Iterable[NamedTuple]:
    body = body_as(entry, ChatAcknowledged)
    account = chat_key(body.service, body.account, entry.stream.machine)
    what = (name_of(body.of), account, body.workspace, body.of.stream, body.of.key)
    return [ChatAcknowledgedRow(rows.stream, *what, entry.header.t[0])]


CHAT_KINDS: Final[dict[str, Callable[[Entry, Rows, FleetId], Iterable[NamedTuple]]]] = {
    CHAT_LINK: _link,
    CHAT_ACKNOWLEDGE: _acknowledge,
}


def chat_actor(service: str, account: str, machine: str) -> str:
    """What an account is called in headers, which last: its name is in the link, which may go.

    `machine` is the name of the one with the bridge.
    """
    named = hashlib.sha256(f"muster/chat-actor/v1\n{service}\n{account}".encode()).hexdigest()
    return f"chat-{service}-{named[:12]}@{machine}"


def is_chat_actor(actor: str) -> bool:
    """Whether an entry is by an account of a chat, by its writer's word."""
    return _ACTOR.match(actor) is not None


class Links(NamedTuple):
    """Per account the links that stand, and when it was linked first, though that be over.

    Of those that stand the first one counts, which lasts longest; the others are of there, too.
    """

    standing: Mapping[str, Sequence[Chat]] = {}
    first_ms: Mapping[str, int] = {}


def links_of(ever: Iterable[Chat], stands: Callable[[Chat], bool]) -> Links:
    """The links of these accounts, of which those count that still stand."""
    first_ms: dict[str, int] = {}
    orders: dict[str, list[Chat]] = {}
    for each in ever:
        first_ms[each.key] = min(each.issued_ms, first_ms.get(each.key, each.issued_ms))
        if stands(each):
            orders.setdefault(each.id, []).append(each)
    once = [made[0] for made in orders.values() if len(made) == 1]
    standing: dict[str, list[Chat]] = {}
    for each in sorted(once, key=lambda chat: (chat.until_ms, chat.id), reverse=True):
        known = standing.setdefault(each.key, [])
        if not known or known[0].workspace == each.workspace:
            known.append(each)
    return Links(standing, first_ms)


def capped(given: Given, links: Links) -> Given | None:
    """A grant as far as it counts: an account's ends with the links that it was given after.

    Whoever gave it may have another clock than whoever linked it: what was given a little before
    the first link was given after that one. Of a later link that cannot be told.
    """
    to = given.grant.to
    if not to.startswith(CHAT_GRANTEE):
        return given
    first_ms = links.first_ms.get(to, 0)
    is_first = given.issued_ms < first_ms <= given.issued_ms + limits.CLOCK_SKEW_MS
    given_ms = first_ms if is_first else given.issued_ms
    ends = [link.until_ms for link in links.standing.get(to, ()) if link.issued_ms <= given_ms]
    if not ends:
        return None
    until_ms = min(given.grant.until_ms, max(ends))
    return given._replace(grant=replace(given.grant, until_ms=until_ms))
