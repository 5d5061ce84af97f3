"""The table of verbs: the one place that says what can be asked of Muster, and by whom.

Rule 1: a verb that is not in this table cannot be called; nothing is looked up by reflection.
Rule 2: `need` is the authority a call must bring; there is no default but refusal:

    nothing   anybody, also a peer that proved nothing; enrolment only
    peer      a machine of the fleet, over its own link
    local     a program of the same user on the same machine; from elsewhere as `order`
    order     a statement signed by an operator whose grants allow the verb
    agent     as `order`, or the capability of a running task that names the verb

Rule 3: `handler` is `module:function`, loaded on use; reading the table imports nothing heavy,
because every command reads it before it does anything (no dataclasses: they import `inspect`).

`place` is `daemon` (one step of its core), `loop` (the daemon, but waiting for input or output)
or `client` (inside the command itself). `acts` is the machine that an order without `--on` is
for: the one it is typed on, the hub, or the owner of the task or run that it names.
"""

from collections.abc import Callable
from importlib import import_module
from typing import Any, Final, Literal, NamedTuple

Need = Literal["nothing", "peer", "local", "order", "agent"]
Place = Literal["daemon", "loop", "client"]
Kind = Literal["text", "int", "flag", "file", "words"]
Acts = Literal["here", "hub", "owner"]


class Arg(NamedTuple):
    """One argument: `position` makes it positional; `words` takes several.

    `bare` arguments go into the options of a call, which say how and never what: they are not
    signed.
    """

    name: str
    help: str
    kind: Kind = "text"
    position: bool = False
    required: bool = False
    default: str | int | bool | None = None
    choices: tuple[str, ...] = ()
    bare: bool = False


class Verb(NamedTuple):
    """One action. `hidden` verbs are for machines and programs, not for the help page."""

    name: str
    summary: str
    need: Need
    place: Place
    handler: str
    args: tuple[Arg, ...] = ()
    hidden: bool = False
    # Which argument a grant may name; "statement" where the handler checks the statement's own.
    object: str = ""
    acts: Acts = "here"

    def load(self) -> Callable[..., Any]:
        """The function that answers the verb."""
        module, _, name = self.handler.partition(":")
        found: Callable[..., Any] = getattr(import_module(module), name)
        return found


def _pos(name: str, help: str, **more: Any) -> Arg:
    return Arg(name, help, position=True, **{"required": True, **more})


def _flag(name: str, help: str, *, bare: bool = False) -> Arg:
    return Arg(name, help, kind="flag", default=False, bare=bare)


def _opt(name: str, help: str, default: str | int = "", **more: Any) -> Arg:
    kind: Kind = "int" if isinstance(default, int) else "text"
    return Arg(name, help, **{"kind": kind, "default": default, **more})


def _words(name: str, help: str) -> Arg:
    return Arg(name, help, kind="words", default="")


_LABEL: Final = _words("label", "a label for `needs: label`; give it several times")
_LISTEN: Final = "host:port where this machine listens for others"
_ADDRESS: Final = "host:port under which others reach it (default: from --listen)"

_FLEET: Final = (
    Verb(
        "init", "start a fleet on this machine", "local", "client", "muster.verbs.setup:init",
        (
            _opt("name", "this machine's name (default: its host name)"),
            _opt("operator", "your name, as it will stand in the log (default: your login)"),
            _opt("listen", _LISTEN, "0.0.0.0:7447"),
            _opt("address", _ADDRESS),
            _LABEL,
        ),
    ),
    Verb(
        "invite", "print one string that lets one machine join", "order", "daemon",
        "muster.verbs.fleet:invite",
        (
            _pos("name", "the name the machine will have"),
            _opt("address", "host:port under which it reaches the hub (default: as configured)"),
            _opt("hours", "how long the invitation counts", 24),
            _opt("roles", "workstation, mobile, edge or hub, several with commas", "workstation"),
        ),
        object="name", acts="hub",
    ),
    Verb(
        "join", "make this machine a member, with the string that `invite` printed", "local",
        "client", "muster.verbs.setup:join",
        (
            _pos("invitation", "muster1.…"),
            _opt("name", "this machine's name (default: the one it was invited under)"),
            _opt("listen", f"{_LISTEN}; empty: it only dials"),
            _opt("address", _ADDRESS),
            _LABEL,
        ),
    ),
    Verb(
        "enrol", "take a joining machine in", "nothing", "daemon", "muster.verbs.fleet:enrol",
        hidden=True,
    ),
    Verb(
        "renew", "issue fresh papers for a member", "peer", "daemon", "muster.verbs.fleet:renew",
        hidden=True,
    ),
    Verb(
        "revoke", "shut a machine or an operator out everywhere, at once and for good", "order",
        "daemon", "muster.verbs.fleet:revoke",
        (_pos("name", "the machine or operator"), _opt("reason", "why, for the log")),
        object="name", acts="hub",
    ),
    Verb(
        "grant", "allow a machine, an agent or a person one verb", "order", "daemon",
        "muster.verbs.fleet:grant",
        (
            _pos("to", "operator key, agent@machine, machine or role"),
            _pos("verb", "the verb, or *"),
            _opt("object", "what it may be used on", "*"),
            _opt("days", "how long", 30),
            _flag("take", "take the grant back instead"),
        ),
        object="verb", acts="hub",
    ),
    Verb(
        "up", "run this machine's daemon", "local", "client", "muster.verbs.service:up",
        (_flag("detach", "return once it answers; it goes on in the background"),),
    ),
    Verb("down", "stop this machine's daemon", "local", "client", "muster.verbs.service:down"),
    Verb(
        "stop", "end the daemon after its current step", "local", "loop",
        "muster.verbs.fleet:stop", hidden=True,
    ),
    Verb(
        "status", "what this machine is doing, in one screen", "local", "daemon",
        "muster.verbs.status:status",
        (_flag("verbose", "also ids and the counters of each part", bare=True),),
    ),
    Verb(
        "machines", "every machine of the fleet, and how it is", "local", "daemon",
        "muster.verbs.fleet:machines",
    ),
    Verb(
        "doctor", "check this machine and say how to mend what is wrong", "local", "client",
        "muster.verbs.doctor:doctor",
    ),
    Verb(
        "facts", "what this machine says about itself", "local", "daemon",
        "muster.verbs.fleet:facts", hidden=True,
    ),
    Verb(
        "target", "the machine that should own new work", "local", "daemon",
        "muster.verbs.fleet:target", hidden=True,
    ),
)  # fmt: skip

_TASK: Final = _pos("task", "task id (its beginning is enough)")

_WORK: Final = (
    Verb(
        "run", "hand in a spec and follow it to its end", "order", "daemon",
        "muster.verbs.work:run",
        (
            _pos("spec", "the spec file, - for standard input", kind="file"),
            _opt("repo", "take this repository instead of the one the spec names"),
            _opt("base", "the commit to start from (default: the newest of the main branch)"),
            _words("value", "NAME=TEXT for the spec's ${inputs.NAME}; give it several times"),
            _opt("key", "an idempotency key: the same key is the same run", bare=True),
            _flag("again", "run although the same spec is still running", bare=True),
            _flag("detach", "print the run's id and return", bare=True),
        ),
        object="statement", acts="hub",
    ),
    Verb(
        "submit", "hand in single tasks, each with its own statement", "local", "daemon",
        "muster.verbs.work:submit", hidden=True,
    ),
    Verb(
        "ask", "let an agent turn an intention into a spec, and run it", "local", "client",
        "muster.verbs.plan:ask",
        (
            _pos("intention", "what you want, in your words", kind="words"),
            _opt("repo", "the repository it is about"),
            _opt("agent", "the planning agent (default: the first that is up)"),
            _flag("yes", "run the plan without asking"),
            _flag("detach", "begin the run and return", bare=True),
        ),
    ),
    Verb(
        "check", "say what is wrong with a spec, with line and column", "local", "daemon",
        "muster.verbs.check:check",
        (
            _pos("spec", "the spec file, - for standard input", kind="file"),
            _flag("alone", "check the file only, not whether a machine meets its needs"),
        ),
    ),
    Verb(
        "result", "what a settled task yielded", "local", "daemon", "muster.verbs.tasks:result",
        (_TASK,), hidden=True,
    ),
    Verb(
        "why", "every candidate for a task, and why it won or lost", "local", "daemon",
        "muster.verbs.tasks:why", (_TASK,),
    ),
    Verb(
        "tasks", "tasks and their states", "local", "daemon", "muster.verbs.tasks:tasks",
        (
            _opt("run", "only of this run"),
            _flag("all", "settled ones, too"),
            _opt("at", "as this machine knew them then: 10m (ago), or 2026-11-20T23:00"),
        ),
    ),
    Verb(
        "runs", "runs, or one run with its graph", "local", "daemon", "muster.verbs.runs:runs",
        (_pos("run", "one run, by the beginning of its id", required=False),),
    ),
    Verb(
        "cancel", "stop a task or a run", "order", "daemon", "muster.verbs.work:cancel",
        (_pos("what", "task or run id"), _opt("reason", "why, for the log")),
        object="what", acts="owner",
    ),
    Verb(
        "retry", "try a task now that waits for its next try", "order", "daemon",
        "muster.verbs.work:retry",
        (_TASK,), object="task", acts="owner",
    ),
    Verb(
        "decide", "answer a phase that waits for a person", "order", "daemon",
        "muster.verbs.work:decide",
        (
            _TASK,
            _pos("answer", "yes or no", choices=("yes", "no")),
            _opt("note", "what you want to say with it"),
        ),
        object="task", acts="owner",
    ),
    Verb(
        "questions", "permissions that agents of this machine wait for; --on all: of every one",
        "local", "daemon", "muster.verbs.question:questions",
    ),
    Verb(
        "answer", "allow or deny what an agent waits for", "local", "client",
        "muster.verbs.question:answer",
        (
            _TASK,
            _pos("answer", "yes or no", choices=("yes", "no")),
            _opt("question", "its number, where the agent asked several"),
        ),
    ),
    Verb(
        "question.answer", "the answer, on the machine where the agent waits", "order", "daemon",
        "muster.verbs.question:settle",
        (_TASK, _pos("answer", "yes or no"), _opt("question", "its number")),
        hidden=True, object="task",
    ),
    Verb(
        "logs", "what the agent of a task did, as it happens with --follow", "local", "client",
        "muster.verbs.logs:logs",
        (_TASK, _flag("follow", "go on until the attempt ends")),
    ),
    Verb(
        "fetch", "bring what a settled task delivered to this machine", "local", "client",
        "muster.verbs.fetch:fetch",
        (
            _TASK,
            _pos("path", "only this deliverable", required=False),
            _opt("to", "the folder to put it into (default: the current one)"),
            _flag("force", "replace what is there"),
        ),
    ),
    Verb(
        "artefacts", "what a settled task delivered", "local", "daemon",
        "muster.verbs.blob:artefacts", (_TASK,), hidden=True,
    ),
    Verb(
        "blob.bring", "bring a deliverable to this machine", "local", "loop",
        "muster.verbs.blob:bring",
        (_TASK, _pos("path", "the deliverable")), hidden=True,
    ),
    Verb(
        "blob.serve", "a blob, to a machine that may read an entry that names it", "peer", "loop",
        "muster.verbs.blob:serve", hidden=True,
    ),
    Verb(
        "journal", "this machine's journal of a task; elsewhere, to whoever was granted it",
        "local", "daemon", "muster.verbs.journal:journal",
        (_TASK, _flag("follow", "go on until the attempt ends")), hidden=True, object="task",
    ),
    Verb(
        "journal.where", "the machines whose journals tell of a task", "local", "daemon",
        "muster.verbs.journal:where", (_TASK,), hidden=True,
    ),
    Verb(
        "watch", "changes of a run as they happen", "local", "daemon", "muster.verbs.runs:watch",
        (_pos("run", "run id"),), hidden=True,
    ),
    Verb(
        "beat", "a worker's heartbeat to an owner", "peer", "daemon", "muster.verbs.lease:beat",
        hidden=True,
    ),
    Verb(
        "hold", "an owner's answer to a heartbeat", "peer", "daemon", "muster.verbs.lease:hold",
        hidden=True,
    ),
    Verb(
        "release", "an owner ends an attempt", "peer", "daemon", "muster.verbs.lease:release",
        hidden=True,
    ),
)  # fmt: skip

_MESSAGE: Final = _pos("message", "message id (its beginning is enough)")

_MESSAGES: Final = (
    Verb(
        "send", "send a message to a machine, an agent, a role, a thread or all", "agent",
        "daemon", "muster.verbs.mail:send",
        (
            _pos("to", "machine, agent@machine, role:NAME, thread:NAME or all"),
            _pos("text", "what to say", kind="words"),
            _opt("key", "an idempotency key"),
            _flag("wait", "return only when it is stored at the other end"),
        ),
        object="to",
    ),
    Verb(
        "inbox", "messages for this machine or one of its agents", "local", "daemon",
        "muster.verbs.mail:inbox",
        (
            _opt("agent", "only for this agent"),
            _flag("all", "read ones, too"),
            _flag("mark", "mark what is shown as read"),
        ),
    ),
    Verb(
        "sent", "messages sent from here, and how far each came", "local", "daemon",
        "muster.verbs.mail:sent",
    ),
    Verb(
        "reply", "answer a message", "agent", "daemon", "muster.verbs.mail:reply",
        (_MESSAGE, _pos("text", "what to say", kind="words")), object="message",
    ),
    Verb(
        "ack", "say that you acted on a message", "agent", "daemon", "muster.verbs.mail:ack",
        (_MESSAGE, _opt("note", "what came of it")), object="message",
    ),
    Verb(
        "threads", "the threads this machine belongs to, and what was said", "local", "daemon",
        "muster.verbs.mail:threads", (_pos("name", "one thread", required=False),),
    ),
    Verb(
        "thread", "open a group thread, or change its members", "agent",
        "daemon", "muster.verbs.mail:thread",
        (
            _pos("name", "the thread"),
            _words("add", "add this machine; give it several times"),
            _words("remove", "remove this machine; give it several times"),
            _flag("fresh", "new members get nothing old"),
        ),
        object="name",
    ),
)  # fmt: skip

_TRUTH: Final = (
    Verb(
        "audit", "verify, explain or export what happened", "local", "client",
        "muster.verbs.audit:audit",
        (
            _pos("action", "verify, explain TASK or export FOLDER",
                 choices=("verify", "explain", "export")),
            _pos("what", "a task id, or a folder", required=False),
            _opt("file", "verify this database or exported folder instead of our own log"),
            _opt("fleet", "the fleet it must be of (default: this machine's)"),
        ),
    ),
    Verb(
        "explain", "the chain of causes of a task", "local", "daemon",
        "muster.verbs.tasks:explain", (_TASK,), hidden=True,
    ),
    Verb(
        "rebuild", "fold every table anew from the log", "local", "client",
        "muster.verbs.audit:rebuild",
    ),
    Verb(
        "incidents", "what a person must see", "local", "daemon", "muster.verbs.fleet:incidents",
    ),
    Verb(
        "repo", "add or list the fleet's repositories", "order", "loop", "muster.verbs.repo:repo",
        (
            _pos("action", "add or list", choices=("add", "list")),
            _pos("name", "its name in the fleet", required=False),
            _pos("path", "a folder or an address to take it from", required=False),
        ),
        object="name", acts="hub",
    ),
    Verb(
        "repo.list", "the fleet's repositories, and where they are kept", "local", "loop",
        "muster.verbs.repo:listing", hidden=True,
    ),
    Verb(
        "git.connect", "a tunnel for git", "local", "loop", "muster.verbs.repo:connect",
        hidden=True,
    ),
    Verb(
        "git.serve", "a repository of ours, to a machine", "peer", "loop",
        "muster.verbs.repo:serve", hidden=True,
    ),
    Verb(
        "git.may-push", "may this machine push this?", "local", "daemon", "muster.verbs.repo:ask",
        hidden=True,
    ),
    Verb(
        "schema", "print the JSON Schema of specs, for editors", "local", "client",
        "muster.verbs.plan:schema",
    ),
    Verb("version", "the version", "local", "client", "muster.verbs.completion:version"),
    Verb(
        "completion", "print a script that completes commands in your shell", "local", "client",
        "muster.verbs.completion:completion",
        (_pos("shell", "bash, zsh or fish", choices=("bash", "zsh", "fish")),),
    ),
)  # fmt: skip

GROUPS: Final[dict[str, tuple[Verb, ...]]] = {
    "The fleet": _FLEET,
    "Work": _WORK,
    "Messages": _MESSAGES,
    "What is true": _TRUTH,
}

VERBS: Final[dict[str, Verb]] = {v.name: v for group in GROUPS.values() for v in group}
