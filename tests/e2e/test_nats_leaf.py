"""A machine that comes and goes, with a NATS server of its own that is linked to that of the hub."""

import contextlib
import json
import os
import signal
from collections.abc import Iterator
from typing import Any

import pytest
from msgspec.structs import replace

from muster.node.host.config import NatsServe, config_text
from tests.channel.rigs import run
from tests.e2e.fleet import Fleet, Machine, until
from tests.e2e.test_drop import send, texts
from tests.e2e.test_engine import WITHIN_S, engine, hub_checks, serves
from tests.ports import free_port
from tests.promise import proves

pytest.importorskip("nats", reason="pip install 'muster-fleet[nats]'")
pytest.importorskip("pyrage", reason="pip install 'muster-fleet[nats]'")
from nats.aio.client import Client

from muster.channel import nats
from muster.node.engine.leaf import PROGRAMS

pytestmark = [pytest.mark.e2e, pytest.mark.timeout(300)]


@contextlib.contextmanager
def linked(*others: str) -> Iterator[Fleet]:
    """The hub serves, and lets servers in; the laptop has one. Nothing else goes between them."""
    port, leaves = free_port(), free_port()
    hub = NatsServe(
        serve=f"0.0.0.0:{port}", address=f"127.0.0.1:{port}", leaves=f"0.0.0.0:{leaves}"
    )
    serve = {"hub": hub, "laptop": NatsServe(leaf="auto")}
    with Fleet(["hub", "laptop", *others]) as fleet:
        for machine in fleet.machines.values():
            config = machine.home.config()
            channel = {**config.channel, "nats": nats.Options(place="hub")}
            mine = serve.get(machine.name, NatsServe())
            text = config_text(replace(config, channel=channel, nats=mine))
            machine.home.put("config.toml", text)
        fleet.start()
        serves(fleet.hub)
        is_linked(fleet["laptop"])
        for name in others:
            has = (fleet[name].home.path / nats.PASS).exists
            until(has, f"{name} has a pass", within_s=WITHIN_S)
        for machine in fleet.machines.values():
            machine.stop()
            machine.edit_facts(dial={})
            config = machine.home.config()
            http = replace(config.channel["http"], listen="")
            channel = {**config.channel, "http": http}
            machine.home.put("config.toml", config_text(replace(config, channel=channel)))
        fleet.start()
        serves(fleet.hub)
        is_linked(fleet["laptop"])
        yield fleet


def is_linked(machine: Machine, *, linked: bool = True, not_pid: int = 0) -> dict[str, Any]:
    def same() -> bool:
        found = engine(machine)
        return found["linked"] is linked and found["pid"] not in {0, not_pid}

    until(same, lambda: f"linked is {linked}: {engine(machine)}", within_s=WITHIN_S)
    return engine(machine)


def arrives(sender: Machine, receiver: Machine, *said: str) -> None:
    def came() -> bool:
        return sorted(t for t in texts(receiver) if t in said) == sorted(said)

    until(came, lambda: f"{said} are there, once: {texts(receiver)}", within_s=2 * WITHIN_S)


def check(machine: Machine) -> dict[str, Any]:
    return next(c for c in hub_checks(machine) if c["name"] == "NATS server")


@proves("node.nats-leaf", "node.nats-leaf-says")
def test_a_machine_delivers_over_the_link_of_its_own_server_and_what_was_left_meanwhile_once():
    with linked("studio") as fleet:
        hub, laptop, studio = fleet.hub, fleet["laptop"], fleet["studio"]
        how = engine(laptop)
        assert (how["state"], how["leaf_of"], how["machines"]) == ("serves", "hub", 0)
        assert check(laptop)["state"] == "ok"
        assert "linked to that of hub" in check(laptop)["text"]
        assert json.loads((laptop.home.path / nats.BESIDE).read_text())["server"] == how["address"]
        assert send(laptop, "studio", "one") == "stored"
        assert send(studio, "laptop", "two") == "stored"
        assert laptop.linked() == set()

        # Its server dies, and is begun again.
        os.kill(how["pid"], signal.SIGKILL)
        is_linked(laptop, not_pid=how["pid"])
        assert send(studio, "laptop", "three") == "stored"
        # The machine is away, and others leave something for it.
        laptop.kill()
        for number in range(5):
            send(studio, "laptop", f"meanwhile {number}", wait=False)
        laptop.start()
        arrives(studio, laptop, *(f"meanwhile {n}" for n in range(5)))
        # The other end is away, and it has something to say.
        hub.kill()
        is_linked(laptop, linked=False)
        assert check(laptop)["state"] == "note"
        for number in range(5):
            send(laptop, "studio", f"alone {number}", wait=False)
        hub.start()
        serves(hub)
        is_linked(laptop)
        arrives(laptop, studio, *(f"alone {n}" for n in range(5)))


@proves("node.nats-leaf-revoked", "node.nats-leaf-own")
def test_whoever_is_revoked_is_unlinked_and_stays_so_and_its_programs_keep_their_own():
    with linked("studio") as fleet:
        hub, laptop, studio = fleet.hub, fleet["laptop"], fleet["studio"]
        run(a_program_keeps(laptop, 1))
        hub.order("revoke", "laptop", {"name": "laptop"})
        until(lambda: engine(hub)["machines"] == 2, "it is cut", within_s=WITHIN_S)
        is_linked(laptop, linked=False)
        log = laptop.home.path / "nats" / "leaf" / "server.log"
        until(
            lambda: "uthorization" in log.read_text(), "it is not let in again", within_s=WITHIN_S
        )
        assert engine(laptop)["linked"] is False
        run(a_program_keeps(laptop, 2))
        # Nobody else is kept out.
        assert send(studio, "hub", "on") == "stored"


async def a_program_keeps(machine: Machine, number: int) -> None:
    user, _, password = (machine.home.path / PROGRAMS).read_text().strip().partition(":")
    client = Client()
    await client.connect(engine(machine)["address"], user=user, password=password)
    js = client.jetstream()
    await js.add_stream(name="MINE", subjects=["mine.>"])
    kept = await js.publish("mine.x", b"x")
    assert (kept.seq, kept.domain) == (number, machine.id[:16])
    await client.close()
