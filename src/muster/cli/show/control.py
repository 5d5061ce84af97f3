"""What people read about work that was stopped, tried again or decided."""

from typing import Any

from muster.cli.text import Files, short


def cancel(value: Any, _files: Files) -> str:
    what = "run" if "run" in value else "task"
    if owner := value.get("left_for"):
        return (
            f"{what} {short(value[what])} is ended: {owner}, its owner, cannot be asked now and "
            f"obeys when it is back; if {owner} is lost, `muster revoke {owner}`"
        )
    return f"{what} {short(value[what])} is being cancelled"


def retry(value: Any, _files: Files) -> str:
    return f"task {short(value['task'])} is tried again now"


def decide(value: Any, _files: Files) -> str:
    said = {"approve": "yes", "reject": "no"}
    return f"task {short(value['task'])}: your {said[value['answer']]} is written down"
