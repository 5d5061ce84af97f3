"""Which mirror has its turn, and how long: what hangs keeps no other machine's from being pulled."""

from types import SimpleNamespace
from typing import Any

from tests.promise import proves

from muster.limits import GIT_ADD_MS_MAX
from muster.node.tasks.pulls import Mirror, Pulls


class World:
    def __init__(self, *wanted: str) -> None:
        behind: Any = SimpleNamespace(
            began=lambda _copy: None, ended=lambda _copy, whole: whole, moved=lambda _copy: None
        )
        self.now = SimpleNamespace(boot_ms=1_000)
        core: Any = SimpleNamespace(now=self.now, link_to=lambda _machine: 1)
        self.pulls = Pulls(core, behind)
        self.wanted = {Mirror(*each.split("/")) for each in wanted}
        self.pulls.want(self.wanted)

    def begin(self, ms: int = 0) -> list[str]:
        self.now.boot_ms += ms
        return sorted("/".join(each) for each in self.pulls.begin())

    def end(self, *names: str, whole: bool = True) -> None:
        for name in names:
            self.pulls.ended(Mirror(*name.split("/")), whole=whole)


@proves("adopt.turns")
def test_keepers_that_hang_keep_no_other_ones_waiting_after_their_first_time():
    world = World("a/x", "b/x")
    assert world.begin() == ["a/x", "b/x"]
    world.pulls.want(world.wanted | {Mirror("c", "x"), Mirror("d", "x")})
    assert world.begin() == []
    # Their time is over, and they are tried again, beside the others.
    world.end("a/x", "b/x", whole=False)
    assert world.begin(60_000) == ["a/x", "b/x", "c/x", "d/x"]
    world.end("c/x", "d/x")
    for _ in range(3):
        for name in ("c", "d"):
            world.pulls.moved(Mirror(name, "x"))
        assert world.begin(1_000) == ["c/x", "d/x"]
        world.end("c/x", "d/x")
    # Who answers again is one of the others again.
    world.end("a/x")
    world.pulls.moved(Mirror("a", "x"))
    world.pulls.moved(Mirror("c", "x"))
    world.pulls.moved(Mirror("d", "x"))
    assert len(world.begin(1_000)) == 2


@proves("adopt.turns")
def test_of_those_that_fail_no_more_than_some_are_tried_at_once():
    world = World(*(f"{name}/x" for name in "abcdefgh"))
    for _ in range(4):
        world.end(*world.begin(), whole=False)
    assert len(world.begin(600_000)) == 4


@proves("adopt.turns")
def test_a_machine_with_many_repositories_takes_turns_with_the_others():
    world = World(*(f"{m}/r{n}" for m in "ab" for n in range(20)))
    world.end(*world.begin())
    world.pulls.want(world.wanted | {Mirror("c", "x")})
    assert "c/x" in world.begin(1_000)


@proves("adopt.turns")
def test_a_pull_has_twice_the_time_after_each_failure_and_the_largest_copy_has_enough():
    world = World("a/x")
    times = []
    for _ in range(12):
        times.append(world.pulls.time_ms(Mirror("a", "x")))
        world.end("a/x", whole=False)
    assert times[:3] == [120_000, 240_000, 480_000]
    assert times[-1] == GIT_ADD_MS_MAX
    world.end("a/x")
    assert world.pulls.time_ms(Mirror("a", "x")) == 120_000
