"""Bare repositories on a hub, refs that move by compare-and-set, and git itself."""

import asyncio
import os
from pathlib import Path

import pytest
from tests.git.repositories import MAKER, checkout, commit, git_in, plain, refs, sh, wait
from tests.promise import proves

from muster.errors import (
    Broken,
    Conflict,
    Damaged,
    Exhausted,
    Forged,
    Malformed,
    NotFound,
    Refused,
    Unreachable,
)
from muster.git import command as git
from muster.git import fault, ref, repository
from muster.git.fence import BRANCH_PREFIX, Epoch, attempt_ref, fence_ref

FIRST = Epoch(1, 1)
BRANCH = f"{BRANCH_PREFIX}r1/test"


@pytest.fixture
def source(tmp_path: Path) -> Path:
    return checkout(tmp_path / "source")


@pytest.fixture
def repo(tmp_path: Path, source: Path) -> Path:
    return wait(repository.add(tmp_path / "repos", "main", str(source))).path


def promotion(**changes):
    base = {
        "task": "t1",
        "epoch": Epoch(1, 1),
        "branch": BRANCH,
        "commit": "",
        "base": "",
        "expected": None,
        "maker": None,
    }
    return ref.Promotion(**base | changes)


def attempt(repo: Path, source: Path, epoch: Epoch = FIRST) -> tuple[str, str]:
    """Register the epoch and put a pushed attempt there; (base, commit)."""
    base = sh(source, "rev-parse", "HEAD")
    made = commit(source, "work", result__txt=f"done in {epoch}\n")
    sh(source, "reset", "-q", "--hard", base)
    wait(ref.register(repo, "t1", epoch))
    sh(repo, "fetch", "-q", str(source), made)
    sh(repo, "update-ref", attempt_ref("t1", epoch), made)
    return base, made


@proves("git.repository-add")
def test_a_repository_is_added_with_its_branches_and_guard(tmp_path, source):
    sh(source, "branch", "side")
    sh(source, "branch", "muster/old/phase")
    added = wait(repository.add(tmp_path / "repos", "main", str(source)))
    here = {"refs/heads/main", "refs/heads/side"}
    assert set(refs(added.path)) == here | {ref.replace("heads", "follow/heads") for ref in here}
    assert repository.guarded(added.path)
    assert added.left_out == ("muster/old/phase",)
    assert repository.listing(tmp_path / "repos") == {"main": added.path}
    assert repository.find(tmp_path / "repos", "main") == added.path
    assert wait(repository.head(added.path)) == sh(source, "rev-parse", "HEAD")


@proves("git.repository-add")
def test_a_source_with_another_default_branch_keeps_it(tmp_path, source):
    sh(source, "checkout", "-q", "-b", "trunk")
    added = wait(repository.add(tmp_path / "repos", "main", str(source)))
    assert sh(added.path, "symbolic-ref", "HEAD") == "refs/heads/trunk"


@proves("git.repository-add")
@pytest.mark.parametrize(
    ("name", "where", "error"),
    [
        ("main", "/nowhere/at/all", NotFound),
        ("main", "ext::sh -c touch% hacked", Refused),
        ("main", "http://127.0.0.1:1/x", Refused),
        ("main", "-uhacked", Malformed),
        ("main", "--upload-pack=hacked", Malformed),
        ("../main", ".", Malformed),
    ],
)
@proves("git.hostile-input")
def test_a_bad_source_adds_nothing(tmp_path, name, where, error):
    with pytest.raises(error):
        wait(repository.add(tmp_path / "repos", name, where))
    assert not list(tmp_path.rglob("*.git"))
    assert not list(tmp_path.rglob("*hacked*"))
    assert not list((tmp_path / "repos").glob("*"))


@proves("git.repository-add")
def test_a_taken_name_is_refused_and_the_repository_stays(repo, source):
    before = refs(repo)
    with pytest.raises(Conflict):
        wait(repository.add(repo.parent, "main", str(source)))
    assert refs(repo) == before


@proves("git.repository-add")
def test_a_shallow_source_is_refused_instead_of_losing_its_branches(tmp_path, source):
    commit(source, "second")
    sh(tmp_path, "clone", "-q", "--depth", "1", f"file://{source}", "shallow")
    with pytest.raises(Refused, match="unshallow"):
        wait(repository.add(tmp_path / "repos", "main", str(tmp_path / "shallow")))
    assert not list((tmp_path / "repos").glob("*"))


@proves("git.repository-add", "git.no-debris")
def test_what_a_crash_left_is_swept_and_what_is_in_use_stays(repo):
    left = [
        repo.parent / ".new-abc" / "hooks",
        repo / "objects" / "tmp_objdir-incoming-x" / "pack",
        repo / "refs" / "muster" / "fence" / "t1.lock",
        repo / "packed-refs.lock",
    ]
    for path in left:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.mkdir() if path.suffix != ".lock" else path.touch()
    began_s = left[-1].stat().st_mtime
    before = refs(repo)
    assert repository.sweep(repo.parent, began_s + 1) == 0
    assert repository.sweep(repo.parent, began_s + 3600) == 3
    # A first copy may take hours, and its folder looks as it did when it began.
    assert left[0].exists()
    assert repository.sweep(repo.parent, began_s + 6 * 3600) == 0
    assert repository.sweep(repo.parent, began_s + 7 * 3600) == 1
    assert not any(path.exists() for path in left)
    assert refs(repo) == before
    assert repository.sweep(repo.parent / "gone", began_s) == 0
    wait(ref.register(repo, "t1", FIRST))


@proves("git.guard-stands")
@pytest.mark.parametrize("damage", ["missing", "edited", "not executable", "config", "python"])
def test_a_damaged_guard_is_written_anew(repo, damage):
    hook = repo / "hooks" / "pre-receive"
    if damage == "missing":
        hook.unlink()
    elif damage == "edited":
        hook.write_text("#!/bin/sh\nexit 0\n")
    elif damage == "not executable":
        hook.chmod(0o600)
    elif damage == "config":
        sh(repo, "config", "core.hooksPath", "/tmp")
    else:
        repository.write_guard(repo, "/gone/python")
    assert not repository.guarded(repo)
    repository.check(repo)
    assert repository.guarded(repo)


@proves("git.guard-stands")
def test_a_push_past_the_daemon_is_refused(repo, source):
    before = refs(repo)
    commit(source, "more")
    with pytest.raises(AssertionError, match="muster: refused"):
        sh(source, "push", str(repo), "main")
    assert refs(repo) == before


@proves("git.epoch-rises")
def test_a_fence_rises_and_never_falls(repo):
    assert wait(ref.epoch(repo, "t1")) is None
    wait(ref.register(repo, "t1", Epoch(1, 1)))
    wait(ref.register(repo, "t1", Epoch(2, 0)))
    wait(ref.register(repo, "t1", Epoch(2, 0)))
    before = refs(repo)
    with pytest.raises(Refused):
        wait(ref.register(repo, "t1", Epoch(1, 9)))
    assert refs(repo) == before
    assert wait(ref.epoch(repo, "t1")) == Epoch(2, 0)


@proves("git.epoch-rises")
def test_of_two_racing_registrations_the_fence_keeps_the_winner(repo):
    wait(ref.register(repo, "t1", Epoch(1, 1)))

    async def race():
        work = [ref.register(repo, "t1", Epoch(1, 2 + n)) for n in range(4)]
        return await asyncio.gather(*work, return_exceptions=True)

    ended = wait(race())
    assert ended.count(None) >= 1
    assert all(isinstance(error, Conflict | Refused) for error in ended if error is not None)
    won = max(n for n, error in enumerate(ended) if error is None)
    assert wait(ref.epoch(repo, "t1")) == Epoch(1, 2 + won)


@proves("git.promotion-is-atomic")
def test_a_settled_attempt_becomes_the_branch(repo, source):
    base, made = attempt(repo, source)
    wait(ref.promote(repo, promotion(commit=made, base=base)))
    assert refs(repo)[BRANCH] == made
    wait(ref.promote(repo, promotion(commit=made, base=base)))


@proves("git.promotion-ends")
@pytest.mark.parametrize("which", ["attempt", "fence", "branch"])
def test_a_ref_whose_object_is_lost_is_not_said_to_be_missing(repo, source, which):
    base, made = attempt(repo, source)
    name = {"attempt": attempt_ref("t1", FIRST), "fence": fence_ref("t1"), "branch": BRANCH}[which]
    # As a disk that failed leaves it: the ref is a file that names nothing.
    (repo / name).parent.mkdir(parents=True, exist_ok=True)
    (repo / name).write_text(f"{'1' * 40}\n")
    error, says = (Conflict, "already exists") if which == "branch" else (Damaged, "is lost")
    with pytest.raises(error, match=says):
        wait(ref.promote(repo, promotion(commit=made, base=base)))
    assert (repo / name).read_text() == f"{'1' * 40}\n"


@proves("git.promotion-ends")
def test_a_branch_in_the_way_of_ours_is_refused_by_name_and_not_tried_again(repo, source):
    base, made = attempt(repo, source)
    sh(repo, "update-ref", "refs/heads/muster", base)
    before = refs(repo)
    with pytest.raises(Refused, match=r"'refs/heads/muster' exists.*rename"):
        wait(ref.promote(repo, promotion(commit=made, base=base)))
    assert refs(repo) == before


@proves("git.promotion-is-atomic")
def test_of_two_owners_promoting_exactly_one_wins(repo, source):
    base, made = attempt(repo, source)
    other = commit(source, "other", other__txt="x")
    sh(repo, "fetch", "-q", str(source), other)
    wait(ref.register(repo, "t2", Epoch(1, 1)))
    sh(repo, "update-ref", attempt_ref("t2", Epoch(1, 1)), other)

    async def race():
        first = ref.promote(repo, promotion(commit=made, base=base))
        second = ref.promote(repo, promotion(task="t2", commit=other, base=base))
        return await asyncio.gather(first, second, return_exceptions=True)

    ended = wait(race())
    assert ended.count(None) == 1
    assert sum(isinstance(error, Conflict) for error in ended) == 1
    assert refs(repo)[BRANCH] == (made if ended[0] is None else other)


@proves("git.promotion-is-atomic", "git.epoch-rises")
def test_a_late_result_of_an_older_epoch_is_not_promoted(repo, source):
    base, made = attempt(repo, source)
    wait(ref.register(repo, "t1", Epoch(1, 2)))
    before = refs(repo)
    with pytest.raises(Conflict, match="late"):
        wait(ref.promote(repo, promotion(commit=made, base=base)))
    assert refs(repo) == before


@proves("git.promotion-is-atomic")
def test_a_fence_that_rises_in_the_middle_of_a_promotion_stops_it(repo, source, monkeypatch):
    base, made = attempt(repo, source)
    real = ref.swap

    async def rise_first(where, moves):
        monkeypatch.setattr(ref, "swap", real)
        await ref.register(repo, "t1", Epoch(1, 2))
        await real(where, moves)

    monkeypatch.setattr(ref, "swap", rise_first)
    with pytest.raises(Conflict):
        wait(ref.promote(repo, promotion(commit=made, base=base)))
    assert BRANCH not in refs(repo)
    assert wait(ref.epoch(repo, "t1")) == Epoch(1, 2)


@proves("git.promotion-checks-commit")
def test_a_commit_that_is_not_the_attempts_is_refused(repo, source):
    base, made = attempt(repo, source)
    stranger = sh(source, "commit-tree", "-m", "x", f"{base}^{{tree}}")
    sh(repo, "fetch", "-q", str(source), f"{made}")
    before = refs(repo)
    cases = [
        (promotion(commit=base, base=base), Refused),
        (promotion(commit=made, base=stranger), Refused),
        (promotion(commit="main", base=base), Malformed),
        (promotion(epoch=Epoch(1, 2), commit=made, base=base), NotFound),
        (promotion(commit=made, base=base, expected=base), Conflict),
    ]
    for wanted, error in cases:
        with pytest.raises(error):
            wait(ref.promote(repo, wanted))
    assert refs(repo) == before


@proves("git.default-branch-moves")
def test_a_push_to_the_default_branch_meanwhile_fails_no_attempt(repo, source):
    _, made = attempt(repo, source)
    newest = commit(source, "somebody else's", other__txt="x\n")
    stranger = sh(source, "commit-tree", "-m", "x", f"{made}^{{tree}}")
    sh(repo, "fetch", "-q", str(source), "main")
    with pytest.raises(Refused, match="does not descend"):
        wait(ref.promote(repo, promotion(commit=made, base=newest)))
    sh(repo, "fetch", "-q", str(source), made)
    wait(ref.promote(repo, promotion(commit=made, base=newest, base_moves=True)))
    assert refs(repo)[BRANCH] == made
    # With no history in common it did not begin there, whenever that was.
    sh(source, "update-ref", "refs/heads/stranger", stranger)
    sh(repo, "fetch", "-q", str(source), "stranger")
    wait(ref.register(repo, "t2", FIRST))
    sh(repo, "update-ref", attempt_ref("t2", FIRST), stranger)
    foreign = promotion(task="t2", commit=stranger, base=newest, base_moves=True, expected=made)
    with pytest.raises(Refused, match="no history in common with the default branch"):
        wait(ref.promote(repo, foreign))


@proves("git.promotion-checks-commit", "git.forged-commit")
def test_a_commit_that_its_machine_did_not_sign_is_not_promoted(repo, source):
    base, made = attempt(repo, source)
    before = refs(repo)
    with pytest.raises(Forged):
        wait(ref.promote(repo, promotion(commit=made, base=base, maker=MAKER)))
    assert refs(repo) == before


@proves("git.foreign-remote")
def test_a_foreign_remote_is_fenced_by_compare_and_set(tmp_path, source):
    url = plain(tmp_path / "foreign.git", source)
    base = sh(source, "rev-parse", "HEAD")
    made = commit(source, "work")
    wait(ref.register(source, "t1", Epoch(1, 1), url))
    wait(ref.register(source, "t1", Epoch(1, 1), url))
    wait(ref.swap_remote(source, url, attempt_ref("t1", Epoch(1, 1)), None, made))
    with pytest.raises(Conflict):
        wait(ref.swap_remote(source, url, attempt_ref("t1", Epoch(1, 1)), None, base))
    wait(ref.promote_remote(source, url, promotion(commit=made, base=base)))
    wait(ref.register(source, "t1", Epoch(1, 2), url))
    before = refs(Path(url))
    assert before[BRANCH] == made
    for epoch in (Epoch(1, 1), Epoch(0, 9)):
        with pytest.raises(Refused):
            wait(ref.register(source, "t1", epoch, url))
    with pytest.raises(Conflict):
        late = promotion(commit=made, base=base, branch=f"{BRANCH_PREFIX}r1/late")
        wait(ref.promote_remote(source, url, late))
    assert refs(Path(url)) == before


@proves("git.foreign-remote")
def test_of_two_owners_at_a_foreign_remote_exactly_one_wins(tmp_path, source):
    url = plain(tmp_path / "foreign.git", source)
    first, second = commit(source, "one"), commit(source, "two")

    async def race():
        work = [ref.swap_remote(source, url, BRANCH, None, made) for made in (first, second)]
        return await asyncio.gather(*work, return_exceptions=True)

    ended = wait(race())
    assert ended.count(None) == 1
    assert sum(isinstance(error, Conflict) for error in ended) == 1


def test_attempts_survive_maintenance(repo, source):
    _, made = attempt(repo, source)
    before = refs(repo)
    wait(repository.maintain(repo))
    assert refs(repo) == before
    assert sh(repo, "cat-file", "-t", made) == "commit"


@proves("git.errors-name-the-reason")
def test_an_error_names_what_git_said(tmp_path):
    with pytest.raises(NotFound, match=r"not a git repository"):
        git_in(tmp_path, "rev-parse", "HEAD")
    with pytest.raises(NotFound, match="no folder"):
        git_in(tmp_path / "gone", "status")
    for err, kind in [
        ("hint: x\nfatal: write error: No space left on device\n", Exhausted),
        ("fatal: sha1 file '/x/index.lock' write error. Out of diskspace\n", Exhausted),
        ("remote: muster: refused: stale\nerror: failed to push\n", Refused),
        ("fatal: Could not read from remote repository.\n", Unreachable),
        ("fatal: something new\n", Broken),
        ("error: object file objects/e6/9de29 is empty\n", Damaged),
        ("fatal: 'refs/heads/muster' exists; cannot create 'refs/heads/muster/r/p'\n", Refused),
    ]:
        error = fault.meaning("push", 128, err, err)
        assert type(error) is kind
    assert git.reason("hint: no\nwarning: no\nremote: muster: refused: \x1b[31mred\n").isprintable()


@proves("git.bounded-run")
def test_a_command_writes_no_file_larger_than_it_may(source, tmp_path):
    (source / "large").write_bytes(os.urandom(200_000))
    with pytest.raises(Broken):
        wait(git.run_async(["hash-object", "-w", "large"], source, file_bytes_max=50_000))
    wait(git.run_async(["hash-object", "-w", "large"], source, file_bytes_max=500_000))


@proves("git.bounded-run")
def test_a_slow_git_is_ended_with_its_children(tmp_path, source):
    os.mkfifo(tmp_path / "alive")
    # Whoever lives holds the pipe open, so reading to its end means that nobody does.
    alive = os.open(tmp_path / "alive", os.O_RDONLY | os.O_NONBLOCK)
    slow = ["-c", f"alias.slow=!exec >{tmp_path}/alive; echo on; exec sleep 60", "slow"]
    with pytest.raises(
        Unreachable, match="git slow gave no result in 0 s and was ended; try again"
    ):
        wait(git.run_async(slow, source, timeout_ms=700))

    async def cancelled():
        task = asyncio.create_task(git.run_async(slow, source))
        done, _ = await asyncio.wait([task], timeout=0.7)
        assert not done
        task.cancel()
        await asyncio.wait([task])
        assert task.cancelled()

    wait(cancelled())
    os.set_blocking(alive, True)
    with os.fdopen(alive, "rb") as pipe:
        assert pipe.read() == b"on\n" * 2


@proves("git.hostile-input")
def test_hooks_and_user_configuration_do_not_run(tmp_path, source):
    hook = source / ".git" / "hooks" / "reference-transaction"
    hook.parent.mkdir(exist_ok=True)
    hook.write_text(f"#!/bin/sh\ntouch {tmp_path}/hacked\n")
    hook.chmod(0o755)
    git_in(source, "update-ref", "refs/x/y", "HEAD")
    assert not (tmp_path / "hacked").exists()


def test_the_installed_git_is_new_enough():
    assert git.check_version() >= git.VERSION_MIN
