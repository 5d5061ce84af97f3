"""Budgets through real daemons: an agent that spends, its gateway, and a keeper of money.

The agent asks a scripted model, 15 tokens a call (50 + 125 millionths of a dollar), over its gateway.
"""

import json
import shutil
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from msgspec.structs import replace

from muster.channel import FIRST, http
from muster.node.host.config import Config, config_text
from muster.node.host.money_config import MoneyConfig
from muster.node.host.sandbox_config import SandboxConfig
from tests.e2e import agents
from tests.e2e.agents import begin, muster, settled, tasks
from tests.e2e.enclosing import journal
from tests.e2e.fleet import Fleet, Machine, until
from tests.promise import proves
from tests.sandboxes import why_not

pytestmark = [
    pytest.mark.e2e,
    pytest.mark.timeout(240),
    pytest.mark.skipif(bool(why_not()), reason=why_not() or "-"),
]

SPEC = """\
muster: 1
name: {name}
repo: main
budget: {{tokens: {run}}}
phases:
  work:
    needs: {{machine: studio}}
    agent: spender
    paths: {{read: {shown}}}
    {budget}
    do: "@@calls {calls}"
    deliver: finished.txt
    check: "true"
"""


def give_spender(machine: Machine, url: str, shown: Path, money: MoneyConfig) -> None:
    """An agent with a key, whose attempts are enclosed, on a machine whose money somebody keeps."""
    shutil.copy(Path(__file__).with_name("spending_agent.py"), shown)
    config = Config(
        name=machine.name,
        channel={FIRST: http.Options(f"127.0.0.1:{machine.port}")},
        lease_s=agents.LEASE_S,
        sandbox=SandboxConfig(default="on", paths=(str(shown),)),
        money=money,
    )
    machine.home.put("config.toml", config_text(config))
    endpoint = {
        "api": "anthropic",
        "keys": {"ANTHROPIC_API_KEY": "x-api-key"},
        "base": "ANTHROPIC_BASE_URL",
        "upstream": url,
    }
    entry = {
        "title": "Spender",
        "protocol": "acp",
        "command": [sys.executable, str(shown / "spending_agent.py")],
        "program": sys.executable,
        "version_probe": [sys.executable, "--version"],
        "variables": ["ANTHROPIC_API_KEY", "ANTHROPIC_BASE_URL"],
        "access": {"endpoints": [endpoint]},
    }
    known = {"version": 1, "agents": {"spender": entry}}
    machine.home.put("agents.json", json.dumps(known).encode())
    machine.env = {"ANTHROPIC_API_KEY": agents.KEY, "ANTHROPIC_BASE_URL": url}


@pytest.fixture(scope="module")
def fleet(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Fleet]:
    shown = tmp_path_factory.mktemp("shown")
    shown.chmod(0o755)
    folder = tmp_path_factory.mktemp("model")
    keeps = MoneyConfig("hub", usd_day="1.00", usd_attempt="0.50")
    with agents.scripted_model(folder) as url, Fleet(["hub", "studio"]) as made:
        made.hub.home.put_seed("operator.seed", made.operator_seed)
        made.add_repository()
        give_spender(made["studio"], url, shown, replace(keeps, usd_day=""))
        config = Config(
            name="hub", channel={FIRST: http.Options(f"127.0.0.1:{made.hub.port}")}, money=keeps
        )
        made.hub.home.put("config.toml", config_text(config))
        made.start()
        until(lambda: "spender" in agents.agents_of(made, "studio"), "its agent is known")
        made.shown = shown
        yield made


def run(fleet: Fleet, name: str, tokens: int, calls: str, budget: str = "") -> tuple[str, Any]:
    words = {"name": name, "run": tokens, "calls": calls, "shown": fleet.shown, "budget": budget}
    found = begin(fleet, SPEC.format(**words), name)
    settled(fleet, found)
    return found, tasks(fleet, found)["work"]


@proves("budget.steered")
def test_an_agent_that_is_near_its_budget_is_told_to_finish_and_does(fleet):
    _, task = run(fleet, "near", 100, "20")
    assert task["state"] == "done", journal(fleet, task, "agent.end")
    (told,) = journal(fleet, task, "agent.budget")
    assert (told["used"], told["tokens_max"]) == (90, 100)
    prompts = [each["text"] for each in journal(fleet, task, "agent.prompt")]
    # The last is the check.
    assert ["Finish now" in each for each in prompts] == [False, True, False]
    assert len(journal(fleet, task, "agent.call")) == 6


@proves("budget.nearly")
@proves("budget.retry")
def test_an_agent_that_spends_on_is_ended_its_work_is_kept_and_more_money_goes_on_with_it(fleet):
    _, task = run(fleet, "deaf", 100, "10 @@deaf")
    assert task["state"] == "failed"
    assert task["reason"].startswith("budget: the budget of this task is spent: 105 of 100 tokens")
    assert len(task["commit"]) == 40
    hub = fleet.hub
    again = muster(
        fleet, hub, "retry", task["task"], "--budget", "tokens=400", "--detach", "--json"
    )
    assert again.code == 0, again
    second = json.loads(again.out.splitlines()[-1])["run"]
    settled(fleet, second)
    task = tasks(fleet, second)["work"]
    assert task["state"] == "done", task
    # What was there by the end of the first is in the second, and its calls beside that.
    assert muster(fleet, hub, "diff", second).out.count("+one more") == 17
    said = muster(fleet, hub, "spend", "--by", "run", "--json")
    spent = {each["what"].split()[1]: each for each in json.loads(said.out)["spent"]}
    # Nobody guessed, and its price is that of the table: 50 + 125 millionths for each call.
    assert (spent[second[:12]]["tokens"], spent[second[:12]]["usd_millionths"]) == (150, 1750)
    assert not any(each["estimated"] for each in spent.values())
