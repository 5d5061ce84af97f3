"""Where this machine is reached and where it looks for others, by what stands in config.toml."""

from typing import Any

import pytest
from tests.node.cores import Cores
from tests.promise import proves

from muster.errors import Broken
from muster.fleet.facts import Facts
from muster.node import event as ev
from muster.node.home import Config
from muster.node.reach import address_now, check_config, given, own_address, own_ip, places

STORED = {"address": "10.0.0.5:7447", "listen": "0.0.0.0:7447"}


@pytest.fixture
def world() -> Cores:
    world = Cores("hub", "studio")
    world.link("hub", "studio")
    world.pass_ms(1_000)
    return world


@proves("node.config-works")
@pytest.mark.parametrize(
    ("config", "facts", "address"),
    [
        (Config(listen="0.0.0.0:7447"), STORED, "10.0.0.5:7447"),
        (Config(listen="0.0.0.0:8000"), STORED, "{ip}:8000"),
        (Config(listen="192.0.2.1:8000"), STORED, "192.0.2.1:8000"),
        (Config(listen="0.0.0.0:8000", address="a.example:1"), STORED, "a.example:1"),
        (Config(listen=""), STORED, ""),
        # A home that was made before `listen` was kept: nothing says that it has changed.
        (Config(listen="0.0.0.0:8000"), {"address": "10.0.0.5:443"}, "10.0.0.5:443"),
        (Config(listen="0.0.0.0:8000"), {}, "{ip}:8000"),
    ],
)
def test_a_machine_says_the_address_that_its_settings_of_today_mean(config, facts, address):
    assert address_now(config, facts) == address.format(ip=own_ip())


@proves("node.config-works")
def test_the_address_that_was_named_counts_before_where_it_listens():
    assert own_address("Nas.Example:7", "0.0.0.0:7447") == "nas.example:7"
    assert own_address("", "192.0.2.1:7447") == "192.0.2.1:7447"
    assert own_address("", "") == ""


@proves("node.config-works")
@pytest.mark.parametrize(
    ("config", "says"),
    [
        (Config(listen="7447"), "`listen`: address '7447' is not host:port"),
        (Config(listen="a:b"), "`listen`"),
        (Config(address="nowhere"), "`address`: 'nowhere' is not an address"),
        (Config(hub="hub"), "`hub`: 'hub' is not an address"),
        (Config(peers={"nas": "nas"}), "`peers`: nas: 'nas' is not an address"),
        (Config(name="another"), "`name` says 'another', but this machine joined its fleet as hub"),
    ],
)
def test_a_setting_that_cannot_do_what_it_says_is_refused_by_name(world, config, says):
    hub = world["hub"]
    facts: dict[str, Any] = {"record": hub.record.decode(), "fleet": world.fleet}
    with pytest.raises(Broken) as caught:
        check_config(config, facts, "config.toml")
    assert says in str(caught.value)
    check_config(Config(name="hub", listen=":7447", peers={"nas": "nas:1"}), facts, "config.toml")


@proves("node.moved-machine-is-found")
def test_every_address_that_is_known_is_tried_what_a_person_wrote_first(world):
    hub, studio = world["hub"], world["studio"]
    told = Facts("linux", "x86_64", address="roster.example:1")
    world["studio"].step(ev.FactsChanged(studio.facts(address=told.address)))
    world.pass_ms(1_000)
    facts = {"dial": {studio.id: "joined.example:1"}}
    config = Config(hub="wrote.example:1", peers={"studio": "peer.example:1"})
    found = places(given(config, facts), hub.core.roster, hub.id)
    assert found == {
        studio.id: (
            "peer.example:1", "wrote.example:1", "joined.example:1", "roster.example:1",
        )
    }  # fmt: skip
    assert places({hub.id: ["me.example:1"]}, hub.core.roster, hub.id) == {
        studio.id: ("roster.example:1",)
    }


@proves("node.config-works")
def test_peers_may_be_named_by_id_before_anything_is_known_of_them(world):
    hub = world["hub"]
    found = places(given(Config(peers={"ab" * 32: "x.example:1"}), {}), hub.core.roster, hub.id)
    assert found["ab" * 32] == ("x.example:1",)
