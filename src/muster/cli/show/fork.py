"""What people read about forks."""

from typing import Any

from muster.cli.text import Files, clean, paint, table


def forks(value: Any, _files: Files) -> str:
    return table(
        ("state", "fork", "machine", "entries kept", "beyond", "by", "note"),
        (
            (
                paint("open", "red") if each["state"] == "open" else "closed",
                each["fork"][:12],
                each["machine"],
                str(each["common"]),
                str(each["beyond"]),
                each["by"],
                clean(each["note"], 60),
            )
            for each in value
        ),
        "No stream forked.",
    )


def close(value: Any, _files: Files) -> str:
    return (
        f"Fork {value['fork'][:12]} is closed: its stream stays at its first {value['common']} "
        "entries, and both branches stay as evidence."
    )
