"""What people read about the machines of the fleet."""

from typing import Any

from muster.cli.text import Files, clean, paint, short, span, state, table


def machines(value: Any, _files: Files) -> str:
    rows = []
    for each in value:
        facts, heard = each["facts"] or {}, each.get("heard_ms_ago")
        never = "never" if each["state"] == "away" else ""
        through = each.get("through")
        rows.append(
            (
                paint(clean(each["name"]), "bold"),
                state(each["state"]),
                ", ".join(each["roles"]),
                " ".join(str(facts[k]) for k in ("os", "arch") if facts.get(k)),
                ", ".join(sorted(facts.get("agents") or {})),
                ", ".join(facts.get("labels") or ()),
                f"through {clean(through)}" if through else each.get("channel", ""),
                f"{span(heard)} ago" if heard is not None else never,
                short(each["machine"]),
            )
        )
    head = ("name", "state", "roles", "system", "agents", "labels", "link", "heard", "id")
    return table(head, rows)
