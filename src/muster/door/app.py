"""What the door answers, by path: a line for people at `/`, and the protocol of agents at `/mcp`.

Rule: the protocol is loaded by the first agent that shows a token, in a thread: it takes a second,
and a page needs none of it.
"""

import asyncio
from contextlib import AbstractAsyncContextManager
from typing import TYPE_CHECKING, Final

from muster.door.daemon import Daemon
from muster.door.guard import Application, Receive, Scope, Send, refuse
from muster.door.session import Session, whose
from muster.errors import MusterError, Unreachable

if TYPE_CHECKING:
    from muster.door.protocol import Protocol

_ROOT: Final = "this is the door of a Muster machine; agents speak at /mcp"


class App(AbstractAsyncContextManager["App"]):
    """Everything behind the guard; used as a context for as long as it is served."""

    def __init__(self, daemon: str) -> None:
        """`daemon` is the path of the daemon's socket."""
        self._daemon = Daemon(daemon)
        self._protocol: asyncio.Future[Protocol] | None = None
        self._hosting: asyncio.Task[None] | None = None
        self._over = asyncio.Event()

    async def __aexit__(self, *_: object) -> None:
        self._over.set()
        if self._hosting is not None:
            await self._hosting

    async def admit(self, scope: Scope, send: Send) -> Application | None:
        """What answers this request; None where it was refused."""
        match scope["path"]:
            case "/":
                return _root
            case "/mcp":
                return await self._agent(scope, send)
            case _:
                await refuse(send, 404, "there is nothing at this path")
                return None

    async def _agent(self, scope: Scope, send: Send) -> Application | None:
        shown = [value for name, value in scope["headers"] if name == b"authorization"]
        try:
            session = await whose(self._daemon, shown)
        except Unreachable as error:
            await refuse(send, 503, str(error), (b"retry-after", b"1"))
        except MusterError as error:
            await refuse(send, 401, str(error), (b"www-authenticate", b"Bearer"))
        else:
            return await self._answering(session)
        return None

    async def _answering(self, session: Session) -> Application:
        if self._protocol is None:
            self._protocol = asyncio.get_running_loop().create_future()
            self._hosting = asyncio.create_task(self._host(self._protocol))
        protocol = await asyncio.shield(self._protocol)

        async def answer(scope: Scope, receive: Receive, send: Send) -> None:
            await protocol.answer(session, scope, receive, send)

        return answer

    async def _host(self, there: "asyncio.Future[Protocol]") -> None:
        """The life of the protocol, in one task from its beginning to its end."""
        found = await asyncio.to_thread(_load)
        async with found(self._daemon) as protocol:
            there.set_result(protocol)
            await self._over.wait()


def _load() -> "type[Protocol]":
    from muster.door.protocol import Protocol  # noqa: PLC0415 - half of the door's memory

    return Protocol


async def _root(_scope: Scope, _receive: Receive, send: Send) -> None:
    await refuse(send, 200, _ROOT)
