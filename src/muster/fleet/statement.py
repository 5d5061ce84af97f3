"""A statement: what a person (or a machine for its agents) ordered, signed by their own key.

Rule 1: a statement is for one fleet, one target, one verb, one object and exactly these
arguments, until a time. Anything else it does not order.
Rule 2: `open_statement` says who signed; whether that key may order this is `grant.decide`'s
question, asked once, by the machine that acts.
Rule 3: a statement orders once. Its nonce is taken in the acting machine's own stream
(`order.take`), in the transaction of the effect; the second time the fold refuses it.

The daemon's socket confers no authority: "approved by Alice" is text until Alice's key says so.
"""

import hashlib
import re
from functools import lru_cache
from typing import Any, Final, Literal

from muster import limits
from muster.errors import Denied, Forged, Malformed
from muster.fleet.document import Contents, Form
from muster.fleet.name import Hex16, Hex32, Milliseconds, Word
from muster.log import canon
from muster.log.keys import Signer
from muster.log.stream import FleetId, MachineId

# A target that means every machine of the fleet, each of them once.
EVERY_MACHINE: Final = "fleet"

# The argument with which an order's object is veiled.
SALT: Final = "salt"

_STATEMENTS_KEPT: Final = 2_048
_MACHINE: Final = re.compile("[0-9a-f]{64}")


class Statement(Contents, frozen=True):
    """An order and its bounds; `args` is the sha256 of the canonical arguments."""

    args: Hex32
    issued_ms: Milliseconds
    nonce: Hex16
    object: Word
    operator: Hex32
    target: str
    until_ms: Milliseconds
    verb: Word
    v: Literal[1] = 1


_STATEMENT: Final = Form("muster/statement/v1", Statement, "The order", limits.STATEMENT_BYTES_MAX)
# What is ordered of several machines is signed by as many threads.
canon.learn(Statement)


def args_hash(args: Any) -> str:
    """What a statement says about its arguments: sha256 of their canonical JSON, in hex."""
    return hashlib.sha256(canon.encode(args)).hexdigest()


def veiled(object: str, salt: str) -> str:
    """The object of an order that everybody reads and whose object is not for everybody.

    `salt` (hex) is among its arguments, so that nobody can guess either: it stays where the object
    does, and goes with that.
    """
    return "veiled:" + hashlib.sha256(f"muster/veil/v1\n{salt}\n{object}".encode()).hexdigest()


def sign_statement(
    signer: Signer,
    *,
    fleet: FleetId,
    verb: str,
    object: str,
    target: str,
    args: Any,
    nonce: bytes,
    issued_ms: int,
    until_ms: int,
) -> bytes:
    """The order as a signed document; `nonce` is 16 random bytes that are never used again."""
    statement = Statement(
        args=args_hash(args),
        fleet=fleet,
        issued_ms=issued_ms,
        nonce=nonce.hex(),
        object=object,
        operator=signer.public.hex(),
        target=target,
        until_ms=until_ms,
        verb=verb,
    )
    raw = _STATEMENT.write(statement, signer)
    open_statement(raw, fleet)
    return raw


# Whoever takes an order reads it again where its entry is folded, and once for every cause.
@lru_cache(maxsize=_STATEMENTS_KEPT)
def open_statement(raw: bytes, fleet: FleetId) -> Statement:
    """The order in `raw`, signed by the key it names; says nothing about that key's grants."""
    document = _STATEMENT.read(raw, fleet)
    statement, what = document.value, document.what
    if statement.target != EVERY_MACHINE and not _MACHINE.fullmatch(statement.target):
        raise Malformed(
            f"{what} has target {statement.target[:80]!r}: neither a machine nor 'fleet'."
        )
    if not 0 < statement.until_ms - statement.issued_ms <= limits.STATEMENT_LIFE_MS_MAX:
        days = limits.STATEMENT_LIFE_MS_MAX // 86_400_000
        raise Malformed(f"{what} must end after it begins, and within {days} days.")
    return document.check(statement.operator)


def signer_of(raw: bytes, fleet: FleetId) -> str:
    """The key that a statement names as its signer. Whether it signed, `open_statement` says.

    This costs a fiftieth of it: whose key counts for nothing needs no further look.
    """
    return _STATEMENT.read(raw, fleet).value.operator


def check_order(
    statement: Statement, *, verb: str, object: str, machine: MachineId, args: Any, now_ms: int
) -> None:
    """Raises unless the statement orders exactly this, here and now.

    Raises Denied for another verb, object or target and outside its time; Forged for other
    arguments. A replay is not seen here: its nonce is already in the acting machine's stream.
    """
    if (statement.verb, statement.object) != (verb, object):
        raise Denied(
            f"The order is for {statement.verb} {statement.object}, not for {verb} {object}."
        )
    if not is_target(statement, machine):
        raise Denied(f"The order is for machine {statement.target[:12]}…, not for this one.")
    if statement.args != args_hash(args):
        raise Forged(f"The arguments of {verb} are not the ones that were signed.")
    if now_ms > statement.until_ms:
        late_s = (now_ms - statement.until_ms) // 1000
        raise Denied(f"The order to {verb} expired {late_s} s ago: give it again.")
    if now_ms < statement.issued_ms - limits.CLOCK_SKEW_MS:
        early_s = (statement.issued_ms - now_ms) // 1000
        raise Denied(
            f"The order to {verb} begins in {early_s} s: compare the two machines' clocks."
        )


def tells_all(statement: Statement, verb: str, object: str, args: Any) -> bool:
    """Whether the statement tells the whole fleet exactly this."""
    said = (statement.verb, statement.object, statement.target, statement.args)
    return said == (verb, object, EVERY_MACHINE, args_hash(args))


def is_target(statement: Statement, machine: MachineId) -> bool:
    """Whether the statement is addressed to this machine, alone or among all."""
    return statement.target in (EVERY_MACHINE, machine)
