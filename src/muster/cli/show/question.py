"""What people read about an answer to an agent."""

from typing import Any

from muster.cli.text import Files, clean, short


def answer(value: Any, _files: Files) -> str:
    return f"task {short(value['task'])}: {value['answer']} — {clean(value['title'], 60)}"
