"""What an editor is shown of a turn, as Markdown and as the forms of ACP.

Rule: what an agent wrote is shown whole. It stands in a fence that nothing in it can close, for an
editor reads Markdown, which hides what stands between `<!--` and `-->`.
"""

import re
from collections.abc import Mapping
from typing import Any, Final

from muster.task import spec as specs
from muster.verbs.acp_session import Turn

TITLE_CHARS: Final = 100
_TICKS: Final = re.compile("`+")


def fenced(text: str, language: str = "") -> str:
    """The text as it stands, in a fence longer than any run of backticks in it."""
    ticks = "`" * max([3, *(len(run) + 1 for run in _TICKS.findall(text))])
    end = "" if text.endswith("\n") else "\n"
    return f"{ticks}{language}\n{text}{end}{ticks}\n"


def chunk(kind: str, text: str) -> dict[str, Any]:
    """A piece of what somebody says."""
    return {"sessionUpdate": kind, "content": {"type": "text", "text": text}}


def phases_of(spec: str) -> dict[str, str]:
    """A line for each phase of a spec: who does what."""
    found = {}
    for name, phase in specs.read(spec.encode()).spec.phases.items():
        who = "you" if phase.by_human else " or ".join(phase.agents)
        first = (phase.do or phase.check or "").strip().partition("\n")[0]
        found[name] = f"{name} ({who}): {first}"[:TITLE_CHARS]
    return found


def said(turn: Turn, end: Mapping[str, Any], seen: Mapping[str, Mapping[str, Any]]) -> str:
    """How a run ended, for a person."""
    how = str(end["settled"])
    reason = f": {end['reason']}" if end.get("reason") else ""
    lines = [f"{turn.name} is {how}{reason}"]
    for task in seen.values():
        text = str(task.get("summary") or task.get("reason") or "")
        lines.append(f"- {slot(task)}: {task.get('state')}{f', {text}' if text else ''}")
    land = f"; `muster land {turn.run[:12]}` puts it on your branch" if turn.repo else ""
    return "\n".join([*lines, f"`muster runs {turn.run[:12]}` has all of it{land}."])


def slot(task: Mapping[str, Any]) -> str:
    instance = task.get("instance")
    return f"{task.get('phase')}[{instance}]" if instance else str(task.get("phase"))


def standing(states: list[str]) -> str:
    """How a phase stands, of whose tasks these are the states."""
    if not states or all(each in ("queued", "waiting") for each in states):
        return "pending"
    return "in_progress" if {"queued", "waiting", "leased"} & set(states) else "completed"
