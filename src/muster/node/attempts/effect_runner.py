"""The daemon's hands: attempts, fences, branches; everything that takes time outside.

Rule 1: whatever is begun here ends as exactly one event, also when it fails; the core waits for it.
Rule 2: an attempt's process tree is gone before its end is reported.
"""

import asyncio
import contextlib
import os
from collections.abc import Awaitable, Callable, Mapping
from functools import partial
from pathlib import Path
from typing import Any, Final, NamedTuple

from muster.agent import catalogue, start_commit
from muster.agent.catalogue import AgentEntry
from muster.agent.discovery import Discovery
from muster.agent.process import Runner
from muster.errors import MISTAKE, MISTAKES, Conflict, Exhausted, MusterError, NotFound, Unreachable
from muster.git import command as gits
from muster.git import ref, repository
from muster.git.cache import Origin
from muster.git.fence import Epoch
from muster.git.glob import matched
from muster.git.worktree import Worktrees
from muster.limits import EACH_MATCHES_MAX
from muster.node import event as ev
from muster.node.attempts import blob_transfer as holder
from muster.node.attempts import question, served
from muster.node.attempts.attempt import ENDS, Attempt
from muster.node.attempts.following import Following
from muster.node.attempts.line_count import counted
from muster.node.attempts.mirrors import Mirrors
from muster.node.attempts.promotion import Promotions
from muster.node.attempts.registers import Registers
from muster.node.attempts.workplace import left_behind, marks_of, sweep
from muster.node.counter import DECLARED
from muster.node.host import clock, disk, secret_store
from muster.node.host.enclosing import Enclosing
from muster.node.host.facts import logins_of, probe, servers_of
from muster.node.host.person_path import person_path
from muster.node.incarnations.own_incarnation import FactsChanged
from muster.node.incidents import Noticed
from muster.node.runtime import Runtime
from muster.node.services.losses import BLOBS, blobs_gone
from muster.node.services.schedules import AskRegister, MoveRegister
from muster.node.tasks.approvals import AnswerAttempt
from muster.node.tasks.attempt_body import AttemptEnded
from muster.node.tasks.bases import BaseFound, FindBase, Matched, MatchGlob
from muster.node.tasks.branches import BringBack, BroughtBack
from muster.node.tasks.keepers import Keepers, KeepMirror, Kept, Pulled, PullMirror
from muster.node.tasks.waivers import CountLines, LinesCounted
from muster.task.instruction import (
    Fenced,
    MoveBranch,
    Promoted,
    RaiseFence,
    StartAttempt,
    StopAttempt,
)
from muster.task.kinds import NO_EPOCH
from muster.task.kinds import Epoch as Pair
from muster.task.occurrences import ZONES_VERSION

DECLARED[__name__] = {
    "upkeep-failed": "A part of the hourly upkeep failed; it is tried again.",
    "blobs-swept": "Blobs that no entry names were removed.",
}

# What keeps a repository from being read for now: it is asked again.
PASSING: Final = (Unreachable, Conflict, Exhausted)
# The incident about what attempts left.
REMAINS: Final = "left-behind"


# Done outside of the loop, and answered by an event.
_WORKS: Final = (
    RaiseFence, MoveBranch, BringBack, MatchGlob, FindBase, CountLines, PullMirror, KeepMirror,
    AskRegister, MoveRegister)  # fmt: skip
# What moves something in a repository that is kept here, perhaps.
_MOVES: Final = (RaiseFence, MoveBranch)


class Work(NamedTuple):
    """How an effect that takes time is carried out; it ends as one event, also when it fails."""

    name: str
    do: Callable[[Any], Awaitable[ev.Event]]
    failed: Callable[[Any], ev.Event]


class EffectRunner:
    """What the daemon does for its core."""

    def __init__(self, daemon: Runtime) -> None:
        self.daemon = daemon
        self.branches = Promotions(self, daemon.core)
        home = daemon.home
        self.repos = Path(home.repos)
        self.mirrors = Mirrors(daemon, self.repos, home.mirrors)
        self.following = Following(daemon, self.repos, self.mirrors.tell)
        self.worktrees = Worktrees(home.repos_cache, Path(home.work))
        self.agents: Mapping[str, AgentEntry] = catalogue.load(home.path)
        self.discovery = Discovery(self.agents, daemon.machine.config.headless)
        self.runner = Runner(self.discovery, marks_of(home))
        self.enclosing = Enclosing()
        # With the person's PATH once it was asked for.
        self.environ: Mapping[str, str] = os.environ
        self.attempts: dict[tuple[str, Pair], Attempt] = {}
        # Who does what takes time, and how it ends where this machine fails at it: nobody else
        # asks again for that.
        registers = Registers(self)
        self._works: dict[type[ev.Effect], Work] = {
            RaiseFence: Work(
                "fence", self._raise_fence, lambda e: Fenced(e.task, e.epoch, MISTAKE)
            ),
            MoveBranch: Work("promote", self.branches.move,
                             lambda e: Promoted(e.task, e.epoch, e.commit, MISTAKE)),
            BringBack: Work(
                "branch",
                self.branches.bring_back,
                lambda e: BroughtBack(e.move.task, e.move.branch, e.move.repo, MISTAKE),
            ),
            MatchGlob: Work("match", self._match, lambda e: Matched(e.run, e.phase, (), MISTAKE)),
            CountLines: Work("count", partial(counted, self.start_of),
                             lambda e: LinesCounted(e.run, e.phase, None, MISTAKE)),
            FindBase: Work("base", self._find_base, lambda e: BaseFound(e.run, "", MISTAKE)),
            PullMirror: Work(
                "mirror", self.mirrors.pull, lambda e: Pulled(e.machine, e.repo, MISTAKE)
            ),
            KeepMirror: Work(
                "mirror", self.mirrors.keep, lambda e: Kept(e.machine, e.repo, MISTAKE)
            ),
            AskRegister: Work("register", registers.ask, registers.failed),
            MoveRegister: Work("register", registers.move, registers.failed),
        }  # fmt: skip
        assert self._works.keys() == set(_WORKS)
        # Unknown until it was looked at once: what was told before a restart may be gone.
        self._told: dict[Path, str] | None = None

    async def prepare(self) -> None:
        """Clear away what a crash left; what takes long is left to the first round of `upkeep`."""
        self.repos.mkdir(parents=True, exist_ok=True)
        path, _ = await asyncio.gather(
            person_path(self.daemon.machine.config.path, os.environ),
            self.worktrees.clear(await left_behind(self.daemon)),
        )
        served.clear(self.daemon.home)
        self.environ = {**os.environ, "PATH": path}
        self.mirrors.prepare()
        # Remove what no entry names. A database in doubt may have lost the entries that do.
        machine, core = self.daemon.machine, self.daemon.core
        if machine.doubts:
            return
        gone = machine.blobs.sweep(lambda name, claim: holder.is_named(core, name, claim))
        core.counters["blobs-swept"] += gone
        title = blobs_gone(core, machine.blobs)
        if title or core.incidents.is_open(BLOBS):
            self.daemon.post(Noticed(BLOBS, title))

    async def upkeep(self) -> None:
        """One round of what keeps the disk in order: remove what was set aside, pack repositories.

        What a failing disk or a stranger's files do to it is told, and the next round tries again.
        """
        await sweep(self.daemon, [each.workplace.path for each in self.attempts.values()])
        await self.worktrees.empty()
        self._tell_remains()
        now_s, folders = clock.read().wall_ms / 1000, (self.repos, *self.mirrors.folders())
        for work in (
            *(asyncio.to_thread(repository.sweep, each, now_s) for each in folders),
            *(repository.maintain(p) for e in folders for p in repository.listing(e).values()),
            self.worktrees.maintain(),
        ):
            try:
                await work
            except (MusterError, OSError):
                self.daemon.core.counters["upkeep-failed"] += 1

    def _tell_remains(self) -> None:
        """Name what could not be removed, once; and when it is gone."""
        remains = dict(self.worktrees.remains)
        incidents = self.daemon.core.incidents
        if self._told is None and not remains and not incidents.is_open(REMAINS):
            self._told = {}
        if remains == self._told:
            return
        self._told = remains
        title = ""
        if remains:
            path, why = min(remains.items())
            more = f", and {len(remains) - 1} more beside it" if len(remains) > 1 else ""
            title = f"{path}{more}: what an attempt left cannot be removed ({gits.clean(why)})"
            title += "; remove it as whoever owns what is in it"
        self.daemon.post(Noticed(REMAINS, title))

    async def close(self) -> None:
        """End every attempt and wait until nothing of it is left."""
        attempts = list(self.attempts.values())
        for attempt in attempts:
            attempt.stop(ENDS)
        if attempts:
            await asyncio.wait([asyncio.ensure_future(t.over.wait()) for t in attempts], timeout=15)

    async def facts(self, *, anew: bool = False) -> Mapping[str, Any]:
        """What this machine is and has, now; `anew` asks again who is logged in."""
        config = self.daemon.machine.config
        found = await self.discovery.found(self.environ)
        drivers = {name: each.driver for name, each in found.items() if each.driver}
        logins = await self.discovery.logins(found, self._variables(), anew=anew)
        facts = await probe(
            labels=config.labels,
            agents={name: each.version for name, each in found.items()},
            logins=logins_of(logins),
            drivers=drivers,
            repositories=list(repository.listing(self.repos)),
            slots=config.slots,
            path=self.environ["PATH"],
        )
        known = (config.mcp, self._variables(), self.environ["PATH"], self.agents, drivers)
        facts["tools"] |= await asyncio.to_thread(servers_of, *known)
        asked = (config.sandbox, self.environ["PATH"], clock.read().boot_ms)
        facts["tools"] |= await asyncio.to_thread(self.enclosing.fact, *asked)
        granted = (self.daemon.home.path, self.environ, clock.read().wall_ms)
        facts["tools"] |= await asyncio.to_thread(secret_store.told, *granted)
        facts["tools"]["tzdata"] = ZONES_VERSION
        return {**facts, **self.daemon.machine.whereabouts()}

    def _variables(self) -> dict[str, str]:
        """What agents may be given here: the environment, and what agents.env says."""
        file: dict[str, str] = {}
        # Attempts say what is wrong with it; it must not keep us from saying what we are.
        with contextlib.suppress(MusterError):
            file = self.daemon.home.agent_variables()
        return {**self.environ, **file}

    async def _look_at_login(self, attempt: Attempt) -> None:
        """What the attempt showed of its agent's login, told to the fleet where it is news."""
        news = bool(attempt.logged_in) and self.discovery.succeeded(attempt.agent)
        if attempt.logged_in is False and attempt.agent in self.agents:
            self.discovery.refused(attempt.agent, self._variables())
            news = True
        if news:
            self.daemon.post(FactsChanged(await self.facts()))

    # --- effects ------------------------------------------------------------------------------

    @ev.effect(StartAttempt)
    def start_attempt(self, effect: StartAttempt) -> None:
        attempt = Attempt(self.daemon, effect)
        self.attempts[attempt.task, attempt.epoch] = attempt
        self.daemon.supervisor.run("attempt", self._attempt(attempt))

    @ev.effect(StopAttempt)
    def stop_attempt(self, effect: StopAttempt) -> None:
        if (found := self.attempts.get((effect.task, effect.epoch))) is not None:
            found.stop(effect.reason)

    @ev.effect(AnswerAttempt)
    def answer_attempt(self, effect: AnswerAttempt) -> None:
        if (found := self.attempts.get((effect.task, effect.epoch))) is not None:
            found.answer(effect.ask, effect.by, effect.word)

    @ev.effect(*_WORKS)
    def begin(self, effect: ev.Effect) -> None:
        work = self._works[type(effect)]
        self.daemon.supervisor.run(work.name, self._end(work, effect))

    async def _end(self, work: Work, effect: ev.Effect) -> None:
        try:
            ended = await work.do(effect)
        except (OSError, *MISTAKES):
            self.daemon.post(work.failed(effect))
            raise
        if isinstance(effect, _MOVES):
            self.mirrors.tell(effect.repo)
        self.daemon.post(ended)

    async def relieve(self) -> str:
        """End the attempt that wrote most of a full disk; its task, "" where none wrote much."""
        attempts = [attempt for attempt in self.attempts.values() if not attempt.is_to_blame]
        sizes = [(await attempt.written_bytes(), attempt) for attempt in attempts]
        size, attempt = max(sizes, key=lambda each: each[0], default=(0, None))
        if attempt is None or size < disk.MUCH_BYTES:
            return ""
        # It fails for that, and is not tried on another machine.
        attempt.is_to_blame = True
        wrote = f"this attempt wrote {size >> 20} MiB of it"
        attempt.stop(f"the disk of this machine is full, and {wrote}")
        return f"task {attempt.task[:12]}"

    async def _attempt(self, attempt: Attempt) -> None:
        # A mistake of ours must not leave a slot taken for ever by an attempt that never ends.
        ended = attempt.given_up()
        try:
            ended = await attempt.run()
        finally:
            attempt.over.set()
            self.attempts.pop((attempt.task, attempt.epoch), None)
            self.daemon.post(AttemptEnded(ended))
            self._tell_remains()
        await self._look_at_login(attempt)

    def place_of(self, repo: str) -> tuple[Path | None, str]:
        """Where a repository is: our own folder, or the address of the machine that keeps it."""
        return self.mirrors.place_of(repo)

    async def _raise_fence(self, effect: RaiseFence) -> Fenced:
        reason, newest = "", NO_EPOCH
        try:
            path, url = self.place_of(effect.repo)
            where = path or await self.worktrees.refresh(Origin(effect.repo, url))
            await self.mirrors.check_start(where, effect.repo, effect.task)
            await ref.register(where, effect.task, Epoch(*effect.epoch), url)
        except MusterError as error:
            reason = str(error)
            # The epoch that our own repository's fence holds, where anybody can tell.
            with contextlib.suppress(MusterError):
                path, _ = self.place_of(effect.repo)
                held = await ref.epoch(path, effect.task) if path is not None else None
                newest = NO_EPOCH if held is None else (held.incarnation, held.counter)
        return Fenced(effect.task, effect.epoch, reason, newest)

    async def _match(self, effect: MatchGlob) -> Matched:
        found: tuple[str, ...] = ()
        reason, again = "", False
        try:
            listed = b""
            # What several phases before it made is merged when it starts: every file counts.
            for each in effect.commit.split() or [""]:
                where, commit = await self.start_of(effect.repo, each)
                tree = ["ls-tree", "-r", "-z", "--name-only", commit]
                listed += (await gits.run_async(tree, where)).out
            # In a thread: a large repository's names take a while, and everybody else waits.
            found, reason = await asyncio.to_thread(matched, listed, effect.glob)
        except PASSING as error:
            reason, again = str(error), True
        except MusterError as error:
            reason = str(error)
        told = found[: EACH_MATCHES_MAX + 1]
        return Matched(effect.run, effect.phase, told, reason, count=len(found), again=again)

    async def _find_base(self, effect: FindBase) -> BaseFound:
        commit, reason, again, note = "", "", False, ""
        try:
            note = await self.fresh(effect.repo)
            if effect.base or effect.newest:
                _, commit = await self.start_of(effect.repo, effect.base)
        except PASSING as error:
            reason, again = str(error), True
        except MusterError as error:
            reason = str(error)
        if not effect.base:
            # What it has is asked again when a task starts; who waits for what is said there.
            return BaseFound(effect.run, commit, note=note)
        return BaseFound(effect.run, commit, reason, again, note)

    async def fresh(self, repo: str) -> str:
        """Let a repository follow its origin, whoever keeps it; what to know where it could not."""
        try:
            path, _ = self.place_of(repo)
        except NotFound:
            # Whoever needs it says so.
            return ""
        if path is not None:
            return await self.following.fresh(repo)
        core = self.daemon.core
        keeper = core.part(Keepers).keeper(repo)
        if keeper is None:
            return ""
        answer = await question.ask(self.daemon, keeper.machine, "repo.follow", {"name": repo})
        if answer["ok"]:
            said = answer.get("value")
            return str(said.get("note", "")) if isinstance(said, dict) else ""
        error = answer["error"]
        # An older machine knows no such verb, and follows none.
        if error.get("kind") == NotFound.__name__:
            return ""
        why = gits.clean(str(error.get("text", "")))
        return (
            f"repository {repo} is as {keeper.name} has it: whether its origin has more is not "
            f"known ({why})"
        )

    async def start_of(self, repo: str, base: str) -> tuple[Path, str]:
        """A repository that has the commit which `base` names, and that commit.

        "" names the newest of its default branch. Raises: NotFound, Unreachable.
        """
        path, url = self.place_of(repo)
        where = path or await self.worktrees.refresh(Origin(repo, url))
        return where, await start_commit.commit(where, url or str(where), repo, base)

    # --- questions -----------------------------------------------------------------------------

    async def ask(self, machine: str, verb: str, args: Mapping[str, Any]) -> Any | None:
        """A verb of another machine; its value, None when it is away or refused."""
        answer = await question.ask(self.daemon, machine, verb, args)
        return answer.get("value") if answer["ok"] else None
