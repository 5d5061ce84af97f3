"""What people read about incidents."""

from typing import Any

from muster.cli.text import Files, ago, clean, paint, short, state, table


def incidents(value: Any, _files: Files) -> str:
    # A machine before 0.2 says neither `id` nor `by`.
    return table(
        ("state", "id", "severity", "since", "times", "machine", "by", "what"),
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
                clean(each["title"], 120),
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
