"""Runs use what the origin of their repository has by then, with real daemons and git."""

import json
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from muster.git import ref, repository
from tests.e2e.agents import muster
from tests.e2e.fleet import Fleet, Machine, until
from tests.git.repositories import checkout, commit, plain, refs, sh, wait
from tests.promise import proves

pytestmark = [pytest.mark.e2e, pytest.mark.timeout(200)]

SPEC = """\
muster: 1
name: copy
repo: main
phases:
  copy:
    needs: {{label: on-{where}}}
    agent: shell
    do: cat readme.md > copy.txt
    deliver: copy.txt
"""


class World:
    """A fleet whose hub keeps a repository that follows a bare one, and a person's clone of that."""

    def __init__(self, fleet: Fleet) -> None:
        self.fleet = fleet
        self.work = checkout(fleet.root / "work")
        self.far = Path(plain(fleet.root / "far.git", self.work))
        args = {"action": "add", "name": "main", "path": str(self.far)}
        self.added = fleet.hub.order("repo", "main", args)
        self.ours = Path(fleet.hub.home.repos) / "main.git"

    def push(self, text: str, branch: str = "main", *more: str) -> str:
        id = commit(self.work, text, readme__md=text)
        sh(self.work, "push", "-q", *more, str(self.far), f"HEAD:refs/heads/{branch}")
        return id

    def run(self, owner: Machine, where: str = "studio", base: str = "") -> dict:
        args = {"base": base, "repo": "main", "spec": SPEC.format(where=where), "values": {}}
        run = owner.order("run", "copy", args, options={"again": True})["run"]
        until(lambda: owner.ask("runs", {"run": run})["state"] != "open", run, within_s=90)
        return owner.ask("runs", {"run": run})

    def copied(self, view: dict) -> str:
        """What a run read."""
        assert view["state"] == "done", view
        (task,) = view["tasks"]
        return sh(self.ours, "show", f"{task['commit']}:copy.txt")

    def sync(self) -> dict:
        (found,) = self.fleet.hub.order("repo.sync", "main", {"name": "main"})
        return found


@pytest.fixture
def world() -> Iterator[World]:
    with Fleet(["hub", "studio"]) as fleet:
        fleet.start()
        yield World(fleet)


@proves("git.follow-before-runs")
def test_a_run_uses_todays_commit_whoever_owns_it_and_whether_or_not_it_names_a_base(world):
    hub, studio = world.fleet.hub, world.fleet["studio"]
    assert world.added["follows"]
    until(lambda: "main" in str(studio.ask("repo.list")), "studio knows who keeps main")
    world.push("monday")
    assert world.copied(world.run(hub)) == "monday"
    world.push("tuesday")
    assert world.copied(world.run(studio, "hub")) == "tuesday"
    world.push("wednesday", "topic")
    assert world.copied(world.run(studio, base="topic")) == "wednesday"
    assert world.copied(world.run(hub)) == "tuesday"


@proves("git.follow-before-runs", "git.origin-away-is-said", "git.origin-changed")
def test_where_the_origin_is_away_the_run_goes_on_with_what_is_there_and_says_so(world):
    hub, studio = world.fleet.hub, world.fleet["studio"]
    until(lambda: "main" in str(studio.ask("repo.list")), "studio knows who keeps main")
    world.push("monday")
    world.sync()
    world.far.rename(world.far.with_name("moved.git"))
    for owner in (hub, studio):
        assert world.copied(world.run(owner)) == "monday"
        assert owner.ask("status", {})["counters"]["run-without-origin"] == 1
    (told,) = [each for each in hub.ask("incidents") if each["key"] == "origin-main"]
    assert "does not follow its origin" in told["title"]
    assert world.sync()["error"]
    said = hub.ask("repo.origin", {"name": "main"})
    assert said["error"]
    assert said["synced_ms"]
    world.far.with_name("moved.git").rename(world.far)
    world.push("tuesday")
    assert world.copied(world.run(hub)) == "tuesday"
    until(
        lambda: not [e for e in hub.ask("incidents") if e["key"] == "origin-main" and e["open"]],
        "it is over",
    )
    # And where it moved for good, it is added from there.
    world.far = world.far.rename(world.far.with_name("moved.git"))
    args = {"action": "add", "name": "main", "path": str(world.far)}
    said = hub.order("repo", "main", args)
    assert (said["origin"], said["follows"]) == (str(world.far), True)
    world.push("wednesday")
    assert world.copied(world.run(hub)) == "wednesday"


@proves("git.origin-away-is-said")
def test_the_command_says_that_a_run_began_without_the_origin(world):
    hub = world.fleet.hub
    world.fleet.hub.home.put_seed("operator.seed", world.fleet.operator_seed)
    world.far.rename(world.far.with_name("moved.git"))
    spec = world.fleet.root / "copy.yaml"
    spec.write_text(SPEC.format(where="studio"))
    done = muster(world.fleet, hub, "run", str(spec))
    assert done.code == 0, done.err
    assert "its origin was not read" in done.err


@proves("git.follow-before-runs")
def test_what_people_push_here_and_what_the_origin_rewrites_or_removes(world):
    hub = world.fleet.hub
    first = sh(world.work, "rev-parse", "HEAD")
    world.push("monday", "topic")
    assert [c["what"] for c in world.sync()["changes"]] == ["created"]
    # A person pushes here; then both sides have what the other lacks.
    mine = commit(world.work, "mine", readme__md="mine")
    sh(world.ours, "fetch", "-q", str(world.work), mine)
    wait(ref.swap(world.ours, [("refs/heads/main", first, mine)]))
    assert world.copied(world.run(hub)) == "mine"
    sh(world.work, "checkout", "-q", "--detach", first)
    world.push("theirs", "main")
    found = world.sync()
    assert [c["what"] for c in found["changes"]] == ["diverged"]
    assert found["unlike"]
    assert world.copied(world.run(hub)) == "mine"
    assert wait(repository.head(world.ours)) == mine
    # Rewritten and removed where nobody did anything here.
    sh(world.work, "checkout", "-q", "--detach", first)
    other = world.push("rewritten", "topic", "--force")
    assert [c["what"] for c in world.sync()["changes"]] == ["rewritten", "diverged"][::-1]
    assert wait(ref.read(world.ours, "refs/heads/topic")) == other
    sh(world.far, "branch", "-D", "topic")
    assert {c["what"] for c in world.sync()["changes"]} == {"diverged", "removed"}
    assert "refs/heads/topic" not in refs(world.ours)


@proves("git.follow-shared")
def test_many_runs_at_once_share_the_fetches(world):
    hub = world.fleet.hub
    before = hub.ask("status", {})["counters"].get("repository-updated", 0)
    world.push("monday")
    args = {"base": "", "repo": "main", "spec": SPEC.format(where="studio"), "values": {}}
    began = time.perf_counter()
    with hub.client() as client:
        runs = [
            client.order("run", "copy", args, options={"again": True})["run"] for _ in range(12)
        ]
    ordered_s = time.perf_counter() - began
    until(
        lambda: all(hub.ask("runs", {"run": r})["tasks"] for r in runs), "all have begun",
        within_s=60,
    )  # fmt: skip
    fetches = hub.ask("status", {})["counters"]["repository-updated"] - before
    assert 1 <= fetches <= 8, (fetches, ordered_s)


@proves("git.origin-kept")
def test_the_command_shows_and_syncs(world):
    hub = world.fleet.hub
    hub.home.put_seed("operator.seed", world.fleet.operator_seed)
    world.push("monday")
    done = muster(world.fleet, hub, "repo", "sync", "main")
    assert done.code == 0, done.err
    assert "main moved" in done.out
    found = json.loads(muster(world.fleet, hub, "repo", "sync", "--json").out)
    assert [each["name"] for each in found] == ["main"]
    world.far.rename(world.far.with_name("moved.git"))
    assert muster(world.fleet, hub, "repo", "sync", "main").code == 1


@proves("cli.repositories-listed")
def test_every_machine_lists_where_a_repository_is_from_and_how_it_stands(world):
    hub, studio = world.fleet.hub, world.fleet["studio"]
    until(lambda: "main" in str(studio.ask("repo.list")), "studio knows who keeps main")
    world.push("monday")
    world.sync()
    for machine in (hub, studio):
        (row,) = machine.ask("repo.list")
        assert (row["origin"], row["follows"], row["branch"]) == (str(world.far), True, "main")
        assert row["head"] == sh(world.ours, "rev-parse", "main")
        assert row["synced_ms"] > 0
    shown = muster(world.fleet, studio, "repo", "list").out
    assert str(world.far) in shown
    assert "ago" in shown or "now" in shown


@proves("cli.repository-removed")
def test_a_repository_is_removed_unless_a_run_works_with_it_and_its_runs_stay_readable(world):
    hub = world.fleet.hub
    hub.home.put_seed("operator.seed", world.fleet.operator_seed)
    run = world.run(hub)["run"]
    spec = SPEC.format(where="studio").replace("cat readme.md", "sleep 60; cat readme.md")
    args = {"base": "", "repo": "main", "spec": spec, "values": {}}
    live = hub.order("run", "copy", args)["run"]
    until(lambda: hub.ask("runs", {"run": live})["tasks"], "it has begun")
    refused = muster(world.fleet, hub, "repo", "remove", "main", "--yes")
    assert refused.code
    assert "works with repository main" in refused.err
    assert (world.ours / "HEAD").exists()
    hub.order("cancel", live, {"what": live})
    until(lambda: hub.ask("runs", {"run": live})["state"] != "open", "it has ended")
    asked = muster(world.fleet, hub, "repo", "remove", "main")
    assert asked.code
    assert "--yes" in asked.err
    done = muster(world.fleet, hub, "repo", "remove", "main", "--yes")
    assert done.code == 0, done.err
    assert not world.ours.exists()
    assert hub.ask("repo.list") == []
    assert hub.ask("runs", {"run": run})["state"] == "done"
    assert world.far.exists()
    # Its name is free again.
    args = {"action": "add", "name": "main", "path": str(world.far)}
    assert hub.order("repo", "main", args)["head"]


@proves("git.prune")
def test_what_old_runs_left_is_pruned_and_nobody_takes_it_for_lost(world):
    hub = world.fleet.hub
    hub.home.put_seed("operator.seed", world.fleet.operator_seed)
    view = world.run(hub)
    (task,), people = view["tasks"], {"refs/heads/main", "refs/follow/heads/main"}
    before = refs(world.ours)
    assert len(before) > len(people)
    # What ended a moment ago is not old.
    found = hub.order("repo.prune", "main", {"name": "main"})
    assert (found["pruned"], refs(world.ours)) == ([], before)
    branch = f"muster/{view['run']}/copy"
    tried = muster(world.fleet, hub, "repo", "prune", "main", "--older", "0s", "--dry-run")
    assert (tried.code, refs(world.ours)) == (0, before), tried.err
    assert branch in tried.out
    assert "--yes" in muster(world.fleet, hub, "repo", "prune", "main", "--older", "0s").err
    done = muster(world.fleet, hub, "repo", "prune", "main", "--older", "0s", "--yes", "--json")
    assert json.loads(done.out)["pruned"] == [branch]
    assert set(refs(world.ours)) == people
    stands = {"repo": "main", "branch": branch, "commit": task["commit"]}
    assert hub.ask("git.stands", stands) == {"stands": False, "pruned": True}
    fetched = muster(world.fleet, hub, "fetch", task["task"])
    assert fetched.code
    assert "was pruned" in fetched.err
    # After a start nobody misses it, and work goes on.
    hub.stop()
    hub.start()
    until(hub.linked, "studio is back")
    assert hub.ask("runs", {"run": view["run"]})["state"] == "done"
    assert world.copied(world.run(hub)) == "hello"
    assert [each for each in hub.ask("incidents") if each["open"]] == []


@proves("cli.default-repository")
def test_the_default_repository_is_one_that_is_there_and_of_this_home(world):
    hub, studio = world.fleet.hub, world.fleet["studio"]
    until(lambda: "main" in str(studio.ask("repo.list")), "studio knows who keeps main")
    assert studio.home.default_repository() == ""
    refused = muster(world.fleet, studio, "repo", "set-default", "mian")
    assert refused.code
    assert studio.home.default_repository() == ""
    done = muster(world.fleet, studio, "repo", "set-default", "main")
    assert done.code == 0, done.err
    assert "main" in done.out
    assert (studio.home.default_repository(), hub.home.default_repository()) == ("main", "")


@proves("git.follow-before-runs")
def test_a_branch_that_the_origin_has_since_today_is_one_to_start_from(world):
    hub = world.fleet.hub
    hub.home.put_seed("operator.seed", world.fleet.operator_seed)
    id = world.push("fresh", "brand-new")
    assert hub.ask("check.base", {"base": "brand-new", "repo": "main"})["commit"] == id
    world.push("fresher", "another")
    spec = world.fleet.root / "copy.yaml"
    spec.write_text(SPEC.format(where="studio"))
    done = muster(world.fleet, hub, "run", str(spec), "--base", "another")
    assert done.code == 0, done.err


@proves("git.origin-kept")
def test_a_repository_that_follows_nothing_stays_as_it_is(world):
    hub = world.fleet.hub
    args = {"action": "add", "name": "frozen", "path": str(world.far), "no-follow": True}
    first = hub.order("repo", "frozen", args)
    assert first["follows"] is False
    world.push("monday")
    (found,) = hub.order("repo.sync", "frozen", {"name": "frozen"})
    assert (found["follows"], found["changes"]) == (False, [])
    assert hub.ask("repo.origin", {"name": "frozen"})["head"] == first["head"]
