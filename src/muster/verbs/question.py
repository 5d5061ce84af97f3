"""Verbs about permissions: what agents wait for, and a person's answer, signed."""

from typing import Annotated, Literal

from msgspec import Struct

from muster.errors import Conflict, NotFound
from muster.node.tasks.approvals import AnswerAttempt, Approvals
from muster.node.verb import Column, Line
from muster.verbs.declaration import Call, Context, Core, Nothing, opt, pos, verb
from muster.verbs.find import OfTask


class Question(Struct, frozen=True):
    task: str
    question: str
    actor: str
    asked_ms: int
    tool: str
    title: str
    paths: list[str]
    because: str


@verb(
    "questions", watches=("incident", "attempt"), names="task", auth="local", group="Work",
    harmless=True,
    then=(
        Line("`muster answer {task:id} yes` allows it, `no` does not; `muster logs {task:id}` says "
             "what it did so far.", "task"),
    ),
    columns=(
        Column("task", form="id"), Column("question", rank=4), Column("actor", "agent", rank=2),
        Column("asked_ms", "asked", "ago", rank=1), Column("tool", rank=3),
        Column("title", "what", least=24), Column("paths", rank=5, least=16),
    ),
    nothing="No agent of this machine waits for a permission; --on all asks every machine.",
)  # fmt: skip
def questions(core: Core, call: Call, ask: Nothing) -> list[Question]:
    """Permissions that agents of this machine wait for; --on all: of every one.

    muster questions --on all
    """
    found = []
    for each in core.part(Approvals).listing():
        tool, title, because = (each.fields.get(name, "") for name in ("kind", "title", "because"))
        paths = list(each.fields.get("paths") or ())
        asked = (each.task, each.ask, each.actor, each.asked_ms)
        found.append(Question(*asked, tool, title, paths, because))
    return found


class Answer(OfTask, frozen=True):
    answer: Annotated[Literal["yes", "no"], pos("yes or no")]
    question: Annotated[str, opt("its number, where the agent asked several")] = ""


class Answered(Struct, frozen=True):
    task: str
    question: str
    title: str
    answer: Literal["allow", "deny"]


@verb("answer", auth="local", runs="client", group="Work",
      says=(Line("task {task:id}: {answer} — {title:60}"),))  # fmt: skip
def answer(context: Context, ask: Answer) -> Answered:
    """Allow or deny what an agent waits for.

    On the machine where the agent waits: the one that its owner gave the task to.

        muster answer 7d5e no
    """
    where = context.ask("journal.where", {"task": ask.task})
    if not where["machines"]:
        raise NotFound(f"no machine has begun task {where['task'][:12]}: nobody asks anything")
    if where["state"] != "leased":
        raise Conflict(f"task {where['task'][:12]} is {where['state']}: nobody waits for an answer")
    given = {"answer": ask.answer, "question": ask.question, "task": where["task"]}
    return Answered(**context.ask("question.answer", given, on=where["holder"]))


@verb("question.answer", auth="order", daily=True, object="task")
def settle(core: Core, call: Call, ask: Answer) -> Answered:
    """The answer, on the machine where the agent waits."""
    found = core.part(Approvals).find(ask.task, ask.question)
    allow = ask.answer == "yes"
    core.do(AnswerAttempt(found.task, found.epoch, found.ask, allow, call.actor))
    title = found.fields.get("title", "")
    return Answered(found.task, found.ask, title, "allow" if allow else "deny")
