"""A machine that listens at `auto` while its addresses change."""

import time
from collections.abc import Iterator

import pytest
from msgspec.structs import replace

from muster.channel import FIRST
from muster.node.host.config import config_text
from tests.e2e.fleet import until
from tests.e2e.net.fleet import PORT, NetFleet
from tests.e2e.net.stage import Net, require
from tests.promise import proves

pytestmark = [pytest.mark.e2e, pytest.mark.timeout(300)]

PUBLIC, MESH = "198.51.100.7", "10.99.0.1"


@pytest.fixture
def net() -> Iterator[Net]:
    require()
    with Net("hub", "studio") as net:
        yield net


@proves("net.listens-where-it-is-safe")
def test_a_mesh_that_comes_up_is_listened_at_and_nothing_public_ever(net: Net):
    net.exec("hub", ["ip", "addr", "add", f"{PUBLIC}/24", "dev", "eth0"])
    net.exec("studio", ["ip", "route", "add", "198.51.100.0/24", "dev", "eth0"])
    with NetFleet(net) as fleet:
        hub = fleet.hub
        config = hub.home.config()
        options = replace(config.options(FIRST), listen="auto")
        hub.home.put("config.toml", config_text(replace(config, channel={FIRST: options})))
        hub.edit_facts(address="", listen="auto")
        fleet.start()
        private = net.address("hub")

        def listens() -> dict[str, str]:
            (row,) = [row for row in hub.ask("machines") if row["state"] == "here"]
            return {each["address"]: each["whom"] for each in row["listens"]}

        found = {at: whom for at, whom in listens().items() if whom != "computer"}
        assert found == {f"{private}:{PORT}": "private", f"[fd78::1]:{PORT}": "private"}
        assert net.answers("studio", private, PORT)
        assert not net.answers("studio", PUBLIC, PORT)
        # A pair, both ends up: an interface without a carrier is none that anybody can be reached by.
        for line in (
            "link add wg0 type veth peer name far0",
            f"addr add {MESH}/24 dev wg0",
            "link set far0 up",
            "link set wg0 up",
        ):
            net.exec("hub", ["ip", *line.split()])
        began_s = time.monotonic()
        until(lambda: f"{MESH}:{PORT}" in listens(), "the mesh is listened at", within_s=60.0)
        print(f"listens at the mesh after {time.monotonic() - began_s:.1f} s")
        assert set(listens().values()) == {"computer", "mesh"}
        assert not net.answers("studio", private, PORT)
        # It could not be dialled anew: studio is not in the mesh.
        assert hub.linked() == {"studio"}, "the link over the old address stands"
