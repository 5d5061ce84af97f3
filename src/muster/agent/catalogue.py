"""Which agents can be run here: a list of known ones, what of it is installed, and how to start it.

Rule 1: nothing is ever installed; a missing program is named, with the package that has it.
Rule 2: an agent counts as found only when its adapter AND its program are on PATH: an adapter
that brings its own copy of the program would run another version than the person chose.
Rule 3: a person's own entries (a JSON file of the same form) replace entries of the same name.

The file follows the spirit of the ACP registry: a name, how it is started, where it comes from.
"""

import asyncio
import contextlib
import os
import re
import shutil
import signal
from collections.abc import Mapping
from importlib import resources
from pathlib import Path
from typing import Final, Literal, NamedTuple

import msgspec

from muster.agent.base import environment
from muster.agent.drivers import DRIVERS
from muster.errors import Broken, NotFound
from muster.task.route import NOOP

# A cold Node program on a busy small machine needs seconds to say its version.
PROBE_S_MAX: Final = 20.0
PROBE_BYTES_MAX: Final = 64 * 1024
VERSION: Final = re.compile(r"\d+(?:\.\d+)+(?:[-+][\w.]+)?")


class AgentEntry(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """How one agent is found and started."""

    title: str
    driver: str = msgspec.field(name="protocol")
    """How it is run, by its name in `DRIVERS`."""
    command: tuple[str, ...]
    """The adapter, or the program itself where it speaks the protocol."""
    program: str
    program_variable: str = ""
    """Tells the adapter which program to use instead of its bundled copy."""
    version_probe: tuple[str, ...]
    env: dict[str, str] = {}
    """Defaults, below whatever the order sets."""
    variables: tuple[str, ...] = ()
    """What the program itself reads of its environment: keys, addresses, where its files are."""
    credentials: tuple[str, ...] = ()
    """Where its account lies: `~/file`, or `$VARIABLE:~/folder/file` where a variable moves the
    folder. Empty where nobody knows."""
    keychains: tuple[str, ...] = ()
    """The platforms on which its account may lie in no file."""
    login: str = ""
    """What a person does when the agent has no account, as words after "agent not logged in: "."""
    mode: str = ""
    """The session mode in which the agent asks us before it acts."""
    node_major_min: int = 0
    npm: tuple[str, ...] = ()
    notes: str = ""

    def __post_init__(self) -> None:
        if self.driver not in DRIVERS:
            raise ValueError(f"no driver is named {self.driver!r}; there are {', '.join(DRIVERS)}")
        if not self.is_plain and not (self.command and self.program and self.version_probe):
            raise ValueError("command, program and version_probe each need a program")

    @property
    def is_plain(self) -> bool:
        """Whether it runs commands; all others are asked in words."""
        return DRIVERS[self.driver].is_plain


# Here on every machine, and no person's entry stands in their place.
BUILT_IN: Final = {
    "shell": AgentEntry(title="a shell", driver="shell", command=(), program="", version_probe=())
}
# What is asked nothing in words; what a machine has beside these can plan.
PLAIN: Final = frozenset({NOOP, *(name for name, entry in BUILT_IN.items() if entry.is_plain)})


class Catalogue(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """The file."""

    version: Literal[1]
    agents: dict[str, AgentEntry]


class Found(NamedTuple):
    """An installed agent: where its program is, and its version ("" when it would not say)."""

    path: str
    version: str


def load(additions: Path | None = None) -> dict[str, AgentEntry]:
    """The known agents, with a person's own entries over them.

    Raises: Broken when the person's file is not in the form of the catalogue.
    """
    raw = resources.files("muster.agent").joinpath("catalogue.json").read_bytes()
    agents = msgspec.json.decode(raw, type=Catalogue).agents
    if additions is not None and additions.exists():
        try:
            agents |= msgspec.json.decode(additions.read_bytes(), type=Catalogue).agents
        except (OSError, msgspec.MsgspecError) as error:
            raise Broken(f"The agent catalogue {additions} is not usable: {error}.") from error
    return agents | BUILT_IN


def program_argv(name: str, entry: AgentEntry, path: str) -> tuple[list[str], dict[str, str]]:
    """How to start an agent, and its default environment.

    Raises: NotFound when the adapter or the program is not on `path`.
    """
    if entry.is_plain:
        return [], {}
    starter = shutil.which(entry.command[0], path=path)
    program = shutil.which(entry.program, path=path)
    if starter is None or program is None:
        absent = entry.command[0] if starter is None else entry.program
        packages = f" (npm: {', '.join(entry.npm)})" if entry.npm else ""
        raise NotFound(f"Agent {name!r} needs {absent!r} on PATH; install {entry.title}{packages}.")
    env = dict(entry.env)
    if entry.program_variable:
        env[entry.program_variable] = program
    return [starter, *entry.command[1:]], env


async def discover(agents: Mapping[str, AgentEntry], env: Mapping[str, str]) -> dict[str, Found]:
    """What is installed under this environment's PATH; the built-in agents are always there."""
    path = env.get("PATH", os.defpath)
    here = []
    for name, entry in agents.items():
        with contextlib.suppress(NotFound):
            program_argv(name, entry, path)
            here.append(name)
    versions = await asyncio.gather(*(_version(agents[name], path, env) for name in here))
    found = {NOOP: Found("", "")}
    for name, version in zip(here, versions, strict=True):
        found[name] = Found(shutil.which(agents[name].program, path=path) or "", version)
    return found


def is_logged_in(entry: AgentEntry, env: Mapping[str, str], platform: str) -> bool | None:
    """Whether the agent looks logged in, without a program or a network; None: nobody can tell.

    It is a guess: an account may have ended, and a key may be wrong.
    """
    if any(env.get(name) for name in entry.variables if name.endswith(("_KEY", "_TOKEN"))):
        return True
    for where in entry.credentials:
        variable, _, path = where.rpartition(":")
        file = Path(path.replace("~", env.get("HOME") or os.path.expanduser("~"), 1))
        moved = env.get(variable.removeprefix("$"))
        if os.path.isfile(Path(moved, file.name) if moved else file):
            return True
    return None if platform in entry.keychains or not entry.credentials else False


async def _version(entry: AgentEntry, path: str, env: Mapping[str, str]) -> str:
    program = None if entry.is_plain else shutil.which(entry.version_probe[0], path=path)
    if program is None:
        return ""
    probe = await asyncio.create_subprocess_exec(
        program,
        *entry.version_probe[1:],
        stdin=asyncio.subprocess.DEVNULL,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.DEVNULL,
        env=environment(env),
        start_new_session=True,
    )
    assert probe.stdout is not None
    said = b""
    with contextlib.suppress(TimeoutError):
        async with asyncio.timeout(PROBE_S_MAX):
            said = await probe.stdout.read(PROBE_BYTES_MAX)
    with contextlib.suppress(ProcessLookupError):
        os.killpg(probe.pid, signal.SIGKILL)
    await probe.wait()
    match = VERSION.search(said.decode("utf-8", "replace"))
    return match[0] if match else ""
