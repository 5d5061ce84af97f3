"""How far a message got, with the proof of each step; and what is in an inbox. Views, never stored.

Rule 1: *stored* is proven by the recipient machine's `held` cosign over the sender's stream, *read*
        and *acted* by an entry of the recipient. A channel's "sent" proves nothing and is no state.
Rule 2: a reading counts only from a machine that the message is for, and for an agent only from
        that agent there.
Rule 3: order is the sender's clock and then the id: equal on every machine, whatever came first.

    waiting ──held cosign──▶ stored ──message.read──▶ read ──message.act──▶ acted
"""

from collections.abc import Callable, Collection, Iterable
from typing import Final, Literal, NamedTuple

from muster.log.stream import MachineId
from muster.message.fold import Message, ReadingRow
from muster.message.kinds import EVERYONE

Step = Literal["waiting", "stored", "read", "acted"]
STEPS: Final[tuple[Step, ...]] = ("waiting", "stored", "read", "acted")


class Peer(NamedTuple):
    """A machine that may be a recipient: its id and its roles."""

    machine: MachineId
    roles: Collection[str] = ()


class Delivery(NamedTuple):
    """How far a message got with one recipient.

    `proof` is the size of the stream that a `held` cosign covers, or the id of the entry.
    """

    machine: MachineId
    agent: str
    step: Step
    proof: int | bytes
    at_ms: int = 0


class Item(NamedTuple):
    """A message in an inbox, and what became of it there."""

    message: Message
    read: bool
    acted: bool


def recipients(message: Message, peers: Iterable[Peer]) -> list[tuple[MachineId, str]]:
    """(machine, agent) of everyone a message is for; the agent is "" where none is named.

    The sender's machine is a recipient only when it is named itself.
    """
    found: list[tuple[MachineId, str]] = []
    known = list(peers)
    for address in message.to:
        agent, at, machine = address.rpartition("@")
        if at:
            found.append((MachineId(machine), agent))
        elif address == EVERYONE or address.startswith("role:"):
            role = address.removeprefix("role:")
            found += [
                (peer.machine, "")
                for peer in known
                if peer.machine != message.stream.machine
                and (address == EVERYONE or role in peer.roles)
            ]
        else:
            found.append((MachineId(address), ""))
    return sorted(set(found))


def meant(to: Iterable[str], sender: MachineId, me: Peer) -> set[str]:
    """The agents of a machine that a message is for, "" for whoever is there; none: nobody."""
    found: set[str] = set()
    for address in to:
        agent, _, machine = address.rpartition("@")
        if machine == me.machine:
            found.add(agent)
        elif me.machine != sender and (
            address == EVERYONE or address.removeprefix("role:") in me.roles
        ):
            found.add("")
    return found


def deliveries(
    message: Message,
    peers: Iterable[Peer],
    held_size: Callable[[MachineId], int],
    readings: Iterable[ReadingRow],
) -> list[Delivery]:
    """Each recipient's step. `held_size` is how much of this stream a machine's cosign covers."""
    mine = [r for r in readings if r.message == message.id]
    found, seq = [], message.entry.header.seq
    for machine, agent in recipients(message, peers):
        best, held = Delivery(machine, agent, "waiting", 0), held_size(machine)
        # A machine holds what it wrote itself.
        if held > seq or machine == message.stream.machine:
            best = Delivery(machine, agent, "stored", max(held, seq + 1))
        for reading in mine:
            name = reading.actor.partition("@")[0]
            if reading.stream.machine != machine or (agent and name != agent):
                continue
            if reading.acted:
                step = Delivery(machine, agent, "acted", reading.acted, reading.acted_ms)
            else:
                step = Delivery(machine, agent, "read", reading.read, reading.read_ms)
            if STEPS.index(step.step) > STEPS.index(best.step):
                best = step
        found.append(best)
    return found


def inbox(
    me: Peer, agent: str, messages: Iterable[Message], readings: Iterable[ReadingRow]
) -> list[Item]:
    """What an agent of this machine (or, with "", whoever is at it) received, oldest first.

    An agent also sees what is for its whole machine. Readings are those of this machine's streams.
    """
    seen: dict[bytes, tuple[bool, bool]] = {}
    for reading in readings:
        name = reading.actor.partition("@")[0]
        if reading.stream.machine != me.machine or (agent and name != agent):
            continue
        read, acted = seen.get(reading.message, (False, False))
        seen[reading.message] = (read or bool(reading.read), acted or bool(reading.acted))
    items = []
    for message in messages:
        for_me = meant(message.to, message.stream.machine, me)
        # A person at the machine sees what is for its agents too: it is their machine.
        if for_me and (not agent or for_me & {"", agent}):
            items.append(Item(message, *seen.get(message.id, (False, False))))
    return sorted(items, key=lambda i: (i.message.at_ms, i.message.id))
