"""What a person waits for, and what an idle machine costs.

`muster --version`, `muster status` and `muster send`, which signs, are started as programs, fifteen
times or more, with a daemon running; a bare `python -c pass` beside them shows what is not ours. So
is the hook of an agent program, as it is after each use of a tool. The processor time stands beside
the wall time: other load only adds to the second. The daemon's resident memory is read after a
minute of idling with one link up (the short form waits ten seconds).
"""

import asyncio
import os
import resource
import subprocess
import sys
import time
from pathlib import Path

from bench.figure import Figure, p50
from bench.fleet import Fleet
from muster.agent.plugin import hook


def command() -> list[str]:
    installed = Path(sys.executable).parent / "muster"
    return [str(installed)] if installed.exists() else [sys.executable, "-m", "muster"]


# What a program tells its hook after the use of a tool.
SAID = (
    b'{"session_id":"0a1b","cwd":"/tmp","hook_event_name":"PostToolUse","tool_name":"Edit",'
    b'"tool_input":{"file_path":"/tmp/a"},"tool_response":"' + 4_000 * b"x" + b'"}'
)


class Spent:
    """What a program takes, started again and again: wall and processor milliseconds."""

    def __init__(
        self, words: list[str], env: dict[str, str], count: int, said: bytes = b""
    ) -> None:
        self.wall_ms: list[float] = []
        before = _children_s()
        for _ in range(count):
            start = time.perf_counter()
            subprocess.run(words, env=env, check=True, stdout=subprocess.DEVNULL, input=said)
            self.wall_ms.append((time.perf_counter() - start) * 1000)
        self.cpu_ms = (_children_s() - before) / count * 1000

    @property
    def p50(self) -> float:
        return p50(self.wall_ms)


def _children_s() -> float:
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime


def resident_mib(pid: int) -> float:
    text = Path(f"/proc/{pid}/status").read_text()
    line = next(line for line in text.splitlines() if line.startswith("VmRSS"))
    return int(line.split()[1]) / 1024


async def run(*, short: bool) -> list[Figure]:
    count, idle_s = (15, 10) if short else (60, 60)
    with Fleet(2) as fleet:
        caller = await fleet.caller()
        caller.close()
        began = time.monotonic()
        env = {**os.environ, "MUSTER_HOME": str(fleet.home(0).path)}
        env["MUSTER_STATE"] = str(fleet.folder / "state")
        home = fleet.home(0)
        home.put_seed("operator.seed", fleet.operator_seed)
        version = Spent([*command(), "--version"], env, count)
        status = Spent([*command(), "status"], env, count)
        sent = Spent([*command(), "send", "m1", "hello"], env, count)
        bare = Spent([sys.executable, "-c", "pass"], env, count)
        script = fleet.folder / "hook.py"
        script.write_text(hook.script("claude", home.socket))
        hooked = Spent([sys.executable, "-I", "-S", str(script)], env, count, SAID)
        await asyncio.sleep(max(0.0, idle_s - (time.monotonic() - began)))
        size = resident_mib(fleet.daemons[0].pid)
    python = f"python -c pass {bare.p50:.0f} ms, CPU {bare.cpu_ms:.0f}"
    return [
        *(
            Figure(
                f"muster {name}, p50",
                found.p50,
                promise,
                f"CPU {found.cpu_ms:.0f} ms; {python}",
                unit="ms",
            )
            for name, found, promise in (
                ("--version", version, 100),
                ("status", status, 100),
                ("send", sent, 80),
            )
        ),
        Figure(
            "a hook / bare Python",
            hooked.p50 / bare.p50,
            1.5,
            f"{hooked.p50:.1f} ms, CPU {hooked.cpu_ms:.0f}; {python}",
        ),
        Figure("idle daemon, resident", size, 80, f"after {idle_s} s", unit="MiB"),
    ]
