"""What drives an attempt under the shim, whatever program it runs (drivers.py has the table).

Rule 1: the shim owns the process; a driver knows which argv to start, what its output says, and
how it ended.
Rule 2: only the standard library, because the shim imports this file on every start.
"""

from abc import ABC, abstractmethod
from typing import Any

from muster.agent.mask import Secrets

Event = tuple[str, dict[str, Any]]


class Driver(ABC):
    """One attempt as the shim drives it."""

    is_plain: bool
    """Whether it runs the order's own command: no program of the catalogue, no prompt."""
    is_ours: bool = False
    """Whether what the shim starts is a driver of ours, which encloses the agent's program."""
    is_steered: bool = False
    """Whether the program can be told something in the middle of its work."""
    asks_before_kill: bool
    """Whether the program is asked to end, on its standard input, before TERM."""
    argv: list[str]
    stdin: bytes | None = None
    """What the program reads first, before answers and a cancel; None where it reads nothing."""
    stdin_ends: bool = False
    """Whether that is all it ever reads."""
    outlived: bool = False
    """Whether it was ended because it did not end by itself, long after it had said so."""
    fault_of_start: str = "machine"
    """What of this machine is at fault where the program cannot be started."""

    def __init__(self, order: dict[str, Any]) -> None:
        self.env: dict[str, str] = order["env"]
        self.cwd = str(order["cwd"])
        self._secrets = Secrets(order["secrets"])

    @property
    def is_over(self) -> bool:
        """Whether the program has said that its work has ended; then it ends by itself soon."""
        return False

    def opening(self) -> list[Event]:
        """What is told once the program runs."""
        return []

    @abstractmethod
    def output(self, stream: str, data: bytes) -> list[Event]:
        """Take bytes of `stdout` or `stderr`; give the events that are ripe."""

    def flush(self) -> list[Event]:
        """What waits, when the output pauses."""
        return []

    def closing(self) -> list[Event]:
        """What is left when the program has ended."""
        return []

    @abstractmethod
    def outcome(self, code: int | None) -> dict[str, Any]:
        """How it ended, as the fields of `Outcome`."""
