"""Two real daemons over a channel that is one file and one line in the list: tests/channel/memory.py."""

import asyncio
import contextlib
import gc
import signal
from collections.abc import AsyncIterator, Callable
from typing import Any

import pytest
from msgspec.structs import replace

from muster import channel as channels
from muster.channel import CHANNELS, FIRST, Spec
from muster.node.daemon import Daemon
from muster.node.host.config import config_text
from muster.node.installation import Installation
from muster.node.parts import PARTS
from muster.verbs.table import VERBS
from tests.channel import memory
from tests.e2e.fleet import Fleet, Machine
from tests.e2e.fleet import until as in_time
from tests.ports import free_port
from tests.promise import proves

pytestmark = [pytest.mark.e2e, pytest.mark.timeout(60)]


@pytest.fixture
def fleet(monkeypatch, tmp_path):
    """A hub and a studio, neither of which listens at a port."""
    monkeypatch.setattr(channels, "CHANNELS", (*CHANNELS, Spec("memory", "link", memory.__name__)))
    monkeypatch.setenv("MUSTER_STATE", str(tmp_path / "state"))
    monkeypatch.setenv("MUSTER_SOCK", "")
    memory.PROCESS.listeners.clear()
    thresholds, handler = gc.get_threshold(), signal.getsignal(signal.SIGTERM)
    with Fleet(["hub", "studio"], deaf=["hub", "studio"]) as made:
        yield made
    gc.unfreeze()
    gc.set_threshold(*thresholds)
    signal.signal(signal.SIGTERM, handler)


def say(machine: Machine, **options: Any) -> None:
    """Write `[channel.memory]` into its configuration."""
    config = machine.home.config()
    channel = {**config.channel, "memory": memory.Options(**options)}
    machine.home.put("config.toml", config_text(replace(config, channel=channel)))


@contextlib.asynccontextmanager
async def running(*machines: Machine) -> AsyncIterator[list[Daemon]]:
    daemons = [Daemon(Installation(machine.home, PARTS), VERBS) for machine in machines]
    ready = [asyncio.Event() for _ in daemons]
    lives = [asyncio.create_task(d.run(r.set)) for d, r in zip(daemons, ready, strict=True)]
    try:
        for each in ready:
            await each.wait()
        yield daemons
    finally:
        for daemon in daemons:
            daemon.stop()
        await asyncio.gather(*lives)


async def until(true: Callable[[], Any]) -> Any:
    """Wait until it is so; the asking program is beside the loop that answers it."""
    return await asyncio.to_thread(in_time, true, "it is so")


def row(machine: Machine, of: str) -> dict[str, Any]:
    return next(each for each in machine.ask("machines") if each["name"] == of)


@proves("node.channels-in-turn", "node.reach-is-told")
def test_a_channel_that_is_one_file_and_one_line_carries_messages_where_the_first_one_fails(fleet):
    hub, studio = fleet.hub, fleet["studio"]
    nobody = f"127.0.0.1:{free_port()}"
    studio.edit_facts(dial={hub.id: nobody})
    say(hub, listen="under-the-desk")
    say(studio, hub="under-the-desk")

    async def scenario() -> None:
        async with asyncio.timeout(40), running(hub, studio):
            await until(lambda: row(studio, "hub")["state"] == "up")
            order = {"text": ["hi"], "to": "hub", "wait": True}
            sent = await asyncio.to_thread(studio.order, "send", "hub", order)
            assert sent["state"] == "stored"
            inbox = await asyncio.to_thread(hub.ask, "inbox")
            assert [message["text"] for message in inbox] == ["hi"]
            found = await asyncio.to_thread(row, studio, "hub")
            assert found["channel"] == "memory"
            failed, works = found["ways"]
            assert (failed["channel"], failed["state"]) == (FIRST, "failed")
            assert nobody in failed["error"]
            assert works == {
                "channel": "memory",
                "address": "under-the-desk",
                "state": "up",
                "error": "",
            }
            # It is told by the hub itself, too: whoever was not told of it would find it.
            told = await until(lambda: (row(studio, "hub")["facts"] or {}).get("reach"))
            assert told == [{"channel": "memory", "address": "under-the-desk"}]

    asyncio.run(scenario())


@proves("node.channels-in-turn", "node.reach-is-told")
def test_machines_that_were_told_of_no_address_find_each_other_by_what_they_said_of_themselves(
    fleet,
):
    hub, studio = fleet.hub, fleet["studio"]
    say(hub, listen="hub")
    say(studio, listen="studio")
    studio.edit_facts(dial={hub.id: {"memory": "hub"}})

    async def scenario() -> None:
        async with asyncio.timeout(40):
            async with running(hub, studio):
                await until(lambda: row(hub, "studio")["ways"] and row(studio, "hub")["ways"])
            for machine in (hub, studio):
                machine.edit_facts(dial={})
            async with running(hub, studio):
                await until(lambda: row(hub, "studio")["state"] == "up")
        dials = [machine.home.facts()["dial"] for machine in (hub, studio)]
        assert {hub.id: {"memory": "hub"}} in dials or {studio.id: {"memory": "studio"}} in dials

    asyncio.run(scenario())
