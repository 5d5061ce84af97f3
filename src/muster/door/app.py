"""What the door answers, by path."""

from contextlib import AbstractAsyncContextManager
from typing import Final

from muster.door.guard import Receive, Scope, Send, refuse

_ROOT: Final = "this is the door of a Muster machine"


class App(AbstractAsyncContextManager["App"]):
    """Everything behind the guard; used as a context for as long as it is served."""

    def __init__(self, daemon: str) -> None:
        """`daemon` is the path of the daemon's socket."""
        self._daemon = daemon

    async def __aexit__(self, *_: object) -> None:
        return None

    async def __call__(self, scope: Scope, _receive: Receive, send: Send) -> None:
        if scope["path"] == "/":
            await refuse(send, 200, _ROOT)
        else:
            await refuse(send, 404, "there is nothing at this path")
