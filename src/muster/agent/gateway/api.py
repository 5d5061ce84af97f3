"""What is known of a model's API: which calls pass, where the key goes, where usage stands.

Rule 1: an API is one file beside this one, and its row in apis.py.
Rule 2: what is not named does not pass: no path, no parameter of an address, no header.
Rule 3: what others wrote is read as data, by what is known of it; the rest goes through unread.
"""

import re
from typing import Any, Final, NamedTuple, Protocol

import msgspec

from muster.agent.gateway.names import NAMES_MAX, too_many
from muster.agent.gateway.usage import Usage
from muster.errors import Malformed

Body = dict[str, msgspec.Raw]
"""A request: its top level, each value as it was written."""

# Of every API: what a client says of itself and of what it wants.
HEADERS: Final = ("accept", "accept-language", "content-type", "user-agent", "x-stainless-")


# A value that is read here is a number or a name; of Google also a schema of what is answered.
_VALUE_BYTES_MAX: Final = 256 * 1024


class Route(NamedTuple):
    """A kind of call that passes."""

    method: str
    path: re.Pattern[str]
    counted: bool = False
    """Whether it is paid for: it needs room, and says what it used."""


class Ask(NamedTuple):
    """What a call that is paid for asks."""

    model: str
    output_max: int = 0
    """Tokens; 0 where it does not say."""
    output_min: int = 1
    """Less is of no use to it."""


class Answer:
    """What the answer of a call has said of itself so far."""

    def __init__(self) -> None:
        self.model = ""
        self.id = ""
        self.usage = Usage()
        self.final = False
        """Whether that is all that was used."""


class Api(Protocol):
    """One API."""

    name: str
    base: str
    """What its clients' base URL ends in, by custom."""
    key: str
    """The header of the key; with `authorization` it stands behind `Bearer`."""
    headers: tuple[str, ...]
    """What passes beside HEADERS: whole names, or beginnings that end in a dash."""
    parameters: frozenset[str]
    """What passes of an address's query."""
    routes: tuple[Route, ...]
    """Below the base."""

    def ask(self, path: str, body: Body) -> Ask:
        """What a call asks. Raises: Refused with a sentence where it may not."""
        ...

    def limit(self, path: str, body: Body, output_max: int) -> None:
        """Change a request so that its usage is told, and its output is no more than this.

        0 leaves the output to it.
        """
        ...

    def hear(self, answer: Answer, said: Any) -> None:
        """Note what an event, or a whole answer, says of usage."""
        ...

    def refusal(self, status: int, sentence: str) -> dict[str, Any]:
        """An error as this API writes it."""
        ...


def route_of(api: Api, method: str, path: str) -> Route | None:
    """The kind of call that this is; None where it does not pass."""
    return next((r for r in api.routes if r.method == method and r.path.fullmatch(path)), None)


def passes(api: Api, header: str) -> bool:
    """Whether a header of a client goes on to the model."""
    return any(
        header.startswith(each) if each.endswith("-") else header == each
        for each in (*HEADERS, *api.headers)
    )


def read_body(raw: bytes | bytearray) -> Body:
    """The top level of a request. Raises: Malformed where it is no object of JSON, or too wide.

    Not in a thread: msgspec keeps the interpreter's lock, so everybody would wait as long.
    """
    if too_many(raw):
        raise Malformed(f"the request has more than {NAMES_MAX} names at its top level")
    try:
        return msgspec.json.decode(raw, type=Body)
    except (msgspec.MsgspecError, RecursionError, ValueError) as error:
        raise Malformed("the request is no object of JSON, or is nested too deep") from error


def value_of(body: Body, name: str) -> Any:
    """A value of a request; None where there is none, or it cannot be read.

    Raises: Malformed where it is longer than any, for what is decoded takes ten times its length.
    """
    raw = body.get(name)
    if raw is not None and memoryview(raw).nbytes > _VALUE_BYTES_MAX:
        raise Malformed(f"the {name} of the request is longer than {_VALUE_BYTES_MAX} bytes")
    try:
        return None if raw is None else msgspec.json.decode(raw)
    except (msgspec.MsgspecError, RecursionError, ValueError):
        return None


def put(body: Body, name: str, value: Any) -> None:
    body[name] = msgspec.Raw(msgspec.json.encode(value))


def text_of(body: Body, name: str) -> str:
    """A short text of a request. Raises: Malformed where it is none."""
    found = value_of(body, name)
    if not isinstance(found, str) or not found or len(found) > 200 or not found.isprintable():
        raise Malformed(f"the request says no {name}")
    return found
