"""What the hands and attempts may ask of the daemon around them."""

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, Protocol

from muster.agent.base import Runner
from muster.agent.catalogue import AgentEntry
from muster.channel.base import Link
from muster.channel.frame import Type
from muster.git.serve import Kind
from muster.git.worktree import Workshop
from muster.node import event as ev
from muster.node.core import Core
from muster.node.home import Home
from muster.node.installation import Installation
from muster.node.supervisor import Supervisor


class HandsPart(Protocol):
    """What an attempt needs of the hands."""

    @property
    def workshop(self) -> Workshop: ...

    @property
    def runner(self) -> Runner: ...

    @property
    def agents(self) -> Mapping[str, AgentEntry]: ...

    def place_of(self, repo: str) -> tuple[Path | None, str]: ...

    async def ask_on(
        self, link: int, channel: int, verb: str, args: Mapping[str, Any]
    ) -> Mapping[str, Any]: ...


class Loop(Protocol):
    """The daemon, as its hands see it."""

    core: Core
    home: Home
    machine: Installation
    supervisor: Supervisor

    @property
    def hands(self) -> HandsPart: ...

    def post(self, event: ev.Event) -> None: ...

    def put(self, link: int, type: Type, channel: int, payload: bytes) -> None: ...

    async def put_waiting(self, link: int, type: Type, channel: int, payload: bytes) -> None: ...

    def answer(self, call: ev.Perform, answer: Mapping[str, Any], *, last: bool = True) -> None: ...

    def tunnel(
        self,
        link: int,
        channel: int,
        feed: Callable[[Kind, bytes], None],
        *,
        relay: bool = False,
    ) -> None: ...

    async def serve(self, link: Link, *, local: bool = False, through: str = "") -> None: ...

    def close_tunnel(self, link: int, channel: int) -> None: ...
