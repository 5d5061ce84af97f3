"""The server of a machine that comes and goes, linked to one of the fleet: real servers, both ends."""

import asyncio
import contextlib
import json
import subprocess
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any

import msgspec
import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat
from msgspec.structs import replace
from tests.channel.nats_server import nats_server
from tests.channel.rigs import run
from tests.channel.test_post import unexpected
from tests.fleet.world import AUTHORITY, BUILD, BUILD_RECORD, LAPTOP, LAPTOP_RECORD, STUDIO
from tests.ports import free_port
from tests.promise import proves

pytest.importorskip("nats", reason="pip install 'muster-fleet[nats]'")
from nats.aio.client import Client
from nats.errors import Error
from tests.node.nats_servers import RECORDS

from muster.channel import nats, nats_client
from muster.channel.base import Visitor
from muster.channel.tls import Credentials
from muster.errors import MusterError, Unreachable
from muster.fleet import certificate, nats_jwt
from muster.fleet.machine import Identity
from muster.node.engine import leaf
from muster.node.engine.leaf import Link
from muster.node.engine.told import configuration, pin_of, tell
from muster.node.host import clock

LOGINS = {"muster": "a" * 32, "programs": "b" * 32, "looks": "c" * 32}
WAITS_S = 20.0


class World:
    """The studio serves; the laptop has a server of its own, linked to that."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.now_ms = clock.read().wall_ms
        self.port, self.leaves, self.here = free_port(), free_port(), free_port()
        self._processes: dict[str, subprocess.Popen[bytes]] = {}
        self._undo = contextlib.AsyncExitStack()
        for each in (self.hub, self.leaf):
            each.mkdir(parents=True)
        told = tell(AUTHORITY, RECORDS[STUDIO.machine], RECORDS[STUDIO.machine], RECORDS.values(), self.now_ms,
                    leaves=True)  # fmt: skip
        self.told = told
        key = Ed25519PrivateKey.from_private_bytes(STUDIO.secret("tls"))
        pem = key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
        (self.hub / "tls.pem").write_bytes(told.certificate.encode() + pem)
        (self.hub / "ca.pem").write_text(told.ca)
        self.link = Link(
            "studio", (f"tls://127.0.0.1:{self.leaves}",), (pin_of(RECORDS[STUDIO.machine]),),
            nats_jwt.domain(STUDIO.machine, ""), nats_jwt.pass_of(AUTHORITY, LAPTOP_RECORD),
        )  # fmt: skip

    @property
    def hub(self) -> Path:
        return self.folder / "hub"

    @property
    def leaf(self) -> Path:
        return self.folder / "leaf"

    def serve(self, *, without: str = "") -> None:
        live = {m: r for m, r in RECORDS.items() if m != without}
        listen = f"127.0.0.1:{self.port}"
        written = configuration(
            self.told, STUDIO.machine, live, self.hub, listen=listen, routes="", tls=True,
            leaves=f"127.0.0.1:{self.leaves}",
        )  # fmt: skip
        self._start(self.hub, written)

    def begin(self, who: Identity = LAPTOP, **changed: Any) -> None:
        link = replace(self.link, **changed)
        text = nats_jwt.credentials(link.shown, who.secret("nats"))
        (self.leaf / "link.creds").write_text(text)
        listen = f"127.0.0.1:{self.here}"
        self._start(self.leaf, leaf.configuration(link, LAPTOP_RECORD, self.leaf, listen, LOGINS))

    def _start(self, folder: Path, written: dict[str, Any]) -> None:
        (folder / "server.json").write_text(json.dumps(written))
        self._processes[folder.name] = subprocess.Popen(
            [nats_server(), "-c", str(folder / "server.json")], stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
        )  # fmt: skip

    def kill(self, folder: Path) -> None:
        if (process := self._processes.pop(folder.name, None)) is not None:
            process.kill()
            process.wait()

    def said(self) -> str:
        return (self.leaf / "server.log").read_text()

    # --- who uses them ----------------------------------------------------------------------

    def beside(self, user: str) -> nats.Beside:
        return nats.Beside(f"nats://127.0.0.1:{self.here}", user, LOGINS[user])

    def credentials(self, who: Identity) -> Credentials:
        chain = certificate.issue(AUTHORITY, RECORDS[who.machine], self.now_ms)
        return Credentials(*certificate.tls_files(who, chain))

    async def post(self, who: Identity) -> nats.NatsPost:
        """As its daemon has it: the laptop's by its own server, another one's directly."""
        home = self.folder / f"home-{who.machine[:8]}"
        (home / "nats").mkdir(parents=True)
        shown = nats.Pass(
            nats_jwt.pass_of(AUTHORITY, RECORDS[who.machine]), f"tls://127.0.0.1:{self.port}"
        )
        (home / nats.PASS).write_bytes(msgspec.json.encode(shown))
        if who is LAPTOP:
            (home / nats.BESIDE).write_bytes(msgspec.json.encode(self.beside("muster")))
        visitor = Visitor(
            who.machine, home, unexpected, who.signer("nats").sign, lambda: self.credentials(who)
        )
        post = nats.open_channel(nats.Options(place="studio"), visitor)
        self._undo.push_async_callback(post.close)
        return post

    async def keep_boxes(self) -> None:
        jwt = nats_jwt.keeper_pass(AUTHORITY, RECORDS[STUDIO.machine])
        shown = nats.Pass(jwt, f"tls://127.0.0.1:{self.port}")
        sign = STUDIO.signer("nats").sign
        keeper = nats_client.NatsClient(
            "it", "", lambda: nats.login(shown, sign, lambda: self.credentials(STUDIO))
        )
        try:
            await holds(lambda: keeper.keep_boxes(RECORDS))
        finally:
            await keeper.close()

    async def linked(self) -> bool:
        look = nats.open_look(self.beside("looks"))
        try:
            return await look.linked()
        finally:
            await look.close()

    async def is_linked(self, *, linked: bool = True) -> None:
        async def same() -> None:
            if await self.linked() is not linked:
                raise Unreachable("not yet")

        await holds(same)

    async def client(self, user: str) -> Client:
        beside, client = self.beside(user), Client()
        await client.connect(
            beside.server, user=beside.user, password=beside.password, allow_reconnect=False
        )
        self._undo.push_async_callback(client.close)
        return client


async def holds(work: Any) -> Any:
    """What it comes to, once a server is there."""
    async with asyncio.timeout(WAITS_S):
        while True:
            try:
                return await work()
            except MusterError:
                await asyncio.sleep(0.1)


@contextlib.asynccontextmanager
async def running(world: World) -> AsyncIterator[World]:
    world.serve()
    try:
        await world.keep_boxes()
        async with world._undo:
            yield world
    finally:
        for folder in (world.hub, world.leaf):
            world.kill(folder)


@pytest.fixture
def world(tmp_path: Path) -> Iterator[World]:
    nats_server()
    return World(tmp_path)


async def taken(post: nats.NatsPost, many: int) -> list[bytes]:
    found: list[bytes] = []
    async with asyncio.timeout(WAITS_S):
        while len(found) < many:
            with contextlib.suppress(Unreachable):
                some = await post.take()
                await post.ack([each.id for each in some])
                found += [each.body for each in some]
    return found


@proves("node.nats-leaf")
def test_a_machine_uses_its_mailbox_over_the_link_of_its_own_server_also_after_an_outage(
    world: World,
):
    async def scenario() -> None:
        async with running(world):
            world.begin()
            await world.is_linked()
            laptop, build = await world.post(LAPTOP), await world.post(BUILD)
            await laptop.put(b"one", to=BUILD.machine)
            assert await taken(build, 1) == [b"one"]
            await build.put(b"two", to=LAPTOP.machine)
            assert await taken(laptop, 1) == [b"two"]
            # What is left while it is away is there once when it is back.
            world.kill(world.leaf)
            for number in range(20):
                await build.put(b"%d" % number, to=LAPTOP.machine)
            with pytest.raises(Unreachable):
                await laptop.put(b"three", to=BUILD.machine)
            world.begin()
            await world.is_linked()
            assert await taken(laptop, 20) == [b"%d" % n for n in range(20)]
            assert await laptop.take() == []
            # While the other one is away, nothing counts as left.
            world.kill(world.hub)
            await world.is_linked(linked=False)
            with pytest.raises(Unreachable):
                await laptop.put(b"three", to=BUILD.machine)
            world.serve()
            await holds(lambda: laptop.put(b"three", to=BUILD.machine))
            assert await taken(build, 1) == [b"three"]

    run(scenario())


@proves("node.nats-leaf-own")
def test_programs_have_a_jetstream_of_the_machines_own_domain_and_nothing_of_the_link(world: World):
    async def scenario() -> None:
        async with running(world):
            world.begin()
            await world.is_linked()
            laptop, build = await world.post(LAPTOP), await world.post(BUILD)
            program = await world.client("programs")
            js = program.jetstream()
            await js.add_stream(name="MINE", subjects=["mine.>"])
            kept = await js.publish("mine.one", b"1")
            assert (kept.stream, kept.domain) == ("MINE", LAPTOP.machine[:16])
            # Who has no password of that computer is not let in.
            stranger = Client()
            with pytest.raises(Error):
                await stranger.connect(world.beside("programs").server, allow_reconnect=False)
            await stranger.close()
            # Also while it is linked to nobody, and after it was killed.
            world.kill(world.hub)
            assert (await js.publish("mine.two", b"2")).seq == 2
            world.kill(world.leaf)
            world.begin()
            again = await holds_client(world)
            assert (await again.jetstream().publish("mine.three", b"3")).seq == 3
            world.serve()
            await world.is_linked()
            # The mailbox, and what the machine may ask, are not theirs.
            await build.put(b"private", to=LAPTOP.machine)
            box = f"MUSTER_BOX_{LAPTOP.machine}"
            for subject in (
                f"muster.box.{BUILD.machine}.{LAPTOP.machine}",
                nats_jwt.take_from(LAPTOP.machine),
                nats_jwt.take_from(LAPTOP.machine, world.link.domain),
                f"$JS.{world.link.domain}.API.STREAM.INFO.{box}",
            ):
                with pytest.raises(
                    Exception, match=r"no responders|timeout|10059|stream not found"
                ):
                    answer = await again.request(subject, b"x", timeout=2)
                    raise Unreachable(answer.data.decode())
            assert await taken(laptop, 1) == [b"private"]
            assert await build.take() == []

    run(scenario())


async def holds_client(world: World) -> Client:
    async def once() -> Client:
        try:
            return await world.client("programs")
        except OSError as error:
            raise Unreachable(str(error)) from error

    found: Client = await holds(once)
    return found


@proves("node.nats-leaf-own")
def test_a_linked_server_that_lies_reaches_what_its_machine_may_and_nothing_else(world: World):
    async def scenario() -> None:
        async with running(world):
            world.begin()
            await world.is_linked()
            build = await world.post(BUILD)
            # Whoever has that machine has this account whole.
            liar = await world.client("muster")
            heard = await liar.subscribe(">")
            await build.put(b"for the studio", to=STUDIO.machine)
            me, domain = LAPTOP.machine, world.link.domain
            box = f"MUSTER_BOX_{BUILD.machine}"
            for subject in (
                f"muster.box.{BUILD.machine}.{STUDIO.machine}",
                nats_jwt.take_from(BUILD.machine, domain),
                f"$JS.{domain}.API.STREAM.INFO.{box}",
                f"$JS.{domain}.API.STREAM.DELETE.{box}",
                f"$JS.{domain}.API.STREAM.PURGE.{box}",
                f"$JS.ACK.{box}.box.1.1.1.1.0",
                "$SYS.REQ.SERVER.PING",
            ):
                with pytest.raises(Exception, match=r"no responders|timeout"):
                    await liar.request(subject, b"forged", timeout=1)
            # Neither by a reply that is forged.
            await liar.publish(
                f"muster.box.{STUDIO.machine}.{me}", b"odd",
                reply=f"muster.box.{BUILD.machine}.{STUDIO.machine}",
            )  # fmt: skip
            await liar.flush()
            await build.put(b"mine", to=BUILD.machine)
            assert await taken(build, 1) == [b"mine"]
            assert await build.take() == []
            subjects = {each.subject async for each in pending(heard)}
            assert not any(BUILD.machine in each and "forged" in each for each in subjects)
            assert f"muster.box.{STUDIO.machine}.{BUILD.machine}" not in subjects

    run(scenario())


async def pending(heard: Any) -> AsyncIterator[Any]:
    while heard.pending_msgs:
        yield await heard.next_msg()


@pytest.mark.parametrize(
    ("changed", "why"),
    [
        ({"pins": (pin_of(BUILD_RECORD),)}, "certificate"),
        (
            {"shown": nats_jwt.pass_of(AUTHORITY, BUILD_RECORD)},
            "Authorization|authorization|closed",
        ),
    ],
)
@proves("node.nats-leaf-members-alone")
def test_a_server_with_another_key_is_not_spoken_with_and_another_machines_pass_lets_nobody_in(
    world: World, changed: dict[str, Any], why: str
):
    async def scenario() -> None:
        async with running(world):
            world.begin(**changed)
            await holds(lambda: said(world, why))
            assert not await world.linked()

    run(scenario())


async def said(world: World, why: str) -> None:
    import re

    if not (world.leaf / "server.log").exists() or not re.search(why, world.said()):
        raise Unreachable("it did not say so yet")


@proves("node.nats-leaf-members-alone")
def test_whoever_is_not_in_the_roster_any_more_is_not_linked(world: World):
    async def scenario() -> None:
        async with running(world):
            world.begin()
            await world.is_linked()
            # As the server begins anew when the roster has one machine less.
            world.kill(world.hub)
            world.serve(without=LAPTOP.machine)
            await holds(lambda: said(world, "uthorization"))
            assert not await world.linked()

    run(scenario())
