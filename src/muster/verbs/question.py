"""Verbs about permissions: what agents wait for, and a person's answer, signed.

Rule 1: who says yes to a run that a session proposes signs that run, having been shown all of it:
its whole text, the repository and the base. A word about what is over by then orders nothing.
Rule 2: a yes to an agent is signed over the number of all that it is about to do, as the machine
where it waits tells it (task/approval.py). Who names an approval by its id names that number; where
only its task is named, or nothing, it is shown first: what waits may have become another one.
Rule 3: one thing is asked at a time, the oldest first, and it stays until it is answered.
"""

import contextlib
from collections.abc import Mapping
from typing import Annotated, Any, Literal

from msgspec import UNSET, Struct, UnsetType

from muster.errors import Conflict, MusterError, NotFound, Refused
from muster.node.tasks.approvals import Approvals
from muster.node.tasks.proposals import Proposals
from muster.node.verb import Column, Line
from muster.printable import named
from muster.verbs.client import Finding
from muster.verbs.declaration import Call, Context, Core, Nothing, Request, opt, pos, verb


class Question(Struct, frozen=True):
    """`question` is the id that an answer names, `hash` what it is signed over.

    `sort` is the class of it, which a grant of `approve` may name. A proposed run has neither.
    """

    task: str
    question: str
    actor: str
    asked_ms: int
    tool: str
    title: str
    paths: list[str]
    because: str
    hash: str = ""
    sort: str = ""
    until_ms: int = 0


@verb(
    "questions", watches=("incident", "attempt"), names="question", auth="local", group="Work",
    harmless=True,
    then=(
        Line("`muster answer {question:id}` shows all of it and asks you; with `allow` or `deny` "
             "behind it that is your answer. `muster logs {task:id}` says what it did so far.",
             "hash"),
        Line("`muster answer {task:id} yes` shows the run that is proposed and orders it as yours; "
             "`no` refuses it.", "!hash"),
    ),
    columns=(
        Column("question", form="id"), Column("task", form="id", rank=4),
        Column("actor", "agent", rank=2), Column("asked_ms", "asked", "ago", rank=1),
        Column("tool", rank=3), Column("title", "what", "named", least=24),
        Column("paths", form="named", rank=5, least=16),
    ),
    nothing="No agent of this machine waits for a permission; --on all asks every machine.",
)  # fmt: skip
def questions(core: Core, call: Call, ask: Nothing) -> list[Question]:
    """Permissions that agents of this machine wait for; --on all: of every one.

    Runs that sessions propose stand among them. The oldest comes first.

    muster questions --on all
    """
    found = []
    for each in core.part(Approvals).listing():
        tool, title, because = (each.fields.get(name, "") for name in ("kind", "title", "because"))
        paths = list(each.fields.get("paths") or ())
        asked = (each.task, each.id, each.actor, each.asked_ms)
        found.append(
            Question(*asked, tool, title, paths, because, each.hash, each.sort, each.until_ms)
        )
    for one in core.part(Proposals).listing():
        title = f"run {one.name}" + (f" in {one.repo}" if one.repo else "")
        asked = (one.id, one.id, one.actor, one.asked_ms)
        found.append(Question(*asked, "run", title, [], one.because))
    return found


class Said(Request, frozen=True):
    task: Annotated[
        str,
        pos("its id or a task's, by the beginning; the oldest where none is named",
            kind="question"),
    ] = ""  # fmt: skip
    answer: Annotated[
        Literal["", "allow", "deny", "yes", "no"],
        pos("allow or deny; without it you are shown what is asked, and asked"),
    ] = ""
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

    What you allow is one action, as it was asked, once. Without an answer it is shown whole and
    you are asked, without an id the oldest. A proposal is answered where its session is, and is
    ordered as yours.

        muster answer 7d5e deny
    """
    known = None
    # It is no proposal: then it is the question of a task.
    with contextlib.suppress(NotFound):
        if ask.task:
            known = context.ask("proposal.about", {"proposal": ask.task})
    if known is not None:
        return _word(context, ask, known)
    where = context.ask("approval.find", {"id": ask.task})
    found = _waits(context, where)
    word = {"yes": "allow", "no": "deny"}.get(ask.answer, ask.answer)
    meant = bool(ask.task) and found["approval"].startswith(ask.task)
    if not word or (word == "allow" and not meant and not ask.yes):
        context.say(_asked_text(found), whole=True)
        said = context.question("Allow this, once (allow or deny)", "")
        word = {"yes": "allow", "no": "deny"}.get(said, said)
    if word not in ("allow", "deny"):
        short = found["approval"][:12]
        raise Refused(
            f"nothing was answered: say allow or deny at a terminal, or "
            f"`muster answer {short} allow|deny`"
        )
    given = {"answer": word, "approval": found["approval"], "hash": found["hash"]}
    return Answered(**context.ask("approve", given, on=where["machine"]))


def _waits(context: Context, where: Mapping[str, Any]) -> dict[str, Any]:
    """All of what waits there, as its machine tells it. Raises: Conflict where nothing does."""
    which = {"approval": where["approval"], "task": where["task"]}
    try:
        return dict(context.ask("approval.about", which, on=where["machine"]))
    except NotFound as error:
        raise Refused(
            "the machine where it waits is of an older version, whose answers are bound to "
            "nothing: bring it up to date, or answer it by its own version"
        ) from error


def _asked_text(asked: Mapping[str, Any]) -> str:
    """All that a person is shown of what an agent wants to do; see `_shown`."""
    text = "\n".join(f"  {line}" for line in named(asked["input"] or "nothing").split("\n"))
    rows = {
        "what": asked["title"], "tool": asked["tool"], "class": asked["sort"],
        "agent": asked["actor"], "task": asked["task"][:12], "because": asked["because"],
    }  # fmt: skip
    lines = "".join(f"{name:<9}{named(' '.join(each.split()))}\n" for name, each in rows.items())
    paths = "".join(f"{'path':<9}{named(each)}\n" for each in asked["paths"])
    return f"an agent asks to do this, once:\n\n{text}\n\n{lines}{paths}"


def _word(context: Context, ask: Said, known: Mapping[str, Any]) -> Answered | Finding:
    """A person's word about a proposal. Raises: Conflict, Refused."""
    title = f"run {known['name']}"
    _check_open(known)
    word = {"proposal": known["proposal"], "answer": "no", "run": "", "owner": "",
            "reason": ask.reason}  # fmt: skip
    if ask.answer in ("no", "deny"):
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
        context.ask(
            "proposal.end", {**word, "answer": "yes", "run": begun["run"], "owner": begun["owner"]}
        )
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
