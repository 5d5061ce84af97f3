"""Verbs about messages; the rules are those of `table.py`."""

from typing import Final

from muster.verbs.verb import Arg, Verb, flag, opt, pos, words

_LIMIT: Final = Arg("limit", "show so many at most, up to 1000", kind="int")
_MESSAGE: Final = pos("message", "message id (its beginning is enough)")

MESSAGES: Final = (
    Verb(
        "send", "send a message to a machine, an agent, a role, a thread or all", "agent",
        "daemon", "muster.verbs.mail:send",
        (
            pos("to", "machine, agent@machine, role:NAME, thread:NAME or all"),
            pos("text", "what to say", kind="words"),
            opt("key", "an idempotency key"),
            flag("wait", "return only when it is stored at the other end"),
            opt("timeout", "with --wait, give up waiting after this time: 30s, 5m, 2h", bare=True),
        ),
        object="to",
    ),
    Verb(
        "inbox", "unread messages for this machine or one of its agents, the oldest first",
        "local", "daemon", "muster.verbs.inbox:inbox",
        (
            opt("agent", "only for this agent"),
            flag("all", "read ones, too: the newest 500"),
            opt("before", "with --all, only what is older than this message"),
            flag("mark", "mark what is shown as read"),
            _LIMIT,
        ),
    ),
    Verb(
        "sent", "messages sent from here, and how far each came", "local", "daemon",
        "muster.verbs.inbox:sent", (_LIMIT,),
    ),
    Verb(
        "reply", "answer a message", "agent", "daemon", "muster.verbs.mail:reply",
        (_MESSAGE, pos("text", "what to say", kind="words")), object="message",
    ),
    Verb(
        "ack", "say that you acted on a message", "agent", "daemon", "muster.verbs.mail:ack",
        (_MESSAGE, opt("note", "what came of it", empty=True)), object="message",
    ),
    Verb(
        "threads", "the threads this machine belongs to, and what was said", "local", "daemon",
        "muster.verbs.inbox:threads", (pos("name", "one thread", required=False), _LIMIT),
    ),
    Verb(
        "thread", "open a group thread, or change its members", "agent",
        "daemon", "muster.verbs.mail:thread",
        (
            pos("name", "the thread"),
            words("add", "add this machine; give it several times"),
            words("remove", "remove this machine; give it several times"),
            flag("fresh", "new members get nothing old"),
        ),
        object="name",
    ),
)  # fmt: skip
