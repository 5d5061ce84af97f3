"""What each of the six agent programs does in each mode, tried with the real programs.

    python -m tests.e2e.matrix [AGENT …]      every cell by itself, and a table of what came of it

The cells are functions of a stage: each raises where a promise is broken, and gives "" or the
reason why the program cannot do it in this mode. What a machine does with them between its daemons
(the push of the commit, a restart in the middle) is in test_agent_fleet.py, which the command runs
as well. CI runs the same cells, several in one turn of an agent (test_agent_matrix.py).

Needs the programs (tests/e2e/install_agents.py) and nothing else: no credential, no network.
"""

import asyncio
import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from muster.agent.policy import ASK, Policy
from muster.errors import Broken
from tests.agent.world import marked, until
from tests.e2e import agents, install_agents
from tests.e2e.stage import ALL, Stage

MODES = ("acp", "headless")
SLEEPER = "import signal, time; signal.signal(signal.SIGTERM, signal.SIG_IGN); time.sleep(97)"
# Copilot refuses a command that names a program by its path.
SLEEPS = f"setsid python3 -c '{SLEEPER}' & python3 -c '{SLEEPER}'"
ASKS = Policy({"execute": ASK})
ASKS_NOBODY = "its headless mode asks nobody: what it may do stands in its arguments"
SAYS_NO_TOKENS = "it says no tokens in this mode"

# What is tried with the programs beside the cells, in its long form.
DEEP = ("agent_fleet", "real_agents", "headless_agents", "live_sessions", "mcp_servers")


def told(stage: Stage) -> str:
    return json.dumps([[event.kind, event.fields] for event in stage.events], indent=1)


def outside_of(stage: Stage) -> Path:
    """A file beside the work folder, and not below /tmp, which Codex's sandbox lets be written."""
    return Path("/var/tmp") / f"muster-{stage.mark.partition('=')[2]}-{stage.name}.txt"


async def asked(stage: Stage, *answers: bool, steps: tuple[dict[str, Any], ...]) -> Any:
    """The outcome of these steps, where a person answers each command in turn."""
    attempt = await stage.start(stage.order(*steps, policy=ASKS))
    for number, answer in enumerate(answers):
        assert await until(lambda n=number: len(stage.fields("agent.ask")) > n, 60), told(stage)
        await stage.answer(attempt, stage.fields("agent.ask")[number], allow=answer)
    return await attempt.wait()


def write(stage: Stage) -> str:
    """It writes a file and runs a command.

    The command changes something: Codex tells of one that only looks (`ls`) as of a file it read.
    """
    target = stage.tree / "hello.txt"
    write = {"tool": "write", "path": str(target), "content": "hello\n"}
    ran = {"tool": "shell", "command": "ls -1 && touch ran"}
    outcome = stage.run(stage.order(write, ran, {"text": "It is written."}))
    assert (outcome.status, outcome.summary) == ("ok", "It is written."), (outcome, told(stage))
    assert target.read_text().strip() == "hello"
    assert (stage.tree / "ran").exists(), told(stage)
    looked_at(stage, outcome)
    return ""


def looked_at(stage: Stage, outcome: Any, *, words: bool = True) -> None:
    """Whether the journal tells what was done, in the same words for each program and mode.

    opencode and Qwen Code end their turn without a word where a person said no.
    """
    kinds = [event.kind for event in stage.events]
    assert (kinds[0], kinds[-1]) == ("agent.prompt", "agent.end"), kinds
    assert ("agent.output" in kinds) or not words, told(stage)
    done = [f for f in stage.fields("agent.tool") if f.get("status") == "completed"]
    assert [f for f in done if f["kind"] == "execute"], told(stage)
    if not tokens_unsaid(stage):
        assert outcome.usage["input_tokens"] >= 10, (outcome, told(stage))
        assert outcome.usage["output_tokens"] >= 5, (outcome, told(stage))
    models = [name for f in stage.fields("agent.usage") for name in f.get("models", ())]
    assert bool(models) != names_no_model(stage), told(stage)


def tokens_unsaid(stage: Stage) -> str:
    return SAYS_NO_TOKENS if stage.name == "copilot" and stage.headless else ""


def names_no_model(stage: Stage) -> bool:
    unnamed = {"codex", "opencode"} if stage.headless else {"copilot"}
    return stage.name in unnamed


def allow(stage: Stage) -> str:
    """A person is asked, says yes, and it happens."""
    if stage.headless:
        return _asks_nobody(stage)
    asyncio.run(asked(stage, True, steps=(stage.shell("touch asked"), {"text": "done"})))
    decided = [(d["answer"], d["by"]) for d in stage.fields("agent.decision")]
    assert decided == [("allow", "person")], told(stage)
    assert (stage.tree / "asked").exists()
    return ""


def deny(stage: Stage) -> str:
    """A person is asked, says no, and it does not happen; headless it refuses by itself."""
    if not stage.headless:
        asyncio.run(asked(stage, False, steps=(stage.shell("touch asked"), {"text": "done"})))
        decided = [(d["answer"], d["by"]) for d in stage.fields("agent.decision")]
        assert decided == [("deny", "person")], told(stage)
        assert not (stage.tree / "asked").exists()
        return ""
    outside = outside_of(stage)
    step = {"tool": "write", "path": str(outside), "content": "no\n"}
    stage.run(stage.order(step, {"text": "Tried."}))
    there = outside.exists()
    outside.unlink(missing_ok=True)
    assert not there, told(stage)
    return _asks_nobody(stage) + "; a file outside of its folder it refused by itself"


def _asks_nobody(stage: Stage) -> str:
    with pytest.raises(Broken, match="asks nobody"):
        stage.run(stage.order({"text": "done"}, policy=ASKS))
    return ASKS_NOBODY


def cancel(stage: Stage) -> str:
    """Ended in the middle of a tool that flees and ignores TERM, it leaves no process."""

    def sleepers() -> list[str]:
        return [c for c in marked(stage.mark).values() if "time.sleep(97)" in c and " -c " in c]

    async def go() -> Any:
        attempt = await stage.start(stage.order({"tool": "shell", "command": SLEEPS}))
        assert await until(lambda: len(sleepers()) >= 2, 60), told(stage)
        attempt.cancel("the person changed their mind")
        return await attempt.wait()

    outcome = asyncio.run(go())
    assert (outcome.status, outcome.summary) == ("cancelled", "the person changed their mind")
    assert marked(stage.mark) == {}
    return ""


CELLS: dict[str, Callable[[Stage], str]] = {
    "write": write,
    "allow": allow,
    "deny": deny,
    "cancel": cancel,
}


def _tried(cell: str, name: str, mode: str, url: str) -> tuple[bool, str]:
    """Whether the cell holds, and what is to be said of it."""
    with tempfile.TemporaryDirectory(prefix="muster-matrix-") as folder:
        stage = Stage(name, url, Path(folder), headless=mode == "headless")
        began = time.monotonic()
        try:
            said = CELLS[cell](stage)
        except (AssertionError, pytest.fail.Exception) as error:
            return False, f"NOT SO: {str(error)[:2000]}"
        if left := marked(stage.mark):
            return False, f"NOT SO: {left} still runs"
    return True, said or f"{time.monotonic() - began:.1f} s"


def main(names: list[str]) -> int:
    """Try every cell of these agents (all six without any); 1 where one does not hold."""
    failed = 0
    with tempfile.TemporaryDirectory() as folder, agents.scripted_model(Path(folder)) as url:
        for name in names or ALL:
            if absent := install_agents.missing(install_agents.folder(), name):
                print(f"{name:9} not installed: {', '.join(absent)}")
                failed += 1
                continue
            for mode in MODES:
                for cell in CELLS:
                    holds, said = _tried(cell, name, mode, url)
                    failed += not holds
                    print(f"{name:9} {mode:9} {cell:7} {said}", flush=True)
    here = Path(__file__).parent
    files = [str(here / f"test_{each}.py") for each in DEEP]
    env = {**os.environ, "MUSTER_AGENTS": "all"}
    tests = [sys.executable, "-m", "pytest", "-q", "-rs", *files]
    return int(bool(failed) | (subprocess.run(tests, env=env, check=False).returncode != 0))


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
