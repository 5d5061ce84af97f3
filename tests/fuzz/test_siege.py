"""The short form of the siege for each build, and that it sees what it is there to see."""

import random
from pkgutil import resolve_name
from typing import Any

import msgspec
import pytest

from muster.task.fold import ATTEMPT, RUN
from tests.fuzz.shapes import Shapes
from tests.fuzz.siege import BODIES, Found, Siege
from tests.promise import proves


def play(seed: int, rounds: int) -> Siege:
    siege = Siege(seed)
    for _ in range(rounds):
        siege.round()
    siege.restart()
    return siege


@pytest.mark.parametrize("seed", range(10))
@proves("node.besieged-it-works-on")
def test_a_member_that_knows_every_format_neither_stops_nor_delays_the_machine(seed: int) -> None:
    play(seed, 500)


@proves("node.besieged-it-works-on")
def test_the_siege_reaches_leases_runs_and_every_kind_of_deed() -> None:
    attempts: set[str] = set()
    runs: set[str] = set()
    of_attempts, of_runs = {"running", "done", "failed", "refused"}, {"done", "failed", "open"}
    # What a seed draws changes with every kind and verb there is: some of these reach it all.
    for seed in range(4, 16):
        siege = play(seed, 1_500)
        attempts |= {row.state for row in siege.target.store.tables.rows(ATTEMPT)}
        runs |= {row.state for row in siege.target.store.tables.rows(RUN)}
        assert len(siege.counts) == len(siege.deeds)
        if attempts >= of_attempts and runs >= of_runs:
            return
    raise AssertionError((attempts, runs))


@proves("node.besieged-it-works-on")
@pytest.mark.parametrize(
    ("place", "name"),
    [
        ("muster.node.tasks.owner.OwnerService", "_on_attempt_end"),
        ("muster.node.incarnations.clone.CloneDetector", "opened"),
        ("muster.task.owner.Owner", "report"),
        ("muster.node.tasks.runs.RunService", "_order"),
        ("muster.verbs.task", "why"),
    ],
)
def test_a_mistake_in_any_part_is_seen(monkeypatch: Any, place: str, name: str) -> None:
    """Else a siege that finds nothing would say nothing."""

    def fails(*_: Any, **__: Any) -> None:
        raise KeyError("what nobody thought of")

    fails.__annotations__ = getattr(resolve_name(place), name).__annotations__
    monkeypatch.setattr(f"{place}.{name}", fails)
    with pytest.raises(Found):
        play(4, 3_000)


@pytest.mark.parametrize("kind", sorted(BODIES))
@proves("node.besieged-it-works-on")
def test_most_bodies_that_the_siege_writes_are_what_their_fold_reads(kind: str) -> None:
    """Bodies that are void by their structure never reach the folds."""
    rng = random.Random(kind)
    shapes = Shapes(rng)
    shapes.learn("hash", ["0" * 64])
    fitting = 0
    for _ in range(200):
        try:
            msgspec.convert(shapes.of(BODIES[kind]), BODIES[kind], strict=True)
            fitting += 1
        except msgspec.ValidationError:
            continue
    assert fitting > 60, (kind, fitting)
