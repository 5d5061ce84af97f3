"""Copies of a repository that another machine keeps, with real repositories."""

import os
from pathlib import Path

import pytest
from tests.git.repositories import checkout, commit, refs, sh, wait
from tests.promise import proves

from muster.errors import Conflict, MusterError, NotFound
from muster.git import mirror, ref, repository
from muster.git.fence import Epoch, attempt_ref, fence_ref

HUB, STUDIO = "a" * 64, "b" * 64


class Place:
    """A repository of one machine, and the folders of another."""

    def __init__(self, folder: Path) -> None:
        self.source = checkout(folder / "source")
        self.kept = wait(repository.add(folder / "there", "main", str(self.source))).path
        self.mirrors, self.repos = folder / "mirrors", folder / "repos"
        self.path = self.mirrors / HUB / "main.git"

    def pull(self, branch: str = "main") -> None:
        wait(mirror.pull(self.mirrors, HUB, "main", str(self.kept), branch))

    def give(self, task: str, epoch: Epoch, branch: str) -> str:
        """An attempt that was pushed and promoted."""
        wait(ref.register(self.kept, task, epoch))
        made = sh(self.kept, "rev-parse", "refs/heads/main")
        for name in (attempt_ref(task, epoch), f"refs/heads/{branch}"):
            sh(self.kept, "update-ref", name, made)
        return made


@pytest.fixture
def place(tmp_path: Path) -> Place:
    return Place(tmp_path)


def shown(path: Path) -> dict[str, str]:
    """What a repository shows to others."""
    return {name: id for name, id in refs(path).items() if not name.startswith("refs/follow/")}


@proves("adopt.mirrors")
def test_a_mirror_has_branches_attempts_and_fences_as_they_are_there(place):
    place.give("t1", Epoch(1, 1), "muster/r1/one")
    sh(place.kept, "update-ref", "refs/heads/muster-post/0123456789abcdef", "refs/heads/main")
    sh(place.kept, "branch", "gone", "main")
    sh(place.kept, "tag", "v1", "main")
    place.pull()
    wanted = shown(place.kept)
    # What machines leave for each other is none of it.
    del wanted["refs/heads/muster-post/0123456789abcdef"]
    assert shown(place.path) == wanted
    assert wait(ref.epoch(place.path, "t1")) == Epoch(1, 1)
    assert repository.guarded(place.path)
    sh(place.kept, "branch", "-D", "gone")
    sh(place.kept, "branch", "other", "main")
    wait(ref.register(place.kept, "t1", Epoch(1, 2)))
    place.pull("other")
    assert wait(ref.epoch(place.path, "t1")) == Epoch(1, 2)
    assert "refs/heads/gone" not in refs(place.path)
    assert sh(place.path, "symbolic-ref", "HEAD") == "refs/heads/other"


@proves("adopt.behind")
def test_a_mirror_is_as_old_as_its_last_pull_that_came_to_its_end(place):
    assert mirror.made_ms(place.mirrors, HUB, "main", place.repos) == 0
    place.pull()
    first = mirror.made_ms(place.mirrors, HUB, "main", place.repos)
    assert first > 0
    with pytest.raises(NotFound):
        wait(mirror.pull(place.mirrors, HUB, "main", str(place.kept) + "-not", "main"))
    assert mirror.made_ms(place.mirrors, HUB, "main", place.repos) == first
    place.pull()
    second = mirror.made_ms(place.mirrors, HUB, "main", place.repos)
    assert second > first
    wait(mirror.keep(place.mirrors, HUB, "main", place.repos))
    assert mirror.made_ms(place.mirrors, HUB, "main", place.repos) == second


@proves("adopt.mirrors")
@pytest.mark.parametrize("branch", ["../../x", "no-such", "", "main^{}", "-d"])
def test_a_default_branch_that_is_not_there_is_none(place, branch):
    place.pull()
    place.pull(branch)
    assert sh(place.path, "symbolic-ref", "HEAD") == "refs/heads/main"


@proves("adopt.mirrors")
def test_a_mirror_is_whole_under_its_name_or_not_there(place):
    with pytest.raises(NotFound):
        wait(mirror.pull(place.mirrors, HUB, "main", str(place.kept) + "-not", "main"))
    assert list(place.path.parent.iterdir()) == []
    assert mirror.listing(place.mirrors, place.repos) == ()
    place.pull()
    assert mirror.listing(place.mirrors, place.repos) == ((HUB, "main"),)


@proves("adopt.mirrors")
def test_a_damaged_mirror_is_made_anew(place):
    place.pull()
    for path in [*(place.path / "objects").rglob("*")]:
        if path.is_file():
            path.chmod(0o600)
            path.write_bytes(b"x")
    commit(place.source, "second")
    sh(place.kept, "fetch", "-q", str(place.source), "+main:main")
    for _ in range(2):
        try:
            place.pull()
        except Exception as error:  # noqa: BLE001 - which one is git's own word
            print(error)
    assert shown(place.path) == shown(place.kept)


@proves("adopt.repositories")
def test_a_mirror_becomes_a_repository_once_and_replaces_none(place):
    place.give("t1", Epoch(1, 1), "muster/r1/one")
    place.pull()
    for _ in range(2):
        wait(mirror.keep(place.mirrors, HUB, "main", place.repos))
        found = repository.find(place.repos, "main")
        assert shown(found) == shown(place.kept)
        assert mirror.of(found) == HUB
        assert mirror.listing(place.mirrors, place.repos) == ((HUB, "main"),)
    assert not place.path.exists()
    place.pull()
    with pytest.raises(Conflict, match="another repository main"):
        wait(mirror.keep(place.mirrors, STUDIO, "main", place.repos))
    with pytest.raises(NotFound):
        wait(mirror.keep(place.mirrors, HUB, "none", place.repos))
    assert mirror.of(place.kept) == ""


@proves("adopt.repositories")
def test_who_kept_a_repository_follows_and_loses_nothing(place):
    place.pull()
    wait(mirror.keep(place.mirrors, HUB, "main", place.repos))
    now = repository.find(place.repos, "main")
    # Both went on: a run's branch and a person's branch are different.
    place.give("t1", Epoch(1, 1), "muster/r1/one")
    mine = commit(place.source, "mine")
    sh(place.kept, "fetch", "-q", str(place.source), "+main:main")
    own = sh(place.kept, "commit-tree", "-m", "own", "refs/heads/main^{tree}")
    sh(place.kept, "update-ref", "refs/heads/z", own)
    theirs = sh(now, "commit-tree", "-m", "theirs", "refs/heads/main^{tree}")
    sh(now, "update-ref", "refs/heads/main", theirs)
    wait(ref.register(now, "t1", Epoch(9, 1)))
    for turn in range(2):
        said, whole = wait(mirror.follow(place.kept, STUDIO, str(now), "main"))
        assert not whole
        # What is not at the new keeper is named, once.
        gone = (f"heads/main ({mine[:12]})", "heads/muster/r1/one")
        assert [each.startswith(name) for each, name in zip(said, gone, strict=False)] == (
            [] if turn else [True, True]
        )
        assert sh(place.kept, "rev-parse", "refs/heads/main") == theirs
        assert wait(ref.read(place.kept, fence_ref("t1"))) == wait(ref.read(now, fence_ref("t1")))
        assert sh(place.kept, "rev-parse", f"refs/follow/before/{mine}/heads/main") == mine
        assert mirror.of(place.kept) == STUDIO
    # It is whole there once both were pushed, whatever they are called.
    pushed = ((place.source, "main"), (place.kept, "refs/heads/z"))
    for turn, (where, name) in enumerate(pushed):
        sh(now, "fetch", "-q", str(where), f"{name}:refs/heads/saved{turn}")
        followed = wait(mirror.follow(place.kept, STUDIO, str(now), "main"))
        assert followed == ((), turn == 1)
    # What the other one does not have at all stays where it is.
    assert "refs/heads/muster/r1/one" in refs(place.kept)
    assert not [name for name in refs(place.kept) if name.startswith("refs/follow/now")]


@proves("adopt.repositories")
def test_whoever_follows_again_loses_nothing_however_often_the_keeper_changes(place):
    """Also who was a mirror once, and what two keepers in turn had otherwise."""
    place.pull()
    wait(mirror.keep(place.mirrors, HUB, "main", place.repos))
    hub, studio = place.kept, repository.find(place.repos, "main")

    def on(path: Path, text: str, name: str = "refs/heads/main") -> str:
        made = sh(
            path, "commit-tree", "-m", text, "-p", "refs/heads/main", "refs/heads/main^{tree}"
        )
        sh(path, "update-ref", name, made)
        return made

    lost = []
    for turn in range(4):
        keeper, other = ((studio, STUDIO), (hub, HUB))[:: 1 if turn % 2 == 0 else -1]
        # Both went on, and the one that follows now has a folder where the keeper has a branch.
        lost.append((other[0], on(other[0], f"lost {turn}"), "heads/main"))
        lost.append((other[0], on(other[0], f"tag {turn}", "refs/tags/v"), "tags/v"))
        lost.append(
            (other[0], on(other[0], f"side {turn}", f"refs/heads/x{turn}/y"), f"heads/x{turn}/y")
        )
        on(keeper[0], f"x {turn}", f"refs/heads/x{turn}")
        on(keeper[0], f"tag there {turn}", "refs/tags/v")
        top = on(keeper[0], f"kept {turn}")
        wait(mirror.follow(other[0], keeper[1], str(keeper[0]), "main"))
        assert sh(other[0], "rev-parse", "refs/heads/main") == top
        assert f"refs/heads/x{turn}" in refs(other[0])
    for path, made, name in lost:
        assert sh(path, "rev-parse", f"refs/follow/before/{made}/{name}") == made
    # What went straight on is kept nowhere twice.
    count = len(refs(hub))
    on(studio, "on", "refs/heads/main")
    wait(mirror.follow(hub, STUDIO, str(studio), "main"))
    top = sh(hub, "rev-parse", "refs/heads/main")
    on(studio, "further", "refs/heads/main")
    count = len(refs(hub))
    wait(mirror.follow(hub, STUDIO, str(studio), "main"))
    assert len(refs(hub)) == count
    assert top not in str([name for name in refs(hub) if "before" in name])


@proves("adopt.repositories")
def test_what_a_cut_left_of_an_earlier_look_is_none_of_the_keepers(place):
    place.pull()
    wait(mirror.keep(place.mirrors, HUB, "main", place.repos))
    studio = repository.find(place.repos, "main")
    for name in ("heads/ghost", "heads/main/below"):
        sh(place.kept, "update-ref", f"refs/follow/now/{name}", "refs/heads/main")
    wait(mirror.follow(place.kept, STUDIO, str(studio), "main"))
    assert shown(place.kept) == shown(studio)


@proves("adopt.mirrors")
def test_a_fetch_that_never_answers_is_ended_with_its_time(place):
    """Its HEAD is a pipe that nobody writes to: whoever serves it opens that and waits."""
    place.pull()
    hung = place.kept.parent / "hung.git"
    for name in ("objects", "refs"):
        (hung / name).mkdir(parents=True)
    os.mkfifo(hung / "HEAD")
    with pytest.raises(MusterError, match="gave no result in 1 s"):
        wait(mirror.pull(place.mirrors, HUB, "main", str(hung), "main", 1_000))
    assert shown(place.path) == shown(place.kept)
