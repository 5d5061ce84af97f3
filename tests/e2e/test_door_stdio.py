"""The door for programs that know standard input and output alone: the SDK's client over the shim."""

import asyncio
import contextlib
import itertools
import json
import os
import signal
import socket
import subprocess
import sys
from collections.abc import AsyncIterator, Iterator
from typing import Any

import pytest
from mcp import StdioServerParameters
from mcp.client import Client
from mcp.shared.exceptions import MCPDeprecationWarning

from muster.door import mcp_stdio
from tests.cli.world import muster
from tests.e2e.fleet import Fleet, Machine, until
from tests.e2e.test_door import door_of
from tests.promise import proves

pytestmark = [pytest.mark.e2e, pytest.mark.timeout(240)]
ERAS = ("2026-07-28", "legacy")


@pytest.fixture(scope="module")
def studio() -> Iterator[Machine]:
    with Fleet(["studio"]) as fleet:
        machine = fleet.start()["studio"]
        until(lambda: machine.ask("door")["port"], "its port is held")
        yield machine


def command(machine: Machine, own: str) -> list[str]:
    return ["-I", "-S", mcp_stdio.__file__, str(machine.home.path), "shell", own]


@contextlib.asynccontextmanager
async def client(machine: Machine, era: str, own: str) -> AsyncIterator[Client]:
    shim = StdioServerParameters(command=sys.executable, args=command(machine, own))
    async with Client(shim, mode=era) as made:
        yield made


@proves("door.over-stdio")
@pytest.mark.parametrize("era", ERAS)
def test_a_program_over_stdio_has_the_same_tools_and_goes_on_after_a_new_daemon(studio, era):
    async def run() -> None:
        async with client(studio, era, f"own-{era}") as agent:
            names = {tool.name for tool in (await agent.list_tools()).tools}
            assert {"inbox", "send", "await"} <= names
            kept = await agent.call_tool("remember", {"key": f"stdio/{era}", "text": "so it is"})
            assert not kept.is_error, kept
            found = await agent.read_resource(f"muster://memory/stdio/{era}")
            assert "so it is" in found.contents[0].text
            bad = await agent.call_tool("why", {"task": "abcdef"})
            assert bad.is_error
            os.kill(door_of(studio), signal.SIGKILL)
            assert not (await agent.call_tool("machines", {})).is_error
            await asyncio.to_thread(studio.kill)
            await asyncio.to_thread(studio.start)
            await asyncio.to_thread(until, lambda: studio.ask("door")["port"], "it is held")
            for _ in range(2):
                assert not (await agent.call_tool("machines", {})).is_error

    asyncio.run(run())
    assert any(each["session"] for each in studio.ask("sessions") if each["agent"] == "shell")


@proves("door.over-stdio", "door.tells-of-changes")
def test_what_a_program_of_the_older_era_follows_it_follows_at_the_next_door_too(studio):
    heard = asyncio.Event()

    async def hear(message: Any) -> None:
        if "resources/updated" in str(getattr(message, "method", "")):
            heard.set()

    async def run() -> None:
        shim = StdioServerParameters(command=sys.executable, args=command(studio, "follows"))
        async with Client(shim, mode="legacy", message_handler=hear) as agent:
            with pytest.warns(MCPDeprecationWarning):
                await agent.subscribe_resource("muster://memory/stdio/news")
            os.kill(door_of(studio), signal.SIGKILL)
            for number in itertools.count():
                # Whoever was away says that all may have changed, and so is heard by itself.
                text = f"news {number}"
                args = {"key": "stdio/news", "text": text, "over": kept_of(studio)}
                await asyncio.to_thread(studio.order, "remember", "stdio/news", args)
                with contextlib.suppress(TimeoutError):
                    await asyncio.wait_for(heard.wait(), 2)
                    break

    asyncio.run(run())


def kept_of(machine: Machine) -> list[str]:
    known = {each["key"] for each in machine.ask("memories", {})}
    there = machine.ask("memory", {"key": "stdio/news"}) if "stdio/news" in known else []
    return [each["version"] for each in there]


@proves("door.over-stdio")
def test_whoever_has_the_port_instead_of_the_daemon_is_shown_no_token():
    with Fleet(["studio"]) as fleet, socket.socket() as other:
        machine = fleet["studio"]
        other.bind(("127.0.0.1", 0))
        other.listen()
        machine.home.keep_door_port(other.getsockname()[1])
        fleet.start()
        said = subprocess.run(
            [sys.executable, *command(machine, "own")], capture_output=True, check=True, timeout=60,
            input=b'{"jsonrpc":"2.0","id":7,"method":"ping"}\n',
        )  # fmt: skip
        answer = json.loads(said.stdout)
        assert "its port is another program's" in answer["error"]["message"]
        other.setblocking(False)
        with pytest.raises(BlockingIOError):
            other.accept()


@proves("door.over-stdio")
@pytest.mark.parametrize("accepted", [False, True])
def test_a_program_of_another_user_at_the_port_is_told_by_what_the_kernel_says(
    monkeypatch, accepted
):
    with socket.socket() as other:
        other.bind(("127.0.0.1", 0))
        other.listen()
        with socket.create_connection(other.getsockname()) as connected:
            theirs = other.accept()[0] if accepted else None
            assert mcp_stdio.is_ours(connected)
            monkeypatch.setattr(os, "getuid", lambda: 4_000_000)
            assert mcp_stdio.is_ours(connected) is (sys.platform != "linux")
            if theirs is not None:
                theirs.close()


@proves("door.over-stdio")
def test_without_a_daemon_and_for_what_is_no_json_there_is_an_answer(tmp_path):
    said = subprocess.run(
        [sys.executable, "-I", "-S", mcp_stdio.__file__, str(tmp_path), "shell"],
        input=b'no json\n{"jsonrpc":"2.0","id":7,"method":"ping"}\n', capture_output=True,
        check=True, timeout=60,
    )  # fmt: skip
    answers = {each["id"]: each["error"] for each in map(json.loads, said.stdout.splitlines())}
    assert answers[None]["code"] == -32700
    assert "muster doctor" in answers[7]["message"]
    assert said.stderr == b""


@proves("install.is-looked-at")
def test_doctor_runs_the_hook_and_asks_the_tools_of_a_program_and_leaves_no_session(
    studio, tmp_path
):
    def asked(*words: str) -> Any:
        said = muster(studio.home.path, *words, "--json", HOME=str(tmp_path))
        return json.loads(said.out.strip().splitlines()[-1])

    def looked_at() -> tuple[str, str]:
        checks = asked("doctor")["checks"]
        (found,) = [each for each in checks if each["name"] == "program cursor"]
        return found["state"], found["text"]

    assert asked("install", "cursor", "--yes")["done"]
    before = {each["session"] for each in studio.ask("sessions")}
    assert looked_at() == ("ok", "Cursor: the hook runs, and the tools answer")
    assert {each["session"] for each in studio.ask("sessions")} == before
    studio.stop()
    try:
        assert looked_at()[0] == "note"
    finally:
        studio.start()
