"""Who goes on with a machine's work: by an operator's order for just that, and by nothing else."""

from typing import Any

import pytest
from tests.promise import proves
from tests.task.orders import END_MS, FLEET_ID, NOW_MS, signed, standin, takeover
from tests.task.world import BUILD, OWNER, STUDIO, Stream

from muster import limits
from muster.fleet.kinds import OrderTake
from muster.log import canon
from muster.task.adoption import First, first
from muster.task.causes import Unproven
from muster.task.kinds import RunOpen, TaskAdopt, TaskOpen

RUN = RunOpen("r1", "notes", "muster: 1\nname: notes\n", "00", repo="main")
TASK = TaskOpen("t1", template={"do": "make"}, statement="00")


class Takeover:
    """OWNER opened a run and BUILD goes on with it. A test changes one link."""

    def __init__(self, **changes: Any) -> None:
        self.streams = {each: Stream(each, folds=()) for each in (OWNER, BUILD, STUDIO)}
        self.lost: set[str] = set()
        get = changes.get
        opened = get("opened", RUN)
        before = self.streams[get("before", OWNER)].append(
            opened, at_ms=get("opened_ms", NOW_MS + 1)
        )
        self.before = before
        self.order = self.take(
            get("statement", takeover(OWNER, BUILD)),
            get("taker", BUILD),
            get("taken_ms", NOW_MS + 2),
        )
        ground = [] if get("groundless") else [get("ground", self.order).id]
        self.adopt = self.streams[get("adopter", BUILD)].append(
            TaskAdopt(get("what", "r1"), get("of", OWNER), get("generation", 7)),
            ground,
            get("adopted_ms", NOW_MS + 3),
        )
        cited = [self.adopt.id] if get("unrepeated") else [self.adopt.id, before.id]
        self.again = self.streams[BUILD].append(get("again", opened), cited, NOW_MS + 4)

    def take(self, statement: str, taker: str, at_ms: int) -> Any:
        raw = canon.encode(OrderTake(grant="0" * 64, statement=statement))
        return self.streams[taker].append_raw("order.take", raw, (), at_ms)

    def lookup(self, entry_id: Any) -> Any:
        every = [entry for each in self.streams.values() for entry in each.entries]
        found = {entry.id: entry for entry in every if entry.header.kind not in self.lost}
        return found.get(entry_id)

    def first(self, leads: Any = lambda _statement, _entry: True) -> First:
        return first(self.again, self.lookup, FLEET_ID, leads)


def refusal(world: Takeover, **options: Any) -> str:
    with pytest.raises(Unproven) as refused:
        world.first(**options)
    return refused.value.reason


@proves("adopt.goes-on")
@pytest.mark.parametrize(("opened", "what"), [(RUN, "r1"), (TASK, "t1")])
def test_what_was_taken_over_by_order_leads_back_to_its_first_owner(opened, what):
    world = Takeover(opened=opened, what=what)
    assert world.first() == (world.before, 7)


@proves("adopt.goes-on")
def test_what_nobody_took_over_is_its_owners_own():
    world = Takeover()
    assert first(world.before, world.lookup, FLEET_ID, None) == (world.before, 0)


@proves("adopt.goes-on")
def test_a_successor_that_is_lost_too_has_a_successor_and_the_newest_generation_counts():
    world = Takeover()
    order = world.take(takeover(BUILD, STUDIO), STUDIO, NOW_MS + 5)
    studio = world.streams[STUDIO]
    adopt = studio.append(TaskAdopt("r1", BUILD, 9), [order.id], NOW_MS + 6)
    before, world.again = world.again, studio.append(RUN, [adopt.id, world.again.id], NOW_MS + 7)
    assert world.first() == (world.before, 9)
    assert first(before, world.lookup, FLEET_ID, lambda *_: True) == (world.before, 7)


@proves("adopt.only-by-order")
@pytest.mark.parametrize(
    "changes",
    [
        {"groundless": True},
        {"taker": STUDIO},
        {"statement": takeover(STUDIO, BUILD)},
        {"statement": takeover(OWNER, STUDIO)},
        {"statement": takeover(OWNER, "fleet")},
        {"statement": signed("drain", OWNER, BUILD, {"machine": OWNER})},
        {"statement": signed("takeover", OWNER, BUILD, {"machine": STUDIO})},
        {"statement": takeover(OWNER, BUILD).replace(str(END_MS), str(END_MS + 1))},
        {"statement": "no order"},
        {"taken_ms": NOW_MS - limits.CLOCK_SKEW_MS - 1},
        {"adopted_ms": END_MS + limits.CLOCK_AHEAD_MS_MAX + 1},
        {"opened_ms": END_MS + limits.CLOCK_AHEAD_MS_MAX + 1},
        {"generation": NOW_MS + 3 + limits.CLOCK_AHEAD_MS_MAX + 65},
    ],
)
def test_no_order_for_just_that_machines_work_in_its_time_is_no_ground(changes):
    assert refusal(Takeover(**changes)) == "adoption-not-allowed"


@proves("adopt.only-by-order")
def test_an_order_counts_to_its_end_and_the_highest_place_that_a_machine_comes_to():
    end_ms = END_MS + limits.CLOCK_AHEAD_MS_MAX
    most = end_ms + limits.CLOCK_AHEAD_MS_MAX + 64
    world = Takeover(opened_ms=end_ms, adopted_ms=end_ms, generation=most)
    assert world.first() == (world.before, most)


@proves("adopt.only-by-order")
def test_whoever_is_no_operator_orders_no_takeover():
    assert refusal(Takeover(), leads=lambda *_: False) == "adoption-not-allowed"
    assert refusal(Takeover(), leads=None) == "adoption-not-allowed"


@proves("adopt.only-by-order")
@pytest.mark.parametrize(
    "changes",
    [
        {"adopter": STUDIO, "taker": STUDIO},
        {"what": "r2"},
        {"of": STUDIO},
        {"before": STUDIO},
        {"again": RunOpen("r1", "notes", "other", "00", repo="main")},
        {"opened": TaskOpen("t1", {"do": "make"}, run="r1"), "what": "t1"},
        {"unrepeated": True},
    ],
)
def test_an_adoption_of_other_work_lends_it_nothing(changes):
    assert refusal(Takeover(**changes)) == "adoption-other-work"


@proves("adopt.only-by-order")
@pytest.mark.parametrize("lost", ["run.open", "order.take"])
def test_what_this_machine_does_not_have_yet_is_missing_and_not_refused_for_ever(lost):
    world = Takeover()
    world.lost = {lost}
    assert refusal(world) == "adoption-missing"


@proves("adopt.only-by-order")
def test_work_that_went_on_more_often_than_machines_are_lost_is_refused():
    world = Takeover()
    for count in range(64):
        of, by = (BUILD, STUDIO) if count % 2 == 0 else (STUDIO, BUILD)
        order = world.take(takeover(of, by), by, NOW_MS + 5)
        adopt = world.streams[by].append(TaskAdopt("r1", of, 9), [order.id], NOW_MS + 6)
        world.again = world.streams[by].append(RUN, [adopt.id, world.again.id], NOW_MS + 7)
    assert refusal(world) == "repeated-too-often"


@proves("adopt.stands-in")
def test_a_standin_goes_on_with_what_is_opened_after_the_order_ended():
    world = Takeover(opened_ms=END_MS * 2, adopted_ms=END_MS * 2, groundless=True)
    said = world.streams[STUDIO].append(standin(OWNER, BUILD, STUDIO), (), NOW_MS + 2)
    stood = world.streams[BUILD].append(TaskAdopt("r1", OWNER, 7), [said.id], END_MS * 2)
    world.again = world.streams[BUILD].append(RUN, [stood.id, world.before.id], END_MS * 2)
    assert world.first() == (world.before, 7)


@proves("adopt.stands-in")
@pytest.mark.parametrize(("of", "by"), [(STUDIO, BUILD), (OWNER, STUDIO), (OWNER, "")])
def test_whom_no_operator_named_stands_in_for_nobody(of, by):
    world = Takeover()
    said = world.streams[STUDIO].append(standin(of, by, STUDIO), (), NOW_MS + 2)
    stood = world.streams[BUILD].append(TaskAdopt("r1", OWNER, 7), [said.id], NOW_MS + 3)
    world.again = world.streams[BUILD].append(RUN, [stood.id, world.before.id], NOW_MS + 4)
    assert refusal(world) == "adoption-not-allowed"


def elected(world: Takeover, others: tuple[str, ...], *, own: bool = False) -> Any:
    """BUILD goes on with OWNER's work, and another one with what BUILD has."""
    said = world.streams[STUDIO].append(
        standin(OWNER, BUILD, STUDIO, others=others), (), NOW_MS + 2
    )
    world.again = world.streams[BUILD].append(RUN, at_ms=NOW_MS + 3)
    if not own:
        stood = world.streams[BUILD].append(TaskAdopt("r1", OWNER, 7), [said.id], NOW_MS + 3)
        world.again = world.streams[BUILD].append(RUN, [stood.id, world.before.id], NOW_MS + 4)
    of = world.again.header.author
    next_ = world.streams[STUDIO].append(TaskAdopt("r1", of, 9), [said.id], NOW_MS + 5)
    world.again = world.streams[STUDIO].append(RUN, [next_.id, world.again.id], NOW_MS + 6)
    return world


@proves("adopt.elected", "adopt.only-by-order")
def test_who_was_named_as_well_goes_on_with_what_another_one_of_them_went_on_with():
    world = elected(Takeover(), (STUDIO,))
    assert world.first() == (world.before, 9)


@proves("adopt.elected", "adopt.only-by-order")
def test_who_was_named_as_well_goes_on_with_nothing_else_of_another_one_of_them():
    assert refusal(elected(Takeover(), (STUDIO,), own=True)) == "adoption-not-allowed"
    assert refusal(elected(Takeover(), ())) == "adoption-not-allowed"
    assert refusal(elected(Takeover(), ("a" * 64,))) == "adoption-not-allowed"
