"""What people read about tasks."""

from collections.abc import Mapping
from typing import Any, Final

from muster.cli.show import listed
from muster.cli.table import table
from muster.cli.text import (
    Files,
    abbreviated,
    ago,
    block,
    clean,
    clock,
    now_ms,
    paint,
    pairs,
    short,
    span,
    state,
)
from muster.node.verb import Column
from muster.task.review import instance_of, round_of

Slot = tuple[str, str]
# Of a task that waits for a person; a phase without a task waits for other phases.
WAITS_FOR_YOU: Final = "waiting for you"
_TASKS: Final = (
    Column("task", form="id"), Column("run", form="id", rank=5), Column("phase"),
    Column("state", form="state"), Column("machine", rank=1), Column("agent", rank=4),
    Column("took", rank=2), Column("changed_ms", "changed", "ago", rank=3),
    Column("summary", least=20),
)  # fmt: skip
_CANDIDATES: Final = (
    Column("machine", "  machine"), Column("fits", form="state"), Column("score", rank=1),
    Column("why", least=30),
)  # fmt: skip


def tasks(value: Any, _files: Files) -> str:
    rows = (
        {
            "run": "",
            **each,
            "phase": phase(each),
            "state": word(each),
            "took": took(each),
            "summary": outcome(each),
        }
        for each in value
    )
    return listed(_TASKS, rows, "No task is open; `muster tasks --all` shows settled ones.")


def word(each: Any) -> str:
    """How a task stands, as people say it; --json keeps the word of the log."""
    return WAITS_FOR_YOU if each["state"] == "waiting" else str(each["state"])


def outcome(each: Any) -> str:
    """What came of a task: where it went wrong the reason, else what its agent said."""
    said, reason = str(each.get("summary") or ""), abbreviated(str(each.get("reason") or ""))
    return (said or reason) if each["state"] == "done" else (reason or said)


def took(each: Any) -> str:
    """From when a task was opened to its end; of one that runs, since it was given away."""
    opened, changed = each.get("opened_ms"), each.get("changed_ms")
    if each["state"] in ("queued", "waiting") or not opened or not changed:
        return ""
    if each["state"] == "leased":
        return span(max(0, now_ms() - changed))
    return span(max(0, changed - opened))


def round_rejected(slot: Slot, tasks: Mapping[Slot, Any], phases: Mapping[str, Any]) -> str:
    """What follows on a round of a phase that its reviewers rejected; "" of every other task."""
    name, instance = slot
    judges = [other for other, each in phases.items() if each.get("review") == name]
    if not judges or tasks[slot]["state"] != "done":
        return ""
    following = round_of(instance) + 1
    if (name, instance_of(following)) in tasks:
        return f"round {following} follows"
    said = [outcome(tasks[at]) for judge in judges if (at := (judge, instance)) in tasks]
    return "by its reviewers" if any(each.startswith("reject") for each in said) else ""


def phase(each: Any) -> str:
    """A phase, and the instance of it where there are several."""
    instance = clean(each.get("instance") or "")
    return f"{clean(each['phase'])}[{instance}]" if instance else clean(each["phase"])


def why(value: Any, _files: Files) -> str:
    if "message" in value:
        return _message(value["message"])
    task = value["task"]
    lines = [
        f"{paint(phase(task) or 'task', 'bold')}  {short(task['task'])}  {state(word(task))}",
        pairs([("last", abbreviated(value.get("now", {}).get("reason") or task["reason"]))]),
    ]
    if by := value.get("kept_by"):
        lines.append(f"run {short(by)} kept it from run {short(task['run'])}: it was not run again")
    lines += claimed(value) + asked(value)
    for each in value["decisions"]:
        machine, epoch = clean(each["machine"]), ".".join(map(str, each["epoch"]))
        given = f"given to {machine} ({clean(each['agent'])}), epoch {epoch}"
        lines += ["", f"{clock(each['t_ms'])}  {given}", _candidates(each["candidates"])]
        if gone := each.get("left"):
            why_not = clean(abbreviated(gone["reason"]), 200)
            lines.append(f"{clock(gone['t_ms'])}  {machine} has it no more: {why_not}")
    if value.get("question"):
        answer = f"Answer with `muster decide {short(task['task'])} yes|no`."
        lines += ["", "It asks a person:", block(value["question"]), answer]
    if (now := value.get("now")) and now["candidates"]:
        lines += ["", "now:", _candidates(now["candidates"])]
    return "\n".join(line for at, line in enumerate(lines) if line or at > 1)


def _message(value: Any) -> str:
    """How far a message came, and what was tried for each of its recipients."""
    lines = [f"{paint('message', 'bold')}  {short(value['message'])}  sent {ago(value['t_ms'])}"]
    for each in value["to"]:
        to = f"{each['agent']}@{each['machine']}" if each["agent"] else each["machine"]
        lines.append(f"{paint(clean(to), 'bold')}  {state(each['state'])}")
        for tried in each["tries"]:
            why = f": {clean(tried['why'], 160)}" if tried["why"] else ""
            when = f"{span(tried['ms_ago'])} ago"
            lines.append(f"  {when:>9}  {clean(tried['channel'])}  {clean(tried['outcome'])}{why}")
        if not each["tries"]:
            lines.append("  nothing was tried since this daemon's start")
    return "\n".join(lines)


def claimed(value: Any) -> list[str]:
    """What machines say about it that do not own it, and what its owner began beside it: shown,
    and counted for nothing.
    """
    return [
        f"{clean(each['machine'])} claims that it is {clean(each['state'])}, and does not own it"
        for each in value.get("claims") or ()
    ] + [
        f"its owner began run {short(each['run'])} by the same order: one order is one run, and "
        "that one counts for nothing"
        for each in value.get("again") or ()
    ]


def asked(value: Any) -> list[str]:
    """Which agent handed on a run, and the person who let it."""
    found = value.get("handed_on")
    if not found:
        return []
    who = clean(found["by"]) + (f"#{clean(found['session'])}" if found.get("session") else "")
    task, person = short(found.get("task") or "?"), clean(found["person"])
    let = f"a grant of {person}" if found.get("grant") else f"its task {task}, by {person},"
    return [f"handed on by {who}, as {let} lets it"]


def _candidates(found: Any) -> str:
    rows = (
        (
            f"  {each['machine']}",
            paint("fits", "green") if each["fits"] else "no",
            str(each["score"]) if each["fits"] else "",
            clean("; ".join(each["reasons"])),
        )
        for each in found
    )
    return table(_CANDIDATES, rows, "  nobody was asked")
