"""What people read about an answer to an agent."""

from collections.abc import Mapping
from typing import Any

from muster.cli.text import clean, short

Files = Mapping[str, str]


def answer(value: Any, _files: Files) -> str:
    return f"task {short(value['task'])}: {value['answer']} — {clean(value['title'], 60)}"
