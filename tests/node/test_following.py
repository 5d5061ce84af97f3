"""Which runs of a repository are old, and who shares an update; the daemon is a double."""

import asyncio
from types import SimpleNamespace

import pytest
from tests.git.repositories import checkout, refs, sh, wait
from tests.promise import proves

from muster.errors import Conflict
from muster.git import origin, repository
from muster.node.attempts import following
from muster.task.fold import RUN, TASK


class Supervisor:
    def run(self, _name, work):
        return asyncio.get_running_loop().create_task(work)


class World:
    def __init__(self, folder):
        self.path = wait(
            repository.add(folder / "repos", "main", str(checkout(folder / "src")))
        ).path
        self.runs, self.kept = [], {}
        core = SimpleNamespace(
            tables=SimpleNamespace(rows=self.rows),
            log=SimpleNamespace(entry=lambda opened: opened),
            counters={"repository-updated": 0},
            incidents=SimpleNamespace(is_open=lambda _key: False),
            part={following.Ownership: self, following.Keepers: self}.get,
        )
        daemon = SimpleNamespace(core=core, supervisor=Supervisor(), post=lambda _event: None)
        self.core, self.moved = core, []
        self.following = following.Following(daemon, folder / "repos", self.moved.append)

    def is_kept_here(self, name, *, mirrored):
        return name == "main" and not mirrored

    def held(self, table, name):
        assert table is RUN
        rows = [row for row in self.runs if row.run == name]
        return SimpleNamespace(row=max(rows, key=lambda row: row.changed_ms))

    def owner(self, _table, _name):
        return "hub"

    def rows(self, table, **asked):
        if table is RUN:
            return self.runs
        assert table is TASK
        return [SimpleNamespace(task=f"task-of-{asked['run']}")] if "run" in asked else []

    def run(self, name, state, changed_ms, **kept):
        row = SimpleNamespace(
            run=name, name=name, state=state, changed_ms=changed_ms, opened=name, repo="main",
            stream=SimpleNamespace(machine="hub"),
        )  # fmt: skip
        self.runs.append(row)
        self.kept[name] = kept
        sh(self.path, "update-ref", f"refs/heads/muster/{name}/copy", "HEAD")
        sh(self.path, "update-ref", f"refs/muster/attempt/task-of-{name}/1-1", "HEAD")


@pytest.fixture
def world(tmp_path, monkeypatch):
    world = World(tmp_path)
    opened = lambda entry, _kind: SimpleNamespace(kept=world.kept[entry])  # noqa: E731
    monkeypatch.setattr(following, "body_or_none", opened)
    return world


@proves("git.prune")
def test_open_runs_young_ones_and_those_that_a_younger_one_kept_phases_of_are_not_pruned(world):
    world.run("old", "done", 10)
    world.run("young", "done", 100, copy="kept")
    world.run("kept", "failed", 10)
    world.run("open", "open", 5)
    # Opened anew in a later stream of its owner, and ended there.
    world.run("twice", "open", 5)
    world.run("twice", "done", 10)
    sh(world.path, "update-ref", "refs/heads/muster/unknown/copy", "HEAD")
    found = wait(world.following.prune("main", 50, dry_run=False))
    assert found == (("muster/old/copy", "muster/twice/copy"), 2)
    left = {name for name in refs(world.path) if "muster" in name}
    assert left == {
        *(f"refs/heads/muster/{name}/copy" for name in ("young", "kept", "open", "unknown")),
        *(f"refs/muster/attempt/task-of-{name}/1-1" for name in ("young", "kept", "open")),
    }


@proves("cli.repository-removed")
def test_a_repository_is_in_use_while_a_run_of_it_is_open_in_every_stream_of_its_owner(world):
    world.run("twice", "open", 5)
    with pytest.raises(Conflict, match="twice"):
        wait(world.following.remove("main"))
    world.run("twice", "done", 10)
    wait(world.following.remove("main"))
    assert not world.path.exists()


@proves("git.follow-shared")
def test_whoever_asks_while_an_update_waits_shares_it_and_nobody_shares_one_that_has_begun(
    world, monkeypatch
):
    began, has_begun, goes_on = [], asyncio.Event(), asyncio.Event()

    async def update(*_args):
        began.append(len(began))
        has_begun.set()
        await goes_on.wait()
        raise Conflict("the test says so")

    async def ask():
        monkeypatch.setattr(following.follow, "update", update)
        first = world.following.update("main")
        await has_begun.wait()
        others = [world.following.update("main") for _ in range(5)]
        assert len({id(each) for each in others}) == 1
        assert others[0] is not first
        goes_on.set()
        return await asyncio.gather(first, *others)

    world.core.counters["origin-conflict"] = 0
    assert {each.error for each in wait(ask())} == {"the test says so"}
    assert began == [0, 1]
    assert world.core.counters["origin-conflict"] == 2


@proves("node.counters-are-caused")
def test_each_update_of_a_repository_is_counted_and_told(world, monkeypatch):
    async def update(*_args):
        return following.follow.Updated(origin.Origin("x", follows=True), ())

    async def ask():
        return await world.following.update("main")

    monkeypatch.setattr(following.follow, "update", update)
    assert wait(ask()).error == ""
    assert world.core.counters["repository-updated"] == 1
    assert world.moved == ["main"]


@proves("cli.repository-removed")
def test_a_run_that_began_while_an_update_was_waited_for_keeps_the_repository(world):
    async def remove():
        async with world.following._locks.setdefault("main", asyncio.Lock()):
            removing = asyncio.create_task(world.following.remove("main"))
            await asyncio.sleep(0)
            world.run("new", "open", 10)
        await removing

    with pytest.raises(Conflict, match=r"run new \(new\) works with repository main"):
        wait(remove())
    assert world.path.is_dir()


@proves("git.follow-shared")
def test_an_update_of_what_was_removed_or_is_damaged_says_so(world):
    async def ask():
        async with world.following._locks.setdefault("main", asyncio.Lock()):
            removing = asyncio.create_task(world.following.remove("main"))
            await asyncio.sleep(0.05)
            asked = world.following.update("main")
            await asyncio.sleep(0.05)
        await removing
        return (await asked).error

    async def update():
        return (await world.following.update("main")).error

    (world.path / origin.FILE).write_text("{")
    assert "muster-origin.json is damaged" in wait(update())
    assert wait(ask()).startswith("There is no repository 'main' here")
