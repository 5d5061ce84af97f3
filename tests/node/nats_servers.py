"""Three nats-servers as three machines run them, and messages through them while leaders are killed."""

import asyncio
import contextlib
import itertools
import json
import os
import subprocess
from collections import Counter
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import NamedTuple, Self

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat
from tests.channel.nats_server import nats_server
from tests.channel.test_post import unexpected
from tests.fleet.world import (
    AUTHORITY,
    BUILD,
    BUILD_RECORD,
    LAPTOP,
    LAPTOP_RECORD,
    STUDIO,
    STUDIO_RECORD,
)
from tests.ports import free_port

from muster.channel import nats, nats_client
from muster.channel.base import Visitor
from muster.channel.tls import Credentials
from muster.errors import Exhausted, Unreachable
from muster.fleet import certificate, nats_jwt
from muster.fleet.machine import Identity
from muster.node.engine.told import Place, cluster_id, configuration, tell
from muster.node.host import clock

IDENTITIES = {each.machine: each for each in (STUDIO, BUILD, LAPTOP)}
RECORDS = {each.machine: each for each in (STUDIO_RECORD, BUILD_RECORD, LAPTOP_RECORD)}
CLUSTER = tuple(sorted(RECORDS))
# Each writer has so many under way, as links and posts beside each other have.
UNDER_WAY = 16
PACKET_BYTES = 300


class Figures(NamedTuple):
    """What came of a load; `again` are packets that were given twice under one place, before their
    acknowledgement held: whoever takes knows them by that place.
    """

    acknowledged: int
    lost: int
    doubled: int
    again: int
    kills: int
    retries: int
    seconds: float
    longest_gap_s: float


class Servers:
    """The studio holds the authority; all three serve, with the very configuration of a machine."""

    def __init__(self, folder: Path) -> None:
        self.folder, self._program = folder, nats_server()
        self.now_ms = clock.read().wall_ms
        self.places = {m: Place(*(f"127.0.0.1:{free_port()}" for _ in range(2))) for m in CLUSTER}
        self._processes: dict[str, subprocess.Popen[bytes]] = {}

    def __enter__(self) -> Self:
        for machine in CLUSTER:
            self.start(machine)
        return self

    def __exit__(self, *_: object) -> None:
        for machine in list(self._processes):
            self.kill(machine)

    def start(self, machine: str) -> None:
        folder = self.folder / machine[:8]
        folder.mkdir(parents=True, exist_ok=True)
        told = tell(
            AUTHORITY, STUDIO_RECORD, RECORDS[machine], RECORDS.values(), self.now_ms, CLUSTER,
            self.places,
        )  # fmt: skip
        key = Ed25519PrivateKey.from_private_bytes(IDENTITIES[machine].secret("tls"))
        pem = key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
        (folder / "tls.pem").write_bytes(told.certificate.encode() + pem)
        (folder / "ca.pem").write_text(told.ca)
        place = self.places[machine]
        written = configuration(
            told, machine, RECORDS, folder, listen=place.address, routes=place.routes, tls=True
        )
        (folder / "server.json").write_text(json.dumps(written))
        self._processes[machine] = subprocess.Popen(
            [self._program, "-c", str(folder / "server.json")], stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
        )  # fmt: skip

    def kill(self, machine: str) -> None:
        """End it as a power cut would."""
        process = self._processes.pop(machine)
        process.kill()
        process.wait()

    # --- who uses them --------------------------------------------------------------------

    def urls(self) -> list[str]:
        return [f"tls://{self.places[m].address}" for m in CLUSTER]

    def credentials(self, who: Identity) -> Credentials:
        chain = certificate.issue(AUTHORITY, RECORDS[who.machine], self.now_ms)
        return Credentials(*certificate.tls_files(who, chain))

    def login(self, who: Identity, jwt: str, *at: str) -> nats_client.Login:
        first, *more = at or self.urls()
        sign = who.signer("nats").sign
        return nats.login(nats.Pass(jwt, first, tuple(more)), sign, lambda: self.credentials(who))

    def keeper(self) -> nats_client.NatsClient:
        jwt = nats_jwt.keeper_pass(AUTHORITY, STUDIO_RECORD, cluster_id(CLUSTER))
        return nats_client.NatsClient("the cluster", "", lambda: self.login(STUDIO, jwt))

    async def keep_boxes(self) -> None:
        """As the machine with the authority does, until they are there."""
        keeper = self.keeper()
        try:
            while True:
                try:
                    await keeper.keep_boxes(RECORDS, len(CLUSTER))
                except (Unreachable, Exhausted):
                    await asyncio.sleep(0.2)
                else:
                    return
        finally:
            await keeper.close()

    async def leader(self, machine: str) -> str:
        """Whose server leads the mailbox of a machine, once one does."""
        keeper = self.keeper()
        try:
            while True:
                with contextlib.suppress(Unreachable):
                    async with keeper._reached() as client:
                        js = client.jetstream(timeout=5)
                        answer = await js.stream_info(f"MUSTER_BOX_{machine}")
                    name = str(answer.cluster.leader or "") if answer.cluster else ""
                    for each in CLUSTER:
                        if name == f"muster-{each[:16]}":
                            return each
                await asyncio.sleep(0.1)
        finally:
            await keeper.close()

    @contextlib.asynccontextmanager
    async def posts(self) -> AsyncIterator[dict[str, nats.NatsPost]]:
        """The mailbox of each machine, as its daemon has it, with the pass in its home."""
        found = {}
        async with contextlib.AsyncExitStack() as undo:
            first, *more = self.urls()
            for machine, who in IDENTITIES.items():
                home = self.folder / f"home-{machine[:8]}"
                (home / "nats").mkdir(parents=True, exist_ok=True)
                jwt = nats_jwt.pass_of(AUTHORITY, RECORDS[machine])
                shown = nats.Pass(jwt, first, tuple(more))
                (home / nats.PASS).write_bytes(nats.msgspec.json.encode(shown))
                mine = self.credentials(who)
                sign = who.signer("nats").sign
                visitor = Visitor(machine, home, unexpected, sign, lambda mine=mine: mine)
                post = nats.open_channel(nats.Options(place="studio"), visitor)
                undo.push_async_callback(post.close)
                found[machine] = post
            yield found


class Load:
    """Each machine leaves for the next one, and takes what is its own, while leaders are killed."""

    def __init__(self, servers: Servers, messages: int, kills: int) -> None:
        self._servers, self._messages, self._kills = servers, messages, kills
        self._numbers: Iterator[int] = iter(range(messages))
        self._left: set[bytes] = set()
        # By packet, the places under which it came; and what came under a place once more.
        self._came: dict[bytes, set[str]] = {}
        self._again: Counter[str] = Counter()
        self._retries = self._killed = 0
        self._last_ms = self._gap_ms = 0
        self._written, self._more = asyncio.Event(), asyncio.Event()

    async def run(self) -> Figures:
        """Leave all of them, kill so often, take what there is; what came of it."""
        await self._servers.keep_boxes()
        began = self._last_ms = clock.boot_ms()
        async with self._servers.posts() as posts:
            readers = [asyncio.create_task(self._take(m, post)) for m, post in posts.items()]
            killer = asyncio.create_task(self._kill())
            nexts = dict(zip(CLUSTER, (*CLUSTER[1:], CLUSTER[0]), strict=True))
            async with asyncio.TaskGroup() as writers:
                for machine, post in posts.items():
                    for _ in range(UNDER_WAY):
                        writers.create_task(self._leave(post, nexts[machine]))
            self._written.set()
            await killer
            await asyncio.gather(*readers)
        doubled = sum(len(ids) - 1 for ids in self._came.values())
        return Figures(
            len(self._left), len(self._left - self._came.keys()), doubled,
            sum(self._again.values()), self._killed, self._retries, (clock.boot_ms() - began) / 1000,
            self._gap_ms / 1000,
        )  # fmt: skip

    async def _leave(self, post: nats.NatsPost, to: str) -> None:
        for number in self._numbers:
            packet = b"%d " % number + os.urandom(PACKET_BYTES)
            while True:
                try:
                    await post.put(packet, to=to)
                    break
                except (Unreachable, Exhausted):
                    # Not left: said again, as whoever has no receipt does.
                    self._retries += 1
                    await asyncio.sleep(0.1)
            self._left.add(packet)
            self._more.set()
            now = clock.boot_ms()
            self._gap_ms, self._last_ms = max(self._gap_ms, now - self._last_ms), now

    async def _take(self, machine: str, post: nats.NatsPost) -> None:
        quiet = 0
        while quiet < 3 or self._left - self._came.keys():
            try:
                found = await post.take()
                for each in found:
                    ids = self._came.setdefault(each.body, set())
                    self._again[f"{machine}/{each.id}"] += each.id in ids
                    ids.add(each.id)
                await post.ack([each.id for each in found])
            except Unreachable:
                await asyncio.sleep(0.1)
                continue
            if self._written.is_set() and self._killed == self._kills:
                quiet = 0 if found else quiet + 1
            if not found:
                await asyncio.sleep(0.05)

    async def _kill(self) -> None:
        """The leader of one mailbox after the other, each time a share of all was left."""
        boxes = itertools.cycle(CLUSTER)
        for turn in range(1, self._kills + 1):
            await self._until(turn * self._messages // (self._kills + 1))
            leader = await self._servers.leader(next(boxes))
            self._servers.kill(leader)
            # So many more are left by the two others before it is there again.
            await self._until(min(len(self._left) + UNDER_WAY, self._messages))
            self._servers.start(leader)
            self._killed += 1

    async def _until(self, left: int) -> None:
        while len(self._left) < left:
            self._more.clear()
            await self._more.wait()


def measure(folder: Path, messages: int, kills: int) -> Figures:
    """What came of so many messages while leaders were killed so often."""

    async def scenario(servers: Servers) -> Figures:
        return await Load(servers, messages, kills).run()

    with Servers(folder) as servers:
        return asyncio.run(scenario(servers))
