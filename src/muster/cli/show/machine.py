"""What people read about the machines of the fleet."""

from typing import Any

from muster.cli.text import Files, clean, paint, short, span, state, table


def machines(value: Any, _files: Files) -> str:
    return table(
        ("name", "state", "roles", "system", "agents", "labels", "link", "heard", "id"),
        (_machine(each) for each in value),
    )


def _machine(each: Any) -> tuple[Any, ...]:
    facts = each["facts"] or {}
    system = " ".join(str(facts[k]) for k in ("os", "arch") if facts.get(k))
    heard = each.get("heard_ms_ago")
    agents = facts.get("agents") or {}
    return (
        paint(clean(each["name"]), "bold"),
        state(each["state"]),
        ", ".join(each["roles"]),
        system,
        ", ".join(sorted(agents)),
        ", ".join(facts.get("labels") or ()),
        f"through {clean(each['through'])}" if each.get("through") else each.get("channel", ""),
        f"{span(heard)} ago" if heard is not None else "never" if each["state"] == "away" else "",
        short(each["machine"]),
    )
