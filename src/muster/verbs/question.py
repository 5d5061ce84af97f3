"""Verbs about permissions: what agents wait for, and a person's answer, signed.

Rule: who says yes to a run that a session proposes signs that run, having been shown all of it:
its whole text, the repository and the base. A word about what is over by then orders nothing.
"""

import contextlib
from collections.abc import Mapping
from typing import Annotated, Any, Literal

from msgspec import UNSET, Struct, UnsetType

from muster.errors import Conflict, MusterError, NotFound, Refused
from muster.node.tasks.approvals import Approvals
from muster.node.tasks.proposals import Proposals
from muster.node.verb import Column, Line
from muster.verbs.client import Finding
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
             "what it did so far.", "question"),
        Line("`muster answer {task:id} yes` shows the run that is proposed and orders it as yours; "
             "`no` refuses it.", "!question"),
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

    Runs that sessions propose stand among them, without a number.

    muster questions --on all
    """
    found = []
    for each in core.part(Approvals).listing():
        tool, title, because = (each.fields.get(name, "") for name in ("kind", "title", "because"))
        paths = list(each.fields.get("paths") or ())
        asked = (each.task, each.ask, each.actor, each.asked_ms)
        found.append(Question(*asked, tool, title, paths, because))
    for one in core.part(Proposals).listing():
        title = f"run {one.name}" + (f" in {one.repo}" if one.repo else "")
        found.append(Question(one.id, "", one.actor, one.asked_ms, "run", title, [], one.because))
    return found


class Answer(OfTask, frozen=True):
    answer: Annotated[Literal["yes", "no"], pos("yes or no")]
    question: Annotated[str, opt("its number, where the agent asked several")] = ""


class Said(Answer, frozen=True):
    yes: Annotated[bool, opt("order what is proposed without being asked again", short="y")] = False
    reason: Annotated[str, opt("why not, told to the session", empty=True)] = ""


class Answered(Struct, frozen=True):
    """`run` is what was ordered of a proposal, whose id `task` is then."""

    task: str
    question: str
    title: str
    answer: Literal["allow", "deny"]
    run: str | UnsetType = UNSET


@verb("answer", auth="local", runs="client", group="Work",
      says=(Line("task {task:id}: {answer} — {title:60}", "question"),
            Line("{title:60}: {answer}", "!question"),
            Line("run {run:id} began", "run")))  # fmt: skip
def answer(context: Context, ask: Said) -> Answered | Finding:
    """Allow or deny what an agent waits for, or a run that a session proposes.

    On the machine where the agent waits: the one that its owner gave the task to. A proposal is
    answered where its session is: its text is shown, and what you say yes to is your own order.

        muster answer 7d5e no
    """
    known = None
    # It is no proposal: then it is the question of a task.
    with contextlib.suppress(NotFound):
        known = context.ask("proposal.about", {"proposal": ask.task})
    if known is not None:
        return _word(context, ask, known)
    where = context.ask("journal.where", {"task": ask.task})
    if not where["machines"]:
        raise NotFound(f"no machine has begun task {where['task'][:12]}: nobody asks anything")
    if where["state"] != "leased":
        raise Conflict(f"task {where['task'][:12]} is {where['state']}: nobody waits for an answer")
    given = {"answer": ask.answer, "question": ask.question, "task": where["task"]}
    return Answered(**context.ask("question.answer", given, on=where["holder"]))


def _word(context: Context, ask: Said, known: Mapping[str, Any]) -> Answered | Finding:
    """A person's word about a proposal. Raises: Conflict, Refused."""
    title = f"run {known['name']}"
    _check_open(known)
    word = {"proposal": known["proposal"], "answer": ask.answer, "run": "", "owner": "",
            "reason": ask.reason}  # fmt: skip
    if ask.answer == "no":
        context.ask("proposal.end", word)
        return Answered(known["proposal"], "", title, "deny")
    context.say(_shown(known), whole=True)
    if not ask.yes and context.question("Order it as yours (yes or no)", "no") not in ("y", "yes"):
        raise Refused("nothing was ordered: say yes at a terminal when it was shown, or --yes")
    # Reading takes a person minutes: by now it may have ended, or another word was said about it.
    _check_open(context.ask("proposal.about", {"proposal": known["proposal"]}))
    # Exactly what was shown, and what `muster run` would sign for it.
    wanted = {"base": known["base"], "repo": known["repo"], "spec": known["spec"], "values": {}}
    begun = context.ask("run", wanted, options={"object": known["name"]})
    ordered = Answered(known["proposal"], "", title, "allow", begun["run"])
    try:
        context.ask("proposal.end", {**word, "run": begun["run"], "owner": begun["owner"]})
    except MusterError as error:
        context.say(
            f"run {begun['run']} began; its proposal stays as it is, and its session is not told: "
            f"{error}"
        )
        return Finding(ordered, 1)
    return ordered


def _check_open(known: Mapping[str, Any]) -> None:
    """Raises: Conflict where a word was said about it already."""
    if known["state"] != "open":
        short = known["proposal"][:12]
        raise Conflict(f"proposal {short} is {known['state']} already; nothing was changed")


def _shown(known: Mapping[str, Any]) -> str:
    """All that a person signs. The text stands first: however long, the rest is above the question,
    and no line of the text looks like one of ours.
    """
    text = "\n".join(f"  {line}" for line in known["spec"].rstrip("\n").split("\n"))
    base = known["base"] or ("its default branch" if known["repo"] else "none")
    rows = {
        "repository": known["repo"] or "none", "base": base, "proposed by": known["actor"],
        "session": known["session"], "because": known["because"],
    }  # fmt: skip
    lines = "\n".join(f"{name:<13}{' '.join(each.split())}" for name, each in rows.items())
    return f"run {known['name']} is proposed:\n\n{text}\n\n{lines}\n"


@verb("question.answer", auth="order", daily=True, object="task")
def settle(core: Core, call: Call, ask: Answer) -> Answered:
    """The answer, on the machine where the agent waits."""
    allow = ask.answer == "yes"
    found = core.part(Approvals).answer(ask.task, ask.question, call.actor, allow=allow)
    title = found.fields.get("title", "")
    return Answered(found.task, found.ask, title, "allow" if allow else "deny")
