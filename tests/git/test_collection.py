"""What an attempt leaves becomes a commit, or is refused by name; caches heal."""

import os
from hashlib import sha256
from pathlib import Path
from typing import Any

import pytest
from tests.git.repositories import SIGNATURE, checkout, git_in, refs, sh, wait
from tests.git.test_worktree import Place
from tests.promise import proves

from muster import limits
from muster.errors import Damaged, Refused
from muster.git import baseline, cache, worktree
from muster.git import command as git
from muster.git.fence import Epoch

POINTER = "version https://git-lfs.github.com/spec/v1\noid sha256:{}\nsize {}\n"


@pytest.fixture
def place(tmp_path: Path) -> Place:
    return Place(tmp_path)


def publish(place: Place, message: str = "more") -> str:
    """What lies in the source becomes the remote's newest commit."""
    sh(place.source, "add", "-A")
    sh(place.source, "commit", "-q", "-m", message)
    sh(place.source, "push", "-q", "--tags", place.url, "main")
    return sh(place.source, "rev-parse", "HEAD")


# --- deliverables ------------------------------------------------------------------------------


@proves("git.deliverables-in-the-commit")
def test_what_cannot_be_in_the_commit_is_missing_with_its_reason(place: Place) -> None:
    tree = place.open()
    at = tree.path
    (at / "real").mkdir()
    (at / "real" / "r.txt").write_text("x")
    (at / "out").symlink_to("real")
    (at / "empty" / "deeper").mkdir(parents=True)
    os.mkfifo(at / "pipe")
    checkout(at / "app")
    (at / "app" / "main.py").write_text("x")
    (at / ".gitignore").write_text("hidden\n")
    (at / "hidden").write_text("x")
    (at / "points").symlink_to("hidden")
    names = ("out/r.txt", "empty", "pipe", "app/main.py", "app", "points", "never", "real", "out")
    found = place.collect(tree, *names)
    assert found.missing == (
        "out/r.txt (it is behind the link out)",
        "empty (nothing is in it that git keeps)",
        "pipe (it is neither a file nor a folder)",
        "app/main.py (app is a git repository of its own; remove its .git)",
        "app (app is a git repository of its own; remove its .git)",
        "points (it is a link to what is not in the commit)",
        "never",
    )
    assert found.left_out == ("app",)


@proves("git.deliverables-in-the-commit")
def test_a_folder_that_was_removed_or_replaced_is_the_agents_fault(place: Place) -> None:
    tree = place.open()
    aside = place.root / "aside"
    tree.path.rename(aside)
    with pytest.raises(Refused, match="work folder is gone"):
        place.collect(tree)
    tree.path.symlink_to(aside)
    with pytest.raises(Refused, match="work folder is gone"):
        place.collect(tree)


@proves("git.deliverables-in-the-commit")
def test_what_git_cannot_take_is_refused_by_name(place: Place) -> None:
    tree = place.open()
    (tree.path / ".GIT").mkdir()
    (tree.path / ".GIT" / "config").write_text("x")
    with pytest.raises(Refused, match=r"\.GIT"):
        place.collect(tree)


@proves("git.deliverables-in-the-commit")
@pytest.mark.parametrize("name", [".gitignore", "sub/.gitattributes", ".gitmodules"])
@pytest.mark.parametrize("kind", ["pipe", "device"])
def test_a_file_that_git_would_wait_at_is_refused(place: Place, name: str, kind: str) -> None:
    tree = place.open()
    (tree.path / name).parent.mkdir(exist_ok=True)
    if kind == "pipe":
        os.mkfifo(tree.path / name)
    else:
        (tree.path / name).symlink_to("/dev/zero")
    with pytest.raises(Refused, match=name):
        place.collect(tree)


@proves("git.nothing-read-for-ever")
def test_a_file_that_no_push_carries_is_refused_by_name_before_git_reads_it(place: Place) -> None:
    """A sparse file of a terabyte costs nothing to make, and an hour to read."""
    tree = place.open()
    (tree.path / "data").mkdir()
    large = tree.path / "data" / "model.bin"
    large.touch()
    os.truncate(large, 900 << 30)
    with pytest.raises(Refused, match=r"data/model.bin' has more than 4 GiB"):
        place.collect(tree)
    (tree.path / ".gitignore").write_text("data\n")
    assert place.collect(tree).missing == ()
    with pytest.raises(Refused, match=r"data/model.bin' has more than 4 GiB"):
        place.collect(tree, "data")
    (tree.path / ".gitignore").unlink()
    (tree.path / "data" / ".git").mkdir()
    assert place.collect(tree).left_out == ("data",), "a repository of its own stays out anyway"


@proves("git.agent-configuration-ignored")
def test_a_link_to_nowhere_hides_no_nested_repository(place: Place) -> None:
    tree = place.open()
    (tree.path / ".gitignore").symlink_to("nowhere")
    checkout(tree.path / "app")
    assert place.collect(tree).left_out == ("app",)


@proves("git.agent-configuration-ignored")
@pytest.mark.parametrize("name", ["HEAD", "packed-refs", "refs/heads/x"])
def test_a_pipe_in_the_agents_git_folder_keeps_nobody_waiting(place: Place, name: str) -> None:
    tree = place.open()
    (tree.gitdir / "HEAD").write_text("ref: refs/heads/x\n")
    (tree.gitdir / name).unlink(missing_ok=True)
    os.mkfifo(tree.gitdir / name)
    (tree.path / "a.txt").write_text("x")
    assert place.collect(tree).changed == ("a.txt",)


@proves("git.collect")
def test_names_that_are_no_text_are_written_as_escapes_and_bounded(place: Place) -> None:
    tree = place.open()
    for name in ("a\x01b", "line\nbreak", "caf\udce9", "\u202egnp.exe"):
        (tree.path / name).write_text("x")
    found = place.collect(tree)
    assert found.changed == ("a\\x01b", "caf\\xe9", "line\\nbreak", "\\u202egnp.exe")
    assert found.changed_count == 4
    listed = git_in(tree.cache, "ls-tree", "-z", "--name-only", found.commit)
    assert b"\0line\nbreak\0" in listed.out


@proves("git.collect")
def test_nested_repositories_with_odd_names_stay_out(place: Place) -> None:
    tree = place.open()
    for name in ("line\nbreak", "trail ", "#x", "[a]*", "caf\udce9"):
        checkout(tree.path / "sub" / name)
    (tree.path / "a.txt").write_text("x")
    found = place.collect(tree)
    assert found.changed == ("a.txt",)
    assert len(found.left_out) == 5


@proves("git.deliverables-in-the-commit")
def test_a_folder_that_nobody_can_read_is_refused_unless_it_is_ignored(
    place: Place, monkeypatch: pytest.MonkeyPatch
) -> None:
    tree = place.open()
    (tree.path / ".gitignore").write_text("target\n")
    for name in ("target/sub", ":(glob)**/sub"):
        (tree.path / name).mkdir(parents=True)
    real, shut = os.scandir, [b"target/sub"]

    def scandir(path: Any) -> object:
        if isinstance(path, bytes) and path.endswith(tuple(shut)):
            raise PermissionError(13, "Permission denied")
        return real(path)

    # The tests run as root, who may look everywhere.
    monkeypatch.setattr(os, "scandir", scandir)
    assert place.collect(tree).changed == (".gitignore",)
    shut.append(b":(glob)**/sub")
    with pytest.raises(Refused, match=r"'\:\(glob\)\*\*/sub' cannot be read"):
        place.collect(tree)


# --- files that nobody touched -------------------------------------------------------------------


@proves("git.untouched-stays")
def test_line_ends_of_files_that_nobody_touched_stay(place: Place) -> None:
    (place.source / "w.txt").write_bytes(b"a\r\nb\r\n")
    publish(place)
    (place.source / ".gitattributes").write_text("*.txt text\n*.u16 working-tree-encoding=UTF-16\n")
    (place.source / "x.u16").write_bytes("hé\n".encode("utf-16"))
    publish(place)
    tree = place.open()
    (tree.path / "out.md").write_text("x")
    assert place.collect(tree, "out.md").changed == ("out.md",)
    (tree.path / "w.txt").write_bytes(b"a\r\nc\r\n")
    found = place.collect(tree)
    assert found.changed == ("out.md", "w.txt")
    # What the agent wrote goes the way that the attributes say.
    assert sh(tree.cache, "cat-file", "-p", f"{found.commit}:w.txt") == "a\nc"


@proves("git.untouched-stays")
def test_a_file_that_changed_hands_meanwhile_is_as_untouched_as_before(place: Place) -> None:
    for name in ("w.txt", "x.txt", "y.txt"):
        (place.source / name).write_bytes(b"a\r\nb\r\n")
    publish(place)
    (place.source / ".gitattributes").write_text("*.txt text\n")
    publish(place)
    tree = place.open()
    (tree.path / "x.txt").write_bytes(b"a\r\nc\r\n")
    with baseline.kept(tree.notes, tree.path):
        for each in tree.path.glob("*.txt"):
            # What it costs a file to change its owner, and everybody may do that.
            each.chmod(each.stat().st_mode)
        (tree.path / "y.txt").write_bytes(b"a\r\nd\r\n")
    assert place.collect(tree).changed == ("x.txt", "y.txt")
    (tree.path / "w.txt").write_bytes(b"a\r\nc\r\n")
    assert place.collect(tree).changed == ("w.txt", "x.txt", "y.txt")


@proves("git.untouched-stays")
def test_where_hands_could_not_change_to_the_end_all_of_it_is_read_again(place: Place) -> None:
    tree = place.open()
    with pytest.raises(OSError, match="full"), baseline.kept(tree.notes, tree.path):
        (tree.path / "readme.md").chmod(0o600)
        raise OSError("full")
    assert [*baseline.untouched(tree.notes, tree.path)] == []
    with baseline.kept(tree.notes, tree.path):
        pass
    tree.notes.unlink()
    with baseline.kept(tree.notes, tree.path):
        pass
    assert not tree.notes.exists()


@proves("git.untouched-stays")
def test_a_change_of_the_same_size_in_the_same_moment_is_seen(place: Place) -> None:
    for number in range(20):
        tree = place.open(task=f"t{number}")
        (tree.path / "readme.md").write_text("HELLO\n")
        assert place.collect(tree).changed == ("readme.md",)


@proves("git.untouched-stays")
def test_a_folder_that_became_a_link_and_files_that_went_are_seen(place: Place) -> None:
    for name in ("a", "b", "c"):
        (place.source / name).mkdir()
        (place.source / name / "file").write_text(name)
    publish(place)
    tree = place.open()
    (tree.path / "a").rename(tree.path / "moved")
    (tree.path / "a").symlink_to("moved")
    (tree.path / "b" / "file").unlink()
    (tree.path / "c" / "file").chmod(0o755)
    found = place.collect(tree)
    assert found.changed == ("a", "a/file", "b/file", "c/file", "moved/file")
    assert sh(tree.cache, "cat-file", "-p", f"{found.commit}:a") == "moved"
    assert sh(tree.cache, "fsck", "--no-dangling") == ""


@proves("git.untouched-stays")
def test_what_the_agent_committed_otherwise_than_it_lies_there_is_seen(place: Place) -> None:
    tree = place.open()
    (tree.path / "readme.md").write_text("committed\n")
    sh(tree.path, "commit", "-q", "-a", "-m", "own")
    sh(tree.path, "rm", "-q", "--cached", "readme.md")
    sh(tree.path, "commit", "-q", "-m", "untracked")
    assert place.collect(tree).changed == ("readme.md",)
    other = place.open(task="t2")
    sh(other.path, "rm", "-q", "--cached", "readme.md")
    sh(other.path, "commit", "-q", "-m", "untracked, and untouched")
    assert place.collect(other).changed == ()


@proves("git.untouched-stays")
def test_what_the_agent_writes_into_its_index_hides_nothing(place: Place) -> None:
    tree = place.open()
    sh(tree.path, "update-index", "--assume-unchanged", "readme.md")
    (tree.path / "readme.md").write_text("changed\n")
    assert place.collect(tree).changed == ("readme.md",)


# --- filters -------------------------------------------------------------------------------------


def with_lfs(place: Place, content: bytes = b"large") -> str:
    pointer = POINTER.format(sha256(content).hexdigest(), len(content))
    (place.source / ".gitattributes").write_text("*.bin filter=lfs diff=lfs merge=lfs -text\n")
    (place.source / "old.bin").write_text(pointer)
    publish(place)
    return pointer


@proves("git.filters-never-bypassed")
def test_a_file_that_a_filter_must_clean_is_not_stored_raw(place: Place) -> None:
    with_lfs(place)
    tree = place.open()
    (tree.path / "big.bin").write_bytes(b"\0" * 5000)
    before = refs(place.remote)
    with pytest.raises(Refused, match=r"'big\.bin' has the filter 'lfs'"):
        place.collect(tree)
    assert refs(place.remote) == before


@proves("git.filters-never-bypassed")
def test_pointers_stay_pointers_whatever_git_lfs_did_in_the_folder(place: Place) -> None:
    pointer = with_lfs(place)
    tree = place.open()
    assert (tree.path / "old.bin").read_text() == pointer
    # As after `git lfs pull`: the file itself lies where its pointer was.
    (tree.path / "old.bin").write_bytes(b"large")
    # As after the agent's own `git lfs track` and `git add`.
    (tree.path / "new.bin").write_text(POINTER.format("a" * 64, 7))
    (tree.path / "a.txt").write_text("x")
    found = place.collect(tree)
    assert found.changed == ("a.txt", "new.bin")
    (tree.path / "old.bin").write_bytes(b"other")
    with pytest.raises(Refused, match=r"old\.bin"):
        place.collect(tree)


@proves("git.filters-never-bypassed", "git.nothing-read-for-ever")
def test_a_large_file_that_its_pointer_points_at_is_no_change_and_git_reads_none_of_it(
    place: Place, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(limits, "GIT_FILE_BYTES_MAX", 1 << 20)
    content = bytes((1 << 20) + 1)
    pointer = with_lfs(place, content)
    tree = place.open()
    large = tree.path / "old.bin"
    large.unlink()
    large.touch()
    # As after `git lfs pull`, here of a sparse file.
    os.truncate(large, len(content))
    (tree.path / "a.txt").write_text("x")
    found = place.collect(tree, "old.bin")
    assert (found.changed, found.missing) == (("a.txt",), ())
    assert place.show(found.commit + ":old.bin") == pointer.strip()
    read = sh(place.source, "hash-object", "--no-filters", str(large))
    kept = sh(tree.cache, "cat-file", "--batch-check", stdin=f"{read}\n".encode())
    assert kept.endswith("missing"), "git read it and keeps it"


@proves("git.filters-never-bypassed", "git.nothing-read-for-ever")
@pytest.mark.parametrize("what", ["other bytes", "more bytes", "no filter", "no pointer of ours"])
def test_a_large_file_that_is_something_else_than_its_pointer_says_is_refused(
    place: Place, monkeypatch: pytest.MonkeyPatch, what: str
) -> None:
    monkeypatch.setattr(limits, "GIT_FILE_BYTES_MAX", 1 << 20)
    content = bytes((1 << 20) + 1)
    with_lfs(place, content)
    tree = place.open()
    name = "old.bin"
    if what == "other bytes":
        content = content[:-1] + b"x"
    elif what == "more bytes":
        content += b"\0"
    elif what == "no filter":
        (tree.path / ".gitattributes").write_text("")
    else:
        name = "new.bin"
        (tree.path / name).write_text(POINTER.format(sha256(content).hexdigest(), len(content)))
        sh(tree.path, "add", "-A")
        sh(tree.path, "commit", "-q", "-m", "the agent's own pointer")
    (tree.path / name).write_bytes(content)
    with pytest.raises(Refused, match=rf"'{name}' has more than"):
        place.collect(tree)


@proves("git.filters-never-bypassed")
def test_a_secret_is_not_committed_where_its_filter_would_encrypt_it(place: Place) -> None:
    (place.source / ".gitattributes").write_text("secret filter=git-crypt diff=git-crypt\n")
    (place.source / "secret").write_bytes(b"\0GITCRYPT\0...")
    publish(place)
    tree = place.open()
    (tree.path / "a.txt").write_text("x")
    assert place.collect(tree).changed == ("a.txt",)
    (tree.path / "secret").write_text("plain")
    with pytest.raises(Refused, match="git-crypt"):
        place.collect(tree)


# --- what the folder knows -----------------------------------------------------------------------


@proves("git.worktree-knows")
def test_the_folder_knows_tags_and_branches_as_a_clone_does(place: Place) -> None:
    sh(place.source, "tag", "v1.2.0")
    sh(place.source, "tag", "-a", "-m", "x", "annotated")
    sh(place.source, "tag", "-a", "-m", "x", "twice", "annotated")
    place.branch("phase", a__txt="x")
    sh(place.source, "checkout", "-q", "main")
    sh(place.source, "branch", "feature/ü#1")
    sh(place.source, "push", "-q", place.url, "feature/ü#1")
    publish_empty = ["commit", "-q", "--allow-empty", "-m", "next"]
    sh(place.source, *publish_empty)
    sh(place.source, "push", "-q", "--tags", place.url, "main")
    tree = place.open()
    assert sh(tree.path, "describe", "--tags", "--match", "v*").startswith("v1.2.0-1-g")
    assert sh(tree.path, "describe", "--match", "annotated").startswith("annotated-1-g")
    assert sh(tree.path, "rev-parse", "twice^{commit}") == sh(place.source, "rev-parse", "main^")
    known = sh(tree.path, "for-each-ref", "--format=%(refname)", "refs/remotes").splitlines()
    assert known == ["refs/remotes/origin/feature/ü#1", "refs/remotes/origin/main"]
    assert sh(tree.path, "fsck", "--no-dangling") == ""


# --- caches that were damaged --------------------------------------------------------------------


def newest(folder: Path) -> list[Path]:
    return [path for path in folder.rglob("*") if path.is_file()]


@proves("git.cache-heals")
@pytest.mark.parametrize(
    "damage",
    [
        "head emptied", "head garbage", "config emptied", "config garbage", "objects emptied",
        "objects gone", "refs emptied", "refs gone", "packed refs garbage", "a pack cut",
        "a file in its place", "an old lock",
    ],
)  # fmt: skip
def test_a_damaged_cache_is_made_anew(place: Place, damage: str) -> None:
    if damage == "a pack cut":
        for number in range(120):
            (place.source / f"f{number}").write_text(f"{number}\n" * 50)
        publish(place)
    wait(place.shop.close(place.open()))
    store = place.cache / "main.git"
    match damage:
        case "head emptied" | "config emptied":
            (store / damage.partition(" ")[0].replace("head", "HEAD")).write_bytes(b"")
        case "head garbage" | "config garbage":
            (store / damage.partition(" ")[0].replace("head", "HEAD")).write_bytes(
                b"\0\xff garbage ["
            )
        case "objects emptied":
            for path in newest(store / "objects"):
                path.chmod(0o600)
                path.write_bytes(b"")
        case "objects gone":
            worktree.removal.set_aside(store / "objects")
        case "refs emptied":
            for path in newest(store / "refs"):
                path.write_bytes(b"")
        case "refs gone":
            worktree.removal.set_aside(store / "refs")
        case "packed refs garbage":
            (store / "packed-refs").write_bytes(b"\0\0\0\0 garbage\n")
        case "a pack cut":
            packs = list((store / "objects" / "pack").glob("*.pack"))
            for path in packs:
                path.chmod(0o600)
                path.write_bytes(path.read_bytes()[:100])
            assert packs
        case "a file in its place":
            worktree.removal.set_aside(store)
            store.write_text("x")
        case "an old lock":
            sh(place.source, "commit", "-q", "--allow-empty", "-m", "next")
            sh(place.source, "push", "-q", place.url, "main")
            lock = store / "refs" / "remote" / "main.lock"
            lock.touch()
            os.utime(lock, (0, 0))
    tree = place.open()
    (tree.path / "a.txt").write_text("x")
    found = place.collect(tree)
    assert found.changed == ("a.txt",)
    wait(place.shop.push(tree, found.commit))
    wait(place.shop.close(tree))
    assert wait(cache.sound(store))
    assert place.left() == []


@proves("git.cache-heals")
def test_an_attempt_goes_on_while_its_cache_is_made_anew(place: Place) -> None:
    one = cache.Base("a", place.branch("a", a="1"))
    two = cache.Base("b", place.branch("b", b="2"))
    # Its start is a merge that was made here: the remote does not have it.
    first = place.open(one, two)
    for path in (place.cache / "main.git" / "refs" / "remote").rglob("main"):
        path.write_bytes(b"")
    second = place.open(task="t2")
    assert (place.cache / "main.git" / cache.BEFORE).is_dir()
    (first.path / "c").write_text("3")
    found = place.collect(first)
    assert found.changed == ("c",)
    wait(place.shop.push(first, found.commit))
    wait(place.shop.close(second))
    assert (place.cache / "main.git" / cache.BEFORE).is_dir()
    wait(place.shop.close(first))
    assert not (place.cache / "main.git" / cache.BEFORE).exists()
    assert wait(cache.sound(place.cache / "main.git"))


@proves("git.cache-heals")
def test_a_cache_that_is_ruined_while_an_agent_works_is_no_fault_of_the_agent(place: Place) -> None:
    tree = place.open()
    for path in newest(tree.cache / "objects"):
        path.chmod(0o600)
        path.write_bytes(b"")
    with pytest.raises(Damaged):
        place.collect(tree)


@proves("git.cache-heals", "git.no-debris")
def test_the_start_never_fails_for_what_lies_in_the_cache(place: Place) -> None:
    place.open()
    for path in newest(place.cache / "main.git" / "refs"):
        path.write_bytes(b"\0\0")
    (place.cache / "main.git" / "config").write_bytes(b"[")
    (place.cache / "file.git").write_text("x")
    again = worktree.Worktrees(place.cache, place.work)
    assert wait(again.clear()) == 1
    wait(again.empty())
    wait(again.open(cache.Origin("main", place.url), "t9", Epoch(1, 1), [], SIGNATURE))


@proves("git.cache-heals")
def test_git_never_takes_a_repository_above_for_the_cache(place: Place) -> None:
    """A person keeps the home in git: `~/.git` must not become the cache."""
    sh(place.root, "init", "-q")
    before = refs(place.root)
    store = place.cache / "x.git"
    store.mkdir(parents=True)
    with pytest.raises(git.NotFound):
        wait(git.run_async(["for-each-ref"], store))
    assert refs(place.root) == before


@proves("git.remains-are-told")
def test_a_folder_that_cannot_go_fails_nothing_and_is_told(
    place: Place, monkeypatch: pytest.MonkeyPatch
) -> None:
    tree = place.open()

    async def stays(_path: Path) -> str:
        return "x/f: Operation not permitted"

    monkeypatch.setattr(worktree.removal, "remove", stays)
    wait(place.shop.close(tree))
    assert not tree.path.exists()
    assert list(place.shop.remains.values()) == ["x/f: Operation not permitted"]
    monkeypatch.undo()
    wait(place.shop.empty())
    assert place.shop.remains == {}
    assert place.left() == []


@proves("enclosure.protected-results")
def test_every_changed_file_is_named_and_not_the_first_thousand_alone(place: Place) -> None:
    tree = place.open()
    for number in range(1_001):
        (tree.path / f"!{number}").touch()
    (tree.path / ".mcp.json").write_text("{}")
    found = place.collect(tree)
    assert ".mcp.json" not in found.changed
    assert b".mcp.json" in found.all_changed
    assert len(found.all_changed) == found.changed_count == 1_002
