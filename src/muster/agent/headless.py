"""An agent driven by the headless mode of its own program: one prompt in, lines of JSON out.

Rule 1: the prompt goes to standard input, never into the arguments, which every user of the
machine can read. Its end is the end of the input: nobody answers, so nothing can be asked.
Rule 2: what the program may do without asking stands in its arguments (the catalogue has them),
and is no more than the policy for tasks allows. What else it wants is refused by itself.
Rule 3: a line that is no JSON, too long, too full or nested too deep, or an event that nobody knows
is data: it is kept where errors are looked for, or counted, and never ends the driver.
Rule 4: an exit code of 0 is not enough: who does not say that the turn ended well has failed. Who
says so and does not end is ended.
Rule 5: a program that did nothing before it failed for its login, its limits, its network or a
broken installation is this machine's fault, and another machine may do better. Whose model answered
was let in: what is complained of beside that is no reason.
Rule 6: only the standard library, because the shim imports this file on every start.
"""

import json
import re
from collections.abc import Mapping
from itertools import islice
from typing import Any, Final

from muster.agent.dialects import DIALECTS, Turn
from muster.agent.driver import Driver, Event
from muster.agent.lines import (
    PROMPT_BYTES_MAX,
    Splitter,
    Tail,
    cut,
    ended_by,
    is_shallow,
    is_small,
    last_line,
)
from muster.agent.mask import Stream
from muster.agent.transcript import DOLLAR, TITLE_BYTES_MAX, Transcript

# Chosen arbitrarily: an event repeats what a tool read, and a picture takes megabytes.
EVENT_LINE_BYTES_MAX: Final = 8 * 1024 * 1024
# What one line of output tells: a message has a few blocks. The shim serves a cancel and the
# deadline between two lines, so none may keep it for long.
UPDATES_MAX: Final = 1000
SUMMARY_BYTES_MAX: Final = 2000
# A number is a status where it is said to be one.
_STATUS: Final = r"\b(?:HTTP|status|error|code|rejected)\W{{1,4}}{}\b"
# What programs say where a person has to do something first, by what it is. Looked for in
# complaints alone, and only of a program that did nothing yet.
LOGGED_OUT: Final = "the agent is not logged in"
CAUSES: Final[Mapping[str, re.Pattern[str]]] = {
    LOGGED_OUT: re.compile(
        _STATUS.format("40[13]")
        + r"|authenticat|unauthori[sz]ed|not logged in|/login|api key|auth (method|type)",
        re.IGNORECASE,
    ),
    "the agent's account is at a limit": re.compile(
        _STATUS.format("429")
        + r"|rate.?limit|(usage|session|spend|credit)s? limit|quota|too many requests"
        r"|limit reached|billing",
        re.IGNORECASE,
    ),
    "the agent does not reach its model": re.compile(
        r"E(NOTFOUND|CONNREFUSED|CONNRESET|AI_AGAIN|TIMEDOUT|HOSTUNREACH|NETUNREACH)\b"
        r"|lookup address|waiting for network|unreachable|fetch failed|error sending request"
        r"|connection (failed|refused|dropped|error)",
        re.IGNORECASE,
    ),
}


class HeadlessDriver(Driver):
    """Reads what the program prints, in the dialect that the order names."""

    is_plain = False
    asks_before_kill = False
    stdin_ends = True
    fault_of_start = "agent"

    def __init__(self, order: dict[str, Any]) -> None:
        super().__init__(order)
        self._order = order
        self.argv = [str(word) for word in order["argv"]]
        self._goes_on = str(order.get("resume") or "")
        self._asked = str(order["go_on"] if self._goes_on else order["prompt"])
        self.stdin = self._asked.encode("utf-8", "replace")
        self._dialect = DIALECTS[str(order["dialect"])]
        self._turn = Turn()
        self._heard = self._answered = False
        self._session = ""
        self._logged_out = False
        self._told: tuple[dict[str, int], float | None, int] = ({}, None, 0)
        self._transcript = Transcript(self._secrets)
        self._lines = Splitter(EVENT_LINE_BYTES_MAX)
        self._stderr = Stream(self._secrets)
        self._complaints = Tail()

    @property
    def is_over(self) -> bool:
        return bool(self._turn.stop)

    def opening(self) -> list[Event]:
        text = cut(self._secrets.text(self._asked), PROMPT_BYTES_MAX)
        asked: dict[str, Any] = {"agent": self._order["agent"], "text": text}
        if self._goes_on:
            asked["resumes"] = cut(self._secrets.text(self._goes_on), TITLE_BYTES_MAX)
        return [("agent.prompt", asked), *self._opened(str(self._order.get("session") or ""))]

    def output(self, stream: str, data: bytes) -> list[Event]:
        if stream == "stderr":
            self._complaints.feed(self._stderr.feed(data))
            return []
        return [
            event for line, dropped in self._lines.feed(data) for event in self._read(line, dropped)
        ]

    def flush(self) -> list[Event]:
        return self._transcript.flush()

    def closing(self) -> list[Event]:
        events = [
            event for line, dropped in self._lines.rest() for event in self._read(line, dropped)
        ]
        self._complaints.feed(self._stderr.rest())
        return events + self._transcript.end()

    def outcome(self, code: int | None) -> dict[str, Any]:
        said, turn = self._transcript, self._turn
        well = turn.stop == "ok" and (code == 0 or self.outlived)
        summary = cut(said.last_message, SUMMARY_BYTES_MAX // 2)
        fault, status = "", "ok" if well else "failed"
        if not well:
            summary, fault = self._failure(code, summary)
            status = "error" if fault or not turn.stop else "failed"
        tail = said.tail.text() + ("" if well else self._complaints.text())
        return {
            "status": status,
            "exit_code": code,
            "fault": fault,
            "logged_out": self._logged_out,
            "summary": cut(self._secrets.text(summary), SUMMARY_BYTES_MAX),
            "tail": tail,
            "said_bytes": said.tail.total,
            "usage": dict(said.usage),
            "masked": sorted(self._secrets.found),
        }

    def _failure(self, code: int | None, said: str) -> tuple[str, str]:
        """Why it failed in one sentence, and what of this machine was the reason."""
        turn, error = self._turn, self._secrets.text(self._turn.error)
        complaints = self._complaints.text()
        # A program that ends by itself without a word of JSON says to people why.
        words = error or last_line(complaints)
        about = f": {cut(words, SUMMARY_BYTES_MAX // 2)}" if words else ""
        if not turn.acted and turn.stop in ("", "error"):
            complaint = error or ("" if self._answered else complaints)
            cause = next((name for name, words in CAUSES.items() if words.search(complaint)), "")
            if cause:
                self._logged_out = cause == LOGGED_OUT
                login = str(self._order.get("login") or "")
                advice = f"; {login}" if login and self._logged_out else ""
                return f"{cause}{about}{advice}", "agent"
            if not self._heard:
                return f"the agent ended before it said anything ({ended_by(code)}){about}", "agent"
        if turn.stop in ("", "ok"):
            when = "in the middle" if not turn.stop else "badly after its turn"
            return f"the agent ended {when} ({ended_by(code)}){about}", ""
        if turn.stop == "error":
            return f"the agent failed{about or f' ({ended_by(code)})'}", ""
        stop = cut(self._secrets.text(turn.stop), 200)
        return f"the agent stopped: {stop}. {said}".rstrip(), ""

    def _read(self, line: bytes, dropped: int) -> list[Event]:
        """The events of one line of output."""
        if not line.strip():
            return []
        try:
            found = json.loads(line) if not dropped and is_small(line) else None
        except (ValueError, RecursionError):
            found = None
        if not isinstance(found, dict) or not is_shallow(found):
            text = self._secrets.text(line.decode("utf-8", "replace"))
            self._complaints.feed(f"{cut(text, 500)}\n".encode())
            return []
        self._heard = True
        events: list[Event] = []
        updates = self._dialect(self._turn, found)
        for update in islice(updates, UPDATES_MAX):
            self._answered |= update.get("sessionUpdate") == "agent_message_chunk"
            events += self._transcript.update(update) if update else self._transcript.end()
        if next(updates, None) is not None:
            self._complaints.feed(f"one line told more than {UPDATES_MAX} things\n".encode())
        return self._opened(self._turn.session) + events + self._spent()

    def _opened(self, session: str) -> list[Event]:
        """The name by which a later attempt goes on with the session, once it is known."""
        if not session or self._session:
            return []
        self._session = session
        return [("agent.session", {"session": cut(self._secrets.text(session), TITLE_BYTES_MAX)})]

    def _spent(self) -> list[Event]:
        """What the turn has used by now, where it is more than was told."""
        turn, events = self._turn, list[Event]()
        if (known := (dict(turn.tokens), turn.cost, len(turn.models))) == self._told:
            return events
        self._told = known
        if turn.cost is not None:
            cost = {"amount": turn.cost, "currency": DOLLAR}
            events += self._transcript.update({"sessionUpdate": "usage_update", "cost": cost})
        return events + self._transcript.count(turn.tokens, turn.models)
