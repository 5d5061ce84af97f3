"""What the door answers, by path: a line for people at `/`, a page for them at `/ask/`, and the
protocol of agents at `/mcp`.

Rule 1: the protocol is loaded by the first agent that shows a token, in a thread: it takes a
second, and a page needs none of it.
Rule 2: where it cannot be loaded or fails, whoever asks hears why at once, and this door ends with
it: the daemon tells a person and starts another one.
"""

import asyncio
import traceback
from collections.abc import Callable
from contextlib import AbstractAsyncContextManager
from typing import TYPE_CHECKING, Any, Final

from muster.door import page
from muster.door.daemon import Daemon
from muster.door.guard import Application, Receive, Scope, Send, refuse
from muster.door.session import Session, whose
from muster.errors import MusterError, NotFound, Refused

if TYPE_CHECKING:
    from muster.door.protocol import Protocol

_ROOT: Final = "this is the door of a Muster machine; agents speak at /mcp"


class App(AbstractAsyncContextManager["App"]):
    """Everything behind the guard; used as a context for as long as it is served."""

    def __init__(self, daemon: str, speaks: Callable[[], None] = lambda: None) -> None:
        """`daemon` is the path of its socket; `speaks` is called when agents are answered."""
        self._daemon, self._speaks = Daemon(daemon), speaks
        self._protocol: asyncio.Future[Protocol] | None = None
        self._hosting: asyncio.Task[None] | None = None
        self._over = asyncio.Event()
        # Set where agents cannot be answered any more, and why that is.
        self.failed, self.why = asyncio.Event(), ""

    async def __aexit__(self, *_: object) -> None:
        self._over.set()
        if self._hosting is not None:
            await asyncio.wait([self._hosting])

    async def admit(self, scope: Scope, send: Send) -> Application | None:
        """What answers this request; None where it was refused."""
        match scope["path"]:
            case "/":
                # Who asks is nobody known: nothing of what they say is waited for.
                await refuse(send, 200, _ROOT)
                return None
            case "/mcp":
                return await self._agent(scope, send)
            case path if path.startswith(page.PREFIX):
                # As at `/`, and what it shows needs the key that its address ends with.
                await page.show(self._daemon, scope, send)
                return None
            case _:
                await refuse(send, 404, "there is nothing at this path")
                return None

    async def _agent(self, scope: Scope, send: Send) -> Application | None:
        shown = [value for name, value in scope["headers"] if name == b"authorization"]
        try:
            session = await whose(self._daemon, shown)
        except (Refused, NotFound) as error:
            await refuse(send, 401, str(error), (b"www-authenticate", b"Bearer"))
        except MusterError as error:
            # Nothing is wrong with the token: the daemon is away, or has too much to do.
            await refuse(send, 503, str(error), (b"retry-after", b"1"))
        else:
            return await self._answering(session, send)
        return None

    async def _answering(self, session: Session, send: Send) -> Application | None:
        if self._hosting is None:
            self._protocol = asyncio.get_running_loop().create_future()
            self._hosting = asyncio.create_task(self._host(self._protocol))
            self._hosting.add_done_callback(self._ended)
        assert self._protocol is not None, "it is made with its host"
        either: list[asyncio.Future[Any]] = [self._protocol, self._hosting]
        await asyncio.wait(either, return_when=asyncio.FIRST_COMPLETED)
        if self._hosting.done():
            why = self.why or "this door ends; ask again"
            await refuse(send, 503, why, (b"retry-after", b"5"), (b"connection", b"close"))
            return None
        protocol = self._protocol.result()

        async def answer(scope: Scope, receive: Receive, send: Send) -> None:
            await protocol.answer(session, scope, receive, send)

        return answer

    async def _host(self, there: "asyncio.Future[Protocol]") -> None:
        """The life of the protocol, in one task from its beginning to its end."""
        found = await asyncio.to_thread(_load)
        async with found(self._daemon) as protocol:
            there.set_result(protocol)
            self._speaks()
            await self._over.wait()

    def _ended(self, hosting: "asyncio.Task[None]") -> None:
        """Say why it failed, whatever that was: packages of others may raise anything."""
        error = None if hosting.cancelled() else hosting.exception()
        if error is not None:
            traceback.print_exception(error)
            self.why = (
                f"the door cannot speak to agents ({type(error).__name__}: {error}); "
                "`pip install --upgrade --force-reinstall 'muster-fleet[doors]'` where Muster is "
                "installed mends its packages"
            )
            self.failed.set()


def _load() -> "type[Protocol]":
    from muster.door.protocol import Protocol  # noqa: PLC0415 - half of the door's memory

    return Protocol
