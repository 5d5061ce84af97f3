"""A machine gets another address while a folder carries: the folder brings the link back."""

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

pytest.importorskip("pyrage", reason="pip install 'muster-fleet[drop]'")
pytestmark = [pytest.mark.e2e, pytest.mark.timeout(300)]

MOVED = "10.78.0.77"
# As long as a busy computer may take.
BACK_S = 120.0


@pytest.fixture
def net() -> Iterator[Net]:
    require()
    with Net("hub", "studio") as net:
        yield net


def counted(fleet: NetFleet, name: str, counter: str) -> int:
    return int(fleet[name].ask("status")["counters"].get(counter, 0))


@proves("node.mends", "net.mends")
def test_who_alone_can_dial_asks_in_a_parcel_where_the_other_is_now(net: Net):
    """The hub dials, and studio, which moves, knows no address of it: neither mends it alone."""
    from muster.channel import drop

    with NetFleet(net, dials={"hub": ["studio"], "studio": []}, deaf=["hub"]) as fleet:
        place = fleet.root / "shared"
        place.mkdir()
        for machine in fleet.machines.values():
            config = machine.home.config()
            channel = {**config.channel, "drop": drop.Options(place=str(place), deadline_s=1)}
            if machine.name == "studio":
                channel[FIRST] = replace(config.options(FIRST), listen=f"0.0.0.0:{PORT}")
            machine.home.put("config.toml", config_text(replace(config, channel=channel)))
        fleet.start()
        hub, studio = fleet.hub, fleet["studio"]
        until(lambda: hub.linked() == {"studio"}, "linked")
        # It is down meanwhile: else silence alone, half a minute of it, would tell it.
        hub.stop()
        for line in (
            f"addr add {MOVED}/32 dev eth0",
            f"addr del {net.address('studio')}/24 dev eth0",
            f"route add 10.78.0.0/24 dev eth0 src {MOVED}",
            "route add default dev eth0",
        ):
            net.exec("studio", ["ip", *line.split()])
        sent, asked_s, until_s = 0, 0.0, time.monotonic() + BACK_S
        hub.start()
        while hub.linked() != {"studio"}:
            assert time.monotonic() < until_s, hub.ask("channels")
            if not asked_s:
                sent += 1
                args = {"text": [f"{sent}"], "to": "hub", "wait": False}
                studio.order("send", "hub", args)
                asked_s = time.monotonic() if counted(fleet, "studio", "mends") else 0.0
            time.sleep(0.5)
        if asked_s:
            print(f"back {time.monotonic() - asked_s:.1f} s after studio was asked")
        assert counted(fleet, "hub", "mends-asked") >= 1
        assert counted(fleet, "studio", "mends") >= 1
        (row,) = [row for row in hub.ask("channels") if row["channel"] == FIRST]
        assert row["address"] == f"{MOVED}:{PORT}"
        until(lambda: len(hub.ask("inbox")) == sent, "all of it arrived", within_s=BACK_S)
        assert [message["text"] for message in hub.ask("inbox")] == [
            str(n + 1) for n in range(sent)
        ]
