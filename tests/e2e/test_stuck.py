"""Agents that are stuck for real, with thresholds of seconds: found, ended, done elsewhere."""

import json
import sys
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest

from muster.channel import FIRST, http
from muster.node.host.config import Config, config_text
from muster.node.host.sandbox_config import SandboxConfig
from tests.e2e import agents
from tests.e2e.agents import begin, below, lines, muster, settled, tasks
from tests.e2e.fleet import Fleet, Machine, until
from tests.promise import proves
from tests.sandboxes import why_not

pytestmark = [pytest.mark.e2e, pytest.mark.timeout(120)]

WORKERS = ("studio", "laptop")
SPEC = """\
muster: 1
name: {name}
phases:
  work:
    agent: [stuck]
    retries: {retries}
    {sandbox}
    check: "true"
    do: |
      do: {do}
"""
# A quarter of the least is how often they are looked at.
HEALTH = {"stall": 1, "silent": 2, "unseen": 2, "repeats": 5}


class Model(BaseHTTPRequestHandler):
    """A model that does not answer the first two requests, and says nothing at all of them."""

    asked = 0
    over = threading.Event()

    def do_POST(self) -> None:
        self.rfile.read(int(self.headers["Content-Length"]))
        Model.asked += 1
        if Model.asked <= 2:
            self.over.wait(60)
            return
        used = {"input_tokens": 1, "output_tokens": 1}
        said = {"id": "m1", "model": "m", "content": [{"type": "text", "text": "Here."}]}
        body = json.dumps({**said, "usage": used}).encode()
        self.send_response(200)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_: Any) -> None:
        pass


@pytest.fixture(scope="module")
def url() -> Iterator[str]:
    server = ThreadingHTTPServer(("127.0.0.1", 0), Model)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield f"http://127.0.0.1:{server.server_address[1]}"
    Model.over.set()
    server.shutdown()
    server.server_close()


def settle(machine: Machine, url: str) -> None:
    """An agent of one file, on the PATH of a machine that encloses what has a key."""
    program = machine.fleet.root / "bin" / "stuck"
    source = Path(__file__).with_name("stuck_agent.py").read_text(encoding="utf-8")
    program.write_text(f"#!{sys.executable}\n{source}", encoding="utf-8")
    program.chmod(0o755)
    access = {"api": "anthropic", "keys": {"ANTHROPIC_API_KEY": "x-api-key"}, "upstream": url}
    entry = {
        "title": "Stuck", "protocol": "acp", "command": ["stuck"], "program": "stuck",
        "version_probe": ["stuck", "--version"], "health": HEALTH,
        "variables": ["ANTHROPIC_API_KEY"],
        "access": {"endpoints": [{**access, "base": "ANTHROPIC_BASE_URL"}]},
    }  # fmt: skip
    machine.home.put("agents.json", json.dumps({"version": 1, "agents": {"stuck": entry}}).encode())
    config = Config(
        name=machine.name,
        channel={FIRST: http.Options(f"127.0.0.1:{machine.port}")},
        sandbox=SandboxConfig(default="off"),
    )
    machine.home.put("config.toml", config_text(config))
    machine.env = {"ANTHROPIC_API_KEY": agents.KEY}


@pytest.fixture(scope="module")
def fleet(url) -> Iterator[Fleet]:
    with Fleet(["hub", *WORKERS]) as made:
        made.hub.home.put_seed("operator.seed", made.operator_seed)
        (made.root / "marks").mkdir()
        for name in WORKERS:
            settle(made[name], url)
        made.start()
        for name in WORKERS:
            until(lambda n=name: "stuck" in agents.agents_of(made, n), f"{name} has its agent")
        yield made


def journals(fleet: Fleet, task: str, kind: str) -> dict[str, list[dict[str, Any]]]:
    """What each machine wrote down of a task, of one kind."""
    found = {}
    for name in WORKERS:
        said = muster(fleet, fleet[name], "logs", task, "--json")
        found[name] = [e for e in lines(said) if e.get("kind") == kind] if said.code == 0 else []
    return {name: each for name, each in found.items() if each}


def run(fleet: Fleet, what: str, retries: int = 0) -> tuple[dict[str, Any], dict[str, Any]]:
    """A task that gets stuck so, settled; and what was done about it, by machine."""
    mark = fleet.root / "marks" / what
    do = what if what == "asks" else f"{what} {mark}"
    # A mark lies outside of the folder; a key is held by a gateway of an enclosed agent alone.
    sandbox = "sandbox: on" if what == "asks" else ""
    text = SPEC.format(name=what, do=do, retries=retries, sandbox=sandbox)
    run = begin(fleet, text, what, repo="")
    settled(fleet, run, within_s=60)
    task = tasks(fleet, run)["work"]
    return task, journals(fleet, task["task"], "agent.health")


@proves("health.hurry", "health.stuck-goes-elsewhere", "health.told-first")
def test_an_agent_that_says_nothing_is_asked_ended_and_its_task_is_done_elsewhere(fleet):
    task, found = run(fleet, "silent")
    assert (task["state"], task["losses"], task["tries"]) == ("done", 1, 0), task
    ((where, told),) = found.items()
    assert [(e["detector"], e["did"]) for e in told] == [("silent", "told"), ("silent", "ended")]
    assert task["machine"] != where
    assert below(fleet[where]) == {}, "its child ignores every signal that can be ignored"


@proves("health.loop-fails", "health.told-first")
def test_an_agent_in_a_loop_is_told_what_it_repeats_and_fails_when_it_goes_on(fleet):
    task, found = run(fleet, "loops", retries=1)
    assert (task["state"], task["losses"], task["tries"]) == ("done", 0, 1), task
    ((where, told),) = found.items()
    assert [(e["detector"], e["did"]) for e in told] == [("loop", "told"), ("loop", "failed")]
    prompts = journals(fleet, task["task"], "agent.prompt")[where]
    assert "You called 'Bash make' 5 times in a row" in prompts[1]["text"]
    assert task["machine"] != where


@proves("health.stuck-goes-elsewhere", "health.detectors")
@pytest.mark.skipif(bool(why_not()), reason=why_not() or "-")
def test_a_model_that_stalls_twice_costs_its_machine_the_task(fleet):
    task, found = run(fleet, "asks")
    assert (task["state"], task["losses"]) == ("done", 1), task
    ((where, told),) = found.items()
    assert [(e["detector"], e["did"]) for e in told] == [("stall", "ended")]
    assert task["machine"] != where


AWAY = """\
muster: 1
name: away
phases:
  work:
    agent: shell
    needs: {{agent: stuck}}
    check: "true"
    do: test -e {mark} || {{ touch {mark}; sleep 60; }}
"""


@proves("health.drained", "health.paused", "health.told-whole")
def test_a_machine_that_drains_gives_its_work_away_and_gets_none_until_it_is_resumed(fleet):
    mark = fleet.root / "marks" / "drained"
    run = begin(fleet, AWAY.format(mark=mark), "away", repo="")
    until(mark.exists, "it began somewhere")
    where = next(n for n in WORKERS if below(fleet[n]))
    said = muster(fleet, fleet.hub, "drain", where, "--wait", "--why", "a new disk")
    assert said.code == 0, said
    assert "takes no work: it drains: a new disk" in said.out
    assert below(fleet[where]) == {}
    settled(fleet, run, within_s=30)
    task = tasks(fleet, run)["work"]
    assert (task["state"], task["losses"], task["tries"]) == ("done", 0, 0), task
    assert task["machine"] != where
    # It is well all the same.
    said = muster(fleet, fleet[where], "health", "--json")
    assert (said.code, said.value["ok"]) == (0, True), said
    assert said.value["paused"].endswith("a new disk")
    assert muster(fleet, fleet.hub, "resume", where).code == 0
    assert muster(fleet, fleet.hub, "resume", where).code == 6
