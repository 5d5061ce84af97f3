"""What people read about the machines of the fleet."""

from typing import Any, Final

from muster.cli.table import table
from muster.cli.text import Files, clean, paint, short, span, state
from muster.node.verb import Column

_LIST: Final = (
    Column("name"), Column("state", form="state"), Column("roles", rank=4),
    Column("system", rank=5), Column("agents", rank=2), Column("labels", rank=3),
    Column("link", rank=6), Column("heard", form="ago", rank=1), Column("id", form="id", rank=7),
)  # fmt: skip


def machines(value: Any, _files: Files) -> str:
    rows = []
    for each in value:
        facts, heard = each["facts"] or {}, each.get("heard_ms_ago")
        never = "never" if each["state"] == "away" else ""
        through = each.get("through")
        rows.append(
            (
                paint(clean(each["name"]), "bold"),
                state("left" if each.get("left") else each["state"]),
                ", ".join(each["roles"]),
                " ".join(str(facts[k]) for k in ("os", "arch") if facts.get(k)),
                ", ".join(sorted(facts.get("agents") or {})),
                ", ".join(facts.get("labels") or ()),
                f"through {clean(through)}" if through else each.get("channel", ""),
                # While there is a link it is heard of all the time.
                "now"
                if each["state"] == "up"
                else f"{span(heard)} ago"
                if heard is not None
                else never,
                short(each["machine"]),
            )
        )
    return table(_LIST, rows)
