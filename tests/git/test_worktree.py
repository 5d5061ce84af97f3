"""An attempt's folder, from its prerequisites to its signed and pushed commit."""

import errno
import os
import subprocess
from base64 import b64encode
from pathlib import Path

import pytest
from tests.git.repositories import (
    MAKER,
    SIGNATURE,
    SIGNER,
    checkout,
    commit,
    plain,
    refs,
    sh,
    verify,
    wait,
)
from tests.promise import proves

from muster.errors import Conflict, Exhausted, Forged, Malformed, NotFound, Refused
from muster.git import cache, collection, openssh, ref, worktree
from muster.git import command as git
from muster.git import commit as commits
from muster.git.fence import Epoch
from muster.log.keys import Signer

FIRST = Epoch(1, 1)
REF = "refs/muster/attempt/t1/1-1"


class Place:
    """One machine with a workshop, and a foreign remote."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.source = checkout(root / "source")
        self.url = plain(root / "remote.git", self.source)
        self.remote = Path(self.url)
        self.work, self.cache = root / "work", root / "repos-cache"
        self.shop = worktree.Worktrees(self.cache, self.work)

    def branch(self, name: str, **files: str) -> str:
        """A phase's branch on the remote, from the first commit; its commit."""
        sh(self.source, "checkout", "-q", "--detach", "main")
        made = commit(self.source, name, **files)
        sh(self.source, "push", "-q", self.url, f"{made}:refs/heads/muster/r1/{name}")
        return made

    def open(self, *bases: cache.Base, task: str = "t1", epoch: Epoch = FIRST) -> cache.Worktree:
        origin = cache.Origin("main", self.url)
        return wait(self.shop.open(origin, task, epoch, bases, SIGNATURE))

    def collect(self, tree: cache.Worktree, *deliver: str) -> collection.Collected:
        return wait(collection.collect(tree, deliver, "Do the work", SIGNATURE))

    def show(self, commit_id: str, *args: str) -> str:
        return sh(self.root / "repos-cache" / "main.git", "show", *args, commit_id)

    def left(self) -> list[str]:
        """Everything that should be gone when no attempt is open."""
        found = [path.name for path in self.work.glob("*")] if self.work.is_dir() else []
        store = self.cache / "main.git"
        if store.is_dir():
            found += [name for name in refs(store) if not name.startswith("refs/remote")]
            found += [path.name for path in store.glob("muster-*")]
        return found


@pytest.fixture
def place(tmp_path: Path) -> Place:
    return Place(tmp_path)


@proves("git.worktree-own")
def test_an_attempt_without_prerequisites_starts_at_the_remotes_head(place):
    tree = place.open()
    assert tree.path == place.work / "t1-1-1"
    assert (tree.path / "readme.md").read_text() == "hello\n"
    assert tree.base == refs(place.remote)["refs/heads/main"]
    assert sh(tree.path, "status", "--porcelain") == ""
    assert sh(tree.path, "log", "-1", "--format=%s") == "first"


@proves("git.worktree-own")
def test_two_attempts_share_no_branch_stash_or_configuration(place):
    one, two = place.open(), place.open(task="t2")
    sh(one.path, "checkout", "-q", "-b", "idea")
    sh(one.path, "config", "user.name", "mallory")
    (one.path / "readme.md").write_text("changed\n")
    sh(one.path, "stash", "-q")
    assert sh(two.path, "branch", "--list", "idea") == ""
    assert sh(two.path, "stash", "list") == ""
    assert sh(two.path, "config", "user.name") == "claude@studio"
    assert sh(two.path, "status", "--porcelain") == ""
    assert refs(place.cache / "main.git").keys() == {
        "refs/attempt/t1/1-1",
        "refs/attempt/t2/1-1",
        "refs/remote/main",
        "refs/remote-head",
    }


@proves("git.collect", "git.commit-signed")
def test_the_result_names_commit_changes_and_missing_deliverables(place):
    tree = place.open()
    (tree.path / ".gitignore").write_text("*.log\n")
    (tree.path / "report.log").write_text("promised, though ignored\n")
    (tree.path / "noise.log").write_text("ignored\n")
    (tree.path / "readme.md").unlink()
    found = place.collect(tree, "report.log", "summary.md", "docs/")
    assert found.changed == (".gitignore", "readme.md", "report.log")
    assert found.changed_count == 3
    assert found.missing == ("summary.md", "docs")
    assert place.show(found.commit, "-s", "--format=%an %ae|%cn %ce|%s|%P") == (
        "claude@studio claude@studio.muster|studio muster@studio.muster|Do the work|" + tree.base
    )


@proves("git.collect")
def test_a_folder_is_delivered_beside_a_file_in_it(place):
    tree = place.open()
    (tree.path / "docs").mkdir()
    (tree.path / "docs" / "a.md").write_text("a\n")
    (tree.path / "latest").symlink_to("docs")
    assert place.collect(tree, "docs", "docs/a.md", "latest").missing == ()


@proves("git.collect")
def test_an_attempt_that_changed_nothing_still_leaves_a_signed_commit(place):
    tree = place.open()
    found = place.collect(tree)
    assert found.changed == ()
    assert found.commit != tree.base
    verify(tree.cache, found.commit, MAKER)


@proves("git.collect")
def test_the_agents_own_commits_stay_below_the_signed_one(place):
    tree = place.open()
    sh(tree.path, "checkout", "-q", "-b", "feature")
    own = commit(tree.path, "own", a__txt="1")
    sh(tree.path, "pack-refs", "--all")
    sh(tree.path, "repack", "-adq")
    (tree.path / "b.txt").write_text("2")
    found = place.collect(tree)
    assert found.changed == ("a.txt", "b.txt")
    wait(place.shop.push(tree, found.commit))
    assert sh(place.remote, "rev-parse", f"{REF}^") == own
    wait(place.shop.close(tree))
    assert place.left() == []


@proves("git.collect")
def test_a_rewritten_history_is_refused(place):
    tree = place.open()
    sh(tree.path, "checkout", "-q", "--orphan", "mine")
    commit(tree.path, "mine")
    before = refs(place.remote)
    with pytest.raises(Refused, match="descend"):
        place.collect(tree)
    assert refs(place.remote) == before


@proves("git.hostile-input")
@pytest.mark.parametrize("path", ["/etc/passwd", "../x", "", ".git/config", "a/../../x"])
def test_a_deliverable_outside_the_folder_is_refused(place, path):
    with pytest.raises(Malformed):
        place.collect(place.open(), path)


@proves("git.collect")
def test_a_deliverable_that_is_a_link_to_the_outside_is_missing(place):
    tree = place.open()
    (tree.path / "report").symlink_to("/etc/passwd")
    found = place.collect(tree, "report")
    assert found.missing == ("report (it is a link that leads out of the folder)",)
    assert sh(tree.cache, "cat-file", "blob", f"{found.commit}:report") == "/etc/passwd"


@proves("git.commit-signed")
def test_git_itself_verifies_the_commit(place):
    tree = place.open()
    found = place.collect(tree)
    signers = place.root / "allowed_signers"
    raw = openssh._string(b"ssh-ed25519") + openssh._string(SIGNER.public)
    key = f"ssh-ed25519 {b64encode(raw).decode()}"
    signers.write_text(f'muster@studio.muster namespaces="git" {key}\n')
    allowed = ["-c", f"gpg.ssh.allowedSignersFile={signers}", "-c", "gpg.format=ssh"]
    done = subprocess.run(
        ["git", *allowed, "verify-commit", found.commit],
        cwd=tree.cache,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert 'Good "git" signature for muster@studio.muster' in done.stderr
    assert sh(tree.cache, "fsck", "--strict", "--no-dangling") == ""


def _signed_twice(signature):
    """A commit with two authors, properly signed."""
    when = f"{signature.seconds} +0000"
    authors = [commits.person(signature.agent), commits.person("alice")]
    head = f"tree {'1' * 40}\n" + "".join(f"author {each} {when}\n" for each in authors)
    head += f"committer {commits.person(signature.machine)} {when}\n"
    armoured = openssh.sign(signature.signer, f"{head}\nx\n".encode()).strip()
    return f"{head}gpgsig {armoured.replace(chr(10), chr(10) + ' ')}\n\nx\n".encode()


@proves("git.forged-commit")
def test_a_commit_by_another_key_or_changed_or_unsigned_is_refused(place, monkeypatch):
    raw = commits.signed("1" * 40, ["2" * 40], "x", SIGNATURE)
    commits.check(raw, MAKER)
    head, _, rest = raw.partition(b"gpgsig ")
    forged = [
        raw.replace(b"claude@studio", b"claude@other!", 1),
        raw.replace(b"parent 2", b"parent 3", 1),
        raw[:-2] + b"y\n",
        head + rest.partition(b"-----END SSH SIGNATURE-----\n")[2],
        raw.replace(b"gpgsig ", b"x-sig ", 1),
        raw.replace(b"U1NIU0", b"U1NIU1", 1),
        b"",
    ]
    for other in forged:
        with pytest.raises((Forged, Malformed)):
            commits.check(other, MAKER)
    with pytest.raises(Forged):
        commits.check(raw, MAKER._replace(public=Signer(b"\x08" * 32).public))
    for changed in ({"agent": "codex@studio"}, {"machine": "build"}):
        with pytest.raises(Forged, match="names another"):
            commits.check(raw, MAKER._replace(**changed))
    # Whoever holds the key could still say twice, and differently, whose it is.
    twice = commits.Signature("claude@studio", "studio", 1, SIGNER)
    raw = _signed_twice(twice)
    with pytest.raises(Forged, match="names another author"):
        commits.check(raw, MAKER)
    # What the same key signed as a file is no signature of a commit.
    with monkeypatch.context() as elsewhere:
        elsewhere.setattr(openssh, "_NAMESPACE", b"file")
        text = openssh.sign(SIGNER, b"m")
    with pytest.raises(Malformed, match="was not made for 'git'"):
        openssh.open_signature(text, b"m")
    assert openssh.open_signature(openssh.sign(SIGNER, b"m"), b"m")[0] == SIGNER.public


@proves("git.prerequisites-merged")
def test_one_prerequisite_is_the_start(place):
    made = place.branch("test", report__txt="ok")
    tree = place.open(cache.Base("test", made))
    assert tree.base == made
    assert (tree.path / "report.txt").read_text() == "ok"


@proves("git.prerequisites-merged")
def test_several_prerequisites_are_merged_and_signed(place):
    bases = [cache.Base(name, place.branch(name, **{name: name})) for name in ("a", "b", "c")]
    bases.append(cache.Base("main", refs(place.remote)["refs/heads/main"]))
    tree = place.open(*bases)
    assert {path.name for path in tree.path.iterdir()} == {".git", "readme.md", "a", "b", "c"}
    verify(tree.cache, tree.base, MAKER)
    for base in bases:
        assert wait(ref.descends(tree.cache, base.commit, tree.base))
    found = place.collect(tree)
    wait(place.shop.push(tree, found.commit))
    assert sh(place.remote, "fsck", "--strict", "--no-dangling") == ""
    wait(place.shop.close(tree))
    assert place.left() == []


@proves("git.prerequisites-merged")
def test_fifty_prerequisites_are_merged_as_two_are(place):
    bases = [cache.Base(f"p{n}", place.branch(f"p{n}", **{f"f{n}": str(n)})) for n in range(50)]
    tree = place.open(*bases)
    assert {path.name for path in tree.path.iterdir()} == {
        ".git", "readme.md", *(f"f{n}" for n in range(50)),
    }  # fmt: skip
    assert all(wait(ref.descends(tree.cache, base.commit, tree.base)) for base in bases[::7])
    message = sh(tree.cache, "log", "-1", "--format=%s", tree.base)
    assert message == "Merge p49 into p0, p1, p2, p3, p4, p5, p6, p7 and 41 more"
    wait(place.shop.close(tree))


@proves("git.prerequisites-merged", "git.no-debris")
def test_a_conflict_behind_many_names_its_files_and_few_phases(place):
    bases = [cache.Base(f"p{n}", place.branch(f"p{n}", **{f"f{n}": str(n)})) for n in range(12)]
    last = cache.Base("last", place.branch("last", f3="other\n"))
    with pytest.raises(Refused, match=r"p7 and 4 more and last conflict in f3; let one phase"):
        place.open(*bases, last)
    assert place.left() == []


@proves("git.prerequisites-merged", "git.no-debris")
def test_a_conflict_names_phases_and_files_and_leaves_nothing(place):
    one = cache.Base("test", place.branch("test", readme__md="one\n"))
    two = cache.Base("lint", place.branch("lint", readme__md="two\n"))
    with pytest.raises(Refused, match=r"test and lint conflict in readme\.md"):
        place.open(one, two)
    assert place.left() == []


@proves("git.prerequisites-merged", "git.no-debris")
def test_a_file_that_meets_a_folder_is_named_as_it_is(place):
    one = cache.Base("one", place.branch("one", meets="file\n"))
    sh(place.source, "checkout", "-q", "--detach", "main")
    (place.source / "meets").mkdir()
    (place.source / "meets" / "in").write_text("x\n")
    other = commit(place.source, "other")
    sh(place.source, "push", "-q", place.url, f"{other}:refs/heads/muster/r1/other")
    with pytest.raises(Refused, match=r"one and other conflict in meets; let one phase"):
        place.open(one, cache.Base("other", other))
    assert place.left() == []


@proves("git.prerequisites-merged")
def test_a_prerequisite_that_is_not_on_the_remote_is_not_found(place):
    with pytest.raises(NotFound, match="'test'"):
        place.open(cache.Base("test", "1" * 40))
    with pytest.raises(Malformed):
        place.open(cache.Base("test", "--upload-pack=x"))
    assert place.left() == []


@proves("git.agent-configuration-ignored")
def test_nothing_an_agent_wrote_into_its_repository_runs(place):
    tree = place.open()
    mark = place.root / "hacked"
    trap = place.root / "trap"
    trap.write_text(f"#!/bin/sh\ntouch {mark}\ncat\n")
    trap.chmod(0o755)
    settings = {
        "core.fsmonitor": str(trap),
        "core.hooksPath": str(trap.parent),
        "filter.x.clean": str(trap),
        "filter.x.smudge": str(trap),
        "core.sshCommand": str(trap),
        "gpg.program": str(trap),
        "uploadpack.packObjectsHook": str(trap),
        "core.worktree": "/etc",
    }
    for name, value in settings.items():
        sh(tree.path, "config", "--file", ".git/config", name, value)
    for hook in ("pre-commit", "post-index-change", "reference-transaction", "pre-push"):
        (tree.path / ".git" / "hooks").mkdir(exist_ok=True)
        (tree.path / ".git" / "hooks" / hook).symlink_to(trap)
    (tree.path / ".gitattributes").write_text("* filter=x\n")
    (tree.path / "a.txt").write_text("a")
    with pytest.raises(Refused, match="filter 'x'"):
        place.collect(tree)
    (tree.path / ".gitattributes").write_text("* diff=x merge=x\n")
    found = place.collect(tree)
    wait(place.shop.push(tree, found.commit))
    wait(place.shop.close(tree))
    assert not mark.exists()
    assert found.changed == (".gitattributes", "a.txt")


@proves("git.agent-configuration-ignored")
def test_a_repository_inside_the_folder_stays_out(place):
    tree = place.open()
    inner = checkout(tree.path / "vendor #1" / "lib")
    (tree.path / "vendor #1" / "note").write_text("x")
    found = place.collect(tree)
    assert inner.is_dir()
    assert found.left_out == ("vendor #1/lib",)
    assert found.changed == ("vendor #1/note",)


@proves("git.agent-configuration-ignored")
def test_a_filled_submodule_is_pointed_at_and_never_entered(place):
    commit_id = sh(place.source, "rev-parse", "HEAD")
    sh(place.source, "update-index", "--add", "--cacheinfo", f"160000,{commit_id},sub")
    sh(place.source, "commit", "-q", "-m", "sub")
    sh(place.source, "push", "-q", place.url, "main")
    tree = place.open()
    assert place.collect(tree).changed == ()
    mark, trap = place.root / "hacked", place.root / "trap"
    trap.write_text(f"#!/bin/sh\ntouch {mark}\ncat\n")
    trap.chmod(0o755)
    (tree.path / "sub").rmdir()
    sh(tree.path, "clone", "-q", str(place.source), "sub")
    sh(tree.path / "sub", "checkout", "-q", commit_id)
    sh(tree.path / "sub", "config", "core.fsmonitor", str(trap))
    (tree.path / "sub" / "dirty").write_text("x")
    (tree.path / "a.txt").write_text("x")
    found = place.collect(tree)
    assert found.changed == ("a.txt",)
    assert found.left_out == ()
    moved = commit(tree.path / "sub", "moved on")
    mark.unlink(missing_ok=True)
    found = place.collect(tree)
    assert found.changed == ("a.txt", "sub")
    assert sh(tree.cache, "ls-tree", found.commit, "sub").split()[2] == moved
    assert place.collect(tree, "sub").missing
    (tree.path / "sub" / ".git" / "HEAD").write_text("garbage")
    assert place.collect(tree).changed == ("a.txt",)
    assert not mark.exists()


@proves("git.agent-configuration-ignored")
@pytest.mark.parametrize("damage", ["gone", "file", "link", "objects", "garbage"])
def test_a_ruined_git_folder_loses_only_the_agents_own_commits(place, damage):
    tree = place.open()
    (tree.path / "a.txt").write_text("a")
    aside = place.root / "aside"
    if damage == "garbage":
        (tree.gitdir / "HEAD").write_bytes(b"ref: refs/heads/../../../../etc/passwd\n")
    elif damage == "objects":
        (tree.gitdir / "objects").rename(aside)
        (tree.gitdir / "objects").symlink_to(aside)
    else:
        tree.gitdir.rename(aside)
        if damage == "file":
            tree.gitdir.write_text(f"gitdir: {aside}\n")
        elif damage == "link":
            tree.gitdir.symlink_to(aside)
    found = place.collect(tree)
    assert found.changed == ("a.txt",)
    wait(place.shop.push(tree, found.commit))


@proves("git.agent-configuration-ignored")
def test_borrowed_objects_come_from_the_cache_only(place):
    private = checkout(place.root / "private")
    secret = commit(private, "secret", key__txt="s3cret")
    tree = place.open()
    (tree.gitdir / "objects" / "info" / "alternates").write_text(
        f"{private}/.git/objects\n{tree.cache}/objects\n"
    )
    (tree.gitdir / "HEAD").write_text(secret + "\n")
    with pytest.raises(Refused):
        place.collect(tree)


@proves("git.push-verified")
def test_a_pushed_attempt_is_on_the_remote_and_repeating_it_does_nothing(place):
    tree = place.open()
    (tree.path / "a.txt").write_text("a")
    found = place.collect(tree)
    assert wait(place.shop.push(tree, found.commit)) == REF
    assert refs(place.remote)[REF] == found.commit
    wait(place.shop.push(tree, found.commit))
    assert refs(place.remote)[REF] == found.commit


@proves("git.push-verified")
def test_a_remote_that_drops_a_push_is_noticed(place, monkeypatch):
    tree = place.open()
    found = place.collect(tree)
    real = git.run_async

    async def lying(args, cwd, **more):
        if args[0] == "push":
            return git.Answer(0, b"ok", "")
        return await real(args, cwd, **more)

    monkeypatch.setattr(git, "run_async", lying)
    with pytest.raises(Conflict, match="absent"):
        wait(place.shop.push(tree, found.commit))


@proves("git.no-debris")
def test_a_closed_attempt_leaves_nothing_even_if_read_only(place):
    tree = place.open()
    deep = tree.path / "pkg" / "mod"
    deep.mkdir(parents=True)
    (deep / "x").write_text("x")
    deep.chmod(0o500)
    wait(place.shop.close(tree))
    wait(place.shop.close(tree))
    assert place.left() == []


@proves("git.no-debris")
def test_a_crash_leaves_nothing_after_the_next_start(place):
    tree, other = place.open(), place.open(task="t2")
    (place.cache / "main.git" / "packed-refs.lock").touch()
    (place.cache / "half.git" / "objects").mkdir(parents=True)
    again = worktree.Worktrees(place.cache, place.work)
    assert wait(again.clear()) == 2
    assert not tree.path.exists()
    assert not other.path.exists()
    wait(again.empty())
    assert place.left() == []
    assert not (place.cache / "half.git").exists()
    place.open()


@proves("git.no-debris", "agent.goes-on")
def test_the_next_attempt_goes_on_in_a_folder_that_a_crash_left_and_delivers_its_work(place):
    tree, other = place.open(), place.open(task="t2")
    (tree.path / "half.txt").write_text("half")
    beside = tree.path.with_name(f"{tree.path.name}.home")
    beside.mkdir()
    again = worktree.Worktrees(place.cache, place.work)
    assert wait(again.clear({tree.path.name: "t1-1-1"})) == 1
    assert not other.path.exists()
    beside.rmdir()
    adopted = wait(again.adopt(tree, Epoch(1, 2)))
    assert adopted is not None
    assert adopted.path == tree.path
    found = wait(collection.collect(adopted, ["half.txt"], "Do the work", SIGNATURE))
    assert (found.changed, found.missing) == (("half.txt",), ())
    assert wait(again.push(adopted, found.commit)).endswith("t1/1-2")
    wait(again.close(adopted))
    wait(again.empty())
    assert place.left() == []


@proves("git.no-debris", "agent.goes-on")
def test_a_folder_whose_start_nobody_knows_any_more_is_not_gone_on_in(place):
    tree = place.open()
    again = worktree.Worktrees(place.cache, place.work)
    wait(again.clear({tree.path.name: "t1-1-1"}))
    tree.notes.unlink()
    assert wait(again.adopt(tree, Epoch(1, 2))) is None
    wait(again.empty())
    assert place.left() == []


@proves("git.no-debris")
def test_a_full_disk_is_said_clearly_and_leaves_nothing(place, monkeypatch):
    place.open()
    wait(place.shop.clear())
    wait(place.shop.empty())

    def full(*_args, **_more):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(Path, "write_text", full)
    with pytest.raises(Exhausted, match="No space left"):
        place.open()
    monkeypatch.undo()
    assert place.left() == []


@proves("git.few-questions")
def test_an_attempt_asks_its_remote_three_times_and_starts_few_programs(place, monkeypatch):
    plain, asked = git.run_async, []

    async def counted(args, *rest, **more):
        asked.append(list(args))
        return await plain(args, *rest, **more)

    monkeypatch.setattr(git, "run_async", counted)
    tree = place.open()
    (tree.path / "a.txt").write_text("x\n")
    (tree.path / "b.txt").write_text("x\n")
    found = place.collect(tree, "a.txt", "b.txt")
    wait(place.shop.push(tree, found.commit))
    wait(place.shop.close(tree))
    remote = [args[0] for args in asked if place.url in args]
    assert remote == ["fetch", "push", "ls-remote"]
    assert len(asked) <= 18


@proves("git.few-questions")
def test_pushing_again_does_nothing_and_another_commit_of_the_attempt_replaces_it(place):
    tree = place.open()
    (tree.path / "a.txt").write_text("x\n")
    first = place.collect(tree)
    wait(place.shop.push(tree, first.commit))
    before = refs(place.remote)
    wait(place.shop.push(tree, first.commit))
    assert refs(place.remote) == before
    (tree.path / "b.txt").write_text("x\n")
    second = place.collect(tree)
    wait(place.shop.push(tree, second.commit))
    assert refs(place.remote)[REF] == second.commit


@proves("git.few-questions")
def test_a_default_branch_that_is_gone_is_no_start_and_one_that_moved_is_the_new_one(place):
    made = place.branch("one", one__txt="x\n")
    wait(place.shop.close(place.open()))
    sh(place.source, "checkout", "-q", "main")
    newest = commit(place.source, "more", more__txt="x\n")
    sh(place.source, "push", "-q", place.url, "main")
    assert place.open(task="t2").base == newest
    sh(place.remote, "update-ref", "-d", "refs/heads/main")
    with pytest.raises(Refused, match="no commit on its default branch"):
        place.open(task="t3")
    assert place.open(cache.Base("one", made), task="t4").base == made
