"""The stage itself: four hosts, and what may happen between them really happens, to real sockets."""

import contextlib
import json
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.e2e.fleet import until
from tests.e2e.net.stage import ROOT, Net, require
from tests.promise import proves

pytestmark = [pytest.mark.e2e, pytest.mark.timeout(120)]

PORT = 4000
# A frame under way is there at once where nothing delays it; this is for a busy computer.
ARRIVES_S = 60.0
# And this is how long we listen for what must not come.
SILENT_S = 0.5


@pytest.fixture(scope="module")
def made() -> Iterator[Net]:
    require()
    with Net("hub", "studio", "laptop", "nas") as net:
        yield net


@pytest.fixture
def net(made: Net) -> Iterator[Net]:
    yield made
    made.heal()
    for host in made.names:
        made.behind(host, on=False)


def listening(net: Net, host: str) -> socket.socket:
    """A socket that hears datagrams on a host, for all, too."""
    heard = net.socket(host, socket.SOCK_DGRAM, ARRIVES_S)
    heard.bind(("", PORT))
    return heard


def hears(heard: socket.socket) -> bytes:
    """What comes; b"" where nothing does."""
    heard.settimeout(SILENT_S)
    try:
        return heard.recv(2000)
    except TimeoutError:
        return b""
    finally:
        heard.settimeout(ARRIVES_S)


def connected(net: Net, one: str, other: str) -> tuple[socket.socket, socket.socket]:
    """Both ends of a connection that one host dialled."""
    with net.socket(other) as door:
        door.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        door.bind((net.address(other), PORT))
        door.listen()
        near = net.socket(one)
        near.connect((net.address(other), PORT))
        far, _ = door.accept()
    far.settimeout(ARRIVES_S)
    near.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    return near, far


def round_ms(near: socket.socket, far: socket.socket) -> float:
    """How long one byte takes there and back: the best of some, for a busy computer."""
    best = float("inf")
    for _ in range(8):
        began = time.perf_counter()
        near.sendall(b"x")
        assert far.recv(1) == b"x"
        far.sendall(b"y")
        assert near.recv(1) == b"y"
        best = min(best, time.perf_counter() - began)
    return best * 1000


@proves("net.stage-true")
def test_each_host_has_its_own_addresses_and_reaches_the_others_and_nobody_else(net: Net):
    shown = net.exec("nas", ["ip", "-br", "addr"])
    assert "10.78.0.4/24" in shown
    assert "fd78::4/64" in shown
    near, far = connected(net, "laptop", "hub")
    with near, far:
        assert near.getsockname()[0] == "10.78.0.3"
        far.sendall(b"from the hub")
        assert near.recv(100) == b"from the hub"
    assert net.exec("nas", ["ip", "route", "show", "default"]) == ""
    assert "10.78.0." not in subprocess.getoutput("ip addr")


@proves("net.stage-true")
def test_a_delay_each_way_is_a_round_trip_of_twice_that(net: Net):
    near, far = connected(net, "laptop", "hub")
    with near, far:
        net.between("laptop", "hub").delay(25)
        assert round_ms(near, far) >= 50
        net.between("laptop", "hub").heal()
        until(lambda: round_ms(near, far) < 50, "without a delay it is sooner")


@proves("net.stage-true")
def test_so_many_packets_are_lost_as_was_said_and_in_one_direction_alone(net: Net):
    net.between("laptop", "hub").loss(0.3, one_way=True)
    before = net.between("laptop", "hub").counters()

    def through() -> int:
        now = net.between("laptop", "hub").counters()
        return now.frames + now.dropped - before.frames - before.dropped

    came: list[int] = []

    def all_came(count: int) -> bool:
        with contextlib.suppress(BlockingIOError):
            while True:
                came.append(int(hub.recv(100)))
        lost = net.between("laptop", "hub").counters().dropped - before.dropped
        # What the kernel itself says to all at times goes the same way, and some of it is lost.
        return through() >= count and len(came) >= count - lost

    with listening(net, "hub") as hub, net.socket("laptop", socket.SOCK_DGRAM) as laptop:
        hub.setblocking(False)
        for n in range(500):
            laptop.sendto(b"%d" % n, (net.address("hub"), PORT))
            if n % 25 == 24:
                # In small crowds, so that no buffer is full and nothing is lost but by the dice.
                until(lambda n=n: all_came(n + 1), "what was not lost came")
    assert came == sorted(set(came))
    assert abs(len(came) / 500 - 0.7) < 0.08


@proves("net.stage-true")
def test_a_cut_in_one_direction_leaves_the_other(net: Net):
    with listening(net, "hub") as hub, listening(net, "laptop") as laptop:
        net.between("laptop", "hub").cut(one_way=True)
        laptop.sendto(b"nobody hears it", (net.address("hub"), PORT))
        hub.sendto(b"still here", (net.address("laptop"), PORT))
        assert laptop.recv(100) == b"still here"
        assert hears(hub) == b""
        net.between("laptop", "hub").heal()
        laptop.sendto(b"back", (net.address("hub"), PORT))
        assert hub.recv(100) == b"back"


@proves("net.stage-true")
def test_a_connection_lives_through_a_cut_that_is_short(net: Net):
    near, far = connected(net, "laptop", "hub")
    with near, far:
        net.between("laptop", "hub").cut()
        near.sendall(b"meanwhile")
        assert hears(far) == b""
        net.between("laptop", "hub").heal()
        assert far.recv(100) == b"meanwhile"


@proves("net.stage-true")
def test_who_is_behind_a_nat_dials_out_and_nobody_dials_in(net: Net):
    net.behind("laptop")
    near, far = connected(net, "laptop", "hub")
    with near, far:
        far.sendall(b"an answer")
        assert near.recv(100) == b"an answer"
    with listening(net, "laptop") as laptop, listening(net, "hub") as hub:
        hub.sendto(b"who is there", (net.address("laptop"), PORT))
        assert hears(laptop) == b""
        laptop.sendto(b"I am", (net.address("hub"), PORT))
        said, sender = hub.recvfrom(100)
        assert (said, sender) == (b"I am", (net.address("laptop"), PORT))
        hub.sendto(b"welcome", sender)
        assert laptop.recv(100) == b"welcome"


@proves("net.stage-true")
def test_what_is_for_all_reaches_all(net: Net):
    with contextlib.ExitStack() as stack:
        heard = [stack.enter_context(listening(net, host)) for host in ("hub", "studio", "nas")]
        for each, host in zip(heard, ("hub", "studio", "nas"), strict=True):
            member = socket.inet_aton("224.0.0.251") + socket.inet_aton(net.address(host))
            each.setsockopt(socket.IPPROTO_IP, socket.IP_ADD_MEMBERSHIP, member)
        laptop = stack.enter_context(net.socket("laptop", socket.SOCK_DGRAM))
        laptop.setsockopt(socket.SOL_SOCKET, socket.SO_BROADCAST, 1)
        own = socket.inet_aton(net.address("laptop"))
        laptop.setsockopt(socket.IPPROTO_IP, socket.IP_MULTICAST_IF, own)
        # The packet that wakes a computer: six bytes and sixteen times its address.
        wake = b"\xff" * 6 + bytes.fromhex("027800000001") * 16
        laptop.sendto(wake, ("10.78.0.255", PORT))
        assert [each.recv(200) for each in heard] == [wake] * 3
        laptop.sendto(b"who is on this network", ("224.0.0.251", PORT))
        assert [each.recv(200) for each in heard] == [b"who is on this network"] * 3


@proves("net.nothing-left")
def test_two_nets_at_once_know_nothing_of_each_other(net: Net):
    with (
        Net("hub", "laptop") as other,
        listening(net, "hub") as here,
        listening(other, "hub") as there,
    ):
        with other.socket("laptop", socket.SOCK_DGRAM) as laptop:
            laptop.sendto(b"over there", (other.address("hub"), PORT))
        assert there.recv(100) == b"over there"
        assert hears(here) == b""


def is_there(pid: int) -> bool:
    try:
        state = Path(f"/proc/{pid}/stat").read_bytes().rpartition(b")")[2].split()[0]
    except (FileNotFoundError, ProcessLookupError):
        return False
    return state not in (b"Z", b"X")


# What hides from whoever started it: its parent is gone, and it is in a session of its own.
HIDES = "import os, time; os.fork() and os._exit(0); os.setsid(); print(os.getpid(), flush=True); time.sleep(600)"
KILLED = f"""
import json, os, subprocess, sys, tempfile, time
from tests.e2e.net.stage import Net
with Net("one", "two") as net:
    net.look_after(folder := tempfile.mkdtemp())
    plain = net.spawn("one", ["sleep", "600"])
    hidden = net.spawn("two", [sys.executable, "-c", {HIDES!r}], stdout=subprocess.PIPE)
    hiding = int(hidden.stdout.readline())
    print(json.dumps([plain.pid, hiding, net._switch.pid, folder]), flush=True)
    time.sleep(600)
"""


@proves("net.nothing-left")
@pytest.mark.parametrize("how", ["closed", "killed"])
def test_nothing_is_left_of_a_net_however_its_test_ends(how: str):
    require()
    named = set(os.listdir("/run/netns")) if os.path.isdir("/run/netns") else set()
    devices = set(os.listdir("/sys/class/net"))
    test = subprocess.Popen(
        [sys.executable, "-c", KILLED], cwd=ROOT, stdout=subprocess.PIPE, text=True
    )
    try:
        assert test.stdout is not None
        *pids, folder = json.loads(test.stdout.readline())
        assert all(is_there(pid) for pid in pids)
        assert os.path.isdir(folder)
        test.send_signal(signal.SIGINT if how == "closed" else signal.SIGKILL)
        test.wait(90)
        until(lambda: not any(is_there(pid) for pid in pids), "every process is gone", within_s=90)
        until(lambda: not os.path.exists(folder), "and the folder", within_s=90)
    finally:
        test.kill()
        test.wait()
        assert test.stdout is not None
        test.stdout.close()
    assert (set(os.listdir("/run/netns")) if os.path.isdir("/run/netns") else set()) == named
    assert set(os.listdir("/sys/class/net")) == devices
