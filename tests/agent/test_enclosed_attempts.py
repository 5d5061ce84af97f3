"""Whole attempts inside their sandbox: what they say, how they end, and that nothing is left."""

import asyncio
import os
import signal
import socket
import subprocess
import sys
import threading
from pathlib import Path

import msgspec
import pytest
from tests.agent import enclosed
from tests.agent.test_acp import catalogue
from tests.agent.world import until, wait_until
from tests.promise import proves

from muster.agent import process_tree
from muster.agent.catalogue import BUILT_IN
from muster.agent.discovery import Discovery
from muster.agent.marks import Marks
from muster.agent.process import Runner
from muster.errors import Broken

DAEMON = Path(__file__).with_name("daemon.py")
PROGRAMS = (sys.prefix, sys.base_prefix, str(Path(__file__).parent))


@pytest.fixture(autouse=True)
def _sandbox():
    enclosed.require("user")


def sandbox(world, **changes):
    """Of whoever runs the tests: of root another user."""
    home = world.cwd.parent / "home"
    home.mkdir(exist_ok=True)
    (world.cwd / ".git" / "hooks").mkdir(parents=True, exist_ok=True)
    (world.cwd / ".git" / "config").touch()
    (world.cwd / ".git" / "hooks" / "README").touch()
    user = 0
    if enclosed.is_root():
        user = enclosed.DROPPED
        os.chown(world.pids, user, user)
    given = {"program": enclosed.BWRAP, "home": str(home), "user": user}
    return {**given, "readable": PROGRAMS, "writable": [str(world.pids)], **changes}


def order(world, command, profile=None, **changes):
    return world.order(command, sandbox={**sandbox(world), **(profile or {})}, **changes)


def owners(folder):
    return {os.lstat(path).st_uid for path in [folder, *folder.rglob("*")]}


def is_as_before(world):
    """Everything is the daemon's, and nothing of what was occupied is left."""
    left = {path for path in (".mcp.json", ".vscode", ".claude") if (world.cwd / path).exists()}
    return owners(world.cwd) | owners(world.cwd.parent / "home") == {os.geteuid()} and not left


@proves("enclosure.attempts-inside")
def test_a_command_has_its_folder_its_variables_and_its_exit_code(world):
    text = 'id -u; pwd; echo "$WORD"; echo bad >&2; echo made >file; exit 3'
    outcome = world.run(order(world, text, env=world.env(WORD="a 'word' \n of $two lines")))
    assert (outcome.status, outcome.exit_code, outcome.fault) == ("failed", 3, "")
    assert world.text() == f"1000\n{world.cwd}\na 'word' \n of $two lines"
    assert world.text("stderr") == "bad"
    assert (world.cwd / "file").read_text() == "made\n"
    assert is_as_before(world)
    assert world.kinds() == ["agent.prompt", "agent.output", "agent.output", "agent.end"]


@proves("enclosure.attempts-inside")
def test_what_is_placed_and_what_is_shown_is_there_and_what_is_not_is_not(world, tmp_path):
    secret, shown = tmp_path / "secret", tmp_path / "shown"
    secret.write_text("SEED")
    shown.mkdir()
    (shown / "text").write_text("to be read")
    words = f"cat /etc/agent.json {shown}/text; cat {secret}; ls -d {tmp_path}/* | wc -l"
    profile = {"readable": [str(shown)], "placed": {"/etc/agent.json": str(secret)}}
    outcome = world.run(order(world, words, profile, shell="bash"))
    assert world.text() == "SEEDto be read"
    assert outcome.status == "failed"
    assert "No such file" in world.text("stderr")


@proves("enclosure.fails-closed")
def test_an_attempt_without_a_sandbox_is_the_machines_fault_and_never_runs(world):
    outcome = world.run(order(world, "touch ran", {"program": "/nowhere/bwrap"}))
    assert (outcome.status, outcome.fault) == ("error", "machine")
    assert "install the package bubblewrap" in outcome.summary
    assert not (world.cwd / "ran").exists()
    assert is_as_before(world)


@proves("enclosure.fails-closed")
def test_a_bubblewrap_that_ends_in_the_middle_leaves_nothing(world):
    """One that is there, makes its namespaces, and cannot put everything in."""
    profile = {"placed": {"/proc/x/y": str(world.cwd / ".git" / "config")}}
    outcome = world.run(order(world, "touch ran", profile))
    assert (outcome.status, outcome.fault) == ("error", "machine")
    assert "bwrap:" in outcome.summary
    assert not (world.cwd / "ran").exists()
    assert is_as_before(world)
    assert world.alive() == {}


@proves("enclosure.ends")
@pytest.mark.parametrize("shape", ["stays", "breeds", "stopped"])
def test_a_cancelled_attempt_leaves_no_process(world, shape):
    async def go():
        attempt = await world.start(order(world, world.stubborn(shape)))
        assert await until(lambda: world.announced() >= 4)
        attempt.cancel("changed my mind")
        return await attempt.wait()

    outcome = asyncio.run(go())
    assert (outcome.status, outcome.summary) == ("cancelled", "changed my mind")
    assert outcome.survivors == ()
    assert world.alive() == {}
    assert is_as_before(world)


@proves("enclosure.ends")
def test_what_is_inside_is_asked_before_it_is_killed(world):
    async def go():
        text = "trap 'echo bye; exit 0' TERM; echo up; while :; do sleep 0.05; done"
        attempt = await world.start(order(world, text, grace_s=20))
        assert await until(lambda: "up" in world.text())
        attempt.cancel("enough")
        return await attempt.wait()

    outcome = asyncio.run(go())
    assert outcome.status == "cancelled"
    assert world.text().split() == ["up", "bye"]


@proves("enclosure.ends")
def test_what_a_finished_command_left_in_the_background_is_ended(world):
    outcome = world.run(order(world, world.stubborn("leaves")))
    assert (outcome.status, outcome.exit_code) == ("ok", 0)
    assert world.alive() == {}


@proves("enclosure.ends")
def test_an_attempt_past_its_deadline_is_ended(world):
    outcome = world.run(order(world, world.stubborn(), timeout_s=3))
    assert outcome.status == "timeout"
    assert world.alive() == {}
    assert is_as_before(world)


def shim_of(world):
    """Above what is inside: two of bubblewrap's, whose start is above them."""
    processes, pid = process_tree.procfs_table(), min(world.alive())
    while pid > 1:
        command = Path(f"/proc/{pid}/cmdline").read_bytes()
        if b"muster.agent.shim" in command:
            return pid
        pid = processes[pid].parent
    raise AssertionError("no shim")


@proves("enclosure.ends", "enclosure.lent-folders")
def test_a_shim_that_is_killed_takes_everything_along_and_the_folders_are_taken_back(world):
    async def go():
        attempt = await world.start(order(world, f"{world.stubborn('breeds')} & touch up; wait"))
        assert await until(lambda: world.announced() >= 4)
        os.kill(shim_of(world), signal.SIGKILL)
        return await attempt.wait()

    outcome = asyncio.run(go())
    assert (outcome.status, outcome.fault) == ("error", "")
    assert wait_until(lambda: world.alive() == {})
    assert is_as_before(world)


@proves("enclosure.ends", "enclosure.lent-folders")
@pytest.mark.parametrize("kills_shim", [False, True])
def test_after_a_killed_daemon_the_next_one_finds_all_as_before(world, kills_shim):
    folder = world.cwd.parent / "marks"
    raw = msgspec.json.encode(order(world, world.stubborn(), grace_s=0.3)).decode()
    with subprocess.Popen([sys.executable, DAEMON, raw, str(folder)]) as daemon:
        assert wait_until(lambda: world.announced() >= 4, 30)
        shim = shim_of(world)
        if kills_shim:
            os.kill(shim, signal.SIGSTOP)
        daemon.kill()
    if kills_shim:
        os.kill(shim, signal.SIGKILL)
    assert Marks(folder).end_all(grace_s=10) == []
    assert wait_until(lambda: world.alive() == {})
    assert is_as_before(world)
    assert list(folder.iterdir()) == []


@proves("enclosure.listeners")
def test_the_daemon_serves_what_is_inside_over_its_own_sockets(world):
    given = {}

    def serve(sockets):
        given.update(sockets)
        for port, listening in sockets.items():
            listening.setblocking(True)
            threading.Thread(target=answer, args=(port, listening), daemon=True).start()

    def answer(port, listening):
        with listening:
            made, _ = listening.accept()
            with made:
                made.sendall(f"port {port}\n".encode())

    asks = "for port in 3128 3129; do exec 5<>/dev/tcp/127.0.0.1/$port; cat <&5; done"

    async def go():
        runner = Runner(Discovery(BUILT_IN))
        given_order = order(world, asks, {"ports": [3128, 3129]}, shell="bash")
        attempt = await runner.start(given_order, world.events.append, serve)
        assert sorted(given) == [3128, 3129], "before the command begins"
        return await attempt.wait()

    outcome = asyncio.run(go())
    assert (outcome.status, world.text()) == ("ok", "port 3128\nport 3129")
    with socket.socket() as outside, pytest.raises(ConnectionRefusedError):
        outside.connect(("127.0.0.1", 3128))


@proves("enclosure.listeners", "enclosure.fails-closed")
def test_ports_that_nobody_serves_are_refused(world):
    async def go():
        with pytest.raises(Broken, match="nobody serves"):
            await world.start(order(world, "touch ran", {"ports": [3128]}))

    asyncio.run(go())
    assert not (world.cwd / "ran").exists()


# --- agents that speak a protocol


def spoken(world, behaviour, profile=None, **changes):
    given = {**sandbox(world), **(profile or {})}
    return world.order(agent="bad", prompt="go", sandbox=given, **changes)


@proves("enclosure.attempts-inside")
def test_an_agent_over_acp_is_inside_and_its_driver_is_not(world):
    outcome = world.run(spoken(world, "words"), catalogue("words"))
    assert (outcome.status, outcome.summary) == ("ok", "The end.")
    assert is_as_before(world)
    assert world.alive() == {}


@proves("enclosure.fails-closed")
def test_an_agent_over_acp_without_a_sandbox_is_the_machines_fault(world):
    for profile in ({"program": "/nowhere/bwrap"}, {"writable": ["/nowhere"]}):
        outcome = world.run(spoken(world, "words", profile), catalogue("words"))
        assert (outcome.status, outcome.fault) == ("error", "machine")
        assert not (world.cwd / "offered").exists()
    gone = {"readable": []}
    outcome = world.run(spoken(world, "words", gone), catalogue("words"))
    if not sys.executable.startswith("/usr/"):
        assert (outcome.status, outcome.fault) == ("error", "agent")
        assert "not in the sandbox" in outcome.summary
    assert is_as_before(world)


@proves("enclosure.ends")
def test_an_agent_over_acp_that_is_cancelled_leaves_no_process(world):
    async def go():
        attempt = await world.start(spoken(world, "ignores_cancel"), catalogue("ignores_cancel"))
        assert await until(lambda: "agent.prompt" in world.kinds())
        attempt.cancel("enough")
        return await attempt.wait()

    outcome = asyncio.run(go())
    assert outcome.status == "cancelled"
    assert outcome.survivors == ()
    assert world.alive() == {}
    assert is_as_before(world)
