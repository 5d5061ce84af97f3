"""Plain commands and the empty agent, seen from the daemon."""

import asyncio
import os
import subprocess
import sys
from pathlib import Path

import msgspec
import pytest
import uvloop
from tests.agent.world import until
from tests.promise import proves

from muster.agent import process_tree
from muster.agent.base import environment
from muster.agent.catalogue import BUILT_IN
from muster.agent.discovery import Discovery
from muster.agent.lines import ORDER_BYTES_MAX
from muster.agent.process import Runner
from muster.errors import Malformed, NotFound
from muster.limits import BODY_BYTES_MAX


@proves("health.detectors")
@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")
def test_how_busy_a_tree_was_counts_who_is_in_it_and_who_was():
    before = process_tree.cpu_ms(os.getpid())
    burn = "import time\nwhile time.process_time() < 0.3: pass"
    subprocess.run([sys.executable, "-c", burn], check=True)
    assert process_tree.cpu_ms(os.getpid()) - before >= 250
    assert process_tree.cpu_ms(2**22 + 1) is None


@proves("agent.shell")
@pytest.mark.parametrize(
    ("command", "status", "code"),
    [("true", "ok", 0), ("exit 7", "failed", 7), ("kill -9 $$", "failed", -9)],
)
def test_the_exit_code_of_a_command_is_its_outcome(world, command, status, code):
    outcome = world.run(world.order(command))
    assert (outcome.status, outcome.exit_code) == (status, code)
    assert world.events[-1].fields == {"stop": "done", "status": status, "exit_code": code}


@proves("agent.shell")
def test_a_command_runs_in_its_folder_and_its_lines_become_events(world):
    outcome = world.run(world.order("pwd; echo two; echo three >&2; printf four"))
    assert world.kinds()[0] == "agent.prompt"
    assert world.kinds()[-1] == "agent.end"
    assert world.text() == f"{world.cwd}\ntwo\nfour"
    assert world.text("stderr") == "three"
    assert "four" in outcome.tail


@proves("agent.shell-stops")
@pytest.mark.parametrize(
    ("shell", "command", "status"),
    [
        ("sh", "false\necho x > out", "failed"),
        ("sh", "false | true\necho x > out", "ok"),
        ("sh", "false || true\necho x > out", "ok"),
        ("sh", "set +e\nfalse\necho x > out", "ok"),
        ("bash", "false\necho x > out", "failed"),
        ("bash", "false | true\necho x > out", "failed"),
        ("bash", "[[ a == a ]]\necho x > out", "ok"),
    ],
)
def test_the_first_line_that_fails_ends_a_command(world, shell, command, status):
    assert world.run(world.order(command, shell=shell)).status == status
    assert (world.cwd / "out").exists() == (status == "ok")


@proves("agent.shell-only")
@pytest.mark.parametrize("shell", ["sh", "bash"])
def test_a_variable_of_the_shell_alone_is_handed_on_to_nothing_that_it_starts(world, shell):
    tell = """\
printf '%s|' "$PLACE" "$#"
env | grep PLACE || true
sh -c 'printf "%s" "${PLACE-nothing}"'
no-such-program"""
    order = world.order(tell, shell=shell, shell_only=("PLACE",), env=world.env(PLACE="a '$b\" c"))
    assert world.run(order).status == "failed"
    assert world.text() == "a '$b\" c|0|nothing"
    # The lines of the command have the numbers that they have in the spec.
    assert "line 4:" in world.text("stderr") or ": 4:" in world.text("stderr")
    prompt = next(event for event in world.events if event.kind == "agent.prompt")
    assert prompt.fields["text"] == tell


@proves("agent.shell-values")
def test_a_value_reaches_a_command_as_a_variable_and_never_as_source(world):
    hostile = "$(touch hacked); `touch hacked`; ' \" ; touch hacked"
    order = world.order('printf "%s" "$VALUE"', env=world.env(VALUE=hostile))
    assert world.run(order).status == "ok"
    assert world.text() == hostile
    assert list(world.cwd.iterdir()) == []


@proves("agent.environment")
def test_an_attempt_sees_its_own_environment_and_none_of_the_daemons(world, monkeypatch):
    monkeypatch.setenv("SECRET_OF_THE_DAEMON", "x")
    world.run(world.order("env"))
    names = {line.partition("=")[0] for line in world.text().splitlines()}
    assert "SECRET_OF_THE_DAEMON" not in names
    own = {"MUSTER_TASK", "MUSTER_EPOCH", "MUSTER_ATTEMPT", "MUSTER_TEST_MARK"}
    added_by_sh = {"PWD", "OLDPWD", "SHLVL", "_"}
    assert own <= names <= own | set(environment({})) | set(world.env()) | added_by_sh


@proves("agent.secrets-masked")
def test_a_secret_is_cut_by_nothing_that_is_written_down(world):
    secret = "tok-" + "A1b2C3d4E5" * 4
    command = 'printf %s "$A"; head -c 4080 /dev/zero | tr \'\\0\' y; printf %s "${A%??????}" >&2'
    command += "; head -c 8170 /dev/zero | tr '\\0' z; echo \"$A\""
    order = world.order(command, env=world.env(A=secret), secrets={"A": secret})
    outcome = world.run(order)
    said = repr([e.fields for e in world.events]) + outcome.summary + outcome.tail
    assert outcome.masked == ("A",)
    assert not [at for at in range(len(secret) - 8) if secret[at : at + 8] in said]


@proves("agent.secrets-masked")
def test_a_secret_that_comes_slowly_and_line_by_line_is_hidden(world):
    key = "\n".join(f"MIIEvQIBADANBgkqhki{n}ggSjAgEAAoIBAQ" for n in range(3))
    command = 'printf \'%s\\n\' "$K" | while read -r line; do printf %s "${line%ggSj*}"; sleep 0.3; echo "ggSj${line#*ggSj}"; done'
    outcome = world.run(world.order(command, env=world.env(K=key), secrets={"K": key}))
    assert set(world.text().splitlines()) == {"[K]"}
    assert set(outcome.tail.splitlines()) == {"[K]"}


@proves("agent.environment")
def test_the_path_is_the_persons_and_our_own_environment_comes_last(tmp_path, monkeypatch):
    own = tmp_path / "venv" / "bin"
    own.mkdir(parents=True)
    (tmp_path / "link").symlink_to(own)
    monkeypatch.setattr(sys, "executable", str(own / "python"))
    monkeypatch.setattr(sys, "prefix", str(own.parent))
    for ours in (own, tmp_path / "link"):
        found = environment({"PATH": f"{ours}:/usr/bin::/bin:{ours}"})["PATH"]
        assert found == f"/usr/bin::/bin:{ours}"
    assert environment({"PATH": "/usr/bin:/bin"})["PATH"] == "/usr/bin:/bin"
    monkeypatch.setattr(sys, "prefix", sys.base_prefix)
    assert environment({"PATH": f"{own}:/bin"})["PATH"] == f"{own}:/bin"


@proves("agent.environment")
def test_nothing_of_the_daemon_but_what_finds_its_way_reaches_an_attempt():
    daemon = {
        "MUSTER_READY_FD": "7",
        "MUSTER_HOME": "/h",
        "VIRTUAL_ENV": "/v",
        "PYTHONPATH": "/p",
        "GIT_DIR": "/g",
        "LD_PRELOAD": "x",
        "HOME": "/home/me",
        "NOTIFY_SOCKET": "/n",
    }
    assert environment(daemon) == {"LANG": "C.UTF-8", "TERM": "dumb", "HOME": "/home/me"}


@proves("agent.bounded-output")
def test_a_huge_line_is_cut_with_a_mark(world):
    world.run(world.order("head -c 3000000 /dev/zero | tr '\\0' x; echo; echo after"))
    assert "bytes cut]" in world.text()
    assert world.text().endswith("after")
    assert max(len(e.fields.get("text", "")) for e in world.events) < 20_000


@proves("agent.bounded-output")
def test_output_beyond_the_limit_is_dropped_but_its_end_is_kept(world):
    outcome = world.run(world.order("yes 0123456789 | head -c 9000000; echo; echo the end"))
    assert outcome.status == "ok"
    assert 4_000_000 < len(world.text()) < 4_300_000
    assert "output limit reached" in world.text()
    assert outcome.tail.endswith("the end\n")
    assert outcome.summary == "the end"


@proves("agent.bounded-output")
def test_bytes_that_are_not_text_do_not_stop_an_attempt(world):
    outcome = world.run(world.order("printf '\\377\\000\\033[31mred\\n'"))
    assert outcome.status == "ok"
    assert world.text().endswith("[31mred")


@proves("agent.live-output")
def test_output_arrives_while_the_command_still_runs(world):
    async def go():
        seen = asyncio.Event()
        world.events = _Noticing(seen)
        attempt = await world.start(world.order("echo early; sleep 20"))
        async with asyncio.timeout(10):
            await seen.wait()
        attempt.cancel("seen enough")
        return await attempt.wait()

    assert asyncio.run(go()).status == "cancelled"


class _Noticing(list):
    def __init__(self, seen):
        super().__init__()
        self._seen = seen

    def append(self, event):
        super().append(event)
        if event.kind == "agent.output":
            self._seen.set()


@proves("agent.start-errors")
def test_a_folder_that_is_not_there_gives_an_error_that_names_it(world):
    outcome = world.run(world.order("true", cwd=str(world.cwd / "absent")))
    assert outcome.status == "error"
    assert "absent" in outcome.summary


@proves("agent.start-errors")
def test_an_agent_that_is_not_in_the_catalogue_is_refused_and_nothing_starts(world):
    with pytest.raises(NotFound, match="it knows"):
        world.run(world.order(agent="nobody", prompt="hello"))
    assert world.events == []
    assert world.alive() == {}


@proves("agent.one-outcome")
def test_cancel_after_the_end_changes_nothing(world):
    async def go():
        attempt = await world.start(world.order("exit 3"))
        first = await attempt.wait()
        attempt.cancel("too late")
        attempt.answer("nothing", "allow")
        return first, await attempt.wait()

    first, second = asyncio.run(go())
    assert first == second
    assert first.status == "failed"


@proves("agent.one-outcome")
def test_two_waiting_for_one_attempt_get_the_same_outcome(world):
    async def go():
        attempt = await world.start(world.order("echo done"))
        return await asyncio.gather(attempt.wait(), attempt.wait())

    first, second = asyncio.run(go())
    assert first is second


@proves("agent.one-outcome")
def test_a_waiter_that_gives_up_does_not_end_the_attempt(world):
    async def go():
        attempt = await world.start(world.order("read line || true; sleep 0.2; echo survived"))
        waiting = asyncio.create_task(attempt.wait())
        await asyncio.sleep(0)
        waiting.cancel()
        return await attempt.wait()

    assert asyncio.run(go()).summary == "survived"


@proves("agent.bounded-output")
def test_every_event_fits_into_an_entry_whatever_the_bytes_are(world):
    world.run(world.order("head -c 200000 /dev/zero; head -c 200000 /dev/zero | tr '\\0' '\\n'"))
    sizes = [len(msgspec.json.encode(event.fields)) for event in world.events]
    assert max(sizes) < BODY_BYTES_MAX


@proves("agent.start-errors")
def test_an_order_that_is_too_large_is_refused_and_nothing_starts(world):
    with pytest.raises(Malformed, match="put long texts into a file"):
        world.run(world.order("true", env=world.env(LONG="x" * ORDER_BYTES_MAX)))
    assert world.events == []
    assert world.alive() == {}


@proves("agent.dies-with-daemon")
def test_an_event_handler_that_fails_ends_the_attempt(world):
    def fail(_event):
        raise ZeroDivisionError

    async def go():
        order = world.order("echo one; sleep 60")
        attempt = await Runner(Discovery(BUILT_IN)).start(order, fail)
        with pytest.raises(ZeroDivisionError):
            await attempt.wait()
        assert await until(lambda: world.alive() == {})

    asyncio.run(go())


@proves("agent.dies-with-daemon")
def test_a_start_that_is_given_up_leaves_no_process(world):
    # Whatever another test of this process left running is not ours.
    before = children().keys()

    async def give_up_after(turns):
        starting = asyncio.create_task(world.start(world.order("sleep 60")))
        for _ in range(turns):
            await asyncio.sleep(0)
        starting.cancel()
        with pytest.raises(asyncio.CancelledError):
            await starting
        assert {pid: what for pid, what in children().items() if pid not in before} == {}

    # At every point of the start: before, while and after the process appears.
    for turns in (0, 1, 2, 3, 5, 8, 13, 40):
        asyncio.run(give_up_after(turns))
    assert world.alive() == {}


def children():
    """Living child processes of this test."""
    below = process_tree.descendants(os.getpid(), process_tree.procfs_table())
    return {pid: Path(f"/proc/{pid}/cmdline").read_text() for pid in below}


@proves("agent.one-outcome")
def test_fifty_attempts_at_once_all_end_with_their_own_outcome(world):
    async def one(number):
        attempt = await Runner(Discovery(BUILT_IN)).start(
            world.order(f"exit {number}"), lambda _event: None
        )
        return (await attempt.wait()).exit_code

    async def go():
        return await asyncio.gather(*(one(number) for number in range(50)))

    assert asyncio.run(go()) == list(range(50))


@proves("agent.one-outcome")
def test_attempts_run_under_uvloop_as_well(world):
    async def go():
        return await (await world.start(world.order("echo fast; sleep 0.1 & exit 4"))).wait()

    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        assert runner.run(go()).exit_code == 4
    assert world.text() == "fast"
