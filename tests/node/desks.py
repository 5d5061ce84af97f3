"""The loop around real cores, as far as blobs go: tunnels and questions between desks in one process.

A desk stands where the daemon does. Frames of a tunnel reach the other desk in order, one turn of
the loop later; `spoil` may change them on the way.
"""

import asyncio
from collections.abc import Callable, Mapping
from pathlib import Path
from types import SimpleNamespace
from typing import Any

from tests.node.cores import Cores, One

from muster.channel.frame import Type
from muster.errors import MusterError
from muster.log.entry import Entry, EntryId
from muster.log.stream import FLEET, Scope
from muster.node import event as ev
from muster.node import holder
from muster.node.holder import Source
from muster.node.link import failure
from muster.store.blobs import Blobs
from muster.task import kinds
from muster.task.artefact import Artefact

KINDS = {Type.DATA: "data", Type.CREDIT: "credit", Type.CLOSE: "close"}
EPOCH = (1, 1)


class Desk:
    def __init__(self, one: One, folder: Path) -> None:
        self.one = one
        self.core = one.core
        self.blobs = Blobs(folder)
        self.machine = SimpleNamespace(blobs=self.blobs)
        self.hands = self
        self.far: dict[int, tuple[Desk, int]] = {}
        self.tunnels: dict[tuple[int, int], Callable[[Any, bytes], None]] = {}
        self.waiting: dict[tuple[int, int], asyncio.Future[Mapping[str, Any]]] = {}
        self.sent: list[tuple[Type, bytes]] = []
        self.spoil: Callable[[Type, bytes], bytes] = lambda _type, payload: payload
        self._tasks: list[asyncio.Task[None]] = []
        # Whether the tunnels of this desk are relays.
        self.relays = False

    # --- the daemon ---------------------------------------------------------------------------

    def tunnel(
        self,
        link: int,
        channel: int,
        feed: Callable[[Any, bytes], None],
        *,
        relay: bool = False,
    ) -> None:
        assert relay == self.relays
        assert (link, channel) not in self.tunnels
        self.tunnels[link, channel] = feed

    def close_tunnel(self, link: int, channel: int) -> None:
        self.tunnels.pop((link, channel), None)

    def put(self, link: int, type: Type, channel: int, payload: bytes) -> None:
        desk, far = self.far[link]
        payload = self.spoil(type, payload)
        self.sent.append((type, payload))
        asyncio.get_running_loop().call_soon(desk.arrived, far, type, channel, payload)

    async def put_waiting(self, link: int, type: Type, channel: int, payload: bytes) -> None:
        self.put(link, type, channel, payload)
        await asyncio.sleep(0)

    def arrived(self, link: int, type: Type, channel: int, payload: bytes) -> None:
        feed = self.tunnels.get((link, channel))
        if feed is not None:
            feed(KINDS[type], payload)

    def answer(self, call: ev.Perform, answer: Mapping[str, Any], *, last: bool = True) -> None:
        desk, far = self.far[call.link]
        desk.waiting.pop((far, call.channel)).set_result(answer)

    async def ask_on(
        self, link: int, channel: int, verb: str, args: Mapping[str, Any]
    ) -> Mapping[str, Any]:
        assert verb == "blob.serve"
        desk, far = self.far[link]
        self.waiting[link, channel] = asyncio.get_running_loop().create_future()
        call = ev.Perform(far, channel, verb, args, self.core.machine, "muster")
        desk._tasks.append(asyncio.create_task(desk.serve(call)))
        return await self.waiting[link, channel]

    async def serve(self, call: ev.Perform) -> None:
        try:
            await holder.serve(self, call)  # type: ignore[arg-type]
        except MusterError as error:
            self.answer(call, failure(error))

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

    def ask_for(self, entry: EntryId, sha256: str, peer: "Desk") -> ev.Perform:
        args = {"entry": entry.hex(), "sha256": sha256}
        return ev.Perform(0, 1, "blob.serve", args, peer.core.machine, "muster")

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
