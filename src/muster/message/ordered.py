"""Whether a person said it: an operator's statement over exactly this message.

Rule 1: the actor in an entry is its writer's word, and a machine must not be believed about anybody
but itself. What convinces is the statement that the message cites: it was signed over the text and
over whom it is for.
Rule 2: what does not follow from the statement was not said by a person; in doubt it was not.

What is signed are the arguments as they were typed: `to` or `message` stands in the statement as
its object, the text is one word or several, and a key or the wish to wait may be among them, and
what the terms right behind the message say.
"""

from collections.abc import Callable
from itertools import product
from typing import Any

from muster.fleet.statement import Statement, args_hash
from muster.log.stream import Scope, group_name
from muster.message.kinds import EVERYONE, MessageSend, MessageTerms

# The name of a machine, whether it lives or was revoked.
Names = Callable[[str], str]


def is_ordered(
    body: MessageSend,
    scope: Scope,
    statement: Statement,
    name_of: Names,
    terms: MessageTerms | None = None,
) -> bool:
    """Whether this statement is the order to say exactly this, here, under these terms."""
    if statement.verb == "send":
        address, _, session = statement.object.partition("#")
        fits = not body.reply_to and session == (terms.to_session if terms is not None else "")
        fits = fits and _is_for(address, body.to, scope, name_of)
    elif statement.verb == "reply":
        fits = bool(body.reply_to) and body.reply_to.startswith(statement.object)
    else:
        return False
    # The arguments that make this message, in every way in which they can be typed.
    named = {"to" if statement.verb == "send" else "message": statement.object}
    forms: list[Any] = [body.text, [body.text], body.text.split(" ")]
    keys: tuple[dict[str, Any], ...] = ({"key": body.key},) if body.key else ({}, {"key": ""})
    waits: tuple[dict[str, Any], ...] = ({}, {"wait": True}, {"wait": False})
    typed = _typed(terms) if terms is not None else {}
    return fits and any(
        statement.args == args_hash({**named, "text": text, **key, **wait, **typed})
        for text, key, wait in product(forms, keys, waits)
    )


def _typed(terms: MessageTerms) -> dict[str, str]:
    """The terms as arguments: what was not typed is not among them."""
    named = {"priority": terms.priority, "expires": terms.expires, "alarm": terms.alarm}
    return {name: text for name, text in named.items() if text}


def _is_for(typed: str, to: list[str], scope: Scope, name_of: Names) -> bool:
    """Whether what was typed means these addresses."""
    if typed.startswith("thread:"):
        wanted = typed.removeprefix("thread:").partition("@")[0]
        return to == [EVERYONE] and group_name(scope) == wanted
    if typed == EVERYONE or typed.startswith("role:"):
        return to == [typed]
    if len(to) != 1:
        return False
    agent, _, name = typed.rpartition("@")
    wanted, _, machine = to[0].rpartition("@")
    return agent == wanted and name in (machine, name_of(machine))
