"""The whole fleet under seeds: what every change must survive."""

import os
import subprocess
import sys
from collections import Counter
from dataclasses import fields
from pathlib import Path

import pytest

from tests.promise import proves
from tests.sim.engine import MISDEEDS as ENGINE
from tests.sim.faults import PEACE, PROFILES, Faults, swarm
from tests.sim.middle import DEEDS
from tests.sim.shelf import LOOKS, MISDEEDS
from tests.sim.sweep import play, sweep
from tests.sim.world import World

ROOT = Path(__file__).parent.parent.parent
# A thousand are `make sim`.
SEEDS = 20
# Until a profile has met all of its faults.
SEEDS_MAX = 40


def corpus() -> list[tuple[int, str]]:
    """Every seed that ever failed, with its profile."""
    lines = (Path(__file__).parent / "corpus.txt").read_text(encoding="utf-8").splitlines()
    bare = [line.partition("#")[0].split() for line in lines]
    return [(int(words[0]), words[1] if len(words) > 1 else "") for words in bare if words]


@proves("sim.peace-converges")
def test_in_peace_every_machine_holds_the_same_streams_and_every_task_settles():
    world = World(1, PEACE)
    try:
        world.run()
        assert len(world.workload.tasks) == PEACE.tasks
        assert len(world.workload.messages) == PEACE.messages
    finally:
        world.close()


@proves("sim.invariants-hold")
def test_under_any_faults_the_invariants_hold():
    outcomes = sweep(range(SEEDS), "", "", os.cpu_count() or 1)
    assert [o.violation for o in outcomes if o.violation] == []
    assert sum(o.steps for o in outcomes) > 100 * SEEDS


@proves("sim.middle-is-harmless")
def test_a_hostile_middle_changes_nothing_and_only_delays():
    reached: Counter[str] = Counter()
    for seed in (10, 11):
        outcome = play(seed, "middle")
        assert outcome.violation == ""
        reached.update(outcome.reached)
    assert all(reached["middle-" + deed] for deed in DEEDS)


@proves("sim.a-relay-is-passed-by")
def test_what_a_relay_withholds_comes_past_it_and_what_it_may_not_hold_comes_at_once():
    outcome = play(5, "relay-withholds")
    assert outcome.violation == ""
    assert outcome.reached["relayed"]
    assert outcome.reached["past-the-middle"]


@proves("sim.torn-batches-hold")
def test_a_link_that_ends_within_a_batch_loses_nothing_and_doubles_nothing():
    outcome = play(11, "torn")
    assert outcome.violation == ""
    assert outcome.reached["torn"]


@proves("budget.pot")
def test_what_dead_and_parted_machines_spend_stays_within_the_pot():
    outcome = play(2, "money")
    assert outcome.violation == ""
    assert outcome.reached["model-call"]


@proves("sim.failures-are-kept")
@pytest.mark.parametrize(("seed", "profile"), corpus())
def test_a_seed_that_failed_once_holds_ever_after(seed, profile):
    assert play(seed, profile).violation == ""


@proves("sim.seed-replays")
@pytest.mark.parametrize(("seed", "profile"), [(7, "lossy"), (3, ""), (2, "witness-persists")])
def test_a_seed_replays_to_the_same_trace_in_any_process(seed, profile):
    command = [sys.executable, "-m", "tests.sim", "--seed", str(seed), "--profile", profile]
    traces = set()
    # Sets and dictionaries of strings come in another order in each of these.
    for salt in ("1", "77"):
        environment = {**os.environ, "PYTHONHASHSEED": salt}
        found = subprocess.run(
            command, cwd=ROOT, env=environment, capture_output=True, text=True, check=True
        )
        traces.add(found.stdout.splitlines()[0])
    assert len(traces) == 1
    assert traces.pop().startswith("trace ")


@proves("sim.swarm-draws-all")
def test_a_thousand_seeds_draw_every_fault():
    drawn = [swarm(seed) for seed in range(1000)]
    for each in fields(Faults):
        default = getattr(PEACE, each.name)
        if each.name in NOT_DRAWN:
            continue
        seeds = sum(getattr(faults, each.name) != default for faults in drawn)
        assert seeds > 10, f"{each.name} is drawn {seeds} times in a thousand"
    assert sum(faults == PEACE for faults in drawn) < 300


# What only named profiles set: how much work there is, and a fault's exact kind.
NOT_DRAWN = {
    "machines", "healing_ms", "tasks", "messages", "repository", "crash_kind", "restore_kind",
    "attacks", "attack", "middle_does", "withholds", "reviews", "approvals", "money", "renames", "apart", "visitors", "climbs",
}  # fmt: skip


@proves("sim.mailboxes-hold")
@pytest.mark.parametrize(
    ("profile", "met"),
    [
        ("places", [*("place-" + each for each in MISDEEDS), *("place-shows-" + x for x in LOOKS)]),
        ("engine", [*("engine-" + each for each in ENGINE), "engine-dies-amid"]),
    ],
)
def test_hostile_and_forgetful_mailboxes_do_all_they_can_within_few_seeds(profile, met):
    missing = set(met)
    for seed in range(SEEDS_MAX):
        outcome = play(seed, profile)
        assert outcome.violation == ""
        missing -= outcome.reached.keys()
        if not missing:
            return
    pytest.fail(f"{SEEDS_MAX} seeds of {profile} never met {sorted(missing)}")


@proves("sim.profiles-hold")
@pytest.mark.parametrize("profile", sorted(PROFILES))
def test_with_all_safeguards_each_profile_holds(profile):
    assert play(0, profile).violation == ""
