"""What a NATS server of the fleet has to know, and its configuration, which follows from that.

Rule 1: the machine with the authority says all of it (`tell`); a server beside it is told what it
asks for, keeps it, and serves on with it while that machine is away.
Rule 2: none of it is secret, and none of it counts against the machine's own roster: who is not
live there, or has newer keys than was told, is left out.
Rule 3: servers of one cluster know each other by their keys alone (`pinned_certs`); who has another
key, also one that the fleet signed, is not spoken with.
Rule 4: a cluster of other machines is another cluster, with a store of its own: a store that was
opened by a server alone would hide what it has from a cluster.
Rule 5: what is older replaces nothing newer: the `stamp` rises with all that is said but for the
accounts, and of an account its `serial` says which is the newer one.
"""

import hashlib
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Annotated, Any, Final

from msgspec import Meta, Struct, json, to_builtins
from msgspec.structs import replace

from muster.address import join_address, split_address
from muster.fleet import certificate, nats_jwt
from muster.fleet.machine import Authority
from muster.fleet.nats_cluster import Stamp, sign_servers
from muster.fleet.record import MachineRecord
from muster.limits import (
    MAILBOX_BYTES_MAX,
    NATS_ACCOUNTS_MAX,
    NATS_SERVERS,
    PACKET_BYTES_MAX,
)

_LOG_BYTES: Final = 1024 * 1024
# What mailboxes may hold in all is the sum of their own bounds, and the disk.
_STORE_BYTES: Final = 4096 * MAILBOX_BYTES_MAX
_CONNECTIONS: Final = 4096
# An Ed25519 key as a certificate has it (SubjectPublicKeyInfo, RFC 8410), but for the key.
_SPKI: Final = bytes.fromhex("302a300506032b6570032100")
_DAY_MS: Final = 24 * 3600 * 1000
AUTO: Final = "auto"

Text = Annotated[str, Meta(max_length=8192)]
Id = Annotated[str, Meta(pattern=r"\A[0-9a-f]{64}\Z")]
Address = Annotated[str, Meta(max_length=300)]


class Place(Struct, frozen=True, omit_defaults=True):
    """Where a server is: for machines, for the other servers of its cluster, and for those of
    machines that come and go.
    """

    address: Address
    routes: Address
    leaves: Address = ""


class Account(Struct, frozen=True):
    """The account of a machine, with the record that it was made of, and what the machine shows."""

    serial: int
    key: Text
    jwt: Text
    shown: Text


class Told(Struct, frozen=True):
    """See rule 1. `cluster` is empty for a server alone; `word` says it, with the `digest` of all
    of this, signed by the authority. `certificate` is the server's own, and `ca` what signed it.
    With `leaves` the accounts let in the servers of their machines.
    """

    operator: Text
    system: Text
    shared: Annotated[dict[Text, Text], Meta(max_length=4)]
    certificate: Text
    ca: Text
    word: Text
    cluster: Annotated[tuple[Id, ...], Meta(max_length=NATS_SERVERS)] = ()
    places: Annotated[dict[Id, Place], Meta(max_length=NATS_SERVERS)] = {}
    accounts: dict[Id, Account] = {}
    stamp: Stamp = 0
    leaves: bool = False


class Answer(Told, frozen=True):
    """What one call brings of it: so many accounts."""

    accounts: Annotated[dict[Id, Account], Meta(max_length=NATS_ACCOUNTS_MAX)] = {}


def digest(told: Told) -> str:
    """The sha256 of all that is told, but for the word that says it."""
    said = json.encode(to_builtins(replace(told, word="")), order="sorted")
    return hashlib.sha256(said).hexdigest()


def said_of_all(told: Told) -> str:
    """The sha256 of what has a new stamp when it changes."""
    return digest(replace(told, accounts={}, stamp=0))


def cluster_id(machines: Iterable[str]) -> str:
    """What those servers are called together; "" for none."""
    names = sorted(machines)
    return hashlib.sha256("\n".join(names).encode()).hexdigest()[:16] if names else ""


def tell(  # noqa: PLR0917 - each is one thing that is told
    authority: Authority, keeper: MachineRecord, server: MachineRecord,
    live: Iterable[MachineRecord], now_ms: int, cluster: tuple[str, ...] = (),
    places: Mapping[str, Place] | None = None, stamp: int = 0, *, leaves: bool = False,
) -> Told:  # fmt: skip
    """What one server is told of these machines; `keeper` looks after the mailboxes."""
    live = tuple(live)
    claims = nats_jwt.claims(authority, keeper, live, cluster_id(cluster), leaves=leaves)
    of_machines = set(claims.machines.values())
    # The same all day, so that nobody is told anew what did not change.
    chain = certificate.issue_unpinned(authority, server, now_ms - now_ms % _DAY_MS)
    accounts: dict[str, Account] = {}
    for record in live:
        key, shown = claims.machines[record.machine], nats_jwt.pass_of(authority, record)
        accounts[record.machine] = Account(record.serial, key, claims.accounts[key], shown)
    told = Told(
        claims.operator,
        claims.system,
        {key: jwt for key, jwt in claims.accounts.items() if key not in of_machines},
        chain.tls_pem.decode("ascii"),
        chain.ca_pem.decode("ascii"),
        "",
        cluster,
        {**(places or {})},
        accounts,
        stamp,
        leaves,
    )
    word = sign_servers(authority, cluster, digest(told), stamp)
    return replace(told, word=word.decode("ascii"))


def tell_nothing(authority: Authority, cluster: tuple[str, ...], stamp: int) -> Told:
    """What a machine is told whose server is none of the cluster: which ones are."""
    told = Told("", "", {}, "", "", "", cluster, stamp=stamp)
    word = sign_servers(authority, cluster, digest(told), stamp)
    return replace(told, word=word.decode("ascii"))


def pin_of(record: MachineRecord) -> str:
    """How the certificate of a machine is known to a server of NATS."""
    return hashlib.sha256(_SPKI + record.key("tls")).hexdigest()


def configuration(
    told: Told, machine: str, live: Mapping[Any, MachineRecord], folder: Path, *,
    listen: str, routes: str, tls: bool, leaves: str = "",
) -> dict[str, Any]:  # fmt: skip
    """What the server of a machine reads; `folder` has its files, also `tls.pem` and `ca.pem`."""
    name = cluster_id(told.cluster)
    written: dict[str, Any] = {
        "server_name": f"muster-{machine[:16]}",
        "listen": "127.0.0.1:-1" if listen == AUTO else listen,
        "ports_file_dir": str(folder),
        "max_payload": PACKET_BYTES_MAX + 64 * 1024,
        "max_connections": _CONNECTIONS,
        "log_file": str(folder / "server.log"),
        "log_size_limit": _LOG_BYTES,
        "logfile_max_num": 2,
        "jetstream": {
            "store_dir": str(folder / (f"store-{name}" if name else "store")),
            "domain": nats_jwt.domain(machine, name),
            "sync_interval": "always",
            "max_file_store": _STORE_BYTES,
        },
        "operator": told.operator,
        "system_account": told.system,
        "resolver": "MEMORY",
        "resolver_preload": told.shared
        | {
            each.key: each.jwt
            for id, each in told.accounts.items()
            if id in live and live[id].serial == each.serial
        },
    }
    pair = str(folder / "tls.pem")
    shown = {"cert_file": pair, "key_file": pair, "min_version": "1.3"}
    if tls:
        first = {**shown, "handshake_first": True}
        written["tls"] = first
        if leaves and told.leaves:
            written["leafnodes"] = {"listen": leaves, "no_advertise": True, "tls": first}
    if name:
        host, port = split_address(told.places[machine].routes)
        others = [id for id in told.cluster if id != machine and id in live]
        written["cluster"] = {
            "name": f"muster-{name}",
            "listen": routes,
            "advertise": join_address(host, port),
            "no_advertise": True,
            "routes": [f"nats://{told.places[id].routes}" for id in others],
            # No name is in a certificate, for it is the key that counts.
            "tls": {
                **shown,
                "ca_file": str(folder / "ca.pem"),
                "verify": True,
                "insecure": True,
                "pinned_certs": [pin_of(live[id]) for id in told.cluster if id in live],
            },
        }
    return written
