"""The table of verbs: the one place that says what can be asked of Muster, and by whom.

Rule 1: a verb that is not in this table cannot be called; nothing is looked up by reflection.
Rule 2: `need` is the authority a call must bring; there is no default but refusal:

    nothing   anybody, also a peer that proved nothing; enrolment only
    peer      a machine of the fleet, over its own link
    local     a program of the same user on the same machine; reads only
    order     a statement signed by an operator whose grants allow the verb
    agent     as `order`, or the capability of a running task that names the verb

Rule 3: `handler` is `module:function`, loaded on use; reading the table imports nothing heavy.
`place` is `daemon` (one step of its core), `loop` (the daemon, but waiting for input or output)
or `client` (inside the command itself).
"""

from collections.abc import Callable
from dataclasses import dataclass
from importlib import import_module
from typing import Any, Final, Literal

Need = Literal["nothing", "peer", "local", "order", "agent"]
Place = Literal["daemon", "loop", "client"]
Kind = Literal["text", "int", "flag", "file", "words"]


@dataclass(frozen=True, slots=True)
class Arg:
    """One argument: `position` makes it positional, `many` takes the rest of the line."""

    name: str
    help: str
    kind: Kind = "text"
    position: bool = False
    required: bool = False
    many: bool = False
    default: str | int | bool | None = None
    choices: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Verb:
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

    def load(self) -> Callable[..., Any]:
        """The function that answers the verb."""
        module, _, name = self.handler.partition(":")
        found: Callable[..., Any] = getattr(import_module(module), name)
        return found


def _pos(name: str, help: str, *, required: bool = True, many: bool = False) -> Arg:
    return Arg(name, help, position=True, required=required, many=many, kind="words" if many else "text")


def _flag(name: str, help: str) -> Arg:
    return Arg(name, help, kind="flag", default=False)


_FLEET: Final = (
    Verb("init", "start a fleet on this machine", "local", "client", "muster.verbs.setup:init", (
        Arg("name", "this machine's name (default: its host name)"),
        Arg("operator", "your name, as it will stand in the log (default: your login)"),
        Arg("listen", "host:port where other machines may dial", default="0.0.0.0:7447"),
        Arg("label", "a label for `needs: label`; give it several times", kind="words"),
    )),
    Verb("invite", "print one string that lets one machine join", "order", "daemon",
         "muster.verbs.fleet:invite", (
        _pos("name", "the name the machine will have"),
        Arg("address", "host:port under which it reaches this machine (default: as configured)"),
        Arg("hours", "how long the invitation counts", kind="int", default=24),
        Arg("roles", "workstation, mobile, edge or hub", default="workstation"),
    ), object="name"),
    Verb("join", "make this machine a member, with the string that `invite` printed", "local", "client",
         "muster.verbs.setup:join", (
        _pos("invitation", "muster1.…"),
        Arg("listen", "host:port where other machines may dial; empty: this one only dials", default=""),
        Arg("label", "a label for `needs: label`; give it several times", kind="words"),
        _flag("operator", "also ask for a copy of nothing: print how to give this machine orders"),
    )),
    Verb("enrol", "take a joining machine in", "nothing", "daemon", "muster.verbs.fleet:enrol", hidden=True),
    Verb("renew", "issue fresh papers for a member", "peer", "daemon", "muster.verbs.fleet:renew", hidden=True),
    Verb("revoke", "shut a machine out everywhere, at once and for good", "order", "daemon",
         "muster.verbs.fleet:revoke", (
        _pos("name", "the machine"), Arg("reason", "why, for the log", default=""),
    ), object="name"),
    Verb("grant", "allow a machine, an agent or a person one verb", "order", "daemon",
         "muster.verbs.fleet:grant", (
        _pos("to", "operator key, agent@machine or machine name"), _pos("verb", "the verb, or *"),
        Arg("object", "what it may be used on", default="*"),
        Arg("days", "how long", kind="int", default=30), _flag("take", "take the grant back instead"),
    ), object="verb"),
    Verb("up", "run this machine's daemon", "local", "client", "muster.verbs.setup:up", (
        _flag("detach", "return once it answers; it goes on in the background"),
    )),
    Verb("down", "stop this machine's daemon", "local", "client", "muster.verbs.setup:down"),
    Verb("stop", "end the daemon after its current step", "local", "loop", "muster.verbs.fleet:stop", hidden=True),
    Verb("status", "what this machine is doing, in one screen", "local", "daemon", "muster.verbs.fleet:status"),
    Verb("machines", "every machine of the fleet, and how it is", "local", "daemon", "muster.verbs.fleet:machines"),
    Verb("doctor", "check this machine and say how to mend what is wrong", "local", "client",
         "muster.verbs.setup:doctor"),
    Verb("facts", "what this machine says about itself", "local", "daemon", "muster.verbs.fleet:facts", hidden=True),
    Verb("target", "the machine that should own new work", "local", "daemon", "muster.verbs.fleet:target", hidden=True),
)

_WORK: Final = (
    Verb("run", "hand in a spec and follow it to its end", "order", "daemon", "muster.verbs.work:run", (
        Arg("spec", "the spec file", kind="file", position=True, required=True),
        Arg("repo", "take this repository instead of the one the spec names", default=""),
        Arg("key", "an idempotency key: the same key is the same run", default=""),
        _flag("again", "run although the same spec is still running"),
        _flag("detach", "print the run's id and return"),
    ), object="statement"),
    Verb("submit", "hand in single tasks, each with its own statement", "local", "daemon",
         "muster.verbs.work:submit", hidden=True),
    Verb("ask", "let an agent turn an intention into a spec, and run it", "local", "client", "muster.verbs.plan:ask", (
        _pos("intention", "what you want, in your words", many=True),
        Arg("repo", "the repository it is about", default=""),
        Arg("agent", "the planning agent (default: the first one this machine has)", default=""),
        _flag("yes", "run the plan without asking"),
    )),
    Verb("check", "say what is wrong with a spec, with line and column", "local", "daemon", "muster.verbs.work:check", (
        Arg("spec", "the spec file", kind="file", position=True, required=True),
        _flag("alone", "check the file only, not whether a machine meets its needs"),
    )),
    Verb("why", "every candidate for a task, and why it won or lost", "local", "daemon", "muster.verbs.work:why",
         (_pos("task", "task id (its beginning is enough)"),)),
    Verb("tasks", "tasks and their states", "local", "daemon", "muster.verbs.work:tasks", (
        Arg("run", "only of this run", default=""), _flag("all", "settled ones, too"),
    )),
    Verb("runs", "runs and their graphs", "local", "daemon", "muster.verbs.work:runs", (
        _pos("run", "one run, by the beginning of its id", required=False),
    )),
    Verb("cancel", "stop a task or a run", "order", "daemon", "muster.verbs.work:cancel", (
        _pos("what", "task or run id"), Arg("reason", "why, for the log", default=""),
    ), object="what"),
    Verb("retry", "try a failed task again", "order", "daemon", "muster.verbs.work:retry",
         (_pos("task", "task id"),), object="task"),
    Verb("decide", "answer a phase that waits for a person", "order", "daemon", "muster.verbs.work:decide", (
        _pos("task", "task id"), Arg("answer", "yes or no", position=True, required=True, choices=("yes", "no")),
        Arg("note", "what you want to say with it", default=""),
    ), object="task"),
    Verb("logs", "what the agent of a task did, as it happens with -f", "local", "loop", "muster.verbs.journal:logs", (
        _pos("task", "task id"), _flag("follow", "go on until the task settles"),
    )),
    Verb("journal", "this machine's journal of a task, to whoever was granted it", "order", "daemon",
         "muster.verbs.journal:journal", hidden=True, object="task"),
    Verb("watch", "changes of a run as they happen", "local", "daemon", "muster.verbs.work:watch", (
        _pos("run", "run id"),), hidden=True),
    Verb("beat", "a worker's heartbeat to an owner", "peer", "daemon", "muster.verbs.lease:beat", hidden=True),
    Verb("hold", "an owner's answer to a heartbeat", "peer", "daemon", "muster.verbs.lease:hold", hidden=True),
    Verb("release", "an owner ends an attempt", "peer", "daemon", "muster.verbs.lease:release", hidden=True),
)

_MESSAGES: Final = (
    Verb("send", "send a message to a machine, an agent, a role, a thread or all", "agent", "daemon",
         "muster.verbs.mail:send", (
        _pos("to", "machine, agent@machine, role:NAME, thread:NAME or all"),
        _pos("text", "what to say", many=True),
        Arg("key", "an idempotency key", default=""),
        _flag("wait", "return only when it is stored at the other end"),
    ), object="to"),
    Verb("inbox", "messages for this machine or one of its agents", "local", "daemon", "muster.verbs.mail:inbox", (
        Arg("agent", "only for this agent", default=""), _flag("all", "read ones, too"),
        _flag("mark", "mark what is shown as read"),
    )),
    Verb("sent", "messages sent from here, and how far each came", "local", "daemon", "muster.verbs.mail:sent"),
    Verb("reply", "answer a message", "agent", "daemon", "muster.verbs.mail:reply", (
        _pos("message", "message id (its beginning is enough)"), _pos("text", "what to say", many=True),
    ), object="message"),
    Verb("ack", "say that you acted on a message", "agent", "daemon", "muster.verbs.mail:ack", (
        _pos("message", "message id"), Arg("note", "what came of it", default=""),
    ), object="message"),
    Verb("thread", "open a group thread, list its messages, change its members", "agent", "daemon",
         "muster.verbs.mail:thread", (
        _pos("name", "the thread"), Arg("add", "add this machine", kind="words"),
        Arg("remove", "remove this machine", kind="words"), _flag("fresh", "new members get nothing old"),
    ), object="name"),
)

_TRUTH: Final = (
    Verb("audit", "verify, explain or export what happened", "local", "client", "muster.verbs.audit:audit", (
        Arg("action", "verify | explain TASK | export FOLDER", position=True, required=True,
            choices=("verify", "explain", "export")),
        _pos("what", "a task id, or a folder", required=False),
        Arg("file", "verify this copy of a log instead of our own", default=""),
    )),
    Verb("explain", "the chain of causes of a task", "local", "daemon", "muster.verbs.work:explain",
         (_pos("task", "task id"),), hidden=True),
    Verb("rebuild", "fold every table anew from the log", "local", "client", "muster.verbs.audit:rebuild"),
    Verb("incidents", "what a person must see", "local", "daemon", "muster.verbs.fleet:incidents"),
    Verb("repo", "add or list the fleet's repositories", "order", "loop", "muster.verbs.repo:repo", (
        Arg("action", "add or list", position=True, required=True, choices=("add", "list")),
        _pos("name", "its name in the fleet", required=False),
        _pos("path", "a folder or an address to take it from", required=False),
    ), object="name"),
    Verb("git.connect", "a tunnel for git", "local", "loop", "muster.verbs.repo:connect", hidden=True),
    Verb("git.serve", "a repository of ours, to a machine", "peer", "loop", "muster.verbs.repo:serve", hidden=True),
    Verb("fence.ask", "may this machine push this?", "local", "daemon", "muster.verbs.repo:ask", hidden=True),
    Verb("version", "the version", "local", "client", "muster.verbs.setup:version"),
    Verb("completion", "shell completion", "local", "client", "muster.verbs.setup:completion", (
        Arg("shell", "bash, zsh or fish", position=True, required=True, choices=("bash", "zsh", "fish")),
    )),
)

VERBS: Final[dict[str, Verb]] = {v.name: v for v in (*_FLEET, *_WORK, *_MESSAGES, *_TRUTH)}
