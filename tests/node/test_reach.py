"""Where this machine is reached and where it looks for others, by what stands in config.toml."""

import socket
from typing import Any, Self

import pytest
from tests.node.cores import Cores
from tests.promise import proves

from muster.channel import FIRST
from muster.channel.http import Options
from muster.channel.listening import own_ip
from muster.errors import Broken
from muster.fleet.facts import Facts, Way
from muster.node.host.config import Config
from muster.node.host.own_address import OwnAddress
from muster.node.host.reach import address_now, check_config, given, own_ways, places
from muster.node.incarnations.own_incarnation import FactsChanged


def config(*args: Any, name: str = "", **options: Any) -> Config:
    return Config(name=name, channel={FIRST: Options(*args, **options)})


def http(*addresses: str) -> tuple[Way, ...]:
    return tuple(Way(FIRST, each) for each in addresses)


STORED = {"address": "10.0.0.5:7447", "listen": "0.0.0.0:7447"}


@pytest.fixture
def world() -> Cores:
    world = Cores("hub", "studio")
    world.link("hub", "studio")
    world.pass_ms(1_000)
    return world


@proves("node.config-works")
@pytest.mark.parametrize(
    ("settings", "facts", "address"),
    [
        (config(listen="0.0.0.0:7447"), STORED, "10.0.0.5:7447"),
        (config(listen="0.0.0.0:8000"), STORED, "{ip}:8000"),
        (config(listen="192.0.2.1:8000"), STORED, "192.0.2.1:8000"),
        (config(listen="0.0.0.0:8000", address="a.example:1"), STORED, "a.example:1"),
        (config(listen=""), STORED, ""),
        # A home that was made before `listen` was kept: nothing says that it has changed.
        (config(listen="0.0.0.0:8000"), {"address": "10.0.0.5:443"}, "10.0.0.5:443"),
        (config(listen="0.0.0.0:8000"), {}, "{ip}:8000"),
    ],
)
def test_a_machine_says_the_address_that_its_settings_of_today_mean(settings, facts, address):
    assert address_now(settings, facts) == address.format(ip=own_ip())


@proves("node.address-says-nothing-untrue")
@pytest.mark.parametrize(
    ("leads", "listen", "address"),
    [
        ((socket.AF_INET, socket.AF_INET6), "0.0.0.0:7", "192.0.2.9:7"),
        ((socket.AF_INET6,), "[::]:7", "[2001:db8::9]:7"),
        ((socket.AF_INET6,), ":7", "[2001:db8::9]:7"),
        # It listens at no address that others could have.
        ((socket.AF_INET6,), "0.0.0.0:7", ""),
        ((), ":7", ""),
    ],
)
def test_a_machine_says_an_address_of_a_network_that_it_is_in_or_none(
    monkeypatch, leads, listen, address
):
    own = {socket.AF_INET: "192.0.2.9", socket.AF_INET6: "2001:db8::9"}

    class Probe:
        def __init__(self, family: int, _type: int) -> None:
            self.family = family

        def __enter__(self) -> Self:
            return self

        def __exit__(self, *_: object) -> None: ...

        def connect(self, _to: object) -> None:
            if self.family not in leads:
                raise OSError("Network is unreachable")

        def getsockname(self) -> tuple[str, int]:
            return own[self.family], 1

    monkeypatch.setattr("muster.channel.listening.socket.socket", Probe)
    assert Options(listen).reached_at() == address


@proves("node.mends")
def test_an_address_that_was_this_machines_own_and_is_gone_is_told_no_more(monkeypatch):
    own = {"10.0.0.5", "127.0.0.1"}
    monkeypatch.setattr("muster.node.host.own_address.own_addresses", lambda: own)
    settings, here = config(listen="0.0.0.0:7447"), OwnAddress()
    assert not here.moved(STORED)
    own.discard("10.0.0.5")
    assert here.moved(STORED)
    assert own_ways(settings, STORED, moved=True) == http(f"{own_ip()}:7447")
    own.add("10.0.0.5")
    assert not here.moved(STORED), "it is back"
    # What never was an own one may lead here all the same: a name, or the address of a router.
    for address in ("203.0.113.5:7447", "nas.example:7447", "[2001:db8::1]:7", ""):
        assert not here.moved({"address": address})
    # And what a person wrote counts, whatever is gone.
    assert address_now(config("10.0.0.5:7447"), STORED, moved=True) == "10.0.0.5:7447"
    written = config(listen="0.0.0.0:7447", address="a.example:1")
    assert address_now(written, STORED, moved=True) == "a.example:1"
    monkeypatch.setattr("muster.channel.listening.own_ip", lambda _="": "")
    assert address_now(settings, STORED, moved=True) == "10.0.0.5:7447", "it is in no network now"


@proves("node.config-works")
def test_the_address_that_was_named_counts_before_where_it_listens():
    assert Options("0.0.0.0:7447", "Nas.Example:7").reached_at() == "nas.example:7"
    assert Options("192.0.2.1:7447").reached_at() == "192.0.2.1:7447"
    assert Options().reached_at() == ""
    assert own_ways(config("192.0.2.1:1"), {}) == http("192.0.2.1:1")
    assert own_ways(config(), {}) == ()


@proves("node.config-works")
@pytest.mark.parametrize(
    ("settings", "says"),
    [
        (config(listen="7447"), "`channel.http.listen`: address '7447' is not host:port"),
        (config(listen="a:b"), "`channel.http.listen`"),
        (config(address="nowhere"), "`channel.http.address`: 'nowhere' is not an address"),
        (config(hub="hub"), "`channel.http.hub`: 'hub' is not an address"),
        (config(peers={"nas": "nas"}), "`channel.http.peers.nas`: 'nas' is not an address"),
        (Config(name="another"), "`name` says 'another', but this machine is hub in its fleet"),
    ],
)
def test_a_setting_that_cannot_do_what_it_says_is_refused_by_name(world, settings, says):
    hub = world["hub"]
    facts: dict[str, Any] = {"record": hub.record.decode(), "fleet": world.fleet}
    with pytest.raises(Broken) as caught:
        check_config(settings, facts, "config.toml")
    assert says in str(caught.value)
    check_config(config(":7447", name="hub", peers={"nas": "nas:1"}), facts, "config.toml")


@proves("node.moved-machine-is-found")
def test_every_address_that_is_known_is_tried_what_a_person_wrote_first(world):
    hub, studio = world["hub"], world["studio"]
    told = Facts("linux", "x86_64", address="roster.example:1")
    world["studio"].step(FactsChanged(studio.facts(address=told.address)))
    world.pass_ms(1_000)
    facts = {"dial": {studio.id: "joined.example:1"}}
    settings = config(hub="wrote.example:1", peers={"studio": "peer.example:1"})
    found = places(given(settings, facts), hub.core.roster, hub.id)
    assert found == {
        studio.id: http("peer.example:1", "wrote.example:1", "joined.example:1", "roster.example:1")
    }
    assert places({hub.id: http("me.example:1")}, hub.core.roster, hub.id) == {
        studio.id: http("roster.example:1")
    }


@proves("node.config-works")
def test_peers_may_be_named_by_id_before_anything_is_known_of_them(world):
    hub = world["hub"]
    found = places(given(config(peers={"ab" * 32: "x.example:1"}), {}), hub.core.roster, hub.id)
    assert found["ab" * 32] == http("x.example:1")
