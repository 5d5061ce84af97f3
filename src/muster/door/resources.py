"""What agents can read by address, and who is told when it changes.

    muster://machines   muster://inbox   muster://run/{run}   muster://task/{task}
    muster://memory/{+key}     muster://digest     muster://digest/{budget}

Rule 1: a resource is the answer of a verb, read as the session that asks: what it is shown of
memory is written down as read by it.
Rule 2: what this machine takes in (`tail`) says what may have changed, by its kind; who follows a
resource reads it again, and hears of a change at most once for what came together.
Rule 3: the daemon is followed only while somebody follows something here. After a pause in which
the daemon was away everything is said to have changed: nobody knows what was missed.
"""

import asyncio
import json
import re
from collections import Counter
from collections.abc import Awaitable, Callable, Iterable
from typing import Any, Final, NamedTuple

import mcp_types as types
from mcp.shared.exceptions import MCPError

from muster.door.daemon import Daemon
from muster.door.session import Session
from muster.errors import Malformed, MusterError, NotFound, Refused

_JSON: Final = "application/json"
# A daemon that restarts is there again in about this.
_AGAIN_S: Final = 1.0


class Kind(NamedTuple):
    """A sort of resource: its address, the verb and its argument, and the entries that change it,
    by the first word of their kind.
    """

    uri: str
    description: str
    verb: str
    argument: str
    changed_by: tuple[str, ...]

    @property
    def prefix(self) -> str:
        return self.uri.partition("{")[0]


KINDS: Final = (
    Kind("muster://machines", "The machines of the fleet, and which are here", "machines", "",
         ("machine", "link", "roster")),
    Kind("muster://inbox", "Unread messages for this session and its agent", "inbox", "",
         ("message", "group")),
    Kind("muster://run/{run}", "A run: its phases, and where each is", "runs", "run",
         ("run", "task", "attempt", "result")),
    Kind("muster://task/{task}", "Why a task is where it is", "why", "task",
         ("run", "task", "attempt", "result")),
    Kind("muster://memory/{+key}", "What is known under a key", "memory", "key",
         ("memory",)),
    Kind("muster://digest", "What the fleet remembers for work in this session's project", "digest",
         "", ("memory", "run", "task", "result")),
    Kind("muster://digest/{budget}", "The same, in so many tokens", "digest", "budget",
         ("memory", "run", "task", "result")),
)  # fmt: skip


def listed() -> types.ListResourcesResult:
    found = [
        types.Resource(uri=kind.uri, name=kind.verb, description=kind.description, mime_type=_JSON)
        for kind in KINDS
        if not kind.argument
    ]
    return types.ListResourcesResult(resources=found)


def templates() -> types.ListResourceTemplatesResult:
    found = [
        types.ResourceTemplate(
            uri_template=kind.uri, name=kind.argument, description=kind.description, mime_type=_JSON
        )
        for kind in KINDS
        if kind.argument
    ]
    return types.ListResourceTemplatesResult(resource_templates=found)


def _of(uri: str) -> tuple[Kind, str] | None:
    """Which sort an address is of, and what it names there."""
    for kind in KINDS:
        named = uri.removeprefix(kind.prefix)
        if named != uri and bool(named) == bool(kind.argument):
            return kind, named
    return None


async def read(daemon: Daemon, session: Session, uri: str) -> types.ReadResourceResult:
    """What a resource is now. Raises: MCPError -32602 where there is none of this address."""
    found = _of(uri)
    if found is None:
        there = ", ".join(kind.uri for kind in KINDS)
        raise _none(uri, f"there is no resource {uri[:200]!r}; there are {there}")
    kind, named = found
    args: dict[str, Any] = {kind.argument: named} if named else {}
    if kind.argument == "budget":
        if not re.fullmatch("[0-9]{1,9}", named):
            raise _none(uri, f"a budget is a number of tokens, which {named[:40]!r} is not")
        args["budget"] = int(named)
    if kind.verb == "inbox":
        args["agent"] = session.reader
    try:
        value = await daemon.ask(kind.verb, args, token=session.token)
    except (NotFound, Malformed, Refused) as error:
        raise _none(uri, str(error)) from error
    except MusterError as error:
        raise MCPError(types.INTERNAL_ERROR, str(error)) from error
    text = json.dumps(value, ensure_ascii=False, separators=(",", ":"))
    content = types.TextResourceContents(uri=uri, mime_type=_JSON, text=text)
    return types.ReadResourceResult(contents=[content], ttl_ms=0, cache_scope="private")


def _none(uri: str, sentence: str) -> MCPError:
    return MCPError(types.INVALID_PARAMS, sentence, {"uri": uri})


class Followed:
    """The addresses that somebody follows, and what tells of their changes."""

    def __init__(self, daemon: Daemon, changed: Callable[[str], Awaitable[None]]) -> None:
        self._daemon, self._changed = daemon, changed
        self._uris: Counter[str] = Counter()
        self._task: asyncio.Task[None] | None = None

    def begin(self, uris: Iterable[str]) -> None:
        """Somebody follows these from now on."""
        self._uris.update(uris)
        if self._uris and self._task is None:
            self._task = asyncio.create_task(self._tail())

    def end(self, uris: Iterable[str]) -> None:
        """Somebody does not any more."""
        self._uris -= Counter(uris)
        if not self._uris:
            self.close()

    def close(self) -> None:
        if self._task is not None:
            self._task.cancel()
            self._task = None

    async def _tail(self) -> None:
        number: int | None = None
        while True:
            since: dict[str, Any] = {} if number is None else {"since": number}
            try:
                async for answer in self._daemon.stream("tail", since):
                    number = int(answer["number"])
                    await self._tell(
                        {str(each["kind"]).partition(".")[0] for each in answer["came"]}
                    )
            except MusterError:
                # It is another one, or lost its end: what it was is no guide to what it is.
                number = None
                await asyncio.sleep(_AGAIN_S)
                await self._tell(None)

    async def _tell(self, kinds: set[str] | None) -> None:
        """Tell of what such entries may have changed; of everything for None."""
        for uri in tuple(self._uris):
            found = _of(uri)
            if found is None:
                continue
            if kinds is None or not kinds.isdisjoint(found[0].changed_by):
                await self._changed(uri)
