"""What attempts and links may ask of the daemon around them."""

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, Protocol

from muster.agent.catalogue import AgentEntry
from muster.agent.discovery import Discovery
from muster.agent.process import Runner
from muster.channel.base import Link
from muster.git.worktree import Worktrees
from muster.log.entry import EntryId
from muster.log.stream import MachineId
from muster.node import event as ev
from muster.node.call.streams import Streams
from muster.node.core import Core
from muster.node.host.enclosing import Enclosing
from muster.node.host.home import Home
from muster.node.installation import Installation
from muster.node.supervisor import Supervisor
from muster.store.blobs import Incoming
from muster.task.artefact import Artefact


class AttemptTools(Protocol):
    """What an attempt works with."""

    worktrees: Worktrees
    runner: Runner
    agents: Mapping[str, AgentEntry]
    discovery: Discovery
    enclosing: Enclosing
    environ: Mapping[str, str]

    def place_of(self, repo: str) -> tuple[Path | None, str]: ...

    async def ask(self, machine: str, verb: str, args: Mapping[str, Any]) -> Any | None: ...


class BlobPosts(Protocol):
    """Blobs over mailboxes."""

    def boxes(self, author: str) -> list[tuple[MachineId, int]]: ...

    async def bring(
        self,
        number: int,
        entry: EntryId,
        artefact: Artefact,
        told: Callable[[Artefact, int], None],
        blob: Incoming,
    ) -> None: ...


class MailboxTools(Protocol):
    """What attempts ask of mailboxes."""

    @property
    def blobs(self) -> BlobPosts: ...


class Runtime(Protocol):
    """The daemon, as attempts and links see it."""

    core: Core
    home: Home
    machine: Installation
    supervisor: Supervisor
    streams: Streams

    @property
    def mailboxes(self) -> MailboxTools: ...

    @property
    def effects(self) -> AttemptTools: ...

    def post(self, event: ev.Event) -> None: ...

    def stop(self, why: str = "") -> None: ...

    def backlog(self, link: int) -> int: ...

    def is_busy(self, link: int) -> bool: ...

    def show(self) -> None: ...

    async def serve(
        self,
        link: Link,
        *,
        local: bool = False,
        through: str = "",
        foreign: str = "",
        attempt: str = "",
    ) -> None: ...
