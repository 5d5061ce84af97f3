"""The real Claude Code and Codex, driven through the whole chain: runner, shim, ACP, program.

No credentials and no network: the model is tests/e2e/fake_model.py on 127.0.0.1, and each agent
has its own HOME and a whole environment of its own. Install them with tests/e2e/install_agents.py.
"""

import asyncio
import json
import os
import subprocess
import sys
from pathlib import Path

import msgspec
import pytest

from muster.agent.base import AttemptOrder
from muster.agent.catalogue import load
from muster.agent.discovery import Discovery
from muster.agent.policy import ASK, DENY, Policy
from muster.agent.process import Runner
from tests.agent.world import marked, until, wait_until
from tests.e2e import install_agents, vendor
from tests.promise import proves

pytestmark = [pytest.mark.e2e, pytest.mark.timeout(300)]

HERE = Path(__file__).parent
AGENTS = ("claude", "codex")
PATH = install_agents.programs_path(install_agents.folder()) + os.pathsep + os.environ["PATH"]


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    """The address of a scripted model and the file of what it was sent."""
    log = tmp_path_factory.mktemp("model") / "requests"
    log.touch()
    argv = [sys.executable, str(HERE / "fake_model.py"), str(log)]
    with subprocess.Popen(argv, stdout=subprocess.PIPE, text=True) as server:
        yield f"http://127.0.0.1:{server.stdout.readline().strip()}", log
        server.kill()


class Stage:
    """One agent in a fresh home with a git worktree to work in."""

    def __init__(self, name, url, folder, *, headless=False):
        self.name = name
        # Who never has an adapter on PATH, or is to be driven without it.
        self.headless = (name,) if headless else ()
        self.mark = f"MUSTER_TEST_MARK={folder.name}-{os.getpid()}"
        self.home = folder / "home"
        self.tree = folder / "tree"
        self.home.mkdir()
        self.events = []
        repository = folder / "repository"
        git = ["git", "-c", "user.name=t", "-c", "user.email=t@t", "-C", str(repository)]
        subprocess.run(["git", "init", "-q", "-b", "main", str(repository)], check=True)
        subprocess.run([*git, "commit", "-q", "--allow-empty", "-m", "start"], check=True)
        subprocess.run([*git, "worktree", "add", "-q", "-b", "work", str(self.tree)], check=True)
        key, _, value = self.mark.partition("=")
        self.env = {
            "PATH": PATH,
            "HOME": str(self.home),
            "TERM": "dumb",
            "LANG": "C.UTF-8",
            "NO_PROXY": "127.0.0.1",
            "GIT_AUTHOR_NAME": name,
            "GIT_AUTHOR_EMAIL": "agent@example.invalid",
            "GIT_COMMITTER_NAME": name,
            "GIT_COMMITTER_EMAIL": "agent@example.invalid",
            key: value,
        }
        self.env |= vendor.settled(name, url, self.home)

    def order(self, *steps, **changes):
        script = json.dumps(steps)
        wanted = {
            "task": "t1",
            "epoch": (1, 1),
            "agent": self.name,
            "cwd": str(self.tree),
            "env": self.env,
            "prompt": f"Do what the script says. @@script {script}",
            "timeout_s": 90,
            "grace_s": 3,
        }
        return AttemptOrder(**(wanted | changes))

    async def start(self, order):
        return await Runner(Discovery(load(), self.headless)).start(order, self.events.append)

    def run(self, order):
        async def go():
            return await (await self.start(order)).wait()

        return asyncio.run(go())

    def fields(self, kind):
        return [event.fields for event in self.events if event.kind == kind]

    def shell(self, command):
        """A shell step; Codex asks the client only for commands beyond its own sandbox."""
        beyond = {"sandbox_permissions": "require_escalated", "justification": "the test asks"}
        arguments = {"arguments": beyond} if self.name == "codex" else {}
        return {"tool": "shell", "command": command, **arguments}


@pytest.fixture(params=AGENTS)
def stage(request, model, tmp_path):
    absent = install_agents.missing(install_agents.folder(), request.param)
    if absent:
        pytest.skip(f"{', '.join(absent)} not installed: run tests/e2e/install_agents.py")
    made = Stage(request.param, model[0], tmp_path)
    yield made
    assert marked(made.mark) == {}, "something of the attempt still runs"


@proves("agent.real-agents", "agent.acp-events")
def test_a_real_agent_writes_a_file_and_commits_it(stage, model):
    target = stage.tree / "hello.txt"
    outcome = stage.run(
        stage.order(
            {"tool": "write", "path": str(target), "content": "hello\n"},
            stage.shell("git add hello.txt && git commit -q -m 'say hello' && git log --oneline"),
            {"text": "The file is committed."},
        )
    )
    told = json.dumps([[event.kind, event.fields] for event in stage.events], indent=1)
    assert (outcome.status, outcome.summary) == ("ok", "The file is committed."), (outcome, told)
    assert target.read_text() == "hello\n"
    log = ["git", "-C", str(stage.tree), "log", "-1", "--format=%h %an: %s"]
    said = subprocess.run(log, capture_output=True, text=True, check=True).stdout
    commit, _, what = said.strip().partition(" ")
    assert what == f"{stage.name}: say hello", told
    kinds = [event.kind for event in stage.events]
    assert kinds[0] == "agent.prompt"
    assert kinds[-1] == "agent.end"
    assert {"agent.tool", "agent.output", "agent.usage"} <= set(kinds)
    assert outcome.usage["input_tokens"] > 0
    tools = {f["kind"]: f for f in stage.fields("agent.tool") if f["status"] == "completed"}
    assert str(target) in tools["edit"]["paths"], told
    assert commit in tools["execute"]["output"], told
    # What the command printed has reached the model, too.
    requests = [json.loads(line) for line in model[1].read_text().splitlines()]
    assert any(who == "result" and commit in text for r in requests for who, text in r["said"])


@proves("agent.permission-recorded")
def test_what_the_policy_allows_is_asked_and_recorded(stage):
    stage.run(stage.order(stage.shell("touch allowed"), {"text": "done"}))
    told = json.dumps([[event.kind, event.fields] for event in stage.events], indent=1)
    decisions = stage.fields("agent.decision")
    assert [(d["kind"], d["answer"], d["by"]) for d in decisions] == [
        ("execute", "allow", "policy")
    ], told
    assert "inside the working folder" in decisions[0]["because"]
    assert (stage.tree / "allowed").exists()


@proves("agent.permission-recorded")
def test_what_the_policy_denies_is_recorded_and_does_not_happen(stage):
    order = stage.order(
        stage.shell("touch forbidden"),
        {"text": "done"},
        policy=Policy({"execute": DENY}),
    )
    stage.run(order)
    assert [d["answer"] for d in stage.fields("agent.decision")] == ["deny"]
    assert not (stage.tree / "forbidden").exists()


@proves("agent.real-agents", "agent.headless-rights")
def test_the_real_qwen_code_writes_inside_of_its_folder_and_nowhere_else(model, tmp_path):
    """It speaks the protocol itself, which is why nothing else drives it: there it asks."""
    if absent := install_agents.missing(install_agents.folder(), "qwen"):
        pytest.skip(f"{', '.join(absent)} not installed: run tests/e2e/install_agents.py")
    stage = Stage("qwen", model[0], tmp_path, headless=True)
    inside, outside = stage.tree / "inside.txt", tmp_path / "outside.txt"
    writes = [{"tool": "write", "path": str(p), "content": "x\n"} for p in (inside, outside)]
    stage.run(stage.order(*writes, {"text": "done"}))
    assert (inside.exists(), outside.exists()) == (True, False)
    assert [d["answer"] for d in stage.fields("agent.decision")] == ["allow", "deny"]


@proves("agent.permission-ask")
@pytest.mark.parametrize("allow", [True, False])
def test_an_asked_person_decides(stage, allow):
    order = stage.order(
        stage.shell("touch asked"), {"text": "done"}, policy=Policy({"execute": ASK})
    )

    async def go():
        attempt = await stage.start(order)
        assert await until(lambda: stage.fields("agent.ask"), 60)
        attempt.answer(stage.fields("agent.ask")[0]["ask"], allow)
        return await attempt.wait()

    asyncio.run(go())
    wanted = "allow" if allow else "deny"
    assert [(d["answer"], d["by"]) for d in stage.fields("agent.decision")] == [(wanted, "person")]
    assert (stage.tree / "asked").exists() == allow


@proves("agent.permission-ask")
def test_a_question_that_nobody_answers_is_a_no(stage):
    order = stage.order(
        stage.shell("touch asked"),
        {"text": "done"},
        policy=Policy({"execute": ASK}),
        ask_timeout_s=0.5,
    )
    stage.run(order)
    decisions = stage.fields("agent.decision")
    assert [(d["answer"], d["by"]) for d in decisions] == [("deny", "nobody answered in time")]
    assert not (stage.tree / "asked").exists()


@proves("agent.real-agents", "agent.cancel-ends-all")
def test_cancel_in_the_middle_of_a_tool_leaves_no_process(stage):
    """The tool itself escapes into a session of its own and ignores TERM."""
    sleeper = "import signal, time; signal.signal(signal.SIGTERM, signal.SIG_IGN); time.sleep(99)"
    command = f"setsid {sys.executable} -c '{sleeper}' & {sys.executable} -c '{sleeper}'"

    def sleepers():
        return [c for c in marked(stage.mark).values() if "time.sleep(99)" in c and " -c " in c]

    async def go():
        attempt = await stage.start(stage.order(stage.shell(command), {"text": "done"}))
        running = await until(lambda: len(sleepers()) >= 2, 60)
        told = json.dumps([[event.kind, event.fields] for event in stage.events], indent=1)
        assert running, told
        attempt.cancel("the person changed their mind")
        return await attempt.wait()

    outcome = asyncio.run(go())
    assert (outcome.status, outcome.summary) == ("cancelled", "the person changed their mind")
    assert marked(stage.mark) == {}


@proves("agent.real-agents", "agent.dies-with-daemon")
def test_a_daemon_killed_with_kill_9_takes_a_real_agent_and_its_tool_with_it(stage):
    order = stage.order(stage.shell(f"{sys.executable} -c 'import time; time.sleep(98)'"))
    raw = msgspec.json.encode(order).decode()
    with subprocess.Popen([sys.executable, HERE.parent / "agent" / "daemon.py", raw]) as daemon:
        tool = "import time; time.sleep(98)"
        assert wait_until(lambda: any(tool in c for c in marked(stage.mark).values()), 60)
        daemon.kill()
    assert wait_until(lambda: marked(stage.mark) == {}, 20)


@proves("agent.acp-errors")
def test_a_model_that_fails_gives_an_outcome_that_says_so(stage):
    outcome = stage.run(stage.order({"fail": 400}))
    told = json.dumps([[event.kind, event.fields] for event in stage.events], indent=1)
    assert outcome.status != "ok" or "told to fail" in outcome.tail, (outcome, told)
    assert "told to fail" in outcome.summary + outcome.tail, (outcome, told)


@proves("agent.discover")
def test_the_installed_agents_are_discovered_with_their_versions(stage):
    found = asyncio.run(Discovery(load()).found({"PATH": PATH, "HOME": str(stage.home)}))
    assert found[stage.name].version.count(".") >= 2
    assert found[stage.name].driver == "acp"
    assert Path(found[stage.name].path).exists()
    assert {"shell", "noop"} <= set(found)
