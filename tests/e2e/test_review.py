"""Reviews between real daemons: the hub has the repository, agents of other machines judge.

Shells and scripted_agent.py play authors and reviewers. What a person sees is asked of the hub.
"""

import json
import subprocess
from pathlib import Path

import pytest

from tests.e2e import agents
from tests.e2e.agents import begin, muster, settled
from tests.e2e.fleet import Fleet, until
from tests.promise import proves

pytestmark = [pytest.mark.e2e, pytest.mark.timeout(240)]

LEASE_S = 4

HEAD = "muster: 1\nname: pair\nrepo: main\nphases:\n"
AUTHOR = """\
  feature:
    agent: shell
    do: |
      echo "$MUSTER_ROUND" >> work.txt
      if [ -n "$MUSTER_REJECTION_FILE" ]; then cp "$MUSTER_REJECTION_FILE" told.txt; fi
    deliver: work.txt
"""
# It rejects the first round, and says so in the form that was asked for.
REVIEWER = """\
  verdict:
    review: feature
    agent: shell
    do: |
      git diff --name-only "$MUSTER_REVIEW_BASE" HEAD > seen.txt
      grep -q work.txt seen.txt
      test "$(git rev-parse HEAD)" = "$MUSTER_REVIEW_HEAD"
      if [ "$MUSTER_ROUND" = 1 ]; then
        printf '%s' '{"verdict":"reject","reasons":["say more"],"comments":[{"path":"work.txt","line":1,"text":"only a number"},{"path":"readme.md","line":1,"text":"and here?"}]}' > "$MUSTER_VERDICT_FILE"
      else
        grep -q 'only a number' "$MUSTER_REJECTION_FILE"
        printf '%s' '{"verdict":"accept","reasons":["now it does"]}' > "$MUSTER_VERDICT_FILE"
      fi
"""
SHIP = """\
  ship:
    after: feature
    agent: shell
    do: |
      echo "$MUSTER_VERDICT_VERDICT after $MUSTER_VERDICT_ROUNDS: $MUSTER_VERDICT_REASONS" > shipped.txt
      cat work.txt >> shipped.txt
    deliver: shipped.txt
"""


@pytest.fixture
def fleet():
    with Fleet(["hub", "studio", "laptop"]) as made:
        made.hub.home.put_seed("operator.seed", made.operator_seed)
        made.add_repository()
        text = (made.hub.home.path / "config.toml").read_text()
        short = text.replace("lease_s = 30", f"lease_s = {LEASE_S}")
        made.hub.home.put("config.toml", short.encode())
        yield made
        for machine in made.machines.values():
            assert machine.alive, f"{machine.name} ended:\n{machine.log()[-3000:]}"


def of_phase(view, phase):
    """The tasks of a phase, by round."""
    return {t["instance"]: t for t in view["tasks"] if t["phase"] == phase}


def show(fleet, place):
    where = Path(fleet.hub.home.repos) / "main.git"
    asked = ["git", "-C", str(where), "show", place]
    return subprocess.run(asked, capture_output=True, text=True, check=True).stdout


@proves("spec.review-rounds", "spec.review-another-machine", "spec.review-verdict")
def test_a_rejected_phase_is_mended_by_its_author_and_goes_on_when_another_machine_accepts(fleet):
    fleet.start()
    run = begin(fleet, HEAD + AUTHOR + REVIEWER + SHIP, "pair")
    view = settled(fleet, run)
    assert view["state"] == "done", json.dumps(view, indent=1)
    feature, verdict = of_phase(view, "feature"), of_phase(view, "verdict")
    assert set(feature) == set(verdict) == {"", "round:2"}
    for number in feature:
        assert feature[number]["machine"] != verdict[number]["machine"]
    # The same machine goes on with its work, where it can.
    assert feature[""]["machine"] == feature["round:2"]["machine"]
    # The second round began at the first one's commit, and the branch is where it ended.
    branch = f"muster/{run}/feature"
    assert show(fleet, f"{branch}:work.txt") == "1\n2\n"
    told = show(fleet, f"{branch}:told.txt")
    assert "> say more" in told
    assert "> work.txt:1: only a number" in told
    assert "> readme.md:1: (outside the diff) and here?" in told
    assert f"shell@{verdict['']['machine']} (phase verdict) said reject" in told
    # Nothing that a reviewer leaves in its folder is taken.
    assert verdict[""]["commit"] == ""
    assert show(fleet, f"muster/{run}/ship:shipped.txt") == "accept after 2: now it does\n1\n2\n"

    # A phase of several rounds is its last one, and each is asked for by its number.
    def at(place):
        return fleet.hub.ask("why", {"task": place})["task"]["task"]

    assert at("pair/verdict") == at("pair/verdict[round:2]") == verdict["round:2"]["task"]
    assert at("pair/verdict[round:1]") == verdict[""]["task"]
    # What is said is what people are shown.
    assert verdict[""]["summary"] == "reject: say more"
    said = muster(fleet, fleet.hub, "audit", "explain", feature["round:2"]["task"], "--json")
    assert said.code == 0, said
    assert "say more" in said.out


@proves("spec.review-bounded")
def test_a_phase_that_is_rejected_in_every_round_has_failed_and_says_by_whom(fleet):
    fleet.start()
    never = '{"verdict":"reject","reasons":["no tests"]}'
    reviewer = f"""\
  verdict:
    review: feature
    rounds: 2
    agent: shell
    do: printf '%s' '{never}' > "$MUSTER_VERDICT_FILE"
"""
    run = begin(fleet, HEAD + AUTHOR + reviewer + SHIP, "pair")
    view = settled(fleet, run)
    assert view["state"] == "failed"
    assert set(of_phase(view, "feature")) == {"", "round:2"}
    where = of_phase(view, "verdict")["round:2"]["machine"]
    assert view["summary"] == f"phase feature failed: rejected 2 times by shell@{where}: no tests"
    assert view["progress"]["ship"]["state"] == "skipped"
    assert view["progress"]["feature"]["state"] == "failed"
    # What nobody accepted lands nowhere, and is no phase that a rerun keeps.
    landed = muster(fleet, fleet.hub, "land", run, "--phase", "feature")
    assert "phase feature of run" in landed.err
    assert "has no commit" in landed.err
    order = fleet.hub.ask("rerun", {"run": run, "failed": True})
    assert (order["kept"], order["phases"]) == ({}, ["feature", "verdict", "ship"])


@proves("spec.review-kept-whole")
def test_a_rerun_keeps_what_was_accepted_with_its_review_or_runs_both_again(fleet):
    fleet.start()
    ship = SHIP.replace("    do: |\n", '    do: |\n      test -e "$E2E_NOTES"\n')
    run = begin(fleet, HEAD + AUTHOR + REVIEWER + ship, "pair")
    view = settled(fleet, run)
    assert view["progress"]["ship"]["state"] == "failed", json.dumps(view, indent=1)
    order = fleet.hub.ask("rerun", {"run": run, "from": "verdict"})
    assert order["kept"] == {}
    fleet.notes.touch()
    said = muster(fleet, fleet.hub, "rerun", run, "--failed", "--detach", "--json")
    assert said.code == 0, said
    again = agents.lines(said)[0]["run"]
    view = settled(fleet, again)
    assert view["state"] == "done", json.dumps(view, indent=1)
    assert {t["phase"] for t in view["tasks"] if t["run"] == again} == {"ship"}
    assert show(fleet, f"muster/{again}/ship:shipped.txt").startswith("accept after 2: now it does")


@proves("spec.review-verdict")
@pytest.mark.parametrize(
    ("does", "reason"),
    [
        ("true", "the reviewer wrote no verdict"),
        ("echo yes > $MUSTER_VERDICT_FILE", "is not of the form"),
        ("""echo '{"verdict":"reject"}' > $MUSTER_VERDICT_FILE""", "gives no reason"),
    ],
)
def test_what_is_no_verdict_is_never_an_accept(fleet, does, reason):
    fleet.start()
    reviewer = f"  verdict: {{review: feature, agent: shell, do: {json.dumps(does)}}}\n"
    view = settled(fleet, begin(fleet, HEAD + AUTHOR + reviewer + SHIP, "pair"))
    assert view["state"] == "failed"
    assert reason in of_phase(view, "verdict")[""]["reason"]
    assert view["progress"]["ship"]["state"] == "skipped"
    assert not of_phase(view, "ship")


@proves("spec.review-prompt", "spec.review-said-is-data")
def test_agents_are_told_what_was_asked_where_a_verdict_goes_and_what_was_said_of_their_work(fleet):
    for name in ("hub", "studio"):
        agents.give_planner(fleet[name])
    fleet.start()
    for name in ("hub", "studio"):
        until(lambda n=name: "planner" in agents.agents_of(fleet, n), "the planner is known")

    def do(words, *steps):
        return json.dumps(f"{words} @@script {json.dumps(steps)}")

    write = do("Build it.", {"write": "work.txt", "content": "x"}, {"text": "Built."})
    first = {"verdict": {"verdict": "reject", "reasons": ["I say so"]}, "unless": "was rejected"}
    later = {"verdict": {"verdict": "accept"}, "when": "was rejected"}
    look = do("Mind our error style.", first, later, {"text": "I looked."})
    author = f"  feature: {{agent: planner, do: {write}, deliver: work.txt}}\n"
    reviewer = f"  verdict: {{review: feature, agent: planner, do: {look}}}\n"
    view = settled(fleet, begin(fleet, HEAD + author + reviewer, "pair"))
    assert view["state"] == "done", json.dumps(view, indent=1)

    def prompts(phase):
        for number, task in of_phase(view, phase).items():
            said = muster(fleet, fleet.hub, "logs", task["task"], "--json")
            (text,) = [e["text"] for e in agents.lines(said) if e["kind"] == "agent.prompt"]
            yield number, text

    where = of_phase(view, "verdict")[""]["machine"]
    for number, text in prompts("verdict"):
        assert "> Build it." in text
        assert "git diff " in text
        assert "Mind our error style." in text
        assert "Write your verdict into the file /" in text
        assert '"verdict": "accept" or "reject"' in text
        assert ("Round 1 of this work was rejected" in text) == (number == "round:2")
    told = dict(prompts("feature"))
    assert "rejected" not in told[""]
    assert f"planner@{where} (phase verdict) said reject:\n\n> I say so" in told["round:2"]


@proves("spec.review-survives")
def test_a_review_whose_machine_dies_is_done_by_another_one(fleet):
    fleet.start()
    author = AUTHOR.replace("agent: shell", "agent: shell\n    needs: {machine: hub}")
    reviewer = """\
  verdict:
    review: feature
    agent: shell
    do: |
      echo "$MUSTER_TASK" >> "$E2E_NOTES"
      if [ "$(wc -l < "$E2E_NOTES")" -lt 2 ]; then sleep 60; fi
      printf '{"verdict":"accept"}' > "$MUSTER_VERDICT_FILE"
"""
    run = begin(fleet, HEAD + author + reviewer, "pair")
    until(fleet.notes.exists, "the first review runs")
    view = fleet.hub.ask("runs", {"run": run})
    first = of_phase(view, "verdict")[""]["machine"]
    fleet[first].kill()
    view = settled(fleet, run)
    assert view["state"] == "done", json.dumps(view, indent=1)
    (review,) = of_phase(view, "verdict").values()
    assert review["machine"] not in (first, "hub")
    assert review["losses"] == 1
    fleet[first].start()


@proves("spec.review-survives")
def test_a_run_whose_owner_is_killed_in_the_second_round_goes_on_in_it(fleet):
    fleet.start()
    reviewer = REVIEWER.replace(
        "      git diff", '      echo "$MUSTER_ROUND" >> "$E2E_NOTES"; sleep 2\n      git diff'
    )
    run = begin(fleet, HEAD + AUTHOR + reviewer + SHIP, "pair")
    until(lambda: fleet.notes.exists() and "2" in fleet.notes.read_text(), "the second review")
    fleet.hub.kill()
    fleet.hub.start()
    view = settled(fleet, run)
    assert view["state"] == "done", json.dumps(view, indent=1)
    assert set(of_phase(view, "feature")) == set(of_phase(view, "verdict")) == {"", "round:2"}
    assert show(fleet, f"muster/{run}/ship:shipped.txt").startswith("accept after 2: now it does")
