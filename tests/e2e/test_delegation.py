"""Agents of real daemons hand on work to each other, wait for it, and get it while they sleep."""

import base64
import json
import subprocess
from pathlib import Path

import pytest

from tests.e2e import agents
from tests.e2e.agents import begin, muster, prompt, settled, shell_step, tasks
from tests.e2e.fleet import Fleet, Machine, until
from tests.promise import proves

pytestmark = [pytest.mark.e2e, pytest.mark.timeout(300)]

ASKS = """\
muster: 1
name: asks
phases:
  lead:
    needs: {label: on-mac1}
    agent: shell
    do: |
      run=$(muster delegate 'echo "the answer of $(hostname) is 42" | tee answer.txt' \\
        --agent shell --machine mac2 --deliver answer.txt --output name)
      muster await "$run" --timeout 60s --json > result.json
      muster delegate 'one too many' --agent shell --machine mac2 > refused.txt 2>&1 && exit 9
      cat result.json refused.txt
    deliver: [result.json, refused.txt]
    may: {delegate: {machine: mac2}}
"""


@pytest.fixture(scope="module")
def fleet():
    with Fleet(["hub", "mac1", "mac2"], dials={"mac1": ["hub", "mac2"], "mac2": ["hub"]}) as made:
        made.hub.home.put_seed("operator.seed", made.operator_seed)
        made.start()
        yield made
        for machine in made.machines.values():
            assert machine.alive, f"{machine.name} ended:\n{machine.log()[-3000:]}"


def said(fleet: Fleet, machine: Machine, *words: str) -> dict[str, object]:
    done = muster(fleet, machine, *words, "--json")
    assert done.code == 0, done
    return json.loads(done.out)


@proves("delegation.by-attempt", "delegation.budget")
def test_an_agent_asks_another_machines_agent_waits_and_has_the_result_in_the_same_turn(fleet):
    run = begin(fleet, ASKS, "asks", repo="")
    view = settled(fleet, run)
    assert view["state"] == "done", json.dumps(view, indent=1)
    lead = tasks(fleet, run)["lead"]
    output = fleet.hub.ask("result", {"task": lead["task"]})["values"]["output"]
    result = json.loads(output[: output.rindex("}") + 1])
    (end,) = result["ends"]
    assert (end["what"], end["state"], result["in_time"]) == ("run", "done", True)
    (came,) = end["result"]
    assert came["machine"] == "mac2"
    assert came["summary"].endswith("is 42")
    assert came["files"] == ["answer.txt"]
    assert came["fetch"] == f"muster fetch {came['task'][:12]}"
    assert "1 runs by one attempt are allowed" in output
    for where in fleet.machines.values():
        seen = until(lambda w=where: handed_on(w, end["id"]), "it is known everywhere")
        assert seen == {"by": "shell@mac1", "person": "alice", "task": lead["task"]}


def handed_on(machine: Machine, run: str) -> dict[str, str] | None:
    found = {r["run"] for r in machine.ask("runs")}
    return machine.ask("runs", {"run": run}).get("handed_on") if run in found else None


@proves("delegation.reaches-sleepers", "delegation.by-grant", "delegation.once")
def test_what_a_session_asked_for_arrives_in_it_when_its_machine_wakes_up(fleet):
    mac1, mac2 = fleet["mac1"], fleet["mac2"]
    said(
        fleet,
        fleet.hub,
        "grant",
        "machine:mac1",
        "delegate",
        "--object",
        "mac2",
        "--agent",
        "shell",
    )
    until(lambda: mac1.ask("grants")["grants"], "mac1 knows its grant")
    opened = {"agent": "claude", "own": "5f0c", "project": "/src/shop"}
    live = mac1.ask("session.open", opened)
    gate = fleet.root / "gate"
    asked = {
        "text": [
            f'while [ ! -e "$E2E_NOTES.gate" ]; do sleep 0.2; done; echo "{gate.name} is open"'
        ],
        "agent": ["shell"],
        "machine": ["mac2"],
        "key": "k1",
    }
    with mac1.client() as client:
        first = client.call("delegate", asked, capability=live["token"])
        again = client.call("delegate", asked, capability=live["token"])
    assert (again["run"], again["fresh"]) == (first["run"], False)
    until(lambda: handed_on(mac2, first["run"]), "mac2 has begun it")
    until(lambda: any(t["state"] == "leased" for t in mac2.ask("tasks")), "its shell runs")
    mac1.stop()
    Path(f"{fleet.notes}.gate").touch()
    until(lambda: mac2.ask("runs", {"run": first["run"]})["state"] == "done", "mac2 did it alone")
    mac1.start()
    live = mac1.ask("session.open", opened)

    def unread():
        return mac1.ask("inbox", {"agent": f"claude#{live['session']}"})

    (message,) = until(unread, "its result is in the session")
    assert "gate is open" in message["text"]
    assert message["for_session"] == live["session"]
    seen = handed_on(mac1, first["run"])
    assert seen["by"] == "claude@mac1"
    assert (seen["session"], seen["person"]) == (live["session"], "alice")
    with mac1.client() as client:
        third = client.call("delegate", asked, capability=live["token"])
        assert (third["run"], third["fresh"]) == (first["run"], False)
    assert len([t for t in mac2.ask("tasks", {"all": True}) if t["run"] == first["run"]]) == 1


TALKS = """\
muster: 1
name: talks
repo: main
phases:
  lead:
    needs: {{label: on-studio}}
    agent: claude
    do: {do}
    deliver: heard.txt
    may: {{delegate: {{machine: laptop}}}}
"""


@proves("delegation.by-attempt", "agent.real-agents")
def test_a_real_agent_asks_a_real_agent_of_another_machine_and_its_model_reads_the_result(tmp_path):
    if why := agents.absent("claude"):
        pytest.skip(why)
    with agents.scripted_model(tmp_path) as url, agents.agent_fleet(url) as fleet:
        other = prompt(
            shell_step("claude", "hostname; echo 'seen from the laptop' > seen.txt"),
            {"text": "The laptop says 4711."},
        )
        # So that one script does not stand inside another.
        asked = base64.b64encode(json.loads(other).encode()).decode()
        ask = (
            f'run=$(muster delegate "$(echo {asked} | base64 -d)" --agent claude --machine laptop '
            '--output name) && muster await "$run" --timeout 90s --json | tee heard.txt'
        )
        do = prompt(shell_step("claude", ask), {"text": "It answered."})
        run = begin(fleet, TALKS.format(do=do), "talks")
        view = settled(fleet, run, within_s=150)
        assert view["state"] == "done", json.dumps(view, indent=1)
        sent = [json.loads(line) for line in (tmp_path / "requests").read_text().splitlines()]
        heard = [each for each in sent if "The laptop says 4711." in json.dumps(each)]
        assert any("muster delegate" in json.dumps(each) for each in heard), "in the same turn"


@proves("delegation.by-grant", "delegation.reaches-sleepers", "agent.real-agents")
def test_a_real_session_calls_the_tools_of_its_machine_and_has_the_result_in_the_same_turn(
    tmp_path,
):
    """mac1 sends a task to mac2: Claude Code at home on studio asks the one on laptop."""
    if why := agents.absent("claude"):
        pytest.skip(why)
    with agents.scripted_model(tmp_path) as url, agents.agent_fleet(url) as fleet:
        studio = fleet["studio"]
        may = ("delegate", "--object", "laptop", "--agent", "claude", "--agent", "shell")
        said(fleet, fleet.hub, "grant", "machine:studio", *may)
        until(lambda: studio.ask("grants")["grants"], "studio knows its grant")
        until(lambda: studio.ask("door")["port"], "its door is there")
        live = studio.ask("session.open", {"agent": "claude", "own": "at-home"})
        asked = {"text": "Tell me what you are.", "agent": ["claude"], "machine": ["laptop"]}
        script = [
            {"tool": "mcp", "name": "delegate", "arguments": asked},
            {"tool": "mcp", "name": "await", "arguments": {"what": ["@@last:run"]}},
            {"text": "Now I know."},
        ]
        done = at_home(studio, url, live["token"], script)
        assert "Now I know." in done.stdout, done
        sent = [json.loads(line) for line in (tmp_path / "requests").read_text().splitlines()]
        results = [text for each in sent for who, text in each["said"] if who == "result"]
        (end,) = json.loads(next(r for r in results if "in_time" in r))["ends"]
        assert end["state"] == "done", end
        (came,) = end["result"]
        assert (came["agent"], came["machine"]) == ("claude", "laptop")
        # What the model of laptop says where it finds no script in what it is asked.
        assert came["summary"] == "There is no script in the prompt."
        seen = handed_on(studio, end["id"])
        assert (seen["by"], seen["session"]) == ("claude@studio", live["session"])
        # What it asks for next is done while its machine sleeps, and is in the resumed session.
        gate = 'while [ ! -e "$E2E_NOTES.gate" ]; do sleep 0.2; done; echo "the gate is open"'
        asked = {"text": gate, "agent": ["shell"], "machine": ["laptop"]}
        script = [{"tool": "mcp", "name": "delegate", "arguments": asked}, {"text": "Good night."}]
        assert "Good night." in at_home(studio, url, live["token"], script).stdout
        laptop = fleet["laptop"]
        until(lambda: any(t["state"] == "leased" for t in laptop.ask("tasks")), "its shell runs")
        studio.stop()
        Path(f"{fleet.notes}.gate").touch()
        until(lambda: all(r["state"] == "done" for r in laptop.ask("runs")), "laptop did it alone")
        studio.start()
        live = studio.ask("session.open", {"agent": "claude", "own": "at-home"})
        until(lambda: studio.ask("inbox", {"agent": f"claude#{live['session']}"}), "it came")
        script = [{"tool": "mcp", "name": "inbox", "arguments": {}}, {"text": "Good morning."}]
        assert "Good morning." in at_home(studio, url, live["token"], script).stdout
        sent = [json.loads(line) for line in (tmp_path / "requests").read_text().splitlines()]
        results = [text for each in sent for who, text in each["said"] if who == "result"]
        assert any("the gate is open" in text for text in results), "in the request to its model"


def at_home(machine: Machine, url: str, token: str, script: list[dict[str, object]]):
    """Claude Code as a person starts it, with the tools of the machine; its words."""
    server = {
        "type": "http",
        "url": f"http://localhost:{machine.home.door_port}/mcp",
        "headers": {"Authorization": f"Bearer {token}"},
    }
    prompt = f"Do what the script says. @@script {json.dumps(script)}"
    words = (
        "claude", "-p", prompt, "--strict-mcp-config",
        "--mcp-config", json.dumps({"mcpServers": {"muster": server}}),
        "--allowedTools", "mcp__muster__delegate,mcp__muster__await,mcp__muster__inbox",
    )  # fmt: skip
    env = machine.fleet.environment(machine) | machine.env
    return subprocess.run(
        words, env=env, cwd=machine.env["HOME"], capture_output=True, text=True, timeout=180,
        stdin=subprocess.DEVNULL, check=False,
    )  # fmt: skip
