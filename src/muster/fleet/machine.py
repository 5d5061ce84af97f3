"""The three kinds of secret a fleet has: a machine's seed, the authority's, an operator's.

Rule 1: a secret object shows no secret: its repr is the public id, it cannot be pickled or
copied into a document, and it compares by identity.
Rule 2: whoever needs one sub-key asks for that one; only this file holds the seed.

The machine's id is the public key of the seed itself. The fleet's id is the public key of
the authority's `record` sub-key. An operator's key is its `statement` sub-key.
"""

import hmac
from typing import NoReturn

from muster.errors import Malformed
from muster.fleet.derive import (
    AGREEMENT_PURPOSES,
    PURPOSES,
    SALT,
    SEED_BYTES,
    derive_key,
    public_key,
)
from muster.log.keys import Signer, agree
from muster.log.stream import FleetId, MachineId


class _Secret:
    """A holder of one seed that neither prints it nor lets it be serialised."""

    __slots__ = ("_seed",)

    def __init__(self, seed: bytes) -> None:
        if len(seed) != SEED_BYTES:
            raise Malformed(
                f"A seed has {SEED_BYTES} bytes and this one has {len(seed)}: "
                "restore the file from its backup."
            )
        self._seed = bytes(seed)

    def __reduce__(self) -> NoReturn:
        raise TypeError(f"A {type(self).__name__} holds a secret and is never serialised.")


class Identity(_Secret):
    """One machine's keys, all from its 32-byte seed."""

    __slots__ = ("_keys", "machine", "root")

    def __init__(self, seed: bytes) -> None:
        super().__init__(seed)
        # Signs bindings, join and renew requests only; see derive.py, rule 2.
        self.root = Signer(self._seed)
        self.machine = MachineId(self.root.public.hex())
        self._keys: dict[str, str] | None = None

    def signer(self, purpose: str) -> Signer:
        """The signing sub-key for one purpose (not for `wireguard` and `age`)."""
        assert purpose in PURPOSES, purpose
        assert purpose not in AGREEMENT_PURPOSES, purpose
        return Signer(derive_key(self._seed, purpose))

    def secret(self, purpose: str) -> bytes:
        """The 32 secret bytes of one sub-key, for a program that must hold it itself."""
        assert purpose in PURPOSES, purpose
        return derive_key(self._seed, purpose)

    def shared(self, public: bytes) -> bytes:
        """What this machine and the holder of an `age` key alone know; b"" for a key that is none.

        It marks the names of parcels (channel/turn.py), and is used for nothing else.
        """
        agreed = agree(self.secret("age"), public)
        return b"" if agreed is None else hmac.digest(SALT, b"parcel-names/v1" + agreed, "sha256")

    @property
    def keys(self) -> dict[str, str]:
        """The public half of every sub-key, in hex, by purpose."""
        if self._keys is None:
            self._keys = {p: public_key(p, derive_key(self._seed, p)).hex() for p in PURPOSES}
        return dict(self._keys)

    def __repr__(self) -> str:
        return f"Identity({self.machine})"


class Authority(_Secret):
    """The fleet's authority: what signs records, operators, revocations and certificates."""

    __slots__ = ("fleet", "record")

    def __init__(self, seed: bytes) -> None:
        super().__init__(seed)
        self.record = Signer(derive_key(self._seed, "record"))
        self.fleet = FleetId(self.record.public.hex())

    def x509_secret(self) -> bytes:
        """The secret half of the key that signs X.509 certificates; for certificate.py."""
        return derive_key(self._seed, "x509")

    def ssh_secret(self) -> bytes:
        """The secret half of the key that signs SSH certificates; for ssh_certificate.py."""
        return derive_key(self._seed, "ssh")

    def nats_secret(self, what: str) -> bytes:
        """The secret half of one key that a server of NATS believes; for nats_jwt.py."""
        return derive_key(self._seed, f"nats-{what}")

    def __repr__(self) -> str:
        return f"Authority({self.fleet})"


class Operator(_Secret):
    """A person's key: every chain of causes ends at one."""

    __slots__ = ("key", "statement")

    def __init__(self, seed: bytes) -> None:
        super().__init__(seed)
        self.statement = Signer(derive_key(self._seed, "statement"))
        self.key = self.statement.public.hex()

    def __repr__(self) -> str:
        return f"Operator({self.key})"
