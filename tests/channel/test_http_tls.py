"""Who gets a TLS link and who does not, and what strangers can do to a listener: nothing."""

import asyncio
import contextlib
import errno
import socket
import ssl
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass, field

import pytest
from tests.channel.authority import TestAuthority
from tests.channel.rigs import LOOPS, run
from tests.promise import proves

from muster.channel.base import Link
from muster.channel.http import HttpChannel, HttpListener, Timing, join
from muster.channel.tls import Credentials
from muster.channel.unproven import UnprovenPeers, accept
from muster.errors import Broken, Denied, Forged, Malformed, Refused, Unreachable
from muster.limits import DOOR_CONNECTIONS_MAX, LINKS_UNPROVEN_MAX

FAST = Timing(handshake_s=0.4, close_s=0.4)


@dataclass
class Hub:
    """A listening machine that echoes, and remembers whom it let in."""

    authority: TestAuthority
    machine: str
    channel: HttpChannel
    address: str = ""
    listener: HttpListener | None = None
    welcomed: list[str] = field(default_factory=list)

    async def echo(self, link: Link) -> None:
        self.welcomed.append(link.peer)
        while True:
            await link.send(await link.receive())

    async def healthy(self) -> bool:
        """A good machine still gets its echo."""
        _, credentials = self.authority.issue("prober")
        link = await HttpChannel(credentials, self.authority.identify).dial(self.address)
        await link.send(b"ping")
        answered = await link.receive() == b"ping"
        await link.close("probed")
        self.welcomed.pop()
        return answered


@contextlib.asynccontextmanager
async def hub(**options: bool) -> AsyncIterator[Hub]:
    authority = TestAuthority("fleet")
    machine, credentials = authority.issue("hub", **options)
    made = Hub(authority, machine, HttpChannel(credentials, authority.identify, FAST))
    made.listener = await made.channel.listen("127.0.0.1:0", made.echo)
    made.address = made.listener.address
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


@proves("channel.tls-identity")
def test_both_ends_learn_the_machine_that_the_key_belongs_to(loop: str) -> None:
    async def scenario() -> None:
        async with hub() as far:
            machine, credentials = far.authority.issue("laptop")
            link = await HttpChannel(credentials, far.authority.identify).dial(
                far.address, peer=far.machine
            )
            assert await works(link)
            assert link.peer == far.machine
            assert far.welcomed == [machine]
            await link.close("over")

    run(scenario(), loop)


@proves("channel.tls-unproven")
def test_without_a_certificate_the_link_proves_no_machine(loop: str) -> None:
    async def scenario() -> None:
        async with hub() as far:
            link = await join(far.address, far.authority.pin, FAST)
            assert await works(link)
            assert far.welcomed == [""]
            await link.close("over")

    run(scenario(), loop)


@proves("channel.tls-unproven", "channel.door-fair")
def test_only_a_few_unproven_links_exist_at_once_and_one_more_takes_the_place_of_another(
    loop: str,
) -> None:
    async def scenario() -> None:
        async with hub() as far:
            links = [await join(far.address, far.authority.pin) for _ in range(LINKS_UNPROVEN_MAX)]
            ends = [asyncio.create_task(link.receive()) for link in links]
            late = await join(far.address, far.authority.pin)
            assert await works(late), "who comes last is served"
            done, _ = await asyncio.wait(ends, return_when=asyncio.FIRST_COMPLETED)
            assert len(done) == 1
            assert isinstance(done.pop().exception(), Unreachable)
            assert await far.healthy(), "the cap is for strangers only"
            for end in ends:
                end.cancel()
            for link in (late, *links):
                await link.close("over")

    run(scenario(), loop)


@proves("channel.odd-address")
@pytest.mark.parametrize(
    "address",
    [
        "", "a b:1", "[::1:1", "\u00e4:1", "\x00:1", "a/b:1", "user@h:1", "%zz:1", "[zz]:1", "a..b:1",
        "a" * 70 + ".b:1", "[::::]:1", "[fe80:]:1", "h:0", "h:65536", "h:1\n", ".:1",
    ],
)  # fmt: skip
def test_an_address_that_nobody_can_have_is_refused_and_not_dialled(
    loop: str, address: str
) -> None:
    async def scenario() -> None:
        authority = TestAuthority("fleet")
        channel = HttpChannel(authority.issue("laptop")[1], authority.identify)
        with pytest.raises(Malformed):
            await channel.dial(address)

    run(scenario(), loop)


@proves("channel.tls-unproven")
def test_a_link_that_proves_nothing_is_cut_after_a_while_whatever_it_says(
    loop: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("muster.limits.LINK_UNPROVEN_MS_MAX", 300)

    async def scenario() -> None:
        async with hub() as far:
            _, credentials = far.authority.issue("laptop")
            machine = await HttpChannel(credentials, far.authority.identify).dial(far.address)
            link = await join(far.address, far.authority.pin)
            async with asyncio.timeout(5):
                with pytest.raises(Unreachable):
                    while True:
                        assert await works(link)
            assert await works(machine)
            await machine.close("over")
            await link.close("over")

    run(scenario(), loop)


@proves("channel.tls-authority", "channel.tls-dial-proven")
def test_a_certificate_of_another_authority_opens_no_link(loop: str) -> None:
    async def scenario() -> None:
        async with hub() as far:
            rogue = TestAuthority("rogue")
            _, forged = rogue.issue("laptop")
            # It trusts our authority, so that its own check of the hub passes.
            mixed = Credentials(
                forged.cert_pem, forged.key_pem, far.authority.issue("any")[1].ca_pem
            )
            with pytest.raises((Refused, Unreachable)):
                await HttpChannel(mixed, far.authority.identify).dial(far.address)
            assert far.welcomed == []
            assert await far.healthy()

    run(scenario(), loop)


@proves("channel.tls-authority")
def test_a_listener_of_another_authority_is_not_believed(loop: str) -> None:
    async def scenario() -> None:
        async with hub() as far:
            _, credentials = TestAuthority("other fleet").issue("laptop")
            judged: list[bytes] = []

            def identify(der: bytes) -> str:
                judged.append(der)
                return far.machine

            with pytest.raises(Forged, match="not of this fleet"):
                await HttpChannel(credentials, identify).dial(far.address)
            assert judged == far.welcomed == []

    run(scenario(), loop)


@proves("channel.tls-no-calendar")
def test_expired_certificates_of_known_keys_open_a_link(loop: str) -> None:
    async def scenario() -> None:
        async with hub(expired=True) as far:
            machine, credentials = far.authority.issue("sleeper", expired=True)
            link = await HttpChannel(credentials, far.authority.identify).dial(
                far.address, peer=far.machine
            )
            assert await works(link)
            assert far.welcomed == [machine]
            await link.close("over")

    run(scenario(), loop)


@proves("channel.tls-identity", "channel.tls-dial-proven")
def test_a_revoked_machine_is_refused_and_told_so(loop: str) -> None:
    async def scenario() -> None:
        async with hub() as far:
            machine, credentials = far.authority.issue("stolen")
            far.authority.revoked.add(machine)
            trusting = HttpChannel(credentials, lambda _: far.machine)
            with pytest.raises(Denied, match="was revoked"):
                await trusting.dial(far.address)
            assert far.welcomed == []
            assert far.listener is not None
            assert far.listener.refused == 1

    run(scenario(), loop)


@proves("channel.tls-identity")
def test_a_certificate_for_a_key_in_no_record_is_refused(loop: str) -> None:
    async def scenario() -> None:
        async with hub() as far:
            _, credentials = far.authority.issue("stranger", known=False)
            with pytest.raises(Denied, match="in no record"):
                await HttpChannel(credentials, far.authority.identify).dial(far.address)
            assert far.welcomed == []

    run(scenario(), loop)


@proves("channel.tls-identity")
def test_a_revoked_listener_is_sent_nothing(loop: str) -> None:
    async def scenario() -> None:
        async with hub() as far:
            _, credentials = far.authority.issue("laptop")
            far.authority.revoked.add(far.machine)
            with pytest.raises(Denied, match="was revoked"):
                await HttpChannel(credentials, far.authority.identify).dial(far.address)
            assert far.welcomed == []

    run(scenario(), loop)


@proves("channel.close-cuts-waits")
def test_a_live_link_of_a_machine_revoked_later_can_be_cut(loop: str) -> None:
    async def scenario() -> None:
        async with hub() as far:
            live: list[Link] = []
            welcomed = asyncio.Event()

            async def keep(link: Link) -> None:
                live.append(link)
                welcomed.set()
                await link.receive()

            listener = await far.channel.listen("127.0.0.1:0", keep)
            machine, credentials = far.authority.issue("laptop")
            link = await HttpChannel(credentials, far.authority.identify).dial(listener.address)
            reading = asyncio.create_task(link.receive())
            await welcomed.wait()
            far.authority.revoked.add(machine)
            await live[0].close("this machine was revoked")
            with pytest.raises(Unreachable, match="this machine was revoked"):
                await reading
            await link.close("over")
            await listener.close()

    run(scenario(), loop)


@proves("channel.tls-join-pin")
def test_a_joiner_links_to_the_fleet_of_its_invitation_only(loop: str) -> None:
    async def scenario() -> None:
        async with hub() as far:
            with pytest.raises(Forged, match="of the invitation"):
                await join(far.address, TestAuthority("the invited one").pin, FAST)
            assert far.welcomed == []
            link = await join(far.address, far.authority.pin, FAST)
            assert await works(link)
            await link.close("over")

    run(scenario(), loop)


@proves("channel.tls-renewal")
def test_renewed_credentials_serve_new_links_and_keep_the_live_ones(loop: str) -> None:
    async def scenario() -> None:
        async with hub() as far:
            machine, credentials = far.authority.issue("laptop")
            laptop = HttpChannel(credentials, far.authority.identify)
            old = await laptop.dial(far.address)
            # The former key is forgotten: whoever is identified now shows the new one.
            far.authority.machines = {
                key: found for key, found in far.authority.machines.items() if found == machine
            }
            _, hub_credentials = far.authority.issue("hub")
            far.channel.renew(hub_credentials)
            laptop.renew(far.authority.issue("laptop")[1])
            new = await laptop.dial(far.address, peer=far.machine)
            assert await works(new)
            assert await works(old)
            assert far.welcomed == [machine, machine]
            for link in (old, new):
                await link.close("over")

    run(scenario(), loop)


@proves("channel.tls-renewal")
def test_credentials_that_do_not_fit_change_nothing(loop: str) -> None:
    async def scenario() -> None:
        async with hub() as far:
            (_, one), (_, two) = far.authority.issue("hub"), far.authority.issue("hub")
            foreign = TestAuthority("other").issue("hub")[1]
            for unfit in (
                Credentials(one.cert_pem, two.key_pem, one.ca_pem),
                Credentials(one.cert_pem, b"no key", one.ca_pem),
                foreign,
            ):
                with pytest.raises(Broken):
                    far.channel.renew(unfit)
            assert await far.healthy()

    run(scenario(), loop)


def test_credentials_never_print_their_key() -> None:
    _, credentials = TestAuthority("fleet").issue("hub")
    assert "PRIVATE" not in repr(credentials)


# --- strangers -----------------------------------------------------------------------------


def _tls() -> ssl.SSLContext:
    tls = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    tls.check_hostname = False
    tls.verify_mode = ssl.CERT_NONE
    return tls


async def say(address: str, words: bytes, tls: Callable[[], ssl.SSLContext] | None) -> bytes:
    """Say something and read until the listener hangs up."""
    host, port = address.split(":")
    reader, writer = await asyncio.open_connection(host, int(port), ssl=tls() if tls else None)
    answer = b""
    with contextlib.suppress(OSError):
        writer.write(words)
        await writer.drain()
        async with asyncio.timeout(3):
            answer = await reader.read(4096)
            while await reader.read(65536):
                pass
    writer.close()
    with contextlib.suppress(OSError):
        await writer.wait_closed()
    return answer


REQUEST = b"GET / HTTP/1.1\r\nHost: x\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
NOISE = {
    "garbage instead of TLS": (bytes(range(256)) * 40, None),
    "plain HTTP": (b"GET / HTTP/1.1\r\nHost: x\r\n\r\n", None),
    "nothing at all": (b"", None),
    "half a TLS hello": (b"\x16\x03\x01\x02\x00\x01", None),
    "garbage inside TLS": (bytes(range(256)) * 40, _tls),
    "a page request": (b"GET / HTTP/1.1\r\nHost: x\r\n\r\n", _tls),
    "a POST": (b"POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 3\r\n\r\nabc", _tls),
    "a huge header line": (REQUEST + b"X: " + b"a" * 200_000, _tls),
    "endless headers": (REQUEST + b"X: a\r\n" * 50_000, _tls),
    "half a handshake (slowloris)": (REQUEST, _tls),
    "TLS and then silence": (b"", _tls),
}


@proves("channel.tls-robust")
@pytest.mark.parametrize("noise", NOISE)
def test_a_stranger_is_hung_up_on_and_the_listener_stays_healthy(noise: str, loop: str) -> None:
    async def scenario() -> None:
        async with hub() as far:
            words, tls = NOISE[noise]
            before = asyncio.get_running_loop().time()
            answers = await asyncio.gather(*(say(far.address, words, tls) for _ in range(5)))
            assert asyncio.get_running_loop().time() - before < 2.5
            assert not any(b" 101 " in answer for answer in answers)
            assert far.welcomed == []
            assert await far.healthy()

    run(scenario(), loop)


@proves("channel.silent-to-strangers")
@pytest.mark.parametrize("noise", NOISE)
def test_a_stranger_hears_nothing_of_us(noise: str, loop: str) -> None:
    async def scenario() -> None:
        async with hub() as far:
            words, tls = NOISE[noise]
            heard = await say(far.address, words, tls)
            # Without TLS its own alert is all there is: 0x15, version, two bytes of length, two more.
            assert heard == b"" if tls else len(heard) <= 7

    run(scenario(), loop)


@proves("channel.door-fair")
def test_a_crowd_of_silent_connections_is_bounded_and_keeps_no_machine_out(
    loop: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("muster.limits.DOOR_KNOCKS_BURST", 10_000)

    async def scenario() -> None:
        async with hub() as far:
            assert far.listener is not None
            host, port = far.address.split(":")
            crowd = [
                await asyncio.open_connection(host, int(port))
                for _ in range(3 * DOOR_CONNECTIONS_MAX)
            ]
            assert len(far.listener.door) <= DOOR_CONNECTIONS_MAX
            assert await far.healthy()
            link = await join(far.address, far.authority.pin)
            assert await works(link)
            assert len(far.listener.door) <= DOOR_CONNECTIONS_MAX
            await link.close("over")
            # Each was given a moment and then hung up on.
            async with asyncio.timeout(3):
                for reader, writer in crowd:
                    with contextlib.suppress(OSError):
                        assert await reader.read(100) == b""
                    writer.close()

    run(scenario(), loop)


@proves("channel.accept-goes-on")
def test_accepting_goes_on_when_there_was_no_descriptor_left(
    loop: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("muster.channel.unproven.ACCEPT_AGAIN_S", 0.01)
    short = iter([errno.EMFILE, errno.ENFILE, errno.ENOBUFS, errno.ENOMEM, errno.ECONNABORTED])

    async def scenario() -> None:
        running = asyncio.get_running_loop()
        taken: list[str] = []
        listening = socket.create_server(("127.0.0.1", 0))
        listening.setblocking(False)
        door, cut = UnprovenPeers(), asyncio.Event()
        door.knock("192.0.2.1", cut.set, 0.0)

        class Loop:
            async def sock_accept(self, of: socket.socket) -> tuple[socket.socket, object]:
                if (number := next(short, None)) is not None:
                    raise OSError(number, "short")
                return await running.sock_accept(of)

        monkeypatch.setattr("muster.channel.unproven.asyncio.get_running_loop", Loop)
        here = asyncio.Event()

        def take(connected: socket.socket, address: str) -> None:
            taken.append(address)
            connected.close()
            here.set()

        task = running.create_task(accept(listening, door, take))
        caller = socket.create_connection(listening.getsockname())
        async with asyncio.timeout(5):
            await here.wait()
        assert taken == ["127.0.0.1"]
        assert cut.is_set(), "a stranger made room"
        task.cancel()
        await asyncio.wait([task])
        caller.close()
        listening.close()

    run(scenario(), loop)


@proves("channel.tls-robust")
def test_an_older_tls_is_not_spoken(loop: str) -> None:
    async def scenario() -> None:
        async with hub() as far:
            tls = _tls()
            tls.maximum_version = ssl.TLSVersion.TLSv1_2
            with pytest.raises((ssl.SSLError, ConnectionResetError)):
                await say(far.address, REQUEST, lambda: tls)
            assert far.welcomed == []
            assert await far.healthy()

    run(scenario(), loop)


@proves("channel.tls-robust")
def test_an_announced_oversize_message_cuts_the_link_unread(loop: str) -> None:
    async def scenario() -> None:
        async with hub() as far:
            host, port = far.address.split(":")
            reader, writer = await asyncio.open_connection(host, int(port), ssl=_tls())
            writer.write(
                REQUEST + b"Sec-WebSocket-Key: AAAAAAAAAAAAAAAAAAAAAA==\r\n"
                b"Sec-WebSocket-Version: 13\r\n\r\n"
            )
            assert b" 101 " in await reader.readuntil(b"\r\n\r\n")
            # A final binary message, masked, of 2^40 bytes, of which none follows.
            writer.write(b"\x82\xff" + (2**40).to_bytes(8, "big") + bytes(4))
            async with asyncio.timeout(2):
                assert (await reader.read(4))[:1] == b"\x88", "a close frame"
                while await reader.read(4096):
                    pass
            writer.close()
            assert await far.healthy()

    run(scenario(), loop)


@proves("channel.tls-robust")
@pytest.mark.parametrize(
    ("tls", "close_s"),
    # Inside TLS the stall is cut at once, whatever the patience; before that, patience bounds it.
    [(_tls, 10.0), (None, 0.3)],
)
def test_closing_a_listener_does_not_wait_for_a_staller(
    tls: Callable[[], ssl.SSLContext] | None, close_s: float, loop: str
) -> None:
    async def scenario() -> None:
        authority = TestAuthority("fleet")
        _, credentials = authority.issue("hub")
        patient = HttpChannel(credentials, authority.identify, Timing(close_s=close_s))

        async def never(link: Link) -> None:
            raise AssertionError(link)

        listener = await patient.listen("127.0.0.1:0", never)
        host, port = listener.address.split(":")
        _, staller = await asyncio.open_connection(host, int(port), ssl=tls() if tls else None)
        staller.write(REQUEST[:20] if tls else b"")
        await asyncio.sleep(0.05)
        async with asyncio.timeout(2):
            await listener.close()
        staller.close()
        with contextlib.suppress(OSError):
            await staller.wait_closed()

    run(scenario(), loop)


@proves("channel.tls-identity")
def test_a_mistake_in_identify_refuses_and_is_reported(loop: str) -> None:
    async def scenario() -> None:
        complaints: list[type] = []
        asyncio.get_running_loop().set_exception_handler(
            lambda _, context: complaints.append(type(context["exception"]))
        )
        authority = TestAuthority("fleet")
        _, credentials = authority.issue("hub")

        def broken(_: bytes) -> str:
            raise ZeroDivisionError

        async def never(link: Link) -> None:
            raise AssertionError(link)

        listener = await HttpChannel(credentials, broken, FAST).listen("127.0.0.1:0", never)
        with pytest.raises(Unreachable, match="500"):
            await HttpChannel(credentials, authority.identify).dial(listener.address)
        await listener.close()
        assert complaints == [ZeroDivisionError]

    run(scenario(), loop)


@proves("channel.tls-dial-proven")
def test_a_listener_that_never_answers_is_unreachable_in_time(loop: str) -> None:
    async def scenario() -> None:
        # The kernel completes the connection; no program ever says a word.
        mute = socket.create_server(("127.0.0.1", 0))
        host, port = mute.getsockname()
        authority = TestAuthority("fleet")
        channel = HttpChannel(authority.issue("laptop")[1], authority.identify, FAST)
        async with asyncio.timeout(2):
            with pytest.raises(Unreachable):
                await channel.dial(f"{host}:{port}")
        mute.close()

    run(scenario(), loop)


@pytest.mark.parametrize("address", ["", "hub", "hub:", "hub:http", "hub:70000", "hub:-1", "hub:٣"])
def test_an_address_without_a_port_is_refused(address: str) -> None:
    async def scenario() -> None:
        authority = TestAuthority("fleet")
        channel = HttpChannel(authority.issue("laptop")[1], authority.identify)
        # Another machine says where it listens: that it is no address is no fault of ours.
        with pytest.raises(Malformed, match="host:port"):
            await channel.dial(address)

    run(scenario())
