"""Work that a machine goes on with because its owner is gone: what shows that it may.

Rule 1: an operator says who takes over whose work; a member's own word adopts nothing. The order
(`takeover`) is for the machine that adopts alone, names the one whose work it is, and is cited as
it was taken.
Rule 2: it reaches what was opened until its end, and adopts nothing after that: one order is no
right to a machine's later work. That is given beforehand to a stand-in (standin.py), and lasts
until another order about the same machine; that it heard nothing of it is the stand-in's word.
Where such an order names several, each of them may go on with that machine's work also where
another one of them went on with it: what that one had by no such way is none of it.
Rule 3: what is adopted is written again by whoever goes on with it, with the same body, citing what
it repeats: the operator's order behind the work itself stays the one that its first owner took.

    run.open ──cause──▶ task.adopt ──cause──▶ order.take ──body──▶ the order to take over
    successor    │        successor              successor
                 └──cause──▶ run.open, of the owner before: same kind, same body
"""

import sys
from collections.abc import Callable
from typing import Final, NamedTuple

from muster import limits
from muster.errors import MusterError
from muster.fleet.kinds import OrderTake
from muster.fleet.statement import Statement, check_order, open_statement
from muster.log.entry import Entry
from muster.log.fold import body_or_none
from muster.log.stream import FleetId, MachineId
from muster.task.causes import Lookup, Unproven, origin, read
from muster.task.kinds import RunOpen, TaskAdopt, TaskOpen
from muster.task.standin import FleetStandin, ordered

# The verb that is ordered, and that nobody is granted.
TAKEOVER: Final = "takeover"
# A work that went on at so many machines is no fleet's, but a chain that somebody made up.
_OWNERS_MAX: Final = 64

# Whether a key is an operator's; raises where its word came too late, of the entry that cites it.
Leads = Callable[[Statement, Entry], bool]


class First(NamedTuple):
    """Where a run or task was first opened, and how the newest adoption of it counts.

    `generation` is 0 where whoever opened it has it.
    """

    entry: Entry
    generation: int = 0


class Ordered(NamedTuple):
    """What was found of an opening.

    `certain` where its id can be nobody else's: see `identity.py`. `generation` is that of the
    newest adoption behind it, 0 where its first owner has it.
    """

    certain: bool
    generation: int


def takeover_args(machine: str) -> dict[str, str]:
    """What an operator signs as arguments of `takeover`: whose work it is."""
    return {"machine": machine}


def first(entry: Entry, lookup: Lookup, fleet: FleetId, leads: Leads | None) -> First:
    """Where an opening was first written, by whoever it was ordered of.

    Without `leads` nobody adopts anything.

    Raises:
        Unproven: it is a repetition of another machine's work by no operator's order.

    """
    generation, owed = 0, set[str]()
    for _ in range(_OWNERS_MAX):
        entry = origin(entry, lookup)
        adopt = _adopted(entry, lookup)
        if adopt is None and not owed:
            return First(entry, generation)
        if adopt is None:
            text = "what one who was named as well had was no work of the machine that is gone"
            raise Unproven("adoption-not-allowed", text)
        if adopt.header.author != entry.header.author:
            text = "another machine took it over than the one that opens it again"
            raise Unproven("adoption-other-work", text)
        body = read(adopt, "task.adopt", TaskAdopt, "adoption")
        generation = generation or body.generation
        before = _before(entry, body, lookup)
        opened_ms = origin(before, lookup).header.t[0]
        owed.discard(body.of)
        about = check_ground(adopt, body.of, body.generation, opened_ms, lookup, fleet, leads)
        owed |= {about} - {body.of}
        entry = before
    raise Unproven("repeated-too-often", "it was taken over more often than machines are lost")


def _adopted(entry: Entry, lookup: Lookup) -> Entry | None:
    """The adoption that an opening cites as its ground, None where it cites none."""
    found = (lookup(cause) for cause in entry.causes)
    return next((each for each in found if each and each.header.kind == "task.adopt"), None)


def _before(entry: Entry, body: TaskAdopt, lookup: Lookup) -> Entry:
    """The opening of the owner before that this one repeats. Raises: Unproven without one."""
    opened = body_or_none(entry, RunOpen) or body_or_none(entry, TaskOpen)
    is_run = isinstance(opened, RunOpen)
    alone = isinstance(opened, TaskOpen) and not opened.run
    name = opened.run if isinstance(opened, RunOpen) else getattr(opened, "task", "")
    if (is_run or alone) and name == body.what:
        cited = [lookup(cause) for cause in entry.causes]
        alike = (entry.header.kind, body.of, entry.body)
        for found in cited:
            if found and (found.header.kind, found.header.author, found.body) == alike:
                return found
        if None in cited:
            text = "this machine does not have yet what the owner before opened"
            raise Unproven("adoption-missing", text)
    raise Unproven("adoption-other-work", "what was taken over is other work, or another machine's")


def check_ground(  # noqa: PLR0917 - the links of one chain
    adopt: Entry, of: str, generation: int, opened_ms: int, lookup: Lookup, fleet: FleetId,
    leads: Leads | None,
) -> str:  # fmt: skip
    """Whose work the order is about by which it was adopted: of `of`, or what that one took over.

    `of` is the machine in whose place it goes on, with what was there at `opened_ms`.
    Raises: Unproven unless an operator ordered just this of the machine that did it, in time.
    """
    at_ms = adopt.header.t[0]
    for cause in adopt.causes:
        order = lookup(cause)
        found = None if order is None else _ground(order, adopt, of, fleet)
        if found is None:
            continue
        statement, end_ms, about = found
        if max(at_ms, opened_ms) > end_ms:
            text = "the order to take over had ended before the work was opened, or was adopted"
            raise Unproven("adoption-not-allowed", text)
        if generation > at_ms + limits.CLOCK_AHEAD_MS_MAX + _OWNERS_MAX:
            text = "it was taken over under a place above any that a machine comes to"
            raise Unproven("adoption-not-allowed", text)
        if leads is None or not leads(statement, adopt):
            text = "whoever ordered it is no operator, or an operator ordered otherwise since"
            raise Unproven("adoption-not-allowed", text)
        return about
    if any(lookup(cause) is None for cause in adopt.causes):
        text = "this machine does not have yet what it was taken over by"
        raise Unproven("adoption-missing", text)
    text = "no operator's order to take over stands behind it"
    raise Unproven("adoption-not-allowed", text)


def _ground(
    order: Entry, adopt: Entry, of: str, fleet: FleetId
) -> tuple[Statement, int, str] | None:
    """The order by which this is adopted, until when it counts, and of which machine it is; None
    where this is no ground.

    Raises: Unproven where it is another order.
    """
    author = MachineId(adopt.header.author)
    taken, named = body_or_none(order, OrderTake), body_or_none(order, FleetStandin)
    try:
        if named is not None:
            statement = ordered(order, named, fleet)
            of_one = {named.machine, *named.named} - {author}
            if author not in named.named or of not in of_one:
                text = "another machine stands in for that one"
                raise Unproven("adoption-not-allowed", text)
            # It lasts until an operator says otherwise.
            return statement, sys.maxsize, named.machine
        if taken is None or order.header.author != author:
            return None
        statement = open_statement(taken.statement.encode(), fleet)
        check_order(
            statement, verb=TAKEOVER, object=of, machine=author,
            args=takeover_args(of), now_ms=min(order.header.t[0], statement.until_ms),
        )  # fmt: skip
    except Unproven:
        raise
    except MusterError as error:
        text = f"the operator ordered no such takeover: {error}"
        raise Unproven("adoption-not-allowed", text) from error
    if statement.target != author:
        text = "work is taken over by one machine, and this order is for every one"
        raise Unproven("adoption-not-allowed", text)
    # A log may run ahead of its machine's clock by so much.
    return statement, statement.until_ms + limits.CLOCK_AHEAD_MS_MAX, of
