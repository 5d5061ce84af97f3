"""Whether a person said it: an operator's statement over exactly this version.

Rule: as of messages (message/ordered.py), what convinces is the statement that the entry cites, and
what does not follow from it was not said by a person.

What is signed are the arguments as they were typed: a text is one word or several, and a version
may be named by the beginning of its id. An order to forget names its target; what the erasure
restates of that is a person's word only where the order names its hash as well.
"""

from collections.abc import Callable
from hashlib import sha256
from typing import Any, Final

from muster.fleet.statement import SALT, Statement, args_hash, veiled
from muster.log import canon
from muster.log.stream import FLEET, JOURNAL, Scope, group_name, group_owner
from muster.memory.kinds import PINNED, MemoryErase, MemoryPut, MemoryRefute

# The name of a machine, whether it lives or was revoked.
Names = Callable[[str], str]
_ID_DIGITS: Final = 64
# Fewer name nothing for sure.
ID_DIGITS_MIN: Final = 6


def is_ordered(
    body: MemoryPut | MemoryRefute | MemoryErase,
    scope: Scope,
    statement: Statement,
    name_of: Names,
) -> bool:
    """Whether this statement is the order to write down exactly this, here."""
    if isinstance(body, MemoryPut):
        return statement.verb == "remember" and _is_put(body, scope, statement, name_of)
    if isinstance(body, MemoryRefute):
        named = {"version": statement.object}
        # The one that was named: a machine may not lend the person's word against others.
        fits = statement.verb == "refute" and not body.about and len(body.over) == 1
        fits = fits and body.over[0].startswith(statement.object)
        return fits and any(
            statement.args == args_hash({**named, "reason": reason})
            for reason in _typed(body.reason)
        )
    if statement.verb != "forget" or not body.target.startswith(statement.object):
        return False
    return statement.args == args_hash(_forgets(body, statement)) or binds(body, statement)


def binds(body: MemoryErase, statement: Statement) -> bool:
    """Whether an order to forget is about all that its erasure restates, not its target alone."""
    if statement.verb != "forget" or not body.target.startswith(statement.object):
        return False
    return statement.args == args_hash({**_forgets(body, statement), "restates": restated(body)})


def restated(body: MemoryErase) -> str:
    """The hash of what an erasure says of its target, as an order names it."""
    said = (body.target, body.state, body.rank, body.key, sorted(set(body.over)), body.print)
    return sha256(canon.encode(said)).hexdigest()


def _forgets(body: MemoryErase, statement: Statement) -> dict[str, Any]:
    reason = {"reason": body.reason} if body.reason else {}
    return {"version": statement.object, **reason}


def _is_put(body: MemoryPut, scope: Scope, statement: Statement, name_of: Names) -> bool:
    object = veiled(body.key, body.salt) if body.salt else body.key
    if statement.object != object or body.origin or (body.salt and scope != JOURNAL):
        return False
    tags = [tag for tag in body.tags if tag != PINNED]
    known: dict[str, Any] = {"key": body.key}
    known |= {"tag": tags} if tags else {}
    known |= {"pin": True} if PINNED in body.tags else {}
    known |= {"about": body.about} if body.about else {}
    known |= {SALT: body.salt} if body.salt else {}
    lengths = range(ID_DIGITS_MIN, _ID_DIGITS + 1) if body.over else (0,)
    before = [
        canon.encode({**known, **where, **over})
        for where in _places(scope, name_of)
        for over in (
            {"over": [each[:length] for each in body.over]} if length else {} for length in lengths
        )
    ]
    # The text comes last in the canonical form, and is long: it is written once for all of them.
    return any(
        statement.args == sha256(b'%b,"text":%b}' % (each[:-1], text)).hexdigest()
        for text in map(canon.encode, _typed(body.text))
        for each in before
    )


def _typed(text: str) -> list[Any]:
    """The ways in which a text can have been typed."""
    return [text, [text], *([text.split(" ")] if " " in text else [])]


def _places(scope: Scope, name_of: Names) -> list[dict[str, str]]:
    """The ways in which a scope can have been typed."""
    if scope == FLEET:
        return [{}, {"scope": "fleet"}]
    if scope == JOURNAL:
        return [{"scope": "private"}]
    name, keeper = group_name(scope), name_of(str(group_owner(scope)))
    return [{"scope": f"thread:{name}"}, {"scope": f"thread:{name}@{keeper}"}]
