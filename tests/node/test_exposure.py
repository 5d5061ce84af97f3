"""Where `auto` listens, where that is reached, and who can reach what is bound."""

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from msgspec import to_builtins
from tests.promise import proves

from muster.channel.http import Options
from muster.errors import Malformed
from muster.node.exposed import Exposed, sentence
from muster.node.host import exposure
from muster.node.host.exposure import Near, exposed, hosts, near, reached_at, reached_inside
from muster.node.host.facts import Interface
from muster.verbs import daemon_checks

LO = Interface("lo", "", ("127.0.0.1/255.0.0.0",), ("::1",))
LAN = Interface("eth0", "", ("192.168.1.5/255.255.255.0",), ("fd00::5", "fe80::1%eth0"))
BRIDGE = Interface("docker0", "", ("172.17.0.1/255.255.0.0",))
INTERNET = Interface("eth1", "", ("198.51.100.7/255.255.255.0",), ("2600::7",))
CARRIER = Interface("wwan0", "", ("100.70.0.9/255.192.0.0",))
WIREGUARD = Interface("wg0", "", ("10.9.0.2/255.255.255.0",))
TAILSCALE = Interface("tailscale0", "", ("100.101.0.2/255.255.255.255",), ("fd7a:115c:a1e0::2",))
OWN_MESH = Interface("muster-0123abcd", "", (), ("fd55::1", "fe80::2%muster-0123abcd"))
UTUN = Interface("utun4", "", ("100.101.0.2/255.255.255.255",))
PUBLIC_TUNNEL = Interface("wg1", "", ("198.51.100.9/255.255.255.255",))


def at(*interfaces: Interface) -> list[Near]:
    return near((LO, *interfaces))


@proves("node.auto-is-never-public")
@pytest.mark.parametrize(
    ("interfaces", "wanted"),
    [
        ((), []),
        ((LAN,), ["192.168.1.5", "fd00::5"]),
        ((LAN, BRIDGE), ["192.168.1.5", "fd00::5", "172.17.0.1"]),
        ((INTERNET,), []),
        ((INTERNET, LAN), ["192.168.1.5", "fd00::5"]),
        # A provider's own network is full of strangers.
        ((CARRIER,), []),
        ((LAN, WIREGUARD), ["10.9.0.2"]),
        ((LAN, INTERNET, TAILSCALE), ["100.101.0.2", "fd7a:115c:a1e0::2"]),
        ((LAN, UTUN), ["100.101.0.2"]),
        ((LAN, WIREGUARD, TAILSCALE), ["10.9.0.2", "100.101.0.2", "fd7a:115c:a1e0::2"]),
        # The fleet's own mesh stands on the networks below it, and closes none of them.
        ((LAN, OWN_MESH), ["192.168.1.5", "fd00::5", "fd55::1"]),
        ((LAN, OWN_MESH, WIREGUARD), ["fd55::1", "10.9.0.2"]),
        # A public address stays one when it comes through a tunnel.
        ((LAN, PUBLIC_TUNNEL), ["192.168.1.5", "fd00::5"]),
    ],
)
def test_auto_is_this_computer_and_its_meshes_or_else_its_private_networks(interfaces, wanted):
    assert hosts(at(*interfaces)) == ["127.0.0.1", "::1", *wanted]
    assert hosts([]) == ["127.0.0.1"]


@proves("node.auto-is-never-public")
def test_an_interface_of_wireguard_is_one_by_whatever_name(tmp_path: Path, monkeypatch: Any):
    monkeypatch.setattr(exposure, "_NET", tmp_path)
    for name, said in {"home": b"DEVTYPE=wireguard\nINTERFACE=home\n", "odd": b"\xff"}.items():
        (tmp_path / name).mkdir()
        (tmp_path / name / "uevent").write_bytes(said)
    found = [WIREGUARD._replace(name=name) for name in ("home", "odd", "none", "a\0b")]
    assert [row.whom for row in near(found)] == ["mesh", "private", "private", "private"]


@proves("node.auto-says-where-it-is")
@pytest.mark.parametrize(
    ("listen", "interfaces", "address"),
    [
        ("auto", (), ""),
        ("auto", (INTERNET,), ""),
        ("auto", (BRIDGE, LAN), "192.168.1.5:7447"),
        ("auto:8000", (LAN, WIREGUARD), "10.9.0.2:8000"),
        ("auto", (LAN, TAILSCALE), "100.101.0.2:7447"),
        (("192.0.2.1:1", "auto"), (LAN,), "192.0.2.1:1"),
        (("127.0.0.1:1", "[::1]:1"), (LAN,), "127.0.0.1:1"),
        (("127.0.0.1:1", "[2001:db8::1]:2"), (LAN,), "[2001:db8::1]:2"),
        ((), (LAN,), ""),
        # That of the mesh is told as one more way, for whoever is in it.
        ("auto", (LAN, OWN_MESH), "192.168.1.5:7447"),
        ("auto", (OWN_MESH,), ""),
    ],
)
def test_a_machine_is_reached_where_it_listens(monkeypatch: Any, listen, interfaces, address):
    monkeypatch.setattr(exposure, "own_ip", lambda: "192.168.1.5")
    assert reached_at(Options(listen), at(*interfaces)) == address
    assert reached_at(Options(listen, "nas.example:7"), at(*interfaces)) == "nas.example:7"


@proves("node.own-mesh-is-a-way")
@pytest.mark.parametrize(
    ("listen", "address"),
    [
        ("auto", "[fd55::1]:7447"),
        (("192.0.2.1:1", "auto:8000"), "[fd55::1]:8000"),
        (":7447", "[fd55::1]:7447"),
        ("[::]:7447", "[fd55::1]:7447"),
        ("0.0.0.0:7447", ""),
        ("192.168.1.5:7447", ""),
        ((), ""),
    ],
)
def test_a_machine_says_where_it_is_reached_inside_the_fleets_own_mesh(listen, address):
    assert reached_inside(Options(listen), OWN_MESH.name, at(LAN, OWN_MESH)) == address
    assert reached_inside(Options(listen), "muster-99999999", at(LAN, OWN_MESH, WIREGUARD)) == ""


@proves("node.auto-says-where-it-is")
@pytest.mark.parametrize(
    "listen", ["a:1,", "auto:x", "auto:70000", "a b:1", "nowhere", ",", "a:1, b:1"]
)
def test_a_place_to_listen_that_is_none_is_refused(listen: str):
    with pytest.raises(Malformed):
        Options.check_listen(listen)


@proves("node.says-who-can-reach-it")
def test_of_every_address_that_is_bound_it_is_known_who_can_reach_it():
    rows = at(LAN, INTERNET, WIREGUARD)
    found = exposed(["127.0.0.1:1", "10.9.0.2:1", "[2600::7]:1"], {"10.0.0.9:1": "gone"}, rows)
    assert found == [
        Exposed("127.0.0.1:1", "computer", "lo"), Exposed("10.9.0.2:1", "mesh", "wg0"),
        Exposed("[2600::7]:1", "public", "eth1"), Exposed("10.0.0.9:1", "private", "", "gone"),
    ]  # fmt: skip
    assert sentence(found) == (
        "127.0.0.1:1 (this computer alone); 10.9.0.2:1 (the mesh of wg0); "
        "[2600::7]:1 (THE INTERNET of eth1)"
    )
    every = exposed(["0.0.0.0:1"], {}, rows)
    assert [(row.address, row.whom) for row in every] == [
        ("127.0.0.1:1", "computer"), ("192.168.1.5:1", "private"), ("198.51.100.7:1", "public"),
        ("10.9.0.2:1", "mesh"),
    ]  # fmt: skip
    assert {row.address for row in exposed(["[::]:1"], {}, rows)} == {
        "[::1]:1", "[fd00::5]:1", "[2600::7]:1",
    }  # fmt: skip
    names = {row.address: row.whom for row in exposed(["localhost:1"], {"nas.local:1": "x"}, rows)}
    assert names == {"localhost:1": "computer", "nas.local:1": "public"}


def checks(rows: list[tuple[str, ...]], **knocks: bool) -> list[Any]:
    """What doctor says of a machine that listens there, with others that knock or do not."""
    told = [to_builtins(Exposed(row[0], row[1], "", *row[2:])) for row in rows]  # type: ignore[arg-type]
    machines = [{"name": "me", "state": "here", "listens": told}]
    machines += [{"name": name, "state": "up", "knocks": said} for name, said in knocks.items()]
    context: Any = SimpleNamespace(ask=lambda _verb, _args: machines)
    return list(daemon_checks._exposed(context))


@proves("node.says-who-can-reach-it")
def test_doctor_says_what_is_exposed_and_how_what_is_public_is_closed():
    (none,) = checks([])
    assert (none.state, none.text) == ("ok", "no port is open to other machines: this one dials")
    (well,) = checks([("10.9.0.2:7447", "mesh")])
    assert (well.state, well.text) == ("ok", "it listens at 10.9.0.2:7447 (the mesh)")
    rows = [("198.51.100.7:7447", "public"), ("10.0.0.1:7447", "private", "it is used")]
    public, failed = checks(rows)
    assert public.state == "note"
    assert public.text == "PUBLIC: it listens at 198.51.100.7:7447 (THE INTERNET)"
    assert 'channel.http.listen = "auto"' in public.mend
    assert (failed.state, failed.text) == ("note", "it cannot listen at 10.0.0.1:7447: it is used")
