"""What people read of a run that runs again."""

from typing import Any

from muster.cli.show.run import run
from muster.cli.text import Files


def rerun(value: Any, files: Files) -> str:
    return run(value, files)
