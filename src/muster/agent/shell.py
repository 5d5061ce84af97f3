"""The plain command: `do` runs in a shell, its output lines become events.

Rule 1: the command text is the order itself; values reach it only as environment variables,
never by being pasted into the text.
Rule 2: the first line that fails ends it, as in the CI systems whose habits people bring along.
Rule 3: only the standard library, because the shim imports this file on every start.
"""

from typing import Any, Final

from muster.agent.driver import Driver, Event
from muster.agent.lines import PROMPT_BYTES_MAX, TAIL_BYTES_MAX, Splitter, Tail, cut, last_line
from muster.agent.mask import Stream
from muster.limits import VALUE_BYTES_MAX

# Without `-e` a failed `make test` counts as success when the line after it does. In bash a pipe
# fails with any of its parts, as GitHub's `shell: bash` has it; sh knows no such option.
SHELLS: Final = {
    "sh": ("/bin/sh", "-e", "-c"),
    "bash": ("bash", "--noprofile", "--norc", "-eo", "pipefail", "-c"),
}
# One event becomes one journal entry, so lines travel together up to this size. A byte can take
# six in JSON, and an entry holds 64 KiB.
EVENT_BYTES_MAX: Final = 8 * 1024
# Chosen arbitrarily: nobody reads more of a build log; the tail is kept in any case.
OUTPUT_BYTES_MAX: Final = 4 * 1024 * 1024


def _kept_to_itself(name: str) -> str:
    """Source by which a shell keeps a variable and hands it on to nobody; on the first line of the
    command, whose lines keep their numbers. The value is no argument, which others could list.
    """
    return f'set -- "${name}"; unset {name}; {name}=$1; set --; '


class ShellDriver(Driver):
    """Runs one command; the shim owns the process, this object only knows what it means."""

    is_plain = True
    asks_before_kill = False

    def __init__(self, order: dict[str, Any]) -> None:
        super().__init__(order)
        self._order = order
        own = "".join(map(_kept_to_itself, order.get("shell_only", ())))
        self.argv = [*SHELLS[str(order["shell"])], own + str(order["command"])]
        self._streams = {name: Stream(self._secrets) for name in ("stdout", "stderr")}
        self._splitters = {"stdout": Splitter(), "stderr": Splitter()}
        self._pending: dict[str, list[str]] = {"stdout": [], "stderr": []}
        self._pending_size = 0
        self._tail = Tail(VALUE_BYTES_MAX)
        self._sent = 0

    def opening(self) -> list[Event]:
        text = cut(self._secrets.text(str(self._order["command"])), PROMPT_BYTES_MAX)
        return [("agent.prompt", {"agent": self._order["agent"], "text": text})]

    def output(self, stream: str, data: bytes) -> list[Event]:
        return self._take(stream, self._streams[stream].feed(data))

    def _take(self, stream: str, data: bytes) -> list[Event]:
        self._tail.feed(data)
        events: list[Event] = []
        for line, dropped in self._splitters[stream].feed(data):
            if self._pending_size + len(line) > EVENT_BYTES_MAX:
                events += self.flush()
            self._add(stream, line, dropped)
        return events

    def flush(self) -> list[Event]:
        """All whole lines that wait, as far as the bound of all output allows."""
        events: list[Event] = []
        for stream, lines in self._pending.items():
            text, before = "\n".join(lines), self._sent
            self._sent += len(text)
            if not lines or before >= OUTPUT_BYTES_MAX:
                continue
            if self._sent >= OUTPUT_BYTES_MAX:
                text += "\n…[output limit reached; the rest is counted, not kept]"
            events.append(("agent.output", {"stream": stream, "text": text}))
        self._pending = {"stdout": [], "stderr": []}
        self._pending_size = 0
        return events

    def closing(self) -> list[Event]:
        events: list[Event] = []
        for stream, splitter in self._splitters.items():
            events += self._take(stream, self._streams[stream].rest())
            for line, dropped in splitter.rest():
                self._add(stream, line, dropped)
        return events + self.flush()

    def outcome(self, code: int | None) -> dict[str, Any]:
        tail = self._tail.text()
        said = last_line(tail[-TAIL_BYTES_MAX:])[:500]
        ended = f"exit code {code}" if code is None or code >= 0 else f"killed by signal {-code}"
        return {
            "status": "ok" if code == 0 else "failed",
            "exit_code": code,
            "summary": said if code == 0 else f"{ended}{': ' if said else ''}{said}",
            "tail": tail,
            "said_bytes": self._tail.total,
            "masked": sorted(self._secrets.found),
        }

    def _add(self, stream: str, line: bytes, dropped: int) -> None:
        text = line.decode("utf-8", "replace")
        if dropped:
            text += f" …[{dropped} bytes cut]"
        self._pending[stream].append(text)
        self._pending_size += len(line) + 1
