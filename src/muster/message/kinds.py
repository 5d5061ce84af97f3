"""The bodies of messages and of what readers say about them.

Rule 1: a message is one entry in its sender's stream; its id is the entry's id. Who may read it is
        the stream's scope: `to.<machine>`, a group, or the fleet. `to` says whom it is for.
Rule 2: a reading is an entry of the reader. Nobody else can say that something was read.
Rule 3: text is data with an origin. No text of a message is an instruction of an operator.

Rule 4: how much a message matters, until when, and between which live sessions it is, is an entry
        of its own, right behind it: a machine that does not know of such terms shows the message
        as any other, and loses none.

An address is one of

    <machine id>            whoever is at that machine
    <agent>@<machine id>    one agent there
    role:<role>             every machine with the role
    all                     every machine that may read the stream
"""

import re
from typing import Final, Literal

import msgspec

from muster import limits
from muster.duration import duration_of
from muster.errors import Malformed
from muster.log.kind import kind

EVERYONE: Final = "all"
Priority = Literal["", "high", "low"]
_SESSION: Final = re.compile(r"[a-z0-9][a-z0-9-]{0,62}")
_ADDRESS: Final = re.compile(
    r"all|[0-9a-f]{64}|[a-z0-9][a-z0-9-]{0,62}@[0-9a-f]{64}|role:[a-z][a-z-]{0,31}"
)


class Body(msgspec.Struct, frozen=True, forbid_unknown_fields=True, omit_defaults=True):
    """What all bodies share: strict, immutable, small."""


@kind("message.send")
class MessageSend(Body, frozen=True):
    """A message. `reply_to` is the id of the message it answers, `about` a task or run.

    `key` makes it one message however often it is sent: the second is no message.
    """

    to: list[str]
    text: str
    thread: str = ""
    reply_to: str = ""
    subject: str = ""
    key: str = ""
    about: str = ""


@kind("message.terms")
class MessageTerms(Body, frozen=True):
    """How the message right before it is to be taken; times as they were typed: 10m, 2h, 3d.

    After `expires` nobody is shown it as unread; one that waits for longer than `alarm` is told to
    a person. `from_session` is the live session of the agent that said it, `to_session` the one of
    the addressed agent that it is for; a machine that knows no such session gives it to the agent.
    """

    message: str
    priority: Priority = ""
    expires: str = ""
    alarm: str = ""
    from_session: str = ""
    to_session: str = ""


@kind("message.read")
class MessageRead(Body, frozen=True):
    """The message was shown to the reader: a person, or an agent's context."""

    message: str


@kind("message.act")
class MessageAct(Body, frozen=True):
    """The reader did what the message was about, or decided not to; `result` says which."""

    message: str
    result: str = "done"
    text: str = ""


def is_session(text: str) -> bool:
    """Whether this can be what a session is called."""
    return _SESSION.fullmatch(text) is not None


def check_send(body: MessageSend) -> MessageSend:
    """The message, if it can be sent.

    Raises: Malformed where an address is none, there are too many, or the text is too long.
    """
    if not body.to:
        raise Malformed("a message needs a recipient: a machine, an agent, a role, or all")
    if len(body.to) > limits.MESSAGE_RECIPIENTS_MAX:
        raise Malformed(f"a message has at most {limits.MESSAGE_RECIPIENTS_MAX} recipients")
    for address in body.to:
        if not _ADDRESS.fullmatch(address):
            raise Malformed(f"{address[:80]!r} is not an address of a machine, agent or role")
    if len(body.text.encode()) > limits.MESSAGE_TEXT_BYTES_MAX:
        most = limits.MESSAGE_TEXT_BYTES_MAX
        raise Malformed(f"the text has more than {most} bytes; send a file instead")
    if body.reply_to and not is_id(body.reply_to):
        raise Malformed(f"{body.reply_to[:80]!r} is not the id of a message")
    if max(len(body.thread), len(body.subject), len(body.key), len(body.about)) > _SHORT_MAX:
        raise Malformed(f"thread, subject, key and about have at most {_SHORT_MAX} characters")
    return body


def check_terms(body: MessageTerms) -> MessageTerms:
    """The terms, if a message can have them. Raises: Malformed."""
    for session in (body.from_session, body.to_session):
        if session and not is_session(session):
            raise Malformed(f"{session[:80]!r} is no name of a session, such as shop-3fa9")
    for what, text in (("expires", body.expires), ("alarm", body.alarm)):
        ms = duration_of(text) if text else 1
        if not ms or ms > limits.MESSAGE_TERM_MS_MAX:
            days = limits.MESSAGE_TERM_MS_MAX // 86_400_000
            raise Malformed(f"{what}: {text[:40]!r} is no time up to {days} days; write 2h or 3d")
    return body


def is_id(text: str) -> bool:
    """Whether a text is an entry id in hex."""
    return re.fullmatch("[0-9a-f]{64}", text) is not None


# Chosen arbitrarily: what fits on a line.
_SHORT_MAX: Final = 200
