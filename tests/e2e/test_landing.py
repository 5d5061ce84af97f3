"""`muster land`, `diff` and `checkout` with real daemons: two machines, and a person at each."""

import json
import os
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from muster.git import origin
from tests.e2e.fleet import Fleet, Machine, until
from tests.git.repositories import commit, sh
from tests.promise import proves

pytestmark = [pytest.mark.e2e, pytest.mark.timeout(180)]

SPEC = """\
muster: 1
name: fix-login
repo: {repo}
phases:
  build:
    agent: shell
    needs: {{ machine: studio }}
    do: |
      echo built > built.txt
      echo "a line of the run" > shared.txt
    deliver: built.txt
  look:
    agent: shell
    needs: {{ machine: hub }}
    after: build
    do: |
      echo looked > looked.txt
    check: test -f built.txt && ! test -f broken.txt
  agree:
    by: human
    after: look
    do: Is this good?
"""


class World:
    """A hub that keeps repositories, a studio where the person sits, and their origins."""

    def __init__(self, fleet: Fleet) -> None:
        self.fleet, self.studio, self.hub = fleet, fleet["studio"], fleet.hub
        for machine in (self.studio, self.hub):
            machine.home.put_seed("operator.seed", fleet.operator_seed)
        self.root = fleet.root
        (self.root / "person").mkdir()
        (self.root / "person" / ".gitconfig").write_text(
            "[user]\n\tname = Alice\n\temail = alice@example.com\n[init]\n\tdefaultBranch = main\n"
        )
        (self.root / "desk").mkdir()

    def cli(
        self, machine: Machine, *words: str, cwd: Path | None = None, code: int = 0, **env: str
    ) -> Any:
        """A command as the person types it, with --json; what it says."""
        done = self.typed(machine, *words, "--json", cwd=cwd, **env)
        assert done.returncode == code, (words, done.returncode, done.stdout, done.stderr)
        text = done.stdout if done.stdout.strip() else done.stderr
        return json.loads(text.strip().splitlines()[-1])

    def typed(
        self, machine: Machine, *words: str, cwd: Path | None = None, **env: str
    ) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [sys.executable, "-m", "muster", *words], cwd=cwd or self.root / "desk",
            env=self.env(machine, **env), capture_output=True, text=True, check=False, timeout=120,
        )  # fmt: skip

    def env(self, machine: Machine, **more: str) -> dict[str, str]:
        """The environment of the person at a machine."""
        home = {"HOME": str(self.root / "person"), "GIT_CONFIG_NOSYSTEM": "1"}
        own = {k: v for k, v in self.fleet.environment(machine).items() if not k.startswith("GIT_")}
        return own | home | more

    def source(self, name: str, *, bare: bool) -> Path:
        """Where a repository is from: a checkout of the person's, or a bare one."""
        folder = self.root / name
        folder.mkdir()
        sh(folder, "init", "-q")
        commit(folder, "first", readme__md="hello\n")
        if not bare:
            return folder
        sh(self.root, "clone", "-q", "--bare", str(folder), f"{name}.git")
        return self.root / f"{name}.git"

    def add(self, name: str, origin: str, *, follow: bool = True) -> None:
        how = "--follow" if follow else "--no-follow"
        self.cli(self.hub, "repo", "add", name, origin, how)
        until(
            lambda: any(
                r["name"] == name and r["machines"] for r in self.cli(self.studio, "repo", "list")
            ),
            "the studio knows of it",
        )

    def run(self, repo: str, spec: str = SPEC, *more: str) -> str:
        """A run to its end; the person agrees."""
        path = self.root / "spec.yaml"
        path.write_text(spec.format(repo=repo))
        run = str(self.cli(self.studio, "run", str(path), "--again", "--detach", *more)["run"])
        if "by: human" in spec:
            question = until(lambda: self.waits(run), "somebody is asked")
            self.cli(self.studio, "decide", question, "yes")
        until(lambda: self.cli(self.studio, "runs", run)["state"] == "done", "the run is done")
        return run

    def waits(self, run: str) -> str:
        tasks = self.cli(self.studio, "tasks", "--run", run)
        return next((str(t["task"]) for t in tasks if t["state"] == "waiting"), "")


@pytest.fixture(scope="module")
def world() -> Iterator[World]:
    with Fleet(["hub", "studio"]) as fleet:
        fleet.start()
        yield World(fleet)


def log(repo: Path, format: str, *more: str) -> str:
    return sh(repo, "log", f"--format={format}", *more)


def at_the_fleet(world: World, name: str) -> str:
    return sh(Path(world.hub.home.repos) / f"{name}.git", "rev-parse", "main")


def clean(world: World) -> None:
    """No scratch repository stayed in any home."""
    for machine in world.fleet.machines.values():
        area = machine.home.landing
        assert [path.name for path in area.glob("*") if path.name != "held"] == []


@proves("git.land-at-the-origin", "git.land-whole", "git.land-once")
def test_a_run_lands_at_its_origin_and_the_fleet_follows(world):
    bare = world.source("site", bare=True)
    world.add("site", f"file://{bare}")
    run = world.run("site")
    here = world.hub
    said = world.cli(here, "land", run[:6], "--dry-run")
    assert said["outcome"] == "tried"
    assert log(bare, "%s", "main") == "first"
    hook = bare / "hooks" / "update"
    hook.write_text("#!/bin/sh\nexit 1\n")
    hook.chmod(0o755)
    said = world.cli(here, "land", run, code=3)
    assert said["error"]["text"].endswith("where main is protected, --pr opens a pull request")
    assert log(bare, "%s", "main") == "first"
    hook.unlink()
    said = world.cli(here, "land", "fix-login")
    assert (said["outcome"], said["phases"], said["branch"]) == ("landed", ["look"], "main")
    assert log(bare, "%an %cn", "-1", "main") == "Alice Alice"
    message = log(bare, "%B", "-1", "main")
    assert message.startswith("fix-login: look\n\n- build: ")
    assert f"Muster-Run: {run}\n" in message
    assert "Co-authored-by: shell@studio <shell@studio.muster>" in message
    assert sh(bare, "show", "main:built.txt") == "built"
    assert said["commit"] == sh(bare, "rev-parse", "main")
    assert at_the_fleet(world, "site") == said["commit"]
    assert world.cli(here, "land", run)["outcome"] == "already"
    assert log(bare, "%s", "main").count("fix-login") == 1
    clean(world)


@proves("git.land-at-the-origin", "git.land-conflict", "git.land-checks-again")
def test_from_another_machine_onto_an_address_with_everything_that_can_be_in_the_way(world):
    world.add("upstream", str(world.source("up", bare=True)), follow=False)
    world.add("copy", "muster::hub/upstream")
    upstream = Path(world.hub.home.repos) / "upstream.git"
    run = world.run("copy")
    clone = world.root / "upclone"
    done = world.typed(world.studio, "version")
    assert done.returncode == 0
    sh(world.root, "clone", "-q", str(upstream), str(clone))
    # Somebody breaks what the phase checked: the merge is clean, the check is not.
    commit(clone, "break it", broken__txt="x\n")
    push(world, clone)
    tip = sh(upstream, "rev-parse", "main")
    said = world.cli(world.studio, "land", run, code=11)
    assert (said["outcome"], said["check"]) == (
        "check-failed", "test -f built.txt && ! test -f broken.txt",
    )  # fmt: skip
    said = world.cli(world.studio, "land", run, "--no-check", "--check", "ls; exit 3", code=11)
    assert "broken.txt\nbuilt.txt" in said["output"]
    # Somebody changes the same file as the run.
    commit(clone, "another shared file", shared__txt="a line of somebody else\n")
    push(world, clone)
    tip = sh(upstream, "rev-parse", "main")
    said = world.cli(world.studio, "land", run, "--merge", code=10)
    assert said["files"] == [{
        "path": "shared.txt",
        "there": [f"{tip[:7]} alice: another shared file"],
        "result": ["phase build by shell@studio"],
    }]  # fmt: skip
    text = world.typed(world.studio, "land", run).stdout
    assert "shared.txt\n" in text
    # What it says to type next is understood.
    (typed,) = re.findall(r"`muster checkout ([^`]*)`", text)
    assert world.cli(world.studio, "runs", typed)["run"] == run
    world.cli(world.studio, "runs", f"other-{run[:8]}", code=5)
    assert sh(upstream, "rev-parse", "main") == tip
    # And takes it back: each commit lands as it was made.
    (clone / "shared.txt").unlink()
    (clone / "broken.txt").unlink()
    commit(clone, "take it back")
    push(world, clone)
    said = world.cli(world.studio, "land", run, "--rebase", "--check", "test -f shared.txt")
    assert (said["outcome"], said["commits"]) == ("landed", 2)
    assert at_the_fleet(world, "copy") == said["commit"]
    assert said["next"] == "`git pull` brings it into a clone"
    assert log(upstream, "%an %cn", "-2", "main") == "shell@hub Alice\nshell@studio Alice"
    assert world.cli(world.studio, "land", run)["outcome"] == "already"
    clean(world)


def push(world: World, clone: Path) -> None:
    env = world.fleet.environment(world.hub)
    words = ["git", "push", "-q", "muster::hub/upstream", "HEAD:main"]
    done = subprocess.run(words, cwd=clone, env=env, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


@proves("git.land-at-the-origin", "git.checkout-overwrites-nothing", "git.diff-of-a-run")
def test_without_an_origin_the_fleets_copy_has_it_and_a_clone_becomes_the_place_to_look(world):
    world.add("own", str(world.source("own", bare=False)), follow=False)
    run = world.run("own")
    short = f"fix-login-{run[:8]}"
    # Outside of any clone a run becomes one; inside it becomes a worktree.
    said = world.cli(world.studio, "checkout", run)
    clone = world.root / "desk" / f"own-{short}"
    assert (said["folder"], said["branch"], said["worktree"]) == (str(clone), short, False)
    assert sh(clone, "branch", "--show-current") == short
    assert (clone / "looked.txt").read_text() == "looked\n"
    before = sorted(os.listdir(clone))
    world.cli(world.studio, "checkout", run, code=6)
    assert sorted(os.listdir(clone)) == before
    said = world.cli(world.studio, "checkout", run, "--phase", "build", cwd=clone)
    tree = clone.with_name(f"{clone.name}-{short}-build")
    assert (said["folder"], said["worktree"]) == (str(tree), True)
    assert (tree / "built.txt").exists()
    assert not (tree / "looked.txt").exists()
    again = world.cli(
        world.studio, "checkout", run, "--phase", "build", "--to", "x", cwd=clone, code=6
    )
    assert "git switch" in again["error"]["text"]
    assert not (clone / "x").exists()
    said = world.cli(world.studio, "diff", run, "--name-only")
    assert said["diff"].split() == ["built.txt", "looked.txt", "shared.txt"]
    text = world.typed(world.studio, "diff", run, "--phase", "build", "--stat").stdout
    assert "2 files changed" in text
    assert "\x1b" not in text
    # It lands, and is the same to look at as before.
    said = world.cli(world.studio, "land", run, "--merge", cwd=clone)
    assert said["outcome"] == "landed"
    assert "git pull" in said["next"]
    own = Path(world.hub.home.repos) / "own.git"
    assert len(log(own, "%P", "-1", "main").split()) == 2
    said = world.cli(world.studio, "diff", run, "--name-only")
    assert said["diff"].split() == ["built.txt", "looked.txt", "shared.txt"]
    assert world.cli(world.studio, "land", run)["outcome"] == "already"
    clean(world)


@proves("git.land-in-a-folder")
def test_a_checkout_that_the_fleet_follows_gets_the_files_when_it_is_clean(world):
    folder = world.source("project", bare=False)
    world.add("project", str(folder))
    run = world.run("project")
    (folder / "readme.md").write_text("not committed\n")
    said = world.cli(world.hub, "land", run, code=3)
    assert "changes that are not committed" in said["error"]["text"]
    assert not (folder / "built.txt").exists()
    sh(folder, "checkout", "-q", "readme.md")
    said = world.cli(world.hub, "land", run)
    assert said["commit"] == sh(folder, "rev-parse", "HEAD")
    assert (folder / "built.txt").read_text() == "built\n"
    assert not sh(folder, "status", "--porcelain")
    assert at_the_fleet(world, "project") == said["commit"]
    said = world.cli(world.studio, "land", run, code=3)
    assert "on hub, and this is studio" in said["error"]["text"]
    # Elsewhere that path is another folder, or none: a clone is of the fleet's copy.
    for machine, source in ((world.studio, "muster::hub/project"), (world.hub, str(folder))):
        made = world.cli(machine, "checkout", run, "--to", machine.name)["folder"]
        assert sh(Path(made), "remote", "get-url", "origin") == source
    clean(world)


MEETS = """\
muster: 1
name: meets
repo: {repo}
phases:
  lint:
    agent: shell
    each: "*.md"
    do: sleep 0.1; echo "$MUSTER_EACH_PATH" > found.txt
    check: "true"
  sure:
    by: human
    after: lint
    do: Sure?
  both:
    agent: shell
    after: sure
    do: "true"
    check: "true"
"""


@proves("git.prerequisites-merged", "git.land-conflict")
def test_tasks_that_conflict_are_named_as_a_person_knows_them_also_behind_a_decision(world):
    source = world.source("meets", bare=False)
    commit(source, "another", other__md="x\n")
    world.add("meets", str(source), follow=False)
    path = world.root / "meets.yaml"
    path.write_text(MEETS.format(repo="meets"))
    run = world.cli(world.studio, "run", str(path), "--detach")["run"]
    world.cli(world.studio, "decide", until(lambda: world.waits(run), "it asks"), "yes")
    until(lambda: world.cli(world.studio, "runs", run)["state"] == "failed", "the run failed")
    tasks = world.cli(world.studio, "tasks", "--run", run)
    reason = next(task["reason"] for task in tasks if task["phase"] == "both")
    assert "The results of lint[other.md] and lint[readme.md] conflict in found.txt" in reason
    said = world.cli(world.studio, "land", run, "--phase", "lint", code=10)
    assert [(f["there"], f["result"]) for f in said["files"]] == [(
        [f"phase lint[other.md] by {by(tasks, 'other.md')}"],
        [f"phase lint[readme.md] by {by(tasks, 'readme.md')}"],
    )]  # fmt: skip
    said = world.cli(world.studio, "diff", run, "--phase", "lint", code=3)
    assert "take one of them with --phase" in said["error"]["text"]
    clean(world)


def by(tasks: list[dict[str, Any]], instance: str) -> str:
    found = next(task for task in tasks if task["instance"] == instance)
    return f"{found['agent']}@{found['machine']}"


AGAIN = """\
muster: 1
name: again
repo: {repo}
phases:
  one:
    agent: shell
    do: echo one > one.txt
    check: "true"
  two:
    agent: shell
    do: test -e "$E2E_NOTES" && echo two > two.txt
    check: "true"
"""


@proves("git.land-at-the-origin", "git.land-once")
def test_what_a_rerun_kept_lands_with_what_it_did_again_and_only_once(world):
    world.add("again", str(world.source("again", bare=False)), follow=False)
    path = world.root / "again.yaml"
    path.write_text(AGAIN.format(repo="again"))
    run = world.cli(world.studio, "run", str(path), "--detach")["run"]
    until(lambda: world.cli(world.studio, "runs", run)["state"] == "failed", "the run failed")
    assert world.cli(world.studio, "land", run, "--phase", "one")["outcome"] == "landed"
    world.fleet.notes.touch()
    rerun = world.cli(world.studio, "rerun", run, "--failed", "--detach")["run"]
    until(lambda: world.cli(world.studio, "runs", rerun)["state"] == "done", "it is done")
    said = world.cli(world.studio, "diff", rerun, "--name-only")
    assert said["diff"].split() == ["one.txt", "two.txt"]
    said = world.cli(world.studio, "land", rerun)
    assert (said["outcome"], said["phases"]) == ("landed", ["two"])
    again = Path(world.hub.home.repos) / "again.git"
    assert sh(again, "show", "main:one.txt", "main:two.txt") == "one\ntwo"
    assert world.cli(world.studio, "land", rerun)["outcome"] == "already"
    clean(world)


GH = """\
#!{python}
import json, sys
if sys.argv[1] == "pr":
    open({notes!r}, "w").write(json.dumps(sys.argv[1:]))
    print("https://github.com/alice/asked/pull/7")
"""


@proves("git.land-asks")
def test_a_pull_request_is_opened_from_a_branch_with_a_short_name(world):
    bare = world.source("asked", bare=True)
    world.add("asked", str(bare), follow=False)
    run = world.run("asked")
    kept = origin.Origin("https://github.com/alice/asked.git", follows=True)
    origin.write(Path(world.hub.home.repos) / "asked.git", kept)
    config = world.root / "forge.gitconfig"
    config.write_text(
        (world.root / "person" / ".gitconfig").read_text()
        + f'[url "{bare}"]\n\tinsteadOf = https://github.com/alice/asked.git\n'
    )
    program, notes = world.root / "bin" / "gh", world.root / "asked.json"
    program.write_text(GH.format(python=sys.executable, notes=str(notes)))
    program.chmod(0o755)
    mine = {"GIT_CONFIG_GLOBAL": str(config)}
    said = world.cli(world.studio, "land", run, "--pr", "--message", "Fix it\n\nSo.", **mine)
    assert said["outcome"] == "requested"
    assert said["request"] == "https://github.com/alice/asked/pull/7"
    branch = f"fix-login-{run[:8]}"
    assert json.loads(notes.read_text()) == [
        "pr", "create", "--repo", "https://github.com/alice/asked", "--head", branch,
        "--base", "main", "--title", "Fix it", "--body", "So.",
    ]  # fmt: skip
    assert log(bare, "%s", branch).splitlines() == ["Fix it", "first"]
    assert log(bare, "%s", "main") == "first"
    again = world.cli(world.studio, "land", run, "--pr", code=6, **mine)
    assert f"gh pr view {branch}" in again["error"]["text"]
    program.unlink()
    again = world.cli(world.studio, "land", run, "--pr", code=5, **mine)
    assert "not installed" in again["error"]["text"]
    clean(world)


FAILS = """muster: 1
name: half
repo: {repo}
phases:
  one:
    agent: shell
    do: echo one > one.txt
    check: "true"
  two:
    agent: shell
    after: one
    do: "false"
    check: "true"
"""


@proves("git.land-says-why-not")
def test_what_cannot_land_is_one_sentence(world):
    world.add("half", str(world.source("half", bare=False)), follow=False)
    path = world.root / "half.yaml"
    path.write_text(FAILS.format(repo="half"))
    world.cli(world.studio, "run", str(path), code=1)
    for words, code, says in (
        (("half",), 5, r"is failed \(phase two failed.*`--phase` takes what is done: one"),
        (("half", "--phase", "two"), 5, "phase two of run .* has no commit"),
        (("half", "--phase", "tow"), 5, 'did you mean "two"'),
        (("half", "--phase", "one", "--onto", "mian"), 5, 'did you mean "main"'),
        (("half", "--phase", "one", "--squash", "--merge"), 3, "two ways to land"),
        (("nothing-of-this-name",), 5, "no run is of a spec of that name"),
        (("half", "--phase", "one", "--pr"), 3, "takes pull requests"),
    ):
        said = world.cli(world.studio, "land", *words, code=code)
        assert re.search(says, said["error"]["text"]), said
    nobody = {"GIT_CONFIG_GLOBAL": os.devnull}
    said = world.cli(world.studio, "land", "half", "--phase", "one", code=3, **nobody)
    assert "git config --global user.name" in said["error"]["text"]
    assert world.cli(world.studio, "land", "half", "--phase", "one")["outcome"] == "landed"
    # A run that waits for a person, one without a repository, and branches that were pruned.
    path.write_text("muster: 1\nname: ask\nphases:\n  sure:\n    by: human\n    do: Sure?\n")
    run = world.cli(world.studio, "run", str(path), "--detach")["run"]
    said = world.cli(world.studio, "land", run, code=6)
    assert "is still going" in said["error"]["text"]
    world.cli(world.studio, "decide", until(lambda: world.waits(run), "it asks"), "yes")
    until(lambda: world.cli(world.studio, "runs", run)["state"] == "done", "it is done")
    said = world.cli(world.studio, "land", run, code=5)
    assert "works in no repository" in said["error"]["text"]
    run = world.run("half", SPEC, "--base", sh(world.root / "half", "rev-parse", "HEAD"))
    said = world.cli(world.studio, "land", run, code=5)
    assert "`--onto` names the branch that it lands on" in said["error"]["text"]
    run = world.run("half")
    half = Path(world.hub.home.repos) / "half.git"
    tip = sh(half, "rev-parse", "main")
    for name in ("build", "look"):
        sh(half, "update-ref", "-d", f"refs/heads/muster/{run}/{name}")
    said = world.cli(world.studio, "land", run, code=5)
    assert "are gone from repository half" in said["error"]["text"]
    assert sh(half, "rev-parse", "main") == tip
    clean(world)
