"""What people read about grants."""

from typing import Any, Final

from muster.cli.table import table
from muster.cli.text import Files, ago, clean, short
from muster.node.verb import Column

_GRANTABLE: Final = (Column("verb"), Column("object"), Column("to a"))
_LIST: Final = (
    Column("to"), Column("verb"), Column("object"), Column("by", rank=2),
    Column("until", form="ago", rank=1), Column("id", form="id", rank=4),
    Column("effect", "", rank=3, least=20),
)  # fmt: skip


def grants(value: Any, _files: Files) -> str:
    if "verbs" in value:
        rows = ((v["verb"], v["object"] or "-", v["to"]) for v in value["verbs"])
        return table(_GRANTABLE, rows)
    if not value["grants"]:
        return "No grant stands: only operators and devices order (`muster operator list`)."
    return table(
        _LIST,
        (
            (
                clean(g["to"] if g["sort"] != "key" else short(g["to"])),
                clean(g["verb"]),
                clean(g["object"]),
                clean(g["by"]),
                ago(g["until_ms"]),
                short(g["id"]),
                clean(f"without effect: {g['no_effect']}") if g["no_effect"] else _within(g),
            )
            for g in value["grants"]
        ),
    )


def _within(grant: Any) -> str:
    """The bounds of a grant that has some."""
    bounds = grant.get("bounds")
    if not bounds:
        return ""
    said = [f"{bounds['per_day']} a day", f"{bounds['at_once']} at once"]
    said += [f"depth {bounds['depth']}"] if bounds.get("depth", 1) > 1 else []
    said += [f"agents {', '.join(bounds['agents'])}"] if bounds.get("agents") else []
    said += [f"in {', '.join(bounds['repos'])}"] if bounds.get("repos") else []
    said += [f"{bounds['timeout_ms'] // 60_000} min each"] if bounds.get("timeout_ms") else []
    return clean("; ".join(said))
