"""A program on the person's PATH is an agent, without adapter, registry or a word of configuration.

The program is a script that prints what Claude Code prints, so this runs everywhere; the real ones
are in test_headless_agents.py. The daemon is started as a service starts it, with a poor PATH.
"""

import json
import os
import sys
from pathlib import Path

import pytest

from tests.e2e.agents import begin, lines, muster, settled, tasks
from tests.e2e.fleet import Fleet, until
from tests.promise import proves

pytestmark = [pytest.mark.e2e, pytest.mark.timeout(180)]

CLAUDE = f"""#!{sys.executable}
import json, os, sys
here = os.path.dirname(os.path.abspath(__file__))
if "--version" in sys.argv:
    sys.exit(print("2.1.332 (Claude Code)"))
if sys.argv[1:3] == ["auth", "status"]:
    account = here + "/account"
    sys.exit(print(open(account).read()) if os.path.exists(account) else 1)
asked = sys.stdin.read()
with open(here + "/asked.json", "w") as file:
    json.dump({{"asked": asked, "argv": sys.argv[1:], "path": os.environ["PATH"]}}, file)
def say(**event):
    print(json.dumps(event), flush=True)
say(type="system", subtype="init")
if os.path.exists(here + "/refused"):
    text = "Failed to authenticate. API Error: 401 no"
    say(type="result", subtype="success", is_error=True, result=text)
    sys.exit(1)
with open("hello.txt", "w") as file:
    file.write("hello")
say(type="assistant", message={{"content": [{{"type": "tool_use", "id": "1", "name": "Write",
    "input": {{"file_path": "hello.txt"}}}}]}})
say(type="user", message={{"content": [{{"type": "tool_result", "tool_use_id": "1", "content": "ok"}}]}})
say(type="assistant", message={{"content": [{{"type": "text", "text": "Written."}}]}})
say(type="result", subtype="success", is_error=False, total_cost_usd=0.25,
    usage={{"input_tokens": 7, "output_tokens": 3}})
"""
SPEC = """\
muster: 1
name: greet
phases:
  hello:
    agent: claude
    do: Write hello.txt, and say nothing of SECRET-PLAN.
    deliver: [hello.txt]
"""


@pytest.fixture
def fleet():
    """Hub and studio; on studio a login shell knows a folder that the daemon's PATH has not."""
    with Fleet(["hub", "studio"]) as made:
        made.hub.home.put_seed("operator.seed", made.operator_seed)
        studio, person = made["studio"], made.root / "person"
        (person / "tools").mkdir(parents=True)
        program = person / "tools" / "claude"
        program.write_text(CLAUDE)
        program.chmod(0o755)
        shell = person / "shell"
        shell.write_text(f'#!/bin/sh\necho hello\nPATH={person}/tools:$PATH\neval "$2"\n')
        shell.chmod(0o755)
        own = made.environment(studio)["PATH"].split(os.pathsep)[:2]
        poor = os.pathsep.join([*own, "/usr/bin", "/bin"])
        studio.env |= {"PATH": poor, "HOME": str(person), "SHELL": str(shell)}
        for name in ("ANTHROPIC_API_KEY", "ANTHROPIC_AUTH_TOKEN", "CLAUDE_CONFIG_DIR"):
            studio.env[name] = ""
        made.start()
        until(lambda: "claude" in facts(made)["agents"], "studio's claude is known on the hub")
        yield made


def facts(fleet):
    found = {m["name"]: m["facts"] for m in fleet.hub.ask("machines")}
    return found["studio"] or {"agents": {}}


def row(fleet, machine):
    said = muster(fleet, machine, "agents", "studio", "--json")
    (found,) = (r for r in lines(said)[0] if r["agent"] == "claude")
    return found


@proves("agent.headless-without-adapter", "node.person-path", "cli.agents", "agent.headless-prompt")
def test_a_program_that_only_the_login_shell_knows_does_a_task_of_the_fleet(fleet):
    person = fleet.root / "person"
    assert facts(fleet)["drivers"]["claude"] == "headless"
    assert row(fleet, fleet["studio"])["state"] == "not logged in"
    (person / "tools" / "account").touch()
    assert row(fleet, fleet["studio"])["state"] == "ready", "who asks is answered anew"
    until(lambda: facts(fleet)["logins"].get("claude") == "yes", "the hub knows of the login")
    run = begin(fleet, SPEC, "greet", repo="")
    assert settled(fleet, run)["state"] == "done", json.dumps(tasks(fleet, run))
    task = tasks(fleet, run)["hello"]
    assert (task["machine"], task["summary"]) == ("studio", "Written.")
    asked = json.loads((person / "tools" / "asked.json").read_text())
    assert "SECRET-PLAN" in asked["asked"]
    assert "SECRET-PLAN" not in " ".join(asked["argv"])
    folders = asked["path"].split(os.pathsep)
    assert folders[0] == str(person / "tools")
    ours = os.path.realpath(Path(sys.executable).parent)
    assert os.path.realpath(folders[-1]) == ours, "Muster's own environment comes last"
    shown = muster(fleet, fleet.hub, "agents")
    assert "claude" in shown.out
    assert "headless" in shown.out
    assert "npm install -g @google/gemini-cli" in shown.out


@proves("agent.login-refused", "agent.headless-failures", "cli.agents")
def test_an_agent_whose_model_refuses_it_is_not_logged_in_until_it_is_mended(fleet):
    tools = fleet.root / "person" / "tools"
    (tools / "account").touch()
    (tools / "refused").touch()
    assert row(fleet, fleet["studio"])["state"] == "ready"
    run = begin(fleet, SPEC, "greet", repo="")
    until(lambda: facts(fleet)["logins"].get("claude") == "no", "the refusal is a fact")
    (line,) = (
        r
        for r in lines(muster(fleet, fleet.hub, "agents", "--json"))[0]
        if r["mend"].startswith("run `claude`")
    )
    assert (line["machine"], line["state"]) == ("studio", "not logged in")

    def waits():
        return tasks(fleet, run)["hello"].get("waits", "")

    until(lambda: waits().startswith("only a login is missing"), "the run says what it waits for")
    assert "claude on studio: run `claude` there once and log in" in waits()
    why = muster(fleet, fleet.hub, "why", f"{run}/hello").out
    assert "claude is not logged in there" in why
    assert row(fleet, fleet["studio"])["state"] == "not logged in"
    # Somebody logs in again: nothing changes but what the program says of its login.
    (tools / "refused").unlink()
    (tools / "account").write_text("another one")
    assert row(fleet, fleet["studio"])["state"] == "ready"
    assert settled(fleet, run)["state"] == "done"


@proves("node.person-path-bounded", "agent.asked-seldom")
def test_a_program_that_hangs_keeps_no_daemon_from_its_fleet():
    """It is asked for twenty seconds; the others are here long before that."""
    with Fleet(["hub", "studio"]) as made:
        folder = made.root / "tools"
        folder.mkdir()
        (folder / "claude").write_text("#!/bin/sh\nexec sleep 97\n")
        (folder / "claude").chmod(0o755)
        studio = made["studio"]
        studio.env |= {
            "PATH": f"{folder}:{made.environment(studio)['PATH']}",
            "SHELL": "/bin/false",
        }
        made.hub.start()
        studio.start()
        until(lambda: "studio" in made.hub.linked(), "studio is linked", within_s=60)
        (own,) = (m["facts"] for m in studio.ask("machines") if m["name"] == "studio")
        assert not own, "it is in its fleet before its programs have answered"
        until(lambda: "claude" in facts(made)["agents"], "and tells of it later", within_s=60)
