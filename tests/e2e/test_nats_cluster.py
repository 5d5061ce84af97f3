"""Three machines whose NATS servers are one: what one of them takes with it, and who is let in."""

import asyncio
import contextlib
import json
import shutil
import socket
import ssl
from collections.abc import Iterator

import pytest
from msgspec.structs import replace

from muster.node.host.config import NatsServe, config_text
from tests.channel.rigs import run
from tests.e2e.fleet import Fleet, Machine, until
from tests.e2e.test_drop import send, texts
from tests.e2e.test_engine import WITHIN_S, credentials, engine, enters, serves
from tests.ports import free_port
from tests.promise import proves

pytest.importorskip("nats", reason="pip install 'muster-fleet[nats]'")
pytest.importorskip("pyrage", reason="pip install 'muster-fleet[nats]'")

from muster.channel import nats

pytestmark = [pytest.mark.e2e, pytest.mark.timeout(600)]

SERVERS = ("hub", "build", "studio")


def served(machine: Machine, cluster: tuple[str, ...] = ()) -> NatsServe:
    """What `[nats]` of one of them says: as far as it knows, it listens for other computers."""
    port, routes = free_port(), free_port()
    return NatsServe(
        serve=f"0.0.0.0:{port}", address=f"127.0.0.1:{port}", routes=f"0.0.0.0:{routes}",
        cluster=cluster if machine.name == "hub" else (),
    )  # fmt: skip


def configured(machine: Machine, **changed: object) -> None:
    config = replace(machine.home.config(), **changed)
    machine.home.put("config.toml", config_text(config))


def without_links(fleet: Fleet) -> None:
    for machine in fleet.machines.values():
        machine.stop()
        machine.edit_facts(dial={})
        config = machine.home.config()
        http = replace(config.channel["http"], listen="")
        configured(machine, channel={**config.channel, "http": http})
    fleet.start()


@contextlib.contextmanager
def clustered(*others: str) -> Iterator[Fleet]:
    with Fleet([*SERVERS, *others]) as fleet:
        for machine in fleet.machines.values():
            channel = {**machine.home.config().channel, "nats": nats.Options(place="hub")}
            serve = served(machine, SERVERS) if machine.name in SERVERS else NatsServe()
            configured(machine, channel=channel, nats=serve)
        # As of a server that was alone before.
        old = fleet.hub.home.path / "nats" / "store"
        old.mkdir(parents=True)
        fleet.start()
        for name in SERVERS:
            serves(fleet[name])
        until(lambda: not old.exists(), "what it had is moved", within_s=2 * WITHIN_S)
        for name in others:
            has = (fleet[name].home.path / nats.PASS).exists
            until(has, f"{name} has a pass", within_s=WITHIN_S)
        yield fleet


@proves("node.nats-cluster", "node.nats-cluster-moves")
def test_three_servers_are_one_of_which_any_may_go_and_whoever_is_revoked_is_cut_at_each():
    with clustered("laptop") as fleet:
        hub, build, studio, laptop = (fleet[n] for n in (*SERVERS, "laptop"))
        assert set(engine(hub)["beside"]) == {"build", "studio"}
        assert set(engine(build)["beside"]) == {"hub", "studio"}
        shown = json.loads((laptop.home.path / nats.PASS).read_text())
        assert len({shown["server"], *shown["more"]}) == 3
        for machine in (hub, build, studio):
            told = json.loads((machine.home.path / "nats" / "server.json").read_text())
            assert told["jetstream"]["sync_interval"] == "always"
            nothing_is_said_to(laptop, int(told["cluster"]["listen"].rpartition(":")[2]))

        # Without any link; each begins with what it was told before, with nobody to ask.
        without_links(fleet)
        for name in SERVERS:
            serves(fleet[name])
        arrives(laptop, studio, "one")

        # The one that says whom to let in, and looks after the mailboxes, is away.
        hub.kill()
        arrives(laptop, studio, "two")
        arrives(studio, laptop, "three")
        hub.start()
        serves(hub)
        # One lost all that it had.
        build.kill()
        for store in (build.home.path / "nats").glob("store-*"):
            shutil.rmtree(store)
        arrives(studio, laptop, "four")
        build.start()
        serves(build)
        arrives(hub, build, "five")

        async def scenario() -> None:
            inside = [await enters(laptop, stays=True, at=i) for i in range(3)]
            other = [await enters(studio, stays=True, at=i) for i in range(3)]
            assert all(inside)
            assert all(other)
            await asyncio.to_thread(hub.order, "revoke", "laptop", {"name": "laptop"})
            for each in filter(None, inside):
                await asyncio.to_thread(until, lambda e=each: e.is_closed, "cut", within_s=WITHIN_S)
            assert [await enters(laptop, stays=False, at=i) for i in range(3)] == [None] * 3
            for each in filter(None, [*inside, *other]):
                await each.close()

        run(scenario())


def arrives(sender: Machine, receiver: Machine, text: str) -> None:
    """It is there, once, however long a leader takes to be chosen."""
    send(sender, receiver.name, text, wait=False)
    until(lambda: texts(receiver).count(text) == 1, f"{text} is there", within_s=3 * WITHIN_S)


def nothing_is_said_to(member: Machine, port: int) -> None:
    """Who is no server of the cluster hears nothing where the servers meet, not even a member."""
    shown = credentials(member)
    for known in (False, True):
        tls = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
        tls.check_hostname, tls.verify_mode = False, ssl.CERT_NONE
        if known:
            from muster.channel.tls import _load_pair

            _load_pair(tls, shown)
        with socket.create_connection(("127.0.0.1", port), timeout=20) as bare:
            said = b""
            with contextlib.suppress(OSError), tls.wrap_socket(bare) as door:
                door.sendall(b'CONNECT {"verbose":false}\r\nPING\r\n')
                said = door.recv(4096)
            assert said == b""
