"""Who does not know the word hears nothing at our port; who does is judged by TLS as ever."""

import asyncio
import contextlib
import random
import ssl
from collections.abc import AsyncIterator, Callable
from typing import Any

import pytest
from tests.channel.authority import TestAuthority
from tests.channel.rigs import LOOPS, run
from tests.promise import proves

from muster.channel.base import Link, Own
from muster.channel.http import HttpChannel, HttpListener, Options, Timing, join, open_channel
from muster.channel.knock import HELLO_BYTES_MAX, HOUR_MS, Knock, knock_name, server_name
from muster.errors import Unreachable
from muster.limits import DOOR_CONNECTIONS_MAX

FLEET, NOW_MS = "ab" * 32, 500_000 * HOUR_MS + 60_000
FAST = Timing(handshake_s=0.4, close_s=0.4)


def hello(name: str, **more: Any) -> bytes:
    """What a real client says first."""
    tls = ssl.create_default_context()
    tls.check_hostname, tls.verify_mode = False, ssl.CERT_NONE
    if more.get("alpn"):
        tls.set_alpn_protocols(more["alpn"])
    out = ssl.MemoryBIO()
    client = tls.wrap_bio(ssl.MemoryBIO(), out, server_hostname=name or None)
    with contextlib.suppress(ssl.SSLWantReadError):
        client.do_handshake()
    return out.read()


def word(of: int = 0, listener: str = "", fleet: str = FLEET) -> str:
    return knock_name(fleet, listener, NOW_MS + of * HOUR_MS)


# --- what is said first ----------------------------------------------------------------------


@proves("channel.knock")
def test_the_name_is_read_out_of_what_real_clients_say():
    name = word()
    assert len(name.partition(".")[0]) <= 63
    for raw in (hello(name), hello(name, alpn=["h2"] * 300)):
        assert server_name(raw) == name
        assert server_name(raw + b"more") == name
    assert server_name(hello("")) == ""
    assert server_name(hello("example.org")) == "example.org"


@proves("channel.knock")
def test_half_of_a_hello_is_waited_for_and_nothing_else_is():
    raw = hello(word())
    assert all(server_name(raw[:size]) is None for size in range(len(raw)))
    for other in (
        b"GET / HTTP/1.1", b"SSH-2.0-OpenSSH_9.2\r\n", b"\x16\x02", b"\x15\x03\x03\x00\x02", b"\0",
        b"\x16\x03\x01\x00\x03", b"\x16\x03\x01\xff\xff", b"\x16\x03\x01\x02\x00\x02",
    ):  # fmt: skip
        assert server_name(other) == ""


@proves("channel.knock")
def test_no_bytes_of_a_stranger_are_more_than_no_name():
    dice, raw = random.Random(1), hello(word())
    for _ in range(3000):
        mutated = bytearray(raw)
        for _ in range(dice.randrange(1, 4)):
            mutated[dice.randrange(len(mutated))] = dice.randrange(256)
        found = server_name(bytes(mutated[: dice.randrange(len(mutated) + 1)]))
        assert found is None or isinstance(found, str)


@proves("channel.knock")
def test_a_word_is_for_one_machine_of_one_fleet_and_about_now():
    door = Knock(FLEET, "me", lambda: NOW_MS, lambda: True)
    assert all(door.opens(word(of, listener)) for of in (-1, 0, 1) for listener in ("me", ""))
    for wrong in (
        word(2, "me"), word(-2, "me"), word(-24, "me"), word(listener="other"), word(fleet="cd" * 32),
        word()[:-1], "", "example.org", "\xe4",
    ):  # fmt: skip
        assert not door.opens(wrong)
    assert door.opens(Knock(FLEET, "you", lambda: NOW_MS, lambda: True).name("me"))


@proves("channel.knock")
def test_the_hours_of_both_our_clocks_open():
    door = Knock(FLEET, "me", lambda: NOW_MS, lambda: True, lambda: NOW_MS + 24 * HOUR_MS)
    good = [of for of in range(-3, 28) if door.opens(word(of, "me"))]
    assert good == [-1, 0, 1, 23, 24, 25]


# --- at the port -----------------------------------------------------------------------------


class Hub:
    """A machine that listens, shut to whoever does not knock."""

    def __init__(self) -> None:
        self.authority = TestAuthority("fleet")
        self.machine, credentials = self.authority.issue("hub")
        self.channel = HttpChannel(credentials, self.authority.identify, FAST)
        self.closed, self.welcomed = True, list[str]()
        self.channel.knock = Knock(FLEET, self.machine, lambda: NOW_MS, lambda: self.closed)
        self.channel.quiet = True
        self.listener: HttpListener | None = None

    async def echo(self, link: Link) -> None:
        self.welcomed.append(link.peer)
        while True:
            await link.send(await link.receive())

    def member(self, *, late_h: int = 0) -> HttpChannel:
        machine, credentials = self.authority.issue("laptop")
        channel = HttpChannel(credentials, self.authority.identify, FAST)
        wall_ms = NOW_MS + late_h * HOUR_MS
        channel.knock = Knock(FLEET, machine, lambda: wall_ms, lambda: True)
        return channel

    async def left(self) -> None:
        """Returns when nobody is at the door: what was cut leaves it a moment later."""
        assert self.listener is not None
        async with asyncio.timeout(20):
            while len(self.listener.door):  # noqa: ASYNC110 - no event tells
                await asyncio.sleep(0.01)

    @property
    def address(self) -> str:
        assert self.listener is not None
        return self.listener.address


@contextlib.asynccontextmanager
async def hub() -> AsyncIterator[Hub]:
    made = Hub()
    made.listener = await made.channel.listen("127.0.0.1:0", made.echo)
    try:
        yield made
    finally:
        await made.listener.close()


@pytest.fixture(params=LOOPS)
def loop(request: pytest.FixtureRequest) -> str:
    return str(request.param)


async def works(link: Link) -> bool:
    await link.send(b"hello")
    return await link.receive() == b"hello"


async def say(address: str, words: bytes, *, slowly: bool = False) -> bytes:
    """All that is said back until the listener hangs up."""
    host, port = address.split(":")
    reader, writer = await asyncio.open_connection(host, int(port))
    answer = b""
    with contextlib.suppress(OSError):
        for at in range(0, len(words), 1 if slowly else len(words) or 1):
            if writer.is_closing():
                break
            writer.write(words[at : at + 1] if slowly else words)
            await asyncio.sleep(0.002 if slowly else 0)
        async with asyncio.timeout(20):
            answer = await reader.read(4096)
    writer.close()
    with contextlib.suppress(OSError):
        await writer.wait_closed()
    return answer


SAID: dict[str, Callable[[], bytes]] = {
    "plain HTTP": lambda: b"GET / HTTP/1.1\r\nHost: x\r\n\r\n",
    "an SSH banner": lambda: b"SSH-2.0-OpenSSH_9.2p1 Debian-2\r\n",
    "a hello without a name": lambda: hello(""),
    "a hello with a wrong name": lambda: hello("example.org"),
    "yesterday's word": lambda: hello(word(-24)),
    "the word of another machine": lambda: hello(word(listener="other")),
    "the word of another fleet": lambda: hello(word(fleet="cd" * 32)),
    "64 KiB of junk": lambda: bytes(range(256)) * 256,
    "64 KiB that begin as a hello": lambda: b"\x16\x03\x01\xff\xff\x01" + bytes(65_536),
    "half a hello": lambda: hello(word())[:100],
    "nothing at all": lambda: b"",
}


@proves("channel.knock")
@pytest.mark.parametrize("said", SAID)
def test_who_does_not_know_the_word_gets_no_byte_and_an_end(said: str, loop: str) -> None:
    async def scenario() -> None:
        async with hub() as far:
            answers = await asyncio.gather(*(say(far.address, SAID[said]()) for _ in range(4)))
            assert answers == [b""] * 4
            assert far.welcomed == []
            await far.left()
            assert await works(await far.member().dial(far.address, peer=far.machine))

    run(scenario(), loop)


@proves("channel.knock")
def test_who_drips_a_hello_is_ended_in_time_and_many_of_them_hold_no_place(loop: str) -> None:
    async def scenario() -> None:
        async with hub() as far:
            drips = [
                asyncio.create_task(say(far.address, hello(word(-24))[:300], slowly=True))
                for _ in range(20)
            ]
            assert set(await asyncio.gather(*drips)) == {b""}
            idle = [asyncio.create_task(say(far.address, b"")) for _ in range(DOOR_CONNECTIONS_MAX)]
            assert set(await asyncio.gather(*idle)) == {b""}
            await far.left()
            assert far.listener is not None
            assert far.listener.door.turned_away > 0

    run(scenario(), loop)


@proves("channel.knock")
@pytest.mark.parametrize("late_h", [-1, 0, 1])
def test_a_member_whose_clock_is_an_hour_off_gets_in(late_h: int, loop: str) -> None:
    async def scenario() -> None:
        async with hub() as far:
            link = await far.member(late_h=late_h).dial(far.address, peer=far.machine)
            assert await works(link)
            await link.close("over")

    run(scenario(), loop)


@proves("channel.knock")
def test_a_member_whose_clock_is_a_day_off_hears_that_it_may_be_its_clock(loop: str) -> None:
    async def scenario() -> None:
        async with hub() as far:
            with pytest.raises(Unreachable, match="clock"):
                await far.member(late_h=24).dial(far.address, peer=far.machine)
            assert far.welcomed == []

    run(scenario(), loop)


@proves("channel.knock")
def test_who_was_invited_knows_the_word_by_the_id_of_the_fleet(loop: str) -> None:
    async def scenario() -> None:
        async with hub() as far:
            link = await join(far.address, far.authority.pin, FAST, name=word())
            assert await works(link)
            assert far.welcomed == [""]
            await link.close("over")
            with pytest.raises(Unreachable):
                await join(far.address, far.authority.pin, FAST)

    run(scenario(), loop)


@proves("channel.knock")
def test_while_an_older_machine_may_come_or_the_owner_says_so_nobody_has_to_knock(
    loop: str,
) -> None:
    async def scenario() -> None:
        async with hub() as far:
            older = HttpChannel(far.authority.issue("older")[1], far.authority.identify, FAST)
            with pytest.raises(Unreachable):
                await older.dial(far.address, peer=far.machine)
            for shut, quiet in ((False, True), (True, False)):
                far.closed, far.channel.quiet = shut, quiet
                link = await older.dial(far.address, peer=far.machine)
                assert await works(link)
                await link.close("over")

    run(scenario(), loop)


@proves("channel.knock")
def test_a_listener_that_is_closed_waits_for_nobody_who_says_nothing(loop: str) -> None:
    async def scenario() -> None:
        async with hub() as far:
            far.channel.timing = Timing(handshake_s=60, close_s=0.4)
            silent = asyncio.create_task(say(far.address, b""))
            half = asyncio.create_task(say(far.address, hello(word())[:50]))
            assert far.listener is not None
            while len(far.listener.door) < 2:  # noqa: ASYNC110 - no event tells
                await asyncio.sleep(0.01)
            async with asyncio.timeout(20):
                await far.listener.close()
                assert await silent == await half == b""

    run(scenario(), loop)


def test_a_hello_that_is_too_large_is_none():
    size = HELLO_BYTES_MAX
    assert server_name(b"\x16\x03\x01" + size.to_bytes(2, "big") + bytes(size)) == ""


@proves("channel.knock")
def test_the_port_is_shut_to_strangers_unless_its_owner_opens_it():
    _, credentials = TestAuthority("fleet").issue("hub")
    own = Own("me", credentials, lambda _: "")
    assert [open_channel(Options(strangers=said), own).quiet for said in (False, True)] == [
        True,
        False,
    ]
