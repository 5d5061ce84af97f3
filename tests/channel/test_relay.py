"""What a relayed link adds to the contract of links: who is there, and what the middle may not do."""

import asyncio
import ssl
from collections.abc import Callable
from typing import Any

import pytest
from tests.channel.authority import TestAuthority
from tests.channel.rigs import Middle, run
from tests.promise import proves

from muster.channel import tunnel
from muster.channel.flow import RELAYED, Flow
from muster.channel.frame import Type
from muster.channel.relay import RelayChannel
from muster.channel.tunnel import TunnelLink
from muster.errors import Denied, Forged, MusterError, Unreachable
from muster.limits import LINK_UNREAD_FRAMES_MAX, RELAY_DATA_BYTES_MAX

FLEET = TestAuthority("fleet")
NEAR_ID, NEAR = FLEET.issue("near")
FAR_ID, FAR = FLEET.issue("far")


class Wire:
    """Two ends and what lies between them; `spoil` sees each frame and says what arrives."""

    def __init__(self, near: RelayChannel, far: RelayChannel) -> None:
        self.spoil: Callable[[Type, bytes], bytes | None] = lambda _kind, payload: payload
        loop = asyncio.get_running_loop()

        def put(towards: int) -> Callable[[Type, bytes], None]:
            def passed(kind: Type, payload: bytes) -> None:
                arrives = self.spoil(kind, payload)
                if arrives is not None:
                    loop.call_soon(lambda: flows[towards].feed(kind, arrives))

            return passed

        flows = Flow(put(1), RELAYED), Flow(put(0), RELAYED)
        self.ends: tuple[TunnelLink, TunnelLink] = (
            near.open(flows[0], serves=False),
            far.open(flows[1], serves=True),
        )

    async def proven(self, near_id: str = NEAR_ID, far_id: str = FAR_ID) -> list[Any]:
        """How the handshake ended on each side: None, or the error."""
        near, far = self.ends
        return await asyncio.gather(near.prove(far_id), far.prove(near_id), return_exceptions=True)

    async def close(self) -> None:
        for end in self.ends:
            await end.close("test over")


def honest() -> tuple[RelayChannel, RelayChannel]:
    return RelayChannel(NEAR, FLEET.identify), RelayChannel(FAR, FLEET.identify)


@proves("channel.relay-proven")
@pytest.mark.parametrize("wrong", ["near", "far"])
def test_an_end_that_is_another_machine_than_was_named_is_refused_by_both(wrong: str) -> None:
    async def scenario() -> None:
        wire = Wire(*honest())
        named = {"near_id": "ee" * 32} if wrong == "near" else {"far_id": "ee" * 32}
        errors = await wire.proven(**named)
        assert {type(error) for error in errors} == {Denied, Unreachable}
        for end in wire.ends:
            with pytest.raises(Unreachable):
                await end.send(b"too late")
        await wire.close()

    run(scenario())


def revoked() -> tuple[RelayChannel, RelayChannel]:
    fleet = TestAuthority("fleet")
    fleet.machines.update(FLEET.machines)
    fleet.revoked.add(NEAR_ID)
    return RelayChannel(NEAR, FLEET.identify), RelayChannel(FAR, fleet.identify)


def foreign() -> tuple[RelayChannel, RelayChannel]:
    other = TestAuthority("another fleet")
    _, credentials = other.issue("near")
    return RelayChannel(credentials, lambda _der: FAR_ID), RelayChannel(FAR, FLEET.identify)


def anonymous() -> tuple[RelayChannel, RelayChannel]:
    near, far = honest()
    bare = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    bare.check_hostname, bare.verify_mode = False, ssl.CERT_NONE
    near._client_tls = bare
    return near, far


def unknown() -> tuple[RelayChannel, RelayChannel]:
    _, credentials = FLEET.issue("near", known=False)
    return RelayChannel(credentials, FLEET.identify), RelayChannel(FAR, FLEET.identify)


@proves("channel.relay-proven", "node.relay-revoked")
@pytest.mark.parametrize("who", [revoked, foreign, anonymous, unknown])
def test_who_proves_no_live_machine_of_the_fleet_gets_no_link(
    who: Callable[[], tuple[RelayChannel, RelayChannel]],
) -> None:
    async def scenario() -> None:
        wire = Wire(*who())
        errors = await wire.proven()
        assert all(isinstance(error, Denied | Forged | Unreachable) for error in errors), errors
        await wire.close()

    run(scenario())


@proves("channel.relay-proven")
def test_a_middle_that_changes_one_byte_ends_the_link_and_nothing_changed_is_read() -> None:
    async def scenario() -> None:
        wire = Wire(*honest())
        assert await wire.proven() == [None, None]
        near, far = wire.ends
        wire.spoil = lambda kind, p: p[:-1] + bytes([p[-1] ^ 1]) if kind is Type.DATA else p
        await near.send(b"pay alice")
        with pytest.raises(Unreachable, match="TLS was broken off"):
            await far.receive()
        await wire.close()

    run(scenario())


@proves("channel.relay-proven")
def test_a_middle_that_repeats_or_leaves_out_what_was_sent_ends_the_link() -> None:
    async def scenario() -> None:
        wire = Wire(*honest())
        await wire.proven()
        near, far = wire.ends
        seen: list[bytes] = []

        def once_more(kind: Type, payload: bytes) -> bytes:
            if kind is Type.DATA:
                seen.append(payload)
            return seen[0] if kind is Type.DATA else payload

        wire.spoil = once_more
        await near.send(b"pay alice")
        await near.send(b"and nobody else")
        assert await far.receive() == b"pay alice"
        with pytest.raises(Unreachable):
            await far.receive()
        await wire.close()

    run(scenario())


@proves("channel.relay-silence")
def test_a_far_end_without_a_sign_of_life_is_given_up(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tunnel.limits, "KEEPALIVE_INTERVAL_MS", 20)
    monkeypatch.setattr(tunnel.limits, "KEEPALIVE_TIMEOUT_MS", 40)

    async def scenario() -> None:
        wire = Wire(*honest())
        await wire.proven()
        near, far = wire.ends
        reading = [asyncio.create_task(end.receive()) for end in (near, far)]
        await asyncio.sleep(0.3)
        assert not any(task.done() for task in reading), "an idle link that lives stays"
        wire.spoil = lambda kind, payload: None if kind is Type.DATA else payload
        for task in reading:
            with pytest.raises(Unreachable, match=r"no sign of life|cut on the way"):
                await task
        await wire.close()

    run(scenario())


@proves("channel.gone-is-unreachable")
def test_what_breaks_the_rules_behind_a_full_reader_ends_the_link_when_it_is_read() -> None:
    async def scenario() -> None:
        wire = Wire(*honest())
        await wire.proven()
        near, far = wire.ends
        await near.send_all([b"%d" % number for number in range(LINK_UNREAD_FRAMES_MAX)])
        near._say(b"\x00\xff\xff\xff")
        await asyncio.sleep(0.05)
        for number in range(LINK_UNREAD_FRAMES_MAX):
            assert await far.receive() == b"%d" % number
        with pytest.raises(Unreachable, match="a length of 16777215 bytes"):
            await far.receive()
        await wire.close()

    run(scenario())


@proves("node.relay-bounds")
def test_an_end_that_is_sent_more_than_it_granted_hangs_up() -> None:
    async def scenario() -> None:
        middle = Middle()
        hung: list[Type] = []
        flow = Flow(lambda kind, _payload: hung.append(kind), RELAYED)
        end = middle.far.open(flow, serves=True)
        for _ in range(100):
            flow.feed(Type.DATA, bytes(RELAY_DATA_BYTES_MAX))
        with pytest.raises(MusterError):
            await end.prove(middle.near_id)
        assert hung.count(Type.CLOSE) == 1

    run(scenario())
