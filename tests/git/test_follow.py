"""The fleet's copy follows its origin: what moves, what stays, and that nothing of ours is lost."""

import contextlib
import random
import shutil
from pathlib import Path

import pytest
from tests.git.repositories import checkout, commit, plain, refs, sh, wait
from tests.promise import proves

from muster.errors import Conflict, NotFound, Refused
from muster.git import follow, origin, ref, repository
from muster.git.follow import update


class Pair:
    """An origin (a bare repository) with a clone that pushes to it, and our copy that follows."""

    def __init__(self, folder: Path, *, bare: bool = True) -> None:
        self.work = checkout(folder / "work")
        self.far = Path(plain(folder / "far.git", self.work)) if bare else self.work
        self.ours = wait(repository.add(folder / "repos", "main", str(self.far))).path
        self.used: set[str] = set()

    def update(self) -> dict[str, str]:
        """What became of each branch."""
        kept = origin.read(self.ours)
        assert kept is not None
        found = wait(update(self.ours, kept, self.used, 9))
        assert origin.read(self.ours) == found.origin
        here = refs(self.ours)
        assert not [name for name in here if name.startswith("refs/follow/new")]
        self.unlike = {each.branch for each in found.changes if each.what in follow.UNLIKE}
        return {each.branch: each.what for each in found.changes}

    def commit(self, text: str, *, on: str = "") -> str:
        """A new commit, made in the clone on top of `on`; nobody has it yet."""
        if on:
            sh(self.work, "checkout", "-q", "--detach", on)
        return commit(self.work, text, **{f"f{abs(hash(text)) % 99}": text})

    def push(self, id: str, branch: str) -> None:
        """At the origin, whatever is there."""
        sh(self.work, "push", "-q", "--force", str(self.far), f"{id}:refs/heads/{branch}")

    def push_to_us(self, id: str, branch: str) -> None:
        sh(self.ours, "fetch", "-q", "--no-write-fetch-head", str(self.work), id)
        sh(self.ours, "update-ref", f"refs/heads/{branch}", id)

    def head(self, branch: str = "main") -> str | None:
        return wait(ref.read(self.ours, f"refs/heads/{branch}"))


@pytest.fixture
def pair(tmp_path: Path) -> Pair:
    return Pair(tmp_path)


@proves("git.follows-origin")
def test_what_is_new_at_the_origin_is_taken_over_and_what_it_removed_goes(pair: Pair):
    first = pair.head()
    two = pair.commit("two")
    pair.push(two, "main")
    pair.push(two, "topic")
    sh(pair.far, "tag", "v1", two)
    assert pair.update() == {"main": "moved", "topic": "created"}
    assert (pair.head(), pair.head("topic")) == (two, two)
    assert refs(pair.ours)["refs/tags/v1"] == two
    assert pair.update() == {}
    # A tag that moved there stays here: somebody may have built on it.
    sh(pair.far, "tag", "-f", "v1", str(first))
    sh(pair.far, "branch", "-D", "topic")
    assert pair.update() == {"topic": "removed"}
    assert pair.head("topic") is None
    assert refs(pair.ours)["refs/tags/v1"] == two


@proves("git.follows-origin")
def test_mailboxes_at_the_origin_are_no_branches_that_are_taken_over(pair: Pair):
    for text in ("one", "two"):
        pair.push(pair.commit(text), "muster-post/x")
        assert pair.update() == {}
        assert not [name for name in refs(pair.ours) if "muster-post" in name]


@proves("git.follows-origin")
def test_a_rewritten_branch_that_nobody_touched_here_is_followed(pair: Pair):
    pair.push(pair.commit("two"), "main")
    pair.update()
    other = pair.commit("other", on="HEAD~1")
    pair.push(other, "main")
    assert pair.update() == {"main": "rewritten"}
    assert pair.head() == other


@proves("git.follow-loses-nothing")
def test_ours_stays_where_it_has_commits_of_its_own_and_that_is_told(pair: Pair):
    first = str(pair.head())
    mine = pair.commit("mine")
    pair.push_to_us(mine, "main")
    assert pair.update() == {"main": "ahead"}
    assert "main: ours has commits" in str(origin.read(pair.ours).unlike)
    theirs = pair.commit("theirs", on=first)
    pair.push(theirs, "main")
    assert pair.update() == {"main": "diverged"}
    assert pair.update() == {"main": "diverged"}
    assert pair.head() == mine
    # Where the origin takes ours over, all is as it was.
    sh(pair.work, "checkout", "-q", "--detach", theirs)
    sh(pair.work, "merge", "-q", "-m", "both", mine)
    both = sh(pair.work, "rev-parse", "HEAD")
    pair.push(both, "main")
    assert pair.update() == {"main": "moved"}
    assert pair.head() == both
    assert origin.read(pair.ours).unlike == []


@proves("git.follow-loses-nothing")
def test_a_branch_that_is_gone_at_the_origin_stays_where_ours_has_more_and_the_default_always(pair):
    two = pair.commit("two")
    pair.push(two, "topic")
    pair.update()
    pair.push_to_us(pair.commit("mine"), "topic")
    sh(pair.far, "branch", "-D", "topic")
    assert pair.update() == {"topic": "gone"}
    assert pair.head("topic")
    pair.push(two, "other")
    sh(pair.far, "update-ref", "-d", "refs/heads/main")
    assert pair.update() == {"other": "created", "main": "held"}
    assert pair.head()


@proves("git.follow-loses-nothing")
def test_what_a_live_task_starts_from_keeps_its_branch_until_the_task_has_ended(pair: Pair):
    two = pair.commit("two")
    pair.push(two, "topic")
    pair.push(two, "main")
    pair.update()
    other = pair.commit("other", on=f"{two}~1")
    sh(pair.far, "branch", "-D", "topic")
    pair.push(other, "main")
    pair.used = {two}
    assert pair.update() == {"topic": "held", "main": "held"}
    assert pair.head("topic") == two
    pair.used = {""}
    assert pair.update() == {"topic": "removed", "main": "held"}
    pair.used = set()
    assert pair.update() == {"main": "rewritten"}
    assert pair.head() == other


@proves("git.follows-origin")
def test_a_default_branch_that_is_renamed_at_the_origin_is_followed_and_told(pair: Pair):
    sh(pair.far, "branch", "-m", "main", "trunk")
    assert pair.update() == {"main": "removed", "trunk": "default"}
    assert wait(repository.default_branch(pair.ours)) == "trunk"
    assert wait(repository.head(pair.ours)) == pair.head("trunk")
    # Another default branch, with the old one still there.
    pair.push(pair.commit("next"), "next")
    sh(pair.far, "symbolic-ref", "HEAD", "refs/heads/next")
    assert pair.update() == {"next": "default"}
    assert pair.head("trunk")


@proves("git.follow-loses-nothing")
def test_a_default_branch_with_commits_of_ours_stays_the_default_one(pair: Pair):
    mine = pair.commit("mine")
    pair.push_to_us(mine, "main")
    sh(pair.far, "branch", "-m", "main", "trunk")
    assert pair.update() == {"main": "gone", "trunk": "created"}
    assert wait(repository.head(pair.ours)) == mine


@proves("git.follows-origin")
def test_a_default_branch_that_could_not_change_yet_changes_when_ours_is_at_the_origin(pair: Pair):
    mine = pair.commit("mine")
    pair.push_to_us(mine, "main")
    sh(pair.far, "branch", "trunk", "main")
    sh(pair.far, "symbolic-ref", "HEAD", "refs/heads/trunk")
    assert pair.update() == {"main": "ahead", "trunk": "created"}
    pair.push(mine, "main")
    assert pair.update() == {"trunk": "default"}
    assert sh(pair.ours, "symbolic-ref", "HEAD") == "refs/heads/trunk"


@proves("git.origin-changed")
def test_a_repository_that_is_there_follows_another_place_of_its_history_and_loses_nothing(
    pair: Pair, tmp_path: Path
):
    """Also one that was made before there was an origin."""
    ours, mine = str(pair.head()), pair.commit("mine")
    pair.push_to_us(mine, "topic")
    pair.push(pair.commit("elsewhere", on=ours), "topic")
    new = tmp_path / "new.git"
    pair.far.rename(new)
    pair.far = new
    two = pair.commit("two", on=ours)
    pair.push(two, "main")
    (pair.ours / origin.FILE).unlink()
    assert wait(follow.adopt(pair.ours, str(new), None)) == ()
    assert (pair.head(), pair.head("topic")) == (ours, mine)
    assert pair.update() == {"main": "moved", "topic": "diverged"}
    assert (pair.head(), pair.head("topic")) == (two, mine)
    # What was rewritten there is not what this origin was seen to have.
    wait(follow.adopt(pair.ours, str(pair.work), False))
    kept = origin.read(pair.ours)
    assert kept is not None
    assert (kept.address, kept.follows) == (str(pair.work), False)
    before, was = refs(pair.ours), kept
    other = checkout(tmp_path / "other")
    sh(other, "commit", "-q", "--amend", "-m", "another history")
    with pytest.raises(Conflict, match="has another history"):
        wait(follow.adopt(pair.ours, str(other), None))
    assert refs(pair.ours) == before
    assert origin.read(pair.ours) == was


@proves("git.follow-crash")
def test_an_old_default_branch_goes_also_after_a_cut_before_it_went(pair: Pair, monkeypatch):
    sh(pair.far, "branch", "-m", "main", "trunk")
    swap = ref.swap

    async def cut(repo, moves):
        if any(name == "refs/heads/main" for name, _old, _new in moves):
            raise Cut
        await swap(repo, moves)

    monkeypatch.setattr(follow.ref, "swap", cut)
    with pytest.raises(Cut):
        pair.update()
    monkeypatch.setattr(follow.ref, "swap", swap)
    assert pair.update() == {"main": "removed"}
    assert set(refs(pair.ours)) == {"refs/heads/trunk", "refs/follow/heads/trunk"}


@proves("git.follows-origin")
def test_what_is_checked_out_in_a_working_copy_is_not_its_default_branch(tmp_path: Path):
    pair = Pair(tmp_path, bare=False)
    sh(pair.work, "checkout", "-q", "-b", "topic")
    two = pair.commit("two")
    assert pair.update() == {"topic": "created"}
    assert wait(repository.default_branch(pair.ours)) == "main"
    assert pair.head("topic") == two
    sh(pair.work, "branch", "-D", "main")
    assert pair.update() == {"main": "removed", "topic": "default"}


@proves("git.follows-origin")
def test_a_branch_may_become_a_folder_of_branches_and_one_of_ours_in_the_way_stays(pair: Pair):
    two = pair.commit("two")
    pair.push(two, "a")
    pair.update()
    sh(pair.far, "branch", "-D", "a")
    pair.push(two, "a/b")
    assert pair.update() == {"a": "removed", "a/b": "created"}
    pair.push_to_us(two, "x/y")
    pair.push(two, "x")
    assert pair.update() == {"x": "in the way"}
    assert (pair.head("x/y"), pair.head("x")) == (two, None)


@proves("git.follow-checks")
def test_runs_of_others_a_spoiled_tree_and_half_a_history_are_not_taken(pair: Pair, tmp_path: Path):
    before = refs(pair.ours)
    pair.push(pair.commit("two"), "muster/r/p")
    assert pair.update() == {}
    assert refs(pair.ours) == before
    blob = sh(pair.work, "hash-object", "-w", "--stdin", stdin=b"x")
    tree = sh(pair.work, "mktree", stdin=f"100644 blob {blob}\t.GIT\n".encode())
    bad = sh(pair.work, "commit-tree", "-m", "bad", "-p", str(pair.head()), tree)
    pair.push(bad, "main")
    with pytest.raises(Refused):
        pair.update()
    ours = {name: id for name, id in refs(pair.ours).items() if "/new" not in name}
    assert ours == before
    # Mended there, it goes on here.
    good = pair.commit("good", on=str(pair.head()))
    pair.push(good, "main")
    assert pair.update() == {"main": "moved"}
    (pair.far / "shallow").write_text(f"{good}\n")
    with pytest.raises(Refused, match="shallow"):
        pair.update()
    (pair.far / "shallow").unlink()
    shutil.rmtree(pair.far)
    with pytest.raises(NotFound):
        pair.update()
    assert pair.head() == good


@proves("git.follow-loses-nothing")
def test_whoever_pushes_in_the_middle_of_an_update_is_not_overwritten(pair: Pair, monkeypatch):
    two, mine = pair.commit("two"), pair.commit("mine", on=str(pair.head()))
    pair.push(two, "main")
    swap, pushed = ref.swap, []

    async def pushes_first(repo, moves):
        if not pushed and any(each[0] == "refs/heads/main" for each in moves):
            pushed.append(mine)
            sh(pair.work, "push", "-q", str(pair.far), f"{mine}:refs/heads/side")
            sh(pair.ours, "fetch", "-q", str(pair.work), mine)
            sh(pair.ours, "update-ref", "refs/heads/main", mine)
        await swap(repo, moves)

    monkeypatch.setattr(follow.ref, "swap", pushes_first)
    assert pair.update()["main"] == "diverged"
    assert pair.head() == mine


@proves("git.follows-origin")
def test_what_moved_before_somebody_pushed_is_told_although_the_rest_was_looked_at_anew(
    pair: Pair, monkeypatch
):
    pair.push(pair.commit("two"), "topic")
    pair.update()
    sh(pair.far, "branch", "-D", "topic")
    three, mine = (
        pair.commit("three", on=str(pair.head())),
        pair.commit("mine", on=str(pair.head())),
    )
    pair.push(three, "main")
    swap, seen = ref.swap, []

    async def pushes_between(repo, moves):
        if not seen and any(name == "refs/heads/main" for name, _old, _new in moves):
            seen.append("topic" in sh(repo, "branch", "--list", "topic"))
            pair.push_to_us(mine, "main")
        await swap(repo, moves)

    monkeypatch.setattr(follow.ref, "swap", pushes_between)
    assert pair.update() == {"topic": "removed", "main": "diverged"}
    assert seen == [False], "it was gone already"


class Cut(Exception):
    """The power goes."""


def _reached(repo: Path, *ids: str) -> set[str]:
    return set(sh(repo, "rev-list", *ids).split()) if ids else set()


def _heads(repo: Path, prefix: str = "refs/heads/") -> dict[str, str]:
    return {n.removeprefix(prefix): id for n, id in refs(repo).items() if n.startswith(prefix)}


def _anything(pair: Pair, chance: random.Random, step: int, known: list[str]) -> None:
    """Somebody does something, at the origin or here."""
    names = ["main", "a", "a/b", "b", "c"]
    at = chance.choice(known)
    new = pair.commit(f"{step} {chance.random()}", on=at) if chance.random() < 0.7 else at
    known.append(new)
    far, here = _heads(pair.far), _heads(pair.ours)
    name = chance.choice(names)
    deed = chance.random()
    if deed < 0.55 and not any(follow._clash(name, each) for each in far):
        pair.push(new, name)
    elif deed < 0.7 and name in far and len(far) > 1:
        sh(pair.far, "update-ref", "-d", f"refs/heads/{name}")
    elif deed < 0.78:
        sh(pair.far, "symbolic-ref", "HEAD", f"refs/heads/{chance.choice(list(far))}")
    elif not any(follow._clash(name, each) for each in here):
        # People push forward only.
        top = here.get(name)
        mine = pair.commit(f"mine {step} {chance.random()}", on=top or at)
        pair.push_to_us(mine, name)
        known.append(mine)


@proves("git.follow-loses-nothing", "git.follows-origin", "git.follow-crash")
@pytest.mark.parametrize("seed", range(12))
def test_whatever_happens_on_both_sides_nothing_of_ours_is_lost(tmp_path, monkeypatch, seed):
    pair, chance = Pair(tmp_path), random.Random(seed)
    known, ever_theirs = [str(pair.head())], {str(pair.head())}
    run = pair.commit("a run's result")
    pair.push_to_us(run, "muster/r/p")
    swap = ref.swap
    for step in range(10):
        for _ in range(chance.randint(1, 3)):
            _anything(pair, chance, step, known)
        ours = _heads(pair.ours)
        mine = _reached(pair.ours, *ours.values())
        left = chance.randint(0, 3)

        async def cut(repo, moves):
            nonlocal left
            left -= 1
            if left < 0:
                raise Cut
            await swap(repo, moves)

        monkeypatch.setattr(follow.ref, "swap", cut)
        with contextlib.suppress(Cut, Conflict):
            pair.update()
        monkeypatch.setattr(follow.ref, "swap", swap)
        pair.update()
        unlike, far, now = pair.unlike, _heads(pair.far), _heads(pair.ours)
        before_theirs = set(ever_theirs)
        ever_theirs |= _reached(pair.far, *far.values()) if far else set()
        # Nothing that was only ours is lost.
        assert mine - before_theirs - ever_theirs <= _reached(pair.ours, *now.values()), seed
        default = wait(repository.default_branch(pair.ours))
        assert default in now
        assert now["muster/r/p"] == run
        for name in {*far, *now} - {"muster/r/p"}:
            # Alike, or told why not; what is here alone was never there.
            if now.get(name) != far.get(name) and name not in unlike:
                assert name in now
                assert name not in far
                assert name not in _heads(pair.ours, "refs/follow/heads/")
        again = pair.update()
        assert again.keys() <= unlike, (seed, again)
        assert _heads(pair.ours) == now
