"""Protected paths of a work folder: there while it is enclosed, as before afterwards."""

import os

import pytest
from tests.agent import enclosed
from tests.promise import proves

from muster.agent.sandbox import protected
from muster.errors import Broken


@pytest.fixture
def work(tmp_path):
    folder = tmp_path / "work"
    (folder / ".git" / "hooks").mkdir(parents=True)
    (folder / ".git" / "config").write_text("[core]\n")
    (folder / ".git" / "hooks" / "README").write_text("none yet")
    (folder / "notes.txt").write_text("mine")
    return folder


def everything(folder):
    return sorted(str(each.relative_to(folder)) for each in folder.rglob("*"))


@proves("enclosure.protected-paths")
def test_what_is_not_there_is_occupied_and_gone_afterwards(work):
    (work / ".git" / "hooks" / "pre-commit").write_text("exit 0")
    before = everything(work)
    pinned, paths = protected.occupy(str(work), frozenset())
    assert pinned == [".git", ".claude"]
    assert paths == list(protected.PROTECTED)
    assert all((work / path).exists() for path in paths)
    protected.release(str(work))
    assert everything(work) == before
    protected.release(str(work))
    assert everything(work) == before


@proves("enclosure.protected-paths")
def test_what_is_there_stays_as_it_is(work):
    (work / ".claude").mkdir()
    (work / ".claude" / "settings.json").write_text("{}")
    (work / ".mcp.json").write_text("")
    (work / ".vscode").mkdir()
    (work / ".vscode" / "tasks.json").write_text("{}")
    protected.occupy(str(work), frozenset())
    protected.release(str(work))
    assert (work / ".claude" / "settings.json").read_text() == "{}"
    assert (work / ".mcp.json").is_file()
    assert (work / ".vscode" / "tasks.json").is_file()


@proves("enclosure.protected-paths")
def test_what_is_occupied_is_never_committed(work):
    import subprocess

    def git(*words):
        return subprocess.run(
            ["git", "-c", "user.name=a", "-c", "user.email=a@b", *words],
            cwd=work, check=True, capture_output=True, text=True,
        ).stdout  # fmt: skip

    (work / ".git" / "config").unlink()
    git("init", "-q")
    protected.occupy(str(work), frozenset())
    git("add", "-A")
    git("commit", "-qm", "x")
    assert git("ls-tree", "-r", "--name-only", "HEAD").split() == ["notes.txt"]


@proves("enclosure.protected-paths")
def test_a_path_that_is_freed_is_neither_occupied_nor_protected(work):
    free = {".mcp.json", ".claude/settings.json", ".claude/settings.local.json"}
    pinned, paths = protected.occupy(str(work), free)
    assert pinned == [".git"]
    assert set(paths) == set(protected.PROTECTED) - free
    assert not (work / ".claude").exists()


@proves("enclosure.protected-paths")
def test_a_folder_without_a_repository_gets_none(tmp_path):
    _, paths = protected.occupy(str(tmp_path), frozenset())
    assert not (tmp_path / ".git").exists()
    assert not [path for path in paths if path.startswith(".git/")]


@proves("enclosure.protected-paths")
def test_what_names_a_repository_elsewhere_is_protected_itself(tmp_path):
    (tmp_path / ".git").write_text("gitdir: /elsewhere")
    _, paths = protected.occupy(str(tmp_path), frozenset())
    assert ".git" in paths


@proves("enclosure.protected-paths")
def test_what_would_lead_git_elsewhere_is_taken_away(work):
    (work / ".git" / "commondir").write_text("../evil")
    protected.release(str(work))
    assert not (work / ".git" / "commondir").exists()


@proves("enclosure.fails-closed")
@pytest.mark.parametrize(
    "path",
    [".git", ".git/hooks", ".git/config", ".git/config.worktree", ".claude", ".mcp.json"],
)
def test_a_link_in_a_protected_place_is_refused_and_changes_nothing(work, tmp_path, path):
    target = tmp_path / "elsewhere"
    target.mkdir()
    link = work / path
    if link.exists():
        link.rename(tmp_path / "moved")
    link.symlink_to(target)
    before = everything(work)
    with pytest.raises(Broken, match="is a link"):
        protected.occupy(str(work), frozenset())
    assert everything(work) == before
    assert list(target.iterdir()) == []


@proves("enclosure.protected-paths")
def test_nothing_behind_a_link_is_removed_afterwards(work, tmp_path):
    """The agent may have put one there: its program has ended, and root walks here."""
    outside = tmp_path / "outside"
    (outside / "settings.json").mkdir(parents=True)
    (outside / "hooks").mkdir()
    (outside / "commondir").write_text("kept")
    os.symlink(outside, work / ".claude")
    (work / ".git").rename(tmp_path / "moved")
    os.symlink(outside, work / ".git")
    protected.release(str(work))
    assert everything(outside) == ["commondir", "hooks", "settings.json"]


@proves("enclosure.protected-paths")
def test_what_git_was_told_for_this_folder_alone_stays_as_it_is(work):
    told = work / ".git" / "config.worktree"
    told.write_text("[core]\n\tsparseCheckout = true\n")
    protected.occupy(str(work), frozenset())
    protected.release(str(work))
    assert "sparse" in told.read_text()


@proves("enclosure.protected-paths")
@pytest.mark.parametrize("kind", enclosed.KINDS)
@pytest.mark.parametrize("extension", [False, True])
def test_git_works_inside_and_its_configuration_of_this_folder_is_not_written(kind, extension):
    enclosed.require(kind)
    place = enclosed.Place(kind)
    if extension:
        text = "[core]\n\trepositoryformatversion = 1\n[extensions]\n\tworktreeConfig = true\n"
        (place.work / ".git" / "config").write_text(text)
    place.own()
    try:
        before = place.everything()
        told = ".git/config.worktree"
        tries = [
            f"echo x >{told}",
            f"rm -f {told}",
            f"mv x {told}",
            f"mv {told} y",
            f"ln -sf x {told}",
        ]
        script = "\n".join(
            ["touch x", *(f"({each}) 2>/dev/null && echo '{each}'" for each in tries)]
        )
        git = "git -c user.name=a -c user.email=a@b"
        # What is moved from one mount to another is copied first.
        script += f"\nrm -f y; {git} add x && {git} commit -qm x && {git} status --short && git log --format=%s"
        said = place.run(["/bin/sh", "-c", script])
        assert (said["out"], said["code"]) == ("x\n", 0), said
        assert f"work/{told}" not in place.everything()
        assert set(before) <= set(place.everything())
    finally:
        place.close()


@proves("enclosure.protected-results")
@pytest.mark.parametrize(
    ("path", "frees"),
    [
        (".mcp.json", ".mcp.json"),
        (".claude/settings.json", ".claude/settings.json"),
        (".claude/settings.local.json", ".claude/settings.local.json"),
        (".vscode/tasks.json", ".vscode"),
        # A link to a folder that has one, or a file in its place.
        (".claude", ".claude"),
        # As disks of macOS and Windows take them.
        (".MCP.json", ".mcp.json"),
        (".Claude/Settings.JSON", ".claude/settings.json"),
        (".vscode./tasks.json", ".vscode"),
        (".mcp.json::$DATA", ".mcp.json"),
        (".mcp\u200d.json", ".mcp.json"),
    ],
)
def test_a_result_is_asked_for_protected_paths_in_every_spelling(path, frees):
    assert protected.held(["a.txt", path], ()) == (path, frees)


@proves("enclosure.protected-results")
@pytest.mark.parametrize(
    "path", ["mcp.json", "docs/.mcp.json", ".claude/agents/a.md", ".vscodes", ".claude/settings.jsonl", ":"]
)  # fmt: skip
def test_what_is_only_like_one_is_no_protected_path(path):
    assert protected.held([path], ()) == ("", "")


@proves("enclosure.protected-results")
def test_what_is_free_is_not_held():
    assert protected.held([".vscode/a", ".mcp.json"], (".vscode",)) == (".mcp.json", ".mcp.json")
    assert protected.held([".vscode/a"], (".vscode",)) == ("", "")
