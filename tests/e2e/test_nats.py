"""Two real daemons without any link, and one NATS server that both reach: what it does to what lies there."""

import contextlib
from collections.abc import Awaitable, Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from msgspec.structs import replace

from muster.node.host.config import config_text
from tests.channel.nats_server import NatsServer
from tests.e2e.fleet import Fleet, Machine, until
from tests.e2e.test_drop import send, texts
from tests.promise import proves

pytest.importorskip("nats", reason="pip install 'muster-fleet[nats]'")
pytest.importorskip("pyrage", reason="pip install 'muster-fleet[nats]'")
from nats.js.errors import NotFoundError

from muster.channel import nats

pytestmark = [pytest.mark.e2e, pytest.mark.timeout(240)]

WITHIN_S = 60.0


@contextlib.contextmanager
def apart(server: NatsServer) -> Iterator[Fleet]:
    """A hub and a studio that can only meet at the server."""
    with Fleet(["hub", "studio"], deaf=["hub", "studio"]) as fleet:
        for machine in fleet.machines.values():
            machine.edit_facts(dial={})
            config = machine.home.config()
            channel = {**config.channel, "nats": nats.Options(place=server.url)}
            machine.home.put("config.toml", config_text(replace(config, channel=channel)))
        fleet.start()
        yield fleet


def counter(machine: Machine, name: str) -> int:
    return int(machine.ask("status")["counters"].get(name, 0))


def box(machine: Machine) -> str:
    return f"MUSTER_BOX_{machine.id}"


def in_box(machine: Machine, work: Callable[[Any, str], Awaitable[None]]) -> Callable[[Any], Any]:
    """Something that whoever has the server does to what lies there for a machine."""

    async def done(client: Any) -> None:
        await work(client.jetstream(), box(machine))

    return done


async def lying(js: Any, stream: str) -> dict[int, bytes]:
    """What lies in a mailbox, by its place in the stream."""
    state, found = (await js.stream_info(stream)).state, {}
    for at in range(state.first_seq, state.last_seq + 1):
        with contextlib.suppress(NotFoundError):
            found[at] = (await js.get_msg(stream, at)).data
    return found


@proves("channel.nats-carries", "channel.nats-heals")
def test_machines_deliver_over_a_nats_server_whatever_it_loses_invents_or_gives_again(
    tmp_path: Path,
):
    with NatsServer(tmp_path / "nats") as server, apart(server) as fleet:
        hub, studio = fleet.hub, fleet["studio"]
        assert send(hub, "studio", "one") == "stored"
        assert send(studio, "hub", "two") == "stored"
        (row,) = [each for each in hub.ask("machines") if each["name"] == "studio"]
        assert row["state"] != "up", "a mailbox is no presence"
        way = {"channel": "nats", "address": server.url, "state": "worked", "error": ""}
        assert way in row["ways"]

        # All of it, its end, its middle: what a machine does not take is lost before it comes back.
        kept: list[bytes] = []
        for number, lost in enumerate([(-1,), (1,), (0, 1, 2, 3, 4, 5)]):
            studio.stop()
            before = counter(hub, "parcels-left")
            for word in "abc":
                assert send(hub, "studio", f"{number}{word}", wait=False) == "waiting"
                until(lambda b=before: counter(hub, "parcels-left") > b, "it lies there")
                before = counter(hub, "parcels-left")

            async def damage(js: Any, stream: str, which: tuple[int, ...] = lost) -> None:
                there = await lying(js, stream)
                kept.extend(there.values())
                for at in {list(there)[at] for at in which if -len(there) <= at < len(there)}:
                    await js.delete_msg(stream, at)

            server.as_admin(in_box(studio, damage))
            studio.start()
            until(
                lambda n=number: texts(studio)[-3:] == [f"{n}{word}" for word in "abc"],
                f"what the server lost ({lost}) is said again: {texts(studio)}",
                within_s=WITHIN_S,
            )

        # What it kept, backwards; what it made up; what is another's: nothing comes of it.
        refused = counter(studio, "parcels-refused-forged")

        async def invent(js: Any, stream: str) -> None:
            where = f"{stream.removeprefix('MUSTER_BOX_')}.{hub.id}"
            for packet in [*reversed(kept), kept[0][:-1] + b"?", b"nothing"]:
                await js.publish(f"muster.box.{where}", packet)

        server.as_admin(in_box(studio, invent))
        until(lambda: counter(studio, "parcels-refused-forged") > refused, "a lie is counted")
        assert send(hub, "studio", "three") == "stored"
        told = ["one", *(f"{n}{w}" for n in range(3) for w in "abc"), "three"]
        assert texts(studio) == told

        # A server that dies, and comes back with nothing.
        server.kill()
        assert send(hub, "studio", "four", wait=False) == "waiting"
        server.wipe()
        server.start()
        until(lambda: texts(studio) == [*told, "four"], "it heals", within_s=WITHIN_S)
        assert send(studio, "hub", "five") == "stored"
