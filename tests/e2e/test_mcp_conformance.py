"""What others say of our MCP server: the Inspector, strictly, and the suite of the protocol itself.

Both come with `make agents`. What of the suite does not hold stands in conformance/, with its reason.
"""

import asyncio
import json
import os
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.e2e import install_agents
from tests.e2e.bearing import bearing
from tests.e2e.fleet import Fleet, until
from tests.promise import proves

pytestmark = [pytest.mark.e2e, pytest.mark.timeout(420)]
BASELINES = Path(__file__).parent / "conformance"
ROOT = install_agents.folder()
if install_agents.missing(ROOT, "mcp"):
    pytest.skip("`make agents` installs the Inspector and the suite", allow_module_level=True)
ENV = {**os.environ, "NO_COLOR": "1"}
ENV["PATH"] = install_agents.programs_path(ROOT) + os.pathsep + os.environ["PATH"]


@pytest.fixture(scope="module")
def reached() -> Iterator[tuple[int, str]]:
    """The port of a door, and the token of a session there."""
    with Fleet(["studio"]) as fleet:
        studio = fleet.start()["studio"]
        port = until(lambda: studio.ask("door")["port"], "its port is held")
        opening = {"agent": "shell", "own": "suite", "project": "/src/shop"}
        yield port, studio.ask("session.open", opening)["token"]


@proves("door.others-agree")
@pytest.mark.parametrize("era", ["legacy", "modern"])
def test_the_inspector_finds_nothing_to_say_of_our_tools(reached, era):
    port, token = reached
    run = subprocess.run(
        ["mcp-inspector", "--cli", f"http://localhost:{port}/mcp", "--transport", "http",
         "--header", f"Authorization: Bearer {token}", "--protocol-era", era,
         "--format", "json", "--strict", "--method", "tools/list"],
        capture_output=True, text=True, env=ENV, check=False,
    )  # fmt: skip
    assert (run.returncode, run.stderr) == (0, ""), run.stderr[-2000:]
    assert "inbox" in json.dumps(json.loads(run.stdout))


@proves("door.others-agree")
@pytest.mark.parametrize(
    ("baseline", "what"),
    [
        ("handshake", ["--suite", "active"]),
        ("modern", ["--requirements", "2026-07-28"]),
    ],
)
def test_the_protocols_own_suite_holds_but_for_what_is_known(reached, baseline, what, tmp_path):
    port, token = reached

    async def run() -> tuple[int | None, str]:
        async with bearing(port, token) as own:
            suite = await asyncio.create_subprocess_exec(
                "conformance", "server", "--url", f"http://localhost:{own}/mcp", *what,
                "--expected-failures", str(BASELINES / f"{baseline}.yml"), "-o", str(tmp_path),
                stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.STDOUT, env=ENV,
            )  # fmt: skip
            said, _ = await suite.communicate()
            return suite.returncode, said.decode()

    code, said = asyncio.run(run())
    assert code == 0, said[said.find("=== SUMMARY") :][-4000:]
