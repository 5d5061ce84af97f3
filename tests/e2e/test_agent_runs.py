"""Real Claude Code and Codex in runs between real daemons: no credentials, no network.

The hub has the repository and the operator; studio and laptop have the agents. See agents.py.
"""

import json
import subprocess
import sys
from pathlib import Path

import pytest

from muster.git import commit as commits
from tests.e2e import agents
from tests.e2e.agents import begin, below, muster, prompt, settled, shell_step, tasks
from tests.e2e.fleet import until
from tests.git.repositories import verify
from tests.promise import proves

pytestmark = [pytest.mark.e2e, pytest.mark.timeout(300)]

GREET = """\
muster: 1
name: {name}
repo: main
phases:
  write:
    needs: {{label: on-studio}}
    agent: [{agent}]
    do: {do}
    deliver: hello.txt
    check: grep -q "hello from {agent}" hello.txt
  report:
    after: write
    needs: {{label: on-hub}}
    agent: shell
    do: |
      printf '%s|%s|%s\\n' "$MUSTER_WRITE_SUMMARY" "$MUSTER_WRITE_AGENT" "$MUSTER_WRITE_MACHINE" > report.txt
      printf '%s\\n' "$MUSTER_WRITE_OUTPUT" >> report.txt
    deliver: report.txt
"""
ALONE = """\
muster: 1
name: {name}
repo: main
phases:
  work:
    agent: [{agent}]
    {more}
    do: {do}
    deliver: hello.txt
"""


@pytest.fixture(scope="module")
def fleet(tmp_path_factory):
    if all(agents.absent(name) for name in agents.AGENTS):
        pytest.skip("; ".join(agents.absent(name) for name in agents.AGENTS))
    with (
        agents.scripted_model(tmp_path_factory.mktemp("model")) as url,
        agents.agent_fleet(url) as made,
    ):
        yield made


@pytest.fixture(params=agents.AGENTS)
def agent(request):
    if why := agents.absent(request.param):
        pytest.skip(why)
    return request.param


def git(fleet, *words):
    where = Path(fleet.hub.home.repos) / "main.git"
    done = subprocess.run(
        ["git", "-C", str(where), *words], capture_output=True, text=True, check=True
    )
    return done.stdout


def journal(fleet, task, *words):
    """The journal of a task as the operator reads it on the hub, another machine."""
    said = muster(fleet, fleet.hub, "logs", task, "--json", *words)
    assert said.code == 0, said
    return agents.lines(said)


def greeting(agent, *, commits_itself):
    steps = [shell_step(agent, f"echo 'hello from {agent}' > hello.txt")]
    if commits_itself:
        steps.append(shell_step(agent, "git add hello.txt && git commit -q -m 'say hello'"))
    return prompt(*steps, {"text": f"{agent} wrote the greeting."})


@proves("agent.works-in-a-run", "agent.real-agents")
def test_a_real_agent_delivers_in_a_run_and_its_work_reaches_the_next_phase(fleet, agent):
    name = f"greet-{agent}"
    do = greeting(agent, commits_itself=agent == "claude")
    run = begin(fleet, GREET.format(name=name, agent=agent, do=do), name)
    view = settled(fleet, run)
    found = tasks(fleet, run)
    assert view["state"] == "done", json.dumps(view, indent=1)
    write = found["write"]
    assert (write["machine"], write["agent"]) == ("studio", agent)
    branch = f"muster/{run}/write"
    assert git(fleet, "show", f"{branch}:hello.txt") == f"hello from {agent}\n"
    assert git(fleet, "rev-parse", branch).strip() == write["commit"]
    refs = git(fleet, "for-each-ref", "--format=%(refname) %(objectname)", "refs/muster/attempt")
    assert f"refs/muster/attempt/{write['task']}/" in refs
    assert write["commit"] in refs
    author = git(fleet, "log", "-1", "--format=%an <%ae> by %cn", branch).strip()
    assert author == f"{agent}@studio <{agent}@studio.muster> by studio"
    key = fleet["studio"].identity.signer("git").public
    maker = commits.Maker(f"{agent}@studio", "studio", key)
    verify(Path(fleet.hub.home.repos) / "main.git", write["commit"], maker)
    report = git(fleet, "show", f"muster/{run}/report:report.txt").splitlines()
    assert report[0] == f"{agent} wrote the greeting.|{agent}|studio"
    assert f"{agent} wrote the greeting." in report[1:]


@proves("agent.works-in-a-run", "cli.logs")
def test_the_journal_is_read_on_another_machine_and_tells_everything(fleet, agent):
    name = f"tell-{agent}"
    steps = [shell_step(agent, "echo hello > hello.txt; sleep 3"), {"text": "It is told."}]
    text = ALONE.format(name=name, agent=agent, do=prompt(*steps), more="retries: 0")
    run = begin(fleet, text, name)
    # Whoever follows a task before anybody has begun it waits for it.
    work = until(lambda: tasks(fleet, run).get("work"), "the task is there")
    argv = [sys.executable, "-m", "muster", "logs", work["task"], "--follow", "--json"]
    seen = []
    with subprocess.Popen(
        argv, env=agents.typing_environment(fleet, fleet.hub), stdout=subprocess.PIPE, text=True
    ) as live:
        seen.extend(
            (json.loads(line), fleet.hub.ask("runs", {"run": run})["state"]) for line in live.stdout
        )
        assert live.wait(30) == 0
    assert settled(fleet, run)["state"] == "done"
    work = tasks(fleet, run)["work"]
    told = json.dumps([entry for entry, _ in seen], indent=1)
    early = {entry["kind"] for entry, state in seen if state == "open"}
    assert {"agent.prompt", "agent.tool", "agent.decision"} <= early, told
    after = journal(fleet, work["task"])
    kinds = [entry["kind"] for entry in after]
    assert [entry["kind"] for entry, _ in seen] == kinds, told
    assert kinds[:2] == ["agent.sandbox", "agent.prompt"]
    assert {"agent.output", "agent.usage", "agent.end"} <= set(kinds), told
    assert {e["actor"] for e in after} == {f"{agent}@{work['machine']}"}
    assert {e["machine"] for e in after} == {work["machine"]}
    decision = next(e for e in after if e["kind"] == "agent.decision")
    assert (decision["tool"], decision["answer"], decision["by"]) == ("execute", "allow", "policy")
    assert any("It is told." in e.get("text", "") for e in after)
    usage = [e for e in after if e["kind"] == "agent.usage" and "input_tokens" in e]
    assert usage, told
    assert agents.KEY not in told


@proves("agent.mcp-per-task", "agent.works-in-a-run", "node.secrets-stay-out")
def test_an_agent_uses_the_server_that_its_phase_names_where_an_owner_offers_it(fleet, agent):
    """Studio alone offers it; what the server said stands in the journal, what it was given not."""
    name = f"looks-{agent}"
    looks = {"tool": "mcp", "server": "words", "name": "look_up", "arguments": {"word": "x"}}
    steps = (looks, shell_step(agent, "touch hello.txt"), {"text": "It was looked up."})
    text = ALONE.format(name=name, agent=agent, do=prompt(*steps), more="mcp: words")
    run = begin(fleet, text, name)
    view = settled(fleet, run)
    assert view["state"] == "done", json.dumps(view, indent=1)
    work = tasks(fleet, run)["work"]
    assert (work["machine"], work["agent"]) == ("studio", agent)
    entries = journal(fleet, work["task"])
    told = json.dumps(entries, indent=1)
    (used,) = [
        e for e in entries if "it means" in str(e.get("output")) and e["status"] == "completed"
    ]
    assert f"it means {agents.WORD[::-1]}" in used["output"], told
    assert "words" in used["title"], told
    assert "agent.ask" not in {e["kind"] for e in entries}, told
    assert agents.WORD not in told
    # Where nobody offers one it is said before anything is begun.
    spec = fleet.root / "nowhere.yml"
    spec.write_text(text.replace("mcp: words", "mcp: nowhere"))
    said = muster(fleet, fleet.hub, "check", str(spec))
    assert "no MCP server nowhere" in said.out + said.err, said


def _begun(fleet, run):
    """The task once an attempt of it has begun, as far as the hub knows."""
    work = tasks(fleet, run).get("work")
    if work is None or not fleet.hub.ask("journal.where", {"task": work["task"]})["machines"]:
        return None
    return work


SLEEPER = "import signal, time; signal.signal(signal.SIGTERM, signal.SIG_IGN); time.sleep(97)"


def sleepers(machine):
    return [line for line in below(machine).values() if "time.sleep(97)" in line and " -c " in line]


@proves("agent.works-in-a-run", "agent.cancel-ends-all")
def test_cancel_in_the_middle_of_a_tool_ends_the_task_and_every_process(fleet, agent):
    """One of the tool's processes left its session and both ignore TERM."""
    name = f"stop-{agent}"
    tool = f"setsid {sys.executable} -c '{SLEEPER}' & {sys.executable} -c '{SLEEPER}'"
    do = prompt(shell_step(agent, tool), {"text": "never said"})
    more = "needs: {label: on-studio}"
    run = begin(fleet, ALONE.format(name=name, agent=agent, do=do, more=more), name)
    studio = fleet["studio"]
    until(lambda: len(sleepers(studio)) >= 2, lambda: str(below(studio)), within_s=60)
    task = tasks(fleet, run)["work"]["task"]
    said = muster(fleet, fleet.hub, "cancel", task, "--reason", "changed my mind")
    assert said.code == 0, said
    view = settled(fleet, run, 30)
    assert (view["state"], tasks(fleet, run)["work"]["state"]) == ("failed", "cancelled"), view
    until(lambda: not below(studio), lambda: str(below(studio)), within_s=20)
    assert not git(fleet, "for-each-ref", f"refs/heads/muster/{run}")
    ends = [e for e in journal(fleet, task) if e["kind"] == "agent.end"]
    assert [e["stop"] for e in ends] == ["cancelled"], ends


@proves("agent.works-in-a-run", "agent.dies-with-daemon", "node.run-survives-its-worker")
def test_a_killed_worker_leaves_nothing_and_another_takes_the_task_over(fleet, agent):
    name = f"kill-{agent}"
    notes = f"{fleet.notes}-{agent}"
    tool = (
        f"echo began >> {notes}; "
        f"[ $(wc -l < {notes}) -gt 1 ] || {sys.executable} -c '{SLEEPER}'; echo hello > hello.txt"
    )
    do = prompt(shell_step(agent, tool), {"text": "It is there now."})
    run = begin(fleet, ALONE.format(name=name, agent=agent, do=do, more="retries: 2"), name)
    victim = until(
        lambda: next((m for m in map(fleet.__getitem__, agents.WORKERS) if sleepers(m)), None),
        lambda: str(fleet.processes()),
        within_s=60,
    )
    assert tasks(fleet, run)["work"]["machine"] == victim.name
    victim.kill()
    try:
        until(lambda: not below(victim), lambda: str(below(victim)), within_s=20)
        view = settled(fleet, run)
    finally:
        victim.start()
        until(lambda: "hub" in victim.linked(), f"{victim.name} is back")
    assert view["state"] == "done", json.dumps(view, indent=1)
    (other,) = set(agents.WORKERS) - {victim.name}
    work = tasks(fleet, run)["work"]
    # A busy test machine may cost the second worker a lease, too.
    assert (work["machine"], work["losses"] >= 1) == (other, True)
    author = git(fleet, "log", "-1", "--format=%an", f"muster/{run}/work").strip()
    assert author == f"{agent}@{other}"


@proves("node.secrets-stay-out")
def test_a_key_is_in_no_log_even_when_the_agent_says_it(fleet):
    if why := agents.absent("claude"):
        pytest.skip(why)
    steps = [
        shell_step("claude", "echo key=$ANTHROPIC_API_KEY; touch hello.txt; sleep 1"),
        {"text": "It was said."},
    ]
    text = ALONE.format(name="leak", agent="claude", do=prompt(*steps), more="retries: 0")
    run = begin(fleet, text, "leak")
    until(lambda: _begun(fleet, run), "the attempt began", within_s=60)
    assert settled(fleet, run)["state"] == "done"
    told = json.dumps(journal(fleet, tasks(fleet, run)["work"]["task"]))
    assert "key=[ANTHROPIC_API_KEY]" in told, told
    for machine in fleet.machines.values():
        for file in machine.home.path.rglob("*"):
            if file.is_file() and file.name != "agents.env":
                assert agents.KEY.encode() not in file.read_bytes(), file


@proves("node.secrets-stay-out")
def test_a_key_is_in_no_argument_list(fleet, agent):
    name = f"argv-{agent}"
    do = prompt(shell_step(agent, "sleep 2; touch hello.txt"), {"text": "done"})
    run = begin(fleet, ALONE.format(name=name, agent=agent, do=do, more="retries: 0"), name)
    seen = set()

    def over():
        seen.update(fleet.processes().values())
        return fleet.hub.ask("runs", {"run": run})["state"] != "open"

    until(over, "the run ends", within_s=90)
    assert any(agent in line for line in seen)
    assert not [line for line in seen if agents.KEY in line]
