"""What people read about the AI agents of the fleet."""

import textwrap
from typing import Any, Final

from muster.cli.table import room, table
from muster.cli.text import Files, clean, paint, state
from muster.node.verb import WIDE, Column

_LIST: Final = (
    Column("agent"), Column("machine"), Column("version", rank=2),
    Column("driver", "driven by", rank=3), Column("login", rank=1),
    Column("distribution", "catalogue", rank=WIDE),
    Column("passed", "checked results", rank=1), Column("state"),
)  # fmt: skip


def results(each: Any) -> str:
    """`12 of 13 passed, 8 in a row`; "" where nothing of it was checked."""
    count = each["passed"] + each["failed"]
    row = f", {each['streak']} in a row" if each["streak"] > 1 else ""
    return f"{each['passed']} of {count} passed{row}" if count else ""


def agents(value: Any, _files: Files) -> str:
    """A table of those that are there, then what is to be done for the others."""
    there = [each for each in value if each["state"] != "not found"]
    rows = [
        (
            paint(clean(each["agent"]), "bold"),
            clean(each["machine"]),
            clean(each["version"]),
            clean(each["driver"]),
            clean(each["login"]) or "?",
            clean(each.get("distribution") or ""),
            results(each),
            state(each["state"]),
        )
        for each in there
    ]
    lines = [table(_LIST, rows, "No machine has an AI agent.")]
    to_do = [
        _sentence("  ", f"{each['agent']} on {each['machine']}: {each['mend']}")
        for each in there
        if each["mend"]
    ]
    lines += ["", *to_do] if to_do else []
    missing = [each for each in value if each["state"] == "not found" and each["mend"]]
    if missing:
        where = f" on {clean(missing[0]['machine'])}" if missing[0]["machine"] else ""
        width = max(len(each["agent"]) for each in missing)
        lines += ["", f"Not found{where}; what installs it there:"]
        named = [(f"  {clean(each['agent']):<{width}}  ", each["mend"]) for each in missing]
        lines += [_sentence(*each) for each in named]
    return "\n".join(lines)


def _sentence(start: str, text: str) -> str:
    """What stands below the list, in lines for which the terminal has room."""
    most, line = room(), start + clean(text)
    if not most:
        return line
    shape = textwrap.TextWrapper(most, subsequent_indent="    ", break_on_hyphens=False)
    # A command is copied whole.
    shape.break_long_words = False
    return shape.fill(line)
