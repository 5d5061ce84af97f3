"""Real agents inside real sandboxes: they write, run a command, and are cancelled, as without.

The model is outside; what is inside reaches it over the listener of its sandbox and no other way.
"""

import asyncio
import contextlib
import os
import shutil

import pytest

from muster.agent.catalogue import load
from muster.agent.discovery import Discovery
from muster.agent.process import Runner
from tests.agent import enclosed
from tests.agent.world import marked
from tests.e2e import install_agents, matrix
from tests.e2e.stage import Stage, every
from tests.e2e.test_real_agents import model
from tests.promise import proves

__all__ = ["model"]

pytestmark = [pytest.mark.e2e, pytest.mark.timeout(300)]
PORT = 3129


class Enclosed(Stage):
    """A stage whose program is inside; its folder has a repository of its own, as attempts have."""

    def __init__(self, name, url, folder, *, headless=False):
        super().__init__(name, f"http://127.0.0.1:{PORT}", folder, headless=headless)
        self._model = int(url.rpartition(":")[2])
        shutil.rmtree(self.tree)
        shutil.copytree(folder / "repository", self.tree)
        here = str(self.home)
        self.env = {n: v.replace(here, "/home/agent") for n, v in self.env.items()}
        self._servers = []

    def order(self, *steps, **changes):
        profile = {
            "program": enclosed.BWRAP,
            "home": str(self.home),
            "user": enclosed.DROPPED if enclosed.is_root() else 0,
            "readable": [str(install_agents.folder())],
            "ports": [PORT],
        }
        return super().order(*steps, sandbox=profile, **changes)

    async def start(self, order):
        runner = Runner(Discovery(load(), self.headless))
        attempt = await runner.start(order, self.events.append, self._serve)
        attempt.when_ended(self._close)
        return attempt

    def _serve(self, sockets):
        for each in sockets.values():
            self._servers.append(asyncio.create_task(asyncio.start_server(self._pass, sock=each)))

    def _close(self):
        for each in self._servers:
            each.result().close()

    async def _pass(self, reader, writer):
        there, back = await asyncio.open_connection("127.0.0.1", self._model)
        await asyncio.gather(_copy(reader, back), _copy(there, writer))


async def _copy(reader, writer):
    with contextlib.suppress(OSError):
        while data := await reader.read(65536):
            writer.write(data)
            await writer.drain()
    writer.close()


@pytest.fixture(params=[f"{n}-{mode}" for n in every("claude", "codex") for mode in matrix.MODES])
def stage(request, model, tmp_path):
    enclosed.require("user")
    name, _, mode = request.param.partition("-")
    if absent := install_agents.missing(install_agents.folder(), name):
        pytest.skip(f"{', '.join(absent)} not installed: run tests/e2e/install_agents.py")
    made = Enclosed(name, model[0], tmp_path, headless=mode == "headless")
    yield made
    assert marked(made.mark) == {}, "something of the attempt still runs"


@proves("enclosure.real-agents")
def test_a_real_agent_does_a_whole_task_inside(stage):
    target = stage.tree / "hello.txt"
    write = {"tool": "write", "path": str(target), "content": "hello\n"}
    command = "id -u >ran"
    ran = {"tool": "shell", "command": command} if stage.headless else stage.shell(command)
    outcome = stage.run(stage.order(write, ran, {"text": "It is written."}))
    assert (outcome.status, outcome.summary) == ("ok", "It is written."), matrix.told(stage)
    assert target.read_text().strip() == "hello"
    assert (stage.tree / "ran").read_text().split()[0] == "1000", matrix.told(stage)
    assert os.lstat(target).st_uid == os.geteuid()
    assert not [each for each in (".mcp.json", ".vscode") if (stage.tree / each).exists()]


@proves("enclosure.real-agents", "enclosure.ends")
def test_a_real_agent_that_is_cancelled_inside_leaves_no_process(stage):
    matrix.cancel(stage)
