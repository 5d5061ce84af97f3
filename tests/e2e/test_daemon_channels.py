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
from muster.errors import Unreachable
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


@proves("node.climbs", "node.channels-are-shown")
def test_a_channel_that_dies_in_use_is_replaced_within_seconds_and_used_again_when_it_is_back(
    fleet, monkeypatch
):
    hub, studio = fleet.hub, fleet["studio"]
    at = f"127.0.0.1:{free_port()}"
    studio.edit_facts(dial={hub.id: at})
    config = hub.home.config()
    listens = {FIRST: config.options(FIRST), **config.channel}
    listens[FIRST] = replace(listens[FIRST], listen=at)
    hub.home.put("config.toml", config_text(replace(config, channel=listens)))
    say(hub, listen="under-the-desk")
    say(studio, hub="under-the-desk")

    def shown(channel: str) -> dict[str, Any]:
        rows = studio.ask("channels", {"machine": "hub"})
        return next(each for each in rows if each["channel"] == channel)

    async def sent(text: str) -> str:
        order = {"text": [text], "to": "hub", "wait": True}
        said = await asyncio.to_thread(studio.order, "send", "hub", order)
        assert said["state"] == "stored"
        return str(said["message"])

    async def scenario() -> None:
        loop = asyncio.get_running_loop()
        async with asyncio.timeout(50), running(hub, studio) as (daemon, other):
            # What is broken here stays so until it is mended here.
            monkeypatch.setattr(daemon.mends, "_broken", lambda *_: [])
            monkeypatch.setattr(other.mends, "_broken", lambda *_: [])
            await until(lambda: shown(FIRST)["state"] == "speaks")
            await sent("over the port")
            assert (await asyncio.to_thread(shown, FIRST))["proof_ms_ago"] >= 0
            pinged = await asyncio.to_thread(studio.ask, "ping", {"machine": "hub"})
            assert (pinged["channel"], pinged["how"]) == (FIRST, "call")
            assert pinged["by"] == hub.id
            await daemon.paths._listening[FIRST].close()
            died_s = loop.time()
            message = await sent("under the desk")
            assert loop.time() - died_s < 20, "5 s, and as much as a busy machine takes"
            await until(lambda: shown(FIRST)["state"] in {"failed", "resting"})
            assert at in (await asyncio.to_thread(shown, FIRST))["reason"]
            assert (await asyncio.to_thread(shown, "memory"))["state"] == "speaks"
            pinged = await asyncio.to_thread(
                studio.ask, "ping", {"machine": "hub", "via": "memory"}
            )
            assert (pinged["channel"], pinged["how"]) == ("memory", "call")
            with pytest.raises(Unreachable, match="hub is not there over http"):
                await asyncio.to_thread(studio.ask, "ping", {"machine": "hub", "via": FIRST})
            why = await asyncio.to_thread(studio.ask, "why", {"task": message})
            assert [each["state"] for each in why["message"]["to"]] == ["stored"]
            tried = {
                (each["channel"], each["outcome"]) for each in why["message"]["to"][0]["tries"]
            }
            assert {(FIRST, "gone"), (FIRST, "failed"), ("memory", "stands")} <= tried
            await daemon.paths.listen_again(FIRST)
            await until(lambda: shown(FIRST)["state"] == "speaks")
            await sent("over the port again")
            await until(lambda: shown("memory")["state"] == "worked")
            inbox = await asyncio.to_thread(hub.ask, "inbox")
            texts = ["over the port", "under the desk", "over the port again"]
            assert [each["text"] for each in inbox] == texts

    asyncio.run(scenario())


@proves("node.mends")
def test_a_listener_that_ended_listens_again_because_another_machine_hears_by_a_poorer_way(fleet):
    """Studio alone is told something, so studio asks, and the hub looks after its own port."""
    hub, studio = fleet.hub, fleet["studio"]
    at = f"127.0.0.1:{free_port()}"
    studio.edit_facts(dial={hub.id: at})
    config = hub.home.config()
    listens = replace(config.options(FIRST), listen=at)
    hub.home.put("config.toml", config_text(replace(config, channel={FIRST: listens})))
    say(hub, listen="under-the-desk")
    say(studio, hub="under-the-desk")

    def speaks() -> set[str]:
        rows = studio.ask("channels", {"machine": "hub"})
        return {row["channel"] for row in rows if row["state"] == "speaks"}

    async def scenario() -> None:
        async with asyncio.timeout(50), running(hub, studio) as (daemon, other):
            await until(lambda: speaks() == {FIRST})
            # On a slow machine the poorer way stood first at the start, and asked for it then.
            for each in (daemon, other):
                each.mends._asked.clear()
                each.mends._mended.clear()
            await daemon.paths._listening[FIRST].close()
            await until(lambda: speaks() == {"memory"})
            order = {"text": ["hi"], "to": "studio", "wait": True}
            sent = await asyncio.to_thread(hub.order, "send", "studio", order)
            assert sent["state"] == "stored"
            await until(lambda: speaks() == {FIRST})
            assert daemon.core.counters["mends"] >= 1
            assert other.core.counters["mends-asked"] >= 1

    asyncio.run(scenario())
