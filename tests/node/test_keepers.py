"""Who keeps a repository when the machine that had it is gone, and when it is back."""

from hashlib import sha256
from typing import Any

import msgspec
import pytest
from tests.node.cores import WALL_MS, Cores, One
from tests.node.test_adoption import die, live, take_over, view
from tests.node.test_runs import REPO, end, fence, hand_in, know, promote, wanted
from tests.node.test_standin import stand_in
from tests.promise import proves

from muster.fleet.grant import Grant, sign_give
from muster.fleet.kinds import OrderTake
from muster.log.fold import body_as
from muster.node.call.router import Router
from muster.node.incarnations.own_incarnation import FactsChanged
from muster.node.tasks.branches import BringBack, BroughtBack
from muster.node.tasks.keepers import (
    Keepers,
    KeepMirror,
    Kept,
    MirrorsHere,
    Pulled,
    PullMirror,
    RepositoryMoved,
)
from muster.node.tasks.pulls import Mirror
from muster.task.adoption import takeover_args
from muster.task.fold import RUN
from muster.task.instruction import RaiseFence
from muster.task.keeping import RepoAdopt
from muster.task.kinds import RunOpen, TaskAdopt

COMMIT = "1" * 40
FACTS: dict[str, Any] = {"repositories": ["main"], "tools": {"git": "2.40"}}


@pytest.fixture
def world() -> Cores:
    """A hub with a repository, and two machines that are linked with each other as well."""
    made = Cores("hub", "studio", "laptop")
    know(made["hub"])
    studio = made["studio"]
    studio.step(FactsChanged(studio.facts(tools=FACTS["tools"])))
    for one, other in (("hub", "studio"), ("hub", "laptop"), ("studio", "laptop")):
        made.link(one, other)
    made.pass_ms(3_000)
    return made


def pulled(machine: One, of: One, reason: str = "") -> None:
    (asked,) = wanted(machine, PullMirror)
    assert asked == PullMirror(of.id, "main")
    machine.step(Pulled(asked.machine, asked.repo, reason))


def keep(machine: One, of: One, reason: str = "") -> None:
    """A mirror becomes a repository, as effects do it."""
    assert wanted(machine, KeepMirror) == [KeepMirror(of.id, "main")]
    machine.step(Kept(of.id, "main", reason))


def keepers(world: Cores, *names: str) -> set[str]:
    """Who keeps it, by what these machines know."""
    found = [world[name].core.part(Keepers).keeper("main") for name in names or world.machines]
    return {record.name if record is not None else "" for record in found}


def mirrored(world: Cores) -> None:
    stand_in(world, "hub", "studio")
    world.pass_ms(1_000)
    pulled(world["studio"], world["hub"])


def gone(world: Cores) -> None:
    """The hub is gone, and studio goes on with its repository."""
    mirrored(world)
    die(world, "hub")
    world.pass_ms(31_000)
    keep(world["studio"], world["hub"])
    world.pass_ms(2_000)


@proves("adopt.mirrors")
def test_who_stands_in_pulls_when_it_is_named_when_told_and_on_each_new_link(world):
    hub, studio = world["hub"], world["studio"]
    assert wanted(studio, PullMirror) == []
    stand_in(world, "hub", "studio")
    world.pass_ms(1_000)
    (first,) = wanted(studio, PullMirror)
    # What moves meanwhile is pulled afterwards, once.
    for _ in range(3):
        studio.step(RepositoryMoved(hub.id, "main"))
    world.pass_ms(1_000)
    assert wanted(studio, PullMirror) == []
    studio.step(Pulled(first.machine, first.repo))
    world.pass_ms(1_000)
    pulled(studio, hub)
    world.pass_ms(60_000)
    assert wanted(studio, PullMirror) == []
    world.cut("hub")
    world.link("hub", "studio")
    world.pass_ms(1_000)
    pulled(studio, hub)
    # A word about what nobody keeps there, or another machine, is none.
    studio.step(RepositoryMoved(hub.id, "other"), RepositoryMoved(world["laptop"].id, "main"))
    world.pass_ms(1_000)
    assert wanted(studio, PullMirror) == []
    assert wanted(world["laptop"], PullMirror) == []
    stand_in(world, "hub", "", at="laptop")
    assert studio.core.counters["mirror-pulled"] == 3
    world.pass_ms(1_000)
    studio.step(RepositoryMoved(hub.id, "main"))
    world.pass_ms(1_000)
    assert wanted(studio, PullMirror) == []


@proves("adopt.mirrors")
def test_a_mirror_that_cannot_be_pulled_is_tried_less_and_less_often(world):
    hub, studio = world["hub"], world["studio"]
    stand_in(world, "hub", "studio")
    tries = []
    for _ in range(600):
        world.pass_ms(1_000)
        # A flood of words makes it no more.
        studio.step(RepositoryMoved(hub.id, "main"))
        if wanted(studio, PullMirror):
            tries.append(world.ms)
            studio.step(Pulled(hub.id, "main", "no room"))
    assert 6 <= len(tries) <= 10
    assert studio.core.counters["mirror-not-pulled"] == len(tries)
    # Without one it is left, and said.
    hand_in(hub, REPO)
    world.pass_ms(1_000)
    die(world, "hub")
    (left,) = take_over(world, "studio", "hub")["value"]["left"]
    assert left["reason"] == "its repository main is kept by hub"


@proves("adopt.mirrors")
def test_a_machine_whose_mirrors_take_long_keeps_no_other_ones_waiting(world, monkeypatch):
    hub, studio, laptop = (world[name] for name in ("hub", "studio", "laptop"))
    every = {Mirror(hub.id, "main"), Mirror(hub.id, "more"), Mirror(laptop.id, "other")}
    monkeypatch.setattr(studio.core.part(Keepers), "_wants", lambda: every)
    stand_in(world, "hub", "studio")
    world.pass_ms(2_000)
    asked = [Mirror(each.machine, each.repo) for each in wanted(studio, PullMirror)]
    assert sorted({each.machine for each in asked}) == sorted([hub.id, laptop.id])
    assert len(asked) == 2
    (first,) = (each for each in asked if each.machine == hub.id)
    studio.step(Pulled(*first))
    world.pass_ms(2_000)
    (then,) = wanted(studio, PullMirror)
    assert then == PullMirror(*(every - set(asked)).pop())


@proves("adopt.repositories")
def test_a_repository_goes_on_where_its_runs_do_and_its_keeper_follows(world):
    hub, studio = world["hub"], world["studio"]
    mirrored(world)
    run = hand_in(hub, REPO)
    fence(hub)
    world.pass_ms(2_000)
    assert keepers(world) == {"hub"}
    die(world, "hub")
    world.pass_ms(31_000)
    # No work goes on before its repository is here.
    world.pass_ms(3_000)
    assert studio.entries("task.adopt") == studio.entries("repo.adopt") == []
    keep(studio, hub)
    world.pass_ms(2_000)
    assert keepers(world, "studio", "laptop") == {"studio"}
    assert view(world["laptop"], run)["owner"] == "studio"
    # The attempt was the hub's own, and its lease has ended.
    fence(studio)
    live(world, "hub")
    world.pass_ms(3_000)
    assert keepers(world) == {"studio"}
    part = hub.core.part(Keepers)
    assert not part.is_kept_here("main", mirrored=False)
    pulled(hub, studio)
    assert studio.core.part(Keepers).followers("main") == {hub.id}
    # After a restart, too, and nobody asks for the same again.
    for name in ("hub", "studio"):
        world.restart(name)
        world[name].step(FactsChanged(world[name].facts(**FACTS)))
    studio.step(MirrorsHere(((hub.id, "main"),)))
    for one, other in (("hub", "studio"), ("hub", "laptop"), ("studio", "laptop")):
        world.link(one, other)
    world.pass_ms(3_000)
    assert keepers(world) == {"studio"}
    assert wanted(studio, KeepMirror) == []


def leads(machine: One) -> list[str]:
    """Who acts on an order that names nobody, and whom else it asks first."""
    answer = machine.call("target", {"on": "", "verb": "run"})["value"]
    names = [machine.core.membership.name_of(each) for each in machine.core.leads()]
    assert answer["name"] == (names or [machine.name])[0]
    return names


@proves("adopt.leads")
@pytest.mark.parametrize("repo", [True, False])
def test_who_lost_the_hub_asks_whoever_goes_on_with_its_work(world, repo):
    hub, studio, laptop = world["hub"], world["studio"], world["laptop"]
    mirrored(world)
    if not repo:
        hand_in(hub, REPO.replace("repo: main\n", ""), "chain")
    world.pass_ms(1_000)
    assert leads(laptop) == ["hub"]
    die(world, "hub")
    world.pass_ms(20_000)
    # Nobody yet: it may be back.
    assert leads(laptop) == leads(studio) == []
    world.pass_ms(12_000)
    if repo:
        keep(studio, hub)
    world.pass_ms(2_000)
    assert leads(laptop) == leads(studio) == ["studio"]
    # Calls go through it, as they did through the hub.
    assert laptop.core.part(Router).reaches(hub.id)
    live(world, "hub")
    world.pass_ms(2_000)
    assert leads(laptop) == ["hub"]


@proves("adopt.leads")
def test_by_its_own_word_nobody_is_asked_first(world):
    run = hand_in(world["hub"], REPO)
    world.pass_ms(1_000)
    die(world, "hub")
    said(world, "member")
    core = world["studio"].core
    (row,) = core.tables.rows(RUN, run=run)
    before = core.log.entry(row.opened)
    assert before is not None
    with core.store.transaction():
        body = TaskAdopt(run, world["hub"].id, core.now.wall_ms)
        adopt = core.append_body(body, cause=(row.opened,))
        core.append("run.open", before.body or b"", cause=(row.opened, adopt.id))
        core.store.seal_dirty(core.membership.signer("seal"))
    world.pass_ms(2_000)
    assert world["laptop"].entries("task.adopt")
    assert leads(world["laptop"]) == []


@proves("adopt.repositories")
def test_what_cannot_be_kept_here_stays_where_it_is(world):
    hub, studio = world["hub"], world["studio"]
    mirrored(world)
    run = hand_in(hub, REPO)
    die(world, "hub")
    world.pass_ms(31_000)
    keep(studio, hub, "this machine keeps another repository main already")
    world.pass_ms(3_000)
    assert keepers(world) == {"hub"}
    assert studio.entries("repo.adopt") == []
    assert view(studio, run)["owner"] == "hub"


@proves("adopt.repositories")
def test_who_kept_it_before_keeps_it_again_by_another_order(world):
    hub, studio = world["hub"], world["studio"]
    gone(world)
    live(world, "hub")
    world.pass_ms(3_000)
    pulled(hub, studio)
    die(world, "studio")
    assert take_over(world, "hub", "studio")["ok"]
    world.pass_ms(2_000)
    assert wanted(hub, KeepMirror) == [KeepMirror(studio.id, "main")]
    hub.step(Kept(studio.id, "main"))
    world.pass_ms(2_000)
    assert keepers(world, "hub", "laptop") == {"hub"}
    assert hub.core.part(Keepers).is_kept_here("main", mirrored=True)
    live(world, "studio")
    world.pass_ms(2_000)
    assert not studio.core.part(Keepers).is_kept_here("main", mirrored=True)


def said(world: Cores, how: str) -> None:
    """Studio says that it keeps the repository, and has something of that name."""
    studio, hub = world["studio"], world["hub"]
    core, of = studio.core, world["laptop"].id if how == "of" else hub.id
    args = takeover_args(of)
    key = studio.identity.signer("statement") if how == "member" else None
    target = world["laptop"] if how == "target" else studio
    statement = world.sign("takeover", of, target, args, signer=key)
    with core.store.transaction():
        cause = () if how == "none" else (core.append_body(OrderTake("0" * 64, statement)).id,)
        generation = core.now.wall_ms + (1 << 40 if how == "generation" else 0)
        core.append_body(RepoAdopt("main", of, generation), cause=cause)
        core.store.seal_dirty(core.membership.signer("seal"))
    if how != "facts":
        studio.step(FactsChanged(studio.facts(**FACTS)))
    world.pass_ms(2_000)


@proves("adopt.repositories", "adopt.only-by-order")
@pytest.mark.parametrize(
    "how", ["member", "none", "target", "of", "generation", "facts", "operator"]
)
def test_nobody_keeps_a_repository_by_its_own_word(world, how):
    """Only by an operator's order, for itself, about who has it; and only while it has it."""
    said(world, how)
    assert world["laptop"].entries("repo.adopt")
    assert keepers(world) == {"studio" if how == "operator" else "hub"}


def write(machine: One, *bodies: Any) -> None:
    """Entries as any program can write them into the stream of its machine."""
    core = machine.core
    with core.store.transaction():
        for body in bodies:
            core.append_body(body, cause=())
        core.store.seal_dirty(core.membership.signer("seal"))


@proves("adopt.repositories", "adopt.only-by-order")
@pytest.mark.parametrize("generation", [1 << 52, (1 << 53) - 1])
def test_a_word_that_nobody_ordered_is_no_measure_for_who_keeps_it(world, generation):
    hub, studio, laptop = (world[name] for name in ("hub", "studio", "laptop"))
    mirrored(world)
    run = hand_in(hub, REPO)
    write(laptop, RepoAdopt("main", hub.id, generation))
    world.pass_ms(2_000)
    die(world, "hub")
    world.pass_ms(31_000)
    keep(studio, hub)
    world.pass_ms(5_000)
    assert keepers(world, "studio", "laptop") == {"studio"}
    assert view(laptop, run)["owner"] == "studio"


@proves("adopt.repositories")
def test_whoever_is_named_again_keeps_it_above_its_own_earlier_word(world):
    """Also where that never counted: it had not heard that an operator named nobody."""
    hub, studio, laptop = (world[name] for name in ("hub", "studio", "laptop"))
    mirrored(world)
    world.cut("studio")
    stand_in(world, "hub", "", at="laptop")
    world.pass_ms(1_000)
    die(world, "hub")
    world.pass_ms(35_000)
    keep(studio, hub)
    world.link("studio", "laptop")
    world.pass_ms(3_000)
    assert laptop.entries("repo.adopt")
    assert keepers(world, "studio", "laptop") == {"hub"}
    live(world, "hub")
    world.pass_ms(2_000)
    stand_in(world, "hub", "studio")
    world.pass_ms(2_000)
    pulled(studio, hub)
    die(world, "hub")
    world.pass_ms(31_000)
    keep(studio, hub)
    world.pass_ms(2_000)
    assert keepers(world, "studio", "laptop") == {"studio"}
    assert studio.core.counters["repository-adopted"] == 2


@proves("adopt.repositories")
@pytest.mark.parametrize("back", [True, False])
def test_a_repository_stays_with_its_keeper_when_who_had_it_tells_of_none(world, back):
    """Its disk was lost, or it was removed there: what its facts say now decides nothing."""
    hub, studio = world["hub"], world["studio"]
    gone(world)
    live(world, "hub")
    world.pass_ms(3_000)
    hub.step(FactsChanged(hub.facts(tools=FACTS["tools"])))
    world.pass_ms(3_000)
    if not back:
        die(world, "hub")
    assert keepers(world, "studio", "laptop") == {"studio"}
    assert studio.core.part(Keepers).is_kept_here("main", mirrored=True)


@proves("adopt.leads", "adopt.only-by-order")
def test_who_says_that_it_adopted_a_run_of_its_own_is_not_asked_first(world, monkeypatch):
    hub, laptop = world["hub"], world["laptop"]
    plain = laptop.core.append_body

    def adopts_first(body: Any, **more: Any) -> Any:
        if isinstance(body, RunOpen):
            plain(TaskAdopt(body.run, hub.id, laptop.core.now.wall_ms))
        return plain(body, **more)

    monkeypatch.setattr(laptop.core, "append_body", adopts_first)
    hand_in(laptop, REPO.replace("repo: main\n", ""), "chain")
    world.pass_ms(2_000)
    assert world["studio"].entries("task.adopt")
    die(world, "hub")
    world.pass_ms(2_000)
    assert leads(world["studio"]) == leads(laptop) == []


@proves("adopt.leads")
def test_many_words_of_another_machine_crowd_out_nobody_who_goes_on(world):
    hub, laptop = world["hub"], world["laptop"]
    mirrored(world)
    hand_in(hub, REPO.replace("repo: main\n", ""), "chain")
    world.pass_ms(1_000)
    die(world, "hub")
    world.pass_ms(33_000)
    wanted(world["studio"], KeepMirror)
    assert leads(laptop) == ["studio"]
    now_ms = laptop.core.now.wall_ms
    write(laptop, *(TaskAdopt(f"x{n}", hub.id, now_ms) for n in range(20)))
    world.pass_ms(2_000)
    assert leads(laptop) == leads(world["studio"]) == ["studio"]


@proves("adopt.leads")
def test_words_about_repositories_that_nobody_has_are_not_looked_into(world, monkeypatch):
    gone(world)
    laptop = world["laptop"]
    write(laptop, *(RepoAdopt(f"r{n}", world["hub"].id, 1) for n in range(50)))
    world.pass_ms(2_000)
    part, asked = world["studio"].core.part(Keepers), []
    plain = part._holders
    monkeypatch.setattr(part, "_holders", lambda repo: asked.append(repo) or plain(repo))
    assert leads(world["studio"]) == ["studio"]
    assert set(asked) == {"main"}


@proves("adopt.mirrors")
def test_what_was_settled_is_looked_for_before_anything_starts_from_it(world):
    hub, studio = world["hub"], world["studio"]
    mirrored(world)
    run = hand_in(hub, REPO)
    fence(hub)
    end(hub, commit=COMMIT)
    promote(hub)
    world.pass_ms(1_000)
    die(world, "hub")
    world.pass_ms(31_000)
    keep(studio, hub)
    world.pass_ms(500)
    (asked,) = wanted(studio, BringBack)
    assert (asked.move.commit, asked.move.repo, asked.move.machine) == (COMMIT, "main", hub.id)
    assert wanted(studio, RaiseFence) == []
    move = asked.move
    studio.step(BroughtBack(move.task, move.branch, move.repo, "hub is away", was_gone=True))
    world.pass_ms(1_000)
    # It is asked again soon, and nothing waits for ever.
    tries = 1
    for _ in range(60):
        for _asked in wanted(studio, BringBack):
            tries += 1
            studio.step(BroughtBack(move.task, move.branch, move.repo, "away", was_gone=True))
        world.pass_ms(1_000)
    assert tries == 7
    assert wanted(studio, RaiseFence)
    found = studio.call("incidents", {})["value"]
    assert [i["key"] for i in found if i["key"].startswith("branch-")]
    assert view(studio, run)["owner"] == "studio"


@proves("adopt.mirrors")
def test_what_waits_for_a_branch_starts_when_it_stands(world):
    hub, studio = world["hub"], world["studio"]
    mirrored(world)
    hand_in(hub, REPO)
    fence(hub)
    end(hub, commit=COMMIT)
    promote(hub)
    world.pass_ms(1_000)
    die(world, "hub")
    world.pass_ms(31_000)
    keep(studio, hub)
    # It is looked for after a restart as well.
    world.pass_ms(500)
    world.restart("studio")
    studio.step(FactsChanged(studio.facts(**FACTS)))
    world.link("studio", "laptop")
    world.pass_ms(3_000)
    (asked,) = wanted(studio, BringBack)
    assert wanted(studio, RaiseFence) == []
    move = asked.move
    studio.step(BroughtBack(move.task, move.branch, move.repo, was_gone=True))
    world.pass_ms(5_000)
    fence(studio)


@proves("adopt.no-clock")
def test_a_keepers_place_is_after_what_it_knew_and_no_time(world):
    hub, studio = world["hub"], world["studio"]
    gone(world)
    places = [body_as(each, RepoAdopt).generation for each in studio.entries("repo.adopt")]
    assert places == [1]
    live(world, "hub")
    world.pass_ms(3_000)
    pulled(hub, studio)
    die(world, "studio")
    assert take_over(world, "hub", "studio")["ok"]
    world.pass_ms(2_000)
    hub.step(Kept(studio.id, "main"))
    world.pass_ms(2_000)
    places = [body_as(each, RepoAdopt).generation for each in hub.entries("repo.adopt")]
    assert sorted(places) == [1, 2]


@proves("adopt.no-clock")
@pytest.mark.parametrize("turn", range(4))
def test_of_two_that_knew_nothing_of_each_other_their_orders_say_who_keeps_it(world, turn):
    hub, orders = world["hub"], dict[str, str]()
    mirrored(world)
    die(world, "hub")
    world.cut("laptop")
    for _ in range(turn):
        world.sign("takeover", hub.id, hub, {})
    for name in ("studio", "laptop"):
        machine = world[name]
        orders[name] = world.sign("takeover", hub.id, machine, takeover_args(hub.id))
        core = machine.core
        with core.store.transaction():
            taken = core.append_body(OrderTake("0" * 64, orders[name]))
            core.append_body(RepoAdopt("main", hub.id, 1), cause=(taken.id,))
            core.store.seal_dirty(core.membership.signer("seal"))
        machine.step(FactsChanged(machine.facts(**FACTS)))
    world.link("studio", "laptop")
    world.pass_ms(3_000)
    last = max(orders, key=lambda name: sha256(orders[name].encode()).digest())
    assert keepers(world, "studio", "laptop") == {last}


def granted(world: Cores, name: str, ms: int) -> None:
    """An operator lets a machine keep `other` for so long, and studio stands in for it."""
    given = Grant("other", world[name].id, WALL_MS + world.ms + ms, "repo")
    raw = sign_give(
        world.operator.statement, world.fleet, given, nonce=b"n" * 16, issued_ms=WALL_MS + world.ms
    )
    options = {"grant": msgspec.to_builtins(given), "statement": raw.decode()}
    answer = world["hub"].order("grant", "repo", {"to": name, "verb": "repo"}, options=options)
    assert answer["ok"], answer
    one = world[name]
    one.step(FactsChanged(one.facts(repositories=["other"], tools=FACTS["tools"])))
    stand_in(world, name, "studio")
    world.pass_ms(2_000)


@proves("adopt.grants")
@pytest.mark.parametrize("ended", [False, True])
def test_whose_grant_has_ended_is_followed_by_nobody(world, ended):
    """Nobody tells that time is over: it is looked at when something is pulled or taken over."""
    studio, laptop = world["studio"], world["laptop"]
    granted(world, "laptop", 60_000 if ended else 3_600_000)
    assert wanted(studio, PullMirror) == [PullMirror(laptop.id, "other")]
    studio.step(Pulled(laptop.id, "other"))
    assert studio.core.part(Keepers).wants(laptop.id, "other")
    world.pass_ms(61_000)
    assert studio.core.part(Keepers).wants(laptop.id, "other") is not ended
    studio.step(RepositoryMoved(laptop.id, "other"))
    world.pass_ms(1_000)
    assert wanted(studio, PullMirror) == ([] if ended else [PullMirror(laptop.id, "other")])
    die(world, "laptop")
    world.pass_ms(31_000)
    assert wanted(studio, KeepMirror) == ([] if ended else [KeepMirror(laptop.id, "other")])


@proves("adopt.grants")
@pytest.mark.parametrize("how", ["grant", "order", "operator"])
def test_what_ends_while_a_mirror_is_moved_makes_it_nobodys_repository(world, how, monkeypatch):
    studio, laptop = world["studio"], world["laptop"]
    granted(world, "laptop", 90_000)
    studio.step(Pulled(laptop.id, "other"))
    die(world, "laptop")
    world.pass_ms(31_000)
    assert wanted(studio, KeepMirror) == [KeepMirror(laptop.id, "other")]
    if how == "grant":
        world.pass_ms(60_000)
    if how == "order":
        stand_in(world, "laptop", "hub", at="hub")
        world.pass_ms(1_000)
    if how == "operator":
        monkeypatch.setattr(type(studio.core.roster), "operators", {}, raising=False)
    studio.step(Kept(laptop.id, "other"))
    assert studio.entries("repo.adopt") == []
