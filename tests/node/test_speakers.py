"""In a thread its members speak, and nobody who writes into it without being one."""

import pytest
from tests.node.cores import WALL_MS, Cores, One
from tests.node.test_actor import says
from tests.promise import proves

from muster.fleet.folds import MemberRow
from muster.log.stream import FLEET, StreamName, scope_group

PLANS = "thread:plans"


@pytest.fixture
def world() -> Cores:
    made = Cores("hub", "studio", "laptop", "late")
    names = ("hub", "studio", "laptop", "late")
    for at, one in enumerate(names):
        for other in names[at + 1 :]:
            made.link(one, other)
    made.pass_ms(4_000)
    change(made, add="studio")
    return made


def change(world: Cores, **how: str) -> None:
    args = {"name": "plans", **{action: [name] for action, name in how.items()}}
    assert world["hub"].order("thread", "plans", args)["ok"]
    world.pass_ms(1_000)


def intrudes(world: Cores, text: str) -> None:
    """The laptop writes into the thread, whether it belongs to it or not."""
    laptop, scope = world["laptop"], scope_group(world["hub"].id, "plans")
    stream = StreamName(laptop.id, laptop.core.membership.incarnation, scope)
    says(laptop, "message.send", {"text": text, "to": ["all"]}, (), stream)
    world.pass_ms(2_000)


def heard(machine: One) -> list[str]:
    """What is in the inbox; the same must be among the unread, in the count and in the thread."""
    every = [m["text"] for m in machine.call("inbox", {"all": True})["value"]]
    assert [m["text"] for m in machine.call("inbox", {})["value"]] == every
    assert machine.call("status", {})["value"]["unread"] == len(every)
    (thread,) = machine.call("threads", {"name": "plans"})["value"]
    assert [m["text"] for m in thread["messages"]] == every
    return every


@proves("message.members-speak")
def test_whoever_was_never_in_a_thread_says_nothing_there(world):
    intrudes(world, "I am one of you")
    assert heard(world["hub"]) == heard(world["studio"]) == []
    assert world["hub"].entries("message.send"), "it is kept, as evidence"
    change(world, add="laptop")
    assert heard(world["studio"]) == ["I am one of you"], "the keeper let it in"


@proves("message.members-speak")
def test_what_a_member_said_stays_and_what_it_says_after_it_was_put_out_is_nothing(world):
    change(world, add="laptop")
    assert world["laptop"].order("send", PLANS, {"to": PLANS, "text": ["before"]})["ok"]
    world.pass_ms(1_000)
    change(world, remove="laptop")
    intrudes(world, "after")
    assert heard(world["hub"]) == heard(world["studio"]) == ["before"]
    change(world, add="late")
    assert heard(world["late"]) == ["before"], "who comes later goes by the stamps"
    world.restart("studio")
    assert heard(world["studio"]) == ["before"]


@proves("message.members-speak")
def test_an_intruder_that_writes_much_crowds_out_nobody(world):
    assert world["studio"].order("send", PLANS, {"to": PLANS, "text": ["hello"]})["ok"]
    world.pass_ms(1_000)
    for number in range(5):
        intrudes(world, f"noise {number}")
    (thread,) = world["hub"].call("threads", {"name": "plans", "limit": 2})["value"]
    assert [m["text"] for m in thread["messages"]] == ["hello"]


@proves("message.members-speak")
def test_who_was_put_out_beyond_the_end_of_a_forked_stream_keeps_what_it_said_before(world):
    change(world, add="laptop")
    assert world["laptop"].order("send", PLANS, {"to": PLANS, "text": ["before"]})["ok"]
    world.pass_ms(1_000)
    studio, keeper = world["studio"], world["hub"].core.membership.own(FLEET)
    t_ms = WALL_MS + world.ms
    removal = MemberRow(keeper, "plans", world["laptop"].id, 0, "start", "{}", t_ms, 0)
    studio.core.membership.left_out(keeper, [removal])
    studio.core.membership.stale()
    assert heard(studio) == ["before"]
    intrudes(world, "after")
    assert heard(studio) == ["before"]
