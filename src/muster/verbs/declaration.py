"""How a verb is declared: beside its handler, by what its handler takes and answers.

    class Send(Request):
        to: Annotated[str, pos("machine, agent@machine, role:NAME, thread:NAME or all")]
        wait: Annotated[bool, opt("return only when it is stored at the other end")] = False

    @verb("send", auth="agent", object="to", group="Messages")
    def send(core: Core, call: "Call", ask: Send) -> Sent:
        # Its docstring:
        # Send a message to a machine, an agent, a role, a thread or all.
        #
        #     muster send build 'the tests moved to tests/' --wait

Rule 1: nothing can be asked of Muster that is not declared so, and nothing is declared without
saying by what authority it may be asked.
Rule 2: what a handler is given is its Request, whole: of the declared types and bounds, with
nothing else in it. A field without a sentence (`data`) is for programs only.
Rule 3: the type of the last parameter is the Request, the type that is returned the answer; a
module of verbs names the core in annotations only: what it imports from here loads no daemon. The
first sentence of its docstring is the verb's on the help page, lines of `muster …` are examples.

`make table` writes what is declared into `table.json`, which the command line and the router read.
"""

from collections.abc import Callable
from typing import TYPE_CHECKING, Annotated, Any, NamedTuple, TypeVar

import msgspec

from muster.limits import ARGUMENT_WORDS_MAX
from muster.node.verb import Auth

if TYPE_CHECKING:
    from muster.node.call.answers import Call
    from muster.node.call.streams import Served as Stream
    from muster.node.core import Core
    from muster.node.daemon import Daemon
    from muster.node.event import Perform
    from muster.verbs.client import Context
else:
    Call = Core = Daemon = Context = Perform = Stream = Any

__all__ = [
    "Call", "Context", "Core", "Daemon", "Declared", "Nothing", "Perform", "Request", "Stream",
    "Words", "data", "declared", "opt", "pos", "verb",
]  # fmt: skip

H = TypeVar("H", bound=Callable[..., Any])

Words = Annotated[tuple[str, ...], msgspec.Meta(max_length=ARGUMENT_WORDS_MAX)]
"""Something that may be given several times, or is several words; a text alone is one of them."""


class Declared(NamedTuple):
    """A handler and what was said of it: fields of its `Verb`."""

    handler: Callable[..., Any]
    fields: dict[str, Any]


declared: dict[str, Declared] = {}


class Request(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What is asked of a verb."""


class Nothing(Request, frozen=True):
    """The Request of a verb that takes no arguments."""


def pos(help: str, **more: Any) -> msgspec.Meta:
    """A word at its place; `more` are fields of an `Arg`, or bounds of its value."""
    return _meta(help, {"position": True, **more})


def opt(help: str, **more: Any) -> msgspec.Meta:
    """A word behind its name, or a flag, where it is a bool."""
    return _meta(help, more)


def data(*, unsigned: bool = False) -> msgspec.Meta:
    """What a program sends, and nobody types."""
    return _meta("", {"unsigned": unsigned})


def _meta(help: str, more: dict[str, Any]) -> msgspec.Meta:
    bounds = {name: more.pop(name) for name in ("ge", "le", "max_length") if name in more}
    return msgspec.Meta(description=help or None, extra=more, **bounds)


class Bound(Request, frozen=True, kw_only=True):
    """What is ordered of one machine by another, with a stream between those two alone.

    `asker` is that other one's id: the router compares it with whose link it is. `pad` is random.
    """

    asker: Annotated[str, msgspec.Meta(max_length=64), data()] = ""
    pad: Annotated[str, msgspec.Meta(max_length=64), data()] = ""


def verb(name: str, *, auth: Auth, **more: Any) -> Callable[[H], H]:
    """Declare the decorated function as the handler of a verb; `more` are fields of a `Verb`."""

    def declare(handler: H) -> H:
        if name in declared:
            raise ValueError(f"the verb {name} is declared twice")
        declared[name] = Declared(handler, {"auth": auth, **more})
        return handler

    return declare
