"""A machine that serves NATS to its fleet: who is let in there, whom it cuts, and when it ends."""

import asyncio
import contextlib
import json
import os
import signal
import socket
from collections.abc import Iterator
from typing import Any

import msgspec
import pytest
from msgspec.structs import replace

from muster.node.host.config import NatsServe, config_text
from tests.channel.rigs import run
from tests.e2e.fleet import Fleet, Machine, until
from tests.e2e.test_drop import send, texts
from tests.ports import free_port
from tests.promise import proves

pytest.importorskip("nats", reason="pip install 'muster-fleet[nats]'")
pytest.importorskip("pyrage", reason="pip install 'muster-fleet[nats]'")
from nats.aio.client import Client
from nats.errors import Error

from muster.channel import nats

pytestmark = [pytest.mark.e2e, pytest.mark.timeout(240)]

WITHIN_S = 60.0


@contextlib.contextmanager
def serving(*names: str) -> Iterator[Fleet]:
    """The hub serves, beyond its own computer as far as it knows; all have their mailboxes there."""
    port = free_port()
    serve = NatsServe(serve=f"0.0.0.0:{port}", address=f"127.0.0.1:{port}")
    with Fleet(["hub", *names]) as fleet:
        for machine in fleet.machines.values():
            config = machine.home.config()
            channel = {**config.channel, "nats": nats.Options(place="hub")}
            mine = serve if machine is fleet.hub else NatsServe()
            text = config_text(replace(config, channel=channel, nats=mine))
            machine.home.put("config.toml", text)
        fleet.start()
        serves(fleet.hub)
        for name in names:
            until(
                (fleet[name].home.path / nats.PASS).exists, f"{name} has a pass", within_s=WITHIN_S
            )
        yield fleet


def engine(machine: Machine) -> dict[str, Any]:
    found: dict[str, Any] = machine.ask("engine")
    return found


def serves(machine: Machine, *, not_pid: int = 0) -> dict[str, Any]:
    def does() -> dict[str, Any] | None:
        # One answer: the next one may be of a server that begins again.
        found = engine(machine)
        return found if found["state"] == "serves" and found["pid"] != not_pid else None

    found: dict[str, Any] = until(does, lambda: f"it serves: {engine(machine)}", within_s=WITHIN_S)
    return found


def runs(pid: int) -> bool:
    """Whether a process runs, that is no zombie of somebody's."""
    with contextlib.suppress(OSError), open(f"/proc/{pid}/stat", encoding="ascii") as file:
        return file.read().rpartition(")")[2].split()[0] != "Z"
    return False


async def enters(machine: Machine, *, stays: bool, at: int = 0) -> Client | None:
    """A client that is let in as the machine, at one of its servers; None where it is not."""
    shown = msgspec.json.decode((machine.home.path / nats.PASS).read_bytes(), type=nats.Pass)
    sign = machine.identity.signer("nats").sign
    login = nats.login(shown, sign, lambda: credentials(machine))
    client = Client()

    async def fails(_: Exception) -> None:
        pass

    try:
        server = (shown.server, *shown.more)[at]
        await client.connect(server, allow_reconnect=False, error_cb=fails, connect_timeout=20,
                             max_reconnect_attempts=1, reconnect_time_wait=0, **login.options)  # fmt: skip
    except Error:
        await client.close()
        return None
    if not stays:
        await client.close()
    return client


def credentials(machine: Machine) -> Any:
    from muster.channel.tls import Credentials
    from muster.fleet import certificate
    from muster.fleet.certificate import CertificateChain

    facts = machine.home.facts()
    chain = CertificateChain(facts["certificate"].encode(), facts["ca"].encode())
    return Credentials(*certificate.tls_files(machine.identity, chain))


@proves("node.nats-serves", "node.nats-revoked")
def test_machines_meet_at_the_server_of_another_and_who_is_revoked_is_cut_and_stays_out():
    with serving("studio", "laptop") as fleet:
        hub, studio, laptop = fleet.hub, fleet["studio"], fleet["laptop"]
        told = json.loads((hub.home.path / "nats" / "server.json").read_text())
        assert told["jetstream"]["sync_interval"] == "always"
        assert told["tls"]["min_version"] == "1.3"
        assert said_to_a_stranger(told["listen"].rpartition(":")[2]) == b""
        assert engine(hub)["machines"] == 3
        assert engine(studio)["state"] == "off"
        assert not {
            (p.stat().st_mode & 0o077)
            for p in (hub.home.path / "nats").glob("*.*")
            if p.suffix != ".log"
        } - {0}

        # Without any link the server is all that there is.
        for machine in (hub, studio, laptop):
            machine.stop()
            machine.edit_facts(dial={})
            config = machine.home.config()
            http = msgspec.structs.replace(config.channel["http"], listen="")
            channel = {**config.channel, "http": http}
            machine.home.put("config.toml", config_text(replace(config, channel=channel)))
        fleet.start()
        serves(hub)
        assert send(studio, "laptop", "one") == "stored"
        assert send(laptop, "studio", "two") == "stored"
        assert (texts(laptop), texts(studio)) == (["one"], ["two"])
        assert studio.linked() == set()

        async def scenario() -> None:
            inside = await enters(laptop, stays=True)
            other = await enters(studio, stays=True)
            assert inside is not None
            assert other is not None
            await asyncio.to_thread(hub.order, "revoke", "laptop", {"name": "laptop"})
            await asyncio.to_thread(until, lambda: inside.is_closed, "it is cut", within_s=20)
            assert await enters(laptop, stays=False) is None
            assert other.is_connected, "nobody else is cut"
            await inside.close()
            await other.close()

        run(scenario())
        until(lambda: engine(hub)["machines"] == 2, "its mailbox is gone", within_s=WITHIN_S)
        assert send(studio, "hub", "three") == "stored"


@proves("node.nats-ends-and-begins")
def test_a_server_that_dies_is_begun_again_and_it_ends_with_the_daemon_however_that_ends():
    with serving("studio") as fleet:
        hub, studio = fleet.hub, fleet["studio"]
        first = engine(hub)["pid"]
        os.kill(first, signal.SIGKILL)
        second = serves(hub, not_pid=first)
        assert second["restarts"] >= 1
        assert not runs(first)
        assert send(studio, "hub", "one") == "stored"
        hub.kill()
        until(lambda: not runs(second["pid"]), "it went with the daemon")
        hub.start()
        third = serves(hub)["pid"]
        hub.stop()
        assert not runs(third)
        hub.start()
        serves(hub)
        checks = {c["name"]: c for c in map(dict, hub_checks(hub))}
        assert checks["NATS server"]["state"] == "ok"


def said_to_a_stranger(port: str) -> bytes:
    """What the server says to whoever connects and says nothing."""
    with socket.create_connection(("127.0.0.1", int(port)), timeout=2) as door:
        try:
            return door.recv(4096)
        except TimeoutError:
            return b""


def hub_checks(machine: Machine) -> list[dict[str, Any]]:
    with machine.client(timeout_s=60) as client:
        found: list[dict[str, Any]] = client.call("doctor.report", {})["checks"]
        return found


@proves("node.nats-serves")
def test_who_does_not_hold_the_authority_serves_nobody_and_says_so():
    with Fleet(["hub", "studio"]) as fleet:
        studio = fleet["studio"]
        config = studio.home.config()
        text = config_text(replace(config, nats=NatsServe(serve="auto")))
        studio.home.put("config.toml", text)
        fleet.start()
        # It is tried again and again, and says nothing of why while it begins: one answer has both.
        until(
            lambda: (
                (it := engine(studio))["state"] == "stopped"
                and "does not hold the fleet's authority" in it["why"]
            ),
            "it says so",
            within_s=WITHIN_S,
        )


@proves("node.nats-serves")
def test_who_is_given_no_pass_for_a_server_says_why():
    with Fleet(["hub", "studio"]) as fleet:
        hub, studio = fleet.hub, fleet["studio"]
        for machine in (hub, studio):
            config = machine.home.config()
            channel = {**config.channel, "nats": nats.Options(place="hub")}
            serve = NatsServe(serve="auto" if machine is hub else "")
            text = config_text(replace(config, channel=channel, nats=serve))
            machine.home.put("config.toml", text)
        fleet.start()
        serves(hub)
        # It is asked for again every few seconds, and the way by the server less often.
        until(
            lambda: "for that computer alone" in json.dumps(studio.ask("channels")),
            lambda: f"studio says why: {studio.ask('channels')}",
            within_s=WITHIN_S,
        )
