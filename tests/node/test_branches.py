"""Which branches an owner from a backup looks for, and what becomes of what it finds."""

from typing import Any

import pytest
from tests.node.cores import Cores, One
from tests.node.test_runs import REPO, end, fence, hand_in, know, promote, wanted
from tests.promise import proves

from muster.limits import BRANCH_RETRY_MS
from muster.node import event as ev
from muster.node.tasks.branches import Branches, BringBack, BroughtBack
from muster.task.instruction import MoveBranch

COMMIT = "1" * 40


@pytest.fixture
def world() -> Cores:
    """A hub that settled one phase, kept by studio too, and was then set back to before it."""
    world = Cores("hub", "studio")
    know(world["hub"])
    world.link("hub", "studio")
    world.pass_ms(2_000)
    image = world["hub"].core.store.image()
    hand_in(world["hub"], REPO)
    fence(world["hub"])
    end(world["hub"], commit=COMMIT)
    promote(world["hub"])
    world.pass_ms(1_000)
    world["hub"].incarnation = type(world["hub"].incarnation)("e" * 32)
    world.restart("hub", image)
    return world


def asked(hub: One) -> list[MoveBranch]:
    return [effect.move for effect in wanted(hub, BringBack)]


def back(world: Cores) -> tuple[One, MoveBranch]:
    hub = world["hub"]
    world.link("hub", "studio")
    world.pass_ms(4_000)
    (move,) = asked(hub)
    return hub, move


def told(hub: One) -> list[tuple[str, bool]]:
    found = hub.call("incidents", {})["value"]
    return [(i["title"], bool(i["open"])) for i in found if i["key"].startswith("branch-")]


def answer(hub: One, move: MoveBranch, **more: Any) -> None:
    hub.step(BroughtBack(move.task, move.branch, move.repo, **more))


@proves("git.lost-branches-come-back")
def test_a_settlement_that_comes_back_from_others_is_looked_for_once(world):
    hub, move = back(world)
    assert (move.commit, move.repo, move.machine) == (COMMIT, "main", hub.id)
    assert move.branch.endswith("/first")
    assert hub.core.part(Branches).asked.get(move.task) == hub.id
    answer(hub, move)
    assert hub.core.part(Branches).asked.get(move.task) is None
    assert told(hub) == []
    world.pass_ms(10_000)
    assert asked(hub) == []
    world.restart("hub")
    world.link("hub", "studio")
    world.pass_ms(4_000)
    assert asked(hub) == [], "what is remembered is not wondered about"


@proves("git.lost-branches-are-said")
def test_a_branch_that_is_gone_is_an_incident_until_it_is_back(world):
    hub, move = back(world)
    answer(hub, move, reason="studio is away", was_gone=True)
    (incident,) = told(hub)
    assert incident[1]
    assert incident[0].endswith("is gone from repository main: studio is away")
    world.pass_ms(1_000)
    assert asked(hub) == []
    world.ms += BRANCH_RETRY_MS
    world.pass_ms(1_000)
    (again,) = asked(hub)
    assert again == move
    answer(hub, move, was_gone=True)
    assert [is_open for _, is_open in told(hub)] == [False]


@proves("git.lost-branches-come-back")
def test_the_worker_is_asked_again_when_it_is_back(world):
    hub, move = back(world)
    answer(hub, move, reason="studio is away", was_gone=True)
    hub.core.tell(ev.MachineHere(hub.id))
    world.pass_ms(500)
    assert asked(hub) == [move]
