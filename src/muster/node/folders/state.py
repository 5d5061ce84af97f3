"""How a context folder is on this machine, for whoever asks."""

from collections.abc import Mapping
from typing import NamedTuple


class State(NamedTuple):
    """How one folder is here, after its last round."""

    files: int
    size: int
    left: Mapping[str, str]
    doubtful: Mapping[str, str]
    conflicts: frozenset[str]
    failed: str
