"""Nothing outlives the daemon: proven on real process trees, looked up in /proc."""

import asyncio
import os
import signal
import subprocess
import sys
from pathlib import Path

import msgspec
import pytest
from tests.agent.world import marked, until, wait_until
from tests.promise import proves

from muster.agent import cgroup, process, process_tree

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="the proof reads /proc")

DAEMON = Path(__file__).with_name("daemon.py")


def shim_of(world):
    """The shim's pid: the process group leader above the attempt's own processes."""
    first = min(world.alive())
    return process_tree.procfs_table()[first].parent


def group_of(pid):
    """The folder of the control group that a process is in."""
    lines = Path(f"/proc/{pid}/cgroup").read_text().splitlines()
    below = next(line[3:] for line in lines if line.startswith("0::"))
    own = next(
        line[3:]
        for line in Path("/proc/self/cgroup").read_text().splitlines()
        if line.startswith("0::")
    )
    return cgroup.own_folder() + below.removeprefix(own.rstrip("/"))


@proves("agent.cancel-ends-all")
@pytest.mark.parametrize("shape", ["stays", "breeds", "stopped"])
def test_a_cancelled_attempt_leaves_no_process(world, shape):
    async def go():
        attempt = await world.start(world.order(world.stubborn(shape)))
        assert await until(lambda: world.announced() >= 4)
        assert len(world.alive()) >= 4
        attempt.cancel("changed my mind")
        return await attempt.wait()

    outcome = asyncio.run(go())
    assert (outcome.status, outcome.summary) == ("cancelled", "changed my mind")
    assert outcome.survivors == ()
    assert world.alive() == {}


@proves("agent.done-ends-all")
def test_what_a_finished_command_left_in_the_background_is_ended(world):
    outcome = world.run(world.order(world.stubborn("leaves")))
    assert (outcome.status, outcome.exit_code) == ("ok", 0)
    assert world.announced() == 3
    assert world.alive() == {}


@proves("agent.deadline")
def test_an_attempt_past_its_deadline_is_ended_by_the_shim(world):
    outcome = world.run(world.order(world.stubborn(), timeout_s=1.5))
    assert outcome.status == "timeout"
    assert world.announced() == 4
    assert world.alive() == {}


@proves("agent.dies-with-daemon")
@pytest.mark.parametrize("shape", ["stays", "breeds"])
def test_a_daemon_killed_with_kill_9_takes_its_attempts_with_it(world, shape):
    order = world.order(world.stubborn(shape))
    raw = msgspec.json.encode(order).decode()
    with subprocess.Popen([sys.executable, DAEMON, raw]) as daemon:
        assert wait_until(lambda: world.announced() >= 4)
        shim = shim_of(world)
        daemon.kill()
    assert wait_until(lambda: not world.alive() and shim not in process_tree.procfs_table())


@proves("agent.dies-with-daemon")
@pytest.mark.parametrize("signum", [signal.SIGTERM, signal.SIGHUP, signal.SIGINT])
def test_a_shim_told_to_end_ends_everything_first(world, signum):
    async def go():
        attempt = await world.start(world.order(world.stubborn()))
        assert await until(lambda: world.announced() >= 4)
        os.kill(shim_of(world), signum)
        return await attempt.wait()

    outcome = asyncio.run(go())
    assert outcome.status == "cancelled"
    assert world.alive() == {}


@proves("agent.shim-death")
@pytest.mark.parametrize(("number", "says"), [(9, "SIGKILL"), (40, "signal 40")])
def test_a_shim_that_is_killed_gives_an_error_and_leaves_no_process(world, number, says):
    async def go():
        attempt = await world.start(world.order(world.stubborn()))
        assert await until(lambda: world.announced() >= 4)
        os.kill(shim_of(world), number)
        return await attempt.wait()

    outcome = asyncio.run(go())
    assert outcome.status == "error"
    assert f"({says})" in outcome.summary
    assert wait_until(lambda: world.alive() == {})


@proves("agent.ends-its-shim")
@pytest.mark.parametrize("wait", ["", "sleep 0.3; "])
def test_a_command_that_kills_its_shim_is_no_fault_of_the_machine(world, wait):
    outcome = world.run(world.order(f"{wait}kill -9 $PPID; sleep 60"))
    assert (outcome.status, outcome.fault) == ("error", "")
    assert "SIGKILL" in outcome.summary
    assert wait_until(lambda: world.alive() == {})


@proves("agent.ends-its-shim")
def test_a_command_that_stops_its_shim_is_ended_at_its_deadline(world, monkeypatch):
    monkeypatch.setattr(process, "OBEY_SLACK_S", 0.5)
    outcome = world.run(world.order("kill -STOP $PPID; sleep 60", timeout_s=1, grace_s=0.1))
    assert (outcome.status, outcome.fault) == ("error", "")
    assert wait_until(lambda: world.alive() == {})


@proves("agent.ends-its-shim")
def test_a_stopped_shim_that_is_told_to_end_is_ended(world, monkeypatch):
    monkeypatch.setattr(process, "OBEY_SLACK_S", 0.5)

    async def go():
        stops = "kill -STOP $PPID; touch here; sleep 600"
        order = world.order(stops, grace_s=0.1, timeout_s=600)
        attempt = await world.start(order)
        assert await until((world.cwd / "here").exists)
        attempt.cancel("changed my mind")
        async with asyncio.timeout(20):
            return await attempt.wait()

    assert asyncio.run(go()).status == "error"
    assert wait_until(lambda: world.alive() == {})


@pytest.mark.skipif(not os.access(cgroup.own_folder(), os.W_OK), reason="no writable cgroup v2")
@proves("agent.shim-death")
def test_a_process_without_marker_and_parent_is_found_by_its_group(world):
    """The shim is killed; its processes left their parents and cleared their environment."""

    def living():
        return {int(file.name) for file in world.pids.iterdir()} & set(process_tree.procfs_table())

    async def go():
        command = world.stubborn().replace("exec", "exec env -i")
        attempt = await world.start(world.order(command))
        assert await until(lambda: world.announced() >= 4)
        assert world.alive() == {}
        assert len(living()) == 4
        first = min(living())
        world.group = group_of(first)
        os.kill(process_tree.procfs_table()[first].parent, signal.SIGKILL)
        return await attempt.wait()

    assert asyncio.run(go()).status == "error"
    assert wait_until(lambda: living() == set())
    assert not Path(world.group).exists()


@pytest.mark.skipif(not os.access(cgroup.own_folder(), os.W_OK), reason="no writable cgroup v2")
@proves("agent.cancel-ends-all")
def test_the_group_of_an_attempt_is_removed_with_it(world):
    async def go():
        attempt = await world.start(world.order("echo up; read line || sleep 60"))
        assert await until(lambda: "agent.output" in world.kinds())
        group = group_of(min(world.alive()))
        assert cgroup.Group(group).members() >= set(world.alive())
        attempt.cancel("seen")
        await attempt.wait()
        return group

    group = Path(asyncio.run(go()))
    assert group.name.startswith(cgroup.PREFIX)
    assert not group.exists()


@proves("agent.cancel-ends-all")
def test_a_command_gets_the_time_to_clean_up_before_it_is_killed(world):
    command = (
        "trap 'echo cleaned > cleaned; exit 0' TERM; echo up; while :; do sleep 0.05 || true; done"
    )

    async def go():
        attempt = await world.start(world.order(command, grace_s=5))
        assert await until(lambda: "agent.output" in world.kinds())
        attempt.cancel("stop")
        return await attempt.wait()

    assert asyncio.run(go()).status == "cancelled"
    assert (world.cwd / "cleaned").read_text() == "cleaned\n"


@proves("agent.slow-reader")
def test_a_daemon_that_does_not_read_delays_output_but_not_the_deadline(world):
    order = world.order("yes 0123456789012345678901234567890123456789", timeout_s=0.7)
    message = msgspec.to_builtins(order) | {"driver": "shell"}
    boot = "import sys; sys.path.insert(0, sys.argv.pop(1)); from muster.agent.shim import main; main()"
    root = Path(process_tree.__file__).parents[2]
    argv = [sys.executable, "-I", "-S", "-c", boot, str(root)]
    with subprocess.Popen(argv, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as shim:
        shim.stdin.write(msgspec.json.encode(message) + b"\n")
        shim.stdin.flush()
        assert wait_until(lambda: len(world.alive()) > 0)
        assert wait_until(lambda: world.alive() == {}, 5)
        last = shim.stdout.read().splitlines()[-1]
    assert msgspec.json.decode(last)["outcome"]["status"] == "timeout"


@proves("agent.no-subreaper")
def test_without_a_subreaper_what_shares_a_remembered_group_is_found(world):
    """Drawn for macOS: the parent is gone, the process group remains."""
    brood = process_tree.ProcessTree(subreaper=False)
    command = "sleep 60 & echo up"
    with subprocess.Popen(
        ["/bin/sh", "-c", f"{command}; read line"],
        env=world.env(),
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        start_new_session=True,
    ) as parent:
        parent.stdout.readline()
        assert set(world.alive()) <= brood.look()
    orphan = set(world.alive())
    assert len(orphan) == 1
    assert orphan <= brood.look()
    process_tree.send(orphan, signal.SIGKILL)
    assert wait_until(lambda: world.alive() == {})


@proves("agent.no-subreaper")
@pytest.mark.parametrize(
    ("command", "status"),
    [("sleep 60 & sleep 60 & exit 0", "ok"), ("setsid sleep 60 & sleep 60", "timeout")],
)
def test_a_shim_without_subreaper_and_group_still_ends_what_it_saw(world, command, status):
    """As on macOS: parent links and process groups are all there is."""
    order = world.order(command, timeout_s=1.5)
    message = msgspec.to_builtins(order) | {"driver": "shell"}
    boot = (
        "import sys; sys.path.insert(0, sys.argv.pop(1)); from muster.agent import shim; "
        "from muster.agent import process_tree; "
        "process_tree.prctl = lambda *_: False; shim.main()"
    )
    argv = [sys.executable, "-I", "-S", "-c", boot, str(Path(process_tree.__file__).parents[2])]
    with subprocess.Popen(argv, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as shim:
        shim.stdin.write(msgspec.json.encode(message) + b"\n")
        shim.stdin.flush()
        lines = [msgspec.json.decode(line) for line in shim.stdout]
    assert lines[0] == {"begun": True}
    assert lines[1]["ready"]["subreaper"] is False
    assert lines[-1]["outcome"]["status"] == status
    assert world.alive() == {}


@proves("agent.journal-bounded")
def test_the_shim_tells_no_more_events_than_a_journal_could_hold(world):
    message = msgspec.to_builtins(world.order("yes | head -c 200000")) | {"driver": "shell"}
    boot = (
        "import sys; sys.path.insert(0, sys.argv.pop(1)); from muster.agent import shim; "
        "shim.EVENTS_MAX = 3; shim.main()"
    )
    argv = [sys.executable, "-I", "-S", "-c", boot, str(Path(process_tree.__file__).parents[2])]
    given = msgspec.json.encode(message) + b"\n"
    with subprocess.Popen(argv, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as shim:
        shim.stdin.write(given)
        shim.stdin.flush()
        lines = [msgspec.json.decode(line) for line in shim.stdout]
    told = [line["event"][0] for line in lines if "event" in line]
    assert told == ["agent.prompt", "agent.output", "agent.output", "agent.end"]
    assert lines[-1]["outcome"]["said_bytes"] == 200_000


@proves("agent.no-subreaper")
def test_the_ps_table_and_the_proc_table_agree():
    own = os.getpid()
    by_ps, by_proc = process_tree.ps_table()[own], process_tree.procfs_table()[own]
    assert (by_ps.parent, by_ps.group) == (by_proc.parent, by_proc.group)


@proves("agent.shim-death")
def test_a_sweep_kills_only_what_carries_the_marker(world):
    other = {"PATH": os.environ["PATH"], process_tree.MARKER: world.mark + "x"}
    mine = {"PATH": os.environ["PATH"], process_tree.MARKER: world.mark}
    with (
        subprocess.Popen(["sleep", "60"], env=mine) as doomed,
        subprocess.Popen(["sleep", "60"], env=other) as spared,
    ):
        assert wait_until(lambda: len(marked(f"{process_tree.MARKER}={world.mark}")) == 1)
        process_tree.sweep(world.mark)
        assert doomed.wait() == -signal.SIGKILL
        assert spared.poll() is None
        spared.kill()
