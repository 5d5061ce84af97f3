"""The table of a task's life, walked."""

import re
from itertools import chain
from pathlib import Path

from tests.promise import proves

from muster.task.kinds import KINDS
from muster.task.state import LIVE, RUN_TRANSITIONS, TRANSITIONS

SETTLED = {"done", "failed", "lost", "cancelled"}


def test_every_state_is_reached_and_each_is_live_or_settled():
    reached = set(TRANSITIONS.values())
    assert reached == LIVE | SETTLED
    assert not LIVE & SETTLED


@proves("task.settles-once")
def test_no_event_leads_out_of_a_settled_state():
    assert [key for key in TRANSITIONS if key[0] in SETTLED] == []


def test_every_live_state_can_end():
    ends = {state for (state, _), after in TRANSITIONS.items() if after in SETTLED}
    assert ends == LIVE


def test_every_event_is_a_kind_that_owners_write():
    events = {event.partition(":")[0] for _, event in chain(TRANSITIONS, RUN_TRANSITIONS)}
    assert events <= set(KINDS)
    assert not any(event.startswith("attempt.") for event in events)


def test_a_lease_is_only_had_by_assignment():
    assert [key for key, after in TRANSITIONS.items() if after == "leased"] == [
        ("queued", "task.assign")
    ]


def test_what_the_table_does_not_name_leads_nowhere():
    assert ("queued", "task.settle:done") not in TRANSITIONS
    assert ("done", "task.retry") not in TRANSITIONS


def test_the_specification_has_the_same_table_and_every_kind_with_every_field():
    text = (Path(__file__).parents[2] / "docs" / "spec" / "task.md").read_text(encoding="utf-8")
    rows = re.findall(r"^\| (?:\(none\)|\w+) \| `task\..*$", text, re.MULTILINE)
    drawn = [f"| {a or '(none)'} | `{event}` | {b} |" for (a, event), b in TRANSITIONS.items()]
    assert rows == drawn
    for kind, body in KINDS.items():
        line = next(row for row in text.splitlines() if row.startswith(f"| `{kind}` |"))
        fields = set(body.__struct_fields__)
        assert set(re.findall(r"`(\w+)`", line)) == fields, kind
