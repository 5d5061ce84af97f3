"""Whoever stands in for a machine goes on with its work when that is gone, and not before."""

from typing import Any

import pytest
from tests.node.cores import Cores
from tests.node.test_adoption import (
    begin,
    decide,
    die,
    finished,
    forge,
    live,
    refusals,
    take_over,
    view,
)
from tests.node.test_shut_ordered import BOB
from tests.promise import proves

from muster.fleet.kinds import OrderTake
from muster.fleet.parcel import Heard
from muster.log.pace import Pace
from muster.node.services.parcels import ParcelCame, PlaceOpened
from muster.node.tasks.ownership import Ownership
from muster.node.tasks.runs import RunService
from muster.node.tasks.standins import standins
from muster.task.fold import RUN, TASK
from muster.task.kinds import TaskAdopt
from muster.task.standin import STANDINS, FleetStandin, standin_args

AFTER_MS = 30_000


@pytest.fixture
def world() -> Cores:
    made = Cores("hub", "studio", "laptop")
    for one, other in (("hub", "studio"), ("hub", "laptop"), ("studio", "laptop")):
        made.link(one, other)
    made.pass_ms(3_000)
    return made


def stand_in(world: Cores, of: str, by: str, at: str = "hub", **more: Any) -> Any:
    asked = {"machine": world[of].id, "by": world[by].id if by else "nobody", "after": "30s"}
    found = world[at].call("standin.check", asked)
    args = found["value"]["args"] if found["ok"] else asked
    statement = world.sign("standin", world[of].id, world[at], args, **more)
    return world[at].call("standin", args, statement=statement)


def adopted(world: Cores) -> set[str]:
    return {e.header.author for e in world["laptop"].entries("task.adopt")}


@proves("adopt.stands-in")
def test_a_stand_in_goes_on_with_the_work_of_a_machine_that_is_gone_and_it_obeys(world):
    run = begin(world)
    answer = stand_in(world, "hub", "studio")["value"]
    assert (answer["machine"], answer["by"], answer["after_s"]) == ("hub", "studio", 30)
    world.pass_ms(60_000)
    assert adopted(world) == set()
    die(world, "hub")
    world.pass_ms(28_000)
    assert adopted(world) == set()
    world.pass_ms(5_000)
    assert adopted(world) == {world["studio"].id}
    decide(world, "studio", run)
    world.pass_ms(3_000)
    live(world, "hub")
    world.pass_ms(3_000)
    assert {view(m, run)["state"] for m in world.machines.values()} == {"done"}
    assert run not in world["hub"].core.part(RunService).runs


@proves("adopt.stands-in")
def test_a_stand_in_that_slept_or_started_hears_first(world):
    begin(world)
    stand_in(world, "hub", "studio")
    world.pass_ms(3_000)
    die(world, "hub")
    # Nobody counted while it slept.
    world.ms += 3_600_000
    world.pass_ms(20_000)
    world.restart("studio")
    world.link("studio", "laptop")
    world.pass_ms(25_000)
    assert adopted(world) == set()
    world.pass_ms(10_000)
    assert adopted(world) == {world["studio"].id}


@proves("adopt.stands-in")
@pytest.mark.parametrize("by", ["", "laptop"])
def test_who_stands_in_is_whom_an_operator_named_last(world, by):
    begin(world)
    stand_in(world, "hub", "studio")
    world.pass_ms(1_000)
    stand_in(world, "hub", by, at="laptop")
    world.pass_ms(1_000)
    die(world, "hub")
    world.pass_ms(60_000)
    assert adopted(world) == ({world[by].id} if by else set())


@proves("adopt.stands-in", "adopt.only-by-order")
def test_who_stands_in_no_more_adopts_nothing_that_anybody_believes(world):
    """It did not hear of the newer order, and hears then that it owns nothing."""
    run = begin(world)
    stand_in(world, "hub", "studio")
    world.pass_ms(1_000)
    world.cut("studio")
    stand_in(world, "hub", "", at="laptop")
    world.pass_ms(1_000)
    die(world, "hub")
    world.pass_ms(35_000)
    assert run in world["studio"].core.part(RunService).runs
    world.link("studio", "laptop")
    world.pass_ms(3_000)
    hub = world["hub"].id
    assert adopted(world) == {world["studio"].id}
    assert {world[n].core.part(Ownership).owner(RUN, run) for n in ("laptop", "studio")} == {hub}
    assert run not in world["studio"].core.part(RunService).runs


@proves("adopt.only-by-order")
@pytest.mark.parametrize("whose", ["another", "member", "none"])
def test_a_member_that_was_not_named_goes_on_with_nothing(world, whose):
    """By an order that names another one, by one that it signed itself, and by none."""
    made = Cores("hub", "studio", "laptop")
    made.link("hub", "studio")
    made.pass_ms(3_000)
    run = begin(made)
    made.link("studio", "laptop")
    made.pass_ms(3_000)
    die(made, "hub")
    studio, by = made["studio"], made["laptop" if whose == "another" else "studio"].id
    args = standin_args(made["hub"].id, by, AFTER_MS)
    key = studio.identity.signer("statement") if whose == "member" else None
    raw = made.sign("standin", made["hub"].id, studio, args, signer=key)
    body: Any = FleetStandin(made["hub"].id, raw, studio.id, AFTER_MS)
    if whose == "none":
        body = OrderTake("0" * 64, raw)
    forge(made, run, ground=body)
    made.pass_ms(3_000)
    assert refusals(made) == ["adoption-not-allowed"]
    assert finished(made) == 0


@proves("adopt.only-by-order")
def test_only_an_operator_says_who_stands_in(world):
    key = world["studio"].identity.signer("statement")
    answer = stand_in(world, "hub", "studio", signer=key)
    assert "only an operator may order standin" in answer["error"]["text"]
    assert stand_in(world, "hub", "hub")["error"]["kind"] == "Conflict"
    (found,) = [m for m in world["hub"].call("machines", {})["value"] if m["name"] == "hub"]
    assert "stand_in" not in found
    assert stand_in(world, "hub", "studio")["ok"]
    world.pass_ms(1_000)
    (found,) = [m for m in world["laptop"].call("machines", {})["value"] if m["name"] == "hub"]
    assert found["stand_in"] == "studio"


@proves("adopt.stands-in")
def test_what_others_bring_of_a_machine_counts_as_heard(world):
    begin(world)
    stand_in(world, "hub", "studio")
    world.pass_ms(1_000)
    world.cut("hub")
    world.link("hub", "laptop")
    for _ in range(6):
        world["hub"].submit()
        world.pass_ms(10_000)
    assert adopted(world) == set()
    die(world, "hub")
    world.pass_ms(35_000)
    assert adopted(world) == {world["studio"].id}


@proves("adopt.stands-in")
def test_a_parcel_of_a_machine_counts_as_heard(world):
    """What it left in a mailbox says that it lives, and counts once."""
    begin(world)
    stand_in(world, "hub", "studio")
    world.pass_ms(1_000)
    studio = world["studio"]
    studio.step(PlaceOpened("drop", Pace(1_000, 8_000, 60_000, 1 << 20, 1_000)))
    die(world, "hub")

    def left(number: int) -> ParcelCame:
        said = Heard("1" * 16, number)
        return ParcelCame("drop", f"{number}", world["hub"].id, said, 0, "", ())

    for number in range(1, 5):
        world.pass_ms(15_000)
        studio.step(left(number))
    assert adopted(world) == set()
    world.pass_ms(15_000)
    # One that the place gives again is no word of the machine.
    studio.step(left(4))
    world.pass_ms(14_000)
    assert adopted(world) == set()
    world.pass_ms(5_000)
    assert adopted(world) == {studio.id}


@proves("adopt.stands-in")
def test_who_lives_and_is_met_at_a_mailbox_alone_keeps_its_work():
    """It has nothing to say, so it leaves a sign; and is waited for as long as that may take."""
    pytest.importorskip("pyrage", reason="pip install 'muster-fleet[sealed]'")
    from tests.node.places import Places

    made = Places("hub", "studio", pace=Pace(5_000, 40_000, 600_000, 1 << 20, 20_000, 15_000))
    made.pass_ms(8_000)
    run = begin(made)
    stand_in(made, "hub", "studio")
    made.pass_ms(10_000)
    before = len(made.left)
    made.pass_ms(600_000)
    assert made["studio"].entries("task.adopt") == []
    signs = [to for by, to, _ in made.left[before:] if by == "hub"]
    assert len(signs) in range(28, 33), "no more than the place bears"
    assert len(made.left) - before - len(signs) < 4, "a sign is not answered"
    # Where the place gives one late, it is waited for.
    made.absent.add("studio")
    made.pass_ms(35_000)
    made.absent.clear()
    made.pass_ms(25_000)
    assert made["studio"].entries("task.adopt") == []
    made.frozen.add("hub")
    made.pass_ms(40_000)
    assert made["studio"].entries("task.adopt") == []
    made.pass_ms(30_000)
    assert made["studio"].entries("task.adopt") != []
    assert made["studio"].core.part(Ownership).owner(RUN, run) == made["studio"].id
    # Who has no stand-in any more says nothing to nobody.
    made.frozen.clear()
    stand_in(made, "hub", "")
    made.pass_ms(20_000)
    before = len(made.left)
    made.pass_ms(300_000)
    assert len(made.left) == before


@proves("adopt.stands-in")
def test_a_daemon_that_runs_for_a_visit_alone_goes_on_with_nothing(world):
    """It dials nobody, and so would hear of nobody."""
    begin(world)
    stand_in(world, "hub", "studio")
    world.pass_ms(1_000)
    world["studio"].core.settings["visiting"] = True
    die(world, "hub")
    world.pass_ms(60_000)
    assert adopted(world) == set()
    answer = take_over(world, "studio", "hub")
    assert "runs for a visit alone" in answer["error"]["text"]


@proves("adopt.stands-in", "adopt.only-by-order")
def test_a_key_that_was_shut_out_says_nothing_of_a_stand_in_under_any_date(world):
    bob = world["hub"].order("operator.add", "bob", {"name": "bob", "key": BOB.key})
    assert bob["ok"]
    world.pass_ms(1_000)
    gone = world["hub"].order("revoke", "bob", {"name": "bob", "operator": True})
    assert gone["ok"]
    world.pass_ms(3_000)
    run = begin(world)
    stand_in(world, "hub", "studio")
    # Dated between the order and the adoption, and written by a member after that.
    world.pass_ms(1_000)
    laptop, hub = world["laptop"], world["hub"].id
    args = standin_args(hub, "", AFTER_MS)
    raw = world.sign("standin", hub, laptop, args, signer=BOB.statement, life_ms=120_000)
    world.pass_ms(1_000)
    die(world, "hub")
    world.pass_ms(40_000)
    with laptop.core.store.transaction():
        laptop.core.append_body(FleetStandin(hub, raw, "", AFTER_MS))
        laptop.core.store.seal_dirty(laptop.core.membership.signer("seal"))
    world.pass_ms(3_000)
    assert laptop.core.tables.rows(STANDINS, machine=hub, operator=BOB.key)
    for name in ("studio", "laptop"):
        assert world[name].core.part(Ownership).owner(RUN, run) == world["studio"].id
    assert run in world["studio"].core.part(RunService).runs


@proves("adopt.only-by-order")
def test_what_nobody_ordered_about_a_stand_in_has_nothing_judged_again(world):
    begin(world)
    stand_in(world, "hub", "studio")
    world.pass_ms(1_000)
    die(world, "hub")
    world.pass_ms(40_000)
    studio, laptop = world["studio"].core, world["laptop"]
    ranks = studio.part(Ownership)._rank
    assert ranks
    hub, key = world["hub"].id, laptop.identity.signer("statement")
    args = standin_args(hub, laptop.id, AFTER_MS)
    judged: list[int] = []
    studio.part(Ownership).judge_anew = lambda: judged.append(1)  # type: ignore[method-assign]
    for body in (
        FleetStandin(hub, "00", laptop.id, AFTER_MS),
        FleetStandin(
            hub, world.sign("standin", hub, laptop, args, signer=key), laptop.id, AFTER_MS
        ),
    ):
        with laptop.core.store.transaction():
            laptop.core.append_body(body)
            laptop.core.store.seal_dirty(laptop.core.membership.signer("seal"))
        world.pass_ms(2_000)
        assert len(world["studio"].entries("fleet.standin")) > 1
        assert judged == []
    stand_in(world, "hub", "", at="laptop")
    world.pass_ms(2_000)
    assert judged == [1]


@proves("adopt.only-by-order")
def test_an_order_anew_has_only_what_was_adopted_judged_again(world):
    run = begin(world)
    stand_in(world, "hub", "studio")
    world.pass_ms(1_000)
    die(world, "hub")
    world.pass_ms(40_000)
    owned = world["laptop"].core.part(Ownership)
    own = world["laptop"].submit()
    assert owned.owner(RUN, run) == world["studio"].id
    assert owned.owner(TASK, own) == world["laptop"].id
    kept = [rank for rank in owned._rank.values() if not rank.generation]
    assert len(kept) < len(owned._rank)
    owned.judge_anew()
    assert list(owned._rank.values()) == kept
    assert owned.owner(RUN, run) == world["studio"].id


@proves("adopt.stands-in")
def test_an_adoption_that_comes_before_the_word_it_was_made_by_is_believed_when_that_comes(world):
    """The word is of another stream, which may come later: it is missing, and not refused."""
    made = Cores("hub", "studio", "laptop")
    made.link("hub", "studio")
    made.link("hub", "laptop")
    made.pass_ms(3_000)
    run = begin(made)
    made.cut("laptop")
    stand_in(made, "hub", "studio")
    made.pass_ms(1_000)
    die(made, "hub")
    made.pass_ms(40_000)
    assert run in made["studio"].core.part(RunService).runs
    laptop = made["laptop"].core
    (named,) = made["studio"].entries("fleet.standin")
    known, owned = laptop.log.entry, laptop.part(Ownership)
    laptop.log.entry = lambda each: None if each == named.id else known(each)  # type: ignore[method-assign]
    made.link("studio", "laptop")
    made.pass_ms(3_000)
    assert owned.owner(RUN, run) == made["hub"].id
    laptop.log.entry = known  # type: ignore[method-assign]
    assert owned.owner(RUN, run) == made["studio"].id


@proves("adopt.stands-in", "adopt.no-clock")
def test_the_order_that_replaces_another_counts_whatever_the_clock_of_its_signer_says(world):
    """The first was signed minutes ahead of all clocks, and what was adopted by it, too."""
    run = begin(world)
    stand_in(world, "hub", "studio", ahead_ms=240_000)
    world.pass_ms(1_000)
    world.cut("studio")
    stand_in(world, "hub", "laptop", at="laptop", ahead_ms=-30_000)
    world.pass_ms(1_000)
    assert standins(world["hub"].core)[world["hub"].id].by == world["laptop"].id
    die(world, "hub")
    world.pass_ms(35_000)
    world.link("studio", "laptop")
    world.pass_ms(5_000)
    owners = {world[n].core.part(Ownership).owner(RUN, run) for n in ("laptop", "studio")}
    assert owners == {world["laptop"].id}


@proves("adopt.no-clock")
def test_who_heard_of_a_newer_order_adopts_by_none_before_it_whatever_their_dates(world):
    run = begin(world)
    stand_in(world, "hub", "studio")
    world.pass_ms(1_000)
    # It is signed under a date that no adoption comes to.
    stand_in(world, "hub", "", at="laptop", ahead_ms=240_000)
    world.pass_ms(1_000)
    die(world, "hub")
    studio, hub = world["studio"], world["hub"]
    (named,) = (e for e in studio.entries("fleet.standin") if e.header.author == hub.id)
    (row,) = studio.core.tables.rows(RUN, run=run)
    before = studio.core.log.entry(row.opened)
    assert before is not None
    # It passes by what it knows: any program can write this.
    with studio.core.store.transaction():
        body = TaskAdopt(run, hub.id, studio.core.now.wall_ms)
        adopt = studio.core.append_body(body, cause=(named.id, row.opened))
        studio.core.append("run.open", before.body or b"", cause=(row.opened, adopt.id))
        studio.core.store.seal_dirty(studio.core.membership.signer("seal"))
    world.pass_ms(2_000)
    for name in ("studio", "laptop"):
        assert world[name].core.part(Ownership).owner(RUN, run) == world["hub"].id


@proves("adopt.no-clock")
def test_of_orders_that_knew_nothing_of_each_other_it_is_the_same_one_on_every_machine():
    """Whichever was signed later, it counts by what nobody chose."""
    for ahead_ms in (-30_000, 0, 30_000):
        made = Cores("hub", "studio", "laptop")
        for name, by, more in (("studio", "studio", ahead_ms), ("laptop", "laptop", 0)):
            assert stand_in(made, "hub", by, at=name, ahead_ms=more)["ok"]
        for one, other in (("hub", "studio"), ("hub", "laptop"), ("studio", "laptop")):
            made.link(one, other)
        made.pass_ms(3_000)
        rows = {standins(made[name].core)[made["hub"].id].order for name in made.machines}
        assert len(rows) == 1
        # The next one is above both.
        assert stand_in(made, "hub", "", at="hub")["ok"]
        made.pass_ms(3_000)
        assert [standins(made[name].core) for name in made.machines] == [{}] * 3


@proves("adopt.no-clock")
def test_an_order_that_replaces_another_than_the_newest_is_refused(world):
    assert stand_in(world, "hub", "studio")["ok"]
    args = standin_args(world["hub"].id, world["laptop"].id, AFTER_MS)
    statement = world.sign("standin", world["hub"].id, world["hub"], args)
    answer = world["hub"].call("standin", args, statement=statement)
    assert answer["error"]["kind"] == "Conflict"
    assert "hub knows another newest order" in answer["error"]["text"]
    assert standins(world["hub"].core)[world["hub"].id].by == world["studio"].id
