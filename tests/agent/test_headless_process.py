"""A headless agent as a process: what it leaves open, running or unsaid when its turn is over."""

import asyncio
import json
import sys

import pytest
from tests.agent.world import until
from tests.promise import proves

from muster.agent.catalogue import load

CLAUDE = f"""#!{sys.executable}
import json, os, signal, subprocess, sys, time
asked = sys.stdin.read()
def say(**event):
    print(json.dumps(event), flush=True)
def child(command):
    return subprocess.Popen(command, shell=True, start_new_session=True)
done = dict(type="result", subtype="success", is_error=False, usage={{"input_tokens": 7}})
tool = dict(type="assistant", message={{"content": [
    {{"type": "tool_use", "id": "1", "name": "Bash", "input": {{"command": "true"}}}}]}})
said = dict(type="assistant", message={{"content": [{{"type": "text", "text": "All done."}}]}})
"""


@pytest.fixture
def start(world, tmp_path):
    """Starts an attempt of a `claude` with this body; a coroutine function."""

    async def begin(body, **changes):
        folder = tmp_path / "bin"
        folder.mkdir()
        (folder / "claude").write_text(CLAUDE + body)
        (folder / "claude").chmod(0o755)
        env = world.env(PATH=f"{folder}:/usr/bin:/bin")
        order = world.order(agent="claude", prompt="Do it.", env=env, **changes)
        return await world.start(order, {"claude": load()["claude"]})

    return begin


def run(start, body, **changes):
    async def go():
        return await (await start(body, **changes)).wait()

    return asyncio.run(go())


@proves("agent.headless-ends")
@pytest.mark.parametrize(
    "after",
    [
        "time.sleep(97)",
        "os.close(1); os.close(2); time.sleep(97)",
        "signal.signal(signal.SIGTERM, signal.SIG_IGN); child('exec sleep 98'); time.sleep(97)",
    ],
)
def test_a_program_that_says_it_is_done_and_goes_on_is_ended_with_its_result(world, start, after):
    outcome = run(start, f"say(**said); say(**done); {after}")
    assert (outcome.status, outcome.summary) == ("ok", "All done."), outcome
    assert outcome.usage == {"input_tokens": 7}
    assert world.alive() == {}


@proves("agent.headless-ends")
def test_a_program_that_says_more_after_a_result_is_not_done_yet(world, start):
    """Its pauses are shorter than what a hanging program is given; the last word counts."""
    more = "\n".join("say(**done); time.sleep(1.5); say(**tool)" for _ in range(4))
    last = 'say(**{**said, "message": {"content": [{"type": "text", "text": "Last."}]}})'
    outcome = run(start, f"{more}\n{last}; say(**done)")
    assert (outcome.status, outcome.exit_code, outcome.summary) == ("ok", 0, "Last.")


@proves("agent.headless-ends", "agent.headless-failures")
@pytest.mark.parametrize(
    ("body", "status", "summary"),
    [
        ("say(**tool); sys.exit(0)", "error", "the agent ended in the middle (exit code 0)"),
        ("say(**tool); os.kill(os.getpid(), 9)", "error", "the agent ended in the middle (SIGKILL)"),
        ("say(**tool); time.sleep(97)", "timeout", "the attempt took longer than allowed"),
        ("say(**done); sys.exit(3)", "failed", "the agent ended badly after its turn (exit code 3)"),
    ],
)  # fmt: skip
def test_an_end_without_a_result_is_no_success_and_no_fault_of_the_machine(
    world, start, body, status, summary
):
    outcome = run(start, body, timeout_s=5)
    assert (outcome.status, outcome.summary, outcome.fault) == (status, summary, "")
    assert not outcome.logged_out
    assert world.alive() == {}


@proves("agent.headless-hostile")
def test_a_flood_of_nonsense_before_the_result_is_bounded_and_changes_nothing(world, start):
    flood = """
out = sys.stdout.buffer
for _ in range(20):
    out.write(b"\\xff\\xfe" * 500_000 + b"\\n")
out.write(b"x" * 40_000_000 + b"\\n" + b"[" * 100_000 + b"\\n" + b'{"a":' * 3000 + b"1" + b"}" * 3000 + b"\\n")
out.write(b'{"type": "of tomorrow"}\\n' * 100_000)
out.flush()
sys.stderr.write("noise " * 2_000_000)
say(**said); say(**done)
"""
    outcome = run(start, flood)
    assert (outcome.status, outcome.summary, outcome.tail) == ("ok", "All done.", "All done.")
    assert sum(len(json.dumps(e.fields)) for e in world.events) < 64 * 1024


@proves("agent.headless-ends")
@pytest.mark.parametrize("how", ["cancel", "abandon"])
@pytest.mark.parametrize("said", ["say(**tool)", "pass"])
def test_a_cancel_and_the_daemons_death_leave_no_process_of_it(world, start, how, said):
    """The daemon's death closes the pipe to the shim, which is what `abandon` does.

    Whoever is ended before its first word lacked nothing: it had no time to say it.
    """
    body = f"child('trap \"\" TERM; sleep 97'); child('setsid sleep 98'); {said}; time.sleep(99)"

    async def go():
        attempt = await start(body)
        assert await until(lambda: len(world.alive()) >= 4)
        getattr(attempt, how)(*["enough"] * (how == "cancel"))
        return await attempt.wait()

    outcome = asyncio.run(go())
    assert outcome.status in ("cancelled", "error", "failed")
    assert (outcome.fault, outcome.logged_out) == ("", False)
    assert world.alive() == {}
