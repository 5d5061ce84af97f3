"""While the disk is full: this machine stands still, answers its user, and goes on by itself.

Rule 1: the step whose commit found no room waits as it is (store.py, rule 5), and what happens
meanwhile waits behind it, in its order. Frames of peers are not read, as if this machine slept:
leases run out and work moves on, which is what they are for.
Rule 2: whoever asks on this machine is answered from what there is. What would write is refused,
and whoever waits for an answer of the step that waits is told so instead.
Rule 3: whoever fills the disk makes room: of the attempts that run, the one whose folder holds
most is ended, then the next, until there is room. With no attempt that holds much, a person is
needed, and told.
"""

import asyncio
from collections import deque
from collections.abc import Awaitable, Callable
from typing import Final

import msgspec

from muster.channel import frame as frames
from muster.channel.frame import Type
from muster.errors import Exhausted
from muster.limits import EVENTS_WAITING_MAX
from muster.node import event as ev
from muster.node.core import Core
from muster.node.host import clock
from muster.node.link import failure
from muster.node.services.health import HadNoRoom
from muster.node.supervisor import Supervisor, say
from muster.node.tasks.attempt_body import AttemptEvent

RETRY_S: Final = 0.5
# An attempt that met the full disk itself ends by itself in this time, and takes its files along.
RELIEF_S: Final = 3.0
# Ending an attempt takes its processes' grace and the removal of its folder.
RELIEF_AGAIN_S: Final = 20.0

Relieve = Callable[[], Awaitable[str]]


def put_off(effects: list[ev.Effect], error: Exhausted) -> tuple[list[ev.Effect], list[ev.Effect]]:
    """What a step that waits still wants done later, and what whoever asked is told now."""
    # Where each of them is: the link and the channel, and whether it is the last one there.
    replies: dict[int, tuple[tuple[int, int], bool]] = {}
    for at, effect in enumerate(effects):
        if isinstance(effect, ev.Send):
            frame = frames.decode(effect.frame)
            if frame.type is Type.REPLY:
                replies[at] = (effect.link, frame.channel), frame.payload[:1] == b"."
    ends = {place for place, last in replies.values() if last}
    text = f"{error} What you asked is taken, and counts as soon as there is room."
    raw = b"." + msgspec.json.encode(failure(Exhausted(text)))
    told: list[ev.Effect] = [
        ev.Send(link, frames.encode(Type.REPLY, channel, raw)) for link, channel in sorted(ends)
    ]
    held = [
        effect
        for at, effect in enumerate(effects)
        if at not in replies or replies[at][0] not in ends
    ]
    return held, told


class FullDisk:
    """See the top of this file. `relieve` ends the largest attempt and says which, "" for none."""

    def __init__(
        self,
        core: Core,
        supervisor: Supervisor,
        perform: Callable[[list[ev.Effect]], None],
        post: Callable[[ev.Event], None],
        relieve: Relieve,
    ) -> None:
        self._core = core
        self._supervisor = supervisor
        self._perform = perform
        self._post = post
        self._relieve = relieve
        self._later: deque[ev.Event] = deque()
        self._local: set[int] = set()
        self._ended: list[str] = []
        self.dropped = 0
        # Set while there is room: whoever reads frames of peers waits for it.
        self.there = asyncio.Event()
        self.there.set()

    @property
    def full(self) -> bool:
        return not self.there.is_set()

    def is_full(self, error: Exhausted) -> None:
        """A step found no room: stand still until it does."""
        say(f"standing still: {error}")
        self.there.clear()
        held, told = put_off(self._core.effects, error)
        self._core.effects = held
        self._perform(told)
        self._supervisor.run("room", self._wait())

    def sort(self, events: list[ev.Event]) -> list[ev.Event]:
        """What can be dealt with now: the questions of this machine's user. The rest is kept."""
        now: list[ev.Event] = []
        for event in events:
            if isinstance(event, ev.LinkUp) and event.local:
                self._local.add(event.link)
                now.append(event)
            elif isinstance(event, ev.Turn) or (
                isinstance(event, ev.LinkDown | ev.Arrived)
                and (
                    event.link in self._local
                    or (event.link in self._core.links and self._core.links[event.link].local)
                )
            ):
                now.append(event)
            elif isinstance(event, AttemptEvent) and len(self._later) >= EVENTS_WAITING_MAX:
                # Lines of a journal, of an attempt that writes on and on.
                self.dropped += 1
            else:
                self._later.append(event)
        return now

    async def _wait(self) -> None:
        loop = asyncio.get_running_loop()
        began, relief = clock.boot_ms(), loop.time() + RELIEF_S
        while self.full:
            await asyncio.sleep(RETRY_S)
            if self._supervisor.step(self._go_on) is None:
                # The disk failed: the daemon ends.
                return
            if self.full and loop.time() >= relief:
                relief = loop.time() + RELIEF_AGAIN_S
                async with self._supervisor.attempt("relief"):
                    if task := await self._relieve():
                        self._ended.append(task)
        ended, self._ended = tuple(self._ended), []
        self._local.clear()
        say("there is room on the disk again: going on")
        while self._later:
            self._post(self._later.popleft())
        self._post(HadNoRoom(clock.boot_ms() - began, ended, self.dropped))
        self.dropped = 0

    def _go_on(self) -> bool:
        try:
            effects = self._core.resume(clock.read())
        except Exhausted:
            return False
        self.there.set()
        self._perform(effects)
        return True
