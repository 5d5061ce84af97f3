"""`muster ask`, from words to a run that is done: real daemons, real command line.

The planner is a program that speaks ACP and follows a script (scripted_agent.py); the last test
lets the real Claude Code and Codex plan, where they are installed.
"""

import json
import os
import pty
import subprocess
import sys

import pytest

from tests.e2e import agents
from tests.e2e.agents import lines, muster
from tests.e2e.fleet import ROOT, Fleet
from tests.promise import proves

pytestmark = [pytest.mark.e2e, pytest.mark.timeout(240)]

PLAN = """\
muster: 1
name: planned
repo: main
phases:
  write:
    agent: shell
    do: |
      echo "as $MUSTER_RUN_NAME said" > planned.txt

      echo '```' >> planned.txt
    deliver: [planned.txt]
"""
BROKEN = PLAN.replace("deliver:", "delivr:")


def intention(*steps):
    return f"Write a file. @@script {json.dumps(steps)}"


def said(plan):
    return {"text": f"Here is the plan.\n\n```yaml\n{plan}```\nGood luck!"}


@pytest.fixture(scope="module")
def fleet():
    with agents.planning(repository=True) as made:
        yield made


def runs(fleet, name="planned"):
    return [r for r in fleet.hub.ask("runs") if r["name"] == name]


@proves("cli.ask")
def test_an_agent_plans_and_the_plan_runs_to_its_end(fleet):
    before = len(runs(fleet))
    answer = muster(fleet, fleet.hub, "ask", intention(said(PLAN)), "--yes", "--json")
    assert answer.code == 0, answer.out[-2000:]
    first, *_, last = lines(answer)
    assert first["spec"] == PLAN
    assert (last["state"], last["tasks"][0]["phase"]) == ("done", "write")
    assert len(runs(fleet)) == before + 1
    shown = subprocess.run(
        ["git", "-C", f"{fleet.hub.home.repos}/main.git", "show",
         f"muster/{last['run']}/write:planned.txt"],
        capture_output=True, text=True, check=True,
    )  # fmt: skip
    assert shown.stdout == "as planned said\n```\n"


@proves("cli.ask-mends")
def test_a_plan_that_cannot_run_goes_back_with_what_is_wrong_and_is_mended(fleet):
    steps = ({**said(BROKEN), "unless": "mend them"}, {**said(PLAN), "when": "mend them"})
    before, planned = len(runs(fleet)), len(runs(fleet, "plan"))
    answer = muster(fleet, fleet.hub, "ask", intention(*steps), "--yes", "--detach")
    assert answer.code == 0, answer
    assert "plan 1 of 3 cannot run yet" in answer.err
    assert "line 11, column 5" in answer.err
    assert PLAN in answer.err
    assert len(runs(fleet)) == before + 1
    assert len(runs(fleet, "plan")) == planned + 2


@proves("cli.ask-mends")
def test_an_agent_that_never_gives_a_plan_is_given_up_and_nothing_runs(fleet):
    before = len(runs(fleet))
    answer = muster(fleet, fleet.hub, "ask", intention({"text": "I would rather not."}), "--yes")
    assert (answer.code, "write the spec yourself" in answer.err) == (3, True), answer
    assert len(runs(fleet)) == before


@proves("cli.ask-asks")
def test_without_anybody_to_say_yes_the_plan_is_the_answer_and_nothing_runs(fleet):
    before = len(runs(fleet))
    answer = muster(fleet, fleet.hub, "ask", intention(said(PLAN)))
    assert (answer.code, answer.out) == (1, PLAN), answer
    assert "--yes" in answer.err
    as_json = muster(fleet, fleet.hub, "ask", intention(said(PLAN)), "--json")
    assert as_json.code == 1
    assert (as_json.value["spec"], as_json.value["run"]) == (PLAN, None)
    assert len(runs(fleet)) == before


@proves("cli.ask-asks")
@pytest.mark.parametrize(("word", "code"), [("no", 1), ("", 1), ("yes", 0)])
def test_a_person_at_a_terminal_sees_the_plan_and_decides(fleet, word, code):
    before = len(runs(fleet))
    ours, theirs = pty.openpty()
    command = subprocess.Popen(
        [sys.executable, "-m", "muster", "ask", "--detach", intention(said(PLAN))],
        env=agents.typing_environment(fleet, fleet.hub), cwd=ROOT, stdin=theirs,
        stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
    )  # fmt: skip
    os.close(theirs)
    shown = ""
    while "Run this? [y/N/e(dit)] " not in shown:
        piece = os.read(command.stderr.fileno(), 65536).decode()
        assert piece, shown
        shown += piece
    assert PLAN in shown
    assert len(runs(fleet)) == before
    os.write(ours, f"{word}\n".encode())
    out, _ = command.communicate(timeout=60)
    os.close(ours)
    assert command.returncode == code, out
    assert len(runs(fleet)) == before + (code == 0)
    assert ("Nothing was run." in out) == (code == 1)


def editor(fleet, tmp_path, text):
    """A program that leaves this plan, as a person at their editor would."""
    made = tmp_path / "editor"
    made.write_text(f"#!{sys.executable}\nimport sys\nopen(sys.argv[2], 'w').write({text!r})\n")
    made.chmod(0o755)
    return {**agents.typing_environment(fleet, fleet.hub), "EDITOR": f"{made} --wait", "VISUAL": ""}


@proves("cli.ask-edit")
def test_a_plan_is_changed_in_the_persons_editor_before_it_runs(fleet, tmp_path):
    changed = PLAN.replace("as $MUSTER_RUN_NAME said", "as the person said")
    answer = subprocess.run(
        [sys.executable, "-m", "muster", "ask", intention(said(PLAN)), "--edit", "--yes", "--json"],
        env=editor(fleet, tmp_path, changed), cwd=ROOT, capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert answer.returncode == 0, answer
    first, *_, last = map(json.loads, answer.stdout.splitlines())
    assert (first["spec"], last["state"]) == (changed, "done")


@proves("cli.ask-edit", "cli.ask-asks")
@pytest.mark.parametrize("text", [BROKEN, "x" * 300_000, ""])
def test_a_plan_that_cannot_run_as_the_person_left_it_does_not_run(fleet, tmp_path, text):
    before = len(runs(fleet))
    answer = subprocess.run(
        [sys.executable, "-m", "muster", "ask", intention(said(PLAN)), "--edit", "--yes"],
        env=editor(fleet, tmp_path, text), cwd=ROOT, stdin=subprocess.DEVNULL, capture_output=True,
        text=True, check=False,
    )  # fmt: skip
    assert answer.returncode not in (0, 1), answer
    assert len(runs(fleet)) == before


@proves("cli.ask-edit")
def test_an_agent_plans_in_a_checkout_of_the_repository(fleet):
    look = {"ask": "read", "title": "look"}
    answer = muster(fleet, fleet.hub, "ask", intention(look, said(PLAN)), "--repo", "main", "--yes")
    assert answer.code == 0, answer
    planned = max(runs(fleet, "plan"), key=lambda run: run["opened_ms"])
    (task,) = fleet.hub.ask("runs", {"run": planned["run"]})["tasks"]
    assert task["commit"], "its folder was one of the repository"


@proves("cli.ask")
def test_what_is_wrong_with_the_question_is_said_before_an_agent_thinks(fleet):
    planned = len(runs(fleet, "plan"))
    for words, text in (
        (("ask", "a b", "--agent", "nobody"), "there are: planner"),
        (("ask", "a b", "--repo", "nothing"), "there are: main"),
    ):
        answer = muster(fleet, fleet.hub, *words)
        assert (answer.code, text in answer.err) == (5, True), answer
    assert len(runs(fleet, "plan")) == planned


@proves("cli.ask-without-agent")
def test_without_any_agent_the_person_hears_which_are_missing_and_gets_a_skeleton(tmp_path):
    with Fleet(["hub"]) as alone:
        alone.hub.home.put_seed("operator.seed", alone.operator_seed)
        alone.add_repository()
        agents.plain(alone.hub)
        alone.start()
        words = ("ask", "tidy\nup", "--repo", "main")
        answer = muster(alone, alone.hub, *words, "--json")
        assert answer.code == 5, answer
        assert {"claude", "codex"} <= set(answer.value["missing"])
        (tmp_path / "skeleton.yaml").write_text(answer.value["skeleton"])
        check = muster(alone, alone.hub, "check", str(tmp_path / "skeleton.yaml"))
        assert check.code == 0, check
        text = muster(alone, alone.hub, *words)
        assert (text.code, "claude" in text.out, "muster: 1" in text.out) == (5, True, True)
        assert runs(alone, "plan") == []


@proves("cli.ask", "agent.real-agents")
@pytest.mark.parametrize("agent", agents.AGENTS)
def test_a_real_agent_plans(agent, tmp_path):
    if why := agents.absent(agent):
        pytest.skip(why)
    with agents.scripted_model(tmp_path) as url, agents.agent_fleet(url) as fleet:
        words = intention(said(PLAN))
        answer = muster(fleet, fleet.hub, "ask", words, "--agent", agent, "--yes", "--json")
        assert answer.code == 0, (answer, (tmp_path / "requests").read_text()[-3000:])
        assert lines(answer)[0]["spec"] == PLAN
        assert lines(answer)[-1]["state"] == "done"
