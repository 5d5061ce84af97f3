"""What happens and runs a schedule: which entries trigger it, with what text, and how far that goes."""

from typing import Any

import pytest
from tests.promise import proves
from tests.task.schedules import KEEPER, SPEC
from tests.task.world import Stream

from muster.fleet.kinds import IncidentClose, IncidentOpen
from muster.log.entry import Entry, EntryId
from muster.task.kinds import RunOpen, RunSettle
from muster.task.schedule_kinds import ScheduleFire
from muster.task.trigger import DEPTH_MAX, KINDS, Trigger, depth, lookup_of


class Happened:
    """A keeper's stream, and what is known of it."""

    def __init__(self) -> None:
        self.stream = Stream(KEEPER, folds=())
        self.lost: set[EntryId] = set()
        self.erased: set[EntryId] = set()

    def write(self, body: Any, *causes: Entry) -> Entry:
        return self.stream.append(body, [each.id for each in causes])

    def run(self, outcome: Any = "done", name: str = "build", cause: Entry | None = None) -> Entry:
        """The end of a run of this name; `cause` is what began it."""
        opening = self.write(RunOpen("r1", name, SPEC, ""), *([cause] if cause else []))
        return self.write(RunSettle("r1", outcome, f"it is {outcome}"), opening)

    def incident(self, key: str, title: str = "it is full") -> Entry:
        return self.write(IncidentOpen(key, "warning", title))

    def fired(self, trigger: Entry | None) -> Entry:
        id = trigger.id.hex() if trigger else ""
        body = ScheduleFire("5" * 64, 1, "", 0, "a" * 32, "owner", "0" * 32, trigger=id)
        return self.write(body, *([trigger] if trigger else []))

    def lookup(self, id: EntryId) -> Entry | None:
        found = next((each for each in self.stream.entries if each.id == id), None)
        if found is None or id in self.lost:
            return None
        return found.without_body() if id in self.erased else found


# What a schedule waits for, what happens, and the text that its run is given; None for no trigger.
TRIGGERS: list[tuple[Trigger, dict[str, Any], str | None]] = [
    (Trigger(run="build"), {}, "it is done"),
    (Trigger(run="build"), {"outcome": "failed"}, "it is failed"),
    (Trigger(run="build", outcome="failed"), {"outcome": "failed"}, "it is failed"),
    (Trigger(run="build", outcome="failed"), {"outcome": "cancelled"}, None),
    (Trigger(run="build", outcome="done"), {"outcome": "failed"}, None),
    (Trigger(run="build"), {"name": "build-2"}, None),
    (Trigger(run="build"), {"name": "buil"}, None),
    (Trigger(run="disk-1"), {"key": "disk-1"}, None),
    (Trigger(incident="build"), {}, None),
    (Trigger(incident="disk-*"), {"key": "disk-1"}, "it is full"),
    (Trigger(incident="disk-*"), {"key": "disk:1"}, None),
    (Trigger(incident="disk-*"), {"key": "a-disk-1"}, None),
    (Trigger(incident="disk"), {"key": "disk-1"}, None),
    (Trigger(incident="*:peer"), {"key": "lag:peer"}, "it is full"),
    (Trigger(incident="*"), {"key": "lag"}, "it is full"),
    (Trigger(incident="d*k*1"), {"key": "disk-1"}, "it is full"),
]


@proves("schedule.triggers")
def test_the_end_of_a_run_of_that_name_or_an_incident_of_that_key_triggers_and_nothing_else():
    for trigger, said, text in TRIGGERS:
        world = Happened()
        entry = world.incident(**said) if "key" in said else world.run(**said)
        assert trigger.text(entry, world.lookup) == text, (trigger, said)
        assert entry.header.kind in KINDS
    world = Happened()
    others = (
        world.write(IncidentClose("disk-1", "over")), world.write(RunOpen("r1", "build", SPEC, "")),
        world.fired(None),
    )  # fmt: skip
    for entry in others:
        assert entry.header.kind not in KINDS
        for trigger in (Trigger(run="build"), Trigger(incident="*")):
            assert trigger.text(entry, world.lookup) is None


@proves("schedule.triggers")
def test_what_cannot_be_read_triggers_nothing():
    run, any_one = Trigger(run="build"), Trigger(incident="*")
    world = Happened()
    end, full = world.run(), world.incident("disk-1")
    (opening,) = (each for each in world.stream.entries if each.header.kind == "run.open")
    world.erased = {opening.id}
    assert run.text(end, world.lookup) is None
    world.erased, world.lost = set(), {opening.id}
    assert run.text(end, world.lookup) is None
    world.lost = set()
    assert run.text(end.without_body(), world.lookup) is None
    assert any_one.text(full.without_body(), world.lookup) is None
    for kind in KINDS:
        bad = world.stream.append_raw(kind, b"[]", [opening.id])
        assert run.text(bad, world.lookup) is any_one.text(bad, world.lookup) is None
    # Somebody else's cause says nothing of which run it was.
    uncaused = world.write(RunSettle("r1", "done"), full)
    assert run.text(uncaused, world.lookup) is None


@proves("schedule.triggers")
def test_the_text_of_what_happened_is_bounded():
    world = Happened()
    full = world.incident("disk", "ä" * 3_000)
    opening = world.write(RunOpen("r1", "build", SPEC, ""))
    end = world.write(RunSettle("r1", "done", "b" * 3_000), opening)
    assert Trigger(incident="disk").text(full, world.lookup) == "ä" * 1_000
    assert Trigger(run="build").text(end, world.lookup) == "b" * 1_000


@proves("schedule.triggers")
def test_schedules_that_run_each_other_are_counted_along_the_causes_and_no_further_than_it_matters():
    world = Happened()
    # A person ordered the first one, and an incident has no run behind it.
    end = world.run()
    assert depth(end, world.lookup) == depth(world.incident("disk"), world.lookup) == 0
    for n in range(1, DEPTH_MAX + 4):
        end = world.run(cause=world.fired(end))
        assert depth(end, world.lookup) == min(n, DEPTH_MAX + 1)
    # Behind the calendar, and behind an incident, nothing more is counted.
    for begun in (world.fired(None), world.fired(world.incident("disk"))):
        end = world.run(cause=begun)
        assert depth(end, world.lookup) == 1
        assert depth(world.run(cause=world.fired(end)), world.lookup) == 2


@proves("schedule.triggers")
def test_a_chain_of_which_a_link_is_missing_is_counted_as_far_as_it_is_known():
    world = Happened()
    first = world.run()
    fire = world.fired(first)
    second = world.run(cause=fire)
    third = world.run(cause=world.fired(second))
    assert depth(third, world.lookup) == 2
    assert lookup_of(first.id.hex(), world.lookup) == first
    for lost, erased, found in (
        ({first.id}, set(), 2), ({second.id}, set(), 1), ({fire.id}, set(), 1),
        # That it was fired is known, by what it was triggered is not.
        (set(), {fire.id}, 2),
    ):  # fmt: skip
        world.lost, world.erased = lost, erased
        assert depth(third, world.lookup) == found


@proves("schedule.form")
@pytest.mark.parametrize(
    ("trigger", "words"),
    [
        (Trigger(), "`on` is"), (Trigger(run="a", incident="b"), "`on` is"),
        (Trigger(outcome="done"), "`on` is"), (Trigger(incident="b", outcome="done"), "`outcome`"),
        (Trigger(run="a"), ""), (Trigger(incident="b"), ""), (Trigger(run="a", outcome="done"), ""),
    ],
)  # fmt: skip
def test_a_trigger_is_a_run_or_an_incident(trigger, words):
    assert trigger.refusal.startswith(words)
    assert bool(trigger.refusal) == bool(words)
