"""A slot whose owner is stopped: a stand-in fires it through a real repository, once."""

import datetime as dt
import signal
from types import SimpleNamespace
from typing import Any

import pytest

from muster.fleet.statement import EVERY_MACHINE
from muster.task.schedule import SET, set_args
from tests.e2e.fleet import Fleet, now_ms, until
from tests.promise import proves

pytestmark = pytest.mark.e2e

SPEC = """\
muster: 1
name: nightly
repo: main
phases:
  only:
    needs: {machine: laptop}
    agent: shell
    do: echo fired > fired.txt
    deliver: fired.txt
"""


@proves("schedule.stand-ins", "schedule.fired-once", "schedule.register")
def test_a_stand_in_fires_for_a_stopped_owner_which_wakes_and_does_nothing():
    dials = {"studio": ["hub"], "laptop": ["hub", "studio"]}
    with Fleet(["hub", "studio", "laptop"], dials=dials) as fleet:
        fleet.add_repository()
        fleet.start()
        studio, laptop = fleet["studio"], fleet["laptop"]
        studio.signal(signal.SIGSTOP)
        slot_ms = now_ms() // 1000 * 1000 + 3_000
        at = dt.datetime.fromtimestamp(slot_ms / 1000, dt.UTC)
        file = (
            f"muster: 1\nschedule: nightly\nrun: s\nhandover: 2s\nkeepers: [studio, laptop]\n"
            f"when: {{at: {at:%Y-%m-%dT%H:%M:%SZ}}}\n"
        )
        made = laptop.ask("schedule.make", {"spec": SPEC, "text": file})
        everybody: Any = SimpleNamespace(id=EVERY_MACHINE)
        statement = fleet.sign(SET, "nightly", everybody, set_args(made["text"]), life_ms=3_600_000)
        args = {"keepers": made["keepers"], "name": "nightly", "text": made["text"]}
        done = laptop.order(SET, "nightly", args, options={"statement": statement})
        assert (done["fence"], done["owner"]) == ("repo:main", "studio")
        rows = until(lambda: laptop.ask("runs"), "a stand-in fires")
        assert [row["owner"] for row in rows] == ["laptop"]
        studio.signal(signal.SIGCONT)
        until(lambda: laptop.ask("runs")[0]["state"] == "done", "the run is done", within_s=60)
        until(lambda: studio.ask("runs"), "the owner learns of it")
        shown = studio.ask("schedule.show", {"name": "nightly"})
        assert [(e["what"], e["by"], e["slots"]) for e in shown["decided"]] == [
            ("fire", "laptop", 1)
        ]
        assert len(studio.ask("runs")) == 1
