"""The loop around real cores, as far as streams go: between desks in one process.

A desk stands where the daemon does. Frames of a stream reach the other desk in order, one turn of
the loop later; `spoil` may change them on the way.
"""

import asyncio
import json
from collections.abc import Callable, Mapping
from pathlib import Path
from types import SimpleNamespace
from typing import Any

from tests.node.cores import Cores, One

from muster.channel.frame import Type
from muster.channel.stream import Stream
from muster.errors import MusterError
from muster.log.entry import Entry, EntryId
from muster.log.stream import FLEET, Scope
from muster.node import event as ev
from muster.node.attempts import blob_transfer as holder
from muster.node.attempts.blob_transfer import Source
from muster.node.call.router import Router
from muster.node.call.streams import Streams
from muster.node.link import failure
from muster.store.blobs import Blobs
from muster.task import kinds
from muster.task.artefact import Artefact

EPOCH = (1, 1)


class Desk:
    def __init__(self, one: One, folder: Path) -> None:
        self.one = one
        self.core = one.core
        self.blobs = Blobs(folder)
        self.machine = SimpleNamespace(blobs=self.blobs)
        self.effects = self
        self.mailboxes = SimpleNamespace(blobs=SimpleNamespace(boxes=lambda _: []))
        self.far: dict[int, tuple[Desk, int]] = {}
        self.streams = Streams(
            self.core,
            self.put,
            self.drained,
            lambda *answer: self.answer(*answer),  # noqa: PLW0108 - tests replace it
            lambda link: link not in self.gone,
        )
        self.sent: list[tuple[Type, bytes]] = []
        # Links that went a moment ago.
        self.gone: set[int] = set()
        self.spoil: Callable[[Type, bytes], bytes] = lambda _type, payload: payload
        self._tasks: list[asyncio.Task[None]] = []

    # --- the daemon ---------------------------------------------------------------------------

    def put(self, link: int, type: Type, channel: int, payload: bytes) -> None:
        desk, far = self.far[link]
        if type is Type.CALL:
            asked = json.loads(payload)
            call = ev.Perform(far, channel, asked["verb"], asked["args"], self.core.machine)
            desk._tasks.append(asyncio.create_task(desk.called(call)))
            return
        payload = self.spoil(type, payload)
        self.sent.append((type, payload))
        asyncio.get_running_loop().call_soon(desk.streams.feed, far, type, channel, payload)

    async def drained(self, link: int) -> None:
        await asyncio.sleep(0)

    def answer(self, call: ev.Perform, answer: Mapping[str, Any], *, last: bool = True) -> None:
        desk, far = self.far[call.link]
        raw = b"." + json.dumps(answer).encode()
        desk.core.part(Router).on_reply(desk.core.links[far], call.channel, raw)

    async def called(self, call: ev.Perform) -> None:
        stream = self.streams.open(call)
        try:
            await self.streams.serve(call, stream, self.handle(call, stream))
        except MusterError as error:
            self.answer(call, failure(error))

    async def handle(self, call: ev.Perform, stream: Stream) -> None:
        assert call.verb == "blob.serve"
        await holder.serve(self, call, stream)  # type: ignore[arg-type]

    @property
    def open(self) -> list[tuple[int, int]]:
        """The streams that are not over."""
        return list(self.streams._open)

    # --- the machine --------------------------------------------------------------------------

    def write(self, kind: str, body: Any, scope: Scope = FLEET) -> Entry:
        """An entry of this machine, as it would write one itself, sent to whoever may have it."""
        core, raw = self.core, kinds.body_bytes(body)
        with core.store.transaction():
            entry = core.append(kind, raw, scope=scope)
            core._sign()
        self.one.world.carry_out(self.one, core._released())
        self.one.world.drain()
        self.one.world.pass_ms(1_000)
        return entry

    def finish(
        self, task: str, *artefacts: Artefact | str, scope: Scope = FLEET, commit: str = ""
    ) -> Entry:
        texts = [str(each) for each in artefacts]
        body = kinds.AttemptFinish(task, EPOCH, "done", artefacts=texts, commit=commit)
        return self.write("attempt.finish", body, scope)

    def deliver(self, data: bytes, task: str = "ab" * 16, scope: Scope = FLEET) -> Source:
        """An attempt of ours that delivered these bytes as `data.bin`."""
        sha256 = self.blobs.put(data)
        self.blobs.claim(sha256, holder.attempt_claim(task, EPOCH))
        artefact = Artefact("data.bin", sha256, len(data))
        return Source(artefact, self.finish(task, artefact, scope=scope).id, self.core.machine)

    async def bring(self, source: Source) -> None:
        try:
            await holder.bring(self, source)  # type: ignore[arg-type]
        finally:
            await asyncio.sleep(0.01)

    async def serve_to(self, call: ev.Perform) -> None:
        """Handle a call whose refusal is not answered but raised."""
        stream = self.streams.open(call)
        await self.streams.serve(call, stream, self.handle(call, stream))

    def ask_for(self, entry: EntryId, sha256: str, peer: "Desk") -> ev.Perform:
        args = {"entry": entry.hex(), "sha256": sha256}
        return ev.Perform(0, 1, "blob.serve", args, peer.core.machine)

    def files(self) -> list[str]:
        """Everything on the disk of this desk, half-written files included."""
        folder = self.blobs._folder
        return sorted(str(p.relative_to(folder)) for p in folder.rglob("*") if p.is_file())


def desks(folder: Path, *names: str, links: tuple[tuple[str, str], ...]) -> list[Desk]:
    """Desks of one fleet, the first the hub's, with the links given."""
    world = Cores(*names)
    made = {name: Desk(world[name], folder / name) for name in names}
    for one, other in links:
        here, there = world.link(one, other)
        made[one].far[here] = (made[other], there)
        made[other].far[there] = (made[one], here)
    world.pass_ms(1_000)
    return list(made.values())
