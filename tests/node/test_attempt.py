"""One attempt, from its folder to its pushed commit, with hands that do what a test says."""

import asyncio
import base64
import errno
import json
import os
import shutil
from collections.abc import Callable
from hashlib import sha256
from pathlib import Path
from types import SimpleNamespace
from typing import Any
from urllib.parse import quote

import msgspec
import pytest
from tests.node.cores import Cores
from tests.promise import proves

from muster.agent.base import AgentEvent, AttemptOrder, Outcome
from muster.agent.catalogue import BUILT_IN, Start
from muster.agent.servers import Server
from muster.channel.backoff import Backoff
from muster.errors import Broken, Conflict, Damaged, Exhausted, NotFound, Refused, Unreachable
from muster.git.collection import Collected
from muster.node import event as ev
from muster.node.attempts import attempt, deliverables, inputs, unfinished
from muster.node.attempts.attempt import Attempt
from muster.node.attempts.effect_runner import EffectRunner as NodeHands
from muster.node.call.authorize import Authorizer
from muster.node.host import disk
from muster.node.host.config import Config
from muster.node.host.home import Home
from muster.node.host.secret_store import SecretStore
from muster.node.services import digests
from muster.node.services.showings import DigestTold
from muster.node.tasks.attempt_body import AttemptEvent
from muster.store.blobs import Blobs
from muster.task.instruction import StartAttempt
from muster.task.kinds import AttemptFinish, AttemptRefuse, TaskAssign, TaskOpen
from muster.task.secret import Grant

TASK, COMMIT = "ab" * 16, "c" * 40


class Running:
    is_agent = is_steered = False

    def __init__(self, outcome: Outcome | None) -> None:
        self.ended: asyncio.Future[Outcome] = asyncio.get_running_loop().create_future()
        if outcome is not None:
            self.ended.set_result(outcome)

    async def wait(self) -> Outcome:
        return await self.ended

    def cancel(self, reason: str, *, hurry: bool = False) -> None:
        if not self.ended.done():
            self.ended.set_result(Outcome(status="cancelled", summary=reason))

    def steer(self, words: str) -> None:
        pass


class EffectRunner:
    """Runner and workshop in one; `outcomes` are those of the agent, then of its check."""

    def __init__(self, work: Path, *outcomes: Outcome | None) -> None:
        self.outcomes = list(outcomes)
        self.work = work
        self.ordered: list[AttemptOrder] = []
        self.log: list[str] = []
        self.ran, self.pushed = asyncio.Event(), asyncio.Event()
        self.pushes: list[Exception | None] = [None]
        self.opens: list[Exception | None] = [None]
        self.missing: tuple[str, ...] = ()
        self.agents: dict[str, Any] = dict(BUILT_IN)
        self.environ = os.environ
        self.starts: list[Exception] = []
        self.collects: list[Exception] = []
        self.does: Callable[[], None] = lambda: None
        self.says: dict[str, Any] = {"text": "hi"}
        self.runner = self.worktrees = self.discovery = self
        self.on_event: Callable[[AgentEvent], None] = lambda _e: None
        self.enclosing = SimpleNamespace(obstacle=lambda *_: None)

    async def start(
        self, order: AttemptOrder, on_event: Callable[[AgentEvent], None], _serve: object = None
    ) -> Running:
        if self.starts:
            raise self.starts.pop()
        self.ordered.append(order)
        self.log.append("run")
        self.ran.set()
        self.on_event = on_event
        on_event(AgentEvent("agent.output", self.says))
        self.does()
        return Running(self.outcomes.pop(0))

    async def start_of(self, agent: str, _path: str) -> Start:
        return Start("shell", [], {})

    def place_of(self, repo: str) -> tuple[Path | None, str]:
        return None, f"muster::hub/{repo}"

    async def open(self, *_: object) -> Any:
        self.log.append("open")
        if self.opens and (error := self.opens.pop(0)):
            raise error
        return SimpleNamespace(
            path=self.work,
            base="b" * 40,
            collect=self.collect,
            cache=self.work / "cache",
            notes=self.work / "notes",
        )

    async def collect(self, *_: object) -> Collected:
        self.log.append("collect")
        if self.collects:
            raise self.collects.pop()
        return Collected(COMMIT, "b" * 40, ("a.txt",), 1, self.missing, ())

    async def push(self, _tree: object, commit: str) -> str:
        self.log.append("push")
        self.pushed.set()
        if self.pushes and (error := self.pushes.pop(0)):
            raise error
        return commit

    async def close(self, _tree: object) -> None:
        self.log.append("close")

    async def discard(self, path: Path) -> None:
        shutil.rmtree(path, ignore_errors=True)


@pytest.fixture(autouse=True)
def _hurried(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Backoff, "failed", lambda _self: 1)
    for each in (attempt, unfinished):
        monkeypatch.setattr(each, "collect", lambda tree, *_: tree.collect())


@pytest.fixture
def home(tmp_path: Path) -> Home:
    made = Home(tmp_path)
    made.create()
    return made


def trial(
    home: Home, effects: EffectRunner, *, repo: str = "main", core: Any = None,
    foreign: bool = False, **template: Any,
) -> Attempt:  # fmt: skip
    core = core or Cores("hub")["hub"].core
    posted: list[ev.Event] = []
    daemon: Any = SimpleNamespace(
        core=core, effects=effects, home=home, posted=posted, post=posted.append, serve=print,
        machine=SimpleNamespace(config=Config(), agent_variables=(), blobs=Blobs(Path(home.blobs))),
    )  # fmt: skip
    shape = {"v": 1, "agent": ["shell"], "do": "true", **template}
    opened = TaskOpen(task=TASK, template=shape, repo=repo)
    assign = TaskAssign(TASK, (1, 1), core.machine, shape["agent"][0], 30_000)
    return Attempt(daemon, StartAttempt(opened, assign, {}, core.machine, foreign))


OK = Outcome(status="ok", exit_code=0, tail="all\nwell\n")
NOT_LOGGED_IN = Outcome(status="error", fault="agent", summary="the agent is not logged in")


@proves("node.attempt-done-means")
def test_files_with_values_that_cannot_be_removed_are_counted(home):
    made = trial(home, EffectRunner(home.path, OK))
    counters = made.daemon.core.counters
    inputs.discard(made.daemon, made.start)
    folder = inputs.folder_of(made.daemon, made.start)
    inputs.put(folder, "text", "a value")
    inputs.discard(made.daemon, made.start)
    assert not folder.exists()
    assert counters["values-left"] == 0
    inputs.put(folder, "text", "a value")
    (folder / "what is no file").mkdir()
    inputs.discard(made.daemon, made.start)
    assert counters["values-left"] == 1


@proves("node.attempt-done-means")
def test_a_good_attempt_is_run_checked_collected_pushed_and_cleared_away(home):
    effects = EffectRunner(home.path, OK, OK)
    made = trial(home, effects, check="true")
    end = asyncio.run(made.run())
    assert (end.status, end.commit, end.summary) == ("done", COMMIT, "well")
    assert effects.log == ["open", "run", "run", "collect", "push", "close"]
    assert "MUSTER_CAPABILITY" in effects.ordered[0].env
    assert "MUSTER_CAPABILITY" not in effects.ordered[1].env, "a check speaks for nobody"
    said = [e.kind if isinstance(e, AttemptEvent) else e.stage for e in made.daemon.posted]
    agent = "agent.output"
    assert said == [
        "fetching", "working", "agent.sandbox", agent, "checking", agent, "delivering",
        "clearing up",
    ]  # fmt: skip


@proves("node.attempt-done-means")
@pytest.mark.parametrize(
    ("outcomes", "missing", "says"),
    [
        ([Outcome(status="failed", exit_code=1, summary="no")], (), "no"),
        ([Outcome(status="timeout", summary="too long")], (), "too long"),
        ([Outcome(status="error", summary="the shim died")], (), "the shim died"),
        ([OK, Outcome(status="failed", exit_code=2, tail="2 tests failed")], (), "2 tests failed"),
        ([OK, OK], ("a.txt", "b.txt"), "a.txt, b.txt"),
    ],
)
def test_whatever_is_not_good_fails_the_attempt_and_pushes_nothing(home, outcomes, missing, says):
    effects = EffectRunner(home.path, *outcomes)
    effects.missing = missing
    end = asyncio.run(trial(home, effects, check="true").run())
    assert (end.status, end.commit) == ("failed", "")
    assert says in end.reason
    assert "push" not in effects.log
    assert effects.log[-1] == "close"


@proves("agent.secrets-stay-here")
@pytest.mark.parametrize(
    ("collected", "says"),
    [
        ({"messages": "use ghp_0123456789abcdef"}, "a message of the agent's own commits"),
        ({"names": "a.txt\nghp_0123456789abcdef.txt"}, "the name of a changed file"),
        ({"messages": "a fix"}, ""),
        # What is as short as a word of the language is one.
        ({"messages": "a test password: postgres", "names": "postgres.conf"}, ""),
        # A name, an option or an address is kept out of what is written down, and said in commits.
        ({"messages": "Muster Build Bot bot@company.example\nUse -Dfile.encoding=UTF-8"}, ""),
    ],
)
def test_a_commit_that_says_a_secret_is_not_pushed(home, monkeypatch, collected, says):
    monkeypatch.setenv("MY_TOKEN", "ghp_0123456789abcdef")
    env = (
        "MY_TOKEN=ghp_0123456789abcdef\nPGPASSWORD=postgres\nGIT_AUTHOR_NAME=Muster Build Bot\n"
        "GIT_AUTHOR_EMAIL=bot@company.example\nMAVEN_OPTS=-Dfile.encoding=UTF-8\n"
    )
    (Path(home.path) / "agents.env").write_text(env)
    (Path(home.path) / "agents.env").chmod(0o600)
    effects = EffectRunner(home.path, OK)
    found = Collected(COMMIT, "b" * 40, ("a.txt",), 1, (), ())._replace(**collected)

    async def collect(*_: object) -> Collected:
        return found

    effects.collect = collect  # type: ignore[method-assign]
    end = asyncio.run(trial(home, effects).run())
    assert (end.status, "push" in effects.log) == (("failed", False) if says else ("done", True))
    assert says in end.reason
    assert "ghp_" not in end.reason


ENDED = Outcome(status="cancelled", summary="the shim was told to end")


@proves("agent.ends-its-shim")
def test_an_agent_that_ends_its_own_attempt_fails_once(home, monkeypatch):
    monkeypatch.setattr(attempt, "_TOLD_S", 0.01)
    end = asyncio.run(trial(home, EffectRunner(home.path, ENDED)).run())
    assert (end.status, end.reason) == ("failed", "the shim was told to end")


@proves("agent.ends-its-shim")
def test_an_attempt_that_a_shutdown_reached_before_its_daemon_is_not_failed(home):
    async def go():
        one = trial(home, effects := EffectRunner(home.path, ENDED))
        running = asyncio.create_task(one.run())
        await effects.ran.wait()
        one.stop("this machine goes down")
        return await running

    end = asyncio.run(go())
    assert (end.status, end.reason) == ("killed", "this machine goes down")


@proves("git.prerequisites-merged")
def test_a_conflict_names_the_phases_that_a_person_wrote(home):
    effects = EffectRunner(home.path, OK)
    given = []

    async def open(_origin: object, _task: str, _epoch: object, bases: Any, _by: object) -> Any:
        given.extend(base.label for base in bases)
        return SimpleNamespace(path=effects.work, collect=effects.collect)

    effects.open = open  # type: ignore[method-assign]
    one = trial(home, effects)
    left, right, old = "1" * 40, "2" * 40, "3" * 40
    opened = msgspec.structs.replace(one.start.open, base=f"{left} {right} {old}")
    one.start = msgspec.structs.replace(one.start, open=opened)
    row = SimpleNamespace(phase="left", instance="", commit_id=left)
    of_several = SimpleNamespace(phase="lint", instance="a.md", commit_id=right)
    one._setup.settled_before = lambda: [row, of_several]  # type: ignore[method-assign]
    asyncio.run(one.run())
    assert given == ["left", "lint[a.md]", "333333333333"]


@proves("task.trust-no-machines-fault", "git.prerequisites-merged")
def test_an_order_that_can_begin_nowhere_is_no_failure_of_an_agent_that_never_began(home):
    effects = EffectRunner(home.path, OK)
    effects.opens = [Refused("The results of test and lint conflict in readme.md.")]
    end = asyncio.run(trial(home, effects).run())
    assert (end.reason, "run" in effects.log) == ("no-start", False)
    assert end.text == "The results of test and lint conflict in readme.md."


@proves("agent.shell-stops")
@pytest.mark.parametrize(("key", "shell"), [({}, "sh"), ({"shell": "bash"}, "bash")])
def test_the_shell_that_a_phase_names_reads_its_text_and_its_check(home, key, shell):
    effects = EffectRunner(home.path, OK, OK)
    asyncio.run(trial(home, effects, check="true", **key).run())
    assert [order.shell for order in effects.ordered] == [shell, shell]


@proves("agent.shell-stops")
def test_a_shell_never_sees_the_carriage_returns_of_a_text_from_windows(home):
    effects = EffectRunner(home.path, OK, OK)
    asyncio.run(trial(home, effects, do="true\r\nfalse\r\n", check="true\r\n").run())
    assert [order.command for order in effects.ordered] == ["true\nfalse\n", "true\n"]


@proves("node.old-specs-end")
@pytest.mark.parametrize("key", ["do", "check"])
def test_source_that_an_older_version_took_with_a_reference_fails_before_anything_runs(home, key):
    effects = EffectRunner(home.path, OK, OK)
    one = trial(home, effects, **{key: "test '${a.summary}'"})
    given = msgspec.structs.replace(one.start.open, values={"a": {"summary": "fine"}})
    one.start = msgspec.structs.replace(one.start, open=given)
    end = asyncio.run(one.run())
    assert end.reason == "no-start"
    assert "refers to ${a.summary} in shell source" in end.text
    assert end.text.endswith('write "$MUSTER_A_SUMMARY"')
    assert effects.ordered == []


@proves("node.patient-push")
def test_a_repository_out_of_reach_is_asked_again_and_the_work_is_kept(home):
    effects = EffectRunner(home.path, OK)
    effects.opens = [Unreachable("away"), None]
    effects.pushes = [Unreachable("away"), Unreachable("away"), None]
    end = asyncio.run(trial(home, effects).run())
    assert (end.status, end.commit) == ("done", COMMIT)
    assert effects.log == ["open", "open", "run", "collect", "push", "push", "push", "close"]


def shown_to_all(path):
    path.touch()
    path.chmod(0o644)


@proves("agent.told-faults")
@pytest.mark.parametrize(
    ("prepare", "fault", "says"),
    [
        (lambda _, h: h.opens.insert(0, Broken("the cache is a file")), "repo", "is a file"),
        (lambda _, h: h.opens.insert(0, OSError(13, "denied")), "repo", "denied"),
        (lambda _, h: h.starts.append(NotFound("no agent x here")), "agent", "no agent x"),
        (lambda _, h: h.outcomes.insert(0, NOT_LOGGED_IN), "agent", "not logged in"),
        (lambda home, _: shown_to_all(home.path / "agents.env"), "machine", "chmod 600"),
    ],
)
def test_what_fails_before_the_agent_begins_names_the_part_of_the_machine(
    home, prepare, fault, says
):
    effects = EffectRunner(home.path, OK)
    prepare(home, effects)
    end = asyncio.run(trial(home, effects).run())
    assert end.reason == f"fault-{fault}"
    assert says in end.text


@proves("node.agents-fault")
@pytest.mark.parametrize(
    ("error", "status"),
    [
        (Broken("There is no folder /x"), "failed"),
        (NotFound("HEAD is gone"), "failed"),
        (PermissionError(13, "denied"), "failed"),
        (OSError(errno.EMFILE, "Too many open files"), "killed"),
        (Broken("git: error: No space left on device"), "killed"),
        (Damaged("the copy of the repository is damaged"), "killed"),
    ],
)
def test_what_an_agent_broke_fails_once_and_what_the_machine_lacks_is_a_loss(home, error, status):
    effects = EffectRunner(home.path, OK)
    effects.collects.append(error)
    end = asyncio.run(trial(home, effects).run())
    assert end.status == status
    assert str(error) in end.reason


@proves("node.patient-push")
@pytest.mark.parametrize("what", [Exhausted("no room"), OSError(errno.ENOSPC, "no room")])
def test_a_result_waits_for_room_on_the_disk_and_for_a_reference_that_is_locked(home, what):
    effects = EffectRunner(home.path, OK)
    effects.collects = [what, what]
    effects.pushes = [Exhausted("the hub's disk is full"), Conflict("failed to update ref"), None]
    end = asyncio.run(trial(home, effects).run())
    assert (end.status, end.commit) == ("done", COMMIT)
    assert effects.log.count("run") == 1, "what the agent did is kept"
    assert effects.log.count("collect") == 3


@proves("node.patient-push")
def test_a_blob_waits_for_room_on_the_disk(home, monkeypatch):
    collect, left = deliverables.collect, [Exhausted("no room"), OSError(errno.ENOSPC, "no room")]

    def sometimes(*args: Any) -> Any:
        if left:
            raise left.pop()
        return collect(*args)

    monkeypatch.setattr(deliverables, "collect", sometimes)
    effects = EffectRunner(home.path, OK)
    end = asyncio.run(trial(home, effects, repo="").run())
    assert end.status == "done"
    assert left == []


@proves("node.agents-fault")
def test_an_agent_that_fails_on_a_disk_that_others_filled_is_a_loss(home, monkeypatch):
    failed = Outcome(status="failed", summary="exit code 1: no space left")
    free = [1 << 40]
    monkeypatch.setattr(disk, "free_bytes", lambda _folder: free[0])
    effects = EffectRunner(home.path, failed)
    effects.does = lambda: free.insert(0, 4096)
    end = asyncio.run(trial(home, effects).run())
    assert end.status == "killed"
    assert "the disk here is full" in end.reason


@proves("node.agents-fault")
@pytest.mark.parametrize(
    ("writes", "counted", "status"),
    [(0, 9, "killed"), (disk.MUCH_BYTES, 9, "failed"), (0, 2, "failed"), (0, 3, "failed")],
    ids=["was given", "wrote", "was given too many files", "wrote too many files"],
)
def test_of_a_full_disk_an_agent_answers_for_what_it_wrote(
    home, tmp_path, monkeypatch, writes, counted, status
):
    """A checkout is large before the agent begins."""
    work, free = tmp_path / "checkout", [1 << 40]
    work.mkdir()
    (work / "given").write_bytes(b"x" * 2 * disk.MUCH_BYTES)
    (work / "more").write_bytes(b"x")
    monkeypatch.setattr(disk, "free_bytes", lambda _folder: free[0])
    monkeypatch.setattr(disk, "FILES_MAX", counted)
    effects = EffectRunner(work, Outcome(status="failed", summary="exit code 1: no space left"))

    def fill() -> None:
        (work / "written").write_bytes(b"x" * writes)
        free[0] = 4096

    effects.does = fill
    assert asyncio.run(trial(home, effects).run()).status == status


@proves("node.agents-fault")
@pytest.mark.parametrize("writes", [0, disk.MUCH_BYTES])
def test_a_full_disk_ends_the_attempt_that_wrote_and_none_for_its_checkout(home, tmp_path, writes):
    work = tmp_path / "checkout"
    work.mkdir()
    (work / "given").write_bytes(b"x" * 2 * disk.MUCH_BYTES)
    effects = EffectRunner(work, None)
    effects.does = lambda: (work / "written").write_bytes(b"x" * writes)
    made = trial(home, effects)
    machine: Any = SimpleNamespace(attempts={(TASK, (1, 1)): made})

    async def scenario() -> tuple[str, AttemptFinish]:
        assert await NodeHands.relieve(machine) == "", "it has not begun"
        running = asyncio.create_task(made.run())
        await effects.ran.wait()
        told = await NodeHands.relieve(machine)
        made.stop("enough")
        return told, await running

    told, end = asyncio.run(scenario())
    assert (told, end.status) == ((f"task {TASK[:12]}", "failed") if writes else ("", "killed"))
    assert not writes or "this attempt wrote 4 MiB" in end.reason


@proves("node.agents-fault")
def test_no_agent_begins_on_a_disk_without_room(home, monkeypatch):
    monkeypatch.setattr(disk, "free_bytes", lambda _folder: 4096)
    effects = EffectRunner(home.path, OK)
    end = asyncio.run(trial(home, effects).run())
    assert end.reason == "fault-machine"
    assert "disk of this machine is full" in end.text
    assert "run" not in effects.log


@proves("node.agents-fault")
@pytest.mark.parametrize("left", ["nothing", "link", "other"])
@pytest.mark.parametrize("who", ["agent", "check"])
def test_an_agent_that_removes_or_replaces_its_folder_fails(home, left, who):
    work = home.path / "here"
    work.mkdir()
    effects = EffectRunner(work, OK, OK)

    def remove() -> None:
        if len(effects.ordered) < (1 if who == "agent" else 2):
            return
        work.rename(home.path / "away")
        if left == "link":
            work.symlink_to(home.path / "away")
        elif left == "other":
            work.mkdir()

    effects.does = remove
    end = asyncio.run(trial(home, effects, check="true").run())
    assert end.status == "failed"
    assert "removed its own work folder" in end.reason
    assert "collect" not in effects.log


@proves("node.secrets-stay-out")
def test_no_text_that_leaves_an_attempt_holds_a_secret_of_its_machine(home, monkeypatch):
    secret = "tok-A1b2C3d4E5A1b2C3d4E5"
    home.put("agents.env", f"DEPLOY_TOKEN={secret}\n".encode())
    said = Outcome(status="failed", exit_code=1, summary=f"no {secret}", tail=f"{secret}\n")
    effects = EffectRunner(home.path, said)
    effects.says = {"text": secret, secret: [secret]}
    made = trial(home, effects)
    end = asyncio.run(made.run())
    assert "DEPLOY_TOKEN" not in effects.ordered[0].env, "it is not named for attempts"
    assert effects.ordered[0].secrets["DEPLOY_TOKEN"] == secret
    assert effects.ordered[0].env["MUSTER_CAPABILITY"] in effects.ordered[0].secrets.values()
    assert end.reason == end.summary == "no [DEPLOY_TOKEN]"
    assert secret not in repr(end) + repr(made.daemon.posted)
    effects = EffectRunner(home.path, OK)
    effects.collects.append(Refused(f"{secret} is a link"))
    assert asyncio.run(trial(home, effects).run()).reason == "[DEPLOY_TOKEN] is a link"


@proves("node.secret-is-no-value")
def test_a_value_that_held_a_secret_is_handed_to_nobody_and_others_are_whole(home):
    said = Outcome(status="ok", tail="key [A_TOKEN]\n", summary="well", masked=("A_TOKEN",))
    end = asyncio.run(trial(home, EffectRunner(home.path, said)).run())
    assert end.status == "done"
    assert end.values["withheld"] == "output"
    plain = Outcome(status="ok", tail="a [A_TOKEN] is a name\n", summary="well")
    end = asyncio.run(trial(home, EffectRunner(home.path, plain)).run())
    assert "withheld" not in end.values
    assert end.values["output"] == "a [A_TOKEN] is a name\n"


@proves("node.patient-push")
def test_waiting_for_a_repository_ends_when_the_lease_does(home):
    effects = EffectRunner(home.path, OK)
    effects.pushes = [Unreachable("away")] * 10_000

    async def lose() -> AttemptFinish:
        made = trial(home, effects)
        running = asyncio.ensure_future(made.run())
        await effects.pushed.wait()
        made.stop("the lease could not be renewed in time")
        async with asyncio.timeout(5):
            return await running

    end = asyncio.run(lose())
    assert (end.status, end.commit) == ("killed", "")
    assert effects.log[-1] == "close"


@proves("node.patient-push")
def test_a_repository_that_refuses_is_not_asked_again(home):
    effects = EffectRunner(home.path, OK)
    effects.pushes = [Refused("epoch 1-1 is stale")]
    end = asyncio.run(trial(home, effects).run())
    assert (end.status, end.commit) == ("failed", "")
    assert "stale" in end.reason
    assert effects.log.count("push") == 1


@proves("node.attempt-stops")
def test_an_attempt_stopped_before_it_began_runs_nothing(home):
    effects = EffectRunner(home.path)
    made = trial(home, effects)
    made.stop("cancelled")
    made.stop("again")
    end = asyncio.run(made.run())
    assert (end.status, end.reason) == ("killed", "cancelled")
    assert effects.log == ["open", "close"]


@proves("node.attempt-stops")
def test_an_attempt_stopped_while_it_runs_is_killed_and_pushes_nothing(home):
    effects = EffectRunner(home.path, None)

    async def cancel() -> AttemptFinish:
        made = trial(home, effects)
        running = asyncio.ensure_future(made.run())
        await effects.ran.wait()
        made.stop("not wanted any more")
        return await running

    end = asyncio.run(cancel())
    assert (end.status, end.reason) == ("killed", "not wanted any more")
    assert effects.log == ["open", "run", "close"]


@proves("node.attempt-stops")
def test_processes_that_cannot_be_ended_are_named(home):
    effects = EffectRunner(home.path, Outcome(status="cancelled", survivors=(41, 42)))
    end = asyncio.run(trial(home, effects).run())
    assert end.status == "killed"
    assert "41, 42" in end.reason


@proves("node.attempt-done-means")
def test_without_a_repository_the_work_folder_is_fresh_and_gone_afterwards(home):
    effects = EffectRunner(home.path, OK)
    made = trial(home, effects, repo="", deliver=["missing.txt"])
    folder = Path(home.work) / f"{TASK}-1-1"
    folder.mkdir(parents=True)
    (folder / "old").touch()
    end = asyncio.run(made.run())
    assert (end.status, end.reason) == ("failed", "promised and not there: missing.txt")
    assert effects.ordered[0].cwd == str(folder)
    assert not folder.exists()
    assert effects.log == ["run"]


def offering(home: Home, effects: EffectRunner, **template: Any) -> Attempt:
    """An attempt on a machine whose owner offers a server."""
    made = trial(home, effects, repo="", agent=["claude"], **template)
    docs = Server(command=("sh", "-c", "docs"), env=("DOCS_TOKEN",))
    made.daemon.machine.config = Config(mcp={"docs": docs})
    return made


@proves("agent.mcp-per-task")
def test_an_agent_has_the_servers_that_its_phase_names_and_their_secrets_stand_nowhere(home):
    secret = "docs-4f1c88-secret"
    home.put("agents.env", f"DOCS_TOKEN={secret}\n".encode())
    (home.path / "agents.env").chmod(0o600)
    effects = EffectRunner(home.path, OK)
    effects.says = {"text": f"it said {secret}"}
    made = offering(home, effects, mcp=["docs"])
    asyncio.run(made.run())
    (order,) = effects.ordered
    (docs,) = order.mcp
    assert (docs["name"], docs["args"]) == ("docs", ["-c", "docs"])
    assert docs["env"] == [{"name": "DOCS_TOKEN", "value": secret}]
    assert order.mcp_env == {"DOCS_TOKEN": secret}
    assert "DOCS_TOKEN" not in order.env, "an agent that speaks ACP has it for the server alone"
    assert secret not in repr(made.daemon.posted)
    plain = EffectRunner(home.path, OK)
    asyncio.run(offering(home, plain).run())
    assert plain.ordered[0].mcp == (), "what is not named is not given"


@proves("agent.mcp-per-task")
@pytest.mark.parametrize(
    ("names", "why"), [(["docs"], "needs DOCS_TOKEN"), (["web"], "offers no MCP server web")]
)
def test_a_server_that_is_not_there_is_told_before_the_agent_is_asked_and_spares_other_work(
    home, names, why
):
    effects = EffectRunner(home.path, OK)
    end = asyncio.run(offering(home, effects, mcp=names).run())
    assert isinstance(end, AttemptRefuse)
    assert end.reason == "fault-agent", "neither all of the machine nor a repository is at fault"
    assert why in end.text
    assert effects.ordered == []


VERDICT = b'{"verdict": "accept"}'


@proves("spec.review-place-is-secret")
@pytest.mark.parametrize("agent", ["shell", "codex"])
def test_only_the_reviewer_itself_is_told_where_its_verdict_goes(home, agent):
    effects = EffectRunner(home.path, OK)
    order = {"review": "feature", "reviewers": ["verdict"], "agent": agent, "phase": "verdict"}
    one = trial(home, effects, **order)
    one.agent = one._setup.agent = agent

    async def against(tree: Any, _bases: object, _by: object) -> tuple[str, frozenset[str]]:
        tree.base = COMMIT
        return COMMIT, frozenset()

    effects.against = against  # type: ignore[attr-defined]
    effects.does = lambda: one._setup.verdict.write_bytes(VERDICT)  # type: ignore[union-attr]
    end = asyncio.run(one.run())
    assert (end.status, end.values["verdict"]) == ("done", "accept")
    (given,), place = effects.ordered, str(one._setup.verdict)
    told = {name for name, value in given.env.items() if place in value}
    if agent == "shell":
        assert told == set(given.shell_only) == {"MUSTER_VERDICT_FILE"}
    else:
        assert (told, given.shell_only) == (set(), ())
        assert place in given.prompt
    assert given.env["MUSTER_REVIEW_HEAD"] == COMMIT


# --- what it is told of what is known ----------------------------------------------------------


def knowing(text: str = "pass --no-lto") -> Any:
    """The core of a machine of whose repository something is known."""
    hub = Cores("hub")["hub"]
    args = {"key": "main/flag", "text": text.split(" "), "pin": True}
    assert hub.order("remember", "main/flag", args)["ok"]
    return hub.core


def events_of(made: Attempt, kind: type[Any]) -> list[Any]:
    return [each for each in made.daemon.posted if isinstance(each, kind)]


@proves("memory.prompt-by-reference")
def test_an_agent_is_told_what_is_known_first_and_the_journal_has_the_ids_of_it_alone(home):
    effects = EffectRunner(home.path, OK)
    made = trial(home, effects, core=knowing(), agent=["claude"], do="Build it.")
    effects.does = lambda: effects.on_event(
        AgentEvent("agent.prompt", {"agent": "claude", "text": effects.ordered[0].prompt})
    )
    asyncio.run(made.run())
    asked = effects.ordered[0].prompt
    head, _, own = asked.partition("\n\n")
    assert '[m1] op:alice, just now: main/flag: "pass --no-lto"' in head
    assert own == "Build it."
    (told,) = events_of(made, DigestTold)
    assert (told.actor, told.body.task, told.body.epoch) == ("claude@hub", TASK, (1, 1))
    assert told.body.sha256 == sha256(head.encode()).hexdigest()
    (said,) = [e.fields for e in events_of(made, AttemptEvent) if e.kind == "agent.prompt"]
    assert said == {
        "agent": "claude", "text": "Build it.", "memory": told.body.shown,
        "sha256": told.body.sha256,
    }  # fmt: skip
    # And the text that reached it is made again from that.
    assert digests.again(made.daemon.core, told.body) == head


@proves("memory.prompt-by-reference")
def test_a_prompt_of_which_the_remembered_part_cannot_be_told_apart_is_not_kept(home):
    effects = EffectRunner(home.path, OK)
    made = trial(home, effects, core=knowing(), agent=["claude"], do="Build it.")
    fields = {"agent": "claude", "text": "So: pass --no-lto. Build it."}
    effects.does = lambda: effects.on_event(AgentEvent("agent.prompt", fields))
    asyncio.run(made.run())
    (said,) = [e.fields for e in events_of(made, AttemptEvent) if e.kind == "agent.prompt"]
    assert "no-lto" not in str(said)


@proves("memory.helps-the-next-run")
def test_a_shell_finds_what_is_known_in_a_file_of_its_own_that_is_gone_afterwards(home):
    (home.path / "tree").mkdir()
    effects = EffectRunner(home.path / "tree", OK, OK)
    found = list[tuple[str, int, bool]]()

    def look() -> None:
        path = Path(effects.ordered[0].env["MUSTER_MEMORY"])
        inside = Path(effects.ordered[0].cwd) in path.parents
        found.append((path.read_text(), path.stat().st_mode & 0o777, inside))

    effects.does = look
    made = trial(home, effects, core=knowing(), check="true")
    asyncio.run(made.run())
    text, mode, inside = found[0]
    assert "pass --no-lto" in text
    assert (mode, inside) == (0o600, False)
    assert not Path(effects.ordered[0].env["MUSTER_MEMORY"]).exists()
    assert "MUSTER_MEMORY" not in effects.ordered[1].env, "a check is told nothing"


@proves("memory.helps-the-next-run")
@pytest.mark.parametrize("memory", ["none", {"read": []}])
def test_whoever_is_to_know_nothing_is_told_nothing_and_may_ask_for_nothing(home, memory):
    effects = EffectRunner(home.path, OK)
    core = knowing()
    made = trial(home, effects, core=core, agent=["claude"], do="Build it.", memory=memory)
    asyncio.run(made.run())
    assert effects.ordered[0].prompt == "Build it."
    assert events_of(made, DigestTold) == []
    (capability,) = core.part(Authorizer)._capabilities.values()
    assert "send" in capability.verbs
    reads = {"memory", "digest", "recall", "memory.standing"}
    assert not reads & set(capability.verbs)
    assert ("remember" in capability.verbs) == (memory != "none")


@proves("peer.task-speaks-to-nobody")
@pytest.mark.parametrize("agent", ["claude", "shell"])
def test_an_agent_that_another_fleet_asked_says_and_hands_on_nothing_here(home, agent):
    """Also where its order says nothing of memory: whoever checked that may be wrong."""
    hub, effects = Cores("hub")["hub"], EffectRunner(home.path, OK)
    made = trial(home, effects, core=hub.core, foreign=True, agent=[agent])
    asyncio.run(made.run())
    (capability,) = hub.core.part(Authorizer)._capabilities.values()
    assert capability.verbs == ()
    token = effects.ordered[0].env["MUSTER_CAPABILITY"]
    for verb, args in (
        ("send", {"to": "hub", "text": ["x"]}),
        ("delegate", {"text": ["x"], "agent": ["claude"]}),
        ("remember", {"key": "a", "text": ["x"]}),
        ("digest", {}),
    ):
        answer = hub.call(verb, args, capability=token)
        assert answer["error"]["kind"] == "Denied", answer
    assert not [*hub.entries("message.send"), *hub.entries("delegation.open")]


@proves("agent.first-answer")
def test_a_decision_is_that_of_who_answered_first(home):
    async def go():
        one = trial(home, effects := EffectRunner(home.path, None))
        running = asyncio.create_task(one.run())
        await effects.ran.wait()
        given: list[str] = []
        one._running = SimpleNamespace(answer=lambda _ask, word: given.append(word))
        one.answer("1", "op:alice", "allow")
        one.answer("1", "op:bob", "deny")
        effects.on_event(AgentEvent("agent.decision", {"ask": "1", "by": "person"}))
        running.cancel()
        await asyncio.wait([running])
        events = [e for e in one.daemon.posted if isinstance(e, AttemptEvent)]
        return events[-1].fields["by"]

    assert asyncio.run(go()) == "op:alice"


# --- secrets of the machine -----------------------------------------------------------------------

HUSH = "canary-4f1c88-of-an-attempt"
RELEASE = {"spec": "release", "phase": "publish", "secrets": ["DEPLOY_TOKEN"], "repo": ""}


def secretive(home, *grants, name="DEPLOY_TOKEN", value=HUSH):
    store = SecretStore(home.path)
    store.put(name, value, 1)
    for grant in grants or (Grant("shell", "release", "publish"),):
        store.grant(name, grant)
    return store


@proves("secret.one-attempt", "secret.told-by-name")
def test_an_attempt_has_the_secret_of_its_phase_its_check_and_others_have_none(home):
    store = secretive(home)
    store.put("NOBODYS", f"{HUSH}-2", 1)
    effects = EffectRunner(home.path, OK, OK)
    made = trial(home, effects, check="true", env={"DEPLOY_TOKEN": "of the spec"}, **RELEASE)
    asyncio.run(made.run())
    work, check = effects.ordered
    assert work.env["DEPLOY_TOKEN"] == HUSH, "the machine wins over the spec"
    assert HUSH not in repr(check.env)
    assert HUSH not in repr([work.prompt, work.command, work.mcp, work.mcp_env, work.mcp_toml])
    assert {"DEPLOY_TOKEN", "NOBODYS"} <= work.secrets.keys() & check.secrets.keys()
    told = [e for e in made.daemon.posted if getattr(e, "kind", "") == "agent.secrets"]
    assert [e.fields for e in told] == [{"names": ["DEPLOY_TOKEN"], "phase": "publish"}]
    before = [getattr(e, "kind", "") for e in made.daemon.posted]
    assert before.index("agent.secrets") < before.index("agent.output")
    assert HUSH not in repr(made.daemon.posted)
    # An attempt that names none has none, though it was granted it.
    plain = EffectRunner(home.path, OK)
    other = trial(home, plain, **{**RELEASE, "secrets": []})
    asyncio.run(other.run())
    assert HUSH not in repr(plain.ordered[0].env)
    assert "agent.secrets" not in [getattr(e, "kind", "") for e in other.daemon.posted]


@proves("secret.default-deny", "secret.taken-back")
@pytest.mark.parametrize(
    ("grant", "why"),
    [
        (Grant("claude", "release", "publish"), "is missing"),
        (Grant("shell", "release", "test"), "is missing"),
        (Grant("shell", "release", "publish", 1, until_ms=1), "ran out"),
    ],
)
def test_an_attempt_without_the_grant_is_never_begun_and_hears_why(home, grant, why):
    secretive(home, grant)
    effects = EffectRunner(home.path, OK)
    end = asyncio.run(trial(home, effects, **RELEASE).run())
    assert isinstance(end, AttemptRefuse)
    assert (end.reason, why in end.text) == ("fault-agent", True)
    assert "muster secret grant DEPLOY_TOKEN" in end.text
    assert effects.ordered == []


@proves("secret.not-handed-on")
def test_another_fleets_task_gets_no_secret_whatever_was_granted(home):
    secretive(home, Grant("*", "*", "*"))
    effects = EffectRunner(home.path, OK)
    end = asyncio.run(trial(home, effects, foreign=True, **RELEASE).run())
    assert effects.ordered == []
    assert "another fleet gets no secret" in end.text


@proves("secret.masked")
def test_what_an_attempt_says_in_any_spelling_is_hidden_and_handed_to_no_later_phase(home):
    secretive(home)
    spelt = (HUSH, quote(HUSH), base64.b64encode(HUSH.encode()).decode(), json.dumps(HUSH))
    said = " ".join(spelt)
    effects = EffectRunner(home.path, Outcome(status="ok", exit_code=0, tail=said, summary=said))
    effects.says = {"text": said, HUSH: {"deep": [said]}}
    made = trial(home, effects, **RELEASE)
    end = asyncio.run(made.run())
    assert not [each for each in spelt if each in repr((end, made.daemon.posted))]
    assert end.values["withheld"] == "output summary"
    assert "[DEPLOY_TOKEN]" in end.summary


@proves("secret.masked", "secret.set-anew")
def test_a_value_that_is_set_anew_while_an_attempt_begins_is_hidden_and_so_is_the_old_one(home):
    store, anew, of_file = secretive(home), "another-9d2e-entirely", "a-third-77c0-of-the-file"
    home.put("agents.env", f"DEPLOY_TOKEN={of_file}\n".encode())
    (home.path / "agents.env").chmod(0o600)
    effects = EffectRunner(home.path, OK)
    old_open = effects.open

    async def open_late(*args: object) -> Any:
        store.put("DEPLOY_TOKEN", anew, 2)
        return await old_open(*args)

    effects.open = open_late  # type: ignore[method-assign]
    effects.says = {"text": f"{HUSH} {anew} {of_file}"}
    made = trial(home, effects, **{**RELEASE, "repo": "main"})
    asyncio.run(made.run())
    assert effects.ordered[0].env["DEPLOY_TOKEN"] == anew
    assert {anew, HUSH, of_file} <= {*effects.ordered[0].secrets.values()}
    said = repr(made.daemon.posted)
    assert not [each for each in (anew, HUSH, of_file) if each in said]


@proves("secret.masked")
def test_a_deliverable_that_is_called_by_a_secret_is_not_kept(home):
    secretive(home)
    effects = EffectRunner(home.path, OK)
    made = trial(home, effects, deliver=[f"{HUSH}.txt"], **RELEASE)
    effects.does = lambda: (made.workplace.path / f"{HUSH}.txt").write_text("x")
    end = asyncio.run(made.run())
    assert end.status == "failed"
    assert HUSH not in repr(end)


@proves("secret.file-modes")
def test_secrets_that_others_can_read_end_an_attempt_before_it_begins(home):
    store = secretive(home)
    (store.folder / "DEPLOY_TOKEN").chmod(0o644)
    effects = EffectRunner(home.path, OK)
    end = asyncio.run(trial(home, effects, **{**RELEASE, "secrets": []}).run())
    assert (end.reason, "chmod 600" in end.text) == ("fault-machine", True)
    assert effects.ordered == []


@proves("secret.masked", "agent.secrets-stay-here")
@pytest.mark.parametrize("where", ["messages", "names"])
def test_a_commit_that_says_a_secret_is_not_pushed_however_the_secret_is_called(home, where):
    """A name like SITE, and a value like a word, say of themselves that they are no key."""
    SecretStore(home.path).put("SITE", "wintergarten", 1)
    effects = EffectRunner(home.path, OK)

    async def collect(*_: object) -> Collected:
        said = {"messages": "", "names": "", where: "the wintergarten of ours"}
        return Collected(COMMIT, "b" * 40, ("a.txt",), 1, (), (), **said)

    effects.collect = collect  # type: ignore[method-assign]
    end = asyncio.run(trial(home, effects).run())
    assert (end.status, "holds a secret" in end.reason) == ("failed", True)
    assert "push" not in effects.log
