"""What people read about incidents."""

from typing import Any

from muster.cli.text import Files, ago, clean, paint, state, table


def incidents(value: Any, _files: Files) -> str:
    return table(
        ("state", "severity", "since", "times", "machine", "what"),
        (
            (
                paint("open", "red") if each["open"] else "closed",
                state(each["severity"]),
                ago(each["opened_ms"]),
                str(each["times"]),
                each["machine"],
                clean(each["title"], 120),
            )
            for each in value
        ),
        "Nothing needs a person.",
    )
