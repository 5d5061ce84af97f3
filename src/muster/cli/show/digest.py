"""What people read of what an agent is told."""

from typing import Any

from muster.cli.text import Files, clean, paint


def digest(value: Any, _files: Files) -> str:
    if not value["text"]:
        return "Nothing is remembered for that yet."
    lines = [clean(line) for line in value["text"].splitlines()]
    told = f"{value['tokens']} tokens at most, {len(value['shown'])} lines"
    return "\n".join([*lines, paint(told, "dim")])
