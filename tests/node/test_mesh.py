"""The interface of the fleet's own mesh: what is said to `ip` and `wg`, and when it follows."""

import asyncio
import contextlib
import subprocess
from collections.abc import AsyncIterator
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from tests.node.cores import Cores
from tests.promise import proves

from muster.errors import Broken, Denied, Malformed, NotFound, Unreachable
from muster.fleet import mesh
from muster.node.host import mesh as host
from muster.node.host import program
from muster.node.host.exposure import Near
from muster.node.links.mesh import MeshKeeper
from muster.verbs import mesh as verbs

FLEET, ME = "00" * 32, "11" * 32
NAME = mesh.interface(ME)
SECRET = bytes(range(32))
PLACE = mesh.Place(7447, "192.0.2.1:7447")
PEER = mesh.Peer("22" * 32, "studio", "k" * 43 + "=", "fd00::2", "192.0.2.7:7447")


class Computer:
    """`ip` and `wg`, as far as they are asked here; `fails` is what refuses."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.there = {"lo", "wg0"}
        self.said: list[str] = []
        self.read: list[str] = []
        self.fails: tuple[str, ...] = ()
        self.programs = {"wg", "ip", "wireguard-go"}
        monkeypatch.setattr(program, "ask", self.ask)
        monkeypatch.setattr(program, "there", lambda name: name in self.programs)
        monkeypatch.setattr(host, "is_there", lambda name: name in self.there)

    def ask(self, argv: list[str], *, text: str = "") -> subprocess.CompletedProcess[str]:
        line = " ".join(argv)
        self.said.append(line)
        self.read.append(text)
        if line.startswith(self.fails or ("-",)):
            return subprocess.CompletedProcess(argv, 1, "", "it will not")
        if "link add" in line or "wireguard-go" in line:
            self.there.add(NAME)
        if "link delete" in line:
            self.there.remove(argv[-1])
        return subprocess.CompletedProcess(argv, 0, "", "")

    def make(self) -> bool:
        return host.make(
            NAME, fleet=FLEET, machine=ME, secret=SECRET, place=PLACE, peers=[PEER]
        )  # fmt: skip


@pytest.fixture
def computer(monkeypatch: pytest.MonkeyPatch) -> Computer:
    return Computer(monkeypatch)


@proves("node.mesh-interface")
def test_the_interface_is_made_once_and_its_key_is_in_no_argument(computer: Computer):
    own, network = mesh.address(FLEET, ME), mesh.network(FLEET)
    follow = [
        f"wg show {NAME} dump", f"wg syncconf {NAME} /dev/stdin",
        f"ip -6 address replace {own}/128 dev {NAME}", f"ip link set {NAME} up",
        f"ip -6 route replace {network} dev {NAME}",
    ]  # fmt: skip
    assert computer.make()
    assert computer.said == [f"ip link add {NAME} type wireguard", *follow]
    assert mesh.key_text(SECRET) in "".join(computer.read)
    assert mesh.key_text(SECRET) not in "".join(computer.said)
    computer.said.clear()
    assert not computer.make()
    assert computer.said == follow
    host.remove(NAME)
    assert computer.there == {"lo", "wg0"}


@proves("node.mesh-interface")
def test_a_kernel_without_wireguard_has_a_program_for_it_or_is_told_which(computer: Computer):
    computer.fails = ("ip link add",)
    assert computer.make()
    assert computer.said[1] == f"env -u LOG_LEVEL wireguard-go {NAME}"
    host.remove(NAME)
    computer.programs.remove("wireguard-go")
    with pytest.raises(NotFound, match="apt install wireguard-go"):
        computer.make()
    assert NAME not in computer.there


@proves("node.mesh-interface")
def test_what_was_made_is_gone_again_where_a_program_does_not_end(computer: Computer, monkeypatch):
    def hangs(argv: list[str], *, text: str = "") -> subprocess.CompletedProcess[str]:
        if argv[:2] == ["wg", "syncconf"]:
            raise Unreachable("wg does not end")
        return computer.ask(argv, text=text)

    monkeypatch.setattr(program, "ask", hangs)
    with pytest.raises(Unreachable, match="wg does not end"):
        computer.make()
    assert computer.there == {"lo", "wg0"}


@proves("node.mesh-interface")
@pytest.mark.parametrize("fails", ["wg syncconf", "ip -6 address", "ip link set", "ip -6 route"])
def test_what_was_made_is_gone_again_where_a_step_after_it_failed(computer: Computer, fails):
    computer.fails = (fails,)
    with pytest.raises(Broken, match="it will not") as raised:
        computer.make()
    assert mesh.key_text(SECRET) not in str(raised.value)
    assert computer.there == {"lo", "wg0"}
    # One that was there before is left as it is.
    computer.there.add(NAME)
    with pytest.raises(Broken):
        computer.make()
    assert NAME in computer.there


@proves("node.mesh-interface")
@pytest.mark.parametrize("absent", ["wg", "ip"])
def test_a_program_that_is_not_installed_is_named(computer: Computer, monkeypatch, absent):
    monkeypatch.setattr("sys.platform", "linux")
    host.check_programs()
    computer.programs.remove(absent)
    with pytest.raises(NotFound, match="apt install"):
        host.check_programs()


@proves("node.mesh-interface")
def test_whoever_may_not_change_interfaces_is_told_the_one_command(monkeypatch, tmp_path: Path):
    monkeypatch.setattr("sys.platform", "linux")
    status = tmp_path / "status"
    monkeypatch.setattr(host, "_STATUS", status)
    home: Any = SimpleNamespace(path=tmp_path)
    for bits, may in (
        ("0000000000001000", True),
        ("000001ffffffffff", True),
        ("0" * 12 + "efff", False),
    ):
        status.write_text(f"Name:\tx\nCapEff:\t{bits}\n")
        assert host.allowed() is may
    with pytest.raises(Denied, match=rf"`sudo .* mesh up --home {tmp_path}`"):
        verbs._require_right(home, "mesh up")


@proves("node.mesh-interface")
@pytest.mark.parametrize("listens", [False, True])
def test_a_machine_in_the_mesh_that_nobody_can_dial_is_told_what_opens_it(monkeypatch, listens):
    for name, value in (("is_there", True), ("allowed", False), ("others", [])):
        monkeypatch.setattr(host, name, lambda *_, value=value: value)
    place = mesh.Place(9, "10.0.0.1:9")
    plan = verbs.Plan(ME, FLEET, place, [], {}, follows=False, listens=listens)
    assert ("`muster channel http --set listen=auto" in verbs._shown(plan).to_do) is not listens


@proves("node.mesh-place")
def test_where_packets_come_in_is_found_said_or_kept(monkeypatch):
    rows = [
        Near("127.0.0.1", "computer", "lo"), Near("fd00::5", "private", "eth0"),
        Near("172.17.0.1", "private", "docker0"), Near("192.168.1.5", "private", "eth0"),
        Near("10.9.0.2", "mesh", "wg0"), Near(str(mesh.address(FLEET, ME)), "mesh", NAME),
    ]  # fmt: skip
    monkeypatch.setattr(host.exposure, "near", lambda: rows)
    monkeypatch.setattr(host, "own_ip", lambda: "192.168.1.5")
    assert host.place(7447, FLEET) == "192.168.1.5:7447"
    assert [row.interface for row in host.others(NAME)] == ["wg0"]
    plan = verbs.Plan(ME, FLEET, None, [], {}, follows=False)

    def place(plan: verbs.Plan, **said: Any) -> mesh.Place:
        return verbs._place(plan, verbs.Action(action="up", **said))

    assert place(plan) == mesh.Place(7447, "192.168.1.5:7447")
    given = place(plan, port=9, endpoint="203.0.113.7:10")
    assert given == mesh.Place(9, "203.0.113.7:10", given=True)
    again = verbs.Plan(ME, FLEET, given, [], {}, follows=False)
    assert place(again) == given
    found = verbs.Plan(ME, FLEET, mesh.Place(9, "10.0.0.1:9"), [], {}, follows=False)
    assert place(found) == mesh.Place(9, "192.168.1.5:9"), "what was found is looked for anew"
    with pytest.raises(Malformed, match="no IP:PORT"):
        place(plan, endpoint="nas.example:7")
    monkeypatch.setattr(host.exposure, "near", lambda: rows[:1])
    assert host.place(7447, FLEET) == ""
    # A router on the way forgets a machine in a private network that says nothing.
    assert [host._is_open(text) for text in ("9.9.9.9:1", "10.0.0.1:1", "")] == [True, False, False]


@proves("node.mesh-follows")
def test_the_daemon_follows_the_roster_and_touches_nothing_of_what_is_not_up(monkeypatch):
    world = Cores("hub", "studio")
    core = world["hub"].core
    told: list[list[str]] = []
    place: list[mesh.Place | None] = [None]
    up = [False]
    clock_ms = [0]

    def tell(_name: str, _secret: bytes, _place: mesh.Place, peers: list[mesh.Peer]) -> None:
        told.append([peer.name for peer in peers])

    @contextlib.asynccontextmanager
    async def attempt(_name: str) -> AsyncIterator[None]:
        yield

    daemon: Any = SimpleNamespace(
        core=core, supervisor=SimpleNamespace(attempt=attempt),
        machine=SimpleNamespace(
            mesh_place=lambda: place[0], identity=SimpleNamespace(secret=lambda _: SECRET)
        ),
    )  # fmt: skip
    monkeypatch.setattr(host, "tell_peers", tell)
    monkeypatch.setattr(host, "is_there", lambda _name: up[0])
    monkeypatch.setattr("muster.node.links.mesh.read", lambda: SimpleNamespace(boot_ms=clock_ms[0]))
    keeper = MeshKeeper(daemon)

    def look() -> list[list[str]]:
        told.clear()
        asyncio.run(keeper._look())
        return list(told)

    assert look() == [], "nobody said `up`"
    up[0] = True
    assert look() == [], "nor of one that is there"
    up[0] = False
    place[0] = PLACE
    assert look() == [], "its interface is gone"
    up[0] = True
    assert look() == [["studio"]]
    assert look() == [], "there is no news"
    clock_ms[0] = 60_000
    assert look() == [["studio"]], "it is looked at each minute"
    gone = {m: r for m, r in core.roster.machines.items() if r.name != "studio"}
    shut = replace(core.roster, machines=gone)
    monkeypatch.setattr(type(core), "roster", property(lambda _: shut))
    assert look() == [[]]
    assert core.counters["mesh-applied"] == 3
    up[0] = False
    assert look() == []
    up[0] = True
    assert look() == [[]], "it was made anew"
    # A daemon without the right ends its watch at once.
    monkeypatch.setattr(host, "allowed", lambda: False)
    asyncio.run(asyncio.wait_for(keeper.keep(), 1.0))
