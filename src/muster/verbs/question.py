"""Verbs about permissions: what agents wait for, and a person's answer, signed."""

from collections.abc import Mapping
from typing import Any

from muster.errors import Conflict, NotFound
from muster.node.call import Call
from muster.node.core import Core
from muster.node.question import AnswerAttempt
from muster.verbs.client import Door


def questions(core: Core, call: Call) -> list[dict[str, Any]]:
    """What the agents of this machine wait for."""
    return [
        {
            "task": each.task,
            "question": each.ask,
            "actor": each.actor,
            "asked_ms": each.asked_ms,
            "tool": each.fields.get("kind", ""),
            "title": each.fields.get("title", ""),
            "paths": list(each.fields.get("paths") or ()),
            "because": each.fields.get("because", ""),
        }
        for each in core.work.working.questions.listing()
    ]


def answer(door: Door, args: Mapping[str, Any]) -> Any:
    """Answer on the machine where the agent waits: the one that its owner gave the task to."""
    where = door.ask("journal.where", {"task": str(args["task"])})
    if not where["machines"]:
        raise NotFound(f"no machine has begun task {where['task'][:12]}: nobody asks anything")
    if where["state"] != "leased":
        raise Conflict(f"task {where['task'][:12]} is {where['state']}: nobody waits for an answer")
    given = {
        "answer": str(args["answer"]),
        "question": str(args.get("question") or ""),
        "task": where["task"],
    }
    return door.ask("question.answer", given, on=where["holder"])


def settle(core: Core, call: Call) -> dict[str, Any]:
    """A person's answer to an agent of this machine."""
    found = core.work.working.questions.find(
        str(call.args.get("task", "")), str(call.args.get("question") or "")
    )
    allow = call.args.get("answer") == "yes"
    core.do(AnswerAttempt(found.task, found.epoch, found.ask, allow, call.actor))
    return {
        "task": found.task,
        "question": found.ask,
        "title": found.fields.get("title", ""),
        "answer": "allow" if allow else "deny",
    }
