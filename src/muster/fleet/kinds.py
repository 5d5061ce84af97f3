"""The bodies of the fleet's entries; docs/spec/identity.md says what each means.

Rule 1: every one of these stands in a stream of scope `fleet`: who is who is for all to know.
Rule 2: a body that grants, binds or revokes carries the signed document as text. The entry
says who passed it on; the document says who said so.
Rule 3: a field is only ever added, with a default. Old bodies stay readable for ever. What grants,
binds or revokes is refused with a field that is not known here (log/kind.py, rule 2).
"""

from typing import Annotated, Final, Literal

from msgspec import Meta, Struct, field

from muster import limits
from muster.fleet.device import Terms
from muster.fleet.grant import Grant
from muster.fleet.name import GroupName, Hex32, Milliseconds, Name, Size, Text, Word
from muster.fleet.record import Roles
from muster.log.kind import kind

MACHINE_OPEN: Final = "machine.open"
MACHINE_RECORD: Final = "machine.record"
MACHINE_FACTS: Final = "machine.facts"
MACHINE_LOGINS: Final = "machine.logins"
MACHINE_REACH: Final = "machine.reach"
MACHINE_WAKE: Final = "machine.wake"
MACHINE_REVOKE: Final = "machine.revoke"
OPERATOR_RECORD: Final = "operator.record"
OPERATOR_END: Final = "operator.end"
DEVICE_OPEN: Final = "device.open"
DEVICE_RECORD: Final = "device.record"
GRANT_GIVE: Final = "grant.give"
GRANT_TAKE: Final = "grant.take"
INVITE_OPEN: Final = "invite.open"
INVITE_USE: Final = "invite.use"
ORDER_TAKE: Final = "order.take"
ORDER_DENY: Final = "order.deny"
GROUP_OPEN: Final = "group.open"
GROUP_ADD: Final = "group.add"
GROUP_REMOVE: Final = "group.remove"
INCIDENT_OPEN: Final = "incident.open"
INCIDENT_CLOSE: Final = "incident.close"
INCIDENT_ACKNOWLEDGE: Final = "incident.acknowledge"
INCIDENT_SILENCE: Final = "incident.silence"
INCIDENT_NOTIFY: Final = "incident.notify"
FORK_CLOSE: Final = "fork.close"
FLEET_PEER: Final = "fleet.peer"
FLEET_UNPEER: Final = "fleet.unpeer"

Cuts = Annotated[dict[str, Size], Meta(max_length=limits.FLEET_LIST_MAX)]
Severity = Literal["notice", "warning", "critical"]
# A key, with an `@` and the first digits of the machine that it is about.
IncidentKey = Annotated[str, Meta(pattern=r"^[!-~]{1,217}\Z")]
Stream = Annotated[str, Meta(max_length=256)]
# As a person wrote it: a duration from when it was signed, or a moment.
Until = Annotated[str, Meta(max_length=40)]


class Head(Struct, frozen=True, forbid_unknown_fields=True):
    """How far a stream had come, and its Merkle root there."""

    root: Hex32
    size: Size


@kind(MACHINE_OPEN)
class MachineOpen(Struct, frozen=True, forbid_unknown_fields=True):
    """The first entry of an incarnation: who I am, and where my earlier streams ended."""

    record: str
    heads: Annotated[dict[str, Head], Meta(max_length=limits.FLEET_LIST_MAX)] = {}


@kind(MACHINE_RECORD)
class MachineRecorded(Struct, frozen=True, forbid_unknown_fields=True):
    """`machine.record`: a machine was enrolled, or its keys were renewed."""

    record: str


@kind(MACHINE_REVOKE)
class MachineRevoke(Struct, frozen=True, forbid_unknown_fields=True):
    """`machine.revoke`: a machine's or an operator's key counts no more."""

    revocation: str


@kind(OPERATOR_RECORD)
class OperatorRecorded(Struct, frozen=True, forbid_unknown_fields=True):
    """`operator.record`: a person's key."""

    record: str


@kind(OPERATOR_END)
class OperatorEnd(Struct, frozen=True, forbid_unknown_fields=True):
    """`operator.end`: what still counts of a revoked operator's key."""

    end: str


@kind(DEVICE_OPEN)
class DeviceOpen(Struct, frozen=True, forbid_unknown_fields=True):
    """The terms of a device whose key does not exist yet, and the statement that gives them."""

    statement: str
    terms: Terms


@kind(DEVICE_RECORD)
class DeviceRecorded(Struct, frozen=True, forbid_unknown_fields=True):
    """`device.record`: the key that took a ticket's place, with the whole chain to its operator."""

    binding: str
    statement: str
    terms: Terms


@kind(GRANT_GIVE)
class GrantGive(Struct, frozen=True, forbid_unknown_fields=True):
    """The grant, and the statement that gives exactly this one."""

    grant: Grant
    statement: str


@kind(GRANT_TAKE)
class GrantTake(Struct, frozen=True, forbid_unknown_fields=True):
    """The grant's id (sha256 of the statement that gave it), and the statement that takes it."""

    id: Hex32
    statement: str


@kind(INVITE_OPEN)
class InviteOpen(Struct, frozen=True, forbid_unknown_fields=True):
    """An invite's terms, under the hash of its token."""

    name: Name
    sha256: Hex32
    until_ms: Milliseconds
    roles: Roles = ()


@kind(INVITE_USE)
class InviteUse(Struct, frozen=True, forbid_unknown_fields=True):
    """The machine that used an invite up."""

    machine: Hex32
    sha256: Hex32


@kind(ORDER_TAKE)
class OrderTake(Struct, frozen=True, forbid_unknown_fields=True):
    """The writer obeys a statement, citing the grant that allows it; its nonce is spent."""

    grant: Hex32
    statement: str


@kind(ORDER_DENY)
class OrderDeny(Struct, frozen=True, forbid_unknown_fields=True):
    """The writer refused; `by` is the key or agent that asked, `statement` what it showed."""

    # Free text: what was refused may be anything, and a refusal must never fail to be recorded.
    by: Text
    object: Text
    reason: Text
    verb: Text
    statement: str = ""


@kind(GROUP_OPEN)
class GroupOpen(Struct, frozen=True, forbid_unknown_fields=True):
    """The writer keeps a group of this name, and is a member itself."""

    name: GroupName


@kind(GROUP_ADD)
class GroupAdd(Struct, frozen=True, forbid_unknown_fields=True):
    """A machine becomes a member. From `now`: of each stream only what comes after `cuts`."""

    machine: Hex32
    name: GroupName
    since: Literal["now", "start"] = field(name="from", default="start")
    cuts: Cuts = {}


@kind(GROUP_REMOVE)
class GroupRemove(Struct, frozen=True, forbid_unknown_fields=True):
    """A machine is a member no more; what it holds it keeps."""

    machine: Hex32
    name: GroupName


@kind(FORK_CLOSE)
class ForkClose(Struct, frozen=True, forbid_unknown_fields=True):
    """How older versions acknowledge a fork: `stream` stays at its first `common` entries.

    `proof` is the sha256 of the fork proof as the writer of this entry had it.
    """

    common: Size
    note: Text
    proof: Hex32
    statement: str
    stream: Stream


@kind(FLEET_PEER)
class FleetPeered(Struct, frozen=True, forbid_unknown_fields=True):
    """`fleet.peer`: another fleet was taken in under this name, by the order beside it."""

    card: Annotated[str, Meta(max_length=limits.PEER_CARD_CHARS_MAX)]
    fleet: Hex32
    name: Name
    statement: str


@kind(FLEET_UNPEER)
class FleetUnpeered(Struct, frozen=True, forbid_unknown_fields=True):
    """`fleet.unpeer`: nothing of that fleet counts here any more."""

    fleet: Hex32
    statement: str


@kind(INCIDENT_OPEN, unknown="ignore")
class IncidentOpen(Struct, frozen=True):
    """Something a person must see. The same key while open is the same incident, once more."""

    key: Word
    severity: Severity
    title: Text
    detail: Text = ""


@kind(INCIDENT_CLOSE, unknown="ignore")
class IncidentClose(Struct, frozen=True):
    """It is over, and why."""

    key: Word
    reason: Text


class Fork(Struct, frozen=True, forbid_unknown_fields=True, tag="fork"):
    """`stream` has two branches, and stays at its first `common` entries."""

    common: Size
    stream: Stream


class Told(Struct, frozen=True, forbid_unknown_fields=True, tag="incident"):
    """What is open under `key` in a machine's `stream`, as it was told at `t_ms`."""

    key: Word
    stream: Stream
    t_ms: Milliseconds


@kind(INCIDENT_ACKNOWLEDGE)
class IncidentAcknowledge(Struct, frozen=True, forbid_unknown_fields=True, omit_defaults=True):
    """Somebody looked at an incident; the statement names it (acknowledgement.py).

    `until` is how long nobody else is called, as it was signed; "" is until it is told again.
    """

    note: Text
    of: Fork | Told
    statement: str
    until: Until = ""


@kind(INCIDENT_SILENCE)
class IncidentSilence(Struct, frozen=True, forbid_unknown_fields=True):
    """Nobody is called for incidents whose key fits, until then; the statement says the same."""

    match: Word
    statement: str
    until: Until
    why: Text


@kind(INCIDENT_NOTIFY, unknown="ignore")
class IncidentNotify(Struct, frozen=True):
    """The writer told people of an incident, or tried to: by which of its services, and whether
    one of them took it. `level` is the step of the escalation, 0 that it is over.

    `severity` is how grave it was then, and `since_ms` when it had begun by the clock of whoever
    told of it, which may be ahead of the writer's.
    """

    key: IncidentKey
    level: Annotated[int, Meta(ge=0, le=limits.NOTIFY_LEVELS_MAX)]
    to: Annotated[str, Meta(max_length=512)]
    ok: bool
    serial: Annotated[str, Meta(max_length=32)]
    reason: Annotated[str, Meta(max_length=500)] = ""
    severity: Annotated[str, Meta(max_length=16)] = ""
    since_ms: Milliseconds = 0
