"""What old runs left is removed, and remembered."""

import pytest
from tests.git.repositories import checkout, refs, sh, wait
from tests.promise import proves

from muster.errors import Conflict
from muster.git import prune, ref, repository

OLD, YOUNG = "refs/heads/muster/old/copy", "refs/heads/muster/young/copy"


@pytest.fixture
def repo(tmp_path):
    made = wait(repository.add(tmp_path / "repos", "main", str(checkout(tmp_path / "source")))).path
    for name in (OLD, YOUNG, "refs/muster/attempt/t1/1-1", "refs/muster/attempt/t2/1-1",
                 "refs/muster/fence/t1"):  # fmt: skip
        sh(made, "update-ref", name, "HEAD")
    return made


def pruned(repo, *, used=(), dry_run=False):
    return wait(prune.prune(repo, {"old"}, {"t1"}, used, dry_run=dry_run))


@proves("git.prune")
def test_only_what_the_named_runs_left_goes_and_it_is_remembered(repo):
    before = set(refs(repo))
    assert pruned(repo, dry_run=True) == (("muster/old/copy",), 1)
    assert set(refs(repo)) == before
    assert not prune.was_pruned(repo, "muster/old/copy")
    assert pruned(repo) == (("muster/old/copy",), 1)
    gone = {OLD, "refs/muster/attempt/t1/1-1", "refs/muster/fence/t1"}
    assert set(refs(repo)) == before - gone
    assert prune.was_pruned(repo, "muster/old/copy")
    assert not prune.was_pruned(repo, "muster/young/copy")
    assert pruned(repo) == ((), 0)


@proves("git.prune")
def test_a_commit_that_a_live_task_starts_from_stays(repo):
    assert pruned(repo, used={wait(repository.head(repo))})[0] == ()
    assert OLD in refs(repo)


@proves("git.prune")
def test_what_moves_meanwhile_keeps_everything(repo, monkeypatch):
    swap, before = ref.swap, set(refs(repo))

    async def moves_first(path, moves):
        sh(path, "update-ref", OLD, sh(path, "commit-tree", "-m", "x", "HEAD^{tree}"))
        await swap(path, moves)

    monkeypatch.setattr(prune.ref, "swap", moves_first)
    with pytest.raises(Conflict):
        pruned(repo)
    assert set(refs(repo)) == before
    assert not prune.was_pruned(repo, "muster/old/copy"), "else it would be lost for good one day"
