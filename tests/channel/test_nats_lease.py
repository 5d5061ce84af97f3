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
def test_what_each_wrote_last_is_read_at_one_moment_that_is_not_before_the_newest(tmp_path):
    async def scenario() -> None:
        async with leases([server], "1", "2", "3") as (one, other, third):
            assert await one.last_of(HUB, ["1" * 64]) == (0, [])
            first = await written(one, b"a", 0)
            second = await written(other, b"b", first)
            newest = await written(third, b"c", second)
            revision, found = await one.last_of(HUB, ["1" * 64, "2" * 64, "f" * 64])
            assert revision == newest
            assert sorted(found) == [
                Leased(first, "1" * 64, b"a"), Leased(second, "2" * 64, b"b"),
            ]  # fmt: skip

            async def newer(of: str) -> Leased:
                # As a server knows it that the one which answers next has not caught up with.
                return Leased(newest + 1, "4" * 64, b"d")

            one.newest = newer
            with pytest.raises(Unreachable, match="of before"):
                await one.last_of(HUB, ["1" * 64, "2" * 64])

    with NatsServer(tmp_path) as server:
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
            for each, said in ((one, b"y"), (other, b"z")):
                # Or refused, where what another one wrote is still on its way.
                with contextlib.suppress(Unreachable):
                    assert await each.write(HUB, said, revision) is None
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


@contextlib.asynccontextmanager
async def greeting(version: object) -> AsyncIterator[tuple[NatsLeases, list[bytes]]]:
    """Leases at what says that it is a server of this version, and what it heard but greetings."""
    heard: list[bytes] = []

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        info = {"server_id": "x", "version": version, "max_payload": 8 * 1024 * 1024}
        writer.write(b"INFO %s\r\n" % json.dumps(info | {"headers": True}).encode())
        # Until whoever asks is gone.
        while line := await reader.readline():
            if line.startswith(b"PING"):
                writer.write(b"PONG\r\n")
            elif not line.startswith(b"CONNECT"):
                heard.append(line)
        writer.close()
        ended.set()

    ended = asyncio.Event()
    server = await asyncio.start_server(serve, "127.0.0.1", 0)
    url = f"nats://127.0.0.1:{server.sockets[0].getsockname()[1]}"
    none: Any = None
    visitor = Visitor("1" * 64, Path(), unexpected, none, none)
    one = nats.open_channel(nats.Options(place=url), visitor).leases()
    try:
        yield one, heard
    finally:
        await one.close()
        await ended.wait()
        server.close()


@proves("channel.nats-lease-version")
@pytest.mark.parametrize(
    "version",
    ["2.10.29", "2.9.25", "1.99.0", "", "2", "v", "2.x", "-2.11", "9" * 5000, "2." + "9" * 5000,
     "0.2.11", None, 3, ["2.11.0"], "\u0662.\u0661\u0661.0"],
)  # fmt: skip
def test_a_server_that_knows_no_comparison_over_all_writers_is_asked_for_no_lease(version):
    async def scenario() -> None:
        async with greeting(version) as (one, heard):
            for asking in (one.newest(HUB), one.write(HUB, b"x", 0), one.keep()):
                with pytest.raises(Unreachable, match=r"2\.11") as refused:
                    await asking
                assert len(str(refused.value)) < 300
            assert heard == []

    run(scenario())


@proves("channel.nats-lease-version")
@pytest.mark.parametrize("version", ["2.11.0", "v2.11.3-RC.1", "2.15.0-dev", "3.0.0"])
def test_a_server_that_knows_it_is_asked(version):
    async def scenario() -> None:
        async with greeting(version) as (one, heard):
            # It is nobody who answers.
            with pytest.raises(Unreachable, match="no answer"):
                await one.newest(HUB)
            assert any(line.startswith((b"PUB", b"HPUB")) for line in heard)

    run(scenario())


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
