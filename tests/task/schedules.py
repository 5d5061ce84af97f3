"""Schedules as an operator signs them, and as files; `signed` and its times are those of orders.py."""

import json
from typing import Any

from tests.task.orders import NOW_MS, signed

from muster.fleet.statement import EVERY_MACHINE
from muster.limits import STATEMENT_LIFE_MS_MAX
from muster.log import canon
from muster.task.schedule import SET
from muster.task.schedule_kinds import ScheduleSet

MINUTE = 60_000
SPEC = (
    "muster: 1\nname: notes\nphases:\n  only:\n    agent: noop\n    do: '{}'\n    check: 'true'\n"
)
TOLD = SPEC.replace("phases:", "inputs: {trigger-text: none, slot-time: now}\nphases:")
KEEPER, STANDIN, OTHER = "a" * 64, "b" * 64, "c" * 64
# The first slot behind the moment at which orders are signed.
SLOT = (NOW_MS // (10 * MINUTE) + 1) * 10 * MINUTE
FILE = """muster: 1
schedule: nightly
when: {every: 10m}
run: spec.yaml
keepers: [hub, studio]
"""


def text(**changes: Any) -> str:
    """What is signed of a schedule, well formed or not; with `None` a key is left out."""
    known: dict[str, Any] = {
        "muster": 1, "schedule": "nightly", "when": {"every": "10m"}, "run": SPEC,
        "keepers": [KEEPER, STANDIN], "fence": "repo:main", **changes,
    }  # fmt: skip
    return canon.encode({key: value for key, value in known.items() if value is not None}).decode()


def ordered(said: str = "", **changes: Any) -> ScheduleSet:
    """An order for the whole fleet, of just this text where nothing else is said."""
    said = said or text()
    about = changes.pop("object", "nightly")
    keepers = json.loads(said)["keepers"]
    args = changes.pop("args", {"keepers": keepers, "text": said})
    known = {"until_ms": NOW_MS + STATEMENT_LIFE_MS_MAX, **changes}
    order = signed(known.pop("verb", SET), about, known.pop("target", EVERY_MACHINE), args, **known)
    return ScheduleSet(said, order)
