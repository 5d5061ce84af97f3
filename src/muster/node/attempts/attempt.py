"""One attempt of ours, from its folder to its pushed commit.

    open a folder at the prerequisites' commits ── run the agent ── check ── commit ── push

Rule 1: it always ends as one end, and nothing of it is left running by then.
Rule 2: the agent gets a minimal environment, its task's values, and a capability for this task
only.
Rule 3: `done` means: the agent succeeded, every deliverable is there, the check passed, and with a
repository the commit is on the remote under this attempt's ref; without one the deliverables are
kept here as blobs, and the folder began with those of the phases before. Of a review: the verdict
is there and of its form; nothing else of it is taken.
Rule 4: a repository that is out of reach is waited for, while the lease lasts, and so is room on
the disk once the agent is done: what it did is not thrown away because a hub restarts.
Rule 5: a fault of this machine is told from one of the agent. What fails before the agent began
(the cache, the folder, a program that is absent or not logged in) names the part that failed, and
the task goes elsewhere, or the order can begin nowhere (prerequisites conflict); a full disk that
the attempt did not fill, or a lost hub, is a loss. All else is the agent's, and fails it once.
Rule 6: no secret of this machine leaves an attempt, in whatever text (agent/mask.py).
"""

import asyncio
import contextlib
import os
from collections.abc import Awaitable, Callable, Mapping
from functools import partial
from pathlib import Path
from typing import Any, Final, TypeVar

import msgspec

from muster.agent.base import AgentEvent, AttemptOrder, Outcome
from muster.agent.mask import Secrets
from muster.errors import MISTAKE, Exhausted, Malformed, MusterError, Refused
from muster.git.cache import Base
from muster.git.collection import collect
from muster.git.commit import Signature
from muster.node.attempts import blob_transfer as holder
from muster.node.attempts import deliverables
from muster.node.attempts import inputs as handing
from muster.node.attempts.own_fault import OURS, Stuck, Unserved
from muster.node.attempts.retry import AWAY, NO_SPACE, OWN_PLACE, SCARCE, patiently
from muster.node.attempts.sandbox import AttemptSandbox
from muster.node.attempts.setup import AttemptSetup
from muster.node.attempts.unfinished import Unfinished
from muster.node.attempts.watch import Watch
from muster.node.attempts.workplace import Workplace, home_of, identity
from muster.node.host import disk
from muster.node.runtime import Runtime
from muster.node.tasks import attempt_body
from muster.node.tasks.attempt_body import AttemptEvent, AttemptStage
from muster.task.detector import STALLED
from muster.task.duration import Stage
from muster.task.fault import LOGIN, NO_START
from muster.task.instruction import StartAttempt
from muster.task.open_task import Ended

_SCARCE: Final = tuple(os.strerror(each) for each in sorted(SCARCE))
# Chosen arbitrarily: a signal to all processes of a service comes to all of them at once.
_TOLD_S: Final = 5.0
ENDS: Final = "the daemon is stopping"
"""Why an attempt is stopped that the next daemon may go on with."""
# The event that says which secrets of its machine an attempt was given, by name.
SECRETS: Final = "agent.secrets"
_NO_FOLDER: Final = "the agent removed its own work folder, or put another one in its place"

T = TypeVar("T")
# What tells the session of an agent.
_SESSIONS: Final = frozenset({"agent.prompt", "agent.session"})


class Attempt:
    """See the top of this file. `stop` may come at any time; `over` is set after the end."""

    def __init__(self, daemon: Runtime, start: StartAttempt) -> None:
        self.daemon = daemon
        self.start = start
        self.task, self.epoch = start.assign.task, start.assign.epoch
        self.template = start.open.template
        self.over = asyncio.Event()
        self.agent = start.assign.agent
        self.actor = f"{self.agent}@{daemon.core.name}"
        self._stopped, self._stuck = "", dict[str, str]()
        # It was ended for what it did itself: it filled the disk, or went on in a loop.
        self.is_to_blame = False
        self._stop = asyncio.Event()
        self._running: Any = None
        self.workplace = Workplace(daemon, start)
        # What is in the folder before the agent begins; None until then.
        self._given: int | None = None
        # What is said beside the agent's own words.
        self._noted = ""
        self._setup = AttemptSetup(daemon, start)
        self.watch = Watch(daemon, self)
        self._sandbox = AttemptSandbox(daemon, start, self.workplace, self.watch, self._happened)
        self._secrets = Secrets({})
        # The names of secrets that stand in what the agent said.
        self._masked: set[str] = set()
        self._finished = False
        self.logged_in: bool | None = None
        # What of this machine an attempt needs before its agent begins; then the agent is asked.
        self._part, self._place = "machine", (0, 0)
        self._answered_by: dict[str, str] = {}

    def stop(self, reason: str, *, stuck: str = "") -> None:
        """End it soon, at once where its agent is stuck; harmless when repeated."""
        if not self._stopped:
            self._stopped, self._stuck = reason, {STALLED: stuck} if stuck else {}
            self.is_to_blame |= stuck == "loop"
        self._stop.set()
        if self._running is not None:
            self._running.cancel(reason, hurry=bool(stuck))

    async def written_bytes(self) -> int:
        """How much more its folder holds than before its agent began."""
        folder = self.workplace.path
        if self._given is None or folder is None:
            return 0
        wrote = await asyncio.to_thread(disk.written_bytes, folder, self._given)
        return wrote + await asyncio.to_thread(disk.written_bytes, home_of(folder), 0)

    def answer(self, ask: str, by: str, word: str) -> None:
        """A word about a question of the agent; harmless when nobody asks any more."""
        if self._running is not None:
            # The agent takes the first answer: that is whose decision it is.
            self._answered_by.setdefault(ask, by)
            self._running.answer(ask, word)

    async def run(self) -> Ended:
        """Everything, to the end. Raises nothing: what goes wrong is the reason it failed."""
        try:
            self._at("fetching")
            if disk.is_full(Path(self.daemon.home.work)):
                # An agent on a full disk fails at whatever it writes.
                raise Exhausted("the disk of this machine is full; free some space")
            await asyncio.to_thread(self._setup.look)
            self._secrets = self._setup.masks
            self._part = "repo" if self.start.open.repo else "machine"
            place = self.workplace
            folder = await place.open(self._patiently, self._bases, self._signature())
            self._place = identity(folder)
            self.start = await handing.taken(self.daemon, self.start, self._patiently)
            self._setup.start = self.start
            look = partial(self._setup.look_at_work, place.tree, folder, self._signature())
            await self._patiently(look)
            await self._setup.remember()
            self._given = await asyncio.to_thread(disk.given_bytes, folder)
            self._at("working")
            return await self._work(folder)
        except Refused as error:
            return self._ended("failed", reason=str(error), fault=self._part and NO_START)
        except MusterError as error:
            mine = isinstance(error, OURS) or any(text in str(error) for text in _SCARCE)
            return self._broke_off(str(error), mine=mine)
        except OSError as no:
            return self._broke_off(f"this machine could not go on: {no}", mine=no.errno in SCARCE)
        finally:
            self._at("clearing up")
            await self.workplace.close(cut_off=self._stopped == ENDS and not self._finished)

    def _at(self, stage: Stage) -> None:
        self.daemon.post(AttemptStage(self.task, self.epoch, stage))

    def _broke_off(self, reason: str, *, mine: bool) -> Ended:
        """Not done. Before the agent began it was this machine, and later where `mine` says so."""
        if self._stopped:
            return self._halted()
        if self._part:
            return self._ended("killed", reason=reason, fault=self._part)
        return self._ended("killed" if mine else "failed", reason=reason)

    def _halted(self, outcome: Outcome | None = None) -> Ended:
        """Stopped from outside; who was stopped for what it did failed."""
        reason = self._stopped or (outcome.summary if outcome is not None else "")
        how = partial(self._ended, "failed" if self.is_to_blame else "killed")
        return how(outcome, reason=reason, values=self._stuck)

    # --- steps ---------------------------------------------------------------------------------

    def _bases(self) -> list[Base]:
        return attempt_body.bases(self.start.open.base, self._setup.settled_before())

    async def _patiently(
        self, work: Callable[[], Awaitable[T]], passing: tuple[type[MusterError], ...] = AWAY
    ) -> T:
        """`work`, and again while it meets what passes, until somebody stops us."""
        return await patiently(work, passing, self._stop)

    def _signature(self) -> Signature:
        signer = self.daemon.core.membership.signer("git")
        seconds = self.daemon.core.now.wall_ms // 1000
        return Signature(self.actor, self.daemon.core.name, seconds, signer)

    async def _work(self, folder: Path) -> Ended:
        if self._stopped:
            return self._halted()
        # What an order lacks here, such as a variable of a server, is no fault of the repository.
        self._part = "agent"
        await asyncio.to_thread(self._setup.take)
        order = self._setup.order(folder, self.workplace.went_on)
        self._secrets = self._setup.masks
        self._part = "machine"
        await self._sandbox.decide(order, self._setup.of_machine())
        self._part = "agent"
        if names := sorted(self._setup.granted):
            # Before it begins: who used which secret, and when, whatever becomes of it.
            fields = {"names": names, "phase": str(self.template.get("phase", ""))}
            self.daemon.post(AttemptEvent(self.task, self.epoch, SECRETS, fields, self.actor))
        outcome = await self._run(order)
        self.logged_in = False if outcome.logged_out else outcome.status == "ok" or None
        if (spent := self._sandbox.spending.spent) and not self._stop.is_set():
            # Some agents take it for the end of their work, and say that all is well.
            kept = await self._unfinished(folder)
            return self._ended("failed", outcome, reason=spent, commit=kept)
        if outcome.status == "cancelled":
            # Somebody here wanted the end, or soon says so: a machine that shuts down may tell an
            # attempt before it tells us. Else its agent ended it.
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(_TOLD_S):
                    await self._stop.wait()
        if self._stop.is_set():
            return self._halted(outcome)
        if outcome.fault:
            fault = LOGIN if outcome.logged_out else outcome.fault
            return self._ended("killed", outcome, reason=outcome.summary, fault=fault)
        if outcome.status != "ok":
            reason = outcome.summary or outcome.status
            full = not self.is_to_blame and disk.is_full(folder)
            if full and await self.written_bytes() < disk.MUCH_BYTES:
                return self._ended("killed", outcome, reason=f"{reason}; the disk here is full")
            return self._ended("failed", outcome, reason=reason)
        if identity(folder) != self._place:
            return self._ended("failed", outcome, reason=_NO_FOLDER)
        if self._setup.verdict is not None:
            try:
                said, told = await asyncio.to_thread(self._setup.said, self._secrets)
            except Malformed as error:
                return self._ended("failed", outcome, reason=str(error))
            return await self._done(msgspec.structs.replace(outcome, summary=told), (), said=said)
        check = str(self.template.get("check", ""))
        if check:
            self._at("checking")
            checked = await self._run(self._setup.check(folder, check), check=True)
            if self._stop.is_set():
                return self._halted(outcome)
            if checked.fault:
                return self._ended("killed", outcome, reason=checked.summary)
            if checked.status != "ok":
                reason = f"the check failed: {checked.tail[-400:] or checked.summary}"
                return self._ended("failed", outcome, reason=reason)
            if identity(folder) != self._place:
                return self._ended("failed", outcome, reason=_NO_FOLDER)
        return await self._deliver(folder, outcome)

    async def _run(self, order: AttemptOrder, *, check: bool = False) -> Outcome:
        async with self._sandbox.around(order, check=check) as (enclosed, served):
            runner = self.daemon.effects.runner
            self._running = await runner.start(enclosed, self._told, served.take)
            self._part = ""
            served.ends = self._running.cancel
            self._sandbox.spending.attends(self._running)
            if why := self._stopped or served.lost:
                self._running.cancel(why)
            async with self.watch.over(self._running, self._sandbox, Path(order.cwd)):
                outcome: Outcome = await self._running.wait()
            if served.lost and outcome.status != "ok":
                raise Unserved(served.lost)
        if outcome.survivors:
            raise Stuck(f"processes {outcome.survivors} of task {self.task[:12]} cannot be ended")
        self._masked |= set(outcome.masked)
        clean = self._secrets.text
        # The driver hid them before it cut; this is for whatever is said around it.
        hidden: Outcome = msgspec.structs.replace(
            outcome, summary=clean(outcome.summary), tail=clean(outcome.tail)
        )
        return hidden

    async def _deliver(self, folder: Path, outcome: Outcome) -> Ended:
        self._at("delivering")
        deliver = [str(path) for path in self.template.get("deliver") or []]
        tree = self.workplace.tree
        if tree is None:
            return await self._keep(folder, deliver, outcome)
        message = f"{self.template.get('phase', 'task')}: {self._summary(outcome)}"
        worktrees, signature = self.daemon.effects.worktrees, self._signature()
        collected = await self._patiently(
            lambda: collect(tree, deliver, message, signature), NO_SPACE
        )
        self._noted = attempt_body.left_out(collected)
        if collected.missing:
            reason = attempt_body.missing(collected.missing) + self._noted
            return self._ended("failed", outcome, reason=reason)
        if told := attempt_body.told_secret(collected, self._secrets, self._setup.sure):
            return self._ended("failed", outcome, reason=told)
        if held := self._sandbox.forbidden(map(os.fsdecode, collected.all_changed)):
            return self._ended("failed", outcome, reason=held)
        if self._stopped:
            return self._halted(outcome)
        await self._patiently(lambda: worktrees.push(tree, collected.commit), OWN_PLACE)
        return await self._done(outcome, attempt_body.changed(collected), collected.commit)

    async def _unfinished(self, folder: Path) -> str:
        """What of it is kept though it did not come to its end: a commit, "" for nothing."""
        tree = self.workplace.tree
        if tree is None or identity(folder) != self._place:
            return ""
        self._at("delivering")
        told = partial(attempt_body.told_secret, secrets=self._secrets, sure=self._setup.sure)
        message = f"{self.template.get('phase', 'task')}: unfinished"
        work = Unfinished(tree, message, told, self._sandbox)
        return await work.kept(self.daemon.effects.worktrees, self._signature(), self._patiently)

    async def _keep(self, folder: Path, deliver: list[str], outcome: Outcome) -> Ended:
        """Without a repository: the deliverables become blobs, which the end of it names."""
        missing = deliverables.missing(folder, deliver)
        if missing:
            return self._ended("failed", outcome, reason=attempt_body.missing(missing))
        if held := self._sandbox.forbidden(deliver):
            return self._ended("failed", outcome, reason=held)
        blobs = self.daemon.machine.blobs
        try:
            kept = await self._patiently(
                lambda: asyncio.to_thread(deliverables.collect, folder, deliver, blobs), NO_SPACE
            )
        except Refused as error:
            return self._ended("failed", outcome, reason=str(error))
        for each in kept:
            blobs.claim(each.sha256, holder.attempt_claim(self.task, self.epoch))
        if self._stopped:
            return self._halted(outcome)
        texts = tuple(str(each) for each in kept)
        if self._secrets.fields(texts) != list(texts):
            what = "the name of a deliverable holds a secret of this machine, and names are public"
            return self._ended("failed", outcome, reason=what)
        return await self._done(outcome, texts)

    async def _done(
        self,
        outcome: Outcome,
        artefacts: tuple[str, ...],
        commit: str = "",
        said: Mapping[str, str] = {},
    ) -> Ended:
        self._finished = True
        output = outcome.tail.replace("\0", "\N{REPLACEMENT CHARACTER}")
        found = {"agent": self.agent, "machine": self.daemon.core.name, "output": output, **said}
        masked, size = self._masked | self._secrets.found, outcome.said_bytes
        found = attempt_body.handed_on(found, self._summary(outcome), masked)
        values, large = await self._patiently(
            lambda: handing.kept(self.daemon, self.task, self.epoch, found, size), NO_SPACE
        )
        return self._ended(
            "done", outcome, artefacts=artefacts, commit=commit, values=values, large=large
        )

    def _summary(self, outcome: Outcome) -> str:
        text = outcome.summary or outcome.tail.strip().rpartition("\n")[2]
        return text.replace("\0", "")[:400] or "done"

    # --- ends ----------------------------------------------------------------------------------

    def _happened(self, event: AgentEvent) -> None:
        self.watch.happened(event)
        self._told(event)

    def _told(self, event: AgentEvent) -> None:
        """Write it down; whoever watches the attempt hears of it before the journal's bound."""
        fields = self._setup.kept(event, self._secrets)
        if event.kind == "agent.decision" and fields.get("by") == "person":
            fields["by"] = self._answered_by.get(str(fields.get("ask")), "person")
        if event.kind in _SESSIONS and (session := str(event.fields.get("session", ""))):
            self.workplace.note(session)
        self.daemon.post(AttemptEvent(self.task, self.epoch, event.kind, fields, self.actor))

    def given_up(self) -> Ended:
        """How it ends when this machine itself failed at it."""
        return self._ended("killed", reason=MISTAKE)

    def _ended(
        self,
        status: attempt_body.Status,
        outcome: Outcome | None = None,
        *,
        reason: str = "",
        fault: str = "",
        artefacts: tuple[str, ...] = (),
        **made: Any,
    ) -> Ended:
        reason = self._secrets.text(reason)
        if fault:
            return attempt_body.refusal(self.task, self.epoch, fault, reason[:2000])
        summary = reason[:400]
        if outcome is not None:
            summary = self._secrets.text(self._summary(outcome) + self._noted)
        return attempt_body.finish(
            self.task, self.epoch, status, summary=summary, reason=reason[:2000],
            artefacts=[self._secrets.text(each) for each in artefacts],
            usage=self._sandbox.spending.usage(
                outcome.usage if outcome is not None else {}, began=self._running is not None
            ), **made,
        )  # fmt: skip
