"""An agent that speaks a protocol: a driver program of ours talks to it, the shim relays.

Rule 1: the driver (`muster.agent.acp`) is a child of the shim like any other program, so a
driver that hangs or crashes is ended like one; the shim itself never waits for it.
Rule 2: only the standard library, because the shim imports this file on every start.

The driver gets the order as its first line of standard input, then answers, what its agent is told
in the middle, and a cancel; it writes events and at last one outcome, in the shim's own format.
"""

import json
import os
import sys
from typing import Any, Final

from muster.agent.driver import Driver, Event
from muster.agent.lines import OUTCOME_BYTES_MAX, Splitter, Tail, cut
from muster.agent.mask import Stream

BOOT: Final = "import sys; sys.path.insert(0, sys.argv.pop(1)); from {module} import main; main()"
SOURCE_ROOT: Final = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))


def boot(module: str, *flags: str) -> list[str]:
    """Argv that runs `module.main()` in an interpreter isolated from the caller's environment."""
    return [sys.executable, "-I", *flags, "-c", BOOT.format(module=module), SOURCE_ROOT]


class RelayDriver(Driver):
    """Runs the driver program; everything it reports passes through here."""

    is_plain = False
    is_ours = True
    is_steered = True
    asks_before_kill = True

    def __init__(self, order: dict[str, Any]) -> None:
        super().__init__(order)
        self.argv = boot("muster.agent.acp")
        # The driver is our own program: the agent's environment travels inside the order.
        passed = {"PATH": os.defpath, **order["env"]}
        self.env = {k: v for k, v in passed.items() if k in ("PATH", "MUSTER_ATTEMPT")}
        # As it came: with other escapes it would be longer than it was measured.
        line = json.dumps(order, ensure_ascii=False, separators=(",", ":"))
        self.stdin = line.encode() + b"\n"
        # Its events are far below this: a longer line is a defect and is dropped.
        self._splitter = Splitter(OUTCOME_BYTES_MAX)
        # What the driver tells is masked by itself; this is for what breaks out of it.
        self._stderr = Stream(self._secrets)
        self._complaints = Tail()
        # What the agent said, for an end of which the driver cannot tell any more.
        self._said = Tail()
        self._outcome: dict[str, Any] | None = None

    def output(self, stream: str, data: bytes) -> list[Event]:
        if stream == "stderr":
            self._complaints.feed(self._stderr.feed(data))
            return []
        events = (self._read(line, dropped) for line, dropped in self._splitter.feed(data))
        return [event for event in events if event is not None]

    def closing(self) -> list[Event]:
        self._complaints.feed(self._stderr.rest())
        return []

    def outcome(self, code: int | None) -> dict[str, Any]:
        if self._outcome is not None:
            return self._outcome
        return {
            "status": "error",
            "exit_code": code,
            "summary": f"the ACP driver ended with exit code {code} and no result",
            "tail": self._said.text() + self._complaints.text(),
            "masked": sorted(self._secrets.found),
        }

    def _read(self, line: bytes, dropped: int) -> Event | None:
        try:
            message = {} if dropped else json.loads(line)
        except ValueError:
            message = {}
        if isinstance(message, dict) and isinstance(message.get("outcome"), dict):
            self._outcome = message["outcome"]
            return None
        match message:
            case {"event": [str(kind), dict(fields)]}:
                if fields.get("stream") == "message":
                    self._said.feed(f"{fields.get('text')}\n".encode("utf-8", "replace"))
                return kind, fields
        # Not ours: something printed into the driver's output; kept where errors are looked for.
        text = self._secrets.text(line.decode("utf-8", "replace"))
        self._complaints.feed(cut(text, 500).encode() + b"\n")
        return None
