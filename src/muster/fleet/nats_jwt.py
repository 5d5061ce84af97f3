"""Who may do what at a NATS server of the fleet, as NATS itself reads it: keys as text, and JWTs.

Rule 1: all of it follows from the authority's seed and the machines' records, and nothing is
random: a server can be told the same again.
Rule 2: each machine has an account of its own. It holds nothing, and imports three services of the
account in which the mailboxes are: to leave something in its own name, to take from its own
mailbox, and to acknowledge that; at a cluster two more: to write leases in its own name, and to
read them. What else it publishes, subscribes to or names as a reply stays with itself.
Rule 3: a user is the machine's `nats` key, which signs what a server sends and nothing else.
Rule 4: nothing here ends by the calendar. Who is revoked has no account any more, and what was
issued for keys that a machine had before counts no more.
Rule 5: the machine that serves rules over its own server's accounts and over no other's; servers
of one cluster have one set of them, and the machine that looks after the mailboxes is their user.
Rule 6: a machine has so many connections and subscriptions at a server, and no more.
Rule 7: where servers of machines that come and go are let in, each is linked into the account of
its machine, so that it can do what the machine can, and nothing else.

    operator                 the fleet
      account SYSTEM/<server>  the server itself, or those of a cluster; nobody is let in
      account BOXES/<server>   JetStream, the mailboxes; its machine is the one user
      account <machine>        one machine, one user
"""

import base64
import binascii
import hashlib
from collections.abc import Iterable, Mapping
from typing import Any, Final, NamedTuple

from muster.fleet.machine import Authority
from muster.fleet.record import MachineRecord
from muster.log import canon
from muster.log.keys import Signer

# The first byte makes the first letter of the text.
_OPERATOR: Final = 14 << 3
_ACCOUNT: Final = 0
_USER: Final = 20 << 3
_HEAD: Final = {"alg": "ed25519-nkey", "typ": "JWT"}
# -1 is no limit, and what is left out is 0.
_UNBOUND: Final = ("conn", "data", "exports", "imports", "payload", "subs")
# A machine has one connection, and what it had before may not have ended; a pull is a subscription.
_OF_MACHINE: Final = {"conn": 8, "subs": 64}
# The server of a machine is linked once, and what it was before may not have ended.
_LEAVES: Final = 2
_SEED: Final = 18 << 3
_STORED: Final = ("consumer", "disk_storage", "mem_storage", "streams")


class Claims(NamedTuple):
    """What a server is told: the operator, whose accounts they are, and each account by its key.

    `machines` says which account is whose.
    """

    operator: str
    system: str
    accounts: dict[str, str]
    machines: dict[str, str]


def text_of(prefix: int, public: bytes) -> str:
    """A public key as NATS writes it: a prefix, the key, a checksum, in base32."""
    raw = bytes([prefix]) + public
    checksum = binascii.crc_hqx(raw, 0).to_bytes(2, "little")
    return base64.b32encode(raw + checksum).decode("ascii").rstrip("=")


def credentials(jwt: str, secret: bytes) -> str:
    """What a user shows, and the secret half of its key, as a server of NATS reads them."""
    raw = bytes([_SEED | _USER >> 5, (_USER & 31) << 3]) + secret
    checksum = binascii.crc_hqx(raw, 0).to_bytes(2, "little")
    seed = base64.b32encode(raw + checksum).decode("ascii").rstrip("=")
    parts = (("NATS USER JWT", jwt), ("USER NKEY SEED", seed))
    return "".join(
        f"-----BEGIN {name}-----\n{part}\n------END {name}------\n" for name, part in parts
    )


def domain(keeper: str, cluster: str) -> str:
    """How the JetStream of a server, or of a cluster, is called by the servers linked to it."""
    return cluster or keeper[:16]


def claims(
    authority: Authority, keeper: MachineRecord, live: Iterable[MachineRecord], cluster: str = "",
    *, leaves: bool = False,
) -> Claims:  # fmt: skip
    """All that a server has to know of the machines that it lets in; `keeper` rules over it.

    With `leaves` it lets in the servers of those machines, too.
    """
    operator = _signer(authority, "operator")
    where = _where(keeper, cluster)
    system, boxes = (_signer(authority, f"{what}/{where}") for what in ("system", "boxes"))
    own, theirs = (text_of(_ACCOUNT, each.public) for each in (system, boxes))
    # A server alone is no quorum: nobody is elected there.
    exports = [*_EXPORTS, *(_LEASES if cluster else ())]
    accounts = {
        own: _account(operator, system, "SYSTEM", {}),
        theirs: _account(operator, boxes, "BOXES", {"exports": exports}, stored=True),
    }
    machines: dict[str, str] = {}
    bounds = _OF_MACHINE | ({"leaf": _LEAVES} if leaves else {})
    for record in live:
        signer = _signer(authority, f"machine/{record.machine}")
        of_it = {
            "imports": _imports(theirs, record.machine, leases=bool(cluster))
            + leaves * _linked(theirs, record.machine, domain(keeper.machine, cluster)),
            "revocations": {"*": _issued_s(record) - 1},
        }
        key = machines[record.machine] = text_of(_ACCOUNT, signer.public)
        accounts[key] = _account(operator, signer, record.machine, of_it, bounds=bounds)
    about = {"system_account": own, "type": "operator", "version": 2}
    root = text_of(_OPERATOR, operator.public)
    return Claims(_jwt(operator, _OPERATOR, root, "muster", about), own, accounts, machines)


def pass_of(authority: Authority, record: MachineRecord) -> str:
    """What a machine shows, with a signature of its `nats` key, to be let in at every server."""
    return _user(authority, f"machine/{record.machine}", record)


def keeper_pass(authority: Authority, keeper: MachineRecord, cluster: str = "") -> str:
    """What the machine that looks after the mailboxes shows, at its own server or a cluster."""
    return _user(authority, f"boxes/{_where(keeper, cluster)}", keeper)


def _where(keeper: MachineRecord, cluster: str) -> str:
    return f"{keeper.machine}/{cluster}" if cluster else keeper.machine


_EXPORTS: Final = [
    {"name": "leave", "subject": "muster.box.>", "type": "service"},
    {
        "name": "take", "subject": "$JS.API.CONSUMER.MSG.NEXT.>", "type": "service",
        "response_type": "Stream",
    },
    {"name": "acknowledge", "subject": "$JS.ACK.>", "type": "service"},
]  # fmt: skip
# Who goes on with the work of a machine that is gone (task/election.py).
_LEASE_READ: Final = "$JS.API.DIRECT.GET.MUSTER_LEASE"
_LEASES: Final = (
    {"name": "lease", "subject": "muster.lease.>", "type": "service"},
    # What several wrote is several answers.
    {"name": "leased", "subject": _LEASE_READ, "type": "service", "response_type": "Stream"},
)


def _imports(boxes: str, machine: str, *, leases: bool) -> list[dict[str, str]]:
    box = f"MUSTER_BOX_{machine}"
    subjects = (
        f"muster.box.*.{machine}",
        take_from(machine),
        # As of old, and with the domain and the account in front.
        f"$JS.ACK.{box}.box.>",
        f"$JS.ACK.*.*.{box}.box.>",
        *((f"muster.lease.*.{machine}", _LEASE_READ) if leases else ()),
    )
    return [
        {"account": boxes, "name": subject, "subject": subject, "type": "service"}
        for subject in subjects
    ]


def take_from(machine: str, domain: str = "") -> str:
    """Where a machine asks for what is in its mailbox; from a linked server by the domain."""
    of = f"{domain}." if domain else ""
    return f"$JS.{of}API.CONSUMER.MSG.NEXT.MUSTER_BOX_{machine}.box"


def _linked(boxes: str, machine: str, domain: str) -> list[dict[str, str]]:
    # Between servers of two domains `$JS.API` does not pass.
    name, other = take_from(machine), take_from(machine, domain)
    kind = {"account": boxes, "name": other, "type": "service"}
    return [{**kind, "subject": name, "local_subject": other}]


def _signer(authority: Authority, what: str) -> Signer:
    return Signer(authority.nats_secret(what))


def _account(
    operator: Signer, account: Signer, name: str, more: Mapping[str, Any], *,
    bounds: Mapping[str, int] | None = None, stored: bool = False,
) -> str:  # fmt: skip
    limits = {"leaf": 0, "wildcards": True} | dict.fromkeys(_UNBOUND, -1) | dict(bounds or {})
    limits |= dict.fromkeys(_STORED, -1 if stored else 0)
    about = {"limits": limits, "type": "account", "version": 2, **more}
    return _jwt(operator, _OPERATOR, text_of(_ACCOUNT, account.public), name, about)


def _user(authority: Authority, what: str, record: MachineRecord) -> str:
    about = {"data": -1, "payload": -1, "subs": -1, "type": "user", "version": 2}
    public = text_of(_USER, record.key("nats"))
    issuer = _signer(authority, what)
    return _jwt(issuer, _ACCOUNT, public, record.machine, about, _issued_s(record))


def _issued_s(record: MachineRecord) -> int:
    return record.issued_ms // 1000


def _jwt(  # noqa: PLR0917 - each is one field
    issuer: Signer, kind: int, subject: str, name: str, about: Mapping[str, Any], issued_s: int = 1
) -> str:
    body: dict[str, Any] = {
        "iat": issued_s,
        "iss": text_of(kind, issuer.public),
        "name": name,
        "nats": dict(about),
        "sub": subject,
    }
    digest = hashlib.sha256(canon.encode(body)).digest()
    body["jti"] = base64.b32encode(digest).decode("ascii").rstrip("=")
    signed = f"{_part(canon.encode(_HEAD))}.{_part(canon.encode(body))}"
    return f"{signed}.{_part(issuer.sign(signed.encode('ascii')))}"


def _part(raw: bytes) -> str:
    return base64.urlsafe_b64encode(raw).decode("ascii").rstrip("=")
