"""One attempt of ours, from its folder to its pushed commit.

    open a folder at the prerequisites' commits ── run the agent ── check ── commit ── push

Rule 1: it always ends as one `AttemptEnded`, and nothing of it is left running by then.
Rule 2: the agent gets a minimal environment, its task's values, and a capability for this task
only.
Rule 3: `done` means: the agent succeeded, every deliverable is there, the check passed, and with a
repository the commit is on the remote under this attempt's ref; without one the deliverables are
kept here as blobs, and the folder began with those of the phases before.
Rule 4: a repository that is out of reach is waited for, while the lease lasts: what an agent
did is not thrown away because a hub restarts.
"""

import asyncio
import contextlib
import os
import random
import secrets
from collections.abc import Awaitable, Callable, Mapping
from pathlib import Path
from typing import Any, Final, Literal, TypeVar

import msgspec

from muster.agent import policy as policies
from muster.agent.base import AgentEvent, AttemptOrder, Outcome, environment
from muster.agent.cache import Base
from muster.agent.catalogue import AgentEntry
from muster.agent.collection import is_folder
from muster.agent.commit import Signature
from muster.agent.fence import Epoch
from muster.agent.worktree import Origin, Worktree
from muster.channel.backoff import Backoff
from muster.errors import Broken, MusterError, Refused, Unreachable
from muster.fleet.capability import make_capability
from muster.node import clock, delivery, holder
from muster.node import event as ev
from muster.node.environ import Redaction, given
from muster.node.loop import Loop
from muster.task import values as values_of

# What an agent may ask its daemon for, on behalf of its task.
AGENT_VERBS: Final = ("send", "reply", "ack")
CHECK_TIMEOUT_S: Final = 600.0
# Chosen arbitrarily: longer than a hub's restart or update, shorter than a person's patience.
REACH_S: Final = 600.0

# More names than these nobody reads in one sentence.
_NAMES_MAX: Final = 8

T = TypeVar("T")


class Trial:
    """See the top of this file. `stop` may come at any time; `over` is set after the end."""

    def __init__(self, daemon: Loop, start: ev.StartAttempt) -> None:
        self.daemon = daemon
        self.start = start
        self.task = start.assign.task
        self.epoch = start.assign.epoch
        self.template = start.open.template
        self.over = asyncio.Event()
        self.agent = start.assign.agent
        self.actor = f"{self.agent}@{daemon.core.name}"
        self._stopped = ""
        # It was ended for filling the disk.
        self.fills = False
        self._stop = asyncio.Event()
        self._running: Any = None
        self._tree: Worktree | None = None
        self._folder: Path | None = None
        self._redaction = Redaction({})
        # What is said beside the agent's own words.
        self._noted = ""
        self._answered_by: dict[str, str] = {}

    def stop(self, reason: str) -> None:
        """End it soon; harmless when repeated."""
        self._stopped = self._stopped or reason
        self._stop.set()
        if self._running is not None:
            self._running.cancel(reason)

    @property
    def folder(self) -> Path | None:
        """Where its files are, None while there is no such place."""
        return self._tree.path if self._tree is not None else self._folder

    def fill(self, reason: str) -> None:
        """It filled the disk: it fails for that, and is not tried on another machine."""
        self.fills = True
        self.stop(reason)

    def answer(self, ask: str, by: str, *, allow: bool) -> None:
        """A person's answer to a question of the agent; harmless when nobody asks any more."""
        if self._running is not None:
            self._answered_by[ask] = by
            self._running.answer(ask, allow)

    async def run(self) -> ev.AttemptEnded:
        """Everything, to the end. Raises nothing: what goes wrong is the reason it failed."""
        try:
            folder = await self._open()
            return await self._work(folder)
        except Refused as error:
            return self._failed(str(error))
        except MusterError as error:
            return self._ended("killed", reason=str(error))
        except OSError as error:
            return self._ended("killed", reason=f"this machine could not go on: {error}")
        finally:
            await self._clean()

    # --- steps ---------------------------------------------------------------------------------

    async def _open(self) -> Path:
        repo = self.start.open.repo
        if not repo:
            name = f"{self.task}-{self.epoch[0]}-{self.epoch[1]}"
            self._folder = Path(self.daemon.home.work) / name
            await self.daemon.hands.workshop.discard(self._folder)
            self._folder.mkdir(parents=True)
            await self._place_what_came_before(self._folder)
            return self._folder
        path, url = self.daemon.hands.place_of(repo)
        named = self._commits_by_phase()
        bases = [Base(named.get(each, each[:12]), each) for each in self.start.open.base.split()]
        origin, workshop = Origin(repo, url or self._own_url(path)), self.daemon.hands.workshop
        self._tree = await self._patiently(
            lambda: workshop.open(origin, self.task, Epoch(*self.epoch), bases, self._signature())
        )
        return self._tree.path

    def _commits_by_phase(self) -> dict[str, str]:
        """The phase that each commit came from, as its values tell; some hand on no commit."""
        found: dict[str, str] = {}
        for phase, values in self.start.values.items():
            for commit in values.get("commit", "").split():
                found.setdefault(commit, phase)
        return found

    async def _place_what_came_before(self, folder: Path) -> None:
        """What the phases before delivered, where no repository carries it."""
        given = holder.handed_on(self.daemon.core, self.start.owner, self.start.open)
        # A later phase's file replaces the one in an earlier one's folder.
        blobs, target = self.daemon.machine.blobs, delivery.Target(folder, force=True)
        for source in given:
            if self._stopped:
                return
            await self._patiently(lambda s=source: holder.bring(self.daemon, s))  # type: ignore[misc]
            await asyncio.to_thread(target.place, source.artefact, blobs)

    async def _patiently(self, work: Callable[[], Awaitable[T]]) -> T:
        """`work`, and again while the repository is out of reach, until somebody stops us."""
        backoff = Backoff(random.SystemRandom().random)
        loop = asyncio.get_running_loop()
        end = loop.time() + REACH_S
        while True:
            try:
                return await work()
            except Unreachable:
                if self._stopped or loop.time() > end:
                    raise
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(backoff.failed() / 1000):
                    await self._stop.wait()

    def _own_url(self, path: Path | None) -> str:
        """Our own repository, reached through our own fence like anybody else's."""
        assert path is not None, "a repository is here or it has an address"
        return f"muster::{self.daemon.core.name}/{path.name.removesuffix('.git')}"

    def _signature(self) -> Signature:
        signer = self.daemon.core.standing.signer("git")
        seconds = clock.read().wall_ms // 1000
        return Signature(self.actor, self.daemon.core.name, seconds, signer)

    async def _work(self, folder: Path) -> ev.AttemptEnded:
        if self._stopped:
            return self._ended("killed", reason=self._stopped)
        outcome = await self._run(self._order(folder))
        if not self._stopped and not is_folder(folder):
            return self._ended("failed", outcome, reason="the agent removed its own work folder")
        if self._stopped or outcome.status in ("cancelled", "error"):
            reason = self._stopped or outcome.summary
            own = self.fills or (outcome.status == "error" and not self._stopped)
            status = "failed" if own else "killed"
            return self._ended(status, outcome, reason=reason)
        if outcome.status != "ok":
            return self._ended("failed", outcome, reason=outcome.summary or outcome.status)
        check = str(self.template.get("check", ""))
        if check:
            checked = await self._run(self._check(folder, check))
            if checked.status != "ok":
                reason = f"the check failed: {checked.tail[-400:] or checked.summary}"
                return self._ended("failed", outcome, reason=reason)
        return await self._deliver(folder, outcome)

    async def _run(self, order: AttemptOrder) -> Outcome:
        self._running = await self.daemon.hands.runner.start(order, self._happened)
        if self._stopped:
            self._running.cancel(self._stopped)
        outcome: Outcome = await self._running.wait()
        if outcome.survivors:
            raise Broken(f"processes {outcome.survivors} of task {self.task[:12]} cannot be ended")
        clean = self._redaction.text
        redacted: Outcome = msgspec.structs.replace(
            outcome, summary=clean(outcome.summary), tail=clean(outcome.tail)
        )
        return redacted

    def _order(self, folder: Path) -> AttemptOrder:
        found = self.start.values
        text = str(self.template.get("do", ""))
        plain = self.agent in ("shell", "noop")
        extra = self._environment(found, self.daemon.hands.agents.get(self.agent))
        capability, token = self._capability()
        if token:
            self.daemon.core.orders.allow_agent(capability)
            extra["MUSTER_CAPABILITY"] = token
        self._redaction = Redaction(extra)
        return AttemptOrder(
            task=self.task,
            epoch=self.epoch,
            agent=self.agent,
            cwd=str(folder),
            env=environment(os.environ, extra),
            prompt="" if plain else self._prompt(text, found),
            command=values_of.command(text) if self.agent == "shell" else text,
            shell=self._shell(),
            timeout_s=self._timeout_s(),
            policy=policies.Policy(),
        )

    def _prompt(self, text: str, found: values_of.Values) -> str:
        """What the agent is asked: the order, and what will be looked at when it is done."""
        lines = [values_of.prompt(text, found)]
        deliver = self.template.get("deliver") or []
        if deliver:
            lines.append("Write these files in the current folder: " + ", ".join(deliver))
        if self.template.get("check"):
            lines.append(f"When you are done this command must succeed: {self.template['check']}")
        return "\n\n".join(lines)

    def _environment(
        self, found: values_of.Values, entry: AgentEntry | None = None
    ) -> dict[str, str]:
        texts = [str(self.template.get("do", "")), str(self.template.get("check", ""))]
        own = self.template.get("env") or {}
        texts += [str(text) for text in own.values()]
        variables = values_of.environment(texts, found)
        variables.update({name: values_of.prompt(str(t), found) for name, t in own.items()})
        variables["MUSTER_HOME"] = str(self.daemon.home.path)
        variables["MUSTER_SOCK"] = self.daemon.home.socket
        variables["MUSTER_TASK"] = self.task
        source = {**os.environ, **self.daemon.home.agent_variables()}
        named = self.daemon.machine.agent_variables
        # The machine wins over the spec: a key must not be sent to an address the spec names.
        return {**variables, **given(source, entry, named)}

    def _capability(self) -> tuple[Any, str]:
        until = clock.read().wall_ms + int(self._timeout_s() * 1000)
        token, capability = make_capability(
            secrets.token_bytes(32),
            task=self.task,
            agent=self.agent,
            verbs=AGENT_VERBS,
            until_ms=until,
        )
        return capability, token

    def _timeout_s(self) -> float:
        return float(self.template.get("timeout_ms", 3_600_000)) / 1000

    def _shell(self) -> Literal["sh", "bash"]:
        return "bash" if self.template.get("shell") == "bash" else "sh"

    def _check(self, folder: Path, check: str) -> AttemptOrder:
        found = self.start.values
        return AttemptOrder(
            task=self.task,
            epoch=self.epoch,
            agent="shell",
            cwd=str(folder),
            env=environment(os.environ, self._environment(found)),
            command=values_of.command(check),
            shell=self._shell(),
            timeout_s=min(CHECK_TIMEOUT_S, self._timeout_s()),
        )

    async def _deliver(self, folder: Path, outcome: Outcome) -> ev.AttemptEnded:
        deliver = [str(path) for path in self.template.get("deliver") or []]
        if self._tree is None:
            return await self._keep(folder, deliver, outcome)
        message = f"{self.template.get('phase', 'task')}: {self._summary(outcome)}"
        collected = await self.daemon.hands.workshop.collect(
            self._tree, deliver, message, self._signature()
        )
        if collected.missing:
            return self._ended("failed", outcome, reason=_missing(collected.missing))
        if collected.left_out:
            names = ", ".join(collected.left_out[:_NAMES_MAX])
            more = len(collected.left_out) - _NAMES_MAX
            names += f" and {more} more" if more > 0 else ""
            self._noted = f"\nleft out, as git repositories of their own: {names}"
        if self._stopped:
            return self._ended("killed", outcome, reason=self._stopped)
        tree, workshop = self._tree, self.daemon.hands.workshop
        await self._patiently(lambda: workshop.push(tree, collected.commit))
        return self._ended(
            "done",
            outcome,
            commit=collected.commit,
            values=self._values(outcome),
            artefacts=collected.changed[:100],
        )

    async def _keep(self, folder: Path, deliver: list[str], outcome: Outcome) -> ev.AttemptEnded:
        """Without a repository: the deliverables become blobs, which the end of it names."""
        missing = delivery.missing(folder, deliver)
        if missing:
            return self._ended("failed", outcome, reason=_missing(missing))
        blobs = self.daemon.machine.blobs
        try:
            kept = await asyncio.to_thread(delivery.collect, folder, deliver, blobs)
        except Refused as error:
            return self._ended("failed", outcome, reason=str(error))
        for each in kept:
            blobs.claim(each.sha256, holder.attempt_claim(self.task, self.epoch))
        if self._stopped:
            return self._ended("killed", outcome, reason=self._stopped)
        texts = tuple(str(each) for each in kept)
        return self._ended("done", outcome, values=self._values(outcome), artefacts=texts)

    def _values(self, outcome: Outcome) -> dict[str, str]:
        return {
            "agent": self.agent,
            "machine": self.daemon.core.name,
            "output": values_of.bounded("", "output", outcome.tail.replace("\0", "")),
        }

    def _summary(self, outcome: Outcome) -> str:
        text = outcome.summary or outcome.tail.strip().rpartition("\n")[2]
        return text.replace("\0", "")[:400] or "done"

    # --- ends ----------------------------------------------------------------------------------

    def _happened(self, event: AgentEvent) -> None:
        fields = self._redaction.fields(event.fields)
        if event.kind == "agent.decision" and fields.get("by") == "person":
            fields["by"] = self._answered_by.get(str(fields.get("ask")), "person")
        self.daemon.post(ev.AttemptEvent(self.task, self.epoch, event.kind, fields, self.actor))

    def given_up(self) -> ev.AttemptEnded:
        """How it ends when this machine itself failed at it."""
        return self._ended("killed", reason="this machine failed at it; its daemon.log says how")

    def _failed(self, reason: str) -> ev.AttemptEnded:
        return self._ended("failed", reason=reason)

    def _ended(
        self,
        status: str,
        outcome: Outcome | None = None,
        *,
        reason: str = "",
        commit: str = "",
        values: Mapping[str, str] | None = None,
        artefacts: tuple[str, ...] = (),
    ) -> ev.AttemptEnded:
        return ev.AttemptEnded(
            self.task,
            self.epoch,
            status,
            summary=self._summary(outcome) + self._noted if outcome is not None else reason[:400],
            reason=reason[:2000],
            commit=commit,
            values=values or {},
            artefacts=artefacts,
            usage=outcome.usage if outcome is not None else {},
        )

    async def _clean(self) -> None:
        if self._tree is not None:
            await self.daemon.hands.workshop.close(self._tree)
        if self._folder is not None:
            await self.daemon.hands.workshop.discard(self._folder)


def _missing(paths: Any) -> str:
    return "promised and not there: " + ", ".join(paths)
