"""What people read about the machines of the fleet."""

from typing import Any, Final

from msgspec import convert

from muster.cli.table import table
from muster.cli.text import Files, clean, paint, short, span, state
from muster.node.exposed import Exposed, sentence
from muster.node.verb import Column

_LIST: Final = (
    Column("name"), Column("state", form="state"), Column("roles", rank=4),
    Column("system", rank=5), Column("agents", rank=2), Column("labels", rank=3),
    Column("link", rank=6), Column("heard", form="ago", rank=1), Column("id", form="id", rank=7),
    Column("rests", least=16, rank=1),
)  # fmt: skip


def stood_in(machine: Any) -> list[str]:
    """Who goes on with its work when it is gone, as one more word beside its roles."""
    by = clean(machine.get("stand_in"))
    return [f"{by} stands in"] if by else []


def _state(machine: Any) -> str:
    """How it is, also where it takes no work; of one that is away, whether a packet wakes it."""
    found = state("left" if machine.get("left") else machine["state"])
    cards = (machine["facts"] or {}).get("cards") or ()
    can = machine["state"] == "away" and any(card["wakes"] for card in cards)
    found = f"{found}, can be woken" if can else found
    rest = machine.get("rest")
    return f"{found}, {'drains' if rest['drains'] else 'paused'}" if rest else found


def machines(value: Any, _files: Files) -> str:
    rows = []
    for each in value:
        facts, heard = each["facts"] or {}, each.get("heard_ms_ago")
        never = "never" if each["state"] == "away" else ""
        through = each.get("through")
        rows.append(
            (
                paint(clean(each["name"]), "bold"),
                _state(each),
                ", ".join([*each["roles"], *stood_in(each)]),
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
                # Until when and why it takes no work.
                (each.get("rest") or {}).get("how", ""),
            )
        )
    return "\n".join([table(_LIST, rows), *_listens(value)])


def _listens(machines: Any) -> list[str]:
    """Where this machine can be dialled, where that is anywhere."""
    rows = [row for each in machines for row in each.get("listens") or ()]
    heard = sentence(convert(row, Exposed) for row in rows)
    return ["", f"This machine listens at {clean(heard)}."] if heard else []
