"""Machines on one network, announced there: who moved is found, and who only says so is not."""

import sys
import time
from collections.abc import Iterator
from pathlib import Path
from subprocess import PIPE
from typing import Any

import pytest
from msgspec.structs import replace

from muster.channel import FIRST
from muster.channel.knock import HOUR_MS
from muster.node.host.config import config_text
from muster.node.links.lan import Names
from tests.e2e.fleet import now_ms, until
from tests.e2e.net.fleet import PORT, NetFleet
from tests.e2e.net.stage import Net, require
from tests.promise import proves

pytest.importorskip("zeroconf", reason="pip install 'muster-fleet[lan]'")
pytestmark = [pytest.mark.e2e, pytest.mark.timeout(300)]

MOVED = {"hub": "10.78.0.76", "studio": "10.78.0.77"}
# As long as a busy computer may take.
FOUND_S = 120.0


@pytest.fixture
def net() -> Iterator[Net]:
    require()
    with Net("hub", "studio", "stranger") as net:
        yield net


def listen_everywhere(fleet: NetFleet, name: str) -> None:
    machine = fleet[name]
    config = machine.home.config()
    http = replace(config.options(FIRST), listen=f"0.0.0.0:{PORT}")
    changed = replace(config, channel={**config.channel, FIRST: http})
    machine.home.put("config.toml", config_text(changed))


def move(net: Net, name: str) -> None:
    """Another address, that nobody was told of, instead of its own."""
    for line in (
        # In this order: with the first address of a network the others go.
        f"addr del {net.address(name)}/24 dev eth0",
        f"addr add {MOVED[name]}/24 dev eth0",
        "route add default dev eth0",
    ):
        net.exec(name, ["ip", *line.split()])


def announced(fleet: NetFleet, name: str) -> list[str]:
    (row,) = [row for row in fleet[name].ask("machines") if row["state"] == "here"]
    return [each["address"] for each in row["listens"] if each.get("announced")]


def counted(fleet: NetFleet, name: str, counter: str) -> int:
    return int(fleet[name].ask("status")["counters"].get(counter, 0))


@proves("net.found-on-the-lan")
def test_machines_that_moved_find_each_other_though_nobody_knew_where_they_are(net: Net):
    """Both get another address while they are down: what either knows of the other is wrong."""
    with NetFleet(net, ["hub", "studio"]) as fleet:
        for name in ("hub", "studio"):
            listen_everywhere(fleet, name)
        fleet.start()
        for name in ("hub", "studio"):
            fleet[name].stop()
            move(net, name)
        began_s = time.monotonic()
        for name in ("hub", "studio"):
            fleet[name].start()
        until(lambda: fleet.hub.linked() == {"studio"}, "found and linked", within_s=FOUND_S)
        print(f"linked {time.monotonic() - began_s:.1f} s after their start")
        for name in ("hub", "studio"):
            until(lambda n=name: announced(fleet, n) == [f"{MOVED[n]}:{PORT}"], "announced")
        assert counted(fleet, "hub", "lan-found") + counted(fleet, "studio", "lan-found") >= 1
        # It is remembered as any address is over which a machine proved itself.
        assert any(at in str(dials(fleet)) for at in MOVED.values())


@proves("net.found-on-the-lan")
def test_a_machine_that_only_dials_finds_the_one_that_it_dialled_where_that_is_now(net: Net):
    """As at home: the router gives out other addresses, and one of the two listens."""
    with NetFleet(net, ["hub", "studio"], deaf=["studio"]) as fleet:
        listen_everywhere(fleet, "hub")
        fleet.start()
        for name in ("hub", "studio"):
            fleet[name].stop()
            move(net, name)
            fleet[name].start()
        until(lambda: fleet.hub.linked() == {"studio"}, "found and linked", within_s=FOUND_S)
        assert announced(fleet, "studio") == []
        assert counted(fleet, "studio", "lan-found") == 1


# On the host of a stranger: keeps what is said to all, says that machines are here, and counts who
# dials. Its arguments are where to keep it, its address, its port, and pairs of service and name.
STRANGER = """
import socket, struct, sys, threading
from zeroconf import ServiceInfo, Zeroconf

kept, host, port, *names = sys.argv[1:]

def keep():
    heard = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    for option in (socket.SO_REUSEADDR, socket.SO_REUSEPORT):
        heard.setsockopt(socket.SOL_SOCKET, option, 1)
    heard.bind(("224.0.0.251", 5353))
    group = struct.pack("4s4s", socket.inet_aton("224.0.0.251"), socket.inet_aton(host))
    heard.setsockopt(socket.IPPROTO_IP, socket.IP_ADD_MEMBERSHIP, group)
    while True:
        said, (whose, _) = heard.recvfrom(65535)
        if whose != host:
            with open(kept + ".heard", "ab") as file:
                file.write(said)

def count():
    door = socket.create_server((host, int(port)))
    while True:
        door.accept()[0].close()
        with open(kept + ".dials", "ab") as file:
            file.write(b".")

threading.Thread(target=keep, daemon=True).start()
threading.Thread(target=count, daemon=True).start()
print("ready", flush=True)
sys.stdin.readline()
network = Zeroconf(interfaces=[host])
for service, name in zip(names[::2], names[1::2]):
    # Another network as well: nobody on this one is dialled there.
    at = [socket.inet_aton(host), socket.inet_aton("192.0.2.7")]
    network.register_service(
        ServiceInfo(service, name, port=int(port), addresses=at), cooperating_responders=True
    )
print("said", flush=True)
sys.stdin.read()
"""


@proves("net.lan-believes-nobody")
def test_who_says_that_a_machine_is_elsewhere_is_dialled_and_changes_nothing(net: Net):
    """The stranger was a member once, and can make every name. Then studio really moves."""
    with NetFleet(net, ["hub", "studio"]) as fleet:
        hub, studio = fleet.hub, fleet["studio"]
        for name in ("hub", "studio"):
            listen_everywhere(fleet, name)
        kept, names, hour = str(fleet.root / "stranger"), Names(fleet.fleet), now_ms() // HOUR_MS
        said = [
            word
            for each in (hour, hour + 1)
            for service in (names.service(each),)
            for word in (service, f"{names.instance(each, studio.id)}.{service}")
        ]
        at = net.address("stranger")
        argv = [sys.executable, "-c", STRANGER, kept, at, str(PORT), *said]
        with net.spawn("stranger", argv, stdin=PIPE, stdout=PIPE, text=True) as stranger:
            assert stranger.stdin is not None
            assert stranger.stdout is not None
            assert stranger.stdout.readline() == "ready\n"
            fleet.start()
            for name in ("hub", "studio"):
                until(lambda n=name: announced(fleet, n), f"{name} is announced")
            before = dials(fleet)
            stranger.stdin.write("\n")
            stranger.stdin.flush()
            assert stranger.stdout.readline() == "said\n"
            until(lambda: counted(fleet, "hub", "lan-elsewhere"), "the hub heard it", within_s=60)
            assert hub.linked() == {"studio"}
            assert dials(fleet) == before
            assert not Path(f"{kept}.dials").exists()
            # Now a link is wanted, and the hub tries what it heard.
            studio.stop()
            until(lambda: Path(f"{kept}.dials").exists(), "the stranger is dialled", within_s=60)
            assert hub.linked() == set()
            move(net, "studio")
            studio.edit_facts(dial={})
            studio.start()
            until(lambda: hub.linked() == {"studio"}, "found all the same", within_s=FOUND_S)
            print(f"the stranger was dialled {len(Path(f'{kept}.dials').read_bytes())} times")
            assert at not in str(dials(fleet))
            heard = Path(f"{kept}.heard").read_bytes()
            stranger.stdin.close()
        assert names.instance(hour, hub.id).encode() in heard
        for secret in ("hub", "studio", "muster", hub.id, studio.id, str(fleet.fleet)):
            assert secret.lower().encode() not in heard.lower()


def dials(fleet: NetFleet) -> list[Any]:
    """What both remember of where the other one is."""
    return [fleet[name].home.facts()["dial"] for name in ("hub", "studio")]
