"""Who does and who judges the rounds of a review, between real cores; and what is counted of it."""

import pytest
from tests.node.cores import Cores, One, attempt_ended
from tests.node.test_runs import DONE, OTHER, fence, hand_in, promote, renew, wanted
from tests.promise import proves

from muster.node.incarnations.own_incarnation import FactsChanged
from muster.node.tasks.trust import Trust
from muster.task.instruction import Fenced, RaiseFence, StartAttempt
from muster.task.trust import CHECKED

SPEC = """\
muster: 1
name: chain
repo: main
phases:
  feature: {agent: shell, do: echo hi, deliver: a}
  verdict: {review: feature, agent: shell, do: look, rounds: 3}
"""
REJECT = {"verdict": "reject", "reasons": "bad"}


def know(machine: One, *, git: bool = True) -> None:
    tools = {"git": "2.40"} if git else {}
    machine.step(FactsChanged(machine.facts(repositories=["main"], tools=tools)))


def fleet(*others: str, work: tuple[str, ...] = ()) -> Cores:
    """The hub and others; all of them, or those that are named, have git."""
    world = Cores("hub", *others)
    for name in others:
        world.link("hub", name)
    world.pass_ms(6_000)
    for name in world.machines:
        know(world[name], git=name in (work or world.machines))
    world.pass_ms(3_000)
    return world


def once(world: Cores, **more) -> tuple[One, StartAttempt]:
    """The one attempt that some machine begins, and its end."""
    hub = world["hub"]
    fence(hub)
    world.drain()
    world.pass_ms(6_000)
    ((machine, start),) = [(m, s) for m in world.machines.values() for s in wanted(m, StartAttempt)]
    place = (start.assign.task, start.assign.epoch)
    machine.step(attempt_ended(*place, "done", summary="x", **more))
    world.drain()
    world.pass_ms(500)
    return machine, start


@proves("spec.review-another-machine")
def test_who_did_an_earlier_round_judges_no_later_one_and_who_judged_does_none_where_another_can():
    world = fleet("studio", "laptop", work=("studio", "laptop"))
    hub = world["hub"]
    hand_in(hub, SPEC)
    first, _ = once(world, commit=DONE)
    promote(hub)
    # Whoever did the first round is away for the second.
    world.cut(first.name)
    know(hub)
    judge, start = once(world, values=REJECT)
    assert judge is not first
    assert start.open.values["run"]["apart"] == first.id
    second, start = once(world, commit=OTHER)
    promote(hub)
    assert start.open.values["run"]["judged"] == judge.id
    assert second is not judge
    world.link("hub", first.name)
    world.pass_ms(9_000)
    for name in world.machines:
        know(world[name])
    world.pass_ms(3_000)
    again, start = once(world, values={"verdict": "accept"})
    assert start.open.values["run"]["apart"].split() == sorted({first.id, second.id})
    assert again not in (first, second)


@proves("task.trust-reviews-count", "task.trust-once")
@pytest.mark.parametrize("begins", [False, True])
def test_a_rejection_counts_also_where_its_owner_began_a_new_incarnation_meanwhile(begins):
    world = fleet("studio")
    hub = world["hub"]
    hand_in(hub, SPEC)
    author, _ = once(world, commit=DONE)
    promote(hub)
    if begins:
        renew(world, "hub")
        world.link("hub", "studio")
        world.pass_ms(1_000)
        know(world["hub"])
        world.pass_ms(3_000)
    hub = world["hub"]
    trust = hub.core.part(Trust)
    assert trust.of(author.id, "shell")[:2] == (0, 0)
    reviewer, _ = once(world, values=REJECT)
    assert reviewer is not author
    known = trust.of(author.id, "shell")
    assert known[:2] == (0, 1)
    trust._forget()
    assert trust.of(author.id, "shell") == known


TWO = SPEC + "  second: {review: feature, agent: shell, do: look, rounds: 3}\n"


@proves("task.trust-once")
def test_an_attempt_that_is_rejected_before_and_after_its_owner_began_anew_failed_once():
    world = fleet("studio")
    hub = world["hub"]
    hand_in(hub, TWO)
    author, _ = once(world, commit=DONE)
    promote(hub)
    first, _ = begun(world)
    reject(world, *first)
    renew(world, "hub")
    world.link("hub", "studio")
    world.pass_ms(1_000)
    know(world["hub"])
    world.pass_ms(3_000)
    assert world["hub"].core.part(Trust).of(author.id, "shell")[:2] == (0, 1)
    (second,) = begun(world)
    reject(world, *second)
    known = world["hub"].core.part(Trust).of(author.id, "shell")
    assert known[:2] == (0, 1)
    assert len(world["hub"].core.tables.rows(CHECKED, writer=world["hub"].id)) == 2
    world["hub"].core.part(Trust)._forget()
    assert world["hub"].core.part(Trust).of(author.id, "shell") == known


def begun(world: Cores) -> list[tuple[One, StartAttempt]]:
    """What machines begin, once the fence was raised for it."""
    for asked in wanted(world["hub"], RaiseFence):
        world["hub"].step(Fenced(asked.task, asked.epoch, ""))
    world.drain()
    world.pass_ms(6_000)
    return [(m, s) for m in world.machines.values() for s in wanted(m, StartAttempt)]


def reject(world: Cores, machine: One, start: StartAttempt) -> None:
    place = (start.assign.task, start.assign.epoch)
    machine.step(attempt_ended(*place, "done", summary="x", values=REJECT))
    world.drain()
    world.pass_ms(500)
