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

    def between_them() -> int:
        ways = (net.between("studio", "laptop"), net.between("laptop", "studio"))
        return sum(way.counters().frames for way in ways)

    # What their kernels said to all when they came up, before there were walls.
    before = between_them()
    with NetFleet(net, deaf=["studio", "laptop"]) as fleet:
        fleet.start()
        studio, laptop = fleet["studio"], fleet["laptop"]
        until(lambda: "laptop" in studio.linked(), "studio reaches laptop", within_s=BACK_S)
        assert say(studio, laptop, "through the hub") == "stored"
        assert texts(laptop) == ["through the hub"]
        shown = {m["name"]: m for m in studio.ask("machines")}
        assert (shown["laptop"]["channel"], shown["laptop"]["through"]) == ("relay", "hub")
        # No frame of one ever reached the other but through the hub.
        assert between_them() == before
        assert net.processes()
    assert net.processes() == []


@proves("net.daemons-on-hosts")
def test_a_middle_that_passes_nothing_on_any_more_is_left_for_another():
    """Whichever of two carries between two machines behind NATs: it falls silent to one of them."""
    require()
    with Net("hub", "nas", "studio", "laptop") as net:
        net.behind("studio")
        net.behind("laptop")
        dials = {"nas": ["hub"], "studio": ["hub", "nas"], "laptop": ["hub", "nas"]}
        with NetFleet(net, dials=dials, deaf=["studio", "laptop"]) as fleet:
            fleet.start()
            studio, laptop = fleet["studio"], fleet["laptop"]

            def through() -> str:
                (shown,) = [m for m in studio.ask("machines") if m["name"] == "laptop"]
                return str(shown.get("through", "")) if shown["state"] == "up" else ""

            until(through, "studio reaches laptop", within_s=BACK_S)
            assert say(studio, laptop, "by the one") == "stored"
            middle = through()
            net.between(middle, "studio").cut()
            assert say(studio, laptop, "by the other") == "stored"
            until(lambda: through() not in ("", middle), "by another one", within_s=BACK_S)
            assert texts(laptop) == ["by the one", "by the other"]
