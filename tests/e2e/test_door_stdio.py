"""The door for programs that know standard input and output alone: the SDK's client over the shim."""

import asyncio
import contextlib
import json
import subprocess
import sys
from collections.abc import AsyncIterator, Iterator

import pytest
from mcp import StdioServerParameters
from mcp.client import Client

from muster.door import mcp_stdio
from tests.e2e.fleet import Fleet, Machine, until
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
            if era != "legacy":
                # It holds no connection: another token is all that it needs.
                await asyncio.to_thread(studio.kill)
                await asyncio.to_thread(studio.start)
                await asyncio.to_thread(until, lambda: studio.ask("door")["port"], "it is held")
                assert not (await agent.call_tool("machines", {})).is_error

    asyncio.run(run())
    assert any(each["session"] for each in studio.ask("sessions") if each["agent"] == "shell")


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
