"""What people read about what a machine is for."""

from typing import Any

from muster.cli.text import Files, clean


def role(value: Any, _files: Files) -> str:
    lines = [f"{clean(value['name'])} is {', '.join(value['roles'])} from now on."]
    if not value["fresh"]:
        lines = [f"{clean(value['name'])} is {', '.join(value['roles'])} already."]
    if not value["hub_left"]:
        lines.append("No hub is left: nobody can be invited, and runs begin where they are typed.")
    return "\n".join(lines)
