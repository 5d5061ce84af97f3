"""Fifty repositories of the wild: each works or is refused in one sentence; none runs anything.

Each goes the whole way: it is added, cached, checked out for two attempts, collected, pushed,
promoted, merged for a third, and cleared away. `MUSTER_WILD_LARGE=1` makes the two large ones as
large as they are said to be (50,000 files, 1 GiB).
"""

import contextlib
import os
import re
import shutil
import subprocess
from pathlib import Path

import pytest
from tests.git.repositories import SIGNATURE, SIGNER, refs, sh, wait
from tests.git.wild import WILD, Source
from tests.promise import proves

from muster.errors import MusterError
from muster.git import cache, collection, ref, repository
from muster.git import commit as commits
from muster.git.cache import Origin
from muster.git.fence import BRANCH_PREFIX, Epoch
from muster.git.worktree import Worktrees

FIRST = Epoch(1, 1)
MAKER = commits.Maker(SIGNATURE.agent, SIGNATURE.machine, SIGNER.public)


class Machine:
    """A hub and a worker in one: what a run does with a repository."""

    def __init__(self, root: Path, added: repository.Added) -> None:
        self.repo, self.work = added.path, root / "work"
        self.shop = Worktrees(root / "repos-cache", self.work)
        self.origin = Origin("main", str(added.path))
        # The fence asks a daemon, and there is none here; everything else of the hub's stays.
        shutil.rmtree(added.path / "hooks")

    async def phase(self, task: str, *bases: cache.Base) -> cache.Base:
        """An attempt that adds one file, to its promoted branch."""
        await ref.register(self.repo, task, FIRST)
        tree = await self.shop.open(self.origin, task, FIRST, bases, SIGNATURE)
        (tree.path / f"{task}.new").write_text(f"{task}\n")
        found = await collection.collect(tree, [f"{task}.new"], "work", SIGNATURE)
        assert found.changed == (f"{task}.new",)
        assert found.missing == ()
        await self.shop.push(tree, found.commit)
        await ref.promote(
            self.repo,
            ref.Promotion(
                task, FIRST, f"{BRANCH_PREFIX}r1/{task}", found.commit, tree.base, None, MAKER
            ),
        )
        await self.shop.close(tree)
        return cache.Base(task, found.commit)

    async def run(self) -> None:
        """Two phases side by side, and one after both."""
        both = [await self.phase("one"), await self.phase("two")]
        await self.phase("three", *both)


@proves("git.wild-repositories")
@pytest.mark.parametrize("name", WILD)
def test_it_works_or_is_refused_in_one_sentence_and_runs_nothing(tmp_path: Path, name: str) -> None:
    wild, source = WILD[name], Source(tmp_path / "wild")
    origin = str(wild.make(source) or source.path)
    source.canary.unlink(missing_ok=True)
    before = _listing(source)
    repos = tmp_path / "repos"
    added, error = _added(repos, origin)
    if added is None:
        assert wild.sentence, f"{name} is refused: {error}"
        assert re.search(wild.sentence, error), error
        assert "\n" not in error
        assert len(error) < 500
        assert list(repos.glob("*")) == []
    else:
        assert not wild.sentence, f"{name} was taken"
        assert (added.left_out, added.branch) == (wild.left_out, wild.branch)
        machine = Machine(tmp_path, added)
        wait(machine.run())
        assert list(machine.work.glob("*")) == []
        assert f"{BRANCH_PREFIX}r1/three" in refs(machine.repo)
    assert not source.canary.exists(), f"{name} ran something"
    assert _listing(source) == before


def _added(repos: Path, origin: str) -> tuple[repository.Added | None, str]:
    try:
        return wait(repository.add(repos, "main", origin)), ""
    except MusterError as error:
        return None, str(error)


def _listing(source: Source) -> list[str]:
    """What a person has in the folder: adding it changes nothing there."""
    return sorted(os.fsdecode(p) for p in _walk(os.fsencode(source.path)))


def _walk(top: bytes) -> list[bytes]:
    return [os.path.join(f, n) for f, names, files in os.walk(top) for n in [*names, *files]]


@proves("git.wild-repositories")
@pytest.mark.parametrize("name", [name for name, wild in WILD.items() if wild.fires])
def test_what_is_hidden_in_it_would_have_run_for_a_person(tmp_path: Path, name: str) -> None:
    wild, source = WILD[name], Source(tmp_path / "wild")
    wild.make(source)
    source.canary.unlink(missing_ok=True)
    command = ["git", *wild.fires]
    env = os.environ | {"GIT_CONFIG_GLOBAL": os.devnull, "GIT_TERMINAL_PROMPT": "0"}
    with contextlib.suppress(subprocess.TimeoutExpired):
        # Some wait for an answer of what they started, and that is enough.
        subprocess.run(
            command, cwd=source.path, env=env, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL, check=False, timeout=2,
        )  # fmt: skip
    assert source.canary.exists()


@proves("git.wild-repositories")
def test_there_are_fifty() -> None:
    assert len(WILD) >= 50


@proves("git.wild-repositories")
@pytest.mark.skipif(os.geteuid() != 0, reason="only root may give a folder to another user")
def test_a_folder_of_another_user_is_taken_since_nothing_in_it_is_run(tmp_path: Path) -> None:
    source = Source(tmp_path / "wild")
    source.first()
    for path in [source.path, *source.path.rglob("*")]:
        os.lchown(path, 12345, 12345)
    added = wait(repository.add(tmp_path / "repos", "main", str(source.path)))
    assert wait(repository.head(added.path)) == sh(added.path, "rev-parse", "main")
