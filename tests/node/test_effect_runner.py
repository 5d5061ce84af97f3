"""What an owner's daemon does to branches: real repositories, with the keys of real cores."""

import shutil
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from tests.git.repositories import checkout, refs, sh, wait
from tests.node.cores import Cores
from tests.promise import proves

from muster.errors import NotFound
from muster.git import commit as commits
from muster.git import ref, repository
from muster.git.fence import Epoch, attempt_ref
from muster.node.attempts import question
from muster.node.attempts.effect_runner import EffectRunner
from muster.node.call.router import Router
from muster.node.host.config import Config
from muster.node.tasks.branches import BringBack, BroughtBack
from muster.task.instruction import MoveBranch, Promoted

BRANCH = "muster/r1/one"


class Owner:
    """The hands of the hub, and its repository with one attempt of studio."""

    def __init__(self, folder: Path) -> None:
        self.world = Cores("hub", "studio", "other")
        self.posted: list[Any] = []
        home = SimpleNamespace(
            path=folder,
            repos=folder / "repos",
            mirrors=folder / "mirrors",
            work=folder / "work",
            repos_cache=folder / "repos-cache",
        )
        daemon: Any = SimpleNamespace(
            home=home,
            core=self.world["hub"].core,
            post=self.posted.append,
            machine=SimpleNamespace(config=Config()),
        )
        self.effects = EffectRunner(daemon)
        self.repo = wait(repository.add(home.repos, "main", str(checkout(folder / "src")))).path
        self.base = sh(self.repo, "rev-parse", "HEAD")
        wait(ref.register(self.repo, "t1", Epoch(1, 1)))

    def commit(self, agent: str, machine: str, signer: str) -> str:
        """A commit on the base that the hub's repository has as the attempt."""
        key = self.world[signer].identity.signer("git")
        signature = commits.Signature(agent, machine, 1_800_000_000, key)
        tree = sh(self.repo, "rev-parse", f"{self.base}^{{tree}}")
        return self.pushed(wait(commits.write(self.repo, tree, [self.base], "x", signature)))

    def pushed(self, made: str) -> str:
        sh(self.repo, "update-ref", attempt_ref("t1", Epoch(1, 1)), made)
        return made

    def push_to_main(self) -> None:
        """Somebody else's commit becomes the newest of the default branch."""
        named = ["-c", "user.name=x", "-c", "user.email=x@x"]
        tree = sh(self.repo, "rev-parse", f"{self.base}^{{tree}}")
        new = sh(self.repo, *named, "commit-tree", tree, "-p", self.base, "-m", "meanwhile")
        sh(self.repo, "update-ref", "refs/heads/main", new)

    def move(self, made: str, *, machine: str = "studio", bases: Any = None) -> Promoted:
        worker = self.world[machine].id if machine in self.world.machines else machine
        bases = (self.base,) if bases is None else bases
        effect = MoveBranch("t1", (1, 1), "main", BRANCH, made, bases, worker, "claude")
        found: Promoted = wait(self.effects.branches.move(effect))
        return found


@pytest.fixture
def owner(tmp_path: Path) -> Owner:
    if shutil.which("git") is None:
        pytest.skip("no git")
    return Owner(tmp_path)


@proves("git.made-by-the-worker", "git.forged-commit")
def test_the_commit_of_the_agent_and_machine_that_were_given_the_task_is_promoted(owner):
    made = owner.commit("claude@studio", "studio", "studio")
    assert owner.move(made).reason == ""
    assert refs(owner.repo)[f"refs/heads/{BRANCH}"] == made


@proves("git.made-by-the-worker", "git.forged-commit")
@pytest.mark.parametrize(
    ("agent", "machine", "signer", "said"),
    [
        ("claude@studio", "studio", "other", "not signed by the machine"),
        ("codex@studio", "studio", "studio", "another author"),
        ("claude@other", "other", "other", "not signed by the machine"),
        ("claude@studio", "hub", "studio", "another committer"),
    ],
)
def test_the_commit_of_anybody_else_is_not(owner, agent, machine, signer, said):
    made = owner.commit(agent, machine, signer)
    before = refs(owner.repo)
    told = owner.move(made)
    assert said in told.reason
    assert not told.again
    assert refs(owner.repo) == before


@proves("git.made-by-the-worker", "git.forged-commit")
def test_an_unsigned_commit_is_not_promoted_nor_one_of_a_machine_that_nobody_vouched_for(owner):
    tree = sh(owner.repo, "rev-parse", f"{owner.base}^{{tree}}")
    named = ["-c", "user.name=x", "-c", "user.email=x@x"]
    plain = owner.pushed(sh(owner.repo, *named, "commit-tree", tree, "-p", owner.base, "-m", "x"))
    before = refs(owner.repo)
    assert "not signed" in owner.move(plain).reason
    made = owner.commit("claude@studio", "studio", "studio")
    before[attempt_ref("t1", Epoch(1, 1))] = made
    assert "has no key" in owner.move(made, machine="f" * 64).reason
    assert refs(owner.repo) == before


@proves("git.default-branch-moves")
def test_work_that_began_at_the_default_branch_counts_after_a_push_to_it(owner):
    made = owner.commit("claude@studio", "studio", "studio")
    owner.push_to_main()
    assert owner.move(made, bases=()).reason == ""
    assert refs(owner.repo)[f"refs/heads/{BRANCH}"] == made


# --- after a restore --------------------------------------------------------------------------------


def lose(owner: Owner, made: str) -> None:
    """The repository is as it was before the attempt: no fence, no attempt, no branch."""
    for name in refs(owner.repo):
        if "muster" in name:
            sh(owner.repo, "update-ref", "-d", name)


def bring_back(owner: Owner, made: str, answer: Any, *, bases: Any = None) -> BroughtBack:
    async def ask(machine: str, verb: str, args: Any) -> Any:
        assert (machine, verb) == (owner.world["studio"].id, "git.again")
        assert args == {"epoch": [1, 1], "task": "t1"}
        return answer()

    owner.effects.ask = ask  # type: ignore[method-assign]
    bases = (owner.base,) if bases is None else bases
    worker = (owner.world["studio"].id, "claude")
    move = MoveBranch("t1", (1, 1), "main", BRANCH, made, bases, *worker)
    found: BroughtBack = wait(owner.effects.branches.bring_back(BringBack(move)))
    return found


@proves("git.lost-branches-come-back")
def test_a_branch_that_stands_is_left_alone_and_nobody_is_asked(owner):
    made = owner.commit("claude@studio", "studio", "studio")
    assert owner.move(made).reason == ""
    before = refs(owner.repo)
    assert bring_back(owner, made, lambda: 1 / 0) == BroughtBack("t1", BRANCH, "main")
    assert refs(owner.repo) == before


@proves("git.lost-branches-come-back")
def test_a_branch_that_is_gone_stands_again_when_its_worker_pushed_the_attempt_once_more(owner):
    made = owner.commit("claude@studio", "studio", "studio")
    lose(owner, made)
    told = bring_back(owner, made, lambda: owner.pushed(made))
    assert told == BroughtBack("t1", BRANCH, "main", "", True)
    assert refs(owner.repo)[f"refs/heads/{BRANCH}"] == made


@proves("git.default-branch-moves", "git.lost-branches-come-back")
def test_a_branch_comes_back_also_where_the_default_branch_moved_on(owner):
    made = owner.commit("claude@studio", "studio", "studio")
    lose(owner, made)
    owner.push_to_main()
    assert bring_back(owner, made, lambda: owner.pushed(made), bases=()).reason == ""
    assert refs(owner.repo)[f"refs/heads/{BRANCH}"] == made


@proves("git.lost-branches-are-said", "git.made-by-the-worker")
@pytest.mark.parametrize("answer", ["away", "another's commit"])
def test_what_cannot_be_brought_back_is_said_with_the_reason(owner, answer):
    made = owner.commit("claude@studio", "studio", "studio")
    other = owner.commit("claude@studio", "studio", "other")
    lose(owner, made)
    if answer == "away":
        told = bring_back(owner, made, lambda: None)
        assert "studio, which made it, is away or has it no more" in told.reason
    else:
        told = bring_back(owner, other, lambda: owner.pushed(other))
        assert "not signed by the machine" in told.reason
    assert told.was_gone
    assert f"refs/heads/{BRANCH}" not in refs(owner.repo)


@proves("git.lost-branches-come-back")
def test_a_worker_pushes_once_more_only_what_its_cache_has_whole(owner, tmp_path, monkeypatch):
    made = owner.commit("claude@studio", "studio", "studio")
    lose(owner, made)
    cache = owner.effects.worktrees.cache_of("main")
    monkeypatch.setattr(owner.effects, "place_of", lambda _repo: (None, str(owner.repo)))
    with pytest.raises(NotFound, match="has the commit"):
        wait(owner.effects.branches.push_again("main", "t1", Epoch(1, 1), made))
    sh(tmp_path, "clone", "-q", "--bare", str(owner.repo), str(cache))
    with pytest.raises(NotFound, match="has the commit"):
        wait(owner.effects.branches.push_again("main", "t1", Epoch(1, 1), "1" * 40))
    sh(cache, "fetch", "-q", str(owner.repo), made)
    monkeypatch.setattr("muster.git.ref.swap_remote", _pushed := Pushed())
    wait(owner.effects.branches.push_again("main", "t1", Epoch(1, 1), made))
    assert _pushed.moves == [(attempt_ref("t1", Epoch(1, 1)), None, made)]


class Pushed:
    """What would be pushed; the fence of the other side is not here."""

    def __init__(self) -> None:
        self.moves: list[Any] = []

    async def __call__(self, _cwd: Path, _url: str, name: str, old: str | None, new: str) -> None:
        self.moves.append((name, old, new))


@proves("git.lost-branches-are-said")
def test_a_settled_branch_that_is_gone_is_not_said_to_stand(owner):
    made = owner.commit("claude@studio", "studio", "studio")
    assert not wait(owner.effects.branches.stands("main", BRANCH, made))
    owner.move(made)
    assert wait(owner.effects.branches.stands("main", BRANCH, made))
    assert wait(owner.effects.branches.stands("elsewhere", BRANCH, made)), (
        "who does not keep it cannot tell"
    )


@proves("node.answers-bounded")
def test_an_answer_that_does_not_come_in_time_is_waited_for_by_nobody(owner, monkeypatch):
    monkeypatch.setattr(question, "ANSWER_S", 0.01)
    owner.world.link("hub", "studio")
    owner.world.frozen.add("studio")
    asked = owner.effects.ask(
        owner.world["studio"].id, "git.again", {"epoch": [1, 1], "task": "t1"}
    )
    assert wait(asked) is None
    assert owner.world["hub"].core.part(Router).asked == {}
