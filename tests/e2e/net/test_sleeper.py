"""A machine that sleeps is woken by who waits for it: from its own network, or by a neighbour of it.

The test is the sleeper's network card: it starts the daemon when the packet comes.
"""

import contextlib
import json
import socket
import threading
from collections.abc import Iterator

import pytest
from msgspec.structs import replace

from muster.channel import wake
from muster.node.host.config import config_text
from tests.e2e.fleet import Machine, until
from tests.e2e.net.fleet import NetFleet
from tests.e2e.net.stage import Net, require
from tests.promise import proves

pytestmark = [pytest.mark.e2e, pytest.mark.timeout(300)]

# As long as a busy computer may take.
WOKEN_S = 120.0


@pytest.fixture
def net() -> Iterator[Net]:
    require()
    with Net("hub", "nas", "laptop") as net:
        yield net


@contextlib.contextmanager
def asleep(net: Net, sleeper: Machine, mac: str) -> Iterator[list[str]]:
    """Its daemon is stopped, and starts at the first packet for its card; who sent which."""
    sleeper.stop()
    heard: list[str] = []
    over = threading.Event()
    with net.socket(sleeper.name, socket.SOCK_DGRAM, timeout_s=0.2) as card:
        card.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        card.bind(("", wake.PORT))

        def listen() -> None:
            while not over.is_set():
                with contextlib.suppress(TimeoutError):
                    raw, (sender, _) = card.recvfrom(2048)
                    if raw == wake.packet(mac):
                        heard.append(sender)
                        if not sleeper.alive:
                            sleeper.start()

        thread = threading.Thread(target=listen)
        thread.start()
        try:
            yield heard
        finally:
            over.set()
            thread.join()


def say(sender: Machine, to: Machine, text: str) -> str:
    """What its sender knows when the receiver's proof came, or too long a time has passed."""
    with sender.client(timeout_s=WOKEN_S) as client:
        args = {"text": [text], "to": to.name, "wait": True}
        return str(client.order("send", to.name, args)["state"])


def became(sender: Machine, text: str) -> str:
    (found,) = [m for m in sender.ask("sent") if m["text"] == text]
    return str(found["to"][0]["state"])


@proves("node.wakes-sleepers", "net.wakes-sleepers")
def test_a_message_to_a_machine_that_sleeps_wakes_it_directly_and_by_a_neighbour(net: Net):
    # The laptop reaches everybody and is in no network with the nas.
    address = net.address("laptop")
    for line in (
        f"addr del {address}/24 dev eth0",
        f"addr add {address}/32 dev eth0",
        f"route add 10.78.0.0/24 dev eth0 src {address}",
    ):
        net.exec("laptop", ["ip", *line.split()])
    with NetFleet(net) as fleet:
        hub, nas, laptop = fleet.hub, fleet["nas"], fleet["laptop"]
        nas.home.put("config.toml", config_text(replace(nas.home.config(), wake=True)))
        fleet.start()
        mac = str(json.loads(net.exec("nas", ["ip", "-j", "link", "show", "eth0"]))[0]["address"])

        def knows(machine: Machine) -> bool:
            """Whether it has heard that the nas can be woken, and reaches whom it would ask."""
            (row,) = [m for m in machine.ask("machines") if m["name"] == "nas"]
            cards = (row["facts"] or {}).get("cards") or []
            return any(card["mac"] == mac and card["wakes"] for card in cards)

        for machine in (hub, laptop):
            until(lambda m=machine: knows(m), f"{machine.name} knows the card of the nas")
        with asleep(net, nas, mac) as heard:
            until(lambda: "nas" not in hub.linked(), "the hub sees that it is away")
            assert say(hub, nas, "directly") == "stored"
            assert heard == [net.address("hub")]
            assert [m["text"] for m in nas.ask("inbox")] == ["directly"]
        # Once in five minutes: the hub has sent its packet, and a restart forgets it.
        hub.stop()
        hub.start()
        until(lambda: "hub" in laptop.linked(), "the laptop reaches the hub", within_s=WOKEN_S)
        with asleep(net, nas, mac) as heard:
            for machine in (hub, laptop):
                until(
                    lambda m=machine: "nas" not in m.linked(),
                    f"{machine.name} sees that it is away",
                )
            assert say(laptop, nas, "by a neighbour") == "stored"
            assert heard == [net.address("hub")]
            assert [m["text"] for m in nas.ask("inbox")] == ["directly", "by a neighbour"]
            # Once more, by whoever: a storm of those who wait is one packet.
            nas.stop()
            until(lambda: "nas" not in laptop.linked(), "the laptop sees that it is away")
            for number in range(20):
                with laptop.client() as client:
                    args = {"text": [f"{number}"], "to": "nas", "wait": False}
                    client.order("send", "nas", args)
            assert became(laptop, "19") == "waiting"
            assert len(heard) == 1
