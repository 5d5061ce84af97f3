"""Real daemons on hosts of their own: a slow and lossy way, a cable that is cut, and two NATs."""

from collections.abc import Iterator

import pytest

from tests.e2e.fleet import Machine, until
from tests.e2e.net.fleet import NetFleet
from tests.e2e.net.stage import Net, require
from tests.promise import proves

pytestmark = [pytest.mark.e2e, pytest.mark.timeout(300)]

# A keepalive every ten seconds and twenty for its answer, and as much again for a busy computer.
NOTICED_S = 60.0
# Pauses between dials grow to half a minute.
BACK_S = 90.0


@pytest.fixture
def net() -> Iterator[Net]:
    require()
    with Net("hub", "studio", "laptop") as net:
        yield net


def say(sender: Machine, to: Machine, text: str, *, wait: bool = True) -> str:
    """What became of a message by the time its sender was answered."""
    with sender.client(timeout_s=BACK_S) as client:
        args = {"text": [text], "to": to.name, "wait": wait}
        return str(client.order("send", to.name, args)["state"])


def texts(machine: Machine) -> list[str]:
    return [message["text"] for message in machine.ask("inbox")]


@proves("net.daemons-on-hosts")
def test_a_message_crosses_a_slow_lossy_way_and_waits_for_a_cable_that_is_cut(net: Net):
    with NetFleet(net, ["hub", "studio"]) as fleet:
        fleet.start()
        hub, studio = fleet.hub, fleet["studio"]
        net.between("hub", "studio").delay(50).loss(0.02)
        assert say(studio, hub, "from far away") == "stored"
        net.between("hub", "studio").cut()
        assert say(studio, hub, "into the dark", wait=False) == "waiting"
        until(lambda: not studio.linked(), "studio sees that the hub is away", within_s=NOTICED_S)
        until(lambda: not hub.linked(), "and the hub that studio is", within_s=NOTICED_S)
        assert texts(hub) == ["from far away"]
        net.between("hub", "studio").heal()
        until(lambda: studio.linked() == {"hub"}, "linked again", within_s=BACK_S)
        until(lambda: len(texts(hub)) == 2, "what waited is there", within_s=BACK_S)
        assert texts(hub) == ["from far away", "into the dark"]


@proves("net.daemons-on-hosts")
def test_two_machines_behind_nats_that_know_the_hub_alone_reach_each_other(net: Net):
    net.behind("studio")
    net.behind("laptop")
    with NetFleet(net, deaf=["studio", "laptop"]) as fleet:
        fleet.start()
        studio, laptop = fleet["studio"], fleet["laptop"]
        until(lambda: "laptop" in studio.linked(), "studio reaches laptop", within_s=BACK_S)
        assert say(studio, laptop, "through the hub") == "stored"
        assert texts(laptop) == ["through the hub"]
        shown = {m["name"]: m for m in studio.ask("machines")}
        assert (shown["laptop"]["channel"], shown["laptop"]["through"]) == ("relay", "hub")
        # No frame of one ever reached the other but through the hub.
        assert net.between("studio", "laptop").counters().frames == 0
        assert net.between("laptop", "studio").counters().frames == 0
        assert net.processes()
    assert net.processes() == []
