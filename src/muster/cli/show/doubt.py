"""What people read when a machine goes on."""

from typing import Any

from muster.cli.text import Files, clean


def resume(value: Any, _files: Files) -> str:
    return (
        f"{clean(value['resumed'])} goes on without what it lost of its log. Orders signed "
        "before that are refused: whether it obeyed them cannot be known."
    )
