"""Which folder can be one, where agent programs keep theirs, and what the home remembers of it."""

import asyncio
import hashlib
import json
import os
import subprocess
from pathlib import Path
from types import SimpleNamespace

import pytest
from tests.node.shared_folders import PLACE
from tests.promise import proves

from muster.context.kinds import check_put
from muster.errors import Broken, Conflict, Malformed, NotFound, Refused
from muster.git.text_merge import merge_texts
from muster.limits import CONTEXT_OVER_MAX
from muster.log.entry import EntryId
from muster.node.folders.choice import check_folder_fit
from muster.node.folders.disk import Disk
from muster.node.folders.holders import Holders
from muster.node.folders.mapping import FOLDERS_MAX, FolderMap, Mapped
from muster.node.folders.preset import chosen
from muster.node.host.home import Home
from muster.verbs.context import _other


def fit(path: Path, home: Path, others: dict[str, Mapped] | None = None) -> Path:
    return asyncio.run(check_folder_fit(path, Home(home), others or {}, "notes"))


@pytest.fixture
def top(tmp_path):
    (tmp_path / "person" / "notes").mkdir(parents=True)
    (tmp_path / "home").mkdir()
    return tmp_path / "person" / "notes"


@proves("context.one-master")
def test_a_folder_of_one_s_own_is_taken_by_the_path_without_links(top, tmp_path):
    link = tmp_path / "link"
    link.symlink_to(top)
    assert fit(link, tmp_path / "home") == top


@proves("context.one-master")
@pytest.mark.parametrize("marker", [".stfolder", ".dropbox", ".sync", ".nextcloudsync.log"])
def test_a_folder_that_another_program_syncs_is_refused(top, tmp_path, marker):
    (top.parent / marker).mkdir()
    with pytest.raises(Conflict, match="syncs"):
        fit(top, tmp_path / "home")


@proves("context.one-master")
def test_a_folder_in_a_cloud_s_folder_is_refused(tmp_path):
    top = tmp_path / "OneDrive - Work" / "notes"
    top.mkdir(parents=True)
    with pytest.raises(Conflict, match="cloud"):
        fit(top, tmp_path / "home")


@proves("context.one-master")
def test_what_git_tracks_is_refused_and_what_it_does_not_is_taken(top, tmp_path):
    git = ["git", "-c", "user.name=a", "-c", "user.email=a@b", "-C", str(top.parent)]
    subprocess.run([*git, "init", "-q"], check=True)
    (top / "n.md").write_text("x")
    assert fit(top, tmp_path / "home") == top
    subprocess.run([*git, "add", "notes/n.md"], check=True)
    with pytest.raises(Refused, match=r"git tracks files .*notes/n\.md"):
        fit(top, tmp_path / "home")


def test_what_is_no_folder_too_much_or_the_home_is_refused(top, tmp_path, monkeypatch):
    monkeypatch.setenv("HOME", str(top.parent))
    for path in (Path("/"), top.parent, tmp_path / "home", tmp_path):
        with pytest.raises(Conflict):
            fit(path, tmp_path / "home")
    for path in (top / "none", top / "file"):
        (top / "file").write_text("x")
        with pytest.raises(NotFound):
            fit(path, tmp_path / "home")


def test_two_folders_never_have_one_file(top, tmp_path):
    others = {"other": Mapped("other", str(top), 1)}
    (top / "sub").mkdir()
    (tmp_path / "person" / "else").mkdir()
    for path in (top, top / "sub", top.parent):
        with pytest.raises(Conflict, match="in two of them"):
            fit(path, tmp_path / "home", others)
    assert fit(top, tmp_path / "home", {"notes": Mapped("notes", str(top), 1)}) == top
    assert fit(tmp_path / "person" / "else", tmp_path / "home", others)


def transcript(projects: Path, name: str, cwd: Path) -> Path:
    folder = projects / name
    folder.mkdir(parents=True)
    lines = [{"type": "summary"}, {"type": "user", "cwd": str(cwd)}]
    text = "no json\n" + "".join(json.dumps(line) + "\n" for line in lines)
    (folder / "s.jsonl").write_text(text)
    return folder


def test_the_memory_of_claude_code_is_found_by_where_its_sessions_say_that_they_ran(tmp_path):
    projects = tmp_path / ".claude" / "projects"
    checkout = tmp_path / "src" / "Main App"
    (checkout / ".git").mkdir(parents=True)
    (checkout / "sub").mkdir()
    (tmp_path / "link").symlink_to(checkout)
    transcript(projects, "any-name", checkout / "sub")
    folder = transcript(projects, "another", checkout)
    found = chosen("claude-memory", str(tmp_path / "link"), "", tmp_path)
    assert (found.name, found.path) == ("claude-memory.main-app", folder / "memory")
    assert found.path.is_dir()
    assert chosen("claude-memory", str(checkout), "own", tmp_path).name == "own"
    assert chosen("claude-memory", str(checkout / "sub"), "", tmp_path).path == found.path
    (tmp_path / ".git").mkdir()
    with pytest.raises(NotFound, match="claude -p hello"):
        chosen("claude-memory", str(tmp_path), "", tmp_path)
    with pytest.raises(Malformed):
        chosen("claude-memory", "", "", tmp_path)


def test_other_presets_have_their_places_and_the_only_names_that_are_synced(tmp_path):
    assert chosen("skills", "", "", tmp_path).path == tmp_path / ".claude" / "skills"
    agents = chosen("agents", "", "", tmp_path)
    assert agents.path == tmp_path / ".claude"
    assert set(agents.only) == {"AGENTS.md", "CLAUDE.md"}
    assert chosen("", "/x/Team Notes", "", tmp_path).name == "team-notes"
    assert chosen("", "~/notes", "", tmp_path).path == tmp_path / "notes"
    with pytest.raises(Malformed):
        chosen("", "", "", tmp_path)


def test_the_home_remembers_where_folders_lie_and_says_so_where_it_cannot(tmp_path):
    folders = FolderMap(Home(tmp_path))
    assert folders.read() == {}
    mapped = Mapped("notes", "/x", 7, large=True, only=("A.md",))
    folders.put(mapped)
    assert FolderMap(Home(tmp_path)).read() == {"notes": mapped}
    for n in range(FOLDERS_MAX - 1):
        folders.put(Mapped(f"f{n}", f"/{n}", n))
    with pytest.raises(Conflict):
        folders.put(Mapped("more", "/more", 1))
    # Two were mapped at once, and both looked before.
    for path in ("/x", "/x/sub", "/"):
        with pytest.raises(Conflict, match="in two of them"):
            folders.put(Mapped("f0", path, 1))
    folders.put(mapped)
    assert folders.remove("notes") == mapped
    with pytest.raises(NotFound, match="f0"):
        folders.remove("notes")
    for text in ("{", '[{"name": "../x", "path": "/x", "inode": 1}]'):
        (tmp_path / "context.json").write_text(text)
        with pytest.raises(Broken, match="move it away"):
            folders.read()


def merged(first: bytes, base: bytes, second: bytes, *, union: bool = False) -> bytes | None:
    return asyncio.run(merge_texts(first, base, second, union=union))


@proves("context.nothing-is-lost")
def test_a_change_of_what_more_versions_have_than_one_can_name_is_a_version():
    """It named all seventeen, was read by nobody, and the file was written over."""
    change = SimpleNamespace(
        fields={"text": "x"}, digest="", signature=None, size=1, said_x=False, path="a.md"
    )
    over = frozenset(EntryId(bytes([n]) * 32) for n in range(CONTEXT_OVER_MAX + 1))
    body = Holders({}).body(PLACE, change, over)  # type: ignore[arg-type]
    assert check_put(body) == body
    assert len(body.over) == CONTEXT_OVER_MAX


@proves("context.no-way-out")
def test_a_place_where_a_disk_is_mounted_is_refused(top, tmp_path, monkeypatch):
    """While it is not mounted, an empty folder lies there: as if all was deleted."""
    monkeypatch.setattr(type(top), "is_mount", lambda path: path == top)
    with pytest.raises(Conflict, match="another disk is mounted"):
        fit(top, tmp_path / "home")


@proves("context.merged-alike-everywhere")
def test_texts_are_merged_where_that_is_clean_and_never_get_a_marker():
    base = b"".join(b"line %d\n" % n for n in range(9))
    one, other = base.replace(b"1", b"one"), base.replace(b"7", b"seven")
    both = base.replace(b"1", b"one").replace(b"7", b"seven")
    assert merged(one, base, other) == both
    assert merged(one, base, base.replace(b"1", b"uno")) is None
    assert merged(b"a\0", b"a", b"b") is None
    union = merged(base + b"x\n", base, base + b"y\n", union=True)
    assert union == base + b"x\ny\n"


@proves("context.merged-alike-everywhere")
def test_line_ends_that_one_side_changed_are_the_results_and_no_conflict():
    base = b"".join(b"line %d\n" % n for n in range(9))
    windows, other = base.replace(b"\n", b"\r\n"), base.replace(b"7", b"seven")
    wanted = other.replace(b"\n", b"\r\n")
    assert merged(windows, base, other) == wanted
    assert merged(other, base, windows) == wanted
    assert merged(base, windows, other.replace(b"\n", b"\r\n")) == other
    mixed = b"a\r\n" + base
    assert merged(mixed, base, other) is None


@proves("context.machine-configuration-stays-here")
@pytest.mark.parametrize(
    "path", [".ssh", ".ssh/keys", "app/.git/hooks", ".claude", ".codex", ".config", "x/hooks", ".aws",
             ".config/nvim/lua", ".claude/plugins"],
)  # fmt: skip
def test_a_folder_that_a_machine_obeys_is_refused_wherever_it_lies(tmp_path, path):
    top = tmp_path / "person" / path
    top.mkdir(parents=True)
    (tmp_path / "home").mkdir()
    with pytest.raises(Conflict, match=r"obeys|settings beside"):
        fit(top, tmp_path / "home")


def test_what_people_write_beside_a_program_s_settings_is_taken(tmp_path):
    (tmp_path / "home").mkdir()
    for path in (".claude/skills", ".claude/projects/x/memory", ".config/notes"):
        top = tmp_path / "person" / path
        top.mkdir(parents=True)
        assert fit(top, tmp_path / "home") == top
    top = tmp_path / "person" / ".claude"
    taken = check_folder_fit(top, Home(tmp_path / "home"), {}, "agents", ("CLAUDE.md",))
    assert asyncio.run(taken) == top


def test_what_lies_there_is_compared_without_following_links_or_waiting_for_pipes(tmp_path):
    (tmp_path / "n.md").write_text("one")
    (tmp_path / "elsewhere").write_text("secret")
    (tmp_path / "link.md").symlink_to(tmp_path / "elsewhere")
    os.mkfifo(tmp_path / "pipe.md")
    disk = Disk(tmp_path, tmp_path.stat().st_ino)
    one = hashlib.sha256(b"one").digest()
    assert not _other(disk, "n.md", one)
    assert _other(disk, "n.md", hashlib.sha256(b"two").digest())
    for path in ("link.md", "pipe.md", "none.md", "n.md/below"):
        assert not _other(disk, path, one)
