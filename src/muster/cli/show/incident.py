"""What people read about incidents."""

from typing import Any, Final

from muster.cli.table import table
from muster.cli.text import Files, ago, clean, paint, short, state
from muster.node.verb import Column

_LIST: Final = (
    Column("state", form="state"), Column("id", form="id"),
    Column("severity", form="state", rank=2), Column("since", form="ago", rank=3),
    Column("times", rank=5), Column("seen by", rank=1), Column("by", rank=4),
    Column("what", least=30),
)  # fmt: skip


def incidents(value: Any, _files: Files) -> str:
    # A machine before 0.2 says neither `id` nor `by`.
    return table(
        _LIST,
        (
            (
                _state(each),
                short(each.get("id", "")),
                state(each["severity"]),
                ago(each["opened_ms"]),
                str(each["times"]),
                _seen(each),
                each.get("by", ""),
                clean(each["title"]),
            )
            for each in value
        ),
        "Nothing needs a person.",
    )  # fmt: skip


def _state(each: Any) -> str:
    if not each["open"]:
        return "closed"
    if each.get("by"):
        return "acknowledged"
    # A machine before 0.3 says neither this nor who else sees it.
    if each.get("silenced_ms"):
        return "silenced"
    return "notified" if each.get("notified") else paint("open", "red")


def _seen(each: Any) -> str:
    others = len(each.get("seen_by", ())) - 1
    return f"{clean(each['machine'])} and {others} more" if others > 0 else clean(each["machine"])


def acknowledge(value: Any, _files: Files) -> str:
    if "common" in value:
        kept = f"its stream stays at its first {value['common']} entries"
        return f"Fork {short(value['incident'])} is closed: {kept}; both branches are evidence."
    return f"Acknowledged: {clean(value['title'], 300)}"
