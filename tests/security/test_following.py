"""What goes from a repository when a member lies about whose runs are over, and which are its own."""

import asyncio
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace

import pytest

from muster.errors import Conflict
from muster.git import repository
from muster.log import canon
from muster.node.attempts.following import Following
from muster.task.identity import run_id, task_id
from tests.fleet.world import BUILD, LAPTOP
from tests.git.repositories import checkout, refs, sh
from tests.promise import proves
from tests.security.test_ownership import World

LATER = 2**50


class Kept:
    """A repository of the target, with what the honest owner's open run has there."""

    def __init__(self, folder: Path) -> None:
        self.world = World()
        repos = folder / "repos"
        source = str(checkout(folder / "src"))
        self.path = asyncio.run(repository.add(repos, "main", source)).path
        daemon = SimpleNamespace(core=self.world.target.core, post=lambda _event: None)
        self.following = Following(daemon, repos, lambda _repo: None)  # type: ignore[arg-type]
        statement = self.world.statement(LAPTOP.machine, "main")
        self.run = run_id(LAPTOP.machine, statement)
        self.task = task_id(self.run, "one", "")
        self.world.own(self.world.honest, statement, self.run, self.task, repo="main")
        self.has(self.run, self.task)

    def has(self, run: str, task: str) -> None:
        sh(self.path, "update-ref", f"refs/heads/muster/{run}/one", "HEAD")
        sh(self.path, "update-ref", f"refs/muster/attempt/{task}/1-1", "HEAD")

    def settle(self, run: str) -> None:
        """The member says that a run is over."""
        bad = self.world.bad
        bad.now_ms = self.world.target.now.wall_ms
        start = bad.store.log.size(bad.stream())
        bad.write("run.settle", canon.encode({"outcome": "done", "run": run}))
        self.world.send(bad, start)

    def pruned(self) -> tuple[tuple[str, ...], int]:
        return asyncio.run(self.following.prune("main", LATER, dry_run=False))


@pytest.fixture
def kept(tmp_path: Path) -> Iterator[Kept]:
    made = Kept(tmp_path)
    yield made
    made.world.target.store.close()


@proves("git.prune", "task.only-the-owner-speaks")
@pytest.mark.parametrize("ordered", [True, False])
def test_nothing_goes_because_a_member_says_that_anothers_run_is_over(
    kept: Kept, ordered: bool
) -> None:
    world, before = kept.world, refs(kept.path)
    statement = world.statement(BUILD.machine, "main") if ordered else ""
    world.own(world.bad, statement, kept.run, kept.task, repo="main")
    kept.settle(kept.run)
    assert kept.pruned() == ((), 0)
    assert refs(kept.path) == before
    with pytest.raises(Conflict, match=f"run hello .{kept.run[:6]}. works with repository main"):
        asyncio.run(kept.following.remove("main"))
    assert kept.path.is_dir()


@proves("git.prune", "task.only-the-owner-speaks")
def test_an_owner_whose_run_is_over_takes_no_attempts_of_others_with_it(kept: Kept) -> None:
    world, mine = kept.world, "a" * 32
    world.own(world.bad, world.statement(BUILD.machine, "main"), mine, kept.task, repo="main")
    kept.settle(mine)
    kept.has(mine, "b" * 32)
    # Its own branch goes, as it may.
    assert kept.pruned() == ((f"muster/{mine}/one",), 0)
    assert f"refs/muster/attempt/{kept.task}/1-1" in refs(kept.path)
    assert f"refs/heads/muster/{kept.run}/one" in refs(kept.path)


@proves("cli.repository-removed")
def test_a_run_that_nobody_ordered_keeps_no_repository(tmp_path: Path, kept: Kept) -> None:
    source = str(checkout(tmp_path / "more"))
    other = asyncio.run(repository.add(tmp_path / "repos", "other", source)).path
    kept.world.own(kept.world.bad, "", "c" * 32, "d" * 32, repo="other")
    asyncio.run(kept.following.remove("other"))
    assert not other.exists()
