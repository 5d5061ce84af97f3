"""Whoever comes after a daemon that died waits until nothing of its attempts is left."""

import asyncio
import os
import signal
import subprocess
import sys
from pathlib import Path

import msgspec
import pytest
from tests.agent.world import until, wait_until
from tests.promise import proves

from muster.agent import process_tree
from muster.agent.catalogue import BUILT_IN
from muster.agent.discovery import Discovery
from muster.agent.marks import Marks
from muster.agent.process import Runner

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="the proof reads /proc")

DAEMON = Path(__file__).with_name("daemon.py")
STUBBORN = "trap '' TERM; echo > up; while :; do sleep 0.1; done"


@pytest.fixture
def folder(tmp_path):
    return tmp_path / "attempts"


def killed_daemon(world, folder, order):
    """A daemon that is killed in the middle of an attempt."""
    raw = msgspec.json.encode(order).decode()
    with subprocess.Popen([sys.executable, DAEMON, raw, str(folder)]) as daemon:
        assert wait_until((world.cwd / "up").exists, 20)
        daemon.kill()


def test_the_mark_of_an_attempt_is_there_as_long_as_it_is(world, folder):
    async def go():
        runner = Runner(Discovery(BUILT_IN), Marks(folder))
        attempt = await runner.start(world.order("touch up; sleep 60"), world.events.append)
        assert await until((world.cwd / "up").exists)
        (mark,) = folder.iterdir()
        assert mark.read_text() == str(world.cwd)
        assert mark.stat().st_mode & 0o777 == 0o600
        attempt.cancel("seen")
        await attempt.wait()
        return await until(lambda: not list(folder.iterdir()))

    assert asyncio.run(go())


@proves("agent.over-before-the-next")
def test_after_a_killed_daemon_its_agent_is_over_before_anything_begins(world, folder):
    killed_daemon(world, folder, world.order(STUBBORN, grace_s=60))
    assert world.alive(), "its shim gives it the grace"
    assert Marks(folder).end_all(grace_s=0.1) == []
    assert world.alive() == {}
    assert list(folder.iterdir()) == []


@proves("agent.over-before-the-next")
def test_an_agent_that_obeys_has_the_time_to_clean_up(world, folder):
    obeys = "trap 'sleep 0.3; echo > cleaned; exit' TERM; echo > up; while :; do sleep 0.05; done"
    killed_daemon(world, folder, world.order(obeys, grace_s=20))
    assert Marks(folder).end_all(grace_s=20) == []
    assert (world.cwd / "cleaned").exists()
    assert world.alive() == {}


@proves("agent.over-before-the-next")
def test_what_a_killed_shim_left_is_ended_too(world, folder):
    killed_daemon(world, folder, world.order(f'setsid sh -c "{STUBBORN}" & {STUBBORN}', grace_s=60))
    shim = process_tree.procfs_table()[min(world.alive())].parent
    os.kill(shim, signal.SIGKILL)
    assert Marks(folder).end_all(grace_s=0.1) == []
    assert world.alive() == {}


@proves("agent.over-before-the-next")
def test_a_folder_whose_shim_does_not_end_is_named_and_its_mark_stays(folder):
    marks = Marks(folder)
    held = marks.put("ab" * 16, "/srv/work/t1")
    assert marks.end_all(grace_s=0.1, shim_s_max=0.2) == [Path("/srv/work/t1")]
    assert len(list(folder.iterdir())) == 1
    os.close(held)
    assert marks.end_all() == []
    assert list(folder.iterdir()) == []


def test_a_home_without_marks_is_not_waited_for(folder):
    assert Marks(folder).end_all() == []
    assert not folder.exists()
