"""A WireGuard mesh of the fleet's own, between hosts with networks of their own."""

import json
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator
from typing import Any

import pytest
from msgspec.structs import replace

from muster.channel import FIRST
from muster.fleet import mesh
from muster.node.host.config import config_text
from tests.e2e.fleet import until
from tests.e2e.net.fleet import PORT, NetFleet
from tests.e2e.net.stage import Net, require
from tests.promise import proves

pytestmark = [pytest.mark.e2e, pytest.mark.timeout(300)]


@pytest.fixture
def net() -> Iterator[Net]:
    require()
    if missing := [each for each in ("wg", "wireguard-go") if shutil.which(each) is None]:
        reason = f"needs {', '.join(missing)} (wireguard-tools, wireguard-go)"
        print(reason)
        pytest.skip(reason)
    with Net("hub", "studio", "laptop") as net:
        yield net
    # Where a wireguard-go was killed its socket lies there; whoever looks takes such away.
    subprocess.run(["wg", "show", "interfaces"], check=True, stdout=subprocess.DEVNULL)


def say(fleet: NetFleet, name: str, *words: str, verb: str = "mesh") -> dict[str, Any]:
    """What `muster mesh …` answers on a host."""
    machine = fleet[name]
    argv = [sys.executable, "-m", "muster", verb, *words, "--json", "--home", machine.home.path]
    done = subprocess.run(
        [*fleet.net.into(name), *map(str, argv)],
        env=fleet.environment(machine), capture_output=True, text=True, timeout=60, check=False,
    )  # fmt: skip
    assert done.returncode in (0, 1), done.stderr
    found = json.loads(done.stdout)
    assert isinstance(found, dict)
    return found


def looked_at(fleet: NetFleet, name: str) -> list[str]:
    """What doctor says of the mesh there."""
    checks = say(fleet, name, verb="doctor")["checks"]
    return [each["text"] for each in checks if each["name"] == "mesh"]


def states(found: dict[str, Any]) -> dict[str, str]:
    return {each["name"]: each["state"] for each in found["peers"]}


def reaches(net: Net, name: str, address: str) -> bool:
    """Whether it is answered from there: a connection is taken, or refused by who is there."""
    probe = f"""
import socket, sys
s = socket.socket(socket.AF_INET6); s.settimeout(2)
sys.exit(s.connect_ex(({address!r}, 9)) not in (0, 111))
"""
    argv = [*net.into(name), sys.executable, "-c", probe]
    return subprocess.run(argv, check=False, timeout=30).returncode == 0


def links(net: Net, name: str) -> set[str]:
    return {each["ifname"] for each in json.loads(net.exec(name, ["ip", "-j", "link"]))}


@proves("net.mesh-of-its-own", "cli.doctor-mesh")
def test_machines_reach_each_other_by_the_mesh_until_one_is_revoked(net: Net):
    before = {name: links(net, name) for name in net.names}
    with NetFleet(net) as fleet:
        # The daemon of studio may change no interface: there `mesh up` is said again.
        fleet["studio"].into = [
            *net.into("studio"), "setpriv", "--bounding-set=-net_admin", "--inh-caps=-net_admin", "--",
        ]  # fmt: skip
        fleet.start()
        assert say(fleet, "hub", "status")["up"] is False
        first = {name: say(fleet, name, "up") for name in net.names}
        assert {each["did"] for each in first.values()} == {"made"}
        assert (first["hub"]["follows"], first["studio"]["follows"]) == (True, False)
        address = {name: each["address"] for name, each in first.items()}
        for name, other in (("hub", "studio"), ("studio", "laptop"), ("laptop", "hub")):
            until(
                lambda n=name, o=other: (say(fleet, n, "up"), reaches(net, n, address[o]))[1],
                f"{name} reaches {other} by the mesh",
            )
        shown = say(fleet, "hub", "status")
        assert states(shown) == {"studio": "up", "laptop": "up"}
        assert shown["endpoint"] == f"{net.address('hub')}:{mesh.PORT}"
        assert shown["others"] == []
        assert looked_at(fleet, "hub") == ["2 of 2 machines were heard within three minutes"]
        heard, right = looked_at(fleet, "studio")
        assert "2 of 2 machines were heard" in heard
        assert "the daemon may not change it" in right
        # The key is nobody's to read in an argument list.
        secret = mesh.key_text(fleet["hub"].identity.secret(mesh.KEY))
        assert not any(secret in line for line in fleet.processes().values())
        # Who is revoked is cut by the daemon that may, in a second or two; else when it is said.
        # Its own interface stays as it is: nobody there obeys.
        hub, gone = fleet.hub, fleet["laptop"]
        gone.kill()
        began_s = time.monotonic()
        hub.order("revoke", "laptop", {"name": "laptop"})
        until(lambda: "laptop" not in states(say(fleet, "hub", "status")), "it is no peer there")
        assert say(fleet, "hub", "status")["stale"] == []
        print(f"revoked, and cut from the hub after {time.monotonic() - began_s:.1f} s")
        assert not reaches(net, "laptop", address["hub"])
        until(lambda: say(fleet, "studio", "status")["stale"] == ["laptop"], "studio knows of it")
        assert reaches(net, "studio", address["laptop"])
        assert say(fleet, "studio", "up")["did"] == "updated"
        assert say(fleet, "studio", "status")["stale"] == []
        assert not reaches(net, "studio", address["laptop"])
        assert reaches(net, "studio", address["hub"])
        # What is taken down leaves nothing, and what is not ours is not touched.
        net.exec("hub", ["ip", "link", "add", "wg7", "type", "veth", "peer", "name", "far7"])
        assert say(fleet, "hub", "down")["did"] == "removed"
        assert say(fleet, "hub", "down")["did"] == "nothing"
        # Also where no daemon is there to be asked.
        fleet["studio"].kill()
        assert say(fleet, "studio", "down")["did"] == "removed"
        assert links(net, "hub") == before["hub"] | {"wg7", "far7"}
        assert links(net, "studio") == before["studio"]
        assert mesh.PREFIX not in net.exec("studio", ["ip", "-6", "route"])


@proves("net.mesh-of-its-own")
def test_the_address_in_the_mesh_is_listened_at_and_told_as_a_way(net: Net):
    with NetFleet(net, ["hub", "studio"]) as fleet:
        config = fleet.hub.home.config()
        options = replace(config.options(FIRST), listen="auto")
        fleet.hub.home.put("config.toml", config_text(replace(config, channel={FIRST: options})))
        fleet.hub.edit_facts(address="", listen="auto")
        fleet.start()
        address = say(fleet, "hub", "up")["address"]
        way = f"[{address}]:{PORT}"

        def listens() -> dict[str, str]:
            (row,) = [row for row in fleet.hub.ask("machines") if row["state"] == "here"]
            return {each["address"]: each["whom"] for each in row["listens"]}

        until(lambda: listens().get(way) == "mesh", "the mesh is listened at", within_s=60.0)
        assert listens()[f"{net.address('hub')}:{PORT}"] == "private", "who is in no mesh comes so"

        def told() -> list[str]:
            rows = {row["name"]: row for row in fleet["studio"].ask("machines")}
            return [each["address"] for each in (rows["hub"]["facts"] or {}).get("reach", [])]

        until(lambda: way in told(), "studio knows that way")
        say(fleet, "hub", "down")
        until(lambda: way not in told(), "and that it is none any more")


@proves("net.mesh-there-is-used")
def test_where_there_is_another_mesh_it_is_used_and_nothing_made(net: Net):
    with NetFleet(net, ["hub"]) as fleet:
        for line in (
            "link add wg0 type veth peer name far0",
            "addr add 10.99.0.1/24 dev wg0",
            "link set far0 up",
            "link set wg0 up",
        ):
            net.exec("hub", ["ip", *line.split()])
        fleet.start()
        found = say(fleet, "hub", "up")
        assert (found["did"], found["up"]) == ("nothing", False)
        assert found["others"] == [{"address": "10.99.0.1", "interface": "wg0"}]
        made = say(fleet, "hub", "up", "--own")
        assert (made["did"], made["up"]) == ("made", True)
        assert say(fleet, "hub", "down")["did"] == "removed"
        assert "wg0" in links(net, "hub")
