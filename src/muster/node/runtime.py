"""What attempts and links may ask of the daemon around them."""

from collections.abc import Mapping
from pathlib import Path
from typing import Protocol

from muster.agent.catalogue import AgentEntry
from muster.agent.process import Runner
from muster.channel.base import Link
from muster.git.worktree import Worktrees
from muster.node import event as ev
from muster.node.call.streams import Streams
from muster.node.core import Core
from muster.node.host.home import Home
from muster.node.installation import Installation
from muster.node.supervisor import Supervisor


class AttemptTools(Protocol):
    """What an attempt works with."""

    @property
    def worktrees(self) -> Worktrees: ...

    @property
    def runner(self) -> Runner: ...

    @property
    def agents(self) -> Mapping[str, AgentEntry]: ...

    def place_of(self, repo: str) -> tuple[Path | None, str]: ...


class Runtime(Protocol):
    """The daemon, as attempts and links see it."""

    core: Core
    home: Home
    machine: Installation
    supervisor: Supervisor

    @property
    def effects(self) -> AttemptTools: ...

    @property
    def streams(self) -> Streams: ...

    def post(self, event: ev.Event) -> None: ...

    async def serve(self, link: Link, *, local: bool = False, through: str = "") -> None: ...
