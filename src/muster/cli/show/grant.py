"""What people read about grants."""

from typing import Any

from muster.cli.text import Files, ago, clean, short, table


def grants(value: Any, _files: Files) -> str:
    if "verbs" in value:
        rows = ((v["verb"], v["object"] or "-", v["to"]) for v in value["verbs"])
        return table(("verb", "object", "to a"), rows)
    if not value["grants"]:
        return "No grant stands: only operators and devices order (`muster operator list`)."
    return table(
        ("to", "verb", "object", "by", "until", "id", ""),
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
