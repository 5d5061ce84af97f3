"""How connections are made, and how through the proxy of the machine itself."""

import asyncio
import base64

import pytest
from tests.agent.egress import hellos
from tests.agent.egress.rig import Rig, echo
from tests.promise import proves

from muster.agent.egress import Rules
from muster.agent.egress.way import resolve
from muster.task.host_rule import HostRule

HELLO = hellos.hello("allowed.test")
ENVIRONMENT = {
    "HTTPS_PROXY": "http://me:CANARY@up.test:3128",
    "HTTP_PROXY": "http://me:CANARY@up.test:3128",
    "NO_PROXY": "nas.lan,198.51.0.0/16",
}
LOGIN = base64.b64encode(b"me:CANARY")


def upstream(status, heard):
    async def serve(reader, writer):
        head = await reader.readuntil(b"\r\n\r\n")
        heard.append(head)
        writer.write(status)
        if b" 200 " in status:
            await echo(reader, writer)

    return serve


@proves("egress.upstream")
def test_a_tunnel_goes_through_the_machines_own_proxy_by_name(run):
    heard = []

    async def main():
        serve = upstream(b"HTTP/1.1 200 OK\r\nX: CANARY\r\n\r\n", heard)
        async with Rig(serve, environment=ENVIRONMENT) as rig:
            reader, writer = await rig.tunnel()
            writer.write(HELLO)
            writer.write_eof()
            assert await reader.read(-1) == HELLO
            assert rig.dialled == [("up.test", 3128)]
            (told,) = await rig.over()
            assert told.allowed
            writer.close()
        assert heard[0].startswith(b"CONNECT allowed.test:443 HTTP/1.1\r\n")
        assert LOGIN in heard[0]

    run(main())


@proves("egress.upstream", "egress.upstream-silent")
def test_a_plain_request_is_handed_on_and_the_login_is_ours(run):
    heard = []

    async def main():
        async with Rig(upstream(b"HTTP/1.1 204 x\r\n\r\n", heard), environment=ENVIRONMENT) as rig:
            said = b"GET http://allowed.test/x HTTP/1.1\r\nProxy-Authorization: Basic other\r\n\r\n"
            answer = await rig.ask(said)
            assert answer.startswith(b"HTTP/1.1 204")
            assert "CANARY" not in repr(rig.told)
        assert heard[0].startswith(b"GET http://allowed.test/x HTTP/1.1\r\nHost: allowed.test\r\n")
        assert heard[0].count(b"Proxy-Authorization") == 1
        assert LOGIN in heard[0]

    run(main())


@proves("egress.upstream-silent")
@pytest.mark.parametrize(
    "status",
    [
        b"HTTP/1.1 407 CANARY\r\nX: CANARY\r\n\r\nCANARY",
        b"HTTP/1.1 403 no\r\n\r\n",
        b"nonsense CANARY\r\n\r\n",
        b"",
        b"HTTP/1.1 200 " + b"x" * 200_000,
    ],
)
def test_what_that_proxy_says_of_a_refusal_is_told_nobody(run, status):
    async def main():
        async with Rig(upstream(status, []), environment=ENVIRONMENT) as rig:
            answer = await rig.ask(b"CONNECT allowed.test:443 HTTP/1.1\r\n\r\n")
            assert answer.startswith(b"HTTP/1.1 502 this machine's own proxy ")
            (told,) = await rig.over()
            assert b"CANARY" not in answer
            assert "CANARY" not in repr(told)
            assert LOGIN not in answer

    run(main())


@proves("egress.upstream")
def test_what_may_not_be_reached_is_refused_before_that_proxy_is_asked(run):
    async def main():
        async with Rig(environment=ENVIRONMENT) as rig:
            for target in (b"evil.test:443", b"inside.test:443", b"rebind.test:443"):
                assert b"403" in await rig.ask(b"CONNECT " + target + b" HTTP/1.1\r\n\r\n")
            assert rig.dialled == []

    run(main())


@proves("egress.upstream")
def test_a_machine_that_knows_no_names_leaves_them_to_that_proxy(run):
    heard = []

    async def main():
        serve = upstream(b"HTTP/1.1 200 OK\r\n\r\n", heard)
        async with Rig(serve, environment=ENVIRONMENT, addresses={}) as rig:
            _, writer = await rig.tunnel()
            assert rig.dialled == [("up.test", 3128)]
            writer.close()
        async with Rig(addresses={}) as rig:
            assert b"502" in await rig.ask(b"CONNECT allowed.test:443 HTTP/1.1\r\n\r\n")

    run(main())


@proves("egress.upstream")
def test_a_resolver_that_hangs_is_not_waited_for_twice_where_a_proxy_knows(run, monkeypatch):
    monkeypatch.setattr("muster.agent.egress.way.LOOKUP_S", 0.1)

    async def main():
        serve = upstream(b"HTTP/1.1 200 OK\r\n\r\n", [])
        async with Rig(serve, environment=ENVIRONMENT) as rig:
            asked = []

            async def hangs(host, port):
                asked.append(host)
                await asyncio.Event().wait()

            rig.proxy.way._resolve = hangs
            for _ in range(3):
                _, writer = await rig.tunnel()
                writer.close()
            assert asked == ["allowed.test"]
            assert rig.dialled == [("up.test", 3128)] * 3
        async with Rig() as rig:
            rig.proxy.way._resolve = hangs
            assert b"504 nobody said in time" in await rig.ask(
                b"CONNECT allowed.test:443 HTTP/1.1\r\n\r\n"
            )

    run(main())


@proves("egress.upstream")
@pytest.mark.parametrize(("host", "address"), [("nas.lan", "192.168.0.9"), ("allowed.test", "198.51.0.1")])  # fmt: skip
def test_what_no_proxy_is_asked_for_is_connected_to_directly(run, host, address):
    async def main():
        async with Rig(environment=ENVIRONMENT, addresses={host: [address]}) as rig:
            _, writer = await rig.tunnel(f"{host}:443".encode())
            assert rig.dialled == [(address, 443)]
            writer.close()

    run(main())


@proves("egress.addresses-public")
def test_an_address_that_does_not_answer_is_followed_by_the_next(run):
    addresses = ["198.41.0.1", "198.41.0.2", "127.0.0.1", "198.41.0.3"]

    async def main():
        async with Rig(addresses={"allowed.test": addresses}) as rig:
            known = rig.proxy.way._connect

            async def some(address, port):
                if address != "198.41.0.3":
                    rig.dialled.append((address, port))
                    raise OSError(113, "No route to host")
                return await known(address, port)

            rig.proxy.way._connect = some
            _, writer = await rig.tunnel()
            assert [each for each, _ in rig.dialled] == ["198.41.0.1", "198.41.0.2", "198.41.0.3"]
            writer.close()

            rig.proxy.way._connect = lambda address, port: some("198.41.0.1", port)
            answer = await rig.ask(b"CONNECT allowed.test:443 HTTP/1.1\r\n\r\n")
            assert b"502 allowed.test does not take a connection at port 443" in answer

    run(main())


@proves("egress.addresses-public")
def test_the_resolver_of_the_machine_gives_addresses(run):
    async def main():
        found = await resolve("localhost", 443)
        assert {"127.0.0.1", "::1"} & set(found)
        with pytest.raises(OSError):
            await resolve("name.invalid", 443)

    run(main())


@proves("egress.tunnels")
def test_the_real_thing_connects_to_a_server_of_this_machine(run):
    """Nothing of the rig's in it but the resolver: a rule of the owner, a loopback address."""
    import socket

    from muster.agent.egress import Proxy

    async def main():
        site = await asyncio.start_server(echo, "127.0.0.1", 0)
        port = site.sockets[0].getsockname()[1]
        # The name that every machine resolves; nobody may name it in a spec.
        proxy = Proxy(Rules([], local=[HostRule("localhost", port)]), lambda _: None)
        listening = socket.create_server(("127.0.0.1", 0))
        await proxy.serve(listening)
        reader, writer = await asyncio.open_connection(*listening.getsockname())
        writer.write(f"CONNECT localhost:{port} HTTP/1.1\r\n\r\n".encode())
        assert b" 200 " in await reader.readuntil(b"\r\n\r\n")
        writer.write(b"one line\n")
        assert await reader.readline() == b"one line\n"
        writer.close()
        await proxy.close()
        site.close()

    run(main())
