"""Verbs about runs and tasks; the rules are those of `node/verb.py`."""

from typing import Final

from muster.node.verb import Arg
from muster.verbs.verb import Verb, flag, opt, pos, words

_TASK: Final = pos("task", "task id (its beginning is enough)", kind="task")
_LIMIT: Final = Arg("limit", "show so many at most", kind="int")

WORK: Final = (
    Verb(
        "run", "hand in a spec and follow it to its end", "order", "step",
        "muster.verbs.work:run",
        (
            pos("spec", "the spec file, - for standard input", kind="file"),
            opt("repo", "take this repository instead of the one the spec names"),
            opt("base", "the branch or commit to start from, instead of the one the spec names"),
            words("value", "NAME=TEXT for the spec's ${inputs.NAME}; give it several times"),
            opt("key", "an idempotency key: the same key is the same run", unsigned=True),
            flag("again", "run although the same spec is still running", unsigned=True),
            flag("detach", "print the run's id and return", unsigned=True),
        ),
        object="statement", target="hub",
    ),
    Verb(
        "submit", "hand in single tasks, each with its own statement", "local", "step",
        "muster.verbs.work:submit", hidden=True,
    ),
    Verb(
        "ask", "let an agent turn an intention into a spec, and run it", "local", "client",
        "muster.verbs.plan:ask",
        (
            pos("intention", "what you want, in your words", kind="words"),
            opt("repo", "the repository it is about"),
            opt("agent", "the planning agent (default: the first that is up)"),
            flag("yes", "run the plan without asking"),
            flag("detach", "begin the run and return", unsigned=True),
        ),
        elsewhere=True,
    ),
    Verb(
        "check", "say what is wrong with a spec, with line and column", "local", "step",
        "muster.verbs.check:check",
        (
            pos("spec", "the spec file, - for standard input", kind="file"),
            opt("repo", "the repository that `muster run --repo` would name"),
            flag("alone", "check the file only, not whether a machine meets its needs"),
        ),
    ),
    Verb(
        "check.base", "the commit that a run would start from", "local", "async",
        "muster.verbs.check:base",
        (pos("repo", "the repository"), opt("base", "a branch or a commit")), hidden=True,
    ),
    Verb(
        "result", "what a settled task yielded", "local", "step", "muster.verbs.tasks:result",
        (_TASK,), hidden=True,
    ),
    Verb(
        "why", "every candidate for a task, and why it won or lost", "local", "step",
        "muster.verbs.tasks:why", (_TASK,),
    ),
    Verb(
        "explain", "the chain of causes of a task", "local", "step",
        "muster.verbs.tasks:explain", (_TASK,), hidden=True,
    ),
    Verb(
        "tasks", "tasks and their states", "local", "step", "muster.verbs.tasks:tasks",
        (
            opt("run", "only of this run"),
            flag("all", "settled ones, too"),
            opt("at", "as this machine knew them then: 10m (ago), or 2026-11-20T23:00"),
            _LIMIT,
        ),
    ),
    Verb(
        "runs", "runs, or one run with its graph", "local", "step", "muster.verbs.runs:runs",
        (pos("run", "one run, by the beginning of its id", required=False), _LIMIT),
    ),
    Verb(
        "cancel", "stop a task or a run", "order", "step", "muster.verbs.work:cancel",
        (pos("what", "task or run id"), opt("reason", "why, for the log", empty=True)),
        object="what", target="owner or all",
    ),
    Verb(
        "retry", "try a task now that waits for its next try", "order", "step",
        "muster.verbs.work:retry",
        (_TASK,), object="task", target="owner",
    ),
    Verb(
        "decide", "answer a phase that waits for a person", "order", "step",
        "muster.verbs.work:decide",
        (
            _TASK,
            pos("answer", "yes or no", choices=("yes", "no")),
            opt("note", "what you want to say with it", empty=True),
        ),
        object="task", target="owner",
    ),
    Verb(
        "questions", "permissions that agents of this machine wait for; --on all: of every one",
        "local", "step", "muster.verbs.question:questions",
    ),
    Verb(
        "answer", "allow or deny what an agent waits for", "local", "client",
        "muster.verbs.question:answer",
        (
            _TASK,
            pos("answer", "yes or no", choices=("yes", "no")),
            opt("question", "its number, where the agent asked several"),
        ),
    ),
    Verb(
        "question.answer", "the answer, on the machine where the agent waits", "order", "step",
        "muster.verbs.question:settle",
        (_TASK, pos("answer", "yes or no"), opt("question", "its number")),
        hidden=True, object="task",
    ),
    Verb(
        "logs", "what the agent of a task did, as it happens with --follow", "local", "client",
        "muster.verbs.logs:logs",
        (_TASK, flag("follow", "go on until the attempt ends")), elsewhere=True,
    ),
    Verb(
        "fetch", "bring what a settled task delivered to this machine", "local", "client",
        "muster.verbs.fetch:fetch",
        (
            _TASK,
            pos("path", "only this deliverable", required=False),
            opt("to", "the folder to put it into (default: the current one)"),
            flag("force", "replace what is there"),
        ),
    ),
    Verb(
        "artefacts", "what a settled task delivered", "local", "step",
        "muster.verbs.blob:artefacts", (_TASK,), hidden=True,
    ),
    Verb(
        "blob.bring", "bring a deliverable to this machine", "local", "async",
        "muster.verbs.blob:bring",
        (_TASK, pos("path", "the deliverable")), hidden=True,
    ),
    Verb(
        "blob.serve", "a blob, to a machine that may read an entry that names it", "peer", "stream",
        "muster.verbs.blob:serve", hidden=True,
    ),
    Verb(
        "journal", "this machine's journal of a task; elsewhere, to whoever was granted it",
        "local", "step", "muster.verbs.journal:journal",
        (_TASK, flag("follow", "go on until the attempt ends")), hidden=True, object="task",
    ),
    Verb(
        "journal.where", "the machines whose journals tell of a task", "local", "step",
        "muster.verbs.journal:where", (_TASK,), hidden=True,
    ),
    Verb(
        "watch", "changes of a run as they happen", "local", "step", "muster.verbs.runs:watch",
        (pos("run", "run id"),), hidden=True,
    ),
    Verb(
        "beat", "a worker's heartbeat to an owner", "peer", "step", "muster.verbs.lease:beat",
        hidden=True,
    ),
    Verb(
        "hold", "an owner's answer to a heartbeat", "peer", "step", "muster.verbs.lease:hold",
        hidden=True,
    ),
    Verb(
        "release", "an owner ends an attempt", "peer", "step", "muster.verbs.lease:release",
        hidden=True,
    ),
)  # fmt: skip
