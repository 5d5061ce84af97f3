"""Who watches an attempt of an agent while it runs, and does what its detector says.

Rule 1: what is ended is ended with all its processes first; its owner hears of it when they are
gone, and gives the task to another machine (task/ledger.py).
Rule 2: an agent that can be told something is told before it is ended, once for each detector.
Rule 3: what was done stands in the journal (`agent.health`) and is counted.
"""

import asyncio
import contextlib
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any, Final, Protocol

from muster.agent.base import AgentEvent
from muster.agent.catalogue import BUILT_IN
from muster.agent.gateway.call import Call
from muster.agent.gateways import Gateways
from muster.agent.process import ShimAttempt
from muster.node.counter import DECLARED, labelled
from muster.node.host import clock, disk
from muster.node.incidents import Noticed
from muster.node.runtime import Runtime
from muster.node.services.conditions import burning
from muster.node.tasks.attempt_body import AttemptEvent
from muster.task import kinds
from muster.task.detector import Detector, Seen, Thresholds, Verdict, words_of

DECLARED[__name__] = {
    "stuck-<detector>": "An agent was stuck in this way: it was told so, or its attempt ended.",
}

HEALTH: Final = "agent.health"
# Clients try again two or three times within a minute.
UNREACHED_MAX: Final = 3


class Watched(Protocol):
    """The attempt, as far as who watches it needs to know."""

    task: str
    epoch: kinds.Epoch
    agent: str
    actor: str
    template: dict[str, Any]

    def stop(self, reason: str, *, stuck: str = "") -> None: ...


class Served(Protocol):
    """What of this machine serves it (sandbox.py)."""

    gateways: Gateways | None


class Watch:
    """See the top of this file; one for each attempt."""

    def __init__(self, daemon: Runtime, watched: Watched) -> None:
        self._daemon, self._watched = daemon, watched
        entry = daemon.effects.agents.get(watched.agent, BUILT_IN["shell"])
        self.thresholds: Thresholds = entry.health
        self.detector: Detector | None = None
        """While it is watched."""
        self._warned = False
        self._unreached = 0

    def happened(self, event: AgentEvent) -> None:
        """Its agent, or what serves it, told something."""
        if self.detector is not None:
            self.detector.happened(event.kind, event.fields)

    @contextlib.asynccontextmanager
    async def over(self, running: ShimAttempt, served: Served, folder: Path) -> AsyncIterator[None]:
        """Watch it for so long. A plain command is watched by its timeout alone."""
        if not running.is_agent:
            yield
            return
        budget = (self._watched.template.get("budget") or {}).get("tokens", 0)
        steers, tokens = running.is_steered, budget if isinstance(budget, int) else 0
        self.detector = Detector(self.thresholds, steers=steers, budget=tokens)
        work = self._watch(self.detector, running, served, folder)
        task = self._daemon.supervisor.run("watch", work)
        running.hears(self.happened)
        try:
            yield
        finally:
            task.cancel()
            self.detector = None
            if self._warned:
                self._daemon.post(Noticed(self._burning))

    async def _watch(
        self, detector: Detector, running: ShimAttempt, served: Served, folder: Path
    ) -> None:
        since_ms = clock.read().wall_ms
        while True:
            await asyncio.sleep(self.thresholds.look_s)
            if running.is_mute:
                # It works, for all that anybody can see; its timeout counts.
                return
            if detector.wants_change:
                last_ms = await asyncio.to_thread(disk.changed_ms, folder, since_ms)
                if last_ms:
                    # What the clock of the disk is ahead of ours is no change once more.
                    since_ms = max(last_ms, clock.read().wall_ms)
                    detector.progressed()
            cpu_ms = await asyncio.to_thread(running.cpu_ms) if detector.is_quiet else None
            gateways = served.gateways
            asking = gateways.running > 0 if gateways is not None else None
            now_s = asyncio.get_running_loop().time()
            if (verdict := detector.look(now_s, Seen(cpu_ms, asking))) is not None:
                self._act(verdict, running)
                if verdict.deed != "tell":
                    return

    def called(self, call: Call) -> None:
        """A call of its model ended at a gateway."""
        self._reached(call)
        if self.detector is not None:
            used = call.usage
            tokens = used.input + used.output + used.cache_write + used.cache_write_hour
            self.detector.call_ended(call.ending, call.ms, tokens)

    def _reached(self, call: Call) -> None:
        """A model that is not reached, and tried again in vain, is an incident until one answers.

        Nobody is stuck for it: the agent ends by itself, and its task goes elsewhere.
        """
        key, core = f"model:{call.api}", self._daemon.core
        if call.ending == "unreachable":
            self._unreached += 1
            if self._unreached == UNREACHED_MAX and not core.incidents.is_open(key):
                title = f"{core.name} does not reach the model behind {call.api}: {call.why}"
                self._daemon.post(Noticed(key, title))
        elif call.ending == "answered":
            self._unreached = 0
            if core.incidents.is_open(key):
                self._daemon.post(Noticed(key))

    @property
    def _burning(self) -> str:
        return burning(self._watched.task)

    def _act(self, verdict: Verdict, running: ShimAttempt) -> None:
        watched, what = self._watched, verdict.detector
        self._daemon.core.counters[labelled("stuck", what)] += 1
        deed = {"lose": "ended", "fail": "failed"}.get(verdict.deed, "told")
        if deed == "told" and not running.is_steered:
            deed = "seen"
        fields = {"detector": what, "did": deed, "why": verdict.why}
        self._daemon.post(AttemptEvent(watched.task, watched.epoch, HEALTH, fields, watched.actor))
        if verdict.deed != "tell":
            watched.stop(f"{what}: {verdict.why}", stuck=what)
            return
        if running.is_steered:
            running.steer(words_of(verdict))
        if what == "burn":
            self._warned = True
            title = f"task {watched.task[:8]}: {verdict.why}; `muster cancel` ends it"
            self._daemon.post(Noticed(self._burning, title))
