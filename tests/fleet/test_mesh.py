"""Who has which address in the fleet's own mesh, and what WireGuard is told."""

import ipaddress
from base64 import b64decode
from dataclasses import replace
from typing import Any

import pytest
from msgspec import structs
from tests.fleet.world import (
    BUILD,
    BUILD_RECORD,
    FLEET_ID,
    LAPTOP,
    LAPTOP_RECORD,
    OTHER_AUTHORITY,
    STUDIO,
    STUDIO_RECORD,
)
from tests.promise import proves

from muster.errors import Malformed
from muster.fleet import mesh
from muster.fleet.facts import Facts, Way
from muster.fleet.mesh import Peer, Seen
from muster.fleet.roster import Roster
from muster.log.keys import agreement_key

NETWORK = mesh.network(FLEET_ID)
PLACE = "192.0.2.7:7447"
SECRET = bytes(range(32))
A = Peer("a" * 64, "a", "A" * 43 + "=", "fd00::a", PLACE)
B = Peer("b" * 64, "b", "B" * 42 + "A=", "fd00::b", "")


def roster(**reach: str) -> Roster:
    records = (STUDIO_RECORD, BUILD_RECORD, LAPTOP_RECORD)
    return Roster(
        FLEET_ID,
        machines={each.machine: each for each in records},
        known={each.machine: each for each in records},
        facts={
            each.machine: Facts(
                "linux", "x86_64", reach=(Way("http", "h:1"), Way(mesh.WAY, reach[each.name]))
            )
            for each in records
            if each.name in reach
        },
    )


@proves("fleet.mesh-addresses")
def test_a_fleet_has_a_unique_local_network_and_each_machine_an_address_in_it():
    assert NETWORK.prefixlen == 48
    # RFC 4193: fc00::/7 with the bit that says that nobody gave it out.
    assert NETWORK.network_address.packed[0] == 0xFD
    assert mesh.network(OTHER_AUTHORITY.fleet) != NETWORK
    found = {mesh.address(FLEET_ID, each.machine) for each in (STUDIO, BUILD, LAPTOP)}
    assert len(found) == 3
    assert all(each in NETWORK for each in found)
    assert mesh.address(OTHER_AUTHORITY.fleet, STUDIO.machine) not in NETWORK
    # What is computed today is what was computed by whoever is connected already.
    assert str(mesh.network("00" * 32)) == "fd21:e8e0:157e::/48"
    assert str(mesh.address("00" * 32, "11" * 32)) == "fd21:e8e0:157e:9f81:3b17:4aa3:2b0e:a3cd"
    name = mesh.interface(STUDIO.machine)
    assert len(name) == 15, "the kernel takes no longer one"


@proves("fleet.mesh-peers")
def test_the_peers_are_the_other_machines_of_the_roster_by_the_keys_of_their_records():
    whole = roster(build=PLACE)
    studio, laptop = STUDIO.machine, LAPTOP.machine
    found = {peer.name: peer for peer in mesh.peers(whole, studio)}
    assert found.keys() == {"build", "laptop"}
    key = agreement_key(BUILD.secret("wireguard"))
    assert b64decode(found["build"].key) == key
    assert (found["build"].endpoint, found["laptop"].endpoint) == (PLACE, "")
    assert found["build"].address == str(mesh.address(FLEET_ID, BUILD.machine))
    without = replace(whole, machines={m: r for m, r in whole.machines.items() if m != laptop})
    assert [peer.name for peer in mesh.peers(without, studio)] == ["build"]
    assert mesh.peers(without, laptop) == [], "a machine that was revoked has none"


@proves("fleet.mesh-places")
@pytest.mark.parametrize(
    ("text", "wanted"),
    [
        (PLACE, PLACE),
        ("[2001:db8::7]:7447", "[2001:db8::7]:7447"),
        ("[2001:DB8:0::7]:7447", "[2001:db8::7]:7447"),
        ("nas.example:7447", ""),
        ("192.0.2.7:0", ""),
        ("192.0.2.7:70000", ""),
        ("192.0.2.7", ""),
        ("192.0.2.7:1\nAllowedIPs=::/0", ""),
        ("127.0.0.1:53", ""),
        ("0.0.0.0:1", ""),
        ("255.255.255.255:1", ""),
        ("224.0.0.1:1", ""),
        ("[fe80::1%eth0]:1", ""),
        ("[ff02::1]:1", ""),
        ("[::ffff:127.0.0.1]:1", ""),
        (f"[{mesh.address(FLEET_ID, BUILD.machine)}]:7447", ""),
        ("", ""),
    ],
)
def test_a_place_names_one_host_and_port_outside_of_the_mesh_or_is_left_out(text, wanted):
    assert mesh.endpoint(text, NETWORK) == wanted
    (build, _) = sorted(mesh.peers(roster(build=text), STUDIO.machine), key=lambda p: p.name)
    assert build.endpoint == wanted


@proves("fleet.mesh-places")
@pytest.mark.parametrize(
    "kept", [None, {}, "x", {"port": 0, "endpoint": ""}, {"port": "1", "endpoint": ""}, [1]]
)
def test_what_a_home_keeps_of_its_place_is_read_or_counts_as_nothing(kept: Any):
    assert mesh.read_place(kept, FLEET_ID) is None
    known = {"port": 7, "endpoint": PLACE, "given": True}
    assert mesh.read_place(known, FLEET_ID) == mesh.Place(7, PLACE, given=True)
    assert mesh.read_place({"port": 7, "endpoint": "x"}, FLEET_ID) == mesh.Place(7, "")


@proves("fleet.mesh-peers")
def test_the_configuration_says_each_peer_and_leaves_the_place_of_one_that_was_heard():
    text = mesh.configuration(SECRET, 7447, [A, B], is_open=False)
    assert text == (
        "[Interface]\n"
        "PrivateKey = AAECAwQFBgcICQoLDA0ODxAREhMUFRYXGBkaGxwdHh8=\n"
        "ListenPort = 7447\n"
        "\n[Peer]\n"
        f"PublicKey = {A.key}\n"
        "AllowedIPs = fd00::a/128\n"
        f"Endpoint = {PLACE}\n"
        "PersistentKeepalive = 25\n"
        "\n[Peer]\n"
        f"PublicKey = {B.key}\n"
        "AllowedIPs = fd00::b/128\n"
    )
    heard = mesh.configuration(SECRET, 7447, [A], keeps={A.key}, is_open=True)
    assert "Endpoint" not in heard
    assert "Keepalive" not in heard


@proves("fleet.mesh-peers")
@pytest.mark.parametrize(
    "how",
    [
        {"key": "k" * 43},
        {"key": f"{'k' * 43}=\nAllowedIPs = ::/0"},
        {"key": ""},
        {"address": "fd00::1"},
        {"machine": "f" * 64},
        {"endpoint": "printer.local:1"},
        {"endpoint": "192.0.2.7:1\nFwMark = 1"},
    ],
)
def test_a_daemon_that_says_odd_peers_gets_none_of_it_done_by_root(how: dict[str, str]):
    fleet, machine = "00" * 32, "22" * 32
    where = str(mesh.address(fleet, machine))
    good = mesh.Peer(machine, "studio", mesh.key_text(bytes(32)), where, "192.0.2.7:7447")
    mesh.check_peer(good, fleet)
    mesh.check_peer(structs.replace(good, endpoint=""), fleet)
    with pytest.raises(Malformed, match="no peer of the mesh"):
        mesh.check_peer(structs.replace(good, **how), fleet)


@proves("fleet.mesh-peers")
def test_what_the_interface_has_is_compared_with_the_roster():
    now_s = 1_790_000_000
    seen = mesh.read_dump(
        "secret\tpublic\t7447\toff\n"
        f"{A.key}\t(none)\t{PLACE}\tfd00::a/128\t{now_s - 20}\t92\t180\t25\n"
        f"{B.key}\t(none)\t(none)\t(none)\t0\t0\t0\toff\n"
        f"C\t(none)\t192.0.2.9:1\tfd00::c/128\t{now_s - 181}\t1\t2\toff\n"
        "half a line\n"
    )
    assert seen[0] == Seen(A.key, PLACE, "fd00::a/128", now_s - 20, 92, 180)
    assert [each.endpoint for each in seen] == [PLACE, "", "192.0.2.9:1"]
    assert mesh.difference([A, B], seen) == ([B.key], ["C"])
    assert mesh.difference([A], seen[:1]) == ([], [])
    assert mesh.heard(seen, now_s) == {A.key}
    assert mesh.read_dump("") == []
    assert all(ipaddress.ip_address(each.address) for each in (A, B))
