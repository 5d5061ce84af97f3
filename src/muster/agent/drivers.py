"""The ways to run an agent, by the names that the catalogue gives under `protocol`.

Rule 1: the shim owns the process; a driver knows which argv to start, what its output says, and
how it ended.
Rule 2: only the standard library, because the shim imports this file on every start.

Another way is one file with such a class, its row in `DRIVERS`, and entries of the catalogue.
"""

from typing import Any, Final, Protocol

from muster.agent.relay import RelayDriver
from muster.agent.shell import Event, ShellDriver


class Driver(Protocol):
    """One attempt as the shim drives it."""

    is_plain: bool
    """Whether it runs the order's own command: no program of the catalogue, no prompt."""
    asks_before_kill: bool
    """Whether the program is asked to end, on its standard input, before TERM."""
    argv: list[str]
    env: dict[str, str]
    cwd: str
    stdin: bytes | None
    """What the program reads first, before answers and a cancel; None where it reads nothing."""

    def __init__(self, order: dict[str, Any]) -> None: ...

    def opening(self) -> list[Event]:
        """What is told once the program runs."""

    def output(self, stream: str, data: bytes) -> list[Event]:
        """Take bytes of `stdout` or `stderr`; give the events that are ripe."""

    def flush(self) -> list[Event]:
        """What waits, when the output pauses."""

    def closing(self) -> list[Event]:
        """What is left when the program has ended."""

    def outcome(self, code: int | None) -> dict[str, Any]:
        """How it ended, as the fields of `Outcome`."""


DRIVERS: Final[dict[str, type[Driver]]] = {"acp": RelayDriver, "shell": ShellDriver}
