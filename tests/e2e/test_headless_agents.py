"""Six real agents driven by the headless mode of their own program, through runner and shim.

No credentials and no network: the model is tests/e2e/fake_model.py on 127.0.0.1, as for ACP
(test_real_agents.py). Install them with tests/e2e/install_agents.py.
"""

import asyncio
import json
from pathlib import Path

import pytest

from muster.agent.policy import DENY, Policy
from muster.errors import Broken
from tests.agent.world import marked, until
from tests.e2e import install_agents
from tests.e2e.stage import ALL, Stage
from tests.e2e.test_real_agents import model
from tests.promise import proves

__all__ = ["model"]

pytestmark = [pytest.mark.e2e, pytest.mark.timeout(300)]


@pytest.fixture(params=ALL)
def stage(request, model, tmp_path):
    absent = install_agents.missing(install_agents.folder(), request.param)
    if absent:
        pytest.skip(f"{', '.join(absent)} not installed: run tests/e2e/install_agents.py")
    made = Stage(request.param, model[0], tmp_path, headless=True)
    yield made
    assert marked(made.mark) == {}, "something of the attempt still runs"


def told(stage):
    return json.dumps([[event.kind, event.fields] for event in stage.events], indent=1)


@proves("agent.headless-prompt")
def test_the_prompt_of_a_real_agent_is_in_no_argument(stage):
    """Seen from the outside while its tool runs, as every user of the machine could."""
    command = "python3 -c 'import time; time.sleep(96)'"

    async def go():
        attempt = await stage.start(stage.order({"tool": "shell", "command": command}))
        seen = await until(
            lambda: any("time.sleep(96)" in c for c in marked(stage.mark).values()), 60
        )
        lines = list(marked(stage.mark).values())
        attempt.cancel("seen enough")
        return seen, lines, await attempt.wait()

    seen, lines, _ = asyncio.run(go())
    assert seen, told(stage)
    assert not [line for line in lines if "@@script" in line]


@proves("agent.headless-failures")
def test_a_model_that_does_not_know_the_key_is_a_login_to_mend_and_nobodys_work(stage):
    outcome = stage.run(stage.order({"fail": 401}, timeout_s=60))
    assert (outcome.status, outcome.fault) == ("error", "agent"), (outcome, told(stage))
    assert outcome.logged_out
    assert outcome.summary.startswith("the agent is not logged in: "), outcome
    login = {"claude": "ANTHROPIC_API_KEY", "codex": "codex login", "gemini": "GEMINI_API_KEY"}
    assert login.get(stage.name, stage.name.split("-")[0]) in outcome.summary


@proves("agent.headless-failures")
def test_a_model_that_fails_in_the_middle_fails_the_attempt_and_says_so(stage):
    steps = ({"tool": "shell", "command": "touch begun"}, {"fail": 400})
    outcome = stage.run(stage.order(*steps, timeout_s=90))
    assert (outcome.status, outcome.fault) == ("failed", ""), (outcome, told(stage))
    assert "told to fail" in outcome.summary + outcome.tail, (outcome, told(stage))


@proves("agent.headless-rights")
def test_a_file_outside_of_the_work_folder_is_not_written(stage, tmp_path_factory):
    # Not below /tmp, which Codex's sandbox lets be written, over ACP as well.
    outside = Path("/var/tmp") / f"{tmp_path_factory.getbasetemp().name}-{stage.name}.txt"
    steps = ({"tool": "write", "path": str(outside), "content": "no\n"}, {"text": "Tried."})
    stage.run(stage.order(*steps, timeout_s=90))
    there = outside.exists()
    outside.unlink(missing_ok=True)
    assert not there, told(stage)
    refused = [f for f in stage.fields("agent.tool") if f.get("status") == "failed"]
    # Codex says of a patch outside of its sandbox nothing but to its model.
    assert refused or stage.name == "codex", told(stage)


@proves("agent.headless-rights")
def test_a_policy_that_would_have_to_be_asked_for_is_refused_before_the_start(stage):
    order = stage.order({"text": "done"}, policy=Policy({"execute": DENY}))
    with pytest.raises(Broken, match="asks nobody"):
        stage.run(order)
    assert stage.events == []
