"""What a hostile member may date, repeat and begin of what it hands on, and what that gives it."""

import json
from functools import partial
from typing import Any

import msgspec
import pytest
from tests.node.cores import One
from tests.node.delegating import DAY_MS, Fleet, Forger, asked, begun, forge, whys
from tests.promise import proves

from muster.log.clock import Stamp
from muster.log.stream import Incarnation
from muster.node.incarnations.doubt import Doubt
from muster.node.incarnations.lives import Lives
from muster.node.incarnations.own_incarnation import OwnIncarnation
from muster.node.tasks import asked_work
from muster.node.tasks.asked_work import AskedWork
from muster.node.tasks.delegations import Delegations
from muster.node.tasks.runs import RunService
from muster.store.store import Store
from muster.task import kinds
from muster.task.delegation_fold import DELEGATION
from muster.task.delegation_kinds import DelegationOpen
from muster.task.identity import run_id


def backdates(one: One, ahead_ms: int, *, every: bool = False) -> None:
    """From now on what a member asks for is dated so, whatever its stream had before.

    With `every` it dates all that it writes so, and after what it has in that stream.
    """
    store = one.core.store
    append = Store.append

    def dated(stream: Any, drafts: Any, now_ms: int) -> Any:
        if drafts[0].kind != "delegation.open" and not every:
            return append(store, stream, drafts, now_ms)
        # Stamps rise in the streams of honest machines alone.
        if ahead_ms < 0:
            size = store.log.size(stream) if every else 0
            store._stamp = store.log.entry_at(stream, size - 1).stamp if size else Stamp(0, 0)
        return append(store, stream, drafts, now_ms + ahead_ms)

    store.append = dated  # type: ignore[method-assign]


@proves("delegation.budget")
@pytest.mark.parametrize(
    ("step_ms", "why"),
    [
        (DAY_MS + 60_000, "future"), (11 * 60_000, "future"),
        (-DAY_MS - 60_000, "too late"), (-7 * 3_600_000, "more runs"),
    ],
)  # fmt: skip
def test_no_date_that_an_asker_chooses_gives_it_more_than_a_grant_allows(step_ms, why):
    world = Fleet()
    forger, id = Forger(world, "mac1"), world.grant("mac1", per_day=1, at_once=20, days=300)
    runs, core = [], forger.one.core
    for number in range(4):
        if step_ms < 0 and number:
            # Of a stream nothing counts that is dated before what it has; so it begins another.
            backdates(forger.one, number * step_ms, every=True)
            forge(forger.one, lambda n=number: core.membership.renewed(Incarnation(f"{n:032x}")))
            forge(forger.one, core.part(OwnIncarnation)._open_incarnation)
        else:
            backdates(forger.one, number * step_ms)
        runs.append(forger.asks("mac2", grant=id, back_ms=max(0, -number * step_ms)))
    assert begun(world) == runs[:1]
    assert all(why in whys(world, run) for run in runs[1:])


@proves("delegation.budget", "store.stamps-rise")
def test_what_is_dated_before_what_its_stream_has_counts_nowhere_and_is_begun_by_nobody():
    world = Fleet()
    forger, id = Forger(world, "mac1"), world.grant("mac1", per_day=2, at_once=20, days=300)
    runs = [forger.asks("mac2", grant=id)]
    backdates(forger.one, -3_600_000)
    runs.append(forger.asks("mac2", grant=id, back_ms=3_600_000))
    assert begun(world) == runs[:1]
    for name in ("hub", "mac1", "mac2"):
        tables = world[name].core.tables
        assert [row.run for row in tables.rows(DELEGATION)] == runs[:1]
        assert {each.reason for each in tables.skipped()} == {"stamp-not-later"}


@proves("delegation.budget")
def test_what_is_asked_for_twice_is_counted_by_what_let_it_first():
    world = Fleet()
    world.link("mac1", "mac2")
    world.pass_ms(8_000)
    forger, id = Forger(world, "mac1"), world.grant("mac1", per_day=1)
    core, runs = world["mac1"].core, []
    for _ in range(3):
        # Once by nothing, which counts for no grant, and once more by the grant.
        made = forger.draft("mac1", grant="0" * 64)
        again = msgspec.structs.replace(made, grant=id)
        part = core.part(AskedWork)
        # It owns the run itself, and looks at nothing.
        part.flush = lambda: None  # type: ignore[method-assign]
        forge(world["mac1"], lambda m=made, a=again: [core.append_body(x) for x in (m, a)])
        entry = world["mac1"].entries("delegation.open")[-1]
        opened = kinds.RunOpen(made.run, "whole", made.spec, made.statement)
        service = core.part(RunService)
        forge(world["mac1"], partial(service.open, opened, (entry.id,), "claude@mac1"))
        world.pass_ms(5_000)
        runs.append(made.run)
    assert begun(world) == []
    refused = [json.loads(e.body)["reason"] for e in world["mac2"].entries("attempt.refuse")]
    assert set(refused) == {"delegation-other-order"}


@proves("delegation.budget")
def test_of_one_asking_there_is_one_run_however_many_its_hostile_owner_begins():
    world = Fleet()
    world.link("mac1", "mac2")
    world.pass_ms(8_000)
    forger = Forger(world, "mac1")
    run = forger.asks("mac1", grant=world.grant("mac1", per_day=1))
    assert begun(world) == [run]
    (row,) = world["mac1"].core.tables.rows(DELEGATION, run=run)
    body = world["mac1"].core.part(Delegations).body(row)
    service = world["mac1"].core.part(RunService)
    for number in range(3):
        other = kinds.RunOpen(f"{number:032x}", "whole", body.spec, body.statement)
        forge(world["mac1"], partial(service.open, other, (row.entry,), "claude@mac1"))
        world.pass_ms(5_000)
    assert begun(world) == [run]


@proves("delegation.budget")
def test_what_other_streams_of_an_asker_had_is_counted_whatever_dates_it_has():
    world = Fleet()
    forger, id = Forger(world, "mac1"), world.grant("mac1", per_day=2)
    runs = [forger.asks("mac2", grant=id)]
    core = forger.one.core
    for number in range(1, 4):
        # The same machine begins anew, and dates what it asks for before all that it had.
        backdates(forger.one, -number * 3_600_000, every=True)
        forge(forger.one, lambda n=number: core.membership.renewed(Incarnation(f"{n:032x}")))
        forge(forger.one, core.part(OwnIncarnation)._open_incarnation)
        runs.append(forger.asks("mac2", grant=id, back_ms=number * 3_600_000))
    assert begun(world) == runs[:2]
    assert "more runs" in whys(world, runs[-1])


@proves("delegation.reaches-sleepers")
def test_after_a_start_nobody_is_hidden_by_what_others_asked_for_and_dated_ahead(monkeypatch):
    monkeypatch.setattr(asked_work, "DELEGATIONS_MAX", 20)
    world = Fleet()
    world.grant("mac1")
    owner = world["mac2"].core.part(AskedWork)
    # It is not there.
    owner.flush = lambda: None  # type: ignore[method-assign]
    run = asked(world["mac1"])
    core, to = world["hub"].core, world["mac2"].id
    backdates(world["hub"], 9 * 60_000)
    junk = [DelegationOpen(run_id(to, f"{n:04x}"), to, f"{n:04x}", "x") for n in range(40)]
    forge(world["hub"], lambda: [core.append_body(each) for each in junk])
    world.pass_ms(3_000)
    assert len(world["mac2"].core.tables.rows(DELEGATION)) == 41
    owner._waiting = {}
    del owner.flush
    forge(world["mac2"], owner.start)
    world.pass_ms(5_000)
    assert begun(world) == [run]


@proves("delegation.reaches-sleepers")
def test_what_came_while_its_owner_doubted_itself_is_begun_when_it_does_not():
    world = Fleet()
    world.grant("mac1")
    lives = world["mac2"].core.part(Lives)
    lives._beside = {"another": world.ms}
    run = asked(world["mac1"])
    world.pass_ms(2_000)
    assert world["mac2"].core.part(Doubt).waits
    assert world.state(run) == "asked"
    lives._beside = {}
    world.pass_ms(2_000)
    assert begun(world) == [run]
