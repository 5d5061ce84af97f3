"""What people read of a task that is tried again, or of the run that goes on with it."""

from typing import Any

from muster.cli.show.run import run
from muster.cli.text import Files, short


def retry(value: Any, files: Files) -> str:
    if "run" in value:
        return run(value, files)
    return f"task {short(value['task'])} is tried again now"
