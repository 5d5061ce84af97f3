"""What an enclosed attempt is given, what of the daemon serves it, and what it never gets."""

import asyncio
import os
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import msgspec
import pytest
from tests.node.test_attempt import OK, EffectRunner, _hurried, home, trial
from tests.promise import proves

from muster.agent.catalogue import load
from muster.agent.gateway.call import Call
from muster.node.attempts import sandbox
from muster.node.attempts.attempt import Attempt
from muster.node.attempts.sandbox import clear
from muster.node.host.config import Config
from muster.node.host.enclosing import Obstacle
from muster.node.host.home import Home
from muster.node.host.sandbox_config import SandboxConfig

__all__ = ["_hurried", "home"]

KEY = "sk-ant-never-inside"
PERSON = {"PATH": "/usr/bin:/bin", "ANTHROPIC_API_KEY": KEY, "HTTPS_PROXY": "http://proxy:3128"}


@pytest.fixture
def effects(home: Home, tmp_path: Path) -> EffectRunner:
    person = tmp_path / "person"
    person.mkdir()
    work = tmp_path / "work" / "t-1-1"
    work.mkdir(parents=True)
    made = EffectRunner(work, OK, OK)
    made.agents["claude"] = load()["claude"]
    made.environ = {**PERSON, "HOME": str(person)}
    return made


def enclosed(home: Home, effects: EffectRunner, says: SandboxConfig, **more: Any) -> Attempt:
    """An attempt on a machine whose owner says this of sandboxes."""
    made = trial(home, effects, **more)
    made.daemon.machine.config = Config(sandbox=says)
    made._sandbox._config = says
    return made


def run(home: Home, effects: EffectRunner, **more: Any) -> tuple[Any, Attempt]:
    made = enclosed(home, effects, SandboxConfig(), **more)
    return asyncio.run(made.run()), made


def events(made: Attempt, kind: str) -> list[dict[str, Any]]:
    posted = made.daemon.posted  # type: ignore[attr-defined]
    return [e.fields for e in posted if getattr(e, "kind", "") == kind]


@proves("enclosure.by-default")
def test_work_and_check_are_enclosed_and_the_check_speaks_for_nobody(home, effects):
    end, made = run(home, effects, check="true")
    assert end.status == "done"
    work, check = effects.ordered
    assert work.sandbox["placed"].keys() == {"/run/muster/run/sock"}
    assert check.sandbox["placed"] == {}
    assert work.sandbox["home"] == check.sandbox["home"]
    assert work.env["MUSTER_SOCK"] == "/run/muster/run/sock"
    assert work.env["MUSTER_ENCLOSED"] == "1"
    assert work.sandbox["ports"] == check.sandbox["ports"] == []
    assert not any("proxy" in name.lower() for name in work.env), "nothing may be reached"
    (told,) = events(made, "agent.sandbox")
    assert told["enclosed"] is True
    assert len(told["profile"]) == 64


@proves("enclosure.keyless")
def test_the_key_of_an_agent_is_with_its_gateway_and_not_in_its_order(home, effects):
    end, _ = run(home, effects, agent=["claude"], check="true")
    assert end.status == "done"
    work, check = effects.ordered
    assert KEY not in str(msgspec.to_builtins(work.env)) + str(work.sandbox) + str(check.env)
    assert work.env["ANTHROPIC_BASE_URL"].startswith("http://127.0.0.1:3129")
    assert work.sandbox["ports"] == [3129]
    assert check.sandbox["ports"] == []


@proves("enclosure.network-by-name")
def test_what_a_phase_names_is_reached_by_its_work_and_its_check_through_one_proxy(home, effects):
    run(home, effects, check="true", network=["site.example.com"])
    for order in effects.ordered:
        assert order.sandbox["ports"] == [3128]
        for name in ("http_proxy", "https_proxy", "HTTP_PROXY", "HTTPS_PROXY"):
            assert order.env[name] == "http://127.0.0.1:3128"
        assert order.env["NODE_USE_ENV_PROXY"] == "1"


@proves("enclosure.by-default")
def test_an_agent_without_a_key_has_the_file_of_its_account_to_read(home, effects):
    person = Path(effects.environ["HOME"])
    account = person / ".claude/.credentials.json"
    account.parent.mkdir()
    account.write_text('{"token": "x"}')
    effects.environ = {k: v for k, v in effects.environ.items() if k != "ANTHROPIC_API_KEY"}
    run(home, effects, agent=["claude"])
    (order,) = effects.ordered
    assert order.sandbox["placed"]["/home/agent/.claude/.credentials.json"] == str(account)
    assert order.sandbox["ports"] == [3128], "the hosts of its login"


@proves("enclosure.never-without")
def test_what_cannot_be_enclosed_here_is_not_begun_and_goes_elsewhere(home, effects):
    effects.enclosing = SimpleNamespace(obstacle=lambda *_: Obstacle("no bwrap", "install it"))
    end, _ = run(home, effects)
    assert effects.ordered == []
    assert "cannot enclose" in end.text
    assert "install it" in end.text


@proves("enclosure.never-without")
def test_what_the_owner_lets_run_without_does_so_and_the_journal_says_it(home, effects):
    made = enclosed(home, effects, SandboxConfig(default="off"))
    asyncio.run(made.run())
    assert effects.ordered[0].sandbox == {}
    (told,) = events(made, "agent.sandbox")
    assert told["enclosed"] is False
    assert "owner" in told["why"]


@proves("enclosure.leaves-nothing")
def test_the_socket_of_an_attempt_is_there_while_it_runs_and_then_gone(home, effects):
    there: list[bool] = []
    effects.does = lambda: there.append(
        Path(effects.ordered[-1].sandbox["placed"]["/run/muster/run/sock"]).is_socket()
    )
    before = set(os.listdir(Path(home.socket_of_session).parent))
    run(home, effects)
    assert there == [True]
    assert set(os.listdir(Path(home.socket_of_session).parent)) == before


@proves("enclosure.leaves-nothing")
def test_sockets_that_a_killed_daemon_left_are_removed_by_the_next_one(home):
    folder = Path(home.socket_of_session).parent
    folder.mkdir(parents=True, exist_ok=True)
    for name in ("a0", "a0.lock", "a17"):
        (folder / name).touch()
    (folder / "sock").touch()
    clear(home)
    assert {each.name for each in folder.iterdir()} & {"a0", "a0.lock", "a17", "sock"} == {"sock"}


@proves("gateway.budget-ends-it")
def test_an_agent_whose_budget_is_spent_has_failed_whatever_it_says_itself(home, effects):
    made = enclosed(home, effects, SandboxConfig(), agent=["claude"], check="true")
    spent = Call(
        api="anthropic", method="POST", path="/v1/messages", ending="spent", status=400,
        why="the budget of this task is spent: 9 of 5 tokens; give it more, and begin it again",
    )  # fmt: skip
    effects.does = lambda: made._sandbox._called(spent)
    end = asyncio.run(made.run())
    assert (end.status, len(effects.ordered)) == ("failed", 1)
    assert end.reason.startswith("the budget of this task is spent")
    (told,) = events(made, "agent.call")
    assert told["ending"] == "spent"


@proves("enclosure.keyless")
@pytest.mark.parametrize("trap", ["folder", "file"])
def test_what_is_written_into_a_home_follows_no_link_of_an_earlier_attempt(tmp_path, trap):
    outside = tmp_path / "outside"
    outside.mkdir()
    (outside / "config.toml").write_text("mine")
    home = tmp_path / "home"
    home.mkdir()
    if trap == "folder":
        (home / ".codex").symlink_to(outside)
    else:
        (home / ".codex").mkdir()
        (home / ".codex/config.toml").symlink_to(outside / "config.toml")
    with pytest.raises(OSError, match=r"symbolic links|Not a directory"):
        sandbox._write(home, ".codex/config.toml", "theirs")
    assert (outside / "config.toml").read_text() == "mine"


@proves("enclosure.keyless")
def test_what_is_written_into_a_home_is_there_in_folders_of_its_own(tmp_path):
    sandbox._write(tmp_path, ".codex/config.toml", "a")
    sandbox._write(tmp_path, ".codex/config.toml", "b")
    assert (tmp_path / ".codex/config.toml").read_text() == "b"
