"""How old a copy of a repository was, and what it lacks, is said when work goes on with it."""

from types import SimpleNamespace
from typing import Any

import pytest
from tests.git.repositories import checkout, commit, sh, wait
from tests.node.cores import Cores, One
from tests.node.test_adoption import die, live, take_over
from tests.node.test_keepers import COMMIT, keep, mirrored, pulled, world
from tests.node.test_runs import REPO, SLOW, end, fence, hand_in, promote, wanted
from tests.promise import proves

from muster.errors import NotFound
from muster.git import mirror, ref, repository
from muster.git.fence import Epoch
from muster.node.attempts.mirrors import Mirrors
from muster.node.tasks.behind import note_of
from muster.node.tasks.keepers import Keepers, KeepMirror, Kept, Pulled, PullMirror, RepositoryMoved
from muster.task.fold import RUN
from muster.task.kinds import RunOpen, TaskAssign, TaskOpen, TaskSettle

__all__ = ["world"]


def told(machine: One, key: str = "mirror-main") -> list[str]:
    found = machine.call("incidents", {})["value"]
    return [each["title"] for each in found if each["key"] == key]


def takes_over(world: Cores, missing: tuple[str, ...] = ()) -> None:
    """The hub is gone, and its stand-in goes on with the copy that it has."""
    hub, studio = world["hub"], world["studio"]
    die(world, "hub")
    world.pass_ms(31_000)
    assert wanted(studio, KeepMirror) == [KeepMirror(hub.id, "main")]
    studio.step(Kept(hub.id, "main", missing=missing))
    world.pass_ms(2_000)


@proves("adopt.behind")
def test_a_copy_that_has_all_that_was_heard_of_is_no_incident(world):
    mirrored(world)
    # It is as it was until the link ended, however long ago it was made.
    world.pass_ms(60_000)
    hand_in(world["hub"], SLOW)
    world.pass_ms(2_000)
    takes_over(world)
    assert told(world["studio"]) == []
    assert note_of(world["studio"].core, "main") == ""


@proves("adopt.behind")
def test_a_copy_that_lacks_what_moved_says_how_old_it_is(world):
    hub, studio = world["hub"], world["studio"]
    mirrored(world)
    world.pass_ms(20_000)
    studio.step(RepositoryMoved(hub.id, "main"))
    world.pass_ms(1_000)
    # It is pulled and nothing comes of that, for some minutes.
    (asked,) = wanted(studio, PullMirror)
    world.pass_ms(240_000)
    studio.step(Pulled(asked.machine, asked.repo, "no room"))
    takes_over(world)
    (title,) = told(studio)
    assert "repository main goes on here as it was at hub 4 min before" in title
    assert "what it took later is not here" in title
    assert note_of(studio.core, "main") == title
    assert [i["title"] for i in studio.call("status", {})["value"]["incidents"]] == [title]


@proves("adopt.behind")
def test_a_keeper_that_was_heard_after_the_link_ended_may_have_taken_more(world):
    hub, studio = world["hub"], world["studio"]
    mirrored(world)
    world.cut("studio")
    world.link("studio", "laptop")
    world.pass_ms(120_000)
    # The others bring what it did since.
    hand_in(hub, REPO)
    world.pass_ms(3_000)
    takes_over(world)
    (title,) = told(studio)
    assert "what it took later is not here" in title


@proves("adopt.behind")
def test_what_the_log_says_was_pushed_and_is_missing_is_named(world):
    mirrored(world)
    takes_over(world, ("muster/r1/a (111111111111)", *(f"b{n} (2)" for n in range(9))))
    (title,) = told(world["studio"])
    assert "missing are muster/r1/a (111111111111), b0 (2), b1 (2), b2 (2) and 6 more" in title


@proves("adopt.behind")
def test_that_a_copy_was_older_is_over_once_another_machine_keeps_the_repository(world):
    hub, studio = world["hub"], world["studio"]
    mirrored(world)
    takes_over(world, ("muster/r/a (111111111111)",))
    assert len(told(studio)) == 1
    live(world, "hub")
    world.pass_ms(3_000)
    pulled(hub, studio)
    # What its keeper says of a pull that began before it kept the repository ends nothing.
    studio.step(Pulled(hub.id, "main"))
    world.pass_ms(1_000)
    assert note_of(studio.core, "main") != ""
    die(world, "studio")
    assert take_over(world, "hub", "studio")["ok"]
    world.pass_ms(2_000)
    hub.step(Kept(studio.id, "main"))
    world.pass_ms(2_000)
    live(world, "studio")
    world.pass_ms(3_000)
    assert studio.core.incidents.is_open("mirror-main")
    studio.step(Pulled(hub.id, "main"))
    world.pass_ms(1_000)
    assert not studio.core.incidents.is_open("mirror-main")
    assert note_of(studio.core, "main") == ""


@proves("adopt.behind")
def test_what_its_keeper_before_had_otherwise_is_an_incident_there(world):
    hub, studio = world["hub"], world["studio"]
    mirrored(world)
    die(world, "hub")
    world.pass_ms(31_000)
    keep(studio, hub)
    world.pass_ms(2_000)
    live(world, "hub")
    world.pass_ms(3_000)
    (asked,) = wanted(hub, PullMirror)
    hub.step(Pulled(asked.machine, asked.repo, aside=("heads/main (222222222222)",)))
    world.pass_ms(1_000)
    (title,) = told(hub, "follow-main")
    assert "studio" in title
    assert "heads/main (222222222222)" in title
    world.pass_ms(1_000)
    assert told(studio, "follow-main") == [title]
    # Nothing more was set aside, and what was is not there yet; then somebody pushed it.
    for whole in (False, True):
        hub.step(Pulled(asked.machine, asked.repo, whole=whole))
        world.pass_ms(2_000)
        assert hub.core.incidents.is_open("follow-main") is not whole


@pytest.fixture
def disk(world: Cores, tmp_path: Any) -> Any:
    """A repository of the hub on disk, and what does studio's effects about mirrors."""
    kept = wait(repository.add(tmp_path / "there", "main", str(checkout(tmp_path / "src")))).path
    mirrors, repos = tmp_path / "mirrors", tmp_path / "repos"
    wait(mirror.pull(mirrors, world["hub"].id, "main", str(kept), "main"))
    at_once = SimpleNamespace(run=lambda _name, work: wait(work))
    daemon: Any = SimpleNamespace(
        core=world["studio"].core, post=world["studio"].step, supervisor=at_once
    )
    return SimpleNamespace(
        kept=kept, repos=repos, source=tmp_path / "src", mirrors=Mirrors(daemon, repos, mirrors)
    )


@proves("adopt.behind")
@pytest.mark.parametrize("is_there", [False, True])
def test_a_task_waits_for_the_commit_that_it_starts_from(world, disk, is_there):
    """Its results came to a branch after the copy was made: no older one is taken for them."""
    hub, studio = world["hub"], world["studio"]
    mirrored(world)
    run = hand_in(hub, REPO)
    asked = fence(hub)
    made = commit(disk.source, "later") if is_there else COMMIT
    end(hub, commit=made)
    promote(hub)
    world.pass_ms(1_000)
    die(world, "hub")
    world.pass_ms(31_000)
    (effect,) = wanted(studio, KeepMirror)
    if is_there:
        path = disk.mirrors.folders()[0] / "main.git"
        sh(path, "fetch", "-q", str(disk.source), "+main:main")
    ended = wait(disk.mirrors.keep(effect))
    assert ended.missing == (() if is_there else (f"muster/{run}/first ({COMMIT[:12]})",))
    # No older attempt is taken there than by who kept it before.
    path = disk.repos / "main.git"
    assert wait(ref.epoch(path, asked.task)) == Epoch(*asked.epoch)
    studio.step(ended)
    world.pass_ms(3_000)
    rows = studio.call("runs", {"run": run})["value"]["tasks"]
    (second,) = (t["task"] for t in rows if t["phase"] == "second")
    assert studio.core.part(Keepers).behind.starts(second) == [made]
    if is_there:
        wait(disk.mirrors.check_start(path, "main", second))
        return
    with pytest.raises(NotFound, match="starts from commit 111111111111, which is not in"):
        wait(disk.mirrors.check_start(path, "main", second))


@proves("adopt.behind")
@pytest.mark.parametrize("is_named", [False, True])
def test_that_something_is_missing_is_over_once_it_was_pushed_again(world, disk, is_named):
    """By hand, from where it was made; where nothing was named nobody can tell that it is all."""
    hub, studio = world["hub"], world["studio"]
    mirrored(world)
    if is_named:
        hand_in(hub, REPO)
        fence(hub)
        made = commit(disk.source, "later")
        end(hub, commit=made)
        promote(hub)
    else:
        world.pass_ms(20_000)
        studio.step(RepositoryMoved(hub.id, "main"))
        world.pass_ms(1_000)
        studio.step(Pulled(hub.id, "main", "no room"))
    world.pass_ms(1_000)
    die(world, "hub")
    world.pass_ms(31_000)
    (effect,) = wanted(studio, KeepMirror)
    studio.step(wait(disk.mirrors.keep(effect)))
    world.pass_ms(1_000)
    assert len(told(studio)) == 1
    disk.mirrors.tell("main")
    world.pass_ms(1_000)
    assert studio.core.incidents.is_open("mirror-main")
    sh(disk.repos / "main.git", "fetch", "-q", str(disk.source), "+main:main")
    disk.mirrors.tell("main")
    world.pass_ms(1_000)
    assert studio.core.incidents.is_open("mirror-main") is not is_named


@proves("adopt.behind")
def test_what_a_member_makes_up_raises_no_fence_and_keeps_nobody_from_a_repository(world, disk):
    """It says of a run that nobody ordered, and of the hub's own task, that they came to it."""
    hub, studio, laptop = world["hub"], world["studio"], world["laptop"]
    mirrored(world)
    hand_in(hub, REPO)
    asked = fence(hub)
    end(hub, commit="an odd one")
    promote(hub)
    with laptop.core.store.transaction():
        core = laptop.core
        opened = core.append_body(RunOpen("a" * 32, "made up", REPO, "", repo="main"))
        for task in ("b" * 32, asked.task):
            body = TaskOpen(task, {}, run="a" * 32, phase="first", repo="main")
            made = core.append_body(body, cause=(opened.id,))
            given = core.append_body(
                TaskAssign(task, (2**50, 1), laptop.id, "noop", 30_000), cause=(made.id,)
            )
            core.append_body(TaskSettle(task, "done", (2**50, 1), commit="x"), cause=(given.id,))
        core.store.seal_dirty(core.membership.signer("seal"))
    world.pass_ms(3_000)
    assert studio.core.tables.rows(RUN, run="a" * 32), "it is heard of"
    pushed = studio.core.part(Keepers).behind.pushed(hub.id, "main")
    assert {each.task for each in pushed} == {asked.task}
    die(world, "hub")
    world.pass_ms(31_000)
    (effect,) = wanted(studio, KeepMirror)
    ended = wait(disk.mirrors.keep(effect))
    assert ended.reason == ""
    # Of an owner, too, an odd commit is named, and ends nothing.
    assert [name.rpartition(" ")[2] for name in ended.missing] == ["one)"]
    assert wait(ref.epoch(disk.repos / "main.git", asked.task)) == Epoch(*asked.epoch)


@proves("adopt.behind")
def test_how_old_a_copy_is_is_known_after_a_restart(world, disk):
    studio, hub = world["studio"], world["hub"]
    disk.mirrors.prepare()
    made_ms = mirror.made_ms(disk.mirrors._folder, hub.id, "main", disk.repos)
    assert made_ms > 0
    behind = studio.core.part(Keepers).behind
    assert behind._as_of_ms[hub.id, "main"] == made_ms
