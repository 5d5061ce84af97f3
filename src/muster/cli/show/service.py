"""What people read about the daemon as a program."""

from typing import Any

from muster.cli.text import Files


def up(value: Any, _files: Files) -> str:
    return f"{value['name']} is up (process {value['pid']}); its log is {value['log']}"


def down(value: Any, _files: Files) -> str:
    if value.get("was"):
        return "The daemon was not running."
    return "The daemon has stopped." if "pid" in value else f"{value['stopped']} is stopping."
