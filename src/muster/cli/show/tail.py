"""What people read of what a machine takes in."""

from typing import Any

from muster.cli.text import Files, clean, clock, paint, short


def tail(value: Any, _files: Files) -> str:
    """A line for each that came: when, from where, what, and its id."""
    return "\n".join(
        f"{clock(each['t_ms'])}  {clean(each['machine'])}  {paint(clean(each['kind']), 'bold')}"
        f"  {short(each['id'])}".rstrip()
        for each in value["came"]
    )
