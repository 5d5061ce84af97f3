"""What is added to an agent's command for one attempt."""

import pytest
from tests.promise import proves

from muster.agent.base import AttemptOrder
from muster.agent.catalogue import HEADLESS, Start, load
from muster.agent.invocation import invocation
from muster.errors import Broken, Malformed

NAMES = sorted(name for name, entry in load().items() if entry.headless is not None)


def told(name, driver="acp", **changes):
    order = AttemptOrder(
        task="t", epoch=(1, 1), agent=name, cwd="/", env={"ANTHROPIC_MODEL": "old"}, **changes
    )
    return invocation(order, load()[name], Start(driver, ["program"], {"A": "1"}))


@proves("agent.model-of-the-task")
@pytest.mark.parametrize("driver", ["acp", HEADLESS])
@pytest.mark.parametrize("name", NAMES)
def test_each_of_the_six_gets_its_model_by_the_catalogue(name, driver):
    made = told(name, driver, model="m1")
    given = made["argv"] + list(made["env"].values()) + [made["set_model"]]
    assert any("m1" in word for word in given), made
    assert made["env"]["A"] == "1"
    plain = told(name, driver)
    assert "{" not in "".join(plain["argv"])
    assert plain["env"]["ANTHROPIC_MODEL"] == "old"


@proves("agent.model-of-the-task")
def test_the_tasks_model_counts_above_the_persons():
    assert told("claude", model="m1")["env"]["ANTHROPIC_MODEL"] == "m1"


@proves("agent.model-of-the-task")
@pytest.mark.parametrize(
    ("name", "mode"), [("claude", "bypassPermissions"), ("gemini", "yolo"), ("codex", "agent"),
                       ("qwen", "auto"), ("claude", "acceptEdits")],
)  # fmt: skip
def test_no_task_puts_an_agent_into_a_mode_that_asks_nobody(name, mode):
    with pytest.raises(Broken, match="asks nobody"):
        told(name, mode=mode)
    assert told(name, mode="plan")["mode"] == "plan"


@proves("agent.model-of-the-task")
def test_a_headless_mode_is_refused_another_mode_before_it_starts():
    with pytest.raises(Broken, match="needs the adapter claude-agent-acp"):
        told("claude", HEADLESS, mode="plan")


@proves("agent.model-of-the-task", "agent.goes-on")
@pytest.mark.parametrize("word", ["--help", "", "a\nb"])
def test_a_session_that_would_be_an_option_is_refused(word):
    if word:
        with pytest.raises(Malformed, match="cannot be a session"):
            told("claude", HEADLESS, resume=word)
        with pytest.raises(Malformed, match="cannot be a model"):
            told("claude", HEADLESS, model=word)
    else:
        assert told("claude", HEADLESS, resume=word)["argv"] == ["program"]


@proves("agent.goes-on")
def test_codex_goes_on_by_a_word_of_its_own_after_its_model():
    made = told("codex", HEADLESS, model="m1", resume="s1")
    assert made["argv"] == ["program", "-m", "m1", "resume", "s1", "-"]


@proves("agent.goes-on")
def test_copilot_is_given_the_name_of_its_session():
    made = told("copilot", HEADLESS)
    assert made["argv"] == ["program", f"--session-id={made['session']}"]


@proves("enclosure.attempts-inside")
def test_a_program_makes_no_sandbox_of_its_own_inside_ours():
    entry = load()["codex"]
    argv = list(entry.headless.command)
    for sandbox, says in (({}, "workspace-write"), ({"program": "bwrap"}, "danger-full-access")):
        order = AttemptOrder(
            task="t", epoch=(1, 1), agent="codex", cwd="/", env={}, prompt="p", sandbox=sandbox
        )
        made = invocation(order, entry, Start(HEADLESS, argv, {}))["argv"]
        assert made[made.index("--sandbox") + 1] == says
