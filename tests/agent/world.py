"""What the tests of attempts share: an order, its environment, and a look at who still lives."""

import asyncio
import os
import sys
import time
import uuid
from pathlib import Path

import msgspec

from muster.agent.base import AttemptOrder, environment
from muster.agent.catalogue import BUILT_IN
from muster.agent.discovery import Discovery
from muster.agent.process import Runner

STUBBORN = Path(__file__).with_name("stubborn.py")


class World:
    """One test's folder and mark; every process of its attempts carries the mark."""

    def __init__(self, folder):
        self.mark = uuid.uuid4().hex
        self.cwd = folder / "work"
        self.pids = folder / "pids"
        self.cwd.mkdir()
        self.pids.mkdir()
        self.events = []

    def env(self, **extra):
        return environment(os.environ, {"MUSTER_TEST_MARK": self.mark, **extra})

    def order(self, command="", **changes):
        order = AttemptOrder(
            task="t1",
            epoch=(1, 1),
            agent="shell",
            cwd=str(self.cwd),
            env=self.env(),
            command=command,
            timeout_s=30,
            grace_s=0.3,
        )
        return msgspec.structs.replace(order, **changes)

    def stubborn(self, shape="stays"):
        """A command whose processes escape in every way there is."""
        return f"exec {sys.executable} {STUBBORN} {self.pids} {shape}"

    def announced(self):
        return len(list(self.pids.iterdir()))

    def alive(self):
        """Living processes with this test's mark, the zombies left out."""
        return marked(f"MUSTER_TEST_MARK={self.mark}")

    def kinds(self):
        return [event.kind for event in self.events]

    def text(self, stream="stdout"):
        outputs = [e.fields for e in self.events if e.kind == "agent.output"]
        return "\n".join(f["text"] for f in outputs if f["stream"] == stream)

    async def start(self, order, catalogue=None):
        return await Runner(Discovery(BUILT_IN | (catalogue or {}))).start(
            order, self.events.append
        )

    def run(self, order, catalogue=None):
        async def go():
            attempt = await self.start(order, catalogue)
            return await attempt.wait()

        return asyncio.run(go())


def marked(assignment):
    found = {}
    for name in os.listdir("/proc"):
        if name.isdecimal():
            try:
                environ = Path(f"/proc/{name}/environ").read_bytes()
                command = Path(f"/proc/{name}/cmdline").read_bytes().replace(b"\0", b" ").decode()
            except OSError:
                continue
            if assignment.encode() in environ.split(b"\0"):
                found[int(name)] = command
    return found


def wait_until(fact, seconds=10.0):
    """Poll for a fact about other processes; they send no event that a test could wait for."""
    end = time.perf_counter() + seconds
    while not fact():
        if time.perf_counter() > end:
            return False
        time.sleep(0.02)
    return True


async def until(fact, seconds=10.0):
    return await asyncio.to_thread(wait_until, fact, seconds)
