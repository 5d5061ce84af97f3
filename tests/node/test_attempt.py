"""One attempt, from its folder to its pushed commit, with hands that do what a test says."""

import asyncio
import shutil
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from tests.node.cores import Cores
from tests.promise import proves

from muster.agent.base import AgentEvent, AttemptOrder, Outcome
from muster.agent.worktree import Collected
from muster.channel.backoff import Backoff
from muster.errors import Refused, Unreachable
from muster.node import event as ev
from muster.node.attempt import Trial
from muster.node.home import Home
from muster.store.blobs import Blobs
from muster.task.kinds import TaskAssign, TaskOpen

TASK, COMMIT = "ab" * 16, "c" * 40


class Running:
    def __init__(self, outcome: Outcome | None) -> None:
        self.ended: asyncio.Future[Outcome] = asyncio.get_running_loop().create_future()
        if outcome is not None:
            self.ended.set_result(outcome)

    async def wait(self) -> Outcome:
        return await self.ended

    def cancel(self, reason: str) -> None:
        if not self.ended.done():
            self.ended.set_result(Outcome(status="cancelled", summary=reason))


class Hands:
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
        self.agents: dict[str, Any] = {}
        self.runner = self.workshop = self
        self.on_event: Callable[[AgentEvent], None] = lambda _e: None

    async def start(self, order: AttemptOrder, on_event: Callable[[AgentEvent], None]) -> Running:
        self.ordered.append(order)
        self.log.append("run")
        self.ran.set()
        on_event(AgentEvent("agent.output", {"text": "hi"}))
        return Running(self.outcomes.pop(0))

    def place_of(self, repo: str) -> tuple[Path | None, str]:
        return None, f"muster::hub/{repo}"

    async def open(self, *_: object) -> Any:
        self.log.append("open")
        if self.opens and (error := self.opens.pop(0)):
            raise error
        return SimpleNamespace(path=self.work)

    async def collect(self, *_: object) -> Collected:
        self.log.append("collect")
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


@pytest.fixture
def home(tmp_path: Path) -> Home:
    made = Home(tmp_path)
    made.create()
    return made


def trial(home: Home, hands: Hands, *, repo: str = "main", **template: Any) -> Trial:
    core = Cores("hub")["hub"].core
    posted: list[ev.Event] = []
    daemon: Any = SimpleNamespace(
        core=core, hands=hands, home=home, posted=posted, post=posted.append,
        machine=SimpleNamespace(agent_variables=(), blobs=Blobs(Path(home.blobs))),
    )  # fmt: skip
    shape = {"v": 1, "agent": ["shell"], "do": "true", **template}
    opened = TaskOpen(task=TASK, template=shape, repo=repo)
    assign = TaskAssign(TASK, (1, 1), core.machine, "shell", 30_000)
    return Trial(daemon, ev.StartAttempt(opened, assign, {}, core.machine))


OK = Outcome(status="ok", exit_code=0, tail="all\nwell\n")


@proves("node.attempt-done-means")
def test_a_good_attempt_is_run_checked_collected_pushed_and_cleared_away(home):
    hands = Hands(home.path, OK, OK)
    made = trial(home, hands, check="true")
    end = asyncio.run(made.run())
    assert (end.status, end.commit, end.summary) == ("done", COMMIT, "well")
    assert hands.log == ["open", "run", "run", "collect", "push", "close"]
    assert "MUSTER_CAPABILITY" in hands.ordered[0].env
    assert "MUSTER_CAPABILITY" not in hands.ordered[1].env, "a check speaks for nobody"
    assert [e.kind for e in made.daemon.posted] == ["agent.output"] * 2


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
    hands = Hands(home.path, *outcomes)
    hands.missing = missing
    end = asyncio.run(trial(home, hands, check="true").run())
    assert (end.status, end.commit) == ("failed", "")
    assert says in end.reason
    assert "push" not in hands.log
    assert hands.log[-1] == "close"


@proves("agent.shell-stops")
@pytest.mark.parametrize(("key", "shell"), [({}, "sh"), ({"shell": "bash"}, "bash")])
def test_the_shell_that_a_phase_names_reads_its_text_and_its_check(home, key, shell):
    hands = Hands(home.path, OK, OK)
    asyncio.run(trial(home, hands, check="true", **key).run())
    assert [order.shell for order in hands.ordered] == [shell, shell]


@proves("agent.shell-stops")
def test_a_shell_never_sees_the_carriage_returns_of_a_text_from_windows(home):
    hands = Hands(home.path, OK, OK)
    asyncio.run(trial(home, hands, do="true\r\nfalse\r\n", check="true\r\n").run())
    assert [order.command for order in hands.ordered] == ["true\nfalse\n", "true\n"]


@proves("node.patient-push")
def test_a_repository_out_of_reach_is_asked_again_and_the_work_is_kept(home):
    hands = Hands(home.path, OK)
    hands.opens = [Unreachable("away"), None]
    hands.pushes = [Unreachable("away"), Unreachable("away"), None]
    end = asyncio.run(trial(home, hands).run())
    assert (end.status, end.commit) == ("done", COMMIT)
    assert hands.log == ["open", "open", "run", "collect", "push", "push", "push", "close"]


@proves("node.patient-push")
def test_waiting_for_a_repository_ends_when_the_lease_does(home):
    hands = Hands(home.path, OK)
    hands.pushes = [Unreachable("away")] * 10_000

    async def lose() -> ev.AttemptEnded:
        made = trial(home, hands)
        running = asyncio.ensure_future(made.run())
        await hands.pushed.wait()
        made.stop("the lease could not be renewed in time")
        async with asyncio.timeout(5):
            return await running

    end = asyncio.run(lose())
    assert (end.status, end.commit) == ("killed", "")
    assert hands.log[-1] == "close"


@proves("node.patient-push")
def test_a_repository_that_refuses_is_not_asked_again(home):
    hands = Hands(home.path, OK)
    hands.pushes = [Refused("epoch 1-1 is stale")]
    end = asyncio.run(trial(home, hands).run())
    assert (end.status, end.commit) == ("failed", "")
    assert "stale" in end.reason
    assert hands.log.count("push") == 1


@proves("node.attempt-stops")
def test_an_attempt_stopped_before_it_began_runs_nothing(home):
    hands = Hands(home.path)
    made = trial(home, hands)
    made.stop("cancelled")
    made.stop("again")
    end = asyncio.run(made.run())
    assert (end.status, end.reason) == ("killed", "cancelled")
    assert hands.log == ["open", "close"]


@proves("node.attempt-stops")
def test_an_attempt_stopped_while_it_runs_is_killed_and_pushes_nothing(home):
    hands = Hands(home.path, None)

    async def cancel() -> ev.AttemptEnded:
        made = trial(home, hands)
        running = asyncio.ensure_future(made.run())
        await hands.ran.wait()
        made.stop("not wanted any more")
        return await running

    end = asyncio.run(cancel())
    assert (end.status, end.reason) == ("killed", "not wanted any more")
    assert hands.log == ["open", "run", "close"]


@proves("node.attempt-stops")
def test_processes_that_cannot_be_ended_are_named(home):
    hands = Hands(home.path, Outcome(status="cancelled", survivors=(41, 42)))
    end = asyncio.run(trial(home, hands).run())
    assert end.status == "killed"
    assert "41, 42" in end.reason


@proves("node.attempt-done-means")
def test_without_a_repository_the_work_folder_is_fresh_and_gone_afterwards(home):
    hands = Hands(home.path, OK)
    made = trial(home, hands, repo="", deliver=["missing.txt"])
    folder = Path(home.work) / f"{TASK}-1-1"
    folder.mkdir(parents=True)
    (folder / "old").touch()
    end = asyncio.run(made.run())
    assert (end.status, end.reason) == ("failed", "promised and not there: missing.txt")
    assert hands.ordered[0].cwd == str(folder)
    assert not folder.exists()
    assert hands.log == ["run"]
