"""Two machines, and exactly one channel that carries between them: an arrangement for each channel.

    with only("relay", net) as (one, other):
        ...

Whoever adds a channel to `CHANNELS` adds its arrangement here: what is configured, and what of the
network is left. `test_matrix.py` goes through the list and names a channel that has none.
"""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Final

from muster.channel import CHANNELS
from tests.e2e.fleet import Machine, until
from tests.e2e.net.fleet import NetFleet
from tests.e2e.net.stage import Net

HUB, ONE, OTHER = "hub", "studio", "laptop"
NAMES: Final = (HUB, ONE, OTHER)
# What carries and is in no list: a link inside two others (channel/__init__.py).
RELAY: Final = "relay"
CARRYING: Final = (*(spec.name for spec in CHANNELS), RELAY)
LINKED_S: Final = 90.0


def _http(net: Net) -> NetFleet:
    """One dials the other, and neither reaches the hub any more."""
    return _linked(NetFleet(net, dials={ONE: [HUB], OTHER: [HUB, ONE]}), "http", cut=(ONE, OTHER))


def _relay(net: Net) -> NetFleet:
    """Both are behind a NAT and dial the hub, and nothing goes between them."""
    net.behind(ONE)
    net.behind(OTHER)
    net.between(ONE, OTHER).cut()
    return _linked(NetFleet(net, deaf=[ONE, OTHER]), RELAY)


ARRANGEMENTS: Final[dict[str, Callable[[Net], NetFleet]]] = {"http": _http, RELAY: _relay}


def _linked(fleet: NetFleet, channel: str, cut: tuple[str, ...] = ()) -> NetFleet:
    """Start; when the two are linked by the channel, cut these off the hub."""
    try:
        fleet.start()
        for here, there in ((ONE, OTHER), (OTHER, ONE)):
            until(lambda a=here, b=there: way(fleet[a], b) == channel,
                  lambda a=here, b=there: f"{a} reaches {b} by {channel}, not {way(fleet[a], b)}",
                  within_s=LINKED_S)  # fmt: skip
        for name in cut:
            fleet.net.between(HUB, name).cut()
    except BaseException:
        fleet.close()
        raise
    return fleet


def way(machine: Machine, other: str) -> str:
    """The channel by which a machine reaches another one now; "" where by none."""
    (found,) = [m for m in machine.ask("machines") if m["name"] == other]
    return str(found.get("channel", "")) if found["state"] == "up" else ""


@contextmanager
def only(channel: str, net: Net) -> Iterator[tuple[Machine, Machine]]:
    """Two machines that this channel alone carries between. Raises: AssertionError without one."""
    arrange = ARRANGEMENTS.get(channel)
    assert arrange is not None, (
        f"the channel {channel} has no arrangement in tests/e2e/net/matrix.py: "
        "what is left of the network when it alone carries?"
    )
    with arrange(net) as fleet:
        yield fleet[ONE], fleet[OTHER]
