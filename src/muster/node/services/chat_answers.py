"""What Muster answers to questions from a chat: the verbs that read, in a few plain lines."""

from collections.abc import Generator, Mapping
from typing import TYPE_CHECKING, Any, Final

import msgspec

from muster.errors import NotFound, Refused
from muster.fleet.acknowledgement import name_of
from muster.fleet.kinds import Told
from muster.node.call import arguments
from muster.node.call.answers import Call
from muster.node.verb import at_once

if TYPE_CHECKING:
    from muster.node.core import Core

HELP: Final = (
    "I answer: muster status, muster tasks, muster why TASK, muster incidents, muster ack ID. "
    "Anything else you say is a message to this machine, and orders nothing."
)
_ROWS_MAX: Final = 12
_ID_CHARS_MIN: Final = 4


def asked(core: "Core", verb: str, args: Mapping[str, Any]) -> Any:
    """What a verb that reads answers, as plain data."""
    known = core.verbs[verb]
    handler = known.load()
    ask = arguments.read(known, handler, args, {})
    value = handler(core, Call(core, verb, args, 0, 0, "", local=True), ask)
    found = at_once(value) if isinstance(value, Generator) else value
    return msgspec.to_builtins(found)


def answer_of(core: "Core", name: str, object: str) -> str:
    """The answer to one word of a person. Raises: what the verb does."""
    if name == "status":
        return _status(asked(core, "status", {}))
    if name == "tasks":
        rows = asked(core, "tasks", {"limit": _ROWS_MAX})
        lines = [f"{each['task'][:8]}  {each['state']}  {_named(each)}" for each in rows]
        return "\n".join(lines) or "no task is open"
    if name == "incidents":
        rows = [each for each in asked(core, "incidents", {"limit": _ROWS_MAX}) if each["open"]]
        lines = [
            f"{each['id'][:8]}  {each['severity']}  {each['machine']}: {each['title'][:200]}"
            + (f"  (seen by {each['by']})" if each["by"] else "")
            for each in rows
        ]
        return "\n".join(lines) or "nothing is wrong that a person must see"
    if name == "why" and object:
        return _why(asked(core, "why", {"task": object}))
    return HELP


def _named(task: Mapping[str, Any]) -> str:
    where = f" on {task['machine']}" if task["machine"] else ""
    return f"{task['phase'] or task['agent']}{where}  {task['reason'] or task['summary']}"[:160]


def _status(found: Mapping[str, Any]) -> str:
    machines = found["machines"]
    away = f", away: {', '.join(machines['away'])}" if machines["away"] else ""
    works = [f"  {each['agent']} works on {each['phase']} ({each['task'][:8]})"
             for each in found["works"][:_ROWS_MAX]]  # fmt: skip
    return "\n".join((
        f"{found['name']}: {machines['known']} machines, {machines['linked']} linked{away}",
        f"{found['runs']} runs, {found['unread']} unread, {len(found['incidents'])} incidents",
        *works,
    ))  # fmt: skip


def _why(found: Mapping[str, Any]) -> str:
    task, lines = found.get("task"), []
    if task:
        lines.append(f"{task['task'][:8]} is {task['state']}: {_named(task)}")
    now = found.get("now")
    if now:
        lines.append(f"it is {now['stage']}: {now['reason']}")
        for each in now["candidates"][:_ROWS_MAX]:
            why = "fits" if each["fits"] else "; ".join(each["reasons"])
            lines.append(f"  {each['machine']}: {why[:160]}")
    if found.get("question"):
        lines.append(f"it waits for a person: {found['question']}")
    return "\n".join(lines) or "nothing more is known of it here"


def told_of(core: "Core", name: str) -> tuple[Told, str, str]:
    """The open incident whose id begins so: what it is, its title and its id.

    Raises: NotFound, Refused; also for a fork, which an operator looks at.
    """
    rows = [each for each in asked(core, "incidents", {"limit": 500})
            if each["id"].startswith(name) and each["open"]]  # fmt: skip
    if not rows or len(name) < _ID_CHARS_MIN:
        raise NotFound(f"no open incident begins with {name[:20]!r}")
    if len(rows) > 1:
        raise Refused(f"more than one incident begins with {name[:20]!r}: give more of its id")
    found = rows[0]
    told = Told(found["key"], found["stream"], found["t_ms"])
    if name_of(told) != found["id"]:
        raise Refused("that one is an operator's to look at: `muster acknowledge`")
    if found["by"]:
        raise Refused(f"{found['by']} looks at it already")
    return told, str(found["title"]), str(found["id"])
