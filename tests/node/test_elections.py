"""Of several that stand in for a machine whoever is elected goes on with its work, and the next one
where that is gone as well: once, and under a higher place.
"""

from typing import Any

import pytest
from tests.node.cores import Cores
from tests.node.electing import Quorum
from tests.node.test_adoption import begin, decide, die, live, view
from tests.node.test_keepers import FACTS, granted, pulled
from tests.node.test_runs import REPO, hand_in, know, wanted
from tests.promise import proves

from muster.limits import ELECTION_TTL_MS
from muster.log.fold import body_as
from muster.node.incarnations.own_incarnation import FactsChanged
from muster.node.tasks.elections import Elected
from muster.node.tasks.keepers import Keepers, KeepMirror, Kept
from muster.node.tasks.ownership import Ownership
from muster.node.tasks.runs import RunService
from muster.task.fold import RUN
from muster.task.keeping import RepoAdopt
from muster.task.kinds import TaskAdopt
from muster.task.standin import FleetStandin

NAMES = ("hub", "studio", "laptop", "tower")


@pytest.fixture
def world() -> Cores:
    made = Cores(*NAMES)
    for number, one in enumerate(NAMES):
        for other in NAMES[number + 1 :]:
            made.link(one, other)
    made.pass_ms(3_000)
    return made


def name(world: Cores, of: str, by: str, others: str, at: str = "hub") -> Any:
    asked = {"machine": of, "by": by, "after": "30s", "others": others}
    found = world[at].call("standin.check", asked)
    if not found["ok"]:
        return found
    args = found["value"]["args"]
    statement = world.sign("standin", world[of].id, world[at], args)
    return world[at].call("standin", args, statement=statement)


def adopted(world: Cores, at: str = "tower") -> list[tuple[str, str, int]]:
    """Who went on with whose work under which place, in the order in which it came there."""
    ids = {machine.id: each for each, machine in world.machines.items()}
    found = [(e.header.author, body_as(e, TaskAdopt)) for e in world[at].entries("task.adopt")]
    rows = [(ids[by], ids[body.of], body.generation) for by, body in found]
    return sorted(rows, key=lambda row: row[2])


def under_way(world: Cores, worker: str, owner: str) -> None:
    """A task of its own that a machine has given to another one."""
    world[owner].submit(agent=["shell"], do="sleep 600", needs={"machine": worker})
    world.pass_ms(2_000)


def owners(world: Cores, run: str, *names: str) -> set[str | None]:
    return {world[each].core.part(Ownership).owner(RUN, run) for each in names or NAMES}


@proves("adopt.elected", "adopt.stands-in")
def test_of_two_one_is_elected_and_the_other_goes_on_under_a_higher_place_where_that_is_gone(world):
    run, quorum = begin(world), Quorum(world)
    answer = name(world, "hub", "studio", "laptop")["value"]
    assert (answer["by"], answer["others"]) == ("studio", ["laptop"])
    quorum.pass_ms(40_000)
    assert adopted(world) == []
    assert quorum.asked == 0, "while nobody is gone nobody asks"
    die(world, "hub")
    quorum.pass_ms(45_000)
    ((first, of, place),) = adopted(world)
    assert of == "hub"
    assert world[first].core.counters["adopted"] == 1
    other = {"studio": "laptop", "laptop": "studio"}[first]
    quorum.pass_ms(60_000)
    assert len(adopted(world)) == 1, "it holds it"
    # The holder is gone as well, and the hub never comes back. Its own work is its own.
    under_way(world, "tower", first)
    die(world, first)
    quorum.pass_ms(60_000)
    before, (second, of, higher) = adopted(world)
    assert before == (first, "hub", place)
    assert (second, of) == (other, first)
    assert higher > place
    assert run in world[other].core.part(RunService).runs
    decide(world, other, run)
    quorum.pass_ms(5_000)
    live(world, first)
    live(world, "hub")
    quorum.pass_ms(5_000)
    assert {view(m, run)["state"] for m in world.machines.values()} == {"done"}
    assert owners(world, run) == {world[other].id}
    for each in ("hub", first):
        assert run not in world[each].core.part(RunService).runs


@proves("adopt.elected", "adopt.unnamed-moves-nothing")
@pytest.mark.parametrize("stranger", [False, True])
def test_whoever_is_elected_after_one_of_whom_nobody_heard_has_a_higher_place_and_that_one_obeys(
    world,
    stranger,
):
    run, quorum = begin(world), Quorum(world)
    quorum.stranger = world["tower"].id * stranger
    name(world, "hub", "studio", "laptop")
    quorum.pass_ms(2_000)
    # The one reaches the quorum and nobody else; it began long after the other one.
    world.restart("studio")
    quorum.away = {"laptop"}
    die(world, "hub")
    world.cut("studio")
    quorum.pass_ms(45_000)
    ((first, _, place),) = adopted(world, "studio")
    assert first == "studio"
    assert adopted(world) == []
    world.frozen.add("studio")
    quorum.away = set()
    quorum.pass_ms(45_000)
    ((second, of, higher),) = adopted(world)
    assert (second, of) == ("laptop", "hub")
    assert higher > place
    live(world, "studio")
    quorum.pass_ms(5_000)
    assert owners(world, run, "studio", "laptop", "tower") == {world["laptop"].id}
    assert run not in world["studio"].core.part(RunService).runs


@proves("adopt.elected", "adopt.stands-in")
def test_without_a_quorum_nobody_is_elected_and_whom_the_order_names_first_goes_on_alone(world):
    begin(world)
    quorum = Quorum(world)
    name(world, "hub", "studio", "laptop")
    quorum.pass_ms(2_000)
    quorum.up = False
    die(world, "hub")
    quorum.pass_ms(30_000 + ELECTION_TTL_MS - 3_000)
    assert adopted(world) == []
    quorum.pass_ms(10_000)
    assert [row[:2] for row in adopted(world)] == [("studio", "hub")]
    quorum.pass_ms(60_000)
    assert len(adopted(world)) == 1


@proves("adopt.elected")
def test_without_a_quorum_nobody_goes_on_where_the_first_one_is_gone_as_well(world):
    begin(world)
    quorum = Quorum(world)
    name(world, "hub", "studio", "laptop")
    quorum.pass_ms(2_000)
    quorum.up = False
    die(world, "hub")
    die(world, "studio")
    quorum.pass_ms(120_000)
    assert adopted(world) == []
    # Where it is back, whoever is left is elected.
    quorum.up = True
    quorum.pass_ms(20_000)
    assert [row[:2] for row in adopted(world)] == [("laptop", "hub")]


@proves("adopt.elected")
def test_a_holder_that_nobody_hears_keeps_what_it_has_as_long_as_it_is_elected(world):
    begin(world)
    quorum = Quorum(world)
    name(world, "hub", "studio", "laptop")
    quorum.pass_ms(2_000)
    die(world, "hub")
    quorum.pass_ms(45_000)
    ((first, *_),) = adopted(world)
    other = {"studio": "laptop", "laptop": "studio"}[first]
    world.cut(first)
    # The hub is back, and has nothing of it any more: the holder has the work still.
    world.frozen.discard("hub")
    for each in (other, "tower", first):
        world.link("hub", each)
    quorum.pass_ms(90_000)
    assert len(adopted(world)) == 1


@proves("adopt.elected", "adopt.only-by-order")
def test_a_quorum_that_lies_chooses_among_those_who_were_named_and_one_has_it(world):
    run, quorum = begin(world), Quorum(world)
    name(world, "hub", "studio", "laptop")
    quorum.pass_ms(2_000)
    die(world, "hub")
    world.cut("studio")
    world.link("studio", "tower")
    far_ms = world.now().boot_ms + 10_000_000
    place = 1_900_000_000_000
    for _ in range(60):
        quorum.world.pass_ms(1_000)
        for each in ("studio", "laptop", "tower"):
            world[each].step(Elected(world["hub"].id, place, far_ms, 0))
            world.drain()
    world.link("studio", "laptop")
    quorum.world.pass_ms(5_000)
    assert {row[0] for row in adopted(world)} <= {"studio", "laptop"}
    (owner,) = owners(world, run, "studio", "laptop", "tower")
    assert owner in {world["studio"].id, world["laptop"].id, world["hub"].id}
    having = [e for e in NAMES[1:] if run in world[e].core.part(RunService).runs]
    assert len(having) <= 1


@proves("adopt.elected")
def test_who_is_named_is_named_once_and_never_the_machine_itself(world):
    for by, others, kind in (
        ("studio", "studio", "Malformed"),
        ("studio", "laptop,laptop", "Malformed"),
        ("studio", "hub", "Conflict"),
        ("nobody", "studio", "Malformed"),
        ("studio", "nowhere", "NotFound"),
    ):
        assert name(world, "hub", by, others)["error"]["kind"] == kind
    assert name(world, "hub", "studio", "laptop, tower")["ok"]
    world.pass_ms(1_000)
    (found,) = [m for m in world["tower"].call("machines", {})["value"] if m["name"] == "hub"]
    assert found["stand_in"] == "studio or laptop or tower"


def keeps(world: Cores, machine: str, repo: str) -> str:
    found = world[machine].core.part(Keepers).keeper(repo)
    return "" if found is None else found.name


@proves("adopt.elected", "adopt.repositories", "adopt.only-by-order")
def test_by_the_order_about_a_hub_no_other_repository_of_one_who_is_named_is_kept(world):
    """What studio keeps by a grant is its own, and none of what the order about the hub reaches."""
    granted(world, "laptop", 3_600_000)
    name(world, "hub", "studio", "laptop")
    world.pass_ms(2_000)
    studio, laptop = world["studio"], world["laptop"]
    own = [e for e in studio.entries("fleet.standin") if body_as(e, FleetStandin).others]
    assert keeps(world, "tower", "other") == "laptop"
    core = studio.core
    with core.store.transaction():
        body = RepoAdopt("other", laptop.id, core.now.wall_ms)
        core.append_body(body, cause=(own[0].id,))
        core.store.seal_dirty(core.membership.signer("seal"))
    studio.step(FactsChanged(studio.facts(repositories=["other"], tools=FACTS["tools"])))
    world.pass_ms(2_000)
    assert world["tower"].entries("repo.adopt")
    assert {keeps(world, each, "other") for each in NAMES} == {"laptop"}


@proves("adopt.elected", "adopt.repositories", "adopt.mirrors")
def test_a_repository_is_mirrored_by_all_who_are_named_and_kept_by_whoever_is_elected(world):
    know(world["hub"])
    for each in ("studio", "laptop"):
        world[each].step(FactsChanged(world[each].facts(tools=FACTS["tools"])))
    quorum = Quorum(world)
    name(world, "hub", "studio", "laptop")
    quorum.pass_ms(2_000)
    for each in ("studio", "laptop"):
        pulled(world[each], world["hub"])
    run = hand_in(world["hub"], REPO)
    quorum.pass_ms(2_000)
    die(world, "hub")
    quorum.pass_ms(50_000)
    (first,) = [each for each in ("studio", "laptop") if wanted(world[each], KeepMirror)]
    other = {"studio": "laptop", "laptop": "studio"}[first]
    world[first].step(Kept(world["hub"].id, "main"))
    quorum.pass_ms(8_000)
    assert keeps(world, "tower", "main") == first
    assert owners(world, run, "tower") == {world[first].id}
    pulled(world[other], world[first])
    die(world, first)
    quorum.pass_ms(60_000)
    assert wanted(world[other], KeepMirror)[0] == KeepMirror(world[first].id, "main")
    world[other].step(Kept(world[first].id, "main"))
    quorum.pass_ms(8_000)
    assert keeps(world, "tower", "main") == other
    assert owners(world, run, "tower") == {world[other].id}
