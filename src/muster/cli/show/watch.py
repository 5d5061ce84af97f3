"""What people read when a run that they followed is over."""

from typing import Any

from muster.cli.show.run import graph
from muster.cli.text import Files


def watch(value: Any, _files: Files) -> str:
    return graph(value)
