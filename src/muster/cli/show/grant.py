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
                clean(f"without effect: {g['no_effect']}") if g["no_effect"] else "",
            )
            for g in value["grants"]
        ),
    )
