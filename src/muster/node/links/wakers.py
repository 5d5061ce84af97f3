"""Waking a machine: from an interface of ours in its network, and by neighbours of it.

Rule 1: the packet is made of what the sleeper said of itself while it was awake: who asks for it,
person or machine, names the machine and nothing else.
Rule 2: a neighbour is asked by the name of the sleeper (`wake.send`); it judges for itself whether
that is a member that can be woken, whether it shares a network with it, and whether it is time.
Rule 3: two networks of two houses may bear the same figures. So what was sent from here is no
reason to ask nobody else, and a way by which nothing leaves is no reason to leave out the others.
"""

import asyncio
from typing import Final, NamedTuple

from muster.channel import wake
from muster.errors import Conflict, MusterError, NotFound, Unreachable
from muster.fleet.facts import Card
from muster.log.stream import MachineId
from muster.node import event as ev
from muster.node.counter import DECLARED, labelled
from muster.node.host.cards import source_in
from muster.node.runtime import Runtime
from muster.node.services.sleepers import Sleepers, WakeUp

DECLARED[__name__] = {
    "wakes-sent": "A packet was sent that wakes a machine.",
    "wakes-asked": "A neighbour of a machine that sleeps was asked to send it such a packet.",
    "wakes-unsent": "A packet that wakes a machine could not leave by one of the ways to it.",
    "wakes-failed-<error>": "A machine that is waited for could not be woken.",
}

VERB: Final = "wake.send"
# So many neighbours are asked, all at once.
_NEIGHBOURS_MAX: Final = 4


class Woken(NamedTuple):
    """Which machine sent the packet: this one where it did, else the first neighbour that did."""

    by: str


class Wakers:
    """See the rules above."""

    def __init__(self, daemon: Runtime) -> None:
        self._daemon, self._core = daemon, daemon.core
        self._part = daemon.core.part(Sleepers)

    @ev.effect(WakeUp)
    def on_wake_up(self, effect: WakeUp) -> None:
        """Somebody waits for it here."""
        self._daemon.supervisor.run("wake", self._try(effect.machine))

    async def _try(self, machine: str) -> None:
        try:
            await self._wake(machine)
        except MusterError as error:
            self._core.counters[labelled("wakes-failed", error)] += 1

    async def wake(self, machine: str) -> Woken:
        """A person says so. Raises: NotFound, Conflict, Unreachable."""
        self._spend(machine)
        return await self._wake(machine)

    def send(self, machine: str) -> int:
        """As `wake`, for another machine and from here alone; how many packets went."""
        if not self._ways(machine):
            raise Unreachable("this machine is in no network of that one")
        self._spend(machine)
        sent = self._send(machine)
        if not sent:
            self._part.not_sent(machine)
            raise Unreachable("no packet leaves this machine for a network of that one")
        return sent

    def _spend(self, machine: str) -> None:
        name = self._core.membership.name_of(MachineId(machine))
        if self._core.link_to(machine) is not None:
            raise Conflict(f"{name} is awake: there is a link to it")
        if not self._part.wakeable(machine):
            raise NotFound(
                f"{name} has not said that a packet wakes it: where one does, write `wake = true` "
                "into its config.toml while it is awake, and restart its daemon"
            )
        rests_ms = self._part.rests_ms(machine)
        if not self._part.spend(machine):
            raise Conflict(
                f"a packet was sent to {name} of late; the next one goes in {rests_ms // 1000} s"
            )

    def _cards(self, machine: str) -> list[Card]:
        facts = self._core.roster.facts.get(MachineId(machine))
        return [] if facts is None else [card for card in facts.cards if card.wakes]

    def _ways(self, machine: str) -> list[tuple[str, str, str]]:
        """Each card of it that is in a network of ours, that network, and our address in it."""
        return [
            (card.mac, subnet, source)
            for card in self._cards(machine)
            for subnet in card.subnets
            if (source := source_in(subnet))
        ]

    def _send(self, machine: str) -> int:
        sent = 0
        for mac, subnet, source in self._ways(machine):
            try:
                wake.send(mac, subnet, source)
            except Unreachable:
                self._core.counters["wakes-unsent"] += 1
                continue
            self._core.counters["wakes-sent"] += 1
            sent += 1
        return sent

    async def _wake(self, machine: str) -> Woken:
        sent = self._send(machine)
        neighbours = self._neighbours(machine)[:_NEIGHBOURS_MAX]
        answers = await asyncio.gather(*(self._asked(each, machine) for each in neighbours))
        by = [each for each, has_sent in zip(neighbours, answers, strict=True) if has_sent]
        if sent or by:
            return Woken(self._core.machine if sent else by[0])
        self._part.not_sent(machine)
        name = self._core.membership.name_of(MachineId(machine))
        raise Unreachable(
            f"no packet reaches {name}: none leaves this machine for one of its networks, and "
            "nobody who is linked and in one of them has sent it; try later"
        )

    async def _asked(self, neighbour: MachineId, machine: str) -> bool:
        """Whether this neighbour has sent it."""
        link = self._core.link_to(neighbour)
        if link is None:
            return False
        self._core.counters["wakes-asked"] += 1
        number = next(self._core.links[link].numbers)
        try:
            answer = await self._daemon.streams.ask(link, number, VERB, {"machine": machine})
        except Unreachable:
            return False
        return bool(answer.get("ok"))

    def _neighbours(self, machine: str) -> list[MachineId]:
        """Who is linked and shares a network with it."""
        core, shared = self._core, {net for card in self._cards(machine) for net in card.subnets}
        return [
            each
            for each in sorted(core.roster.machines)
            if each in core.roster.facts
            and core.link_to(each) is not None
            and any(shared.intersection(card.subnets) for card in core.roster.facts[each].cards)
        ]
