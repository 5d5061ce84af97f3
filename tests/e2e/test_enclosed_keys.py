"""Real Claude Code and Codex, enclosed: whole tasks, their key never inside, their ends clean."""

import os
import re
from collections.abc import Iterator
from typing import Any

import pytest

from tests.e2e import agents, install_agents
from tests.e2e.agents import begin, muster, prompt, settled, shell_step, tasks
from tests.e2e.enclosing import enclose, journal
from tests.e2e.fleet import Fleet, Machine, until
from tests.promise import proves
from tests.sandboxes import why_not

pytestmark = [
    pytest.mark.e2e,
    pytest.mark.timeout(300),
    pytest.mark.skipif(bool(why_not()), reason=why_not() or "-"),
]

SPEC = """\
muster: 1
name: {name}
repo: main
phases:
  work:
    needs: {{machine: studio}}
    agent: [{agent}]
    {model}
    retries: 0
    do: {do}
    deliver: found.txt
    check: "true"
"""
# How often two texts are in the environment and arguments of every process it sees, and in all files
# that it can read: the key, and what stands in its place.
SEARCH = (
    "(env; cat /proc/[0-9]*/environ /proc/[0-9]*/cmdline; "
    "find / -xdev -type f -size -4M -not -path '/usr/*' -not -path '/proc/*' "
    "-not -path '*/node_modules/*' -exec cat {} + ) >/tmp/all 2>/dev/null; "
    "grep -a -c 'do-not-tel[l]-' /tmp/all >found.txt; "
    "grep -a -c 'muster-has-the-key-outsid[e]' /tmp/all >>found.txt; cat found.txt"
)


def settle(machine: Machine, url: str, headless: tuple[str, ...]) -> None:
    """A machine with agents that have keys, and whose attempts are enclosed."""
    enclose(machine, headless=headless)
    home = machine.fleet.root / f"{machine.name}-user"
    home.mkdir()
    programs = install_agents.programs_path(install_agents.folder())
    machine.env = {
        "HOME": str(home),
        "PATH": programs + os.pathsep + machine.fleet.environment(machine)["PATH"],
        "ANTHROPIC_API_KEY": agents.KEY,
        "ANTHROPIC_BASE_URL": url,
        "OPENAI_API_KEY": agents.KEY,
        "OPENAI_BASE_URL": f"{url}/v1",
    }


@pytest.fixture(scope="module", params=[(), agents.AGENTS], ids=["acp", "headless"])
def fleet(request: Any, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Fleet]:
    if all(agents.absent(name) for name in agents.AGENTS):
        pytest.skip("; ".join(agents.absent(name) for name in agents.AGENTS))
    folder = tmp_path_factory.mktemp("model")
    with agents.scripted_model(folder) as url, Fleet(["hub", "studio"]) as made:
        made.hub.home.put_seed("operator.seed", made.operator_seed)
        made.add_repository()
        settle(made["studio"], url, request.param)
        made.start()
        there = {name for name in agents.AGENTS if not agents.absent(name)}
        until(lambda: there <= agents.agents_of(made, "studio"), "its agents are known")
        made.headless = bool(request.param)
        yield made


@proves("enclosure.keyless")
@pytest.mark.parametrize("agent", agents.AGENTS)
def test_a_real_agent_does_its_task_inside_and_its_key_is_nowhere_in_there(fleet, agent):
    if reason := agents.absent(agent):
        pytest.skip(reason)
    # Headless nobody is asked: there Codex stays in its own sandbox, inside of ours.
    step = {"tool": "shell", "command": SEARCH} if fleet.headless else shell_step(agent, SEARCH)
    do = prompt(step, {"text": "Done."})
    # Codex gives a model that it knows other tools than the scripted one calls.
    model = "model: scripted" if agent == "codex" else ""
    text = SPEC.format(name=f"{agent}-inside", agent=agent, do=do, model=model)
    run = begin(fleet, text, f"{agent}-inside")
    settled(fleet, run, within_s=150)
    task = tasks(fleet, run)["work"]
    assert task["state"] == "done", journal(fleet, task, "agent.tool")
    found = re.findall(r"(?m)^\+(\d+)$", muster(fleet, fleet.hub, "diff", run).out)
    assert found[0] == "0", "the key"
    assert int(found[1]) > 0, "what stands in its place, by the same search"
    (told,) = journal(fleet, task, "agent.sandbox")
    assert told["enclosed"] is True
    calls = journal(fleet, task, "agent.call")
    assert [each for each in calls if each["ending"] == "answered"]
    assert not list((fleet["studio"].home.path / "work").iterdir())
