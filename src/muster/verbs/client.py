"""What a verb that runs inside the command is handed, and what it gives back.

Rule 1: such a verb gets a `Context` and its arguments: `handler(door, args)`. It prints nothing
itself: progress goes through `say`, its answer is what it returns.
Rule 2: an answer is JSON. A `Finding` is an answer that is not a good one: the command shows it
and ends with its exit code.
"""

from collections.abc import Iterator, Mapping
from typing import Any, NamedTuple, Protocol

from muster.node.host.home import Home


class Finding(NamedTuple):
    """An answer, and the exit code it stands for."""

    value: Any
    code: int


class Context(Protocol):
    """The command, as a verb inside it sees it."""

    # The machine that the person named with `--on`, "" for none.
    on: str
    # Whether the answer is for a program, which reads JSON.
    json: bool

    @property
    def home(self) -> Home:
        """The home of this machine, which may not exist yet."""

    def ask(
        self,
        verb: str,
        args: Mapping[str, Any],
        *,
        on: str = "",
        options: Mapping[str, Any] | None = None,
        within_s: float | None = None,
    ) -> Any:
        """The answer of a verb of the daemon, signed where it needs to be.

        Raises: Unreachable where no daemon runs, Silent after `within_s`, and whatever the verb
        raises.
        """

    def stream(self, verb: str, args: Mapping[str, Any], *, on: str = "") -> Iterator[Any]:
        """The answers of a verb as they come."""

    def running(self) -> bool:
        """Whether the daemon of this home answers."""

    def question(self, what: str, default: str) -> str:
        """What a person answers on a terminal; without one, or with nothing, the default."""

    def say(self, text: str, *, whole: bool = False) -> None:
        """A line of progress for the person; nothing with --json.

        `whole`: what they are to agree to, of which nothing is abbreviated.
        """

    def note(self, text: str) -> None:
        """What is waited for, for a person at a terminal; nobody else sees it."""

    def show(self, value: Any) -> None:
        """One of several answers, at once."""
