"""What the daemon keeps in order beside the work: what attempts left, and branches nobody can move."""

import asyncio
from pathlib import Path
from types import SimpleNamespace
from typing import Any, Final

import pytest
from tests.node.cores import Cores
from tests.promise import proves

from muster import limits
from muster.agent.discovery import Found
from muster.agent.servers import Server
from muster.errors import Conflict, Exhausted, NotFound, Unreachable
from muster.git import command as git
from muster.git import ref, removal, repository
from muster.node import event as ev
from muster.node.attempts import effect_runner as hand
from muster.node.attempts import promotion, question
from muster.node.call.router import Router
from muster.node.counter import Counts
from muster.node.host.config import Config
from muster.node.host.home import Home
from muster.node.incidents import Noticed
from muster.node.link import Answer, failure
from muster.node.supervisor import Supervisor
from muster.node.tasks.bases import FindBase, MatchGlob
from muster.node.tasks.branches import BringBack
from muster.task.instruction import MoveBranch, RaiseFence

TASK, COMMIT = "ab" * 16, "c" * 40


def daemon_of(core: object, home: Home, posted: list[ev.Event]) -> Any:
    """As much of a daemon as effects need."""
    machine = SimpleNamespace(config=Config())
    return SimpleNamespace(core=core, home=home, machine=machine, posted=posted, post=posted.append)


@pytest.fixture
def effects(tmp_path: Path) -> hand.EffectRunner:
    home = Home(tmp_path)
    home.create()
    posted: list[ev.Event] = []
    core = Cores("hub")["hub"].core
    daemon = daemon_of(core, home, posted)
    return hand.EffectRunner(daemon)


@proves("git.promotion-ends")
def test_a_branch_that_somebody_keeps_moving_is_given_up_after_a_while(
    effects: hand.EffectRunner, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def none(*_: object) -> None:
        return None

    async def moved(*_: object) -> None:
        raise Conflict("somebody else moved it first")

    monkeypatch.setattr(effects, "place_of", lambda _: (Path("/x"), ""))
    monkeypatch.setattr(ref, "read", none)
    monkeypatch.setattr(ref, "promote", moved)
    machine = effects.daemon.core.machine
    effect = MoveBranch(TASK, (1, 1), "main", "muster/r/p", COMMIT, (COMMIT,), machine, "shell")
    ends = [asyncio.run(effects.branches.move(effect)) for _ in range(40)]
    again = [end.again for end in ends]
    assert again.index(False) == promotion.CONFLICTS_MAX
    assert "somebody else" in ends[-1].reason
    # It begins anew, when the task does.
    assert again[promotion.CONFLICTS_MAX + 1]


EFFECTS: Final = [
    FindBase("r", "main", "x"),
    MatchGlob("r", "p", "main", COMMIT, "*.txt"),
    MoveBranch(TASK, (1, 1), "main", "muster/r/p", COMMIT, (COMMIT,), "m", "shell"),
    RaiseFence(TASK, (1, 1), "m", "main"),
    BringBack(MoveBranch(TASK, (1, 1), "main", "muster/r/p", COMMIT, (), "m", "shell")),
]


def carried_out(effects: hand.EffectRunner, effect: ev.Effect) -> Any:
    """The one event that an effect ends with."""

    async def work() -> None:
        supervisor: Any = Supervisor(Counts(), pytest.fail, pytest.fail)
        effects.daemon.supervisor = supervisor
        ev.handlers((), effects)[type(effect)](effect)
        await asyncio.wait(supervisor._tasks)

    asyncio.run(work())
    (told,) = effects.daemon.posted  # type: ignore[attr-defined]
    return told


@proves("node.one-event")
@pytest.mark.parametrize("effect", EFFECTS, ids=lambda effect: type(effect).__name__)
@pytest.mark.parametrize("error", [OSError(5, "I/O error"), KeyError("x")], ids=["disk", "mistake"])
def test_what_was_begun_ends_as_one_event_also_where_nobody_foresaw_what_failed(
    effects: hand.EffectRunner, monkeypatch: pytest.MonkeyPatch, effect: ev.Effect, error: Exception
) -> None:
    def fails(_: str) -> None:
        raise error

    monkeypatch.setattr(effects, "place_of", fails)
    told = carried_out(effects, effect)
    assert "this machine failed at it" in told.reason


@proves("node.one-event", "node.disk-full")
@pytest.mark.parametrize("effect", EFFECTS[:3], ids=lambda effect: type(effect).__name__)
def test_a_shortage_of_the_owner_fails_no_run_and_no_attempt(
    effects: hand.EffectRunner, monkeypatch: pytest.MonkeyPatch, effect: ev.Effect
) -> None:
    async def full(*_: object, **__: object) -> None:
        raise Exhausted("No space left on device")

    monkeypatch.setattr(effects, "place_of", lambda _: (Path("/x"), ""))
    monkeypatch.setattr(git, "run_async", full)
    told = carried_out(effects, effect)
    assert "No space" in told.reason
    assert told.again


@proves("git.origin-away-is-said")
def test_why_nobody_knows_what_an_origin_has_is_said_where_its_keeper_does_not_say(
    effects: hand.EffectRunner, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The run starts from what the keeper has all the same."""
    core, asked = effects.daemon.core, list[Answer]()
    build = SimpleNamespace(name="build", machine="ab" * 32)
    monkeypatch.setattr(effects, "place_of", lambda _: (None, "muster::build/main"))
    monkeypatch.setattr(type(core.roster), "keeper", lambda *_: build)

    def fresh(answer: Answer | None) -> str:
        """The keeper says this, or nothing."""

        def ask(_machine: str, _verb: str, _args: object, then: Any) -> Any:
            if answer is not None:
                then(answer)
            return lambda: asked.append(answer or {})

        monkeypatch.setattr(core.part(Router), "ask", ask)
        return asyncio.run(effects.fresh("main"))

    monkeypatch.setattr(question, "ANSWER_S", 0.01)
    silent = fresh(None)
    assert silent.startswith("repository main is as build has it: whether its origin has more")
    assert "gave no answer within" in silent
    assert "build is away" in fresh(failure(Unreachable("build is away")))
    # An older one has no such verb, and what another one says is said.
    assert fresh(failure(NotFound("there is no verb 'repo.follow' to call"))) == ""
    assert fresh({"ok": True, "value": {"note": "as it was 2 h ago"}}) == "as it was 2 h ago"
    assert len(asked) == 4, "nothing is kept of a question"


@proves("git.origin-away-is-said")
def test_a_keeper_says_that_its_origin_is_late_before_the_owner_gives_it_up() -> None:
    way_s = 2.0
    assert limits.GIT_FOLLOW_WAIT_MS_MAX / 1000 + way_s < question.ANSWER_S
    assert limits.GIT_FOLLOW_ASK_MS_MAX < limits.GIT_FOLLOW_WAIT_MS_MAX


@proves("git.remains-are-told", "git.no-debris")
def test_upkeep_removes_what_was_set_aside_and_names_what_stays_once(
    effects: hand.EffectRunner, monkeypatch: pytest.MonkeyPatch
) -> None:
    work = Path(effects.daemon.home.work)
    for name in ("t1-1-1", "t2-1-1"):
        (work / name / "deep").mkdir(parents=True)
    asyncio.run(effects.worktrees.clear())
    assert not list(work.glob("t*"))
    real = removal.remove
    stuck = min(work.glob(".gone-*"))

    async def remove(path: Path) -> str:
        return "x: Operation not permitted" if path == stuck else await real(path)

    monkeypatch.setattr(removal, "remove", remove)
    posted: list[ev.Event] = effects.daemon.posted  # type: ignore[attr-defined]
    asyncio.run(effects.upkeep())
    asyncio.run(effects.upkeep())
    assert [e.key for e in posted if isinstance(e, Noticed)] == [hand.REMAINS]
    assert stuck.name in posted[-1].title  # type: ignore[attr-defined]
    assert list(work.glob(".gone-*")) == [stuck]
    monkeypatch.undo()
    asyncio.run(effects.upkeep())
    assert posted[-1] == Noticed(hand.REMAINS)
    assert list(work.glob("*")) == []


@proves("git.remains-are-told")
def test_what_was_told_before_a_restart_and_is_gone_since_is_over(tmp_path: Path) -> None:
    home, posted = Home(tmp_path), list[ev.Event]()
    home.create()
    hub = Cores("hub")["hub"]
    daemon = daemon_of(hub.core, home, posted)
    asyncio.run(hand.EffectRunner(daemon).upkeep())
    assert posted == []
    hub.step(Noticed(hand.REMAINS, "left"))
    asyncio.run(hand.EffectRunner(daemon).upkeep())
    assert posted == [Noticed(hand.REMAINS)]


@proves("git.no-debris")
def test_upkeep_goes_on_where_a_repository_cannot_be_packed(
    effects: hand.EffectRunner, monkeypatch: pytest.MonkeyPatch
) -> None:
    packed: list[Path] = []

    async def maintain(path: Path) -> None:
        packed.append(path)
        raise Conflict("gc is already running")

    for name in ("a", "b"):
        (effects.repos / f"{name}.git").mkdir(parents=True)
    monkeypatch.setattr(repository, "maintain", maintain)
    asyncio.run(effects.upkeep())
    assert [path.name for path in packed] == ["a.git", "b.git"]
    assert effects.daemon.core.counters["upkeep-failed"] >= 2


@proves("agent.mcp-per-task", "openings.facts")
def test_a_machine_tells_of_a_server_when_what_it_needs_is_there(
    effects: hand.EffectRunner, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def nothing(*_: object, **__: object) -> dict[str, str]:
        return {}

    async def plain(**_: object) -> dict[str, Any]:
        return {"tools": {"git": "2"}}

    monkeypatch.setattr(hand, "probe", plain)
    monkeypatch.setattr(effects.discovery, "found", nothing)
    monkeypatch.setattr(effects.discovery, "logins", nothing)
    docs = Server(command=("sh",), env=("DOCS_TOKEN_OF_OURS",))
    machine: Any = SimpleNamespace(config=Config(mcp={"docs": docs}), whereabouts=dict)
    monkeypatch.setattr(effects.daemon, "machine", machine)
    said = SimpleNamespace(fact=lambda *_: {"sandbox": "enforced"})
    monkeypatch.setattr(effects, "enclosing", said)
    always = {"git": "2", "sandbox": "enforced", "tzdata": hand.ZONES_VERSION}
    assert asyncio.run(effects.facts())["tools"] == always
    file = effects.daemon.home.path / "agents.env"
    file.write_text("DOCS_TOKEN_OF_OURS=x\n")
    file.chmod(0o600)
    assert asyncio.run(effects.facts())["tools"] == {**always, "mcp:docs": ""}

    async def some(*_: object, **__: object) -> dict[str, Found]:
        return {"gemini": Found("/x/gemini", "1", "headless"), "noop": Found("", "")}

    monkeypatch.setattr(effects.discovery, "found", some)
    assert asyncio.run(effects.facts())["tools"]["mcp:docs"] == "except gemini"
