"""An operator's order in an entry: what it says, whether its signer may, and in what time.

Rule 1: what counts is what was signed: this verb, this object, these arguments.
Rule 2: what is done without a sandbox is an order beside the order: its signer may give both.
"""

from collections.abc import Callable, Mapping
from typing import Any

from msgspec.structs import replace

from muster import limits
from muster.errors import MusterError
from muster.fleet.grant import UNENCLOSED
from muster.fleet.statement import Statement, check_order, open_statement
from muster.log.entry import Entry
from muster.log.stream import FleetId, MachineId
from muster.task.causes import Unproven
from muster.task.openings import openings_of

# (statement, moment) -> raises MusterError when that operator may not order that, then.
Authority = Callable[[Statement, int], object]


def ordered(
    raw: str,
    entry: Entry,
    fleet: FleetId,
    order: tuple[str, str, dict[str, Any]],
    owner: str = "",
) -> Statement:
    """The statement in an entry: this verb, object and arguments, of an owner or of its author."""
    verb, object, args = order
    if not raw:
        raise Unproven("statement-missing", f"no operator's order stands in {entry.header.kind}")
    try:
        statement = open_statement(bytes.fromhex(raw), fleet)
    except (MusterError, ValueError) as error:
        text = f"the operator's order does not hold: {error}"
        raise Unproven("statement-forged", text) from error
    if bytes.fromhex(raw).hex() != raw:
        # What an id follows from has one spelling.
        raise Unproven("statement-forged", "the operator's order is not written in lower-case hex")

    machine, at_ms = MachineId(owner or entry.header.author), _moment(statement, entry)
    try:
        check_order(statement, verb=verb, object=object, machine=machine, args=args, now_ms=at_ms)
    except MusterError as error:
        text = f"the operator ordered something else: {error}"
        raise Unproven("statement-other-order", text) from error
    return statement


def _moment(statement: Statement, entry: Entry) -> int:
    """When the order was taken, as rule 4 of evidence.py says."""
    return min(entry.header.t[0], statement.until_ms)


def allowed(statement: Statement, entry: Entry, authority: Authority, now_ms: int) -> None:
    at_ms = in_time(statement, entry, now_ms)
    try:
        authority(statement, at_ms)
    except MusterError as error:
        raise Unproven("operator-not-allowed", str(error)) from error


def in_time(statement: Statement, entry: Entry, now_ms: int) -> int:
    """When the order was taken, in ms. Raises: Unproven where that is no time to obey it."""
    at_ms = _moment(statement, entry)
    if at_ms > now_ms + limits.CLOCK_AHEAD_MS_MAX:
        raise Unproven("order-in-the-future", "the order was taken in this machine's future")
    if now_ms - at_ms > limits.EVIDENCE_AGE_MS_MAX:
        raise Unproven("order-too-old", "the order is older than any run may be: give it again")
    return at_ms


def allowed_unenclosed(
    template: Mapping[str, Any],
    statement: Statement,
    entry: Entry,
    authority: Authority,
    now_ms: int,
) -> None:
    """Whoever ordered a task that has no sandbox may order that, too.

    Raises: Unproven, also where what the task says of a sandbox cannot be read.
    """
    try:
        off = openings_of(template).is_off
    except MusterError as error:
        raise Unproven("sandbox-unreadable", str(error)) from error
    if not off:
        return
    at_ms = in_time(statement, entry, now_ms)
    try:
        authority(replace(statement, verb=UNENCLOSED), at_ms)
    except MusterError as error:
        raise Unproven("unenclosed-not-allowed", f"without a sandbox: {error}") from error
