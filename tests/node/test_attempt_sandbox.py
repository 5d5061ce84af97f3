"""What an enclosed attempt is given, what of the daemon serves it, and what it never gets."""

import asyncio
import errno
import os
import socket
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import msgspec
import pytest
from tests.node.test_attempt import COMMIT, OK, EffectRunner, _hurried, home, trial
from tests.promise import proves

from muster.agent.catalogue import load
from muster.agent.gateway.call import Call
from muster.agent.gateway.meter import Full, Limits, Meter, Reserved
from muster.agent.gateway.prices import known
from muster.agent.gateway.usage import Usage
from muster.channel.unproven import is_spare
from muster.git.collection import Collected
from muster.node.attempts import sandbox
from muster.node.attempts.agent_home import write_into
from muster.node.attempts.attempt import Attempt
from muster.node.attempts.served import clear
from muster.node.attempts.workplace import home_of
from muster.node.host.config import Config
from muster.node.host.enclosing import Obstacle
from muster.node.host.home import Home
from muster.node.host.sandbox_config import SandboxConfig
from muster.node.supervisor import Supervisor
from muster.task.budget import Amount

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
    made = enclosed(home, effects, SandboxConfig(default="on"), **more)
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
    assert work.env["MUSTER_SOCK"] == "/run/muster/run/sock"
    assert work.env["MUSTER_ENCLOSED"] == "1"
    assert work.sandbox["ports"] == check.sandbox["ports"] == []
    assert work.sandbox["processes"] == check.sandbox["processes"] == 4096
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


@proves("egress.bounded")
def test_what_serves_an_attempt_leaves_the_daemon_descriptors_for_its_own_work(
    home, effects, monkeypatch
):
    given = []

    def seen(kind):
        def make(*args, **more):
            given.append((kind.__name__, more["is_spare"]))
            return kind(*args, **more)

        return make

    for kind in (sandbox.Proxy, sandbox.Gateways):
        monkeypatch.setattr(sandbox, kind.__name__, seen(kind))
    run(home, effects, agent=["claude"], network=["site.example.com"])
    assert sorted(given) == [("Gateways", is_spare), ("Proxy", is_spare)]


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
    made = enclosed(home, effects, SandboxConfig(default="on"), agent=["claude"], check="true")
    spent = Call(
        api="anthropic", method="POST", path="/v1/messages", ending="spent", status=400,
        why="the budget of this task is spent: 9 of 5 tokens; give it more, and begin it again",
    )  # fmt: skip
    effects.does = lambda: made._sandbox._called(spent)
    end = asyncio.run(made.run())
    assert (end.status, len(effects.ordered)) == ("failed", 1)
    assert end.reason.startswith("budget: the budget of this task is spent")
    (told,) = events(made, "agent.call")
    assert told["ending"] == "spent"


@proves("budget.nearly")
def test_near_its_limit_an_attempt_is_told_once_and_at_its_end_what_it_made_is_kept(home, effects):
    limits = Amount(100, 0)
    made = enclosed(home, effects, SandboxConfig(default="on"), agent=["claude"], check="true")
    spending = made._sandbox.spending
    spending._limits = limits

    def works() -> None:
        spending.meter = Meter(Limits(tokens=100), known("2026-11-28"))
        for tokens in (79, 1, 30):
            got = spending.meter.reserve("claude-opus-5")
            assert isinstance(got, Reserved)
            spending.meter.settle(got, Usage(input=tokens))
            made._sandbox._called(of_call("answered", ""))
        full = spending.meter.reserve("claude-opus-5")
        assert isinstance(full, Full)
        made._sandbox._called(of_call("spent", full.why))

    effects.does = works
    end = asyncio.run(made.run())
    (told,) = events(made, "agent.budget")
    assert (told["used"], told["tokens"]) == (80, 80)
    assert (end.status, end.commit) == ("failed", COMMIT)
    assert end.reason.startswith("budget: the budget of this task is spent: 110 of 100 tokens")
    assert effects.log[-3:] == ["collect", "push", "close"]
    # What its gateway counted is what it used, whatever the agent says.
    spending.metered = True
    usage = spending.usage({"total_tokens": 5}, began=True)
    assert usage == {"metered": 1, "tokens": 110, "input_tokens": 110, "usd_millionths": 550,
                     "reported_tokens": 5}  # fmt: skip
    assert spending.usage({}, began=False)["tokens"] == 110


@proves("budget.unpriced")
def test_a_limit_in_dollars_for_a_model_without_a_price_lets_nothing_begin(home, effects):
    for model, limits, begins in (
        ("mystery-9", Amount(0, 5), False),
        ("mystery-9", Amount(5), True),
        ("claude-opus-5", Amount(0, 5), True),
        ("", Amount(0, 5), True),
    ):
        made = enclosed(home, effects, SandboxConfig(default="on"), agent=["claude"], model=model)
        made._sandbox.spending._limits = limits
        effects.outcomes, effects.ordered = [OK], []
        end = asyncio.run(made.run())
        assert bool(effects.ordered) is begins
        assert begins or ("costs, and this task has a limit in dollars" in end.text)


def of_call(ending: Any, why: str) -> Call:
    return Call(
        api="anthropic", method="POST", path="/v1/messages", ending=ending, status=400, why=why
    )


@proves("openings.never-ours")
def test_who_begins_an_attempt_shows_it_no_folder_with_the_socket_of_its_daemon(
    tmp_path, monkeypatch, effects
):
    monkeypatch.setenv("XDG_RUNTIME_DIR", str(tmp_path / "runtime"))
    far = Home(tmp_path / ("h" * 120))
    far.create()
    Path(far.socket_of_session).parent.mkdir(parents=True)
    says = SandboxConfig(default="on", paths=(str(tmp_path / "runtime"),))
    template = {"paths": {"read": [str(tmp_path / "runtime")]}}
    end = asyncio.run(enclosed(far, effects, says, **template).run())
    assert effects.ordered == []
    assert "belongs to Muster itself" in end.text


@proves("enclosure.protected-results")
@pytest.mark.parametrize(
    ("says", "template", "refused"),
    [
        (SandboxConfig(default="on"), {}, True),
        (SandboxConfig(default="on"), {"paths": {"write": [".vscode"]}}, True),
        (SandboxConfig(default="on"), {"paths": {"write": [".mcp.json"]}}, False),
        (SandboxConfig(default="off"), {}, False),
    ],
)
def test_a_commit_with_what_no_sandbox_lets_be_written_is_a_failed_attempt(
    home, effects, says, template, refused
):
    async def collect() -> Collected:
        # After a thousand names that are shown.
        return Collected(
            "c" * 40, "b" * 40, ("a.txt",), 2, (), (), all_changed=(b"a", b".mcp.json")
        )

    effects.collect = collect  # type: ignore[method-assign, assignment]
    end = asyncio.run(enclosed(home, effects, says, **template).run())
    assert (end.status, "push" in effects.log) == (("failed", False) if refused else ("done", True))
    if refused:
        assert 'changes ".mcp.json"' in end.reason
        assert "`paths: {write: [.mcp.json]}`" in end.reason


@proves("enclosure.protected-results")
@pytest.mark.parametrize(("free", "status"), [([], "failed"), ([".mcp.json"], "done")])
def test_a_deliverable_that_no_sandbox_lets_be_written_is_a_failed_attempt(
    home, effects, free, status
):
    template = {"paths": {"write": free}} if free else {}
    made = enclosed(
        home, effects, SandboxConfig(default="on"), repo="", deliver=[".mcp.json"], **template
    )
    effects.does = lambda: Path(effects.ordered[-1].cwd, ".mcp.json").write_text("{}") and None
    end = asyncio.run(made.run())
    assert end.status == status, end
    assert ("free it in the phase" in end.reason) == (status == "failed")


def outside_of(home: Path) -> Path:
    outside = home.parent / "outside"
    outside.mkdir()
    (outside / "config.toml").write_text("mine")
    return outside


@proves("enclosure.own-word")
@pytest.mark.parametrize("trap", ["folder", "file", "fifo", "fifo above", "a folder", "gone"])
def test_what_is_written_into_a_home_is_there_whatever_an_earlier_attempt_left(tmp_path, trap):
    home = tmp_path / "home"
    home.mkdir()
    outside = outside_of(home)
    if trap == "folder":
        (home / ".codex").symlink_to(outside)
    elif trap == "fifo above":
        os.mkfifo(home / ".codex")
    else:
        (home / ".codex").mkdir()
    if trap == "file":
        (home / ".codex/config.toml").symlink_to(outside / "config.toml")
    elif trap == "fifo":
        os.mkfifo(home / ".codex/config.toml")
    elif trap == "a folder":
        (home / ".codex/config.toml/in").mkdir(parents=True)
    write_into(home, ".codex/config.toml", "theirs")
    assert (home / ".codex/config.toml").read_text() == "theirs"
    assert not (home / ".codex").is_symlink()
    assert (outside / "config.toml").read_text() == "mine"
    write_into(home, ".codex/config.toml", "again")
    assert (home / ".codex/config.toml").read_text() == "again"


@proves("enclosure.own-word")
def test_no_variable_of_a_spec_says_what_surrounds_its_attempt(home, effects, tmp_path):
    """Not where programs, certificates, the account or the model of its agent are."""
    secret = tmp_path / "secret"
    (secret / ".claude").mkdir(parents=True)
    (secret / ".claude/.credentials.json").write_text("{}")
    (secret / "bwrap").write_text("#!/bin/sh\n")
    (secret / "bwrap").chmod(0o755)
    env = dict.fromkeys(
        ("PATH", "HOME", "SSL_CERT_DIR", "SSL_CERT_FILE", "NODE_EXTRA_CA_CERTS",
         "REQUESTS_CA_BUNDLE", "CLAUDE_CONFIG_DIR", "TMPDIR"),
        str(secret),
    )  # fmt: skip
    env |= {"ANTHROPIC_BASE_URL": "http://evil.example:8080", "HTTPS_PROXY": "http://evil:1",
            "ANTHROPIC_CUSTOM_HEADERS": "x: y", "ANTHROPIC_MODEL": "m1", "OWN": "kept"}  # fmt: skip
    for agent in ("claude", "shell"):
        effects.ordered.clear()
        effects.outcomes = [OK, OK]
        end, made = run(home, effects, agent=[agent], env=env, check="true", network=["a.test.de"])
        assert end.status == "done", end
        for order in effects.ordered:
            assert str(secret) not in str(order.sandbox), order.sandbox
            if order.agent == "claude":
                assert str(secret) not in str(order.env), order.env
                assert "evil" not in str(order.env)
            assert order.env["OWN"] == "kept"
            assert order.env["PATH"] == PERSON["PATH"]
        assert "evil" not in str(made._sandbox._plan)
    assert effects.ordered[0].env["ANTHROPIC_MODEL"] == "m1"


@proves("enclosure.own-word")
def test_the_account_of_an_agent_lies_where_it_looks_though_a_variable_moves_it_outside(
    home, effects, tmp_path
):
    moved = tmp_path / "moved"
    moved.mkdir()
    (moved / ".credentials.json").write_text("{}")
    effects.environ = {"PATH": "/usr/bin", "HOME": str(tmp_path), "CLAUDE_CONFIG_DIR": str(moved)}
    run(home, effects, agent=["claude"])
    (order,) = effects.ordered
    placed = order.sandbox["placed"]
    assert placed["/home/agent/.claude/.credentials.json"] == str(moved / ".credentials.json")
    assert "CLAUDE_CONFIG_DIR" not in order.env


@proves("enclosure.own-word")
def test_a_check_has_a_home_that_nobody_was_in(home, effects):
    left: list[bool] = []
    effects.does = lambda: left.append(
        any(Path(effects.ordered[-1].sandbox["home"]).iterdir())
        or bool(Path(effects.ordered[-1].sandbox["home"], "usercustomize.py").touch())
    )
    run(home, effects, check="true")
    work, check = effects.ordered
    assert left == [False, False]
    assert work.sandbox["home"] != check.sandbox["home"]
    assert not Path(check.sandbox["home"]).exists()


@proves("enclosure.paths-of-two")
def test_a_link_that_was_laid_after_the_decision_is_not_shown(home, effects, tmp_path_factory):
    apart = tmp_path_factory.mktemp("apart")
    shown, person = apart / "shown", apart / "private"
    (shown / "data").mkdir(parents=True)
    person.mkdir()
    says = SandboxConfig(default="on", writable=(str(shown),))
    paths = {"write": [str(shown), str(shown / "data")]}

    def swapped() -> None:
        if len(effects.ordered) == 1:
            (shown / "data").rmdir()
            (shown / "data").symlink_to(person)

    effects.does = swapped
    made = enclosed(home, effects, says, check="true", paths=paths)
    end = asyncio.run(made.run())
    assert len(effects.ordered) == 1, "the check did not begin"
    assert "lets no work do that" in str(end)


@proves("node.disk-full")
def test_what_an_agent_writes_into_its_home_counts_as_written(home, effects):
    made = enclosed(home, effects, SandboxConfig(default="on"))
    made._given, made.workplace.folder = 0, effects.work
    beside = home_of(effects.work)
    beside.mkdir()
    (beside / "big").write_bytes(b"x" * 3_000_000)
    assert asyncio.run(made.written_bytes()) >= 3_000_000


@proves("enclosure.served-whole")
@pytest.mark.parametrize("how", ["nothing arrives", "less arrives", "one does not begin"])
def test_an_attempt_of_which_not_all_is_served_is_ended_as_a_loss_of_this_machine(
    home, effects, how
):
    """A descriptor too few, or a mistake of ours: its agent would wait for nobody."""

    class Serves:
        async def serve(self, listeners: Any) -> None:
            if how == "one does not begin":
                raise OSError(errno.EMFILE, "too many")

        async def close(self) -> None:
            pass

    effects.outcomes = [msgspec.structs.replace(OK, status="cancelled")]
    made = enclosed(home, effects, SandboxConfig(default="on"))
    counters = made.daemon.core.counters
    made.daemon.supervisor = Supervisor(counters, print, print)

    async def take(order: Any, on_event: Any, take: Any) -> Any:
        take.__self__.add([3128], Serves())
        take.__self__.add([3129], Serves())
        listeners = {port: socket.socket() for port in (3128, 3129)}
        if how != "one does not begin":
            listeners.pop(3129).close()
        if how == "nothing arrives":
            listeners.pop(3128).close()
        take(listeners)
        running = await started(order, on_event)
        await asyncio.sleep(0.05)
        for each in listeners.values():
            assert how == "one does not begin" or each.fileno() == -1
            each.close()
        return running

    started = effects.start
    effects.start = take  # type: ignore[method-assign]
    end = asyncio.run(made.run())
    assert (end.status, end.reason) == ("killed", "this machine could not serve its sandbox")
    assert counters["sandbox-unserved"] >= 1
