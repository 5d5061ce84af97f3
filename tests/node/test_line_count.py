"""The lines of a change, counted in real repositories."""

import pytest
from tests.git.repositories import sh, wait
from tests.promise import proves

from muster.errors import Unreachable
from muster.node.attempts.line_count import counted
from muster.node.tasks.waivers import CountLines


@pytest.fixture
def repo(tmp_path):
    sh(tmp_path, "init", "-q")
    (tmp_path / "a").write_text("one\ntwo\nthree\n")
    (tmp_path / "same").write_text("x\n")
    commit(tmp_path)
    return tmp_path


def commit(repo) -> str:
    sh(repo, "add", "-A")
    sh(repo, "commit", "-qm", "x")
    return sh(repo, "rev-parse", "HEAD").strip()


def lines(repo, bases, *ends, most=10_000):
    async def start_of(_name, end):
        return repo, end

    found = wait(counted(start_of, CountLines("r", "p", "main", bases, " ".join(ends), most)))
    assert (found.run, found.phase) == ("r", "p")
    assert (found.lines is None) == bool(found.reason)
    return found.lines if found.lines is not None else found.reason


@proves("task.waiver-lines")
def test_the_lines_of_a_change_are_counted_whatever_is_in_its_files(repo):
    base = sh(repo, "rev-parse", "HEAD").strip()
    # What looks like a part of a patch is a line.
    (repo / "a").write_text("one\n2\nthree\n--- b\n+++ c\n@@ -1 +1 @@\ndiff --git a b\n")
    first = commit(repo)
    assert lines(repo, base, first) == 2 + 4
    # What git would call binary has lines all the same.
    (repo / ".gitattributes").write_text("* -diff\n")
    (repo / "zero").write_bytes(b"\0\0\n\0")
    assert lines(repo, base, commit(repo)) == 6 + 1 + 2
    # A long line is as much to read as several.
    (repo / "long").write_text("x" * 1000 + "\n")
    assert lines(repo, base, commit(repo)) == 9 + 6
    # A change of nothing but the mode, or an empty file, is one to look at.
    (repo / "same").chmod(0o755)
    (repo / "empty").write_text("")
    last = commit(repo)
    assert lines(repo, base, last) == 15 + 2
    assert lines(repo, base, first, last) == 6 + 17
    assert lines(repo, base, base) == 0
    # What others did on the branch meanwhile is no part of it.
    sh(repo, "checkout", "-q", "-b", "other", base)
    (repo / "theirs").write_text("1\n2\n3\n")
    assert lines(repo, commit(repo), first) == 6


@proves("task.waiver-lines")
def test_what_cannot_be_counted_is_told_as_that_and_not_as_little(repo, monkeypatch):
    base = sh(repo, "rev-parse", "HEAD").strip()
    sh(repo, "update-index", "--add", "--cacheinfo", f"160000,{base},sub")
    sh(repo, "commit", "-qm", "a repository inside")
    inside = sh(repo, "rev-parse", "HEAD").strip()
    assert "a repository of its own" in lines(repo, base, inside)
    assert "made no commit" in lines(repo, base)
    assert not str(lines(repo, base, "0" * 40)).isdigit()
    monkeypatch.setattr("muster.limits.GIT_OUTPUT_BYTES_MAX", 1_000)
    (repo / "large").write_text("x\n" * 2_000)
    large = commit(repo)
    assert not str(lines(repo, base, large)).isdigit()

    async def away(_name, _end):
        raise Unreachable("the hub is away")

    found = wait(counted(away, CountLines("r", "p", "main", base, large, 50)))
    assert (found.lines, found.reason) == (None, "the hub is away")


@proves("task.waiver-lines", "task.waiver-where-it-began")
def test_a_change_is_counted_from_where_it_began_wherever_its_branch_is_by_now(repo):
    base = sh(repo, "rev-parse", "HEAD").strip()
    (repo / "new").write_text("x\n" * 5_000)
    change = commit(repo)
    # The default branch has taken the change over: against that it would be nothing.
    assert lines(repo, base, change) == 5_000
    assert "not known at which commit" in lines(repo, "", change)
    # Of several beginnings the one counts from which it is the most.
    assert lines(repo, f"{change} {base}", change) == 5_000
    assert lines(repo, base, change, most=50) == 51


@proves("task.waiver-lines")
def test_of_several_commits_no_more_are_read_than_the_bound_wants(repo):
    base = sh(repo, "rev-parse", "HEAD").strip()
    (repo / "new").write_text("x\n" * 60)
    assert lines(repo, base, commit(repo), "0" * 40, most=50) == 51
