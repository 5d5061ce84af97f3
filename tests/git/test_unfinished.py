"""What an agent began with git and did not finish fails by name, or is told; nothing is lost without a word."""

import os
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest
from tests.git.repositories import commit, sh
from tests.git.test_collection import publish
from tests.git.test_worktree import Place
from tests.promise import proves

from muster.errors import Refused
from muster.git.collection import Collected


@pytest.fixture
def place(tmp_path: Path) -> Place:
    return Place(tmp_path)


def fails(cwd: Path, *args: str) -> None:
    """A git command of the agent that stops in the middle."""
    person = {"GIT_AUTHOR_NAME": "a", "GIT_AUTHOR_EMAIL": "a@x", "GIT_COMMITTER_NAME": "a"}
    env = os.environ | person | {"GIT_COMMITTER_EMAIL": "a@x", "GIT_CONFIG_GLOBAL": os.devnull}
    assert subprocess.run(
        ["git", *args], cwd=cwd, env=env, capture_output=True, check=False
    ).returncode


def quarrel(at: Path) -> str:
    """Two commits that do not agree; the other one's id, this one is checked out."""
    start = sh(at, "rev-parse", "HEAD")
    theirs = commit(at, "theirs", readme__md="theirs\n")
    sh(at, "checkout", "-q", "--detach", start)
    commit(at, "ours", readme__md="ours\n")
    return theirs


# --- half done -------------------------------------------------------------------------------


@proves("git.half-done")
@pytest.mark.parametrize(
    ("args", "named"),
    [
        (("merge",), r"a merge unfinished: conflicts are marked in readme\.md"),
        (("cherry-pick",), r"a cherry-pick unfinished: conflicts are marked in readme\.md"),
        (("rebase",), r"a rebase unfinished"),
        (("rebase", "--apply"), r"a rebase unfinished"),
    ],
    ids=lambda each: " ".join(each) if isinstance(each, tuple) else "",
)
def test_a_conflict_that_nobody_resolved_fails_the_attempt_by_name(
    place: Place, args: tuple[str, ...], named: str
) -> None:
    tree = place.open()
    fails(tree.path, *args, quarrel(tree.path))
    with pytest.raises(Refused, match=named):
        place.collect(tree)


@proves("git.half-done")
def test_a_series_that_stopped_is_named(place: Place) -> None:
    tree = place.open()
    first = quarrel(tree.path)
    here = sh(tree.path, "rev-parse", "HEAD")
    sh(tree.path, "checkout", "-q", "--detach", first)
    second = commit(tree.path, "more", more__txt="x\n")
    sh(tree.path, "checkout", "-q", "--detach", here)
    fails(tree.path, "cherry-pick", first, second)
    (tree.path / "readme.md").write_text("resolved\n")
    with pytest.raises(Refused, match="a series of picked or reverted commits unfinished"):
        place.collect(tree)


def stopped_picks(at: Path) -> str:
    start = sh(at, "rev-parse", "HEAD")
    picked = [commit(at, f"pick {n}", readme__md=f"{n}\n") for n in range(3)]
    sh(at, "checkout", "-q", "--detach", start)
    commit(at, "ours", readme__md="ours\n")
    fails(at, "cherry-pick", *picked)
    return "a series of picked or reverted commits"


def stopped_am(at: Path) -> str:
    start = sh(at, "rev-parse", "HEAD")
    commit(at, "theirs", readme__md="theirs\n")
    patch = sh(at, "format-patch", "-1", "--stdout")
    sh(at, "checkout", "-q", "--detach", start)
    commit(at, "ours", readme__md="ours\n")
    (at / ".git" / "patch").write_text(f"{patch}\n")
    fails(at, "am", "-3", ".git/patch")
    return "a `git am`"


@proves("git.half-done")
@pytest.mark.parametrize("stop", [stopped_picks, stopped_am])
def test_a_series_that_the_agent_finished_by_hand_is_taken_and_told(
    place: Place, stop: Callable[[Path], str]
) -> None:
    tree = place.open()
    named = stop(tree.path)
    with pytest.raises(Refused, match=f"{named} unfinished"):
        place.collect(tree)
    sh(tree.path, "reset", "-q", "--hard")
    commit(tree.path, "by hand", readme__md="by hand\n")
    found = place.collect(tree)
    assert found.beside == (f"{named} that was not finished",)
    assert found.changed == ("readme.md",)
    commit(tree.path, "marks", readme__md="<<<<<<< a\n=======\n>>>>>>> b\n")
    with pytest.raises(Refused, match=rf"{named} unfinished: conflicts are marked in readme\.md"):
        place.collect(tree)


@proves("git.half-done")
def test_a_merge_that_was_resolved_and_not_committed_is_taken_and_told(place: Place) -> None:
    tree = place.open()
    theirs = quarrel(tree.path)
    fails(tree.path, "merge", theirs)
    (tree.path / "readme.md").write_text("both\n")
    sh(tree.path, "branch", "theirs", theirs)
    found = place.collect(tree)
    assert found.beside == ("a merge that was not committed as one", "the branch theirs")
    assert place.show(f"{found.commit}:readme.md") == "both"


@proves("git.half-done")
def test_marks_that_were_there_before_are_no_conflict_of_the_agent(place: Place) -> None:
    (place.source / "how.md").write_text("<<<<<<< a\n=======\n>>>>>>> b\n")
    publish(place)
    tree = place.open()
    fails(tree.path, "merge", quarrel(tree.path))
    (tree.path / "readme.md").write_text("both\n")
    assert "readme.md" in place.collect(tree).changed


@proves("git.half-done")
def test_a_stash_that_did_not_go_back_fails_and_marks_that_were_committed_are_told(
    place: Place,
) -> None:
    tree = place.open()
    at = tree.path
    (at / "readme.md").write_text("stashed\n")
    sh(at, "stash", "-q")
    commit(at, "ours", readme__md="ours\n")
    fails(at, "stash", "pop")
    with pytest.raises(Refused, match=r"a stash unfinished: conflicts are marked in readme\.md"):
        place.collect(tree)
    tree = place.open(task="t2")
    fails(tree.path, "merge", quarrel(tree.path))
    sh(tree.path, "add", "-A")
    sh(tree.path, "commit", "-q", "-m", "merged")
    assert place.collect(tree).beside == ("what conflict marks in readme.md stand for",)


@proves("git.half-done")
def test_a_conflict_is_found_behind_any_number_of_changed_files(place: Place) -> None:
    tree = place.open()
    at = tree.path
    theirs = quarrel(at)
    fails(at, "merge", theirs)
    (at / "sub").mkdir()
    for number in range(310):
        (at / "sub" / f"{number}").write_text("x\n")
        (at / f"a{number}").write_text("x\n")
    with pytest.raises(Refused, match=r"a merge unfinished: conflicts are marked in readme\.md"):
        place.collect(tree)


@proves("git.half-done")
@pytest.mark.parametrize("begun", [["stash"], ["revert", "-n", "HEAD"]], ids=" ".join)
def test_a_file_about_conflict_marks_may_change_while_something_is_open(
    place: Place, begun: list[str]
) -> None:
    marks = "<<<<<<< a\n=======\n>>>>>>> b\n"
    (place.source / "how.md").write_text(marks)
    publish(place, "one")
    (place.source / "how.md").write_text(marks + "typo\n")
    publish(place, "two")
    tree = place.open()
    (tree.path / "how.md").write_text("idea\n")
    if begun[0] == "revert":
        sh(tree.path, "checkout", "-q", "--", "how.md")
    sh(tree.path, *begun)
    (tree.path / "how.md").write_text("# How\n" + marks)
    assert place.collect(tree).changed == ("how.md",)
    (tree.path / "new.md").write_text(marks)
    with pytest.raises(Refused, match=r"unfinished: conflicts are marked in new\.md\."):
        place.collect(tree)


# --- beside the result -----------------------------------------------------------------------


@proves("git.beside-is-told")
def test_a_branch_a_stash_and_a_tag_beside_the_result_are_told(place: Place) -> None:
    (place.source / "more.txt").write_text("x\n")
    sh(place.source, "tag", "v1")
    publish(place)
    tree = place.open()
    at = tree.path
    start = sh(at, "rev-parse", "HEAD")
    sh(at, "checkout", "-q", "-b", "fix/this")
    commit(at, "lost", lost__txt="x\n")
    sh(at, "branch", "packed")
    sh(at, "pack-refs", "--all")
    sh(at, "checkout", "-q", "--detach", start)
    (at / "readme.md").write_text("later\n")
    sh(at, "stash", "-q")
    sh(at, "tag", "v2")
    sh(at, "branch", "nothing-more")
    found = place.collect(tree)
    assert found.beside == ("a stash", "the branch fix/this", "the branch packed", "the tag v2")
    assert found.changed == ()


@proves("git.beside-is-told")
def test_a_branch_that_the_result_or_the_remote_has_is_nothing_to_tell(place: Place) -> None:
    sh(place.source, "checkout", "-q", "-b", "other")
    commit(place.source, "other", other__txt="x\n")
    sh(place.source, "push", "-q", place.url, "other")
    tree = place.open()
    sh(tree.path, "branch", "looked-at", "origin/other")
    sh(tree.path, "checkout", "-q", "-b", "work")
    commit(tree.path, "mine", mine__txt="x\n")
    found = place.collect(tree)
    assert found.beside == ()
    assert found.changed == ("mine.txt",)


@proves("git.beside-is-told")
def test_refs_that_name_nothing_or_lead_elsewhere_break_nothing(
    place: Place, tmp_path: Path
) -> None:
    tree = place.open()
    heads = tree.gitdir / "refs" / "heads"
    (heads / "deep" / "er").mkdir(parents=True)
    (heads / "deep" / "er" / "x").write_text("no id\n")
    (heads / "blob").write_text(sh(tree.path, "rev-parse", "HEAD:readme.md") + "\n")
    (heads / "gone").write_text("1" * 40 + "\n")
    (heads / "link").symlink_to("/etc/hostname")
    os.mkfifo(heads / "pipe")
    (tree.gitdir / "refs" / "tags").mkdir(exist_ok=True)
    (tree.gitdir / "refs" / "tags" / "x\nbad\x1b[31m").write_text("")
    os.mkfifo(tree.gitdir / "MERGE_HEAD")
    found = place.collect(tree)
    assert all("\n" not in each and "\x1b" not in each for each in found.beside)


@proves("git.collect")
def test_what_the_agents_own_commits_say_is_given_and_nobody_elses(place: Place) -> None:
    tree = place.open()
    assert place.collect(tree).messages == ""
    tree = place.open(task="t2")
    commit(tree.path, "use tok_123", mine__txt="x\n")
    commit(tree.path, "and more", mine__txt="y\n")
    said = place.collect(tree).messages
    assert "use tok_123" in said
    assert "and more" in said
    assert "alice" in said
    assert "first" not in said


# --- sparse ----------------------------------------------------------------------------------


def wide(place: Place) -> list[str]:
    """Files in folders, and their paths."""
    made = ["readme.md"]
    for folder in ("docs", "o*d \\[x]", "src", "src/deep", "src/deep/er", "src/other"):
        (place.source / folder).mkdir()
        for name in ("a.txt", "b.txt"):
            (place.source / folder / name).write_text(f"{folder}\n")
            made.append(f"{folder}/{name}")
    publish(place)
    return made


def narrow(place: Place, args: list[str], removed: tuple[str, ...]) -> Collected:
    """What comes of a sparse checkout in which the agent removed files and made one."""
    tree = place.open()
    sh(tree.path, "sparse-checkout", "set", *args)
    assert not (tree.path / "src" / "other").exists()
    for name in removed:
        (tree.path / name).unlink()
    (tree.path / "docs" / "new.txt").write_text("x\n")
    return place.collect(tree, "docs/new.txt")


def paths(place: Place, id: str) -> set[str]:
    store = place.root / "repos-cache" / "main.git"
    return set(sh(store, "ls-tree", "-r", "-z", "--name-only", id).strip("\0").split("\0"))


@proves("git.sparse-removes-nothing")
@pytest.mark.parametrize(
    ("args", "removed"),
    [
        (["docs"], ("docs/a.txt",)),
        (["--skip-checks", "docs", "o*d \\[x]"], ("docs/a.txt", "o*d \\[x]/a.txt", "readme.md")),
        (["docs", "src/deep"], ("docs/a.txt", "src/a.txt", "src/deep/er/a.txt")),
        (["docs", "src/deep/er"], ("src/a.txt", "src/deep/a.txt", "src/deep/er/a.txt")),
    ],
    ids=["folder", "odd", "nested", "deep"],
)
def test_what_a_sparse_checkout_hides_stays_and_what_was_removed_is_removed(
    place: Place, args: list[str], removed: tuple[str, ...]
) -> None:
    there = wide(place)
    found = narrow(place, args, removed)
    assert paths(place, found.commit) == {*there, "docs/new.txt"}.difference(removed)
    assert found.beside == ()


@proves("git.sparse-removes-nothing")
@pytest.mark.parametrize(
    "args",
    [["/docs/"], ["docs", "src", "!src/deep/er", "!src/other"], ["/*", "!/*/", "/docs/"]],
    ids=["folder", "without", "as-if-cone"],
)
def test_where_sparse_patterns_name_no_whole_folders_nothing_is_removed_and_that_is_told(
    place: Place, args: list[str]
) -> None:
    there = wide(place)
    found = narrow(place, ["--no-cone", *args], ("docs/a.txt",))
    assert paths(place, found.commit) == {*there, "docs/new.txt"}
    assert found.changed == ("docs/new.txt",)
    assert len(found.beside) == 1
    assert "the removal, if one was meant, of what its sparse checkout lacks" in found.beside[0]
    assert "docs/a.txt" in found.beside[0]


@proves("git.sparse-removes-nothing")
@pytest.mark.parametrize("lines", ["/docs/\n!/docs/b*\n", "!/docs/*/\n"], ids=["file", "alone"])
def test_cone_patterns_that_somebody_edited_into_others_remove_nothing(
    place: Place, lines: str
) -> None:
    wide(place)
    tree = place.open()
    sh(tree.path, "sparse-checkout", "set", "docs")
    (tree.gitdir / "info" / "sparse-checkout").write_text("/*\n!/*/\n" + lines)
    sh(tree.path, "sparse-checkout", "reapply")
    assert not (tree.path / "docs" / "b.txt").exists()
    found = place.collect(tree)
    assert found.changed == ()
    assert "docs/b.txt" in found.beside[0]


@proves("git.sparse-removes-nothing")
def test_what_was_removed_after_the_sparse_checkout_ended_is_removed(place: Place) -> None:
    wide(place)
    tree = place.open()
    sh(tree.path, "sparse-checkout", "set", "docs")
    sh(tree.path, "sparse-checkout", "disable")
    (tree.path / "src" / "a.txt").unlink()
    assert place.collect(tree).changed == ("src/a.txt",)


@proves("git.sparse-removes-nothing", "git.filters-never-bypassed")
def test_attributes_that_a_sparse_checkout_hides_count_all_the_same(place: Place) -> None:
    (place.source / "src").mkdir()
    (place.source / "src" / ".gitattributes").write_text("*.bin filter=lfs\n")
    (place.source / "docs").mkdir()
    (place.source / "docs" / "a.txt").write_text("x\n")
    publish(place)
    tree = place.open()
    sh(tree.path, "sparse-checkout", "set", "docs")
    (tree.path / "src").mkdir()
    (tree.path / "src" / "new.bin").write_text("large\n")
    with pytest.raises(Refused, match=r"src/new\.bin.*filter"):
        place.collect(tree)
