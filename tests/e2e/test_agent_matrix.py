"""Six real programs, over ACP and headless: what they all do, in as few turns as show it.

The cells one by one, and everything else that is tried with the real programs, is the command
`python -m tests.e2e.matrix`.
"""

import asyncio
import json

import pytest

from tests.agent.world import marked
from tests.e2e import install_agents, matrix
from tests.e2e.stage import ALL, Stage
from tests.e2e.test_real_agents import model
from tests.promise import proves

__all__ = ["model"]

pytestmark = [pytest.mark.e2e, pytest.mark.timeout(300)]


@pytest.fixture(params=[f"{name}-{mode}" for name in ALL for mode in matrix.MODES])
def stage(request, model, tmp_path):
    name, _, mode = request.param.partition("-")
    if absent := install_agents.missing(install_agents.folder(), name):
        pytest.skip(f"{', '.join(absent)} not installed: run tests/e2e/install_agents.py")
    made = Stage(name, model[0], tmp_path, headless=mode == "headless")
    yield made
    assert marked(made.mark) == {}, "something of the attempt still runs"


@proves(
    "agent.six-programs", "agent.permission-ask", "agent.headless-real", "agent.headless-rights"
)
def test_a_program_writes_and_does_what_it_may_and_nothing_else(stage):
    """ACP: a person allows one command and denies the next. Headless: nothing outside is written."""
    target, outside = stage.tree / "hello.txt", matrix.outside_of(stage)
    write = {"tool": "write", "path": str(target), "content": "hello\n"}
    if stage.headless:
        beyond = {"tool": "write", "path": str(outside), "content": "no\n"}
        ran = {"tool": "shell", "command": "ls -1 && touch ran"}
        outcome = stage.run(stage.order(write, ran, beyond, {"text": "That is all."}))
    else:
        steps = (write, stage.shell("touch ran"), stage.shell("touch denied"))
        steps += ({"text": "That is all."},)
        outcome = asyncio.run(matrix.asked(stage, True, False, steps=steps))
        decided = [(d["answer"], d["by"]) for d in stage.fields("agent.decision")][-2:]
        assert decided == [("allow", "person"), ("deny", "person")], matrix.told(stage)
        assert not (stage.tree / "denied").exists()
    there = outside.exists()
    outside.unlink(missing_ok=True)
    assert not there, matrix.told(stage)
    assert target.read_text().strip() == "hello", matrix.told(stage)
    assert (stage.tree / "ran").exists(), matrix.told(stage)
    assert outcome.status in ("ok", "cancelled"), (outcome, matrix.told(stage))
    matrix.looked_at(stage, outcome, words=bool(stage.headless))


@proves("agent.six-programs", "agent.cancel-ends-all", "agent.headless-real")
def test_a_program_that_is_cancelled_in_the_middle_of_a_tool_leaves_no_process(stage):
    matrix.cancel(stage)


MODELS = {
    "claude": "claude-haiku-4-5",
    "codex": "second",
    "gemini": "gemini-2.5-pro",
    "opencode": "scripted/second",
    "qwen": "second",
    "copilot": "second",
}


@proves("agent.model-of-the-task")
def test_a_program_asks_the_model_that_the_task_names(stage, model):
    wanted, before = MODELS[stage.name], len(model[1].read_text().splitlines())
    outcome = stage.run(stage.order({"text": "Asked."}, model=wanted))
    assert outcome.status == "ok", (outcome, matrix.told(stage))
    requests = map(json.loads, model[1].read_text().splitlines()[before:])
    asked = {
        r["model"] for r in requests if stage.mark and any("@@script" in t for _, t in r["said"])
    }
    assert [each for each in asked if wanted.rpartition("/")[2] in each], asked


@proves("agent.six-programs", "agent.headless-rights")
@pytest.mark.parametrize("name", ALL)
def test_a_policy_that_has_to_be_asked_for_is_refused_by_a_mode_that_asks_nobody(name, tmp_path):
    """No program is started for it."""
    stage = Stage(name, "http://127.0.0.1:9", tmp_path, headless=True)
    assert matrix.allow(stage) == matrix.ASKS_NOBODY
    assert stage.events == []
