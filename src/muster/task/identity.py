"""Ids that say whose they are: nobody else can open the same one.

Rule 1: the id of a run is a hash of its owner and of the operator's order; that of a task in it is
a hash of the run's id and of the task's place. So an id cannot be taken by writing it down: who
opens it shows the very order that it was made from, and that order was for one machine.
Rule 2: an id that was not made so (by an older Muster, or chosen by who ordered a single task) is
no mistake: whose it is then follows from the order alone (`node/tasks/ownership.py`).
Rule 3: one order is one run of its owner, whatever its owner calls it: of a stream the first that
was opened counts (`fold.py`), of several streams the one that `one_of` names.
"""

from collections.abc import Iterable
from hashlib import sha256
from typing import Final

from muster.task.review import round_of

# 128 bits, as a random id has: nobody finds a second order with the same id.
_DIGITS: Final = 32


def run_id(owner: str, statement: str) -> str:
    """The id of the run that this order (in hex) begins on this machine."""
    return sha256(f"muster/run/v1\n{owner}\n{statement}".encode()).hexdigest()[:_DIGITS]


def order_id(statement: str) -> str:
    """What an order (in hex) is told apart by, however the hex is written; "" for no hex."""
    try:
        return sha256(bytes.fromhex(statement)).hexdigest() if statement else ""
    except ValueError:
        return ""


def one_of(runs: Iterable[str], owner: str, statement: str) -> str:
    """Of several runs that an owner's streams opened by one order the one that counts.

    It is the same wherever these are known: the id that follows from the order, else the lowest.
    """
    known, own = set(runs), run_id(owner, bytes.fromhex(statement).hex())
    return own if own in known else min(known)


def task_id(run: str, phase: str, instance: str) -> str:
    """The id of the task at this place of a run."""
    # A name of a phase holds no line end, so no two places are one text.
    return sha256(f"muster/task/v1\n{run}\n{phase}\n{instance}".encode()).hexdigest()[:_DIGITS]


def branch_of(run: str, phase: str, instance: str = "") -> str:
    """The branch that a phase's work ends on; an instance is told apart by the hash of its name.

    All rounds of a reviewed phase end on its one branch, the last of them at its top.
    """
    tail = phase or "task"
    if instance and not round_of(instance):
        # What is safe in the name of a ref, and the hash of all of it.
        safe = "".join(c if c.isalnum() and c.isascii() else "-" for c in instance.lower())
        digest = sha256(instance.encode()).hexdigest()[:8]
        tail += f"-{safe.strip('-')[:24] or 'x'}-{digest}"
    return f"muster/{run}/{tail}"
