"""What is said on the local network, and what of what is heard there is dialled."""

import asyncio
import ipaddress
from collections.abc import Awaitable, Callable
from typing import Any

import pytest
from msgspec.structs import replace
from tests.node.climbing import A, Half
from tests.promise import proves

from muster.channel import FIRST
from muster.channel.knock import HOUR_MS, knock_name
from muster.errors import Unreachable
from muster.fleet.facts import Way
from muster.node.exposed import Exposed, sentence
from muster.node.host.facts import Interface
from muster.node.links import lan
from muster.node.links.lan import (
    ADDRESSES_MAX,
    CROWDED_S,
    LOOK_S,
    NEW_MAX,
    NEW_PER_MACHINE_MAX,
    Heard,
    Lan,
    Names,
    Place,
    ear,
    is_near,
    place,
)
from muster.node.links.paths import Cascade

FLEET = "f" * 64
WIRED = Interface("eth0", "02:00:00:00:00:01", ("192.168.1.5/255.255.255.0",))
CONTAINERS = Interface("br0", "", ("172.17.0.1/255.255.0.0",))
INTERNET = Interface("eth1", "", ("198.51.100.7/255.255.255.0",))
AT_HOME = Exposed("192.168.1.5:7447", "private", "eth0")
HERE = Place("192.168.1.5", 7447, ipaddress.IPv4Network("192.168.1.0/24"))


@proves("node.lan-names-say-nothing")
def test_a_name_is_known_to_who_knows_the_fleet_and_is_another_an_hour_later():
    ours, theirs = Names(FLEET), Names("e" * 64)
    name, service = ours.instance(7, "studio"), ours.service(7)
    assert len(service) == len("_123456789012345._tcp.local.")
    assert len(name) == 52
    assert Names(FLEET).instance(7, "studio") == name
    assert len({name, ours.instance(8, "studio"), ours.instance(7, "hub"),
                theirs.instance(7, "studio")}) == 4  # fmt: skip
    assert len({service, ours.service(8), theirs.service(7)}) == 3
    # What is heard there opens no port.
    assert knock_name(FLEET, "studio", 7 * HOUR_MS).removesuffix(".invalid") != name


@proves("node.lan-names-say-nothing")
def test_clocks_that_are_an_hour_apart_know_each_other_and_others_do_not():
    names = Names(FLEET)
    for hour, known in ((5, False), (6, True), (7, True), (8, True), (9, False)):
        service = names.service(hour)
        whole = f"{names.instance(hour, 'studio')}.{service}"
        assert (whole in names.whose(7, ["studio"])) is known
        assert (service in names.services(7)) is known
    assert names.whose(7, ["studio"])[f"{names.instance(7, 'studio')}.{names.service(7)}"] == (
        "studio", names.service(7),
    )  # fmt: skip
    assert len(names.whose(7, [])) == 0
    assert len(names.whose(0, ["studio"])) == 2


@proves("node.lan-where")
@pytest.mark.parametrize(
    ("rows", "leads", "expected"),
    [
        ([AT_HOME], "192.168.1.5", HERE),
        ([AT_HOME], "", HERE),
        # What is public, of a mesh, of this computer or not bound is said to nobody.
        ([Exposed("198.51.100.7:1", "public", "eth1")], "198.51.100.7", None),
        ([Exposed("192.168.1.5:1", "mesh", "wg0")], "192.168.1.5", None),
        ([Exposed("127.0.0.1:1", "computer", "lo")], "", None),
        ([replace(AT_HOME, error="it is gone")], "192.168.1.5", None),
        ([Exposed("192.168.9.9:1", "private", "")], "", None),
        ([], "192.168.1.5", None),
        # Of two networks the one that leads outside, and never both.
        ([Exposed("172.17.0.1:7447", "private", "br0"), AT_HOME], "192.168.1.5", HERE),
        ([AT_HOME, Exposed("198.51.100.7:7447", "public", "eth1")], "198.51.100.7", HERE),
    ],
)
def test_it_is_said_at_one_private_address_that_is_listened_at(
    rows: list[Exposed], leads: str, expected: Place | None
):
    assert place(rows, [WIRED, CONTAINERS, INTERNET], leads) == expected


@proves("node.lan-where")
@pytest.mark.parametrize(
    ("host", "port", "near"),
    [
        ("192.168.1.9", 7447, True),
        ("192.168.1.5", 7447, False),
        ("192.168.1.255", 7447, False),
        ("192.168.1.0", 7447, False),
        ("192.168.2.9", 7447, False),
        ("127.0.0.1", 7447, False),
        ("198.51.100.7", 443, False),
        ("fd00::9", 7447, False),
        ("nas.local", 7447, False),
        ("192.168.1.9", 0, False),
        ("192.168.1.9", 65536, False),
    ],
)
def test_only_another_address_of_that_network_is_dialled(host: str, port: int, near: bool):
    assert is_near(host, port, HERE) is near


@proves("node.lan-bounds")
def test_of_what_is_heard_so_much_is_new_in_a_minute_and_so_much_is_kept():
    heard = Heard()
    first = [heard.note("studio", f"a:{n}", 0) for n in range(NEW_PER_MACHINE_MAX + 3)]
    assert first == [True] * NEW_PER_MACHINE_MAX + [None] * 3
    assert heard.note("studio", "a:0", 0) is False
    assert heard.note("studio", "b:1", 60_000) is True
    (kept,) = heard.ways().values()
    assert len(kept) == ADDRESSES_MAX
    assert Way(FIRST, "b:1") in kept
    others = [heard.note(f"m{n}", "a:1", 200_000) for n in range(NEW_MAX + 5)]
    assert others == [True] * NEW_MAX + [None] * 5


@proves("node.lan-bounds")
def test_what_was_heard_long_ago_or_of_who_is_gone_is_forgotten():
    heard = Heard()
    heard.note("studio", "a:1", 0)
    heard.note("studio", "a:2", 500)
    heard.note("nas", "a:3", 500)
    assert not heard.forget(["studio", "nas"], 0)
    assert heard.forget(["studio", "nas"], 100)
    assert heard.ways() == {"studio": (Way(FIRST, "a:2"),), "nas": (Way(FIRST, "a:3"),)}
    assert heard.forget(["nas"], 100)
    assert heard.ways() == {"nas": (Way(FIRST, "a:3"),)}


class Network:
    """A network on which others say what they are told to."""

    def __init__(self) -> None:
        self.crowded = False
        self.error = ""
        self.opened: list[tuple[str, str, str]] = []
        self.closed = 0
        self.addresses: dict[str, list[tuple[str, int]]] = {}
        self.heard: Callable[[str], None] = lambda _: None
        self.asked: list[str] = []

    async def open(
        self, at: tuple[str, int], service: str, instance: str, services: Any, heard: Any
    ) -> "Network":
        if self.error:
            raise Unreachable(self.error)
        assert service in services
        self.opened.append((f"{at[0]}:{at[1]}", service, instance))
        self.heard = heard
        return self

    async def where(self, service: str, name: str) -> list[tuple[str, int]]:
        assert name.endswith(service)
        self.asked.append(name)
        return self.addresses.get(name, [])

    async def close(self) -> None:
        self.closed += 1


class AtHome(Half):
    """A hub in a network, which knows one address of studio."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, *ways: Way) -> None:
        super().__init__(monkeypatch, *ways)
        self.rows = [AT_HOME]
        self.machine.fleet = FLEET
        monkeypatch.setattr(Cascade, "exposed", lambda _: self.rows)
        monkeypatch.setattr(lan, "interfaces", lambda: [WIRED, INTERNET])
        monkeypatch.setattr(lan, "own_ip", lambda _: "192.168.1.5")
        self.network, self.names = Network(), Names(FLEET)
        self.lan = Lan(self, self.cascade, self.network)  # type: ignore[arg-type]

    @property
    def hour(self) -> int:
        return self.core.now.wall_ms // HOUR_MS

    @property
    def counted(self) -> dict[str, int]:
        return {k: n for k, n in self.core.counters.items() if k.startswith("lan-")}

    def say(self, *addresses: tuple[str, int]) -> None:
        """Somebody says that studio is there."""
        name = f"{self.names.instance(self.hour, self.peer)}.{self.names.service(self.hour)}"
        self.network.addresses[name] = list(addresses)
        self.network.heard(name)

    def scene(self, scenario: Callable[[], Awaitable[None]]) -> None:
        async def begun() -> None:
            self.lan.begin()
            await asyncio.sleep(1)
            await scenario()

        self.run(begun)


@proves("node.lan-is-dialled")
def test_an_address_that_is_heard_is_dialled_and_only_a_link_makes_it_known(monkeypatch):
    half = AtHome(monkeypatch, A)

    async def scenario() -> None:
        half.say(("192.168.1.9", 7447), ("192.168.2.9", 7447))
        await asyncio.sleep(20)
        assert ("http", "192.168.1.9:7447") in half.tried
        assert ("http", "192.168.2.9:7447") not in half.tried
        assert half.found == []
        assert half.cascade.ways(half.peer) == {FIRST: ["a:1", "192.168.1.9:7447"]}
        half.http.there = {"192.168.1.9:7447"}
        await asyncio.sleep(60)
        assert half.up == [FIRST]
        assert half.found == [Way(FIRST, "192.168.1.9:7447")]
        assert half.counted == {"lan-found": 1, "lan-elsewhere": 1}

    half.scene(scenario)
    assert half.network.closed == 1


@proves("node.lan-is-dialled")
def test_who_is_linked_is_dialled_nowhere_whatever_is_said(monkeypatch):
    half = AtHome(monkeypatch, A)
    half.http.there = {"a:1"}

    async def scenario() -> None:
        await asyncio.sleep(10)
        dialled = list(half.tried)
        half.say(("192.168.1.9", 7447))
        await asyncio.sleep(60)
        assert half.tried == dialled
        assert half.counted == {"lan-found": 1}

    half.scene(scenario)


@proves("node.lan-bounds")
def test_names_that_no_member_has_are_neither_kept_nor_asked_for(monkeypatch):
    half = AtHome(monkeypatch, A)

    async def scenario() -> None:
        own = f"{half.names.instance(half.hour, half.core.machine)}.{half.names.service(half.hour)}"
        for name in (own, "printer._ipp._tcp.local.", "x" * 300):
            half.network.heard(name)
        assert half.lan._fresh == {}
        await asyncio.sleep(30)
        assert half.network.asked == []

    half.scene(scenario)


@proves("node.lan-bounds")
def test_whoever_says_ever_new_addresses_causes_so_many_dials_and_no_more(monkeypatch):
    half = AtHome(monkeypatch)

    async def scenario() -> None:
        for n in range(40):
            half.say(("192.168.1.9", 1000 + n))
            await asyncio.sleep(1.1)
        dialled = {address for _, address in half.tried}
        assert len(dialled) == NEW_PER_MACHINE_MAX
        assert half.counted["lan-too-often"] > 0
        # What was too much for that minute is looked at in another one.
        half.world.pass_ms(60_000)
        await asyncio.sleep(3 * LOOK_S)
        assert len({address for _, address in half.tried}) == NEW_PER_MACHINE_MAX + 1

    half.scene(scenario)


@proves("node.lan-bounds")
def test_where_too_much_is_said_nothing_is_heard_for_a_while(monkeypatch):
    half = AtHome(monkeypatch, A)

    async def scenario() -> None:
        half.network.crowded = True
        await asyncio.sleep(2 * LOOK_S)
        assert (half.network.closed, half.cascade.announced) == (1, "")
        half.network.crowded = False
        await asyncio.sleep(CROWDED_S / 2)
        assert len(half.network.opened) == 1
        await asyncio.sleep(CROWDED_S)
        assert len(half.network.opened) == 2
        assert half.counted == {"lan-crowded": 1}

    half.scene(scenario)


@proves("node.lan-where")
def test_it_follows_the_address_and_the_hour_and_ends_where_there_is_none(monkeypatch):
    half = AtHome(monkeypatch, A)

    async def scenario() -> None:
        hour, me = half.hour, half.core.machine
        at_first = ("192.168.1.5:7447", half.names.service(hour), half.names.instance(hour, me))
        assert half.network.opened == [at_first]
        assert half.cascade.announced == "192.168.1.5:7447"
        half.core.now = half.core.now._replace(wall_ms=half.core.now.wall_ms + HOUR_MS)
        await asyncio.sleep(2 * LOOK_S)
        assert half.network.opened[1:] == [
            ("192.168.1.5:7447", half.names.service(hour + 1), half.names.instance(hour + 1, me))
        ]
        half.rows = [Exposed("198.51.100.7:7447", "public", "eth1")]
        await asyncio.sleep(2 * LOOK_S)
        assert (len(half.network.opened), half.network.closed) == (2, 2)
        assert half.cascade.announced == ""

    half.scene(scenario)


@proves("node.lan-only-hears")
@pytest.mark.parametrize("rows", [[], [Exposed("127.0.0.1:7447", "computer", "lo")]])
def test_a_machine_that_only_dials_hears_where_the_others_are_and_says_nothing(monkeypatch, rows):
    half = AtHome(monkeypatch, A)
    half.rows = rows

    async def scenario() -> None:
        assert half.network.opened == [("192.168.1.5:0", half.names.service(half.hour), "")]
        assert half.cascade.announced == ""
        half.say(("192.168.1.9", 7447))
        half.http.there = {"192.168.1.9:7447"}
        await asyncio.sleep(60)
        assert half.found == [Way(FIRST, "192.168.1.9:7447")]

    half.scene(scenario)


@proves("node.lan-only-hears")
@pytest.mark.parametrize(
    ("rows", "leads", "expected"),
    [
        ([], "192.168.1.5", HERE._replace(port=0)),
        # Nothing is asked in a network of strangers, nor beside what is listened at.
        ([], "198.51.100.7", None),
        # A network that leads nowhere is one all the same.
        ([], "", HERE._replace(port=0)),
        ([AT_HOME], "192.168.1.5", None),
        ([Exposed("10.9.0.1:7447", "mesh", "wg0")], "192.168.1.5", None),
        ([Exposed("198.51.100.7:7447", "public", "eth1")], "192.168.1.5", None),
    ],
)
def test_it_hears_in_the_private_network_that_leads_outside_where_nobody_can_dial_it(
    rows: list[Exposed], leads: str, expected: Place | None
):
    assert ear(rows, [WIRED, CONTAINERS, INTERNET], leads) == expected


@proves("node.lan-where")
def test_what_was_heard_in_another_network_is_dialled_no_more(monkeypatch):
    half = AtHome(monkeypatch, A)

    async def scenario() -> None:
        half.say(("192.168.1.9", 7447))
        await asyncio.sleep(2 * LOOK_S)
        assert len(half.cascade.ways(half.peer)[FIRST]) == 2
        half.world.pass_ms(1_000)
        half.rows = [replace(AT_HOME, address="192.168.1.6:7447")]
        monkeypatch.setattr(
            lan, "interfaces", lambda: [WIRED._replace(addresses=("192.168.1.6/255.255.255.0",))]
        )
        await asyncio.sleep(2 * LOOK_S)
        assert half.cascade.ways(half.peer) == {FIRST: ["a:1"]}

    half.scene(scenario)


@proves("node.lan-where")
def test_a_network_that_cannot_be_spoken_on_is_said_once_and_tried_again(monkeypatch, capsys):
    half = AtHome(monkeypatch, A)
    half.network.error = "nothing can be announced at 192.168.1.5: it is busy"

    async def scenario() -> None:
        await asyncio.sleep(3 * LOOK_S)
        half.network.error = ""
        await asyncio.sleep(2 * LOOK_S)
        assert half.cascade.announced == "192.168.1.5:7447"
        assert half.counted["lan-unannounced"] > 1

    half.scene(scenario)
    assert capsys.readouterr().err.count("it is busy") == 1


@proves("node.lan-off")
@pytest.mark.parametrize("installed", [True, False])
def test_nothing_is_said_where_it_is_off_or_not_installed(monkeypatch, installed: bool):
    half = AtHome(monkeypatch, A)
    half.machine.config = replace(half.machine.config, lan=not installed)
    if not installed:
        monkeypatch.setattr(lan.importlib.util, "find_spec", lambda _: None)
        half.lan = Lan(half, half.cascade)  # type: ignore[arg-type]

    async def scenario() -> None:
        await asyncio.sleep(3 * LOOK_S)
        assert half.network.opened == []
        assert half.cascade.announced == ""

    half.scene(scenario)


@proves("node.says-who-can-reach-it")
def test_people_are_told_which_address_is_announced():
    assert sentence([replace(AT_HOME, announced=True)]) == (
        "192.168.1.5:7447 (the private network of eth0, announced there)"
    )
