"""A listener follows the addresses of its computer, and no link pays for it."""

import asyncio
import errno
import socket
import threading
from typing import Any

import pytest
from tests.channel.authority import TestAuthority
from tests.channel.rigs import LOOPS, run
from tests.ports import free_port
from tests.promise import proves

from muster.channel import listening
from muster.channel.base import Link
from muster.channel.http import HttpChannel, Timing
from muster.errors import Broken, Conflict, Unreachable


@pytest.fixture(params=LOOPS)
def loop(request: pytest.FixtureRequest) -> str:
    return str(request.param)


async def echo(link: Link) -> None:
    while True:
        await link.send(await link.receive())


async def works(link: Link) -> bool:
    await link.send(b"hello")
    return await link.receive() == b"hello"


class Ends:
    """A channel that listens at `hosts`, and one that dials."""

    def __init__(self, *hosts: str) -> None:
        authority, patience = TestAuthority("fleet"), Timing(close_s=0.5)
        self.far = HttpChannel(authority.issue("far")[1], authority.identify, patience)
        self.near = HttpChannel(authority.issue("near")[1], authority.identify, patience)
        self.hosts = list(hosts)
        self.far.hosts = lambda: self.hosts


@proves("channel.listens-where-it-is-safe")
def test_addresses_come_and_go_and_the_links_stay(loop: str) -> None:
    async def scenario() -> None:
        ends, port = Ends("127.0.0.1"), free_port()
        listener = await ends.far.listen(f"auto:{port}", echo)
        link = await ends.near.dial(f"127.0.0.1:{port}")
        with pytest.raises(Unreachable):
            await ends.near.dial(f"127.0.0.2:{port}")
        ends.hosts = ["127.0.0.2", "192.0.2.77"]
        await listener.ports.look()
        assert listener.ports.bound == [f"127.0.0.2:{port}"]
        assert list(listener.ports.failed) == [f"192.0.2.77:{port}"]
        assert await works(link), "its address is gone, and it is not"
        other = await ends.near.dial(f"127.0.0.2:{port}")
        with pytest.raises(Unreachable):
            await ends.near.dial(f"127.0.0.1:{port}")
        ends.hosts = ["127.0.0.1", "127.0.0.2"]
        await listener.ports.look()
        assert not listener.ports.failed
        assert await works(other)
        assert await works(await ends.near.dial(f"127.0.0.1:{port}"))
        assert listener.listens
        await listener.close()
        assert not listener.listens

    run(scenario(), loop)


@proves("channel.listens-where-it-is-safe")
def test_what_changes_is_seen_by_itself(loop: str, monkeypatch: Any) -> None:
    monkeypatch.setattr(listening, "LOOK_S", 0.01)

    async def scenario() -> None:
        ends, port = Ends("127.0.0.1"), free_port()
        listener = await ends.far.listen(f"auto:{port}", echo)
        ends.hosts = ["127.0.0.2"]
        async with asyncio.timeout(20):
            while listener.ports.bound != [f"127.0.0.2:{port}"]:  # noqa: ASYNC110 - no event tells
                await asyncio.sleep(0.01)
        await listener.close()

    run(scenario(), loop)


@proves("channel.listens-where-it-is-safe")
def test_a_list_is_listened_at_where_it_can_be_and_none_of_it_is_an_error(loop: str) -> None:
    async def scenario() -> None:
        ends, port = Ends(), free_port()
        listener = await ends.far.listen(f"192.0.2.77:{port},127.0.0.1:{port}", echo)
        assert listener.ports.bound == [f"127.0.0.1:{port}"]
        assert await works(await ends.near.dial(f"127.0.0.1:{port}"))
        with pytest.raises((Broken, Conflict), match=r"no such address"):
            await ends.far.listen(f"192.0.2.77:{port},192.0.2.78:{port}", echo)
        with pytest.raises((Broken, Conflict), match="another program listens there"):
            await ends.far.listen(f"127.0.0.1:{port}", echo)
        ends.hosts = []
        with pytest.raises(Broken):
            await ends.far.listen("auto", echo)
        with pytest.raises(Broken, match="not host:port"):
            await ends.far.listen("auto,", echo)
        await listener.close()

    run(scenario(), loop)


@proves("channel.listens-where-it-is-safe")
def test_a_name_that_nobody_answers_for_holds_up_nothing(monkeypatch: Any) -> None:
    real, names, answer = socket.getaddrinfo, list[str](), threading.Event()

    def resolve(host: Any, *args: Any, **more: Any) -> Any:
        if host != "nas.invalid":
            return real(host, *args, **more)
        names.append(threading.current_thread().name)
        if len(names) > 1:
            answer.wait(20)
            return real("127.0.0.2", *args, **more)
        raise socket.gaierror(socket.EAI_AGAIN, "not now")

    async def scenario() -> None:
        ends, port = Ends("127.0.0.1"), free_port()
        listener = await ends.far.listen(f"nas.invalid:{port},auto:{port}", echo)
        assert list(listener.ports.failed) == [f"nas.invalid:{port}"]
        looking = asyncio.create_task(listener.ports.look())
        while len(names) < 2:  # noqa: ASYNC110 - no event tells
            await asyncio.sleep(0.01)
        # The loop goes on while the resolver waits.
        assert await works(await ends.near.dial(f"127.0.0.1:{port}"))
        assert not looking.done()
        answer.set()
        await looking
        assert set(listener.ports.bound) == {f"127.0.0.1:{port}", f"127.0.0.2:{port}"}
        await listener.close()

    monkeypatch.setattr(socket, "getaddrinfo", resolve)
    # uvloop asks the system itself, in threads of its own.
    run(scenario(), "asyncio")


@proves("channel.listens-where-it-is-safe")
def test_addresses_that_cannot_be_read_once_end_no_listener(loop: str, monkeypatch: Any) -> None:
    monkeypatch.setattr(listening, "LOOK_S", 0.01)

    async def scenario() -> None:
        ends, port, fails = Ends("127.0.0.1"), free_port(), [1, 1, 1]
        listener = await ends.far.listen(f"auto:{port}", echo)

        def hosts() -> list[str]:
            if fails:
                fails.pop()
                raise OSError(errno.EMFILE, "Too many open files")
            return ["127.0.0.2"]

        ends.far.hosts = listener.ports._hosts = hosts
        async with asyncio.timeout(20):
            while listener.ports.bound != [f"127.0.0.2:{port}"]:  # noqa: ASYNC110 - no event tells
                await asyncio.sleep(0.01)
        assert listener.listens
        assert not listener.ports.failed
        await listener.close()

    run(scenario(), loop)


@proves("channel.listens-where-it-is-safe")
def test_who_closes_while_a_socket_is_given_up_leaves_none_open(loop: str) -> None:
    async def scenario() -> None:
        ends, port = Ends("127.0.0.1"), free_port()
        listener = await ends.far.listen(f"auto:{port}", echo)
        sockets = [each for pairs in listener.ports._bound.values() for each, _ in pairs]
        ends.hosts = ["127.0.0.2"]
        looking = asyncio.create_task(listener.ports.look())
        await asyncio.sleep(0)
        looking.cancel()
        await asyncio.wait([looking])
        await listener.close()
        assert [each.fileno() for each in sockets] == [-1]

    run(scenario(), loop)
