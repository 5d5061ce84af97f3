"""People push to the fleet's repositories, with real daemons and git: what their keys may."""

import secrets
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from muster.fleet.grant import Grant, sign_give
from muster.git import ref
from tests.e2e.checks import Log
from tests.e2e.fleet import Fleet, Machine, now_ms
from tests.git.repositories import commit, sh, wait
from tests.promise import proves

pytestmark = pytest.mark.e2e
DAY_MS = 86_400_000


@pytest.fixture
def fleet() -> Iterator[Fleet]:
    with Fleet(["hub", "laptop"]) as fleet:
        fleet.bare = fleet.add_repository()
        fleet.start()
        yield fleet


def git(machine: Machine, cwd: Path, *args: str, **env: str) -> subprocess.CompletedProcess[str]:
    """Git as the person at a machine types it."""
    return subprocess.run(
        ["git", *args], cwd=cwd, env=machine.fleet.environment(machine) | env, text=True,
        capture_output=True, check=False, timeout=60,
    )  # fmt: skip


def cloned(machine: Machine, name: str = "clone") -> Path:
    """A clone of the fleet's copy with a commit that is not there yet."""
    done = git(machine, machine.fleet.root, "clone", "-q", "muster::hub/main", name)
    assert not done.returncode, done.stderr
    commit(machine.fleet.root / name, "by hand", hand__txt=secrets.token_hex(4))
    return machine.fleet.root / name


def let_push(fleet: Fleet, machine: Machine) -> None:
    """The operator grants `push` on the repository to a machine."""
    grant = Grant("main", machine.id, now_ms() + DAY_MS, "push")
    raw = sign_give(
        fleet.operator.statement, fleet.fleet, grant, nonce=secrets.token_bytes(16),
        issued_ms=now_ms(),
    ).decode()  # fmt: skip
    args = {"to": machine.name, "verb": "push", "object": "main", "days": 1}
    shown = {"object": "main", "to": machine.id, "until_ms": grant.until_ms, "verb": "push"}
    options = {"grant": shown, "statement": raw}
    statement = fleet.sign("grant", "push", fleet.hub, args)
    with fleet.hub.client() as client:
        client.call("grant", args, options=options, statement=statement)


def tip(fleet: Fleet, branch: str) -> str | None:
    return wait(ref.read(fleet.bare, f"refs/heads/{branch}"))


def branch_of(clone: Path) -> str:
    return sh(clone, "branch", "--show-current")


@proves("git.people-push")
def test_an_operator_pushes_ordinary_branches_from_any_machine_and_the_hub_writes_down_who(fleet):
    laptop = fleet["laptop"]
    laptop.home.put_seed("operator.seed", fleet.operator_seed)
    clone = cloned(laptop)
    done = git(laptop, clone, "push", "-q", "origin", "HEAD")
    assert not done.returncode, done.stderr
    assert tip(fleet, branch_of(clone)) == sh(clone, "rev-parse", "HEAD")
    # On the machine that keeps it, too.
    fleet.hub.home.put_seed("operator.seed", fleet.operator_seed)
    commit(clone, "again", hand__txt="two")
    assert not git(fleet.hub, clone, "push", "-q", "origin", "HEAD:refs/heads/topic").returncode
    assert tip(fleet, "topic") == sh(clone, "rev-parse", "HEAD")


@proves("git.people-push", "git.people-push-forward")
def test_what_an_operator_may_not_push_is_refused_and_moves_nothing(fleet):
    laptop = fleet["laptop"]
    laptop.home.put_seed("operator.seed", fleet.operator_seed)
    clone = cloned(laptop)
    branch = branch_of(clone)
    before = tip(fleet, branch)
    for refused, why in (
        ("HEAD:refs/heads/muster/run/phase", "owner of run"),
        ("HEAD:refs/heads/muster", "not a ref that may be pushed"),
        ("HEAD:refs/muster/attempt/t1/1-1", "not assigned"),
        ("HEAD:refs/follow/heads/main", "hidden ref"),
        (f":{branch}", "deleted"),
    ):
        done = git(laptop, clone, "push", "origin", refused)
        assert done.returncode, refused
        assert why in done.stderr, done.stderr
    sh(clone, "commit", "--amend", "-q", "--allow-empty", "-m", "other")
    sh(clone, "reset", "-q", "--hard", "HEAD")
    sh(clone, "update-ref", "HEAD", sh(clone, "commit-tree", "-m", "no parent", "HEAD^{tree}"))
    done = git(laptop, clone, "push", "--force", "origin", "HEAD")
    assert done.returncode
    assert "may only move forward" in done.stderr
    assert tip(fleet, branch) == before


@proves("git.people-push")
def test_without_a_grant_a_push_is_refused_in_one_sentence_with_the_command_that_grants_it(fleet):
    laptop = fleet["laptop"]
    clone = cloned(laptop)
    before = tip(fleet, branch_of(clone))
    done = git(laptop, clone, "push", "-q", "origin", "HEAD")
    assert done.returncode
    said = [line for line in done.stderr.splitlines() if "muster: refused" in line]
    assert len(said) == 1
    assert "`muster grant machine:laptop push --object main`" in said[0]
    assert tip(fleet, branch_of(clone)) == before
    let_push(fleet, laptop)
    done = git(laptop, clone, "push", "-q", "origin", "HEAD")
    assert not done.returncode, done.stderr
    assert tip(fleet, branch_of(clone)) == sh(clone, "rev-parse", "HEAD")


@proves("git.agents-push-as-machines")
@pytest.mark.parametrize("mark", [{"MUSTER_CAPABILITY": "c" * 20}, {"MUSTER_PUSHES": "machine"}])
def test_an_agent_and_the_daemon_never_push_with_the_key_of_the_person(fleet, mark):
    laptop = fleet["laptop"]
    laptop.home.put_seed("operator.seed", fleet.operator_seed)
    clone = cloned(laptop)
    before = tip(fleet, branch_of(clone))
    done = git(laptop, clone, "push", "-q", "origin", "HEAD", **mark)
    assert done.returncode
    assert "was granted no `push`" in done.stderr
    assert tip(fleet, branch_of(clone)) == before


@proves("git.people-push")
def test_a_push_is_an_entry_of_the_machine_that_took_it(fleet):
    laptop = fleet["laptop"]
    laptop.home.put_seed("operator.seed", fleet.operator_seed)
    clone = cloned(laptop)
    assert not git(laptop, clone, "push", "-q", "origin", "HEAD").returncode
    log = Log(fleet.hub)
    taken = log.rows("select body from entry where instr(header, 'order.take')")
    log.close()
    assert any(b"push" in row["body"] for row in taken)
