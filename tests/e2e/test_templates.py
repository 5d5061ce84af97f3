"""Every template, from `muster new` to what it gives: real daemons, real command line.

The agent is a program that speaks ACP and follows a script (scripted_agent.py); a test writes what
it answers to which prompt.
"""

import contextlib
import json
from pathlib import Path

import pytest

from muster.channel import FIRST, http
from muster.errors import Conflict
from muster.node.host.config import Config, config_text
from muster.verbs import template
from tests.e2e import agents
from tests.e2e.agents import lines, muster
from tests.e2e.fleet import Fleet, until
from tests.git.repositories import commit, sh
from tests.promise import proves

pytestmark = [pytest.mark.e2e, pytest.mark.timeout(300)]

WORKERS = ("studio", "laptop")
MAKEFILE = "test:\n\ttest -f fixed\n"
FINDINGS = "- it is so https://example.org/a\n"


@pytest.fixture(scope="module")
def fleet():
    with Fleet(["hub", *WORKERS]) as made:
        made.hub.home.put_seed("operator.seed", made.operator_seed)
        made.add_repository()
        (made.root / "source" / "services").mkdir()
        for part in ("api", "web"):
            (made.root / "source" / "services" / part).mkdir()
            (made.root / "source" / "services" / part / "go.mod").write_text("go 1.1\n")
        push(made, "main", Makefile=MAKEFILE)
        for machine in made.machines.values():
            agents.plain(machine)
            options = http.Options(f"127.0.0.1:{machine.port}")
            config = Config(name=machine.name, channel={FIRST: options}, lease_s=8)
            machine.home.put("config.toml", config_text(config))
        for worker in WORKERS:
            agents.give_planner(made[worker], "scripted", str(made.root / "script.json"))
        made.start()
        for worker in WORKERS:
            until(lambda w=worker: "scripted" in agents.agents_of(made, w), "its agent is known")
        yield made


def shown(fleet, ref):
    return sh(Path(fleet.hub.home.repos) / "main.git", "show", ref)


def push(fleet, branch, **files):
    """A commit of a person on a branch of the fleet's repository, as the source has it."""
    source = fleet.root / "source"
    sh(source, "checkout", "-q", "-B", branch)
    made = commit(source, f"on {branch}", **files)
    # Past the fence: how a person's push gets in is tested elsewhere.
    bare = Path(fleet.hub.home.repos) / "main.git"
    fetched = f"+{branch}:refs/heads/{branch}"
    sh(bare, "-c", "core.hooksPath=/dev/null", "fetch", "-q", str(source), fetched)
    return made


def write(file, content, when):
    return {"write": file, "content": content, "when": when}


class Begun:
    """A run of a template: written by `new`, checked, begun, and approved where a person is asked."""

    def __init__(self, fleet, tmp_path, name, *steps, words=(), new=()):
        self.fleet = fleet
        (fleet.root / "script.json").write_text(json.dumps([*steps, {"text": "It is done."}]))
        self.file = tmp_path / f"{name}.yaml"
        repo = ["--repo", "main"] if template.load(name).repository else []
        made = muster(
            fleet, fleet.hub, "new", f"try-{name}"[:40], "--template", name, "--to",
            str(self.file), *repo, *new,
        )  # fmt: skip
        assert made.code == 0, made
        check = muster(fleet, fleet.hub, "check", str(self.file))
        assert (check.code, "ready to run" in check.out) == (0, True), check
        said = muster(fleet, fleet.hub, "run", str(self.file), *words, "--detach", "--json")
        assert said.code == 0, said
        self.run = lines(said)[-1]["run"]

    def view(self):
        return self.fleet.hub.ask("runs", {"run": self.run})

    def ended(self, within_s=150):
        """The run at its end; whatever it asks is approved."""

        def over():
            view = self.view()
            for task in view["tasks"]:
                if task["state"] == "waiting":
                    # It may have been answered meanwhile.
                    with contextlib.suppress(Conflict):
                        answer = {"task": task["task"], "answer": "yes"}
                        self.fleet.hub.order("decide", task["task"], answer)
            return view["state"] != "open"

        until(over, lambda: json.dumps(self.view(), indent=1), within_s=within_s)
        view = self.view()
        assert view["state"] == "done", json.dumps(view, indent=1)
        return view

    def of(self, phase):
        return [task for task in self.view()["tasks"] if task["phase"] == phase]

    def file_of(self, phase, path):
        """What a phase delivered: from its branch, or brought as a person would."""
        return shown(self.fleet, f"muster/{self.run}/{phase}:{path}")

    def fetched(self, tmp_path, phase, path):
        folder = tmp_path / phase
        (task,) = self.of(phase)
        said = muster(self.fleet, self.fleet.hub, "fetch", task["task"], "--to", str(folder))
        assert said.code == 0, said
        return (folder / path).read_text()


def change(fleet, tmp_path):
    begun = Begun(
        fleet, tmp_path, "change", write("fixed", "x\n", "make it work"),
        words=("--value", "task=make it work"),
    )  # fmt: skip
    begun.ended()
    assert begun.file_of("change", "fixed") == "x"


def research(fleet, tmp_path):
    begun = Begun(
        fleet, tmp_path, "research",
        write("FINDINGS.md", FINDINGS, "Write FINDINGS.md"),
        write("DOUBTS.md", "- it is so: holds\n", "Write DOUBTS.md"),
        write("ANSWER.md", "Yes. https://example.org/a\n", "Write ANSWER.md"),
    )  # fmt: skip
    begun.ended()
    assert begun.fetched(tmp_path, "answer", "ANSWER.md") == "Yes. https://example.org/a\n"


def code_execution(fleet, tmp_path):
    begun = Begun(
        fleet, tmp_path, "code-execution",
        write("main.py", "print(6 * 7)\n", "Write main.py"),
        write("ANSWER.md", "42, by multiplication\n", "Write ANSWER.md"),
    )  # fmt: skip
    begun.ended()
    assert begun.fetched(tmp_path, "execute", "result.txt") == "42\n"
    assert "42" in begun.fetched(tmp_path, "explain", "ANSWER.md")


def personal_data(fleet, tmp_path):
    data = tmp_path / "people"
    data.mkdir()
    for number in range(6):
        (data / f"Anna Meier {number}.TXT").write_text("anna@example.org")
    (data / "one.secret").write_text("x")
    begun = Begun(
        fleet, tmp_path, "personal-data", write("REPORT.md", "Seven files.\n", "Write REPORT.md"),
        words=("--value", f"folder={data}"),
    )  # fmt: skip
    begun.ended()
    assert begun.fetched(tmp_path, "count", "numbers.txt") == "files 7\ntxt 6\n"
    # Who typed `new` is at the machine with the data, which has no agent; the report is written
    # elsewhere.
    assert [task["machine"] for task in begun.of("count")] == ["hub"]
    assert begun.of("report")[0]["machine"] in WORKERS
    for worker in WORKERS:
        for file in fleet[worker].home.path.rglob("*"):
            # Of what is read there nothing may name a person.
            assert not file.is_file() or b"Anna Meier" not in file.read_bytes(), file


def coordinator(fleet, tmp_path):
    begun = Begun(
        fleet, tmp_path, "coordinator",
        write("parts/one.md", "say one\n", "Divide this task"),
        write("parts/two.md", "say two\n", "Divide this task"),
        write("results/parts/one.md", "1\n", "Read parts/one.md"),
        write("results/parts/two.md", "2\n", "Read parts/two.md"),
        write("RESULT.md", "1 and 2\n", "Write RESULT.md"),
    )  # fmt: skip
    begun.ended()
    assert len(begun.of("work")) == 2
    assert begun.file_of("gather", "results/parts/two.md") == "2"
    assert begun.file_of("gather", "RESULT.md") == "1 and 2"


def race(fleet, tmp_path):
    begun = Begun(fleet, tmp_path, "race", write("fixed", "x\n", "The tests fail"))
    begun.ended()
    racers = begun.of("fix")
    (winner,) = (task for task in racers if task["state"] == "done")
    assert (len(racers), shown(fleet, f"{winner['commit']}:fixed")) == (3, "x")


def swarm(fleet, tmp_path):
    """The machine that has the first part dies with it, and the other one does it."""
    mark = tmp_path / "held"
    begun = Begun(
        fleet, tmp_path, "swarm",
        {"hold": str(mark), "when": "in services/"},
        write("services/api/FINDINGS.md", "a\n", "in services/api and"),
        write("services/web/FINDINGS.md", "b\n", "in services/web and"),
        write("FINDINGS.md", "a, b\n", "Each folder has"),
    )  # fmt: skip
    until(mark.exists, "an attempt holds", within_s=60)
    left = until(
        lambda: [t for t in begun.of("work") if t["machine"] and t["state"] == "leased"],
        lambda: json.dumps(begun.of("work")),
        within_s=60,
    )
    until(lambda: len([t for t in begun.of("work") if t["state"] == "done"]) == 1,
          lambda: json.dumps(begun.of("work")), within_s=90)  # fmt: skip
    left = next(t for t in begun.of("work") if t["state"] != "done")
    lost = fleet[left["machine"]]
    lost.kill()
    try:
        begun.ended()
    finally:
        lost.start()
        until(lambda: "hub" in lost.linked(), f"{lost.name} is back")
    again = next(t for t in begun.of("work") if t["task"] == left["task"])
    assert again["machine"] != left["machine"]
    assert again["losses"] >= 1
    assert begun.file_of("report", "FINDINGS.md") == "a, b"
    assert begun.file_of("report", "services/web/FINDINGS.md") == "b"


def pair_review(fleet, tmp_path):
    """The first round is rejected, the author hears why, and the second is accepted."""
    reason = "the word must be in capitals"
    reject = {"verdict": "reject", "reasons": [reason]}
    accept = {"verdict": "accept", "reasons": ["It is in capitals."]}
    mine = "Change as little as possible"
    begun = Begun(
        fleet, tmp_path, "pair-review",
        {**write("fixed", "word\n", mine), "unless": reason},
        write("fixed", "WORD\n", reason),
        {"verdict": reject, "holds": ["fixed", "word"]},
        {"verdict": accept, "holds": ["fixed", "WORD"]},
    )  # fmt: skip
    begun.ended()
    assert [task["state"] for task in begun.of("judge")] == ["done", "done"]
    author, *_ = begun.of("write")
    assert begun.of("judge")[-1]["machine"] != author["machine"]
    assert begun.file_of("write", "fixed") == "WORD"


def review_of_every_push(fleet, tmp_path):
    pushed = push(fleet, "feature/one", one="1\n")
    begun = Begun(
        fleet, tmp_path, "review-of-every-push",
        write("REVIEW.md", "look\none: 1 is not 2\n", f"{pushed} was pushed to feature/one"),
        words=("--push", "feature/one"),
    )  # fmt: skip
    begun.ended()
    assert "ended with exit code 2." in begun.file_of("test", "tests.txt")
    assert begun.file_of("review", "REVIEW.md").splitlines()[0] == "look"
    # It is read from the commit that was pushed.
    assert begun.file_of("review", "one") == "1"


TRIALS = {
    trial.__name__.replace("_", "-"): trial
    for trial in (
        change, research, code_execution, personal_data, coordinator, race, swarm, pair_review,
        review_of_every_push,
    )
}  # fmt: skip


@proves("scaffold.templates-run")
def test_no_template_is_left_out():
    assert sorted(TRIALS) == template.names()


@proves("scaffold.templates-run")
@pytest.mark.parametrize("name", TRIALS)
def test_a_template_runs_to_its_end_and_gives_what_it_promises(fleet, tmp_path, name):
    TRIALS[name](fleet, tmp_path)


PUSHED = """\
muster: 1
name: look
repo: main
on: {push: {branches: [main, "feature/*"]}}
phases:
  look:
    agent: shell
    do: |
      git diff --name-only "$MUSTER_INPUTS_PUSH_BEFORE" "$MUSTER_INPUTS_PUSH_COMMIT" > changed.txt
      echo "$MUSTER_INPUTS_PUSH_BRANCH at $(git rev-parse HEAD)" >> changed.txt
    deliver: changed.txt
"""


@proves("spec.push")
def test_a_run_for_a_push_sees_what_was_pushed(fleet, tmp_path):
    file = tmp_path / "look.yaml"
    file.write_text(PUSHED)
    pushed = push(fleet, "feature/two", two="1")
    said = muster(fleet, fleet.hub, "run", str(file), "--push", "feature/two", "--json")
    assert said.code == 0, said
    run = lines(said)[-1]["run"]
    assert shown(fleet, f"muster/{run}/look:changed.txt") == f"two\nfeature/two at {pushed}"


@proves("spec.push")
def test_without_a_push_or_for_a_branch_that_it_does_not_name_nothing_runs(fleet, tmp_path):
    file = tmp_path / "look.yaml"
    file.write_text(PUSHED)
    before = len(fleet.hub.ask("runs"))
    for words, sentence in (
        ((), "--push BRANCH"),
        (("--push", "other"), "other is none of the branches of on.push: main, feature/*"),
        (("--push", "feature/none"), "has no branch"),
        (("--push", "main", "--base", "main"), "leave --base out"),
        (("--push", "main", "--value", "push-commit=" + "a" * 40), "leave --base out"),
    ):
        said = muster(fleet, fleet.hub, "run", str(file), *words)
        assert (said.code != 0, sentence in said.err) == (True, True), said
    file.write_text(PUSHED.replace("on: ", "# on: "))
    said = muster(fleet, fleet.hub, "run", str(file), "--push", "main")
    assert "--push is for a spec with `on: push`" in said.err, said
    assert len(fleet.hub.ask("runs")) == before
