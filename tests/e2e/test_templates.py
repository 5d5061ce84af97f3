"""Runs for a push: real daemons, real command line."""

from pathlib import Path

import pytest

from tests.e2e import agents
from tests.e2e.agents import lines, muster
from tests.e2e.fleet import Fleet
from tests.git.repositories import commit, sh
from tests.promise import proves

pytestmark = [pytest.mark.e2e, pytest.mark.timeout(240)]

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


@pytest.fixture(scope="module")
def fleet():
    with Fleet(["hub", "studio"]) as made:
        made.hub.home.put_seed("operator.seed", made.operator_seed)
        made.add_repository()
        for machine in made.machines.values():
            agents.plain(machine)
        made.start()
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


@proves("spec.push")
def test_a_run_for_a_push_sees_what_was_pushed(fleet, tmp_path):
    file = tmp_path / "look.yaml"
    file.write_text(PUSHED)
    pushed = push(fleet, "feature/one", one="1")
    said = muster(fleet, fleet.hub, "run", str(file), "--push", "feature/one", "--json")
    assert said.code == 0, said
    run = lines(said)[-1]["run"]
    assert shown(fleet, f"muster/{run}/look:changed.txt") == f"one\nfeature/one at {pushed}"


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
