"""What people read about incidents."""

from typing import Any, Final

from muster.cli.table import table
from muster.cli.text import Files, ago, clean, paint, short, state
from muster.node.verb import Column

_LIST: Final = (
    Column("state", form="state"), Column("id", form="id"),
    Column("severity", form="state", rank=2), Column("since", form="ago", rank=3),
    Column("times", rank=5), Column("machine", rank=1), Column("by", rank=4),
    Column("what", least=30),
)  # fmt: skip


def incidents(value: Any, _files: Files) -> str:
    # A machine before 0.2 says neither `id` nor `by`.
    return table(
        _LIST,
        (
            (
                "closed" if not each["open"]
                else "acknowledged" if each.get("by") else paint("open", "red"),
                short(each.get("id", "")),
                state(each["severity"]),
                ago(each["opened_ms"]),
                str(each["times"]),
                each["machine"],
                each.get("by", ""),
                clean(each["title"]),
            )
            for each in value
        ),
        "Nothing needs a person.",
    )  # fmt: skip


def acknowledge(value: Any, _files: Files) -> str:
    if "common" in value:
        kept = f"its stream stays at its first {value['common']} entries"
        return f"Fork {short(value['incident'])} is closed: {kept}; both branches are evidence."
    return f"Acknowledged: {clean(value['title'], 300)}"
