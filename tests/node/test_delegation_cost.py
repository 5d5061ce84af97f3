"""A member that asks without end costs an owner little, and nobody waits behind it."""

from typing import Any

from tests.node.delegating import Fleet, Forger, asked, begun, forge, whys
from tests.promise import proves

from muster.limits import UNPROVEN_PER_MINUTE_MAX
from muster.node.tasks import asked_work
from muster.node.tasks.asked_work import AskedWork
from muster.task import evidence, spec


@proves("delegation.cheap")
def test_no_text_is_read_of_what_nothing_lets_anybody_hand_on(monkeypatch):
    world = Fleet()
    world.begin("{machine: hub}")
    (assign,) = world["mac1"].entries("task.assign")
    forger, id = Forger(world, "mac1"), world.grant("mac1", per_day=1)
    forger.asks("mac2", grant=id)
    forger.asks("mac2", cause=(assign.id,))
    read = list[bytes]()
    for module in (evidence, asked_work):
        monkeypatch.setattr(module, "parse", lambda text: read.append(text) or spec.parse(text))
    whats: list[dict[str, Any]] = [
        {}, {"grant": "0" * 64}, {"grant": id}, {"cause": (assign.id,)}, {"statement": "00"},
    ]  # fmt: skip
    for each in whats:
        forger.asks("mac2", text="junk: " + "[" * 40_000, **each)
    assert len(world["mac2"].entries("delegation.refuse")) >= 4
    assert not [text for text in read if text.startswith(b"junk")]


@proves("delegation.cheap")
def test_one_step_looks_at_one_of_all_that_came_in_it_and_nobody_waits_behind_another():
    world = Fleet()
    looked = list[int]()
    part = world["mac2"].core.part(AskedWork)
    step, look = world["mac2"].core.step, part._look

    def counted(*args: Any) -> Any:
        looked.append(0)
        return step(*args)

    def look_at(entry: Any) -> None:
        looked[-1] += 1
        look(entry)

    world["mac2"].core.step, part._look = counted, look_at
    world.grant("hub")
    core = Forger(world, "mac1").one.core
    drafts = [Forger(world, "mac1").draft("mac2") for _ in range(30)]
    forge(world["mac1"], lambda: [core.append_body(d, actor="claude@mac1") for d in drafts])
    run = asked(world["hub"])
    world.pass_ms(500)
    assert begun(world) == [run]
    world.pass_ms(1_000)
    assert sum(looked) == 31
    assert max(looked) == 1


@proves("delegation.cheap")
def test_nobody_makes_an_owner_look_and_write_as_often_as_it_asks():
    world = Fleet()
    forger, most = Forger(world, "mac1"), UNPROVEN_PER_MINUTE_MAX
    for _ in range(most + 20):
        forger.asks("mac2", wait_ms=100)
    world.pass_ms(2_000)
    assert len(world["mac2"].entries("delegation.refuse")) == most
    world.pass_ms(60_000)
    # Nothing is forgotten: it waited for its minute.
    assert len(world["mac2"].entries("delegation.refuse")) == most + 20
    assert "no assignment" in whys(world, forger.asks("mac2"))


@proves("delegation.cheap")
def test_only_so_much_waits_of_one_machine(monkeypatch):
    monkeypatch.setattr(asked_work, "DELEGATIONS_MAX", 3)
    world = Fleet()
    core, forger = world["mac1"].core, Forger(world, "mac1")
    drafts = [forger.draft("mac2") for _ in range(8)]
    forge(world["mac1"], lambda: [core.append_body(d, actor="claude@mac1") for d in drafts])
    world.pass_ms(3_000)
    assert world["mac2"].core.counters["delegations-unanswered"] == 5
    assert len(world["mac2"].entries("delegation.refuse")) == 3
