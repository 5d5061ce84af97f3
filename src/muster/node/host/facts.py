"""What this machine is and has, asked of the machine itself.

Rule 1: whatever is asked answers in time or counts as absent: each tool is a process of its own
        with a time limit, all at once, and none of them can hold up the daemon.
Rule 2: no shell, no string that becomes a command: a tool is a row of TOOLS, found on PATH.
Rule 3: a fact is a claim. It steers routing and grants nothing, so a tool that lies costs a
        refused attempt and no more.

Tools are asked again every FACTS_REFRESH_MS, load and power each time. Asking blocks, so `probe`
does it in a thread.
"""

import asyncio
import json
import os
import platform
import shutil
import socket
import subprocess
from collections.abc import Callable, Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, Final, Literal, NamedTuple

import msgspec
import psutil

import muster
from muster import limits
from muster.agent.catalogue import AgentEntry, gives_no_server, which
from muster.agent.servers import Server, lack
from muster.fleet.facts import LOGGED_IN, LOGGED_OUT, Facts
from muster.node.host import clock
from muster.task.route import EXCEPT, MCP

# name -> how it tells its version. What is found is what the tool printed, first line, cut.
TOOLS: Final[Mapping[str, tuple[str, ...]]] = {
    "bash": ("bash", "--version"),
    "bwrap": ("bwrap", "--version"),
    "cargo": ("cargo", "--version"),
    "cmake": ("cmake", "--version"),
    "docker": ("docker", "--version"),
    "ffmpeg": ("ffmpeg", "-version"),
    "gcc": ("gcc", "--version"),
    "gh": ("gh", "--version"),
    "git": ("git", "--version"),
    "go": ("go", "version"),
    "java": ("java", "-version"),
    "make": ("make", "--version"),
    "node": ("node", "--version"),
    "npm": ("npm", "--version"),
    "podman": ("podman", "--version"),
    "python": ("python3", "--version"),
    "rustc": ("rustc", "--version"),
    "sqlite3": ("sqlite3", "--version"),
    "uv": ("uv", "--version"),
}
_GPU: Final = ("nvidia-smi", "--query-gpu=name", "--format=csv,noheader")
_TEXT_CHARS_MAX: Final = 200
_OUTPUT_BYTES_MAX: Final = 64 * 1024
# Many short processes at once finish sooner than one after the other, and stay few.
_AT_ONCE: Final = 8

# (argv, PATH) -> its output, None when there is no such program or it gave no answer.
Run = Callable[[Sequence[str], str | None], str | None]


class Installed(NamedTuple):
    """What programs answered, and the names of the GPUs."""

    tools: dict[str, str]
    gpus: tuple[str, ...]


class Interface(NamedTuple):
    """A network interface: the address of its card, those of IPv4 with their masks, and of IPv6."""

    name: str
    mac: str
    addresses: tuple[str, ...]
    v6: tuple[str, ...] = ()


def interfaces() -> list[Interface]:
    """Those of this machine that are up."""
    states = psutil.net_if_stats()
    return [
        Interface(
            name,
            next((each.address for each in found if each.family == psutil.AF_LINK), ""),
            tuple(f"{e.address}/{e.netmask}" for e in found if e.family == socket.AF_INET),
            tuple(e.address for e in found if e.family == socket.AF_INET6),
        )
        for name, found in sorted(psutil.net_if_addrs().items())
        if name in states and states[name].isup
    ]


def own_addresses() -> frozenset[str]:
    """Every IP address that is one of an interface of this machine now, without zones."""
    families, found = (socket.AF_INET, socket.AF_INET6), psutil.net_if_addrs().values()
    return frozenset(
        each.address.partition("%")[0] for all_ in found for each in all_ if each.family in families
    )


def run_tool(argv: Sequence[str], path: str | None = None) -> str | None:
    """The output of a program on the PATH, or None: absent, failed, or too slow."""
    program = shutil.which(argv[0], path=path)
    if program is None:
        return None
    if argv[0] == "npm" and shutil.which("node", path=path) and (said := _npm_version(program)):
        return said
    try:
        done = subprocess.run(
            [program, *argv[1:]],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            env=None if path is None else {**os.environ, "PATH": path},
            # In a project's folder some fetch another version of themselves, because it says so.
            cwd="/",
            timeout=limits.PROBE_MS_MAX / 1000,
            check=False,
        )
    except (OSError, subprocess.TimeoutExpired):
        return None
    if done.returncode != 0:
        return None
    return done.stdout[:_OUTPUT_BYTES_MAX].decode("utf-8", "replace")


def _npm_version(program: str) -> str:
    """What `npm --version` says, "" where its package is not where npm has it.

    To say it npm takes a third of a second of a processor, at every start of every machine.
    """
    package = Path(os.path.realpath(program)).parent.parent / "package.json"
    try:
        with package.open("rb") as file:
            said = json.loads(file.read(_OUTPUT_BYTES_MAX))
    except (OSError, ValueError, RecursionError):
        return ""
    version = said.get("version") if isinstance(said, dict) and said.get("name") == "npm" else ""
    return version if isinstance(version, str) else ""


def power() -> Literal["mains", "battery"]:
    """Where the power comes from: without a battery it is mains."""
    battery = psutil.sensors_battery() if hasattr(psutil, "sensors_battery") else None
    if battery is None or battery.power_plugged is not False:
        return "mains"
    return "battery"


class Tools:
    """What is installed: asked all at once, remembered for a while."""

    def __init__(self, run: Run = run_tool) -> None:
        self._run = run
        self._found: Installed | None = None
        self._asked_ms = 0

    def installed(self, now_ms: int, path: str | None = None) -> Installed:
        """Tools on the PATH, and GPUs. Blocks as long as the slowest tool when they are asked."""
        if self._found is None or now_ms - self._asked_ms >= limits.FACTS_REFRESH_MS:
            with ThreadPoolExecutor(_AT_ONCE, "muster-facts") as pool:
                *told, gpus = pool.map(lambda argv: self._run(argv, path), [*TOOLS.values(), _GPU])
            tools = {n: _line(a) for n, a in zip(TOOLS, told, strict=True) if a is not None}
            lines = [line.strip()[:_TEXT_CHARS_MAX] for line in (gpus or "").splitlines()]
            self._found = Installed(tools, tuple(line for line in lines if line)[:_GPUS_MAX])
            self._asked_ms = now_ms
        return self._found


def logins_of(states: Mapping[str, bool]) -> dict[str, str]:
    """What is known of logins, as facts say it."""
    return {name: LOGGED_IN if state else LOGGED_OUT for name, state in states.items()}


def servers_of(
    offers: Mapping[str, Server],
    source: Mapping[str, str],
    path: str,
    agents: Mapping[str, AgentEntry],
    drivers: Mapping[str, str],
) -> dict[str, str]:
    """The MCP servers that an agent can be given here, as facts say it.

    They stand among the tools: older machines read them there, and routing needs no more. One that
    lacks its program or a variable is no fact: work for it would come here and fail. A fact
    says as well which of `agents`, as they are driven here, are not given the server.
    """
    found = {}
    for name, server in offers.items():
        if lack(name, server, source, lambda program: which(program, path)):
            continue
        without = [a for a, how in drivers.items() if gives_no_server(agents[a], how, name)]
        if len(said := f"{EXCEPT}{', '.join(without)}" if without else "") <= _SAID_MAX:
            found[f"{MCP}{name}"] = said
    return found


# What a fact has room for; a machine on which so many agents are not given a server says of none.
_SAID_MAX: Final = 200

# One memory for the process: every daemon in it runs on the same machine.
_TOOLS_HERE: Final = Tools()


async def probe(
    *,
    labels: Iterable[str],
    agents: Mapping[str, str],
    repositories: Iterable[str],
    slots: int,
    logins: Mapping[str, str],
    drivers: Mapping[str, str],
    path: str,
) -> dict[str, Any]:
    """The facts of this machine as plain data, without holding up the loop.

    What only configuration can know is given.
    """
    installed = await asyncio.to_thread(_TOOLS_HERE.installed, clock.read().boot_ms, path)
    facts = Facts(
        os=platform.system().lower(),
        arch=platform.machine(),
        cpus=max(1, os.cpu_count() or 1),
        memory_mib=psutil.virtual_memory().total // 2**20,
        gpus=installed.gpus,
        tools=installed.tools,
        power=power(),
        labels=tuple(labels),
        agents={name: _line(version) for name, version in agents.items()},
        repositories=tuple(repositories),
        slots=slots,
        logins=dict(logins),
        drivers=dict(drivers),
        muster=muster.__version__,
    )
    return dict(msgspec.to_builtins(facts))


# Chosen arbitrarily; more than any machine we know has.
_GPUS_MAX: Final = 32


def _line(answer: str) -> str:
    """The first line that says something; tools print licences and warnings after it."""
    for line in answer.splitlines():
        if line.strip():
            clean = "".join(c if c.isprintable() else " " for c in line.strip())
            return clean[:_TEXT_CHARS_MAX]
    return ""
