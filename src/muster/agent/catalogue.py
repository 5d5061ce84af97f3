"""Which agents can be run here: a list of known ones, what of it is installed, and how to start it.

Rule 1: nothing is ever installed; a missing program is named, with the package that has it.
Rule 2: an agent counts as found only when its program is on PATH: an adapter that brings its own
copy of the program would run another version than the person chose. Where the adapter is there too
it speaks ACP, else the program's own headless mode drives it.
Rule 3: a person's own entries replace entries of the same name.

Each agent is a file in the format of the ACP registry (registry.py): ours in `known/`, a person's
in the folder `agents` of the home. Another agent is another file. `agents.json`, which people wrote
before 0.3, is read as it was.
"""

import contextlib
import os
import shutil
from collections.abc import Iterable, Iterator, Mapping
from importlib import resources
from pathlib import Path
from typing import Final, Literal, NamedTuple

import msgspec

from muster.agent import registry
from muster.agent.dialects import DIALECTS
from muster.agent.drivers import DRIVERS
from muster.agent.gateway.endpoint import Access
from muster.errors import Broken, NotFound
from muster.task.detector import Thresholds
from muster.task.route import NOOP

HEADLESS: Final = "headless"
# What a program leaves when somebody has logged out: `{}` and a line's end.
_EMPTY_BYTES: Final = 4
# Settings that people write are a page long.
_SETTINGS_BYTES_MAX: Final = 256 * 1024


class Added(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What gives a program its model: words after its command, variables over all others.

    The name of the model stands for `{model}` in both.
    """

    args: tuple[str, ...] = ()
    env: dict[str, str] = {}


class Servers(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """How a program is given the MCP servers of its task, and leave to use their tools.

    In `args` and `env` stand `{file}` for a file of the form of `.mcp.json`, `{json}` for a
    configuration of opencode, and in a word that counts once for each server `{server}` for its
    name and `{toml}` for its table. None of them holds a secret.
    """

    args: tuple[str, ...] = ()
    env: dict[str, str] = {}
    taken: tuple[str, ...] = ()
    """What those words mean otherwise in the place of `{server}`, such as leave to use a tool of
    the program itself: no server that is called so is given to it."""
    session: bool = True
    """Over ACP: whether the session is told of them. Not where the program takes them by words."""
    meta: dict[str, int] = {}
    """Over ACP: what the session is told beside them (`_meta`)."""


class Headless(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """How an agent's own program is driven without an adapter: its prompt goes to standard input.

    What `command` lets it do without asking is no more than the policy for tasks allows.
    """

    command: tuple[str, ...]
    dialect: str
    """What it prints, by its name in `DIALECTS`."""
    enclosed: dict[str, str] = {}
    """Words of `command`, and what stands in their place inside a sandbox of ours: in there no
    program can make its own."""
    env: dict[str, str] = {}
    """Defaults in this mode, above those of the agent."""
    model: Added | None = None
    """What chooses a model."""
    resume: tuple[str, ...] = ()
    """What is added to go on with a session: its name stands for `{session}`."""
    session: tuple[str, ...] = ()
    """What is added to name a new session, where the program tells its own name too late."""
    mcp: Servers | None = None
    """What gives it MCP servers; none where it is given none in this mode."""

    def __post_init__(self) -> None:
        if self.dialect not in DIALECTS or not self.command:
            raise ValueError(f"headless needs a command and a dialect of {', '.join(DIALECTS)}")


class Elsewhere(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What shows that an agent may have an account where nobody looks: then nobody can tell."""

    variables: tuple[str, ...] = ()
    files: dict[str, tuple[str, ...]] = {}
    """Places as those of `credentials`, and words of which one stands there; none: it is enough
    that it is there."""


class AgentEntry(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """How one agent is found and started."""

    title: str
    driver: str = msgspec.field(name="protocol")
    """How it is run, by its name in `DRIVERS`."""
    command: tuple[str, ...] = ()
    """The adapter, or the program itself where it speaks the protocol."""
    headless: Headless | None = None
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
    elsewhere: Elsewhere = Elsewhere()
    """Without any of it, and without a file or key, the agent has no account for certain."""
    keychains: tuple[str, ...] = ()
    """The platforms on which its account may lie in no file."""
    login_probe: tuple[str, ...] = ()
    """Asks the program itself, without a network: it ends with 0 where it has an account, with 1
    where it has none."""
    login_probe_since: str = ""
    """The first version that understands the question."""
    login: str = ""
    """What a person does when the agent has no account, as words after "agent not logged in: "."""
    access: Access = Access()
    """What it needs of the network, and of which APIs a gateway can hold its key."""
    mode: str = ""
    """The session mode in which the agent asks us before it acts."""
    unasked: tuple[str, ...] = ()
    """The modes in which it asks nobody, or a model instead of us: no task is put into them."""
    model: Added | None = None
    """What chooses a model over ACP, where the session is not asked to."""
    mcp: Servers = Servers()
    """What gives it MCP servers over ACP, beside the session."""
    health: Thresholds = Thresholds()
    """When an attempt of it counts as stuck."""
    loads_next_minute: bool = False
    """Whether a session can be loaded only in a later minute (UTC) than it was opened in."""
    node_major_min: int = 0
    """The oldest Node that the adapter runs under."""
    npm: tuple[str, ...] = ()
    install: str = ""
    """The one command that brings the program; empty where there is no package of its maker."""
    by_hand: str = ""
    """What brings it where no command does, as words after "it comes from "."""
    tested: str = ""
    """The version that the entry was written for; of an adapter, where there is one."""
    comes_from: str = ""
    """Where that version comes from, as people say it."""
    notes: str = ""

    def __post_init__(self) -> None:
        if self.driver not in DRIVERS:
            raise ValueError(f"no driver is named {self.driver!r}; there are {', '.join(DRIVERS)}")
        named = self.command if self.driver != HEADLESS else self.headless
        if not self.is_plain and not (named and self.program and self.version_probe):
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
    """`agents.json`."""

    version: Literal[1]
    agents: dict[str, AgentEntry]


class Start(NamedTuple):
    """How an agent is started here: by which driver, as which program, with which defaults."""

    driver: str
    argv: list[str]
    env: dict[str, str]


def load(home: Path | None = None) -> dict[str, AgentEntry]:
    """The known agents, with a person's own entries of this home over them.

    Raises: Broken where one of the person's files is not in its form.
    """
    own = resources.files("muster.agent").joinpath("known")
    agents = dict(_entry_of(file.read_bytes(), "") for file in own.iterdir())
    if home is not None:
        agents |= _older(home / "agents.json")
        agents |= _of_folder(home / "agents")
    return agents | BUILT_IN


def _older(file: Path) -> dict[str, AgentEntry]:
    if not file.exists():
        return {}
    try:
        return msgspec.json.decode(file.read_bytes(), type=Catalogue).agents
    except (OSError, RecursionError, msgspec.MsgspecError) as error:
        raise Broken(f"The agent catalogue {file} is not usable: {error}.") from error


def _of_folder(folder: Path) -> dict[str, AgentEntry]:
    files = sorted(folder.glob("*.json"))
    if len(files) > registry.FILES_MAX:
        raise Broken(f"{folder} has {len(files)} files, and {registry.FILES_MAX} is the most")
    found = {}
    for file in files:
        try:
            with file.open("rb") as opened:
                raw = opened.read(registry.FILE_BYTES_MAX + 1)
            name, entry = _entry_of(raw, file.stem)
        except (OSError, ValueError) as error:
            raise Broken(f"The agent {file} is not usable: {error}.") from error
        found[name] = entry
    return found


def _entry_of(raw: bytes, name: str) -> tuple[str, AgentEntry]:
    """An agent of a file that is called so. Raises: ValueError where it is of no use."""
    said = registry.read(raw)
    if name and name != said.id:
        raise ValueError(f"its id is {said.id!r}, so it must be called {said.id}.json")
    return said.id, msgspec.convert(said.as_entry(), AgentEntry)


def start_of(
    name: str,
    entry: AgentEntry,
    path: str,
    *,
    headless: bool = False,
    node_major: int | None = None,
) -> Start:
    """How to start an agent whose program is on `path`: its adapter, else its headless mode.

    `headless` is the wish of the machine's owner for the latter; under a `node_major` that is too
    old an adapter is as good as absent. Raises: NotFound with what is missing and how to get it.
    """
    if entry.is_plain:
        return Start(entry.driver, [], {})
    program = which(entry.program, path)
    if program is None:
        raise NotFound(f"{name}: no program {entry.program!r} is on PATH{how_to_get(entry)}")
    adapter = which(entry.command[0], path) if entry.command else None
    old = adapter not in (None, program) and (node_major or 10**6) < entry.node_major_min
    own = entry.headless
    if entry.driver != HEADLESS and adapter is not None and not (own and (headless or old)):
        told = {entry.program_variable: program} if entry.program_variable else {}
        return Start(entry.driver, [adapter, *entry.command[1:]], {**entry.env, **told})
    if own is None:
        raise NotFound(
            f"{name}: {entry.title} is here, and its adapter {entry.command[0]!r} is not on PATH"
            f"{f'; npm install -g {entry.npm[0]}' if entry.npm else ''}"
        )
    command = own.command if own.command[0] != entry.program else (program, *own.command[1:])
    return Start(HEADLESS, list(command), {**entry.env, **own.env})


def gives_no_server(entry: AgentEntry, driver: str, server: str) -> str:
    """Why an agent that is driven so is not given the MCP server of this name; "" where it is."""
    given: Servers | None = entry.mcp
    if driver == HEADLESS:
        given = entry.headless.mcp if entry.headless is not None else None
    if given is None:
        needs = " or ".join(entry.command[:1])
        return (
            "is driven by its headless mode here, which is given no MCP server; the task needs "
            f"ACP: {needs}"
        )
    if server in given.taken:
        return (
            f"takes leave to use the MCP server {server} for leave to do what it calls {server} "
            "itself; call the server otherwise in config.toml"
        )
    return ""


def which(program: str, path: str) -> str | None:
    """Where a program is on this PATH, of which only whole paths count.

    Who stands in the folder of somebody's work would find programs there by any other.
    """
    folders = [each for each in path.split(os.pathsep) if os.path.isabs(each)]
    return shutil.which(program, path=os.pathsep.join(folders))


def how_to_get(entry: AgentEntry) -> str:
    """What a person types to have the agent, as the end of a sentence; "" where nobody knows."""
    if entry.install:
        return f"; install it with `{entry.install}`"
    return f"; it comes from {entry.by_hand}" if entry.by_hand else ""


def is_logged_in(entry: AgentEntry, env: Mapping[str, str], platform: str) -> bool | None:
    """Whether the agent looks logged in, without a program or a network; None: nobody can tell.

    A yes is a guess: an account may have ended, and a key may be wrong. A no is certain: its
    machine gets no work for it.
    """
    if any(env.get(name) for name in entry.variables if name.endswith(("_KEY", "_TOKEN"))):
        return True
    if any(_size_of(file) > _EMPTY_BYTES for file in _files_of(entry.credentials, env)):
        return True
    hidden = platform in entry.keychains or may_be_elsewhere(entry, env)
    return None if hidden or not (entry.credentials or entry.elsewhere.files) else False


def may_be_elsewhere(entry: AgentEntry, env: Mapping[str, str]) -> bool:
    """Whether something here says that the agent may have an account where nobody looks."""
    known = entry.elsewhere
    own = [name for name in entry.variables if name.endswith("_BASE_URL")]
    if any(env.get(name) for name in (*own, *known.variables)):
        return True
    for where, words in known.files.items():
        for file in _files_of((where,), env):
            # A file that this person may not read holds no login for what runs as them.
            with contextlib.suppress(OSError), file.open("rb") as settings:
                text = settings.read(_SETTINGS_BYTES_MAX)
                if not words or any(word.encode() in text for word in words):
                    return True
    return False


def credentials_of(entry: AgentEntry, env: Mapping[str, str]) -> object:
    """What changes when a person logs in: a mark to compare, of which nothing can be read."""
    names = (*entry.variables, *entry.elsewhere.variables)
    keys = tuple(hash(env.get(name)) for name in names)
    files = []
    for file in _files_of((*entry.credentials, *entry.elsewhere.files), env):
        # What is not there counts as well: it changes the answer when it comes.
        with contextlib.suppress(OSError):
            status = os.stat(file)
            files.append((str(file), status.st_mtime_ns, status.st_size))
    return keys, tuple(files)


def account_files(entry: AgentEntry, env: Mapping[str, str]) -> dict[str, Path]:
    """Where its account lies in files, by where each would lie below a home that nothing moves."""
    places = (where.rpartition(":")[2].removeprefix("~/") for where in entry.credentials)
    return dict(zip(places, _files_of(entry.credentials, env), strict=True))


def moving_variables(entry: AgentEntry) -> frozenset[str]:
    """The variables that say where its files lie instead."""
    named = (where.rpartition(":")[0].removeprefix("$") for where in entry.credentials)
    return frozenset(filter(None, named))


def _size_of(file: Path) -> int:
    """In bytes; -1 where there is no such file."""
    return file.stat().st_size if file.is_file() else -1


def _files_of(places: Iterable[str], env: Mapping[str, str]) -> Iterator[Path]:
    """The files of these places: `~/file`, or `$VARIABLE:~/folder/file`."""
    for where in places:
        variable, _, path = where.rpartition(":")
        file = Path(path.replace("~", env.get("HOME") or os.path.expanduser("~"), 1))
        moved = env.get(variable.removeprefix("$"))
        yield Path(moved, file.name) if moved else file
