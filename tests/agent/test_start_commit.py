"""Where a run starts: the commit that a branch, an id or nothing names."""

import pytest
from tests.git.repositories import checkout, commit, plain, sh, wait
from tests.promise import proves

from muster.agent import start_commit
from muster.errors import Damaged, NotFound
from muster.git import cache


@pytest.fixture
def remote(tmp_path):
    """A source with two branches and its bare copy, as a hub keeps it."""
    source = checkout(tmp_path / "source")
    first = commit(source, "first", a="1")
    sh(source, "checkout", "-q", "-b", "release/2")
    second = commit(source, "second", b="2")
    sh(source, "checkout", "-q", "-")
    url = plain(tmp_path / "remote.git", source)
    sh(tmp_path / "remote.git", "update-ref", "refs/heads/muster/r/a", first)
    sh(tmp_path / "remote.git", "tag", "v1", first)
    sh(tmp_path / "remote.git", "tag", "-a", "-m", "x", "v2", second)
    sh(tmp_path / "remote.git", "tag", "tree", f"{first}^{{tree}}")
    scratch = tmp_path / "scratch.git"
    wait(cache.refresh(scratch, url))
    return scratch, url, first, second


@proves("node.base")
def test_a_branch_a_commit_and_nothing_name_a_commit_also_from_a_cache(remote):
    scratch, url, first, second = remote
    assert wait(start_commit.commit(scratch, url, "main", "")) == first
    assert wait(start_commit.commit(scratch, url, "main", "release/2")) == second
    assert wait(start_commit.commit(scratch, url, "main", second)) == second
    assert wait(start_commit.commit(scratch, url, "main", "v1")) == first
    assert wait(start_commit.commit(scratch, url, "main", "v2")) == second
    assert wait(start_commit.parent(scratch, second)) == first
    root = wait(start_commit.parent(scratch, first))
    assert wait(start_commit.parent(scratch, root)) == ""
    with pytest.raises(NotFound, match="is of no commit"):
        wait(start_commit.commit(scratch, url, "main", "tree"))


@proves("node.base")
def test_a_commit_that_cannot_be_read_is_not_taken_for_the_first_one(remote):
    scratch, _, _, second = remote
    for pack in (scratch / "objects" / "pack").glob("*"):
        pack.unlink()
    loose = scratch / "objects" / second[:2] / second[2:]
    loose.parent.mkdir(exist_ok=True)
    loose.unlink(missing_ok=True)
    loose.write_bytes(b"no object")
    with pytest.raises(Damaged):
        wait(start_commit.parent(scratch, second))


@proves("node.base")
def test_a_name_that_is_not_there_is_refused_with_the_nearest_one_or_with_those_there_are(remote):
    scratch, url, _, _ = remote
    with pytest.raises(NotFound, match='no branch "relase/2"; did you mean "release/2"'):
        wait(start_commit.commit(scratch, url, "main", "relase/2"))
    with pytest.raises(NotFound, match=r"it has .*release/2") as caught:
        wait(start_commit.commit(scratch, url, "main", "xyz"))
    assert "muster/" not in str(caught.value)
    with pytest.raises(NotFound, match="no commit ffffffffffff"):
        wait(start_commit.commit(scratch, url, "main", "f" * 40))


@proves("node.base")
@pytest.mark.parametrize("base", ["-x", "--upload-pack=touch", "..", "HEAD", "refs/heads/main", ""])
def test_no_name_is_an_option_or_leaves_the_branches(tmp_path, base):
    empty = tmp_path / "empty.git"
    sh(tmp_path, "init", "-q", "--bare", str(empty))
    with pytest.raises(NotFound):
        wait(start_commit.commit(empty, str(empty), "main", base))
