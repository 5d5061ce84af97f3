"""What a person waits for, and what an idle machine costs.

`muster --version` and `muster status` are started as programs, fifteen times or more, with a
daemon running; a bare `python -c pass` beside them shows what is not ours. The daemon's resident
memory is read after a minute of idling with one link up (the short form waits ten seconds).
"""

import asyncio
import os
import subprocess
import sys
import time
from pathlib import Path

from bench.figure import Figure, p50
from bench.fleet import Fleet


def command() -> list[str]:
    installed = Path(sys.executable).parent / "muster"
    return [str(installed)] if installed.exists() else [sys.executable, "-m", "muster"]


def timed(words: list[str], env: dict[str, str], count: int) -> list[float]:
    times = []
    for _ in range(count):
        start = time.perf_counter()
        subprocess.run(words, env=env, check=True, stdout=subprocess.DEVNULL)
        times.append((time.perf_counter() - start) * 1000)
    return times


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
        version = timed([*command(), "--version"], env, count)
        status = timed([*command(), "status"], env, count)
        bare = timed([sys.executable, "-c", "pass"], env, count)
        await asyncio.sleep(max(0.0, idle_s - (time.monotonic() - began)))
        size = resident_mib(fleet.daemons[0].pid)
    python = f"python -c pass {p50(bare):.0f} ms"
    return [
        Figure("muster --version, p50", p50(version), 100, python, unit="ms"),
        Figure("muster status, p50", p50(status), 100, python, unit="ms"),
        Figure("idle daemon, resident", size, 80, f"after {idle_s} s", unit="MiB"),
    ]
