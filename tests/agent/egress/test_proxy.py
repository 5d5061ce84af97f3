"""The proxy over real sockets: what is let, how it goes through, and how it ends."""

import asyncio
import socket
from contextlib import suppress
from dataclasses import replace

import pytest
from tests.agent.egress import hellos
from tests.agent.egress.rig import PUBLIC, Rig, echo
from tests.promise import proves

from muster.agent.egress import Bounds, Decision, Rules

HELLO = hellos.hello("allowed.test")
DATA = hellos.records(b"x" * 1000, kind=23)


@proves("egress.tunnels")
def test_a_tunnel_to_an_allowed_host_carries_both_ways_and_is_told_when_it_ends(run):
    async def main():
        async with Rig() as rig:
            reader, writer = await rig.tunnel(b"Allowed.TEST.:443")
            writer.write(HELLO + DATA)
            writer.write_eof()
            assert await reader.read(-1) == HELLO + DATA
            writer.close()
            (told,) = await rig.over()
            size = len(HELLO + DATA)
            assert replace(told, ms=0) == Decision("allowed.test", 443, True, "", size, size)
            assert rig.dialled == [(PUBLIC, 443)]

    run(main())


@proves("egress.tunnels")
def test_a_megabyte_each_way_arrives_whole_though_nobody_hurries(run):
    async def main():
        async with Rig() as rig:
            reader, writer = await rig.tunnel()
            whole = HELLO + DATA * 3000

            async def give():
                for at in range(0, len(whole), 50_000):
                    writer.write(whole[at : at + 50_000])
                    await writer.drain()
                    await asyncio.sleep(0)
                writer.write_eof()

            giving = asyncio.ensure_future(give())
            got = b""
            while data := await reader.read(7_000):
                got += data
            await giving
            writer.close()
            assert got == whole

    run(main())


@proves("egress.tunnels")
@pytest.mark.parametrize("first", ["program", "host"])
def test_an_end_of_one_direction_leaves_the_other_open(run, first):
    async def serve(reader, writer):
        if first == "host":
            writer.write(b"host")
            writer.write_eof()
            assert (await reader.read(-1)).endswith(b"program")
        else:
            assert (await reader.read(-1)).endswith(b"program")
            writer.write(b"host")

    async def main():
        async with Rig(serve) as rig:
            reader, writer = await rig.tunnel()
            writer.write(HELLO)
            if first == "host":
                assert await reader.read(-1) == b"host"
                writer.write(DATA + b"program")
                writer.write_eof()
            else:
                writer.write(DATA + b"program")
                writer.write_eof()
                assert await reader.read(-1) == b"host"
            (told,) = await rig.over()
            assert told.allowed
            assert not told.why
            writer.close()

    run(main())


@proves("egress.tunnels")
def test_what_was_said_last_arrives_though_it_is_read_late(run):
    async def serve(reader, writer):
        await reader.read(-1)
        writer.write(bytes(60_000))

    async def main():
        async with Rig(serve, kernel_bytes=4_608) as rig:
            link = socket.socket()
            link.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4_608)
            link.setblocking(False)
            loop = asyncio.get_running_loop()
            await loop.sock_connect(link, rig.address[:2])
            await loop.sock_sendall(link, b"CONNECT allowed.test:9418 HTTP/1.1\r\n\r\n")
            link.shutdown(socket.SHUT_WR)
            # Until all of it is the proxy's, and everybody had a turn.
            turns = 0
            while rig.proxy.received_bytes < 60_000 or turns < 500:
                turns += rig.proxy.received_bytes == 60_000
                await asyncio.wait([asyncio.ensure_future(asyncio.sleep(0))])
            got = b""
            while data := await loop.sock_recv(link, 2_000):
                got += data
            assert got.endswith(b"\r\n\r\n" + bytes(60_000))
            link.close()

    run(main())


@proves("egress.tunnels")
def test_who_does_not_read_stops_whoever_writes_and_nobody_else(run):
    async def main():
        async with Rig() as rig:
            _, writer = await rig.tunnel()
            writer.write(HELLO + DATA)
            # The systems hold some of it, and the proxy; then nothing more is taken.
            with pytest.raises(TimeoutError):
                for _ in range(2500):
                    writer.write(bytes(100_000))
                    async with asyncio.timeout(1):
                        await writer.drain()
            assert rig.told == []
            assert 100_000 < rig.proxy.sent_bytes < 60_000_000
            other, beside = await rig.tunnel()
            beside.write(HELLO)
            beside.write_eof()
            assert await other.read(-1) == HELLO
            beside.close()
            writer.transport.abort()

    run(main())


@proves("egress.tunnels")
def test_a_server_that_speaks_first_is_heard_where_no_tls_is_due(run):
    async def serve(reader, writer):
        writer.write(b"SSH-2.0-host\r\n")
        await echo(reader, writer)

    async def main():
        async with Rig(serve) as rig:
            reader, writer = await rig.tunnel(b"allowed.test:9418")
            assert await reader.readline() == b"SSH-2.0-host\r\n"
            writer.write(b"SSH-2.0-program\r\n")
            assert await reader.readline() == b"SSH-2.0-program\r\n"
            writer.close()
            (told,) = await rig.over()
            assert told.allowed

    run(main())


@proves("egress.plain-http")
def test_a_plain_request_goes_on_anew_and_its_answer_comes_back(run):
    heard = []

    async def serve(reader, writer):
        heard.append(await reader.readuntil(b"\r\n\r\n") + await reader.readexactly(3))
        writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nhi")

    async def main():
        async with Rig(serve) as rig:
            said = (
                b"POST http://allowed.test/x?key=secret HTTP/1.1\r\nHost: evil.test\r\n"
                b"Proxy-Authorization: x\r\nConnection: keep-alive\r\nContent-Length: 3\r\n\r\nabc"
            )
            answer = await rig.ask(said + b"GET http://allowed.test/hidden HTTP/1.1\r\n\r\n")
            assert answer == b"HTTP/1.1 200 OK\r\nConnection: close\r\nContent-Length: 2\r\n\r\nhi"
            (told,) = await rig.over()
            assert (told.host, told.port, told.allowed, told.why) == ("allowed.test", 80, True, "")
            assert "secret" not in repr(rig.told)
            # What the server said, without our own line.
            assert told.received_bytes == len(answer) - len(b"Connection: close\r\n")
        expected = b"POST /x?key=secret HTTP/1.1\r\nHost: allowed.test\r\nContent-Length: 3\r\nConnection: close\r\n\r\nabc"
        assert heard == [expected]

    run(main())


@proves("egress.plain-http")
def test_a_body_in_chunks_arrives_and_one_that_ends_too_soon_is_cut_off(run):
    heard = []

    async def serve(reader, writer):
        heard.append(await reader.read(-1) if heard else await reader.readuntil(b"0\r\n\r\n"))
        writer.write(b"HTTP/1.1 204 No Content\r\n\r\n")

    async def main():
        post = b"POST http://allowed.test/ HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n3;x=y\r\nabc\r\n"
        async with Rig(serve) as rig:
            assert b"204" in await rig.ask(post, b"0\r\n\r\n", end=True)
            assert b"400" in await rig.ask(post, end=True)
            assert [each.why for each in await rig.over(2)] == [
                "",
                "the body of the request ends in its middle",
            ]
        assert heard[0].endswith(b"\r\n\r\n3\r\nabc\r\n0\r\n\r\n")

    run(main())


@proves("egress.plain-http")
def test_an_answer_that_comes_before_the_end_of_the_request_is_read_whole(run):
    answer = b"HTTP/1.1 413 Too Large\r\nConnection: close\r\nContent-Length: 0\r\n\r\n"

    async def serve(reader, writer):
        await reader.readuntil(b"\r\n\r\n")
        writer.write(answer)
        writer.write_eof()
        await asyncio.Event().wait()

    async def main():
        async with Rig(serve) as rig:

            def client():
                head = b"POST http://allowed.test/ HTTP/1.1\r\nContent-Length: 20000000\r\n\r\n"
                with socket.create_connection(rig.address[:2], timeout=20) as link:
                    link.sendall(head + bytes(12_000_000))
                    link.shutdown(socket.SHUT_WR)
                    return link.recv(1000)

            assert await asyncio.to_thread(client) == answer

    run(main())


@proves("egress.plain-http")
def test_an_answer_that_is_cut_off_has_nothing_of_ours_in_it(run):
    async def serve(reader, writer):
        await reader.readuntil(b"\r\n\r\n")
        writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: 900000\r\n\r\n" + b"x" * 50_000)
        await writer.drain()
        await reader.read(1)

    async def main():
        async with Rig(serve, bounds=Bounds(idle_s=2)) as rig:
            answer = await rig.ask(b"GET http://allowed.test/ HTTP/1.1\r\n\r\n")
            assert answer.endswith(b"x" * 50_000)
            assert (await rig.over())[0].why == "nothing moved for too long"

    run(main())


# --- bounds ------------------------------------------------------------------------------------


@proves("egress.bounded")
def test_what_the_attempt_may_send_and_receive_is_counted_over_all_its_connections(run):
    async def main():
        for bounds in (Bounds(sent_bytes=100_000), Bounds(received_bytes=100_000)):
            async with Rig(bounds=bounds) as rig:
                reader, writer = await rig.tunnel()
                writer.write(HELLO + DATA + bytes(60_000))
                await reader.readexactly(len(HELLO + DATA) + 60_000)
                other, beside = await rig.tunnel()
                beside.write(HELLO + DATA + bytes(300_000))
                with suppress(ConnectionError):
                    await other.read(-1)
                told = await rig.over()
                assert "100000 bytes" in told[0].why
                assert rig.proxy.sent_bytes <= bounds.sent_bytes
                assert rig.proxy.received_bytes <= bounds.received_bytes
                beside.close()
                writer.close()
        # What is used up stays so.
        async with Rig(bounds=Bounds(sent_bytes=10)) as rig:
            get = b"GET http://allowed.test/ HTTP/1.1\r\n\r\n"
            assert b"503" in await rig.ask(get)
            assert b"503" in await rig.ask(get)
            assert len(rig.dialled) == 1

    run(main())


@proves("egress.bounded")
@pytest.mark.parametrize(
    ("said", "bounds", "why"),
    [
        (b"", Bounds(head_s=0.1), "did not come in time"),
        (b"GET http://allowed.test/ HTTP/1.1\r\nX: ", Bounds(head_s=0.1), "did not come in time"),
        (b"CONNECT allowed.test:443 HTTP/1.1\r\n\r\n", Bounds(hello_s=0.1), "hello did not come in time"),
        (b"CONNECT allowed.test:443 HTTP/1.1\r\n\r\n" + HELLO[:50], Bounds(hello_s=0.1), "hello did not"),
        (b"CONNECT allowed.test:443 HTTP/1.1\r\n\r\n" + HELLO, Bounds(idle_s=0.1), "nothing moved"),
        (b"CONNECT allowed.test:9418 HTTP/1.1\r\n\r\n", Bounds(idle_s=0.1), "nothing moved"),
    ],
)  # fmt: skip
def test_who_says_nothing_is_not_waited_for(run, said, bounds, why):
    async def main():
        async with Rig(bounds=bounds) as rig:
            await rig.ask(said)
            assert why in (await rig.over())[0].why

    run(main())


@proves("egress.bounded")
def test_a_head_that_drips_is_cut_off_when_its_time_is_over(run):
    async def main():
        async with Rig(bounds=Bounds(head_s=0.3)) as rig:
            reader, writer = await rig.open()

            async def drip():
                for each in b"GET http://allowed.test/" + b"a" * 10_000:
                    writer.write(bytes([each]))
                    await asyncio.sleep(0.01)

            dripping = asyncio.ensure_future(drip())
            assert b"400" in await reader.readline()
            dripping.cancel()
            writer.close()
            assert rig.dialled == []

    run(main())


@proves("egress.bounded")
def test_a_connection_for_which_the_daemon_has_no_descriptor_to_spare_is_refused(run):
    async def main():
        spare = [True, False, True]
        numbers = []

        def is_spare(number):
            numbers.append(number)
            return spare.pop(0)

        async with Rig(is_spare=is_spare) as rig:
            kept = await rig.tunnel()
            said = await rig.ask(b"GET http://allowed.test/ HTTP/1.1\r\n\r\n")
            assert said.startswith(b"HTTP/1.1 503 this machine has too many files open")
            again = await rig.tunnel()
            assert min(numbers) > 2
            for _, writer in (kept, again):
                writer.close()
                await writer.wait_closed()
        assert [each.allowed for each in rig.told if each.why.startswith("this machine")] == [False]

    run(main())


@proves("egress.bounded")
def test_more_connections_than_may_be_are_refused_and_the_others_go_on(run):
    async def main():
        async with Rig(bounds=Bounds(connections=3)) as rig:
            kept = [await rig.tunnel() for _ in range(3)]
            for _ in range(20):
                assert b"503" in await rig.ask(b"GET http://allowed.test/ HTTP/1.1\r\n\r\n")
            assert len(rig.told) == 1
            reader, writer = kept[0]
            writer.write(HELLO)
            writer.write_eof()
            assert await reader.read(-1) == HELLO
            await rig.over(2)
            for _, each in kept:
                each.close()
        (more,) = [each for each in rig.told if each.times > 1]
        assert (more.times, more.allowed) == (19, False)

    run(main())


@proves("egress.bounded")
def test_a_flood_of_refusals_is_told_in_sums(run):
    async def main():
        async with Rig() as rig:
            for number in range(300):
                asked = f"CONNECT {number}.evil.test:443 HTTP/1.1\r\n\r\n"
                assert b"403" in await rig.ask(asked.encode())
        assert len(rig.told) == 101
        assert sum(each.times for each in rig.told) == 300

    run(main())


@proves("egress.bounded")
def test_nothing_runs_after_close_whatever_was_going_on(run):
    async def never(reader, writer):
        await asyncio.Event().wait()

    async def main():
        async with Rig(never) as rig:
            ends = [await rig.open()]
            ends.append(await rig.tunnel())
            ends.append(await rig.tunnel())
            ends[-1][1].write(HELLO + DATA + bytes(3_000_000))
            ends.append(await rig.open())
            ends[-1][1].write(b"GET http://allowed.test/ HTTP/1.1\r\n\r\n")
            await rig.until(lambda: len(rig.dialled) >= 3)
        for reader, writer in ends:
            with suppress(ConnectionError):
                assert await reader.read(-1) == b""
            writer.close()
        assert {each.why for each in rig.told} == {"the attempt was over"}
        with pytest.raises(ConnectionRefusedError):
            await rig.open()

    run(main())


@proves("egress.bounded")
def test_who_was_taken_in_the_moment_of_the_end_is_cut_off(run):
    async def main():
        async with Rig() as rig:
            _, writer = await rig.open()
            await rig.proxy.close()
            ours, theirs = socket.socketpair()
            late = await asyncio.open_connection(sock=ours)
            rig.proxy._taken(*late)
            with suppress(ConnectionError):
                await late[1].wait_closed()
            assert rig.proxy._tasks == set()
            assert theirs.recv(10) == b""
            theirs.close()
            writer.close()

    run(main())


@proves("egress.bounded")
def test_a_name_that_hangs_holds_up_nothing_but_names(run):
    async def main():
        async with Rig(rules=Rules.read(["*.below.test", "allowed.test"])) as rig:
            opened, known = asyncio.Event(), rig.proxy.way._resolve

            async def hangs(host, port):
                found = await known("allowed.test", port)
                await opened.wait()
                return found

            rig.proxy.way._resolve = hangs
            ends = []
            for number in range(6):
                ends.append(await rig.open())
                ends[-1][1].write(f"CONNECT {number}.below.test:443 HTTP/1.1\r\n\r\n".encode())
            await rig.until(lambda: len(rig.looked_up) >= 2)
            for _ in range(50):
                await asyncio.sleep(0)
            assert len(rig.looked_up) == 2
            opened.set()
            reader, writer = await rig.tunnel()
            for _, each in [*ends, (reader, writer)]:
                each.close()

    run(main())
