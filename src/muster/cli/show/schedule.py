"""A schedule for people: what it says, who keeps it, when it is due."""

from typing import Any

from muster.cli.show import declared, listed
from muster.cli.text import Files, ago, clean, pairs
from muster.node.verb import Column
from muster.verbs.table import VERBS

_KEEPERS = (
    Column("name", "keeper", "bold"), Column("presence", form="state"),
    Column("clock_ms", "clock off by ms", when="clock_ms"), Column("zones", "tzdata", rank=1),
)  # fmt: skip
_DECIDED = (
    Column("slot_ms", "slot", "ago"), Column("what", form="state"), Column("by"),
    Column("slots", "slots", rank=1), Column("run", form="id", when="run"),
    Column("reason", rank=1, width=80),
)  # fmt: skip
_NEXT = (
    Column("local", "in its zone", "bold"), Column("utc", "UTC"), Column("slot_ms", "in", "ago"),
    Column("moves", ""),
)  # fmt: skip


def schedule(value: Any, _files: Files) -> str:
    """One schedule, its next slots, or what the lines and columns of the verb say."""
    if "slots" in value:
        days = [{**s, "moves": "the clocks move" if s["shifted"] else ""} for s in value["slots"]]
        return listed(_NEXT, days, f"{clean(value['name'])} is not due any more.")
    if "decided" not in value:
        return declared(VERBS["schedule"], value)
    about = pairs(
        [
            ("schedule", clean(value["name"])),
            ("state", clean(value["state"])),
            ("when", clean(value["when"])),
            ("next", ago(value["next_ms"]) if value["next_ms"] else ""),
            ("until", ago(value["until_ms"])),
            ("spec", clean(value["spec"])),
            ("fence", clean(value["fence"])),
            ("late", f"{value['late_s']} s"),
            ("catch up", clean(value["catch_up"])),
            ("overlap", clean(value["overlap"])),
            ("tzdata", clean(value["zones"])),
            ("not run", clean(value["denied"])),
        ]
    )
    keepers = listed(_KEEPERS, value["keepers"], "")
    decided = listed(_DECIDED, value["decided"], "No slot of it is decided yet.")
    other = {each["zones"] for each in value["keepers"]} - {value["zones"], ""}
    warned = ["Its keepers have different versions of the time zones."] if other else []
    return "\n\n".join([about, keepers, decided, *warned])
