"""A lease at a NATS server, alone and of a cluster: who wrote last is known, and nobody is passed over."""

import asyncio
import contextlib
import json
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any

import pytest
from tests.channel.nats_server import NatsServer
from tests.channel.rigs import run
from tests.channel.test_post import unexpected
from tests.ports import free_port
from tests.promise import proves

from muster.channel.base import Visitor
from muster.errors import Unreachable

pytest.importorskip("nats", reason="pip install 'muster-fleet[nats]'")
from muster.channel import nats
from muster.channel.nats_lease import STREAM, Leased, NatsLeases

HUB = "b" * 64


@contextlib.contextmanager
def servers_of(folder: Path, count: int) -> Iterator[list[NatsServer]]:
    """One, or three of a cluster."""
    ports = [free_port() for _ in range(count)]
    with contextlib.ExitStack() as undo:
        found = []
        for number, port in enumerate(ports):
            routes = [f"nats://127.0.0.1:{other}" for other in ports if other != port]
            listen = {"name": "it", "listen": f"127.0.0.1:{port}", "routes": routes}
            more: dict[str, Any] = {"cluster": listen} if count > 1 else {}
            server = NatsServer(folder / str(number), server_name=f"n{number}", **more)
            found.append(undo.enter_context(server))
        yield found


@pytest.fixture(params=[1, 3])
def servers(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[list[NatsServer]]:
    with servers_of(tmp_path, request.param) as found:
        yield found


@contextlib.asynccontextmanager
async def leases(servers: list[NatsServer], *names: str) -> AsyncIterator[tuple[NatsLeases, ...]]:
    where = ",".join(each.url for each in servers)
    none: Any = None
    async with contextlib.AsyncExitStack() as undo:
        found = []
        for name in names:
            visitor = Visitor(name * 64, Path(), unexpected, none, none)
            each = nats.open_channel(nats.Options(place=where), visitor).leases()
            undo.push_async_callback(each.close)
            found.append(each)
        await kept(found[0])
        yield tuple(found)


async def kept(one: NatsLeases) -> None:
    while True:
        with contextlib.suppress(Unreachable):
            await one.keep()
            return
        await asyncio.sleep(0.1)


async def written(one: NatsLeases, said: bytes, above: int) -> int:
    """The revision that the servers gave it, however long a leader takes to be chosen."""
    while True:
        try:
            if (revision := await one.write(HUB, said, above)) is not None:
                return revision
        except Unreachable:
            await one.elsewhere()
        with contextlib.suppress(Unreachable):
            if (there := await one.newest(HUB)) is not None and there.said == said:
                return there.revision
        await asyncio.sleep(0.1)


@proves("channel.nats-lease")
def test_of_all_who_write_above_one_revision_one_is_kept_and_revisions_rise(servers):
    async def scenario() -> None:
        async with leases(servers, "1", "2") as (one, other):
            assert await one.newest(HUB) is None
            first = await written(one, b"a", 0)
            assert await other.write(HUB, b"b", 0) is None
            assert await one.newest(HUB) == Leased(first, "1" * 64, b"a")
            # Nobody else's is touched by it.
            assert await other.write("c" * 64, b"x", 0) is not None
            second = await other.write(HUB, b"b", first)
            assert second is not None
            assert second > first
            assert await one.write(HUB, b"a", first) is None
            assert await one.newest(HUB) == Leased(second, "2" * 64, b"b")
            for _ in range(5):
                above = (await other.newest(HUB) or Leased(0, "", b"")).revision
                tried = [(o.write(HUB, b"c", above)) for o in (one, other) * 8]
                said = await asyncio.gather(*tried)
                assert len([each for each in said if each is not None]) == 1

    run(scenario())


@proves("channel.nats-lease")
@pytest.mark.timeout(180)
def test_a_leader_that_is_killed_takes_no_lease_with_it_and_without_a_quorum_nothing_is_written(
    tmp_path,
):
    async def scenario(servers: list[NatsServer]) -> None:
        async with leases(servers, "1", "2") as (one, other):
            revision = await written(one, b"0", 0)
            for number in (1,):
                leader = await leads(servers, one)
                leader.kill()
                later = await written(one, b"%d" % number, revision)
                assert later > revision
                revision = later
                leader.start()
            for each in servers[:2]:
                each.kill()
            with pytest.raises(Unreachable):
                await one.write(HUB, b"y", revision)
            with pytest.raises(Unreachable):
                await other.write(HUB, b"z", revision)
            for each in servers[:2]:
                each.start()
            await leads(servers, one)
            there = await one.newest(HUB)
            assert there is not None
            assert there.revision >= revision

    async def leads(servers: list[NatsServer], one: NatsLeases) -> NatsServer:
        """The server that leads the stream, once one does."""
        while True:
            with contextlib.suppress(Unreachable):
                async with one._reached() as client:
                    asked = client.request(f"$JS.API.STREAM.INFO.{STREAM}", b"", timeout=5)
                    name = json.loads((await one._answer(asked)).data)["cluster"]["leader"]
                return servers[int(name.removeprefix("n"))]
            await asyncio.sleep(0.2)

    with servers_of(tmp_path, 3) as servers:
        run(scenario(servers), within_s=170)


@proves("channel.nats-lease")
def test_what_no_server_says_of_a_lease_is_said_in_one_sentence(tmp_path):
    async def scenario(server: NatsServer) -> None:
        async with leases([server], "1") as (one,):

            async def gone(client: Any) -> None:
                await client.jetstream().delete_stream(STREAM)

            await asyncio.to_thread(server.as_admin, gone)
            for asking in (one.newest(HUB), one.write(HUB, b"x", 0)):
                with pytest.raises(Unreachable):
                    await asking

            async def odd(client: Any) -> None:
                said = iter((b"[]", b"{}", b'{"seq":"1"}', b"\xff", b"[" * 5000, b'{"error":3}'))

                async def answers(message: Any) -> None:
                    await message.respond(next(said, b"{}"))

                await client.subscribe("muster.lease.>", cb=answers)
                for _ in range(7):
                    with pytest.raises(Unreachable):
                        await one.write(HUB, b"x", 0)

            async with one._reached() as client:
                await odd(client)

    with NatsServer(tmp_path) as server:
        run(scenario(server))
