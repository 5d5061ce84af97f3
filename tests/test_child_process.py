"""A program that we started leaves nothing open in us, whoever else holds its pipes."""

import asyncio
import os
import signal
from pathlib import Path

import pytest
import uvloop

from muster import child_process
from tests.promise import proves

ROOT = Path(__file__).parents[1]
# It leaves somebody in another session who has its pipes, and tells their number.
LEAVES = "setsid sh -c 'echo $$; exec sleep 97' & exec sleep 98"


def opened():
    return {
        n: os.readlink(f"/proc/self/fd/{n}") for n in os.listdir("/proc/self/fd") if _is_pipe(n)
    }


def _is_pipe(number):
    try:
        link = os.readlink(f"/proc/self/fd/{number}")
    except OSError:
        return False
    return link.startswith(("pipe:", "socket:"))


def state(pid):
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
    except OSError:
        return ""


async def held(after):
    """Start one that leaves somebody with its pipes, and be done with it."""
    before = opened()
    process = await child_process.start(
        *("/bin/sh", "-c", LEAVES), stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.PIPE
    )
    assert process.stdout is not None
    left = int(await process.stdout.readline())
    try:
        await after(process)
        assert state(process.pid) in ("", "Z")
        assert state(left) not in ("", "Z"), "whoever is in another session is not ours to end"
        return {n: link for n, link in opened().items() if before.get(n) != link}
    finally:
        os.kill(left, signal.SIGKILL)


async def ended(process):
    await process.end()


async def closed(process):
    process.kill()
    await process.wait()
    await process.close()


@proves("tidy.nothing-left-open")
@pytest.mark.parametrize("loop", [asyncio.new_event_loop, uvloop.new_event_loop])
@pytest.mark.parametrize("after", [ended, closed])
def test_pipes_that_a_grandchild_holds_are_closed_in_us(loop, after):
    with asyncio.Runner(loop_factory=loop) as runner:
        assert runner.run(held(after)) == {}


@proves("tidy.nothing-left-open")
def test_the_group_of_a_program_that_ended_by_itself_ends_with_it():
    async def run():
        process = await child_process.start(
            *("/bin/sh", "-c", "sleep 97 & echo $!"), stdout=asyncio.subprocess.PIPE
        )
        assert process.stdout is not None
        child = int(await process.stdout.readline())
        assert await process.wait() == 0
        await process.end()
        await process.end()
        for _ in range(500):
            if state(child) in ("", "Z"):
                return True
            await asyncio.sleep(0.01)
        return False

    assert asyncio.run(run())


@proves("tidy.nothing-left-open")
def test_whoever_reads_the_pipes_of_a_program_starts_it_so():
    source = ROOT / "src" / "muster"
    texts = {str(p.relative_to(source)): p.read_text("utf-8") for p in source.rglob("*.py")}
    reads = {
        name
        for name, text in texts.items()
        if "create_subprocess_exec(" in text and "subprocess.PIPE" in text
    }
    # The process in which it runs ends with the program.
    assert reads == {str(Path("agent", "acp_program.py"))}
