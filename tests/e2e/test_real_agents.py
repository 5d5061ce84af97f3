"""The real Claude Code and Codex, driven through the whole chain: runner, shim, ACP, program.

No credentials and no network: the model is tests/e2e/fake_model.py on 127.0.0.1, and each agent
has its own HOME and a whole environment of its own. Install them with tests/e2e/install_agents.py.
"""

import asyncio
import json
import subprocess
import sys
from pathlib import Path

import msgspec
import pytest

from muster.agent.catalogue import load
from muster.agent.discovery import Discovery
from muster.agent.policy import ASK, DENY, Policy
from tests.agent.world import marked, until, wait_until
from tests.e2e import install_agents
from tests.e2e.stage import PATH, Stage, every
from tests.promise import proves

pytestmark = [pytest.mark.e2e, pytest.mark.timeout(300)]

HERE = Path(__file__).parent
AGENTS = every("claude", "codex")
# Over ACP Gemini CLI 0.61 tells of a command that it was done, and nothing of what it printed.
SAY_NO_OUTPUT = ("gemini",)


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    """The address of a scripted model and the file of what it was sent."""
    log = tmp_path_factory.mktemp("model") / "requests"
    log.touch()
    argv = [sys.executable, str(HERE / "fake_model.py"), str(log)]
    with subprocess.Popen(argv, stdout=subprocess.PIPE, text=True) as server:
        yield f"http://127.0.0.1:{server.stdout.readline().strip()}", log
        server.kill()


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
    assert commit in tools["execute"]["output"] or stage.name in SAY_NO_OUTPUT, told
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


@proves("agent.permission-ask")
@pytest.mark.parametrize("allow", [True, False])
def test_an_asked_person_decides(stage, allow):
    order = stage.order(
        stage.shell("touch asked"), {"text": "done"}, policy=Policy({"execute": ASK})
    )

    async def go():
        attempt = await stage.start(order)
        assert await until(lambda: stage.fields("agent.ask"), 60)
        await stage.answer(attempt, stage.fields("agent.ask")[0], allow=allow)
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
