"""Two machines, and exactly one channel that carries between them: an arrangement for each channel.

    with only("relay", net) as alone:
        alone.one, alone.other     # two machines that it carries between
        alone.cut()                # and now nothing does
        alone.heal()

Whoever adds a channel to `CHANNELS` adds its arrangement here: what is configured, what of the
network is left, and how that is cut. `test_matrix.py` goes through the list and names a channel
that has none.
"""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Final, NamedTuple

import pytest

from muster.channel import CHANNELS
from tests.e2e.fleet import Machine, until
from tests.e2e.net import places
from tests.e2e.net.fleet import NetFleet
from tests.e2e.net.stage import Net

HUB, ONE, OTHER = "hub", "studio", "laptop"
NAMES: Final = (HUB, ONE, OTHER)
# What carries and is in no list: a link inside two others (channel/__init__.py).
RELAY: Final = "relay"
# What is a channel whose place is elsewhere.
SFTP: Final = "sftp"
CARRYING: Final = (*(spec.name for spec in CHANNELS), RELAY, SFTP)
LINKED_S: Final = 90.0


class Alone(NamedTuple):
    """What one channel alone carries between."""

    fleet: NetFleet
    cut: Callable[[], None]
    heal: Callable[[], None]
    end: Callable[[], None] = lambda: None

    @property
    def one(self) -> Machine:
        """The one machine."""
        return self.fleet[ONE]

    @property
    def other(self) -> Machine:
        """The other."""
        return self.fleet[OTHER]


def _http(fleet: NetFleet) -> Alone:
    """One dials the other, and neither reaches the hub any more."""
    fleet.start()
    _linked(fleet, "http")
    for name in (ONE, OTHER):
        fleet.net.between(HUB, name).cut()
    way = fleet.net.between(ONE, OTHER)
    return Alone(fleet, lambda: _none(way.cut()), lambda: _none(way.heal()))


def _relay(fleet: NetFleet) -> Alone:
    """Both are behind a NAT and dial the hub, and nothing goes between them."""
    fleet.net.between(ONE, OTHER).cut()
    fleet.net.behind(ONE)
    fleet.net.behind(OTHER)
    fleet.start()
    _linked(fleet, RELAY)
    ways = [fleet.net.between(HUB, name) for name in (ONE, OTHER)]
    return Alone(
        fleet, lambda: _none([w.cut() for w in ways]), lambda: _none([w.heal() for w in ways])
    )


def _drop(fleet: NetFleet) -> Alone:
    """They see one folder, and nothing else of each other."""
    pytest.importorskip("pyrage", reason="pip install 'muster-fleet[drop]'")
    fleet.net.between(ONE, OTHER).cut()
    for machine in fleet.machines.values():
        machine.edit_facts(dial={})
    place = places.drop(fleet)
    fleet.start()
    return Alone(fleet, place.take_away, place.put_back)


def _met_on_the_hub(fleet: NetFleet, channel: str) -> Alone:
    """Nobody dials anybody; all use a mailbox on the host of the hub, which both can be cut from."""
    fleet.net.between(ONE, OTHER).cut()
    for machine in fleet.machines.values():
        machine.edit_facts(dial={})
    place = places.PLACES[channel](fleet, HUB)
    fleet.start()
    ways = [fleet.net.between(HUB, name) for name in (ONE, OTHER)]
    return Alone(
        fleet,
        lambda: _none([w.cut() for w in ways]),
        lambda: _none([w.heal() for w in ways]),
        place.kill,
    )


def _nats(fleet: NetFleet) -> Alone:
    """They reach one NATS server, on a third host, and nothing else of each other."""
    pytest.importorskip("nats", reason="pip install 'muster-fleet[nats]'")
    return _met_on_the_hub(fleet, "nats")


def _git(fleet: NetFleet) -> Alone:
    """They reach one repository over ssh, on a third host, and nothing else of each other."""
    pytest.importorskip("pyrage", reason="pip install 'muster-fleet[sealed]'")
    return _met_on_the_hub(fleet, "git")


def _cloud(fleet: NetFleet) -> Alone:
    """They reach one object store, on a third host, and nothing else of each other."""
    pytest.importorskip("pyrage", reason="pip install 'muster-fleet[sealed]'")
    return _met_on_the_hub(fleet, "cloud")


def _sftp(fleet: NetFleet) -> Alone:
    """They reach one folder by the sshd of a third host, and nothing else of each other."""
    for name, extra in (("asyncssh", "ssh"), ("pyrage", "drop")):
        pytest.importorskip(name, reason=f"pip install 'muster-fleet[{extra}]'")
    return _met_on_the_hub(fleet, SFTP)


def _ssh(fleet: NetFleet) -> Alone:
    """Nothing of ours listens at either; one comes in through the sshd of the other."""
    pytest.importorskip("asyncssh", reason="pip install 'muster-fleet[ssh]'")
    door = places.door(fleet, ONE, OTHER)
    fleet.start()
    places.let_in(fleet, door, OTHER)
    for name in (ONE, OTHER):
        fleet.net.between(HUB, name).cut()
    _linked(fleet, "ssh")
    way = fleet.net.between(ONE, OTHER)
    return Alone(fleet, lambda: _none(way.cut()), lambda: _none(way.heal()), door.kill)


class _Arrangement(NamedTuple):
    arrange: Callable[[NetFleet], Alone]
    names: tuple[str, ...] = NAMES
    dials: dict[str, list[str]] | None = None
    deaf: tuple[str, ...] = ()


ARRANGEMENTS: Final = {
    "http": _Arrangement(_http, dials={ONE: [HUB], OTHER: [HUB, ONE]}),
    "nats": _Arrangement(_nats, names=(ONE, OTHER), deaf=(ONE, OTHER)),
    "ssh": _Arrangement(_ssh, deaf=(ONE, OTHER)),
    "cloud": _Arrangement(_cloud, names=(ONE, OTHER), deaf=(ONE, OTHER)),
    "drop": _Arrangement(_drop, names=(ONE, OTHER), deaf=(ONE, OTHER)),
    "git": _Arrangement(_git, names=(ONE, OTHER), deaf=(ONE, OTHER)),
    RELAY: _Arrangement(_relay, deaf=(ONE, OTHER)),
    SFTP: _Arrangement(_sftp, names=(ONE, OTHER), deaf=(ONE, OTHER)),
}


def _none(_: object) -> None:
    """Nothing, whatever came of it."""


def _linked(fleet: NetFleet, channel: str) -> None:
    for here, there in ((ONE, OTHER), (OTHER, ONE)):
        until(lambda a=here, b=there: carries(channel, fleet[a], b),
              lambda a=here, b=there: f"{a} reaches {b} by {channel}: {fleet[a].ask('machines')}",
              within_s=LINKED_S)  # fmt: skip


def carries(channel: str, machine: Machine, other: str) -> bool:
    """Whether a machine reaches another one by this channel now, as it says itself."""
    channel = "drop" if channel == SFTP else channel
    (found,) = [m for m in machine.ask("machines") if m["name"] == other]
    if found["state"] == "up":
        return bool(found["channel"] == channel)
    # A mailbox is no presence: what was left in it and receipted is all there is to see.
    worked = [w["channel"] for w in found.get("ways", []) if w["state"] == "worked"]
    return channel in worked and {s.name: s.shape for s in CHANNELS}.get(channel) == "post"


@contextmanager
def only(channel: str, net: Net) -> Iterator[Alone]:
    """Two machines that this channel alone carries between. Raises: AssertionError without one."""
    found = ARRANGEMENTS.get(channel)
    assert found is not None, (
        f"the channel {channel} has no arrangement in tests/e2e/net/matrix.py: "
        "what is left of the network when it alone carries?"
    )
    with NetFleet(net, found.names, dials=found.dials, deaf=found.deaf) as fleet:
        alone = found.arrange(fleet)
        try:
            yield alone
        finally:
            alone.end()
