"""What a NATS server can do, and have done to it: it is there or it is said, and nothing waits."""

import asyncio
import contextlib
import hashlib
import signal
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any

import pytest
from tests.channel.nats_server import NatsServer
from tests.channel.rigs import run
from tests.channel.slow_line import SlowLine
from tests.channel.test_post import nats_post, unexpected, visitor
from tests.promise import proves

from muster.channel.base import Post, Visitor
from muster.errors import Malformed, Unreachable
from muster.limits import POST_TAKEN_MAX

pytest.importorskip("nats", reason="pip install 'muster-fleet[nats]'")
from muster.channel import nats, nats_client


@pytest.fixture
def server(tmp_path: Path) -> Iterator[NatsServer]:
    with NatsServer(tmp_path) as server:
        yield server


@contextlib.asynccontextmanager
async def posts(server: NatsServer, *names: str, **more: Any) -> AsyncIterator[tuple[Post, ...]]:
    found = tuple(nats_post(server, name, **more) for name in names)
    try:
        yield found
    finally:
        for post in found:
            await post.close()


async def bodies(post: Post) -> list[bytes]:
    return [each.body for each in await post.take()]


@proves("channel.nats-names")
def test_a_packet_that_is_put_again_lies_there_once_and_a_name_taken_before_costs_nothing(server):
    async def scenario() -> None:
        async with posts(server, "near", "far") as (near, far):
            await near.put(b"one", to="far")
            await near.put(b"one", to="far")
            assert await bodies(far) == [b"one"]

            async def take_the_name(client: Any) -> None:
                name = hashlib.sha256(b"two").hexdigest()
                where, headers = "muster.box.far.evil", {"Nats-Msg-Id": name}
                await client.jetstream().publish(where, b"nothing", headers=headers)

            server.as_admin(take_the_name)
            await near.put(b"two", to="far")
            assert set(await bodies(far)) == {b"one", b"nothing", b"two"}

    run(scenario())


@proves("channel.nats-faults")
def test_a_server_that_lost_all_of_it_takes_and_gives_what_comes_next(server):
    async def scenario() -> None:
        async with posts(server, "near", "far") as (near, far):
            await near.put(b"one", to="far")
            (one,) = await far.take()
            server.kill()
            server.wipe()
            server.start()
            with contextlib.suppress(Unreachable):
                await far.ack([one.id])
            while (got := await tried(far)) is None:
                pass
            assert got == []
            await near.put(b"two", to="far")
            assert await bodies(far) == [b"two"]

            async def remove(client: Any) -> None:
                await client.jetstream().delete_stream("MUSTER_BOX_far")

            server.as_admin(remove)
            # Between one look and the next the mailbox is made again.
            await far.ack(["1"])
            assert await bodies(far) == []
            await near.put(b"three", to="far")
            assert await bodies(far) == [b"three"]

    run(scenario())


async def tried(post: Post) -> list[bytes] | None:
    try:
        return await bodies(post)
    except Unreachable:
        await asyncio.sleep(0.05)
        return None


@proves("channel.nats-faults")
def test_what_was_taken_and_not_acknowledged_comes_again_to_whoever_begins_anew(
    server, monkeypatch
):
    monkeypatch.setattr(nats_client, "TAKEN_S", 1)

    async def scenario() -> None:
        async with posts(server, "near", "far") as (near, far):
            for packet in (b"one", b"two"):
                await near.put(packet, to="far")
            one, _ = await far.take()
            await far.ack([one.id])
        async with posts(server, "far") as (far,):
            while not (found := await bodies(far)):
                await far.news(urgent=False)
            assert found == [b"two"]

    run(scenario())


@proves("channel.nats-said")
def test_a_server_that_stands_still_is_said_and_works_again_when_it_goes_on(server, monkeypatch):
    monkeypatch.setattr(nats_client, "ANSWER_S", 1.0)

    async def scenario() -> None:
        async with posts(server, "near", "far") as (near, far):
            await near.put(b"one", to="far")
            server.signal(signal.SIGSTOP)
            try:
                for work in (near.put(b"two", to="far"), far.take(), far.ack(["1"])):
                    with pytest.raises(Unreachable, match="no answer"):
                        await work
            finally:
                server.signal(signal.SIGCONT)
            await near.put(b"two", to="far")
            while set(await bodies(far)) != {b"one", b"two"}:
                await far.news(urgent=False)

    run(scenario())


@proves("channel.nats-said")
def test_whoever_waits_for_news_is_woken_when_the_server_dies(server):
    async def scenario() -> None:
        async with posts(server, "far") as (far,):
            assert await bodies(far) == []
            waiting = asyncio.create_task(far.news(urgent=False))
            await asyncio.sleep(0.1)
            server.kill()
            await waiting
            with pytest.raises(Unreachable):
                await far.take()

    run(scenario())


@proves("channel.nats-said")
def test_whoever_waits_for_an_answer_hears_at_once_that_the_server_died(server, monkeypatch):
    async def scenario() -> None:
        async with posts(server, "near") as (near,):
            await near.put(b"one", to="far")
            monkeypatch.setattr(nats_client, "ANSWER_S", 3600.0)
            client: Any = near
            server.signal(signal.SIGSTOP)
            waits = [asyncio.create_task(near.put(b"%d" % n, to="far")) for n in range(3)]
            while len(client._server._gone.waiting) < 3:  # noqa: ASYNC110 - it rings no bell
                await asyncio.sleep(0.01)
            server.kill()
            for each in waits:
                with pytest.raises(Unreachable):
                    await each
            assert not client._server._gone.waiting

    run(scenario())


@proves("channel.nats-said")
@pytest.mark.parametrize(
    "said",
    [b"", b"HTTP/1.1 400 Bad Request\r\n\r\n", b"INFO {}\r\n", b"INFO []\r\n", b"INFO \xff\r\n",
     b"INFO " + b"x" * 200_000, b'INFO {"max_payload":"a"}\r\nPONG\r\n'],
    ids=["nothing", "http", "empty", "list", "no-text", "long", "odd"],
)  # fmt: skip
def test_what_is_no_server_of_nats_is_said_soon(said: bytes, monkeypatch):
    monkeypatch.setattr(nats_client, "CONNECT_S", 1)

    async def scenario() -> None:
        async def greet(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            greeted.append(asyncio.current_task())
            writer.write(said)
            with contextlib.suppress(ConnectionError):
                await reader.read(100_000)
                writer.close()
                await writer.wait_closed()

        greeted: list[Any] = []
        listener = await asyncio.start_server(greet, "127.0.0.1", 0)
        port = listener.sockets[0].getsockname()[1]
        post = nats.open_channel(
            nats.Options(place=f"nats://127.0.0.1:{port}"), Visitor("far", Path(), unexpected)
        )
        with pytest.raises(Unreachable, match="the NATS server"):
            await post.take()
        await post.close()
        listener.close()
        await listener.wait_closed()
        await asyncio.gather(*greeted)

    run(scenario())


@proves("channel.nats-faults")
def test_what_a_packet_says_in_its_headers_keeps_nothing_else_away(server):
    async def scenario() -> None:
        async with posts(server, "near", "far") as (near, far):
            await near.put(b"first", to="far")

            async def odd(client: Any) -> None:
                for number in range(2 * POST_TAKEN_MAX):
                    headers = {"Status": ("100", "503", "404")[number % 3], "Description": "x"}
                    await client.jetstream().publish(
                        "muster.box.far.evil", b"%d" % number, headers=headers
                    )

            server.as_admin(odd)
            await near.put(b"last", to="far")
            found: set[bytes] = set()
            while len(found) < 2 * POST_TAKEN_MAX + 2:
                taken = await far.take()
                assert taken, "everything comes, one look after another"
                found |= {each.body for each in taken}
                await far.ack([each.id for each in taken])
            assert {b"first", b"last"} <= found

    run(scenario())


@proves("channel.nats-login")
@pytest.mark.parametrize("info", ["{}", '{"tls_required":false}', '{"tls_required":0}'])
def test_no_password_goes_in_the_clear_where_tls_is_wanted_and_not_begun(info: str, tmp_path: Path):
    async def scenario() -> None:
        heard = bytearray()
        over = asyncio.Event()

        async def greet(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            writer.write(f"INFO {info}\r\n".encode())
            with contextlib.suppress(ConnectionError):
                while part := await reader.read(4096):
                    heard.extend(part)
            writer.close()
            with contextlib.suppress(ConnectionError):
                await writer.wait_closed()
            over.set()

        listener = await asyncio.start_server(greet, "127.0.0.1", 0)
        port = listener.sockets[0].getsockname()[1]
        file = tmp_path / "login"
        file.write_text("me:SECRET\n")
        options = nats.Options(place=f"tls://127.0.0.1:{port}", credentials=str(file))
        post = nats.open_channel(options, Visitor("far", Path(), unexpected))
        with pytest.raises(Unreachable, match="begins no TLS"):
            await post.take()
        await post.close()
        await over.wait()
        assert heard == b""
        listener.close()
        await listener.wait_closed()

    run(scenario())


@proves("channel.nats-said")
@pytest.mark.parametrize("odd", [RecursionError(), OverflowError()])
def test_what_a_server_says_that_cannot_be_read_is_said_in_our_words(odd: Exception):
    client = nats_client.NatsClient("it", "", lambda: nats_client.Login((), {}))
    with pytest.raises(Unreachable, match="it gives no answer"), client._said():
        raise odd


@proves("channel.nats-said")
def test_closing_waits_for_no_server_that_is_silent(monkeypatch):
    monkeypatch.setattr(nats_client, "CONNECT_S", 600)

    async def scenario() -> None:
        came, over = asyncio.Event(), asyncio.Event()

        async def silent(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            came.set()
            with contextlib.suppress(ConnectionError):
                await reader.read()
            writer.close()
            with contextlib.suppress(ConnectionError):
                await writer.wait_closed()
            over.set()

        listener = await asyncio.start_server(silent, "127.0.0.1", 0)
        port = listener.sockets[0].getsockname()[1]
        place = nats.Options(place=f"nats://127.0.0.1:{port}")
        post = nats.open_channel(place, Visitor("far", Path(), unexpected))
        taking = asyncio.create_task(post.take())
        await came.wait()
        await post.close()
        with pytest.raises(Unreachable):
            await taking
        await over.wait()
        listener.close()
        await listener.wait_closed()

    run(scenario())


@proves("channel.nats-said")
def test_a_server_without_jetstream_or_with_too_little_room_is_said(tmp_path):
    async def scenario(server: NatsServer, why: str) -> None:
        async with posts(server, "near") as (near,):
            with pytest.raises(Unreachable, match=why):
                await near.put(b"one", to="far")

    with NatsServer(tmp_path / "plain") as plain:
        plain.kill()
        del plain.config["jetstream"]
        plain.start()
        run(scenario(plain, "no JetStream"))
    with NatsServer(tmp_path / "small", max_payload=64 * 1024) as small:
        run(scenario(small, "max_payload"))


@proves("channel.nats-login")
def test_a_file_lets_a_machine_in_and_without_it_nobody_asks_over_and_over(tmp_path):
    async def scenario(server: NatsServer, login: str) -> None:
        file = tmp_path / "login"
        file.write_text(f"{login}\n")
        async with posts(server, "far", credentials=str(file)) as (far,):
            assert await bodies(far) == []
        for text in ("wrong", "a:wrong", ""):
            file.write_text(text)
            async with posts(server, "far", credentials=str(file)) as (far,):
                with pytest.raises(Unreachable, match="uthorization"):
                    await far.take()
        async with posts(server, "far", credentials=str(tmp_path / "none")) as (far,):
            with pytest.raises(Unreachable, match="No such file"):
                await far.take()
        said = (server.folder / "log").read_text()
        assert said.count("authentication error") <= 6, "each was tried once, or once again"

    users = {"user": "a", "password": "secret"}
    with NatsServer(tmp_path / "user", authorization=users) as server:
        run(scenario(server, "a:secret"))
    with NatsServer(tmp_path / "token", authorization={"token": "t0"}) as server:
        run(scenario(server, "t0"))


@proves("channel.nats-said")
@pytest.mark.parametrize(
    "text", ["", "Host:4222", "http://x:1", "nats://me:secret@x:4222", "nats://x:1,", "nats://x y"]
)
def test_a_place_is_a_server_and_never_holds_a_password(text: str):
    with pytest.raises(Malformed, match="NATS server"):
        nats.Options().check_place(text)
    assert nats.Options().check_place("nats://a:4222, tls://[::1]:4222")


@proves("channel.nats-faults")
def test_what_came_over_one_connection_is_acknowledged_over_no_other(server):
    async def scenario() -> None:
        async with posts(server, "near", "far") as (near, far):
            await near.put(b"one", to="far")
            (one,) = await far.take()
            # The connection is cut between the two, and another is made by the asking itself.
            assert far._server._client is not None
            await far._server._client.close()
            await far.ack([one.id])
            js = (await near._server._reach()).jetstream()
            about = await js.consumer_info("MUSTER_BOX_far", "box")
            assert about.num_ack_pending == 1
            assert about.ack_floor.stream_seq == 0

    run(scenario())


@contextlib.asynccontextmanager
async def behind(line: SlowLine, server: NatsServer, machine: str) -> AsyncIterator[Post]:
    """The mailbox of a machine that reaches its server over a slow line."""
    async with line.opened():
        place = nats.Options(place=f"nats://127.0.0.1:{line.port}")
        post = nats.open_channel(place, visitor(machine, server.folder))
        try:
            yield post
        finally:
            await post.close()


async def left_for_far(server: NatsServer, packets: list[bytes]) -> None:
    async with posts(server, "near") as (near,):
        for begin in range(0, len(packets), 50):
            await asyncio.gather(*(near.put(p, to="far") for p in packets[begin : begin + 50]))


async def drained(post: Post, count: int) -> list[bytes]:
    """Everything, as it is dealt with: look, acknowledge, and look again."""
    found: list[bytes] = []
    while len(found) < count:
        taken = await post.take()
        await post.ack([each.id for each in taken])
        found += [each.body for each in taken]
        if not taken:
            await post.news(urgent=False)
    return found


@proves("channel.nats-slow")
def test_more_than_comes_through_within_a_wait_comes_over_a_slow_line_and_each_of_it_once(
    server, monkeypatch
):
    monkeypatch.setattr(nats_client, "ANSWER_S", 2.0)
    monkeypatch.setattr(nats_client, "TAKEN_S", 3)
    monkeypatch.setattr(nats, "_PULL_S", 0.5)
    packets = [b"%06d" % number + bytes(20_000) for number in range(600)]
    line = SlowLine(server.port, 2_000_000)

    async def scenario() -> None:
        await left_for_far(server, packets)
        async with behind(line, server, "far") as far:
            assert await far.take(1)
            whole = sum(map(len, packets))
            assert line.carried < 0.9 * whole, "the first is dealt with before all of it is read"
            assert sorted(await drained(far, len(packets))) == packets
            assert line.carried < 1.2 * whole, "what waits here for its turn is not sent again"

    run(scenario(), within_s=40)


@proves("channel.nats-slow")
def test_what_came_counts_where_the_line_is_too_slow_for_the_rest_of_a_pull(server, monkeypatch):
    monkeypatch.setattr(nats_client, "ANSWER_S", 1.0)
    monkeypatch.setattr(nats_client, "TAKEN_S", 2)
    packets = [b"%06d" % number + bytes(20_000) for number in range(90)]
    line = SlowLine(server.port, 800_000)

    async def scenario() -> None:
        await left_for_far(server, packets)
        async with behind(line, server, "far") as far:
            assert sorted(set(await drained(far, len(packets)))) == packets

    run(scenario(), within_s=40)


@proves("channel.nats-slow")
def test_what_was_read_is_taken_while_no_more_comes_and_not_once_the_connection_is_gone(
    server, monkeypatch
):
    monkeypatch.setattr(nats_client, "ANSWER_S", 1.0)

    async def scenario() -> None:
        async with posts(server, "near", "far") as (near, far):
            for packet in (b"one", b"two"):
                await near.put(packet, to="far")
            (first,) = await far.take(1)
            server.signal(signal.SIGSTOP)
            try:
                assert {each.body for each in await far.take()} == {b"one", b"two"}
            finally:
                server.signal(signal.SIGCONT)
            await far.ack([first.id])
            server.kill()
            with pytest.raises(Unreachable):
                await far.take()

    run(scenario())


@proves("channel.nats-faults")
def test_what_is_larger_than_is_asked_for_at_once_keeps_nothing_behind_it_away(tmp_path):
    async def scenario(server: NatsServer) -> None:
        async with posts(server, "near", "far") as (near, far):
            assert await bodies(far) == []

            async def leave(client: Any) -> None:
                js = client.jetstream()
                config = (await js.stream_info("MUSTER_BOX_far")).config
                config.max_msg_size = 8 * 1024 * 1024
                await js.update_stream(config)
                await js.publish("muster.box.far.near", bytes(3 * 1024 * 1024))

            server.as_admin(leave)
            await near.put(b"behind it", to="far")
            while not (found := await bodies(far)):
                await far.news(urgent=False)
            assert found == [b"behind it"]

    with NatsServer(tmp_path, max_payload=4 * 1024 * 1024) as server:
        run(scenario(server))
