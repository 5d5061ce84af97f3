"""What a program tries that wants out: each refused, told, and nobody the worse for it."""

import asyncio
import ssl
from contextlib import suppress

import pytest
from tests.agent.egress import hellos
from tests.agent.egress.rig import Rig
from tests.promise import proves

from muster.agent.egress import Bounds, Rules
from muster.agent.egress.request import read
from muster.agent.egress.tunnel import Tunnel
from muster.agent.egress.way import is_own
from muster.errors import Denied, Malformed

HELLO = hellos.hello("allowed.test")


def connect(target: bytes, *lines: bytes) -> bytes:
    return b"CONNECT " + target + b" HTTP/1.1\r\n" + b"".join(lines) + b"\r\n"


# The 31 of the research, and what was still to be added there.
ASKED = {
    "other_host": connect(b"evil.test:443"),
    "address": connect(b"127.0.0.1:443"),
    "address_public": connect(b"192.0.2.1:443"),
    "address_6": connect(b"[::1]:443"),
    "address_6_bare": connect(b"::1:443"),
    "address_mapped": connect(b"[::ffff:127.0.0.1]:443"),
    "suffix": connect(b"evilallowed.test:443"),
    "suffix_2": connect(b"allowed.test.evil.test:443"),
    "above_a_star": connect(b"below.test:443"),
    "nul": connect(b"evil.test\x00.allowed.test:443"),
    "nul_2": connect(b"evil.test\x00allowed.test:443"),
    "crlf": connect(b"evil.test:443\r\nX: allowed.test"),
    "crlf_encoded": connect(b"allowed.test%0d%0aX:443"),
    "user_info": connect(b"allowed.test@evil.test:443"),
    "port": connect(b"allowed.test:22"),
    "capitals": connect(b"EVIL.test:443"),
    "decimal": connect(b"2130706433:443"),
    "hexadecimal": connect(b"0x7f000001:443"),
    "octal": connect(b"0177.0.0.1:443"),
    "short": connect(b"127.1:443"),
    "dot_at_the_end": connect(b"evil.test.:443"),
    "address_dot": connect(b"127.0.0.1.:443"),
    "space": connect(b"allowed.test:443 evil.test:443"),
    "ideographic_dot": connect("allowed\u3002test:443".encode()),
    "backslash": connect(b"evil.test\\.allowed.test:443"),
    "tab": connect(b"evil.test\t.allowed.test:443"),
    "localhost": connect(b"localhost:443"),
    "to_loopback": connect(b"rebind.test:443"),
    "to_private": connect(b"inside.test:443"),
    "unknown_name": connect(b"nobody.below.test:443"),
    "long": connect(b"a" * 300 + b".below.test:443"),
    "empty": connect(b":443"),
    "no_port": connect(b"allowed.test"),
    "negative_port": connect(b"allowed.test:-1"),
    "large_port": connect(b"allowed.test:65979"),
    "percent": connect(b"evil%2etest:443"),
    "tunnel_to_http": connect(b"allowed.test:80"),
    "tunnel_with_a_body": connect(b"allowed.test:443", b"Content-Length: 9\r\n"),
    "get_other": b"GET http://evil.test/ HTTP/1.1\r\n\r\n",
    "get_with_a_lie": b"GET http://evil.test/ HTTP/1.1\r\nHost: allowed.test\r\n\r\n",
    "get_relative": b"GET / HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\n",
    "get_relative_allowed": b"GET / HTTP/1.1\r\nHost: allowed.test\r\n\r\n",
    "get_https": b"GET https://allowed.test/ HTTP/1.1\r\n\r\n",
    "get_file": b"GET file:///etc/passwd HTTP/1.1\r\n\r\n",
    "get_address": b"GET http://169.254.169.254/latest/meta-data/ HTTP/1.1\r\n\r\n",
    "get_user_info": b"GET http://allowed.test@evil.test/ HTTP/1.1\r\n\r\n",
    "get_two_addresses": b"GET http://allowed.test http://evil.test HTTP/1.1\r\n\r\n",
    "header_folded": b"GET http://allowed.test/ HTTP/1.1\r\nX: y\r\n Host: z\r\n\r\n",
    "header_bare_lf": b"GET http://allowed.test/ HTTP/1.1\nHost: z\n\n\r\n\r\n",
    "header_bare_cr": b"GET http://allowed.test/ HTTP/1.1\r\nX: y\rHost: z\r\n\r\n",
    "headers_many": b"GET http://allowed.test/ HTTP/1.1\r\n" + b"X: y\r\n" * 5000 + b"\r\n",
    "header_huge": b"GET http://allowed.test/ HTTP/1.1\r\nX: " + b"y" * 60_000 + b"\r\n\r\n",
    "header_endless": b"GET http://allowed.test/ HTTP/1.1\r\nX: " + b"y" * 3_000_000,
    "line_endless": b"G" * 3_000_000,
    "length_twice": b"POST http://allowed.test/ HTTP/1.1\r\nContent-Length: 1\r\ncontent-length: 2\r\n\r\nab",
    "length_and_chunks": b"POST http://allowed.test/ HTTP/1.1\r\nContent-Length: 5\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
    "chunks_hidden": b"POST http://allowed.test/ HTTP/1.1\r\nTransfer-Encoding : chunked\r\n\r\n0\r\n\r\n",
    "chunks_odd": b"POST http://allowed.test/ HTTP/1.1\r\nTransfer-Encoding: chunked, identity\r\n\r\n0\r\n\r\n",
    "socks_5": b"\x05\x01\x00",
    "socks_4": b"\x04\x01\x01\xbb\x7f\x00\x00\x01x\x00",
    "tls": HELLO,
    "http_2": b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" + bytes(9),
    "nothing": b"\r\n\r\n\r\n\r\n",
    "noise": bytes(range(256)) * 40 + b"\r\n\r\n",
}


@proves("egress.hostile")
@pytest.mark.parametrize("name", ASKED)
def test_what_is_not_allowed_reaches_nobody_and_the_proxy_goes_on(run, name):
    heard = []

    async def serve(reader, writer):
        heard.append(await reader.read(1))

    async def main():
        async with Rig(serve) as rig:
            answer = await rig.ask(ASKED[name], end=True)
            # Whoever sends without an end may be cut off before it reads why.
            assert answer.startswith((b"HTTP/1.1 4", b"HTTP/1.1 502 ")) or "endless" in name
            assert rig.dialled == []
            (told,) = await rig.over()
            assert not told.allowed
            assert told.why
            assert "/latest" not in repr(told)
            _, writer = await rig.tunnel()
            writer.write(HELLO)
            writer.close()
            await rig.over(2)
        assert heard == [b"\x16"]

    run(main())


SAID = {
    "fronting": hellos.hello("evil.test"),
    "no_name": hellos.records(hellos.message(hellos.extension(hellos.GREASE))),
    "address_as_a_name": hellos.hello("127.0.0.1"),
    "name_with_nul": hellos.hello("allowed.test\0.evil.test"),
    "two_names": hellos.records(hellos.message(hellos.server_name("allowed.test", "evil.test"))),
    "name_twice": hellos.hello("allowed.test", hellos.server_name("evil.test")),
    "hidden_name": hellos.hello("allowed.test", hellos.extension(hellos.ECH, bytes(200))),
    "second_hello": HELLO + hellos.CHANGE_CIPHER + hellos.hello("evil.test"),
    "no_tls": b"GET / HTTP/1.1\r\nHost: evil.test\r\n\r\n",
    "ssh": b"SSH-2.0-x\r\n",
    "old_hello": b"\x80\x2e\x01\x03\x01" + bytes(60),
    "records_endless": hellos.records(b"\x01\x00\x30\x00" + bytes(12_000), [1] * 12_004),
    "too_long": hellos.records(b"\x01\x01\x00\x00" + bytes(9000)),
    "cut_short": HELLO[:-1],
}


@proves("egress.hostile")
@pytest.mark.parametrize("pieces", ["whole", "bytes"])
@pytest.mark.parametrize("name", SAID)
def test_tls_that_is_not_for_the_host_reaches_nobody(run, name, pieces):
    heard = []

    async def serve(reader, writer):
        heard.append(await reader.read(-1))

    async def main():
        async with Rig(serve) as rig:
            reader, writer = await rig.tunnel()
            with suppress(ConnectionError):
                for each in [SAID[name]] if pieces == "whole" else [bytes([b]) for b in SAID[name]]:
                    writer.write(each)
                    await writer.drain()
                    await asyncio.sleep(0)
                writer.write_eof()
                answer = await reader.read(-1)
                # What a client of TLS can show, where the answer was not cut off with the rest.
                assert answer in {b"\x15\x03\x03\x00\x02\x02\x31", b""}
            (told,) = await rig.over()
            assert (told.host, told.allowed) == ("allowed.test", False)
            assert told.why
            writer.close()
        assert b"evil.test" not in b"".join(heard)
        assert b"".join(heard) in {b"", HELLO, HELLO + hellos.CHANGE_CIPHER}

    run(main())


@proves("egress.hostile")
@pytest.mark.parametrize("name", ["allowed.test", "ALLOWED.test", "allowed.test."])
def test_a_real_client_in_single_bytes_and_odd_spellings_is_let(run, name):
    context = ssl.create_default_context()
    into, out = ssl.MemoryBIO(), ssl.MemoryBIO()
    with pytest.raises(ssl.SSLWantReadError):
        context.wrap_bio(into, out, server_hostname=name).do_handshake()
    said = out.read()

    async def main():
        async with Rig() as rig:
            reader, writer = await rig.tunnel()
            for each in said:
                writer.write(bytes([each]))
                await writer.drain()
                await asyncio.sleep(0)
            writer.write_eof()
            assert await reader.read(-1) == said
            assert (await rig.over())[0].allowed
            writer.close()

    run(main())


@proves("egress.hostile")
def test_a_second_request_behind_the_first_reaches_nobody(run):
    heard = []

    async def serve(reader, writer):
        heard.append(await reader.readuntil(b"\r\n\r\n"))
        # A server that would go on with the next one has it now, or never.
        with suppress(TimeoutError):
            heard.append(await asyncio.wait_for(reader.read(100), 0.3))
        writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n")

    async def main():
        get = b"GET http://allowed.test/%d HTTP/1.1\r\nHost: allowed.test\r\n\r\n"
        async with Rig(serve) as rig:
            answer = await rig.ask(b"".join(get % number for number in range(50)))
            assert answer.count(b"HTTP/1.1") == 1
            assert len(rig.dialled) == 1
        assert len(heard) == 1
        assert b"/0 " in heard[0]

    run(main())


@proves("egress.hostile")
def test_one_name_is_looked_up_once_and_what_was_checked_is_dialled(run):
    answers = [["198.41.0.4"], ["127.0.0.1"]]

    async def main():
        async with Rig() as rig:

            async def turns(host, port):
                rig.looked_up.append(host)
                return answers[len(rig.looked_up) - 1]

            rig.proxy.way._resolve = turns
            _, writer = await rig.tunnel()
            assert rig.looked_up == ["allowed.test"]
            assert rig.dialled == [("198.41.0.4", 443)]
            assert b"403" in await rig.ask(connect(b"allowed.test:443"))
            assert rig.dialled == [("198.41.0.4", 443)]
            writer.close()

    run(main())


@proves("egress.addresses-public")
def test_this_machine_itself_is_reached_by_no_address_unless_its_owner_says_so(run, monkeypatch):
    assert is_own("127.0.0.1")
    assert is_own("0.0.0.0")
    assert not is_own("198.41.0.4")
    monkeypatch.setattr("muster.agent.egress.way.is_own", lambda address: address == "198.41.0.4")

    async def main():
        async with Rig() as rig:
            assert b"itself" in await rig.ask(connect(b"allowed.test:443"))
            assert rig.dialled == []
        own = Rules.read([], local=["allowed.test"])
        async with Rig(rules=own) as rig:
            _, writer = await rig.tunnel()
            writer.close()

    run(main())


@proves("egress.hostile")
def test_many_that_hang_up_at_any_moment_leave_nothing(run):
    async def main():
        said = connect(b"allowed.test:443") + HELLO + hellos.records(bytes(5000), kind=23)
        async with Rig(bounds=Bounds(connections=1000)) as rig:
            for at in range(0, len(said), 211):
                for abort in (False, True):
                    reader, writer = await rig.open()
                    writer.write(said[:at])
                    await writer.drain()
                    if at > 211:
                        with suppress(ConnectionError):
                            await reader.read(10)
                    if abort:
                        writer.transport.abort()
                    writer.close()
            await rig.over(5)

    run(main())


@proves("egress.refusals-say-why")
@pytest.mark.parametrize(
    ("asked", "words"),
    [
        (connect(b"evil.test:443"), b"evil.test:443 is not among what this sandbox may reach"),
        (connect(b"allowed.test:8443"), b"of this host port 443, 80, 9418 is"),
        (connect(b"127.0.0.1:443"), b"an address"),
        (connect(b"inside.test:443"), b"no public address"),
        (connect(b"a.below.test.x:443"), b"not among"),
        (connect(b"nobody.below.test:443"), b"nobody knows where nobody.below.test is"),
        (connect(b"allowed.test:80"), b"http:// address"),
        (b"GET https://allowed.test/ HTTP/1.1\r\n\r\n", b"CONNECT"),
    ],
)  # fmt: skip
def test_a_refusal_says_why_in_its_first_line_and_its_text(run, asked, words):
    async def main():
        async with Rig() as rig:
            head, _, text = (await rig.ask(asked)).partition(b"\r\n\r\n")
            assert words in head.split(b"\r\n")[0]
            assert words in text
            assert words.decode() in (await rig.over())[0].why

    run(main())


@proves("egress.hostile")
def test_a_mistake_of_ours_ends_one_connection_and_is_heard():
    heard = []

    async def main():
        asyncio.get_running_loop().set_exception_handler(lambda _, what: heard.append(what))
        async with Rig() as rig:
            known = rig.proxy.way._resolve

            async def mistaken(host, port):
                raise ZeroDivisionError

            rig.proxy.way._resolve = mistaken
            assert await rig.ask(connect(b"allowed.test:443")) == b""
            assert "this machine failed" in (await rig.over())[0].why
            rig.proxy.way._resolve = known
            _, writer = await rig.tunnel()
            writer.close()

    asyncio.run(main())
    assert [type(each["exception"]) for each in heard] == [ZeroDivisionError]


CRUMBS = {
    "header": b"GET http://allowed.test/ HTTP/1.1\r\nX:" + b" " * 32_000 + b"\1\r\n\r\n",
    "headers": b"GET http://allowed.test/ HTTP/1.1\r\n" + b":\r\n" * 10_000 + b"\r\n",
    "target": connect(b"a." * 15_000 + b":443"),
    "address": b"GET http://" + b"a:" * 15_000 + b" HTTP/1.1\r\n\r\n",
    "line": b"GET " + b"a " * 15_000 + b"\r\n\r\n",
}


@proves("egress.bounded")
@pytest.mark.parametrize("name", CRUMBS)
def test_what_is_made_to_be_slow_to_read_is_read_in_one_pass(name):
    """It would take minutes, and the test be ended, where a pattern tried each way to match."""
    for _ in range(100):
        with pytest.raises(Malformed):
            read(CRUMBS[name])


@proves("egress.bounded")
def test_a_first_line_made_to_be_slow_is_read_in_one_pass():
    for said in (b"a " * 2000, b" \t" * 2000, b"\r\n" * 2000, b"a HTTP/" * 600):
        tunnel = Tunnel("allowed.test", 9418)
        with suppress(Denied):
            for each in said:
                tunnel.feed(bytes([each]))
