"""Arguments of a call, read once into the Request that its handler takes, before any authority.

Rule 1: a handler never sees an argument of another type or beyond its bounds, never misses one
that is required, and never gets one that it did not declare.
Rule 2: a refusal names the argument and what it takes; it never repeats what was sent.
"""

import re
from collections.abc import Callable, Mapping
from typing import Any, Final

import msgspec

from muster.errors import Denied, Malformed, Unreachable
from muster.limits import ARGUMENT_WORDS_MAX
from muster.node.verb import Arg, Verb

_WANTED: Final = {
    "int": "a whole number",
    "flag": "true or false",
    "words": f"a text or a list of up to {ARGUMENT_WORDS_MAX} texts",
    "texts": "names to texts",
    "data": "as docs/verbs.md says",
}
_NAMED: Final = re.compile(r"required field `([^`]+)`$| - at `\$\.([^`.\[]+)")


def read(
    verb: Verb, handler: Callable[..., Any], args: Mapping[str, Any], options: Mapping[str, Any]
) -> Any:
    """The Request of a handler. Raises: Malformed with the first argument that is of no use."""
    *_, request, _ = handler.__annotations__.values()
    known = {arg.name: arg for arg in (*verb.args, *verb.data)}
    given = {}
    # What was signed is read last: an option beside it, of whoever passed the call on, is nothing.
    for source, unsigned in ((options, True), (args, False)):
        for name, value in source.items():
            # What need not be signed may be: among the arguments it is as good.
            if name in known and (known[name].unsigned or not unsigned):
                alone = isinstance(value, str) and known[name].kind == "words"
                given[name] = ([value] if value else []) if alone else value
            elif request.__struct_config__.forbid_unknown_fields:
                takes = ", ".join(f"`{name}`" for name in known) or "nothing"
                raise Malformed(f"{verb.name} takes {takes}, and was given something else, too")
    try:
        return msgspec.convert(given, request)
    except msgspec.ValidationError as error:
        raise Malformed(_sentence(verb.name, known, str(error))) from None


def _sentence(verb: str, known: Mapping[str, Arg], error: str) -> str:
    """What msgspec found, without what was sent."""
    missing, wrong = found.groups() if (found := _NAMED.search(error)) else (None, None)
    if missing in known:
        return f"{verb} needs `{missing}`; see `muster {verb} --help`"
    arg = known.get(wrong or "")
    if arg is None:
        return f"{verb} needs all of what docs/verbs.md says of it"
    wanted = _WANTED.get(arg.kind, "a text")
    if arg.choices:
        wanted = f"one of {', '.join(arg.choices)}"
    if arg.low is not None and arg.high is not None:
        wanted = f"a whole number from {arg.low} to {arg.high}"
    return f"`{arg.name}` of {verb} must be {wanted}"


def check_ends(verb: Verb, args: Mapping[str, Any], *, here: str, asker: str) -> None:
    """What goes between two machines alone names both: this one, and whose link it came over.

    Raises: Denied.
    """
    if str(args.get(verb.object, "*")).partition(":")[0] != here:
        # A grant for one machine is none for another, whatever the order's target is.
        raise Denied(
            f"{verb.name} names another machine than the one it came to: each order is for the "
            "machine that its object names, by its id"
        )
    if args.get("asker") != asker:
        # Its stream is bound to whoever signed: a machine between could type and say anything.
        raise Denied(
            f"{verb.name} was ordered at another machine than the one whose link this is: what "
            "it says and is told goes over a link between those two alone"
        )


def none_between(name: str, verb: str) -> Unreachable:
    """What is said where the two machines of such a verb have no link that is theirs."""
    return Unreachable(
        f"{name} has no link with the machine that asks, of its own or relayed, and {verb} goes "
        "through no other machine in plain: try again, or say there where it is, `muster reach "
        f"{name} HOST:PORT`"
    )
