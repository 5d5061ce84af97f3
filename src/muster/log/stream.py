"""How streams, machines and scopes are named.

Rule 1: names are lower-case hex and `[a-z0-9-]`, joined by `/` and `.`; they are safe in a
URL, in a C2SP key name (no space, no plus) and in a log line, and never used as a path.
Rule 2: a name that came from outside passes `StreamName.parse` before anything else sees it.

A stream is `machine/incarnation/scope`. The machine writes it, alone. The incarnation is
128 random bits, new whenever the machine cannot be sure that it remembers what it wrote.
The scope says who may read it:

    fleet                  every machine of the fleet
    journal                nobody but the writer
    to.<machine>           the writer and that machine
    g.<owner>.<name>       the members, which the owner's entries name
"""

import re
from functools import lru_cache
from typing import NamedTuple, NewType

from muster.errors import Malformed
from muster.limits import STREAM_NAMES_CACHED

MachineId = NewType("MachineId", str)
Incarnation = NewType("Incarnation", str)
Scope = NewType("Scope", str)
FleetId = NewType("FleetId", str)

FLEET = Scope("fleet")
JOURNAL = Scope("journal")

_KEY = re.compile(r"[0-9a-f]{64}")
_INCARNATION = re.compile(r"[0-9a-f]{32}")
_GROUP_NAME = re.compile(r"[a-z0-9-]{1,32}")
_SCOPE = re.compile(r"fleet|journal|to\.[0-9a-f]{64}|g\.[0-9a-f]{64}\.[a-z0-9-]{1,32}")


class StreamName(NamedTuple):
    """Who writes, in which incarnation, for whom."""

    machine: MachineId
    incarnation: Incarnation
    scope: Scope

    def __str__(self) -> str:
        return f"{self.machine}/{self.incarnation}/{self.scope}"

    # Every header names its stream, and a segment names the same one a thousand times.
    @staticmethod
    @lru_cache(maxsize=STREAM_NAMES_CACHED)
    def parse(text: str) -> "StreamName":
        """Return the stream that `text` names. Raises: Malformed."""
        parts = text.split("/")
        _require(len(parts) == 3, text, "a stream name (machine/incarnation/scope)")
        return StreamName(machine_id(parts[0]), incarnation(parts[1]), scope(parts[2]))


def machine_id(text: str) -> MachineId:
    """Return `text` as a machine id. Raises: Malformed."""
    _require(_KEY.fullmatch(text), text, "a machine id (64 lower-case hex digits)")
    return MachineId(text)


def fleet_id(text: str) -> FleetId:
    """Return `text` as a fleet id. Raises: Malformed."""
    _require(_KEY.fullmatch(text), text, "a fleet id (64 lower-case hex digits)")
    return FleetId(text)


def incarnation(text: str) -> Incarnation:
    """Return `text` as an incarnation. Raises: Malformed."""
    _require(_INCARNATION.fullmatch(text), text, "an incarnation (32 lower-case hex digits)")
    return Incarnation(text)


def scope(text: str) -> Scope:
    """Return `text` as a scope. Raises: Malformed."""
    _require(_SCOPE.fullmatch(text), text, "a scope (fleet, journal, to.… or g.…)")
    return Scope(text)


def scope_to(machine: MachineId) -> Scope:
    """Return the scope that only the writer and `machine` may read."""
    return Scope(f"to.{machine_id(machine)}")


def scope_group(owner: MachineId, name: str) -> Scope:
    """Return the scope of the group `name` that `owner` keeps."""
    _require(_GROUP_NAME.fullmatch(name), name, "a group name ([a-z0-9-], 1 to 32 characters)")
    return Scope(f"g.{machine_id(owner)}.{name}")


def is_group(scope: Scope) -> bool:
    """Whether the scope is a group (`g.…`)."""
    return scope.startswith("g.")


def direct_target(scope: Scope) -> MachineId | None:
    """Return the machine that a `to.…` scope is for, None for any other scope."""
    return MachineId(scope[3:]) if scope.startswith("to.") else None


def group_owner(scope: Scope) -> MachineId | None:
    """Return the machine that keeps a `g.…` scope, None for any other scope."""
    return MachineId(scope[2:66]) if is_group(scope) else None


def group_name(scope: Scope) -> str | None:
    """Return the name of a `g.…` scope, None for any other scope."""
    return scope[67:] if is_group(scope) else None


def _require(fits: object, text: str, what: str) -> None:
    if not fits:
        # A hostile name is shown escaped, and not longer than a line.
        shown = ascii(text if len(text) <= 80 else text[:80] + "…")
        raise Malformed(f"{shown} is not {what}.")
