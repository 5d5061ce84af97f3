"""A mailbox in a git repository, and what others do to that repository. Real git throughout."""

import asyncio
import contextlib
import hashlib
import itertools
import os
import random
import shutil
import sys
from pathlib import Path
from typing import Any

import pytest
from tests.channel.git_places import QUICK, SURVIVED, bare, foreign, git_post, run, take_all, until
from tests.git.repositories import sh
from tests.promise import proves

from muster import limits
from muster.channel import git
from muster.channel.git import GitPost
from muster.errors import Exhausted, MusterError, Unreachable
from muster.git import mailbox
from muster.git.mailbox import BRANCHES, Mailbox
from muster.git.objects import Objects

NEAR, FAR = f"{BRANCHES}near", f"{BRANCHES}far"


@pytest.fixture
def place(tmp_path: Path) -> Path:
    return bare(tmp_path / "place.git")


async def bodies(post: GitPost) -> set[bytes]:
    return {each.body for each in await post.take()}


def tip(place: Path, branch: str) -> str:
    return sh(place, "for-each-ref", "--format=%(objectname)", branch)


def listed(place: Path, branch: str) -> list[str]:
    return sh(place, "ls-tree", "-r", "--name-only", branch).splitlines()


@proves("channel.git-restored")
@pytest.mark.parametrize("what", ["forced", "rebased", "deleted"])
def test_what_others_do_to_our_branch_is_undone_by_the_next_push(place, tmp_path, what):
    async def scenario() -> None:
        near, far = (git_post(tmp_path, name) for name in ("near", "far"))
        await near.put(b"one", to="far")
        if what == "forced":
            foreign(place, tmp_path, NEAR)
        elif what == "rebased":
            old = tip(place, NEAR)
            onto = foreign(place, tmp_path, f"{BRANCHES}other")
            env = {"GIT_AUTHOR_DATE": "1700000000 +0000"}
            made = sh(place, "commit-tree", "-p", onto, "-m", "x", f"{onto}^{{tree}}", env=env)
            sh(place, "update-ref", NEAR, made, old)
        else:
            sh(place, "update-ref", "-d", NEAR)
        assert await bodies(far) == set(), "what lies there no more is not there"
        await near.put(b"two", to="far")
        assert await bodies(far) == {b"one", b"two"}
        assert sh(place, "rev-list", "--count", NEAR) == "1"
        # And without anything new, by the next look.
        sh(place, "update-ref", "-d", NEAR)
        assert await near.take() == []
        await until(lambda: tip(place, NEAR))

    run(scenario())


@proves("channel.git-restored")
def test_what_the_repository_throws_away_is_nothing_that_is_needed(place, tmp_path):
    async def scenario() -> None:
        near, far = (git_post(tmp_path, name) for name in ("near", "far"))
        for number in range(5):
            await near.put(b"%d" % number, to="far")
            sh(place, "gc", "-q", "--prune=now")
        assert await bodies(far) == {b"%d" % number for number in range(5)}
        sh(place, "gc", "-q", "--prune=now")
        await near.put(b"last", to="far")
        assert await take_all(far) == {b"last", *(b"%d" % number for number in range(5))}

    run(scenario())


def entry(place: Path, mode: str, path: str, body: bytes, index: dict[str, str]) -> str:
    id = sh(place, "hash-object", "-w", "--stdin", stdin=body)
    sh(place, "update-index", "--add", "--cacheinfo", f"{mode},{id},{path}", env=index)
    return id


@proves("channel.git-odd-trees")
def test_of_a_foreign_tree_only_files_that_are_what_their_names_say_are_read(place, tmp_path):
    def name(body: bytes) -> str:
        return f"{hashlib.sha256(body).hexdigest()}.mp"

    index = {"GIT_INDEX_FILE": str(tmp_path / "index")}
    huge = random.Random(1).randbytes(limits.PACKET_BYTES_MAX + 1)
    odd = [
        ("100644", f"to/far/{name(b'good')}", b"good"),
        ("100644", f"to/far/{name(b'good').upper()}", b"good"),
        ("100644", f"TO/far/{name(b'upper')}", b"upper"),
        ("100644", f"to/FAR/{name(b'twin')}", b"twin"),
        ("100644", f"to/far/{name(b'right')}", b"wrong"),
        ("120000", f"to/far/{name(b'link')}", b"link"),
        ("100755", f"to/far/{name(b'runs')}", b"runs"),
        ("100644", f"to/far/{name(b'below')}/x", b"below"),
        ("100644", f"to/far/{name(huge)}", huge),
        ("100644", "to/far/readme", b"read me"),
        ("100644", "acks", b"\xff\n../../etc\n" + b"a" * 64 + b"\n"),
        ("100644", ".gitattributes", b"* filter=run\n"),
        ("100644", ".gitmodules", b'[submodule "x"]\n\tpath = x\n\turl = /x\n'),
    ]
    for each in odd:
        entry(place, *each, index)
    sh(place, "update-index", "--add", "--cacheinfo",
       f"160000,{'1' * 40},to/far/{name(b'module')}", env=index)  # fmt: skip
    tree = sh(place, "write-tree", env=index)
    onto = foreign(place, tmp_path, f"{BRANCHES}stranger")
    made = sh(place, "commit-tree", "-p", onto, "-m", "x", tree)
    for branch in ("stranger", "Near", "a/b", "x" * 17, "ä"):
        with contextlib.suppress(AssertionError):
            sh(place, "update-ref", f"{BRANCHES}{branch}", made)

    async def scenario() -> None:
        near, far = (git_post(tmp_path, each) for each in ("near", "far"))
        await near.put(b"near", to="far")
        assert await bodies(far) == {b"good", b"near"}
        assert await take_all(far) == {b"good", b"near"}
        assert await bodies(near) == set()
        copy = tmp_path / "home-far" / "posts" / "git"
        assert not list(copy.rglob("*.mp")), "nothing is ever checked out"

    run(scenario())


@proves("channel.git-odd-trees")
@pytest.mark.parametrize(
    "words", ["No space left on device", "Cannot allocate memory", "muster: unreachable"]
)
def test_a_branch_whose_content_speaks_as_git_does_is_passed_over_alone(place, tmp_path, words):
    index = {"GIT_INDEX_FILE": str(tmp_path / "index")}
    module = f'[submodule "../{words}"]\n\tpath = x\n\turl = https://x/y\n'
    entry(place, "100644", ".gitmodules", module.encode(), index)
    made = sh(place, "commit-tree", "-m", "x", sh(place, "write-tree", env=index))
    sh(place, "update-ref", f"{BRANCHES}stranger", made)

    async def scenario() -> None:
        near, far = (git_post(tmp_path, each) for each in ("near", "far"))
        await near.put(b"one", to="far")
        assert await take_all(far) == {b"one"}
        await near.put(b"two", to="far")
        assert await take_all(far) == {b"two"}

    run(scenario())


@proves("channel.git-odd-trees")
def test_a_tree_with_too_many_files_is_not_read(place, tmp_path, monkeypatch):
    async def scenario() -> None:
        index = {"GIT_INDEX_FILE": str(tmp_path / "index")}
        id = sh(place, "hash-object", "-w", "--stdin", stdin=b"x")
        lines = "".join(f"100644 {id}\tto/far/{number:064x}.mp\n" for number in range(2000))
        sh(place, "update-index", "--add", "--index-info", stdin=lines.encode(), env=index)
        made = sh(place, "commit-tree", "-m", "x", sh(place, "write-tree", env=index))
        sh(place, "update-ref", f"{BRANCHES}stranger", made)
        near, far = (git_post(tmp_path, each) for each in ("near", "far"))
        await near.put(b"near", to="far")
        read: list[Any] = []
        contents = Objects.contents

        async def counted(self: Objects, ids: Any) -> list[bytes]:
            read.extend(ids)
            return await contents(self, ids)

        monkeypatch.setattr(Objects, "contents", counted)
        assert await bodies(far) == {b"near"}
        assert id not in read
        assert len(read) < 10

    run(scenario())


@proves("channel.git-bounded-copy")
def test_a_branch_that_is_too_large_is_passed_over_and_not_fetched_again(
    place, tmp_path, monkeypatch
):
    source = tmp_path / "large"
    source.mkdir()
    sh(source, "init", "-q")
    (source / "large").write_bytes(random.Random(1).randbytes(600_000))
    sh(source, "add", "large")
    sh(source, "commit", "-q", "-m", "large")
    sh(source, "push", "-q", str(place), f"HEAD:{BRANCHES}stranger")
    monkeypatch.setattr(limits, "GIT_POST_FETCH_BYTES_MAX", 100_000)
    fetched: list[tuple[str, ...]] = []
    fetch = Mailbox._fetch

    async def counted(self: Mailbox, *specs: str) -> None:
        fetched.append(specs)
        await fetch(self, *specs)

    monkeypatch.setattr(Mailbox, "_fetch", counted)

    async def scenario() -> None:
        near, far = (git_post(tmp_path, each) for each in ("near", "far"))
        await near.put(b"one", to="far")
        fetched.clear()
        assert await take_all(far) == {b"one"}
        assert len(fetched) == 3, "all together, and then one by one"
        await near.put(b"two", to="far")
        fetched.clear()
        assert await take_all(far) == {b"two"}
        assert fetched == [(f"+{NEAR}:refs/post/near",)]
        copy = tmp_path / "home-far" / "posts" / "git"
        assert sum(each.stat().st_size for each in copy.rglob("*") if each.is_file()) < 200_000

    run(scenario())


@proves("channel.git-odd-trees")
def test_more_branches_than_are_looked_at_hide_neither_ours_nor_those_that_we_know(
    place, tmp_path, monkeypatch
):
    monkeypatch.setattr(limits, "GIT_POST_BRANCHES_MAX", 2)

    async def scenario() -> None:
        near, far = (git_post(tmp_path, each) for each in ("near", "far"))
        await near.put(b"one", to="far")
        assert await take_all(far) == {b"one"}
        assert not SURVIVED
        foreign(place, tmp_path, *(f"{BRANCHES}{name}" for name in ("a", "b", "c")))
        await near.put(b"two", to="far")
        assert await take_all(far) == {b"two"}
        await far.put(b"receipt", to="near")
        assert await take_all(near) == {b"receipt"}
        assert not near._left, "what was dealt with is seen"
        assert set(SURVIVED) == {"unread"}

    run(scenario())


@proves("channel.git-bounded-copy")
def test_a_repository_that_names_without_end_is_not_written_down_without_end(
    place, tmp_path, monkeypatch
):
    async def scenario() -> None:
        near = git_post(tmp_path, "near")
        await near.put(b"one", to="far")
        foreign(place, tmp_path, *(f"{BRANCHES}{number}" for number in range(40)))
        assert len(await near._heads()) > 40
        monkeypatch.setattr(limits, "GIT_POST_FETCH_BYTES_MAX", 600)
        with pytest.raises(MusterError):
            await near._heads()

    run(scenario())


@proves("channel.git-bounded-copy")
def test_what_is_in_a_copy_that_is_full_is_read(place, tmp_path, monkeypatch):
    async def scenario() -> None:
        near, far = (git_post(tmp_path, each) for each in ("near", "far"))
        await near.put(b"one", to="far")
        assert await bodies(far) == {b"one"}
        foreign(place, tmp_path, f"{BRANCHES}stranger")
        monkeypatch.setattr(limits, "GIT_POST_COPY_BYTES_MAX", 0)
        far = git_post(tmp_path, "far")
        assert await take_all(far) == {b"one"}
        assert set(SURVIVED) == {"unread"}

    run(scenario())


def planted(place: Path, tmp_path: Path, branch: str, files: dict[str, bytes]) -> None:
    """One commit by somebody else on a branch: files, and nothing else."""
    index = {"GIT_INDEX_FILE": str(tmp_path / f"index-{random.random()}")}
    for name, body in files.items():
        entry(place, "100644", name, body, index)
    made = sh(place, "commit-tree", "-m", "x", sh(place, "write-tree", env=index))
    sh(place, "update-ref", branch, made)


@proves("channel.git-bounded-copy")
def test_lists_of_what_was_dealt_with_are_read_of_receivers_alone_and_each_once(
    place, tmp_path, monkeypatch
):
    listed = b"".join(b"%064x\n" % number for number in range(1000))
    read: list[str] = []
    contents = Objects.contents

    async def counted(self: Objects, ids: Any) -> list[bytes]:
        read.extend(ids)
        return await contents(self, ids)

    async def scenario() -> None:
        near, far = (git_post(tmp_path, each) for each in ("near", "far"))
        await near.put(b"one", to="far")
        await near.put(b"two", to="third")
        await take_all(far)
        (packet,) = [name for reader, name in near._left if reader == "far"]
        of_far = b"%s\n" % packet.removesuffix(".mp").encode()
        for branch in ("a", "b"):
            planted(place, tmp_path, f"{BRANCHES}{branch}", {"acks": listed})
        for branch in ("far", "third"):
            planted(place, tmp_path, f"{BRANCHES}{branch}", {"acks": listed + of_far})
        monkeypatch.setattr(Objects, "contents", counted)
        near = git_post(tmp_path, "near")
        assert await bodies(near) == set()
        assert [reader for reader, _ in near._left] == ["third"]
        assert near._branches["far"].acks == {packet.removesuffix(".mp")}
        id = sh(place, "rev-parse", f"{FAR}:acks")
        assert read.count(id) == 1
        assert sh(place, "rev-parse", f"{BRANCHES}a:acks") not in read

    run(scenario())


@proves("channel.git-restored")
@pytest.mark.parametrize("what", ["odd", "full", "acks"])
def test_what_others_put_on_the_branch_of_a_machine_without_a_copy_is_not_its(
    place, tmp_path, what
):
    async def scenario() -> None:
        near, far = (git_post(tmp_path, each) for each in ("near", "far"))
        await far.put(b"for near", to="near")
        (name,) = [name for _, name in far._left]
        full = {f"to/far/{number:064x}.mp": b"x" for number in range(3)}
        module = b'[submodule "../x"]\n\tpath = x\n\turl = https://x/y\n'
        files: dict[str, dict[str, bytes]] = {
            "odd": {".gitmodules": module},
            "full": full,
            "acks": {"acks": b"%s\n" % name.removesuffix(".mp").encode()},
        }
        planted(place, tmp_path, NEAR, files[what])
        assert await bodies(near) == {b"for near"}
        await near.put(b"one", to="far")
        assert listed(place, NEAR)[1:] == [f"to/far/{hashlib.sha256(b'one').hexdigest()}.mp"]
        assert await take_all(far) == {b"one"}

    run(scenario())


@proves("channel.git-restored")
@pytest.mark.parametrize("what", ["root", "to", "box", "file", "acks"])
def test_what_is_missing_of_our_own_is_no_empty_box(place, tmp_path, what):
    at = {
        "root": "^{tree}", "to": ":to", "box": ":to/far", "acks": ":acks",
        "file": f":to/far/{hashlib.sha256(b'one').hexdigest()}.mp",
    }  # fmt: skip

    async def scenario() -> None:
        near, far = (git_post(tmp_path, each) for each in ("near", "far"))
        await near.put(b"one", to="far")
        copy = tmp_path / "home-near" / "posts" / "git"
        id = sh(copy, "rev-parse", f"refs/own{at[what]}")
        (copy / "objects" / id[:2] / id[2:]).unlink()
        near = git_post(tmp_path, "near")
        with pytest.raises(Unreachable):
            await near.put(b"two", to="far")
        assert await bodies(far) == {b"one"}
        await near.put(b"two", to="far")
        assert await take_all(far) == {b"one", b"two"}

    run(scenario())


@proves("channel.git-restored")
def test_many_files_of_strangers_keep_no_other_from_being_told_that_its_own_was_dealt_with(
    place, tmp_path, monkeypatch
):
    monkeypatch.setattr(limits, "GIT_POST_ACKS_MAX", 4)
    junk = {hashlib.sha256(b"%d" % n).hexdigest(): b"%d" % n for n in range(50)}

    async def scenario() -> None:
        near, far = (git_post(tmp_path, each) for each in ("near", "far"))
        body = next(
            b"near %d" % n
            for n in range(100_000)
            if hashlib.sha256(b"near %d" % n).hexdigest() > max(junk)
        )
        planted(place, tmp_path, f"{BRANCHES}a", {f"to/far/{h}.mp": b for h, b in junk.items()})
        await near.put(body, to="far")
        await take_all(far, 250)
        await far.put(b"receipt", to="near")
        assert hashlib.sha256(body).hexdigest() in sh(place, "cat-file", "blob", f"{FAR}:acks")

    run(scenario())


@proves("channel.git-runs-nothing")
def test_nothing_of_a_repository_on_this_machine_runs(place, tmp_path):
    ran = tmp_path / "ran"
    lender = bare(tmp_path / "lender.git")
    foreign(lender, tmp_path, "refs/heads/main")
    (place / "objects" / "info" / "alternates").write_text(f"{lender / 'objects'}\n")
    for hook in ("pre-receive", "update", "post-receive", "post-update", "reference-transaction"):
        path = place / "hooks" / hook
        path.write_text(f"#!/bin/sh\necho {hook} >> {ran}\nexit 1\n")
        path.chmod(0o755)
    for setting in ("core.alternateRefsCommand", "core.sshCommand", "uploadpack.packObjectsHook"):
        sh(place, "config", setting, f"touch {ran}; :")
    # A push into what is checked out would write files, through filters that are programs.
    sh(place, "config", "core.bare", "false")
    sh(place, "config", "core.worktree", str(tmp_path / "tree"))
    sh(place, "config", "receive.denyCurrentBranch", "updateInstead")
    (tmp_path / "tree").mkdir()

    async def scenario() -> None:
        near, far = (git_post(tmp_path, each) for each in ("near", "far"))
        await near.put(b"one", to="far")
        assert await take_all(far) == {b"one"}
        sh(place, "symbolic-ref", "HEAD", NEAR)
        with pytest.raises(Unreachable, match="refusing to update"):
            await near.put(b"two", to="far")
        assert not ran.exists()
        assert not list((tmp_path / "tree").iterdir())

    run(scenario())


@proves("channel.git-place")
def test_a_repository_of_another_user_on_this_machine_is_a_place_as_well(
    place, tmp_path, monkeypatch
):
    other = f"GIT_TEST_ASSUME_DIFFERENT_OWNER=1 {mailbox._OURS}"
    monkeypatch.setattr(mailbox, "_OURS", other)

    async def scenario() -> None:
        near, far = (git_post(tmp_path, each) for each in ("near", "far"))
        await near.put(b"one", to="far")
        assert await take_all(far) == {b"one"}

    run(scenario())


@proves("channel.git-runs-nothing")
def test_a_repository_on_this_machine_is_not_tidied_by_a_push(place, tmp_path):
    for setting, value in {
        "receive.unpackLimit": "1", "gc.autoPackLimit": "1", "gc.autoDetach": "false",
    }.items():  # fmt: skip
        sh(place, "config", setting, value)

    async def scenario() -> None:
        near = git_post(tmp_path, "near")
        for number in range(3):
            await near.put(b"%d" % number, to="far")

    run(scenario())
    assert len(list((place / "objects" / "pack").glob("*.pack"))) == 3


@proves("channel.git-runs-nothing")
def test_what_a_repository_on_this_machine_lacks_is_fetched_from_nowhere(place, tmp_path):
    ran = tmp_path / "ran"
    for setting, value in {
        "core.repositoryFormatVersion": "1", "extensions.partialClone": "lender",
        "remote.lender.promisor": "true", "remote.lender.url": str(place),
        "remote.lender.uploadpack": f"touch {ran};",
    }.items():  # fmt: skip
        sh(place, "config", setting, value)
    foreign(place, tmp_path, f"{BRANCHES}stranger")
    tree = sh(place, "rev-parse", f"{BRANCHES}stranger^{{tree}}")
    (place / "objects" / tree[:2] / tree[2:]).unlink()

    async def scenario() -> None:
        near, far = (git_post(tmp_path, each) for each in ("near", "far"))
        await near.put(b"one", to="far")
        with contextlib.suppress(Unreachable):
            await far.take()
        assert not ran.exists()

    run(scenario())


SSH = """\
#!{python}
# What git calls ssh: the far side is this machine, where the last word is the command.
import os, sys
open({pids!r}, "a").write(f"{{os.getpid()}}\\n")
{before}
os.execvp("sh", ["sh", "-c", sys.argv[-1]])
"""


def far_side(tmp_path: Path, monkeypatch: Any, before: str = "") -> Path:
    """Have `ssh://host/…` be a folder of this machine, served as another machine serves it."""
    folder = tmp_path / "bin"
    folder.mkdir(exist_ok=True)
    pids = tmp_path / "pids"
    (folder / "ssh").write_text(SSH.format(python=sys.executable, pids=str(pids), before=before))
    (folder / "ssh").chmod(0o755)
    # Our own programs come first on the path of git.
    monkeypatch.setattr("sys.executable", str(folder / "python"))
    return pids


@proves("channel.post-says-so", "channel.git-restored")
def test_a_repository_that_refuses_is_said_with_its_reason(place, tmp_path, monkeypatch):
    far_side(tmp_path, monkeypatch)
    hook = place / "hooks" / "pre-receive"
    hook.write_text("#!/bin/sh\necho 'no room for you here' >&2\nexit 1\n")

    async def scenario() -> None:
        address = f"ssh://host{place}"
        near, far = (git_post(tmp_path, each, address) for each in ("near", "far"))
        hook.chmod(0o755)
        with pytest.raises(Unreachable, match="hook declined"):
            await near.put(b"one", to="far")
        assert await take_all(far) == set()
        hook.chmod(0o644)
        await near.put(b"two", to="far")
        assert await take_all(far) == {b"one", b"two"}

    run(scenario())


@proves("channel.git-restored")
def test_a_push_that_failed_and_for_which_nobody_waits_is_tried_again(place, tmp_path, monkeypatch):
    far_side(tmp_path, monkeypatch)
    hook, refused = place / "hooks" / "pre-receive", tmp_path / "refused"
    hook.write_text(f"#!/bin/sh\ntouch {refused}\nexit 1\n")

    async def scenario() -> None:
        near = git_post(tmp_path, "near", f"ssh://host{place}")
        await near.put(b"one", to="far")
        hook.chmod(0o755)
        sh(place, "update-ref", "-d", NEAR)
        assert await near.take() == []
        await until(refused.exists)
        hook.chmod(0o644)
        await until(lambda: tip(place, NEAR))

    run(scenario())


def is_alive(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    return True


@proves("channel.git-hangs")
def test_a_repository_that_hangs_is_given_up_on_and_nothing_of_it_is_left(
    place, tmp_path, monkeypatch
):
    pids = far_side(tmp_path, monkeypatch, "import time; time.sleep(600)")
    monkeypatch.setattr(limits, "GIT_POST_ASK_MS_MAX", 1_500)

    async def scenario() -> None:
        near = git_post(tmp_path, "near", f"ssh://host{place}")
        for work in (near.put(b"one", to="far"), near.take()):
            with pytest.raises(Unreachable, match="gave no result"):
                await work
        monkeypatch.setattr(limits, "GIT_POST_ASK_MS_MAX", 600_000)
        before = len(pids.read_text().split())
        hangs = asyncio.create_task(near.put(b"two", to="far"))
        await until(lambda: len(pids.read_text().split()) > before)
        await near.close()
        with pytest.raises(Unreachable, match="closed"):
            await hangs
        await until(lambda: not any(map(is_alive, map(int, pids.read_text().split()))))

    run(scenario())


@proves("channel.git-restored")
def test_a_copy_that_is_lost_or_damaged_costs_nothing_that_lies_there(place, tmp_path):
    async def scenario() -> None:
        near, far = (git_post(tmp_path, each) for each in ("near", "far"))
        copy = tmp_path / "home-near" / "posts" / "git"
        await near.put(b"one", to="far")
        shutil.rmtree(copy)
        near = git_post(tmp_path, "near")
        await near.put(b"two", to="far")
        assert await bodies(far) == {b"one", b"two"}
        for file in (copy / "objects").glob("??/*"):
            file.chmod(0o600)
            file.write_bytes(b"")
        near = git_post(tmp_path, "near")
        with pytest.raises(Unreachable):
            await near.put(b"three", to="far")
        await near.put(b"three", to="far")
        assert await take_all(far) == {b"one", b"two", b"three"}

    run(scenario())


@proves("channel.post-nothing-lost")
def test_what_was_dealt_with_is_remembered_and_goes_from_both_sides(place, tmp_path):
    async def scenario() -> None:
        near, far = (git_post(tmp_path, each) for each in ("near", "far"))
        await near.put(b"one", to="far")
        (packet,) = await far.take()
        await far.ack([packet.id])
        far = git_post(tmp_path, "far")
        assert await far.take() == [], "remembered before it was told"
        await far.put(b"answer", to="near")
        assert packet.id in sh(place, "cat-file", "blob", f"{FAR}:acks")
        assert await take_all(near) == {b"answer"}
        await near.put(b"two", to="far")
        assert len(listed(place, NEAR)) == 2
        assert await take_all(far) == {b"two"}
        await far.put(b"again", to="near")
        assert packet.id not in sh(place, "cat-file", "blob", f"{FAR}:acks")
        # An old state of the branch, put back by somebody: it was dealt with.
        old = sh(place, "commit-tree", "-m", "x", f"{NEAR}^{{tree}}")
        assert await take_all(near) == {b"again"}
        await near.put(b"three", to="far")
        assert await take_all(far) == {b"three"}
        sh(place, "update-ref", NEAR, old)
        assert await far.take() == []

    run(scenario())


# 40 are ten thousand packets, and a minute of a busy machine.
ROUNDS = int(os.environ.get("GIT_POST_ROUNDS", "8"))


@proves("channel.git-bounded")
def test_any_number_of_packets_leaves_one_commit_for_each_machine_and_a_small_copy(
    place, tmp_path, monkeypatch
):
    monkeypatch.setattr(mailbox, "_TIDY_AFTER", 4)
    rng = random.Random(1)

    async def scenario() -> None:
        near, far = (git_post(tmp_path, each) for each in ("near", "far"))
        seen: set[bytes] = set()
        for _ in range(ROUNDS):
            sent = [rng.randbytes(100) for _ in range(250)]
            await asyncio.gather(*(near.put(each, to="far") for each in sent))
            seen |= await take_all(far, 250)
            await far.put(rng.randbytes(100), to="near")
            await take_all(near)
        assert len(seen) == ROUNDS * 250

    run(scenario())
    assert sorted(sh(place, "for-each-ref", "--format=%(refname)").split()) == [FAR, NEAR]
    assert sh(place, "rev-list", "--all", "--count") == "2"
    sh(place, "gc", "-q", "--prune=now")
    for repo in (
        place,
        tmp_path / "home-near" / "posts" / "git",
        tmp_path / "home-far" / "posts" / "git",
    ):
        about = dict(line.split(": ") for line in sh(repo, "count-objects", "-v").splitlines())
        assert int(about["count"]) + int(about["in-pack"]) < 1_500, repo
        assert int(about["packs"]) <= 64, repo


@proves("channel.git-bounded")
def test_so_much_lies_there_for_one_machine_until_that_one_dealt_with_it(place, tmp_path):
    async def scenario() -> None:
        terms = QUICK._replace(box_bytes_max=1000)
        near, far = git_post(tmp_path, "near", terms=terms), git_post(tmp_path, "far")
        await near.put(b"x" * 900, to="far")
        with pytest.raises(Exhausted):
            await near.put(b"y" * 900, to="far")
        # And to the others it is as it was.
        await near.ack([])
        await near.put(b"z" * 900, to="third")
        await take_all(far)
        await far.put(b"receipt", to="near")
        await near.take()
        await near.put(b"y" * 900, to="far")
        assert await take_all(far) == {b"y" * 900}

    run(scenario())


@proves("channel.git-seldom")
def test_what_is_left_together_is_one_push_and_between_two_there_is_a_pause(
    place, tmp_path, monkeypatch
):
    pushes: list[float] = []
    push = Mailbox.push

    async def counted(self: Mailbox, *args: Any) -> None:
        pushes.append(asyncio.get_running_loop().time())
        await push(self, *args)

    monkeypatch.setattr(Mailbox, "push", counted)

    async def scenario() -> None:
        near = git_post(tmp_path, "near", terms=QUICK._replace(gap_s=0.5))
        for round in range(3):
            await asyncio.gather(*(near.put(b"%d %d" % (round, n), to="far") for n in range(30)))

    run(scenario())
    assert len(pushes) == 3
    assert all(late - early >= 0.5 for early, late in itertools.pairwise(pushes))


@proves("channel.post-news")
def test_the_pace_of_looking_falls_while_nothing_comes(place, tmp_path, monkeypatch):
    monkeypatch.setattr(git, "URGENT_S", 0.01)
    monkeypatch.setattr(git, "_IDLE_S", 0.01)

    async def scenario() -> None:
        near, far = (git_post(tmp_path, each) for each in ("near", "far"))
        far._deadline_s = 0
        for _ in range(5):
            await far.news(urgent=True)
        assert far._idle_s == 0.01
        for _ in range(5):
            await far.news(urgent=False)
        assert far._idle_s == pytest.approx(0.32)
        await near.put(b"one", to="far")
        await take_all(far)
        assert far._idle_s == 0.01

    run(scenario())


@proves("channel.post-news")
def test_who_leaves_something_after_a_quiet_looks_again_at_once(place, tmp_path):
    async def scenario() -> None:
        near = git_post(tmp_path, "near")
        near._deadline_s = 3600
        dozes = asyncio.create_task(near.news(urgent=False))
        await near.put(b"one", to="far")
        async with asyncio.timeout(60):
            await dozes
        # Who looks soon anyway is not woken once more by what it leaves.
        soon = asyncio.create_task(near.news(urgent=True))
        await near.put(b"two", to="far")
        await asyncio.sleep(0.05)
        assert not soon.done()
        soon.cancel()

    run(scenario())


@proves("channel.git-event")
def test_who_is_told_looks_at_once_and_being_told_over_and_over_is_being_told_seldom(tmp_path):
    async def scenario() -> None:
        far = git_post(tmp_path, "far", terms=QUICK._replace(gap_s=0.5))
        far._deadline_s = 3600
        loop = asyncio.get_running_loop()
        began_s = loop.time()
        async with asyncio.timeout(60):
            for _ in range(3):
                for _ in range(1000):
                    far.ring()
                await far.news(urgent=False)
        assert loop.time() - began_s >= 1.0

    run(scenario())


@proves("channel.git-runs-nothing")
def test_what_the_environment_says_to_git_says_nothing_here(place, tmp_path, monkeypatch):
    elsewhere = bare(tmp_path / "elsewhere.git")
    for name, value in {
        "GIT_DIR": str(elsewhere), "GIT_CONFIG_COUNT": "1", "GIT_CONFIG_KEY_0": "core.sshCommand",
        "GIT_CONFIG_VALUE_0": "false", "GIT_OBJECT_DIRECTORY": str(elsewhere / "objects"),
        "GIT_NAMESPACE": "x", "GIT_SSH_COMMAND": "false", "GIT_EXTERNAL_DIFF": "false",
    }.items():  # fmt: skip
        monkeypatch.setenv(name, value)

    async def scenario() -> None:
        near, far = (git_post(tmp_path, each) for each in ("near", "far"))
        await near.put(b"one", to="far")
        assert await take_all(far) == {b"one"}

    run(scenario())
    monkeypatch.undo()
    assert tip(elsewhere, NEAR) == ""


@proves("channel.git-place")
@pytest.mark.parametrize(
    "text",
    [
        "", "shared.git", "./x", "-x", "a b\n", "ext::sh -c id", "git://host/x", "http://host/x",
        "https://name:secret@host/x", "https://secret@host/x", "ssh://name:secret@host/x",
        "https://host/x?token=secret",
    ],
)  # fmt: skip
def test_what_is_no_repository_or_holds_a_secret_is_refused_and_not_repeated(text: str):
    with pytest.raises(MusterError) as found:
        git.Options().check_place(text)
    assert "secret" not in str(found.value)


@proves("channel.git-place")
@pytest.mark.parametrize(
    "text",
    ["/srv/x.git", "~/Shared folder/x.git", "ssh://host/x", "host:x.git", "git@host:x/y.git",
     "https://host/x.git", "file:///srv/x", "muster::hub/post"],
)  # fmt: skip
def test_what_git_takes_is_a_place(text: str):
    assert git.Options().check_place(text) == text
