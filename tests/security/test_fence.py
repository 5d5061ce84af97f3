"""Who may move refs, when a member lies in its own stream about tasks and runs of others."""

from collections.abc import Iterator
from typing import Any

import pytest

from muster.channel.frame import Type
from muster.log import canon
from muster.node.tasks.push_policy import OwnerPushPolicy
from muster.task import kinds
from muster.task.evidence import run_args
from tests.fleet.world import BUILD, LAPTOP, LAPTOP_RECORD, STUDIO
from tests.promise import proves
from tests.security.peer import Peer
from tests.security.target import LOCAL, MEMBER, SPEC, Target

RUN, TASK = "a" * 32, "b" * 32
OLD, NEW = "0" * 40, "1" * 40


class World:
    """A hub (the target), an honest owner (laptop) with a run, and a member that went bad (build)."""

    def __init__(self) -> None:
        self.target = Target()
        self.honest, self.bad = Peer(LAPTOP, LAPTOP_RECORD), Peer()
        self.statement = ""
        for peer in (self.honest, self.bad):
            self.target.frame(MEMBER, Type.SEGMENT, peer.segment(0))

    def opening(self, target: str, run: str = RUN) -> bytes:
        body = kinds.RunOpen(run=run, name="hello", spec=SPEC, statement="", repo="main")
        now = self.target.now.wall_ms
        order = self.target.order("run", "hello", run_args(body), target=target, issued_ms=now - 1)
        self.statement = order.encode().hex()
        fields = {"name": "hello", "repo": "main", "run": run, "spec": SPEC}
        return canon.encode({**fields, "statement": self.statement})

    def write(self, peer: Peer, machine: str, run: bytes, *, epoch: Any = (1, 1)) -> None:
        """The entries by which a machine becomes, or claims to be, the owner of the task."""
        peer.now_ms = self.target.now.wall_ms
        start = peer.store.log.size(peer.stream())
        opened_run = peer.write("run.open", run)
        name = canon.decode(run, "run", size_max=10**6)["run"]
        task = kinds.TaskOpen(task=TASK, template={"do": "{}"}, run=name, phase="one", repo="main")
        opened = peer.write("task.open", kinds.body_bytes(task), cause=(opened_run.id,))
        assign = kinds.TaskAssign(TASK, epoch, machine, "noop", 60_000)
        peer.write("task.assign", kinds.body_bytes(assign), cause=(opened.id,))
        self.target.frame(MEMBER, Type.SEGMENT, peer.segment(start))

    def asks(self, peer: str, ref: str) -> bool:
        args = {"peer": peer, "updates": [[ref, OLD, NEW]]}
        answer: bool = self.target.call(LOCAL, "git.may-push", args)[0]["ok"]
        return answer


@pytest.fixture
def world() -> Iterator[World]:
    made = World()
    yield made
    made.target.store.close()


@proves("git.fence-believes-orders-only")
def test_a_member_that_names_anothers_run_moves_none_of_its_refs(world: World) -> None:
    world.write(world.honest, BUILD.machine, genuine := world.opening(LAPTOP.machine))
    attempt = f"refs/muster/attempt/{TASK}/1-1"
    branch, fence = f"refs/heads/muster/{RUN}/one", f"refs/muster/fence/{TASK}"
    assert world.asks(BUILD.machine, attempt)
    assert world.asks(LAPTOP.machine, branch)
    world.write(world.bad, BUILD.machine, genuine, epoch=(2**53 - 1, 1))
    assert not world.asks(BUILD.machine, branch)
    assert not world.asks(BUILD.machine, fence)
    assert not world.asks(BUILD.machine, f"refs/muster/attempt/{TASK}/{2**53 - 1}-1")
    assert world.asks(LAPTOP.machine, branch)
    assert world.asks(LAPTOP.machine, fence)
    assert world.asks(BUILD.machine, attempt), "the honest owner's lease still counts"


@proves("git.fence-believes-orders-only")
def test_a_task_that_nobody_ordered_has_no_owner_and_no_holder(world: World) -> None:
    forged = canon.encode(
        {"name": "x", "repo": "main", "run": RUN, "spec": SPEC, "statement": "00"}
    )
    world.write(world.bad, BUILD.machine, forged)
    membership = OwnerPushPolicy(world.target.core, "main")
    assert membership.owner("task", TASK) is None
    assert membership.holder(TASK) is None
    assert membership.owner("run", RUN) is None
    assert not world.asks(BUILD.machine, f"refs/muster/attempt/{TASK}/1-1")
    assert not world.asks(BUILD.machine, f"refs/muster/fence/{TASK}")


@proves("git.fence-believes-orders-only")
def test_a_name_is_of_the_machine_that_was_ordered_first(world: World) -> None:
    world.write(world.honest, STUDIO.machine, world.opening(LAPTOP.machine))
    world.write(world.bad, BUILD.machine, world.opening(BUILD.machine))
    assert world.asks(LAPTOP.machine, f"refs/heads/muster/{RUN}/one")
    assert not world.asks(BUILD.machine, f"refs/heads/muster/{RUN}/one")


@proves("git.fence-believes-orders-only")
def test_hostile_refs_are_refused_in_one_line(world: World) -> None:
    for ref in ("", "../x", "refs/heads/muster/../main", "refs/heads/a..b", "refs/heads/\x1b[2J",
                "refs/muster/fence/" + "x" * 10_000, "refs/heads/muster", "HEAD", "--all"):  # fmt: skip
        for peer in (BUILD.machine, "", "0" * 64, STUDIO.machine):
            args = {"peer": peer, "updates": [[ref, OLD, NEW]]}
            answer = world.target.call(LOCAL, "git.may-push", args)[0]
            assert not answer["ok"]
            assert answer["error"]["text"].isprintable()
