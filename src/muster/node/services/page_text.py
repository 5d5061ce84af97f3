"""What a person is told: a title and some lines, in which foreign words stay foreign words.

Rule 1: what an agent, a peer or a machine wrote stands in one line, between marks of quotation, cut
at both ends of its middle. It cannot begin a line of ours, call anybody by name, or be a link.
Rule 2: a message names what it is about, where that was seen, and what to type.
Rule 3: it bears a number made of what it tells, the same from every pager: a person who reads it
twice sees that it is one.
"""

import hashlib
import re
from collections.abc import Callable, Sequence
from typing import Final, NamedTuple

from muster.fleet.escalation import CLOSING
from muster.fleet.incident import Incident, called_by
from muster.limits import NOTIFY_LINES_MAX
from muster.printable import visible
from muster.task.fold import RunRow

TITLE_CHARS_MAX: Final = 120
_QUOTE_CHARS_MAX: Final = 300
_DETAIL_CHARS_MAX: Final = 400
_ID_CHARS: Final = 12
# What the services take for a mention, a link or a form of a text, as signs that look like it.
_SIGNS: Final = str.maketrans(
    {"@": "\uff20", "<": "\u2039", ">": "\u203a", "`": "'", "[": "(", "]": ")", "*": "\u2217",
     "~": "\u223c", "|": "\u00a6", "#": "\uff03", "\u201c": '"', "\u201d": '"',
     "&": "\uff06"}
)  # fmt: skip


# Between letters it is part of a name that is typed, and begins no slanted text.
_LOW_LINE: Final = re.compile(r"(?<![A-Za-z0-9])_|_(?![A-Za-z0-9])")
# Most services take such a name for a link.
_WWW: Final = re.compile(r"(www)\.", re.IGNORECASE)
_PLAIN: Final = re.compile(r"[A-Za-z0-9][A-Za-z0-9:/.-]{3,90}")


class Message(NamedTuple):
    """What is told of one thing; `short` is all of it in one line."""

    title: str
    lines: tuple[str, ...]
    short: str
    serial: str

    @property
    def body(self) -> str:
        return "\n".join(self.lines)


def foreign(text: str, chars_max: int = _QUOTE_CHARS_MAX) -> str:
    """Foreign words as Rule 1 says, without the marks around them."""
    line = " ".join(visible(text).split()).translate(_SIGNS).replace("://", ":/\u2215")
    line = _LOW_LINE.sub("\uff3f", line)
    line = _WWW.sub("\\1\u2024", line)
    if len(line) <= chars_max:
        return line
    half = (chars_max - 3) // 2
    return f"{line[:half]}\u2026{line[-half:]}"


def serial(key: str, level: int, since_ms: int) -> str:
    """The number of a message."""
    return hashlib.sha256(f"{key}\n{level}\n{since_ms}".encode()).hexdigest()[:8]


def of_incident(
    incident: Incident, level: int, name_of: Callable[[str], str], now_ms: int, task: str = ""
) -> Message:
    """What is told of an incident. `task` is the one that it is about, as far as that is known."""
    first, grave = incident.first, incident.severity if level != CLOSING else ""
    mark = serial(incident.key + grave, level, incident.since_ms)
    seen = [name_of(machine) for machine in incident.machines]
    who = f"seen by {', '.join(seen[:5])}" + (f" and {len(seen) - 5} more" if seen[5:] else "")
    title = foreign(first.title, TITLE_CHARS_MAX)
    if level == CLOSING:
        lasted = _span(incident.closed_ms - incident.since_ms)
        lines = [
            f"\u201c{foreign(first.title)}\u201d is over, after {lasted}.",
            f"Why: \u201c{foreign(first.detail)}\u201d",
            f"incident \u201c{foreign(called_by(first.key, name_of(first.machine)))}\u201d, {who}",
        ]
        return Message(f"over: {title}", (*lines, f"message {mark}"), f"over: {title}", mark)
    lines = [f"\u201c{foreign(first.title)}\u201d"]
    if first.detail:
        lines.append(f"\u201c{foreign(first.detail, _DETAIL_CHARS_MAX)}\u201d")
    lines.append(f"{incident.severity}, {who}, for {_span(now_ms - incident.since_ms)}")
    if incident.flaps:
        lines.append(f"It was over {incident.flaps} times, and began again each time.")
    lines.append(f"incident \u201c{foreign(called_by(first.key, name_of(first.machine)))}\u201d")
    if task:
        lines.append(f"task {task[:_ID_CHARS]}: muster logs {task[:_ID_CHARS]}")
    lines.append("To see all: muster incidents")
    lines.append(f"You look at it: muster acknowledge {handle(incident, name_of)} --until 8h")
    lines.append(f"message {mark}")
    short = f"{incident.severity}: \u201c{title}\u201d ({who}) {handle(incident, name_of)}"
    return Message(f"{incident.severity}: {title}", tuple(lines), short, mark)


def of_run(row: RunRow, machine: str, at_ms: int) -> Message:
    """What is told of a run that ended on a machine."""
    run, name, outcome, summary = row.run, row.name, row.state, row.summary
    mark = serial(f"run:{run}", 1, at_ms)
    title = f"run {foreign(name, 60)}: {outcome}"
    lines = [f"The run {foreign(name, 60)} of {foreign(machine, 60)} ended: {outcome}."]
    if summary:
        lines.append(f"\u201c{foreign(summary)}\u201d")
    lines += [f"To see why: muster runs {run[:_ID_CHARS]}", f"message {mark}"]
    return Message(title, tuple(lines), f"{title} ({run[:_ID_CHARS]})", mark)


def of_several(messages: Sequence[Message], what: str) -> Message:
    """One message for all of them."""
    count = len(messages)
    lines = [each.short for each in messages[:NOTIFY_LINES_MAX]]
    if count > NOTIFY_LINES_MAX:
        lines.append(f"and {count - NOTIFY_LINES_MAX} more")
    mark = serial(" ".join(sorted(each.serial for each in messages)), 0, 0)
    lines += ["To see all: muster incidents", f"message {mark}"]
    title = f"{count} {what}" if count > 1 else messages[0].title
    return Message(title, tuple(lines), title, mark)


def handle(incident: Incident, name_of: Callable[[str], str]) -> str:
    """What a person types for it: its key, which stays when it is told again, where that is plain
    enough to stand in a command.
    """
    first = incident.first
    key = called_by(first.key, name_of(first.machine))
    return key if _PLAIN.fullmatch(key) else first.id[:_ID_CHARS]


def _span(ms: int) -> str:
    minutes = max(0, ms) // 60_000
    if minutes < 120:
        return f"{minutes} min" if minutes else "less than a minute"
    return f"{minutes // 60} h" if minutes < 48 * 60 else f"{minutes // (24 * 60)} days"
