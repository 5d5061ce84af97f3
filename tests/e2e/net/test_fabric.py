"""What becomes of a frame between two hosts, without any host."""

import struct

import pytest

from tests.e2e.net.fabric import Fabric, Rule, mac_of
from tests.promise import proves

HOSTS = ("a", "b", "c")
TCP, UDP, ICMP = 6, 17, 1
ALL = b"\xff" * 6


def frame(
    source: int, target: int, protocol: int = UDP, ports: tuple[int, int] = (1000, 2000),
    *, mac: bytes = b"", size: int = 100, fragment: int = 0,
) -> bytes:  # fmt: skip
    """A frame with a packet of IPv4 from one host to another, both by their numbers."""
    head = struct.pack(
        "!BBHHHBBH4s4s", 0x45, 0, size, 0, fragment, 64, protocol, 0,
        bytes((10, 78, 0, source)), bytes((10, 78, 0, target)),
    )  # fmt: skip
    ether = (mac or mac_of(target)) + mac_of(source) + b"\x08\x00"
    return (ether + head + struct.pack("!HH", *ports)).ljust(size, b"\0")


def frame6(source: int, target: int, ports: tuple[int, int]) -> bytes:
    """The same of IPv6, with UDP."""

    def address(n: int) -> bytes:
        return b"\xfd\x78" + bytes(13) + bytes((n,))

    head = struct.pack("!IHBB", 6 << 28, 4, UDP, 64) + address(source) + address(target)
    return mac_of(target) + mac_of(source) + b"\x86\xdd" + head + struct.pack("!HH", *ports)


def to(fabric: Fabric, source: str, what: bytes, now_s: float = 0.0) -> list[str]:
    return [out.host for out in fabric.pass_on(source, what, now_s)]


@pytest.fixture
def fabric() -> Fabric:
    return Fabric(HOSTS, "seed")


@proves("net.stage-true")
def test_a_frame_goes_to_whom_it_is_for_and_one_for_all_to_all(fabric: Fabric):
    assert to(fabric, "a", frame(1, 2)) == ["b"]
    assert to(fabric, "a", frame(1, 2, mac=ALL)) == ["b", "c"]
    assert to(fabric, "b", frame(2, 251, mac=bytes.fromhex("01005e0000fb"))) == ["a", "c"]
    assert to(fabric, "a", frame(1, 9)) == []


@proves("net.stage-true")
def test_a_direction_has_its_own_rule(fabric: Fabric):
    fabric.direction("a", "b").set(Rule(cut=True))
    assert to(fabric, "a", frame(1, 2)) == []
    assert to(fabric, "b", frame(2, 1)) == ["a"]
    assert to(fabric, "a", frame(1, 2, mac=ALL)) == ["c"]
    fabric.direction("a", "b").set(Rule())
    assert to(fabric, "a", frame(1, 2)) == ["b"]
    counters = fabric.direction("a", "b").counters
    assert (counters.frames, counters.bytes, counters.dropped) == (1, 100, 2)


@proves("net.stage-true")
def test_what_is_lost_follows_from_the_seed():
    def lost(seed: str) -> list[int]:
        fabric = Fabric(HOSTS, seed)
        fabric.direction("a", "b").set(Rule(loss=0.3))
        return [n for n in range(500) if not fabric.pass_on("a", frame(1, 2), n)]

    assert lost("one") == lost("one")
    assert lost("one") != lost("two")
    assert len(lost("one")) == 135


@proves("net.stage-true")
def test_a_delay_keeps_the_order_and_a_jitter_too(fabric: Fabric):
    fabric.direction("a", "b").set(Rule(delay_ms=25))
    assert fabric.pass_on("a", frame(1, 2), 1.0)[0].due_s == pytest.approx(1.025)
    fabric.direction("a", "b").set(Rule(delay_ms=200, jitter_ms=100))
    due = [fabric.pass_on("a", frame(1, 2), 2 + n / 1000)[0].due_s for n in range(200)]
    assert due == sorted(due)
    assert 2.2 <= due[0] <= 2.3
    assert due[-1] <= 2.5


@proves("net.stage-true")
def test_a_bounded_line_is_as_fast_as_it_says_and_drops_what_comes_too_fast(fabric: Fabric):
    fabric.direction("a", "b").set(Rule(rate=1000))
    outs = [fabric.pass_on("a", frame(1, 2), 0.0) for _ in range(20)]
    passed = [out[0].due_s for out in outs if out]
    assert passed == pytest.approx([n / 10 for n in range(1, 12)])
    assert fabric.direction("a", "b").counters.dropped == 9


@proves("net.stage-true")
def test_behind_a_nat_one_dials_out_and_nobody_in(fabric: Fabric):
    fabric.behind("a", on=True)
    assert to(fabric, "b", frame(2, 1, TCP, (80, 1000))) == []
    assert to(fabric, "a", frame(1, 2, TCP, (1000, 80))) == ["b"]
    assert to(fabric, "b", frame(2, 1, TCP, (80, 1000))) == ["a"]
    # Another port, another protocol, another host: none of them was asked.
    assert to(fabric, "b", frame(2, 1, TCP, (81, 1000))) == []
    assert to(fabric, "b", frame(2, 1, UDP, (80, 1000))) == []
    assert to(fabric, "c", frame(3, 1, TCP, (80, 1000))) == []
    assert to(fabric, "a", frame(1, 2, ICMP)) == ["b"]
    assert to(fabric, "b", frame(2, 1, ICMP)) == ["a"]
    assert to(fabric, "a", frame6(1, 2, (5, 6))) == ["b"]
    assert to(fabric, "b", frame6(2, 1, (6, 5))) == ["a"]
    assert to(fabric, "b", frame6(2, 1, (6, 7))) == []
    # Nothing for all comes in, and no part of a packet that names no flow.
    assert to(fabric, "b", frame(2, 1, mac=ALL)) == ["c"]
    assert to(fabric, "b", frame(2, 1, TCP, (80, 1000), fragment=64)) == []
    fabric.behind("a", on=False)
    assert to(fabric, "c", frame(3, 1, TCP, (80, 1000))) == ["a"]


@proves("net.stage-true")
def test_a_flow_is_forgotten_when_nothing_went_over_it_for_a_minute(fabric: Fabric):
    fabric.behind("a", on=True)
    fabric.pass_on("a", frame(1, 2, TCP, (1000, 80)), 0.0)
    assert to(fabric, "b", frame(2, 1, TCP, (80, 1000)), 59.0) == ["a"]
    assert to(fabric, "b", frame(2, 1, TCP, (80, 1000)), 118.0) == ["a"]
    assert to(fabric, "b", frame(2, 1, TCP, (80, 1000)), 178.0) == []
    assert to(fabric, "b", frame(2, 1, TCP, (80, 1000)), 178.0) == []
