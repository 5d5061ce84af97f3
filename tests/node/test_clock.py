"""The time that a machine goes by: not moved by a clock that is wrong for a moment."""

import pytest
from tests.node.cores import WALL_MS, Cores
from tests.promise import proves

from muster.channel.frame import Type
from muster.fleet.folds import INCIDENT
from muster.limits import CLOCK_SKEW_MS, EVIDENCE_AGE_MS_MAX
from muster.log import canon
from muster.node import event as ev
from muster.node.host.clock import CLOCK_STEP_MS, CLOCK_TRUST_MS, Steady, Told
from muster.task.instruction import Now

YEAR_MS = 366 * 24 * 3_600_000


class Clock:
    """Both clocks of a machine, and what it goes by."""

    def __init__(self) -> None:
        self.boot_ms, self.off_ms = 5_000, 0
        self.steady = Steady(self.raw())

    def raw(self) -> Now:
        return Now(self.boot_ms, WALL_MS + self.boot_ms + self.off_ms)

    def pass_ms(self, ms: int, *, by: int = 1_000) -> int:
        """How far what it goes by is from true time, after so long."""
        for _ in range(ms // by):
            self.boot_ms += by
            self.read()
        return self.read()

    def read(self) -> int:
        found = self.steady.read(self.raw())
        assert found.boot_ms == self.boot_ms
        return found.wall_ms - WALL_MS - self.boot_ms


@proves("node.clock-jumps-settle-nothing")
@pytest.mark.parametrize("jump", [YEAR_MS, -YEAR_MS, 60_000, -CLOCK_STEP_MS - 1])
def test_a_jump_that_passes_moves_nothing_and_one_that_stays_is_believed(jump):
    clock = Clock()
    clock.off_ms = jump
    assert clock.pass_ms(CLOCK_TRUST_MS - 2_000) == 0
    assert clock.steady.off_ms == jump
    clock.off_ms = 0
    assert clock.pass_ms(2 * CLOCK_TRUST_MS) == 0
    assert clock.steady.off_ms == 0
    clock.off_ms = jump
    assert clock.pass_ms(CLOCK_TRUST_MS + 2_000) == jump
    assert clock.steady.off_ms == 0


@proves("node.clock-jumps-settle-nothing")
def test_a_small_correction_and_a_slow_drift_are_followed_at_once():
    clock = Clock()
    for _ in range(1_000):
        clock.off_ms += 50
        assert clock.pass_ms(1_000) == clock.off_ms
    clock.off_ms -= CLOCK_STEP_MS
    assert clock.read() == clock.off_ms


@proves("node.clock-jumps-settle-nothing")
def test_a_clock_that_never_stands_still_is_never_believed():
    clock = Clock()
    for turn in range(100):
        clock.off_ms = YEAR_MS + turn * 10_000
        assert clock.pass_ms(10_000) == 0


@proves("node.clock-jumps-settle-nothing")
def test_another_machine_that_goes_by_the_new_time_ends_the_doubt_and_no_other_does():
    clock = Clock()
    clock.off_ms = YEAR_MS
    clock.read()
    for wrong in (0, YEAR_MS // 2, -YEAR_MS, YEAR_MS + 2 * CLOCK_SKEW_MS):
        clock.steady.heard([Told(WALL_MS + wrong, hub=True)])
        assert clock.read() == 0
    clock.steady.heard([Told(WALL_MS + YEAR_MS + 1_000, hub=True)])
    assert clock.read() == YEAR_MS


@proves("node.clock-jumps-settle-nothing")
@pytest.mark.parametrize(
    ("new", "hubs", "old", "follows"),
    [
        (1, 0, 0, False),
        (0, 1, 0, True),
        (2, 0, 0, True),
        (2, 0, 1, True),
        (2, 0, 2, False),
        (0, 1, 1, False),
        (1, 1, 1, True),
        (5, 0, 5, False),
    ],
)
def test_a_member_alone_moves_no_clock_and_a_hub_only_where_most_agree(new, hubs, old, follows):
    clock = Clock()
    clock.off_ms = YEAR_MS
    clock.read()
    jumped, stayed = WALL_MS + YEAR_MS, WALL_MS
    told = [Told(jumped, hub=False)] * new + [Told(jumped, hub=True)] * hubs
    clock.steady.heard(told + [Told(stayed, hub=False)] * old)
    assert clock.read() == (YEAR_MS if follows else 0)


@proves("node.clock-jumps-settle-nothing")
def test_a_member_that_says_hello_under_several_links_is_one_and_the_others_are_asked():
    world = Cores("hub", "studio", "laptop")
    for name in ("studio", "laptop"):
        world.link("hub", name)
    world.pass_ms(4_000)
    hub, lap = world["hub"], world["laptop"]
    true = world.now
    jumped = Now(true().boot_ms, true().wall_ms + YEAR_MS)
    world.now = lambda: jumped  # type: ignore[method-assign]
    for _ in range(3):
        _, link = world.link("laptop", "hub")
        hello = {"life": "", "muster": "x", "wall_ms": jumped.wall_ms}
        hub.step(ev.Arrived(link, Type.HELLO, 0, canon.encode(hello)))
    assert hub.core.links[link].skew_ms > YEAR_MS // 2
    assert abs(hub.core.now.wall_ms - true().wall_ms) < 60_000
    assert lap.id != hub.id


@proves("node.clock-jumps-settle-nothing")
@pytest.mark.parametrize("jump", [YEAR_MS, -YEAR_MS, EVIDENCE_AGE_MS_MAX + 1])
def test_a_live_task_outlives_a_clock_that_is_wrong_for_a_while_and_a_person_is_told(jump):
    world = Cores("hub", "studio")
    world.link("hub", "studio")
    world.pass_ms(500)
    hub = world["hub"]
    true = world.now

    def task() -> str:
        return hub.submit()

    before = task()
    world.now = lambda: Now(true().boot_ms, true().wall_ms + jump)  # type: ignore[method-assign]
    world.pass_ms(3_000)
    during = task()
    world.pass_ms(1_000)
    said = next(r for r in hub.core.tables.rows(INCIDENT) if r.key == "clock")
    assert said.open
    assert ("ahead" if jump > 0 else "back") in said.title
    assert said.stream.machine == hub.id
    stamps = [e.stamp.ms for e in hub.entries("incident.open")]
    assert all(abs(ms - WALL_MS) < 60_000 for ms in stamps), "nothing is dated by the wrong clock"
    world.now = true  # type: ignore[method-assign]
    world.pass_ms(3_000)
    for each in (before, during, task()):
        world.pass_ms(500)
        assert hub.task(each).state == "done", hub.task(each)
    said = next(r for r in hub.core.tables.rows(INCIDENT) if r.key == "clock")
    assert not said.open
