"""Random histories: nothing of either side is lost, and nothing half done stays.

Eighteen of them; `make landings` takes three hundred.

What plain `git merge` makes of both sides is the measure: the same files, or a conflict.
"""

import contextlib
import os
import signal
import time
from pathlib import Path

import pytest
from tests.git.histories import History, child, land
from tests.git.repositories import sh
from tests.promise import proves

from muster.errors import Conflict, NotFound, Refused
from muster.git.landing import Mode, Unmergeable
from muster.git.place import Place
from muster.limits import GIT_LAND_TRIES_MAX

pytestmark = pytest.mark.e2e

MODES: tuple[Mode, ...] = ("squash", "rebase", "merge")
SEEDS = range(int(os.environ.get("LANDINGS", "18")))


def place(history: History, where: str) -> Place:
    if where == "folder":
        return Place(str(history.clone), history.clone)
    return Place(str(history.remote))


def at(history: History, where: str) -> Path:
    return history.clone if where == "folder" else history.remote


def check_whole(history: History, where: str, mode: Mode, old: str) -> bool:
    """Whether it landed; all of it did, or nothing. Nothing else is left anywhere."""
    repo = at(history, where)
    new = sh(repo, "rev-parse", "main")
    for each in (history.remote, history.clone):
        sh(each, "fsck", "--no-dangling")
        git = each if each == history.remote else each / ".git"
        assert not [*git.glob("*.lock"), *git.glob("refs/**/*.lock")]
        assert len(sh(each, "worktree", "list").splitlines()) == 1
    assert not sh(history.clone, "status", "--porcelain")
    assert sh(history.clone, "rev-parse", "HEAD") == sh(history.clone, "rev-parse", "main")
    if new == old:
        return False
    sh(repo, "merge-base", "--is-ancestor", old, new)
    # What others pushed meanwhile is below what landed.
    marks = sh(repo, "log", "--format=%H", "-F", "--grep=Muster-Result: ", f"{old}..{new}").split()
    if not marks:
        return False
    first = sh(repo, "rev-list", "--first-parent", f"{old}..{new}").split()
    assert marks[0] == first[0], "what landed is the newest"
    under = f"{new}~{rebased(history, repo, new)}" if mode == "rebase" else f"{new}^"
    assert sh(repo, "rev-parse", f"{new}^{{tree}}") == history.expected(
        sh(repo, "rev-parse", under)
    )
    if mode == "merge":
        for each in history.results():
            sh(repo, "merge-base", "--is-ancestor", each.commit, new)
    return True


def rebased(history: History, repo: Path, new: str) -> int:
    """How many commits were replayed: each is of a result, in order, by its author."""
    ours = ["log", "--format=%an: %s", "-F", "--grep=Muster-Run: ", "--reverse", new]
    found = sh(repo, *ours).splitlines()
    start = sh(history.remote, "rev-list", "--max-parents=0", "main")
    walk = ["log", "--format=%an: %s", "--reverse", "--topo-order", "--no-merges"]
    tips = [each.commit for each in history.results()]
    rest = iter(sh(history.remote, *walk, *tips, "--not", start).splitlines())
    assert all(each in rest for each in found), found
    return len(found)


def landed(history: History, where: str, mode: Mode, **more) -> bool:
    """Land; whether there was something to land and it went together."""
    try:
        return bool(land(history.root, mode, place(history, where), **more).parts)
    except Unmergeable as error:
        sides = [side for each in error.clashes for side in (each.there, each.result)]
        refused = "a conflict" if sides and all(sides) else "nobody is named"
    except (NotFound, Refused) as error:
        refused = str(error)
    known = ["a conflict", "change nothing"]
    known += ["land with --merge or --squash"] if mode == "rebase" else []
    assert any(each in refused for each in known), refused
    return False


@proves("git.land-random-histories")
@pytest.mark.parametrize("seed", SEEDS)
def test_a_history_lands_whole_or_not_at_all(tmp_path: Path, seed: int) -> None:
    history = History(tmp_path, seed)
    where, mode = ("folder", "bare")[seed % 2], MODES[seed % 3]
    old = sh(at(history, where), "rev-parse", "main")
    wanted = history.expected(old)
    same = wanted == sh(history.remote, "rev-parse", f"{old}^{{tree}}")
    done = landed(history, where, mode)
    assert check_whole(history, where, mode, old) is done
    if mode != "rebase":
        assert done is bool(wanted and not same), "as plain git has it"
    if done:
        new = sh(at(history, where), "rev-parse", "main")
        for again in MODES:
            assert not land(history.root, again, place(history, where)).parts
        assert sh(at(history, where), "rev-parse", "main") == new


@proves("git.land-random-histories")
@pytest.mark.parametrize("seed", SEEDS)
def test_others_push_meanwhile_and_nothing_of_theirs_is_lost(tmp_path: Path, seed: int) -> None:
    history, mode, pushes = History(tmp_path, seed), MODES[seed % 3], 0
    most = history.chance.randint(1, GIT_LAND_TRIES_MAX + 1)
    old = sh(history.remote, "rev-parse", "main")

    def meanwhile() -> None:
        nonlocal pushes
        if pushes < most:
            history.push(pushes)
            pushes += 1

    done, tired = False, ""
    try:
        done = landed(history, "bare", mode, meanwhile=meanwhile)
    except Conflict as error:
        tired = str(error)
    assert not tired or pushes >= GIT_LAND_TRIES_MAX, tired
    assert check_whole(history, "bare", mode, old) is done
    subjects = sh(history.remote, "log", "--format=%s", "main").splitlines()
    for number in range(pushes):
        assert f"other {number}" in subjects


@proves("git.land-random-histories")
@pytest.mark.parametrize("seed", SEEDS)
def test_whoever_is_killed_in_the_middle_leaves_all_or_nothing(tmp_path: Path, seed: int) -> None:
    history = History(tmp_path, seed)
    where, mode = ("folder", "bare")[seed % 2], MODES[seed % 3]
    old = sh(at(history, where), "rev-parse", "main")
    process = child(tmp_path, mode, where)
    time.sleep(history.chance.random() * 0.7)
    if seed % 4 == 0:
        os.killpg(process.pid, signal.SIGINT)
    else:
        process.kill()
    process.communicate(timeout=60)
    # A git that was at work goes on to its end.
    wait_for_nobody(tmp_path)
    before = check_whole(history, where, mode, old)
    after = landed(history, where, mode)
    assert not (before and after), "landed twice"
    check_whole(history, where, mode, old)
    left = [path.name for path in history.area.glob("*") if path.name != "held"]
    assert not left


@proves("git.land-random-histories")
def test_ctrl_c_while_the_folder_moves_lets_that_come_to_its_end(tmp_path: Path) -> None:
    """Git sets the files before the branch: ended between them it leaves changes of nobody's."""
    history, (where, mode) = History(tmp_path, 8), ("folder", MODES[2])
    old = sh(at(history, where), "rev-parse", "main")
    between = tmp_path / "between"
    hook = history.clone / ".git" / "hooks" / "reference-transaction"
    hook.parent.mkdir(exist_ok=True)
    words = f'grep -q refs/heads/main && [ "$1" = prepared ] && touch {between} && sleep 1'
    hook.write_text(f"#!/bin/sh\n{words}\nexit 0\n")
    hook.chmod(0o755)
    process = child(tmp_path, mode, where)
    until = time.perf_counter() + 60
    while not between.exists() and time.perf_counter() < until:
        time.sleep(0.01)
    os.killpg(process.pid, signal.SIGINT)
    process.communicate(timeout=60)
    assert process.returncode
    hook.unlink()
    wait_for_nobody(tmp_path)
    assert check_whole(history, where, mode, old)


def wait_for_nobody(root: Path) -> None:
    end = time.perf_counter() + 30
    while time.perf_counter() < end:
        busy = False
        for each in Path("/proc").glob("[0-9]*"):
            with contextlib.suppress(OSError):
                line = (each / "cmdline").read_bytes()
                place = os.readlink(each / "cwd")
                busy |= line.startswith(b"git") and place.startswith(str(root))
        if not busy:
            return
        time.sleep(0.02)
    raise AssertionError("a git goes on")
