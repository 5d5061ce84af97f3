"""Verbs that wake a machine: for a person, and for a machine whose neighbour sleeps."""

from typing import Annotated

from msgspec import Struct

from muster.log.stream import MachineId
from muster.node.verb import Line
from muster.verbs.declaration import Daemon, Perform, Request, data, pos, verb


class Wake(Request, frozen=True):
    machine: Annotated[str, pos("the machine that sleeps", kind="machine")]


class Woken(Struct, frozen=True):
    """A packet for `machine` was sent by the machine `by`; `here` says whether that is this one."""

    machine: str
    by: str
    here: bool


@verb(
    "wake", auth="order", runs="async", group="The fleet", object="machine",
    says=(
        Line("A packet that wakes {machine} was sent from here; `muster machines` shows when it is"
             " up.", "here"),
        Line("{by} sent a packet that wakes {machine}; `muster machines` shows when it is up.",
             "!here"),
    ),
)  # fmt: skip
async def wake(daemon: Daemon, call: Perform, ask: Wake) -> Woken:
    """Send a packet that wakes a machine, from here or by a neighbour of it.

    That it was sent says nothing of who woke. Raises: NotFound where it has not said that a packet
    wakes it, Conflict where it is awake and within five minutes of the last one, Unreachable where
    nobody is in a network of it.

        muster wake laptop
    """
    core = daemon.core
    record = core.roster.find(ask.machine)
    woken = await daemon.wakers.wake(record.machine)
    here = woken.by == core.machine
    return Woken(record.name, core.membership.name_of(MachineId(woken.by)), here)


class Send(Request, frozen=True, forbid_unknown_fields=False):
    machine: Annotated[str, data()] = ""


@verb("wake.send", auth="peer", runs="async")
async def wake_send(daemon: Daemon, call: Perform, ask: Send) -> int:
    """Send the packet that wakes a machine whose neighbour this one is; how many were sent."""
    return daemon.wakers.send(ask.machine)
