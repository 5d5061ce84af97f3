"""`config.toml`: what the owner of a machine says of it.

Rule 1: a file that says something of no use is refused, by the name of the setting.
Rule 2: a file of an older version goes on to mean what it meant.
"""

import contextlib
import json
import re
import tomllib
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Annotated, Any, Final, TypeVar

import msgspec

from muster import channel as channels
from muster.address import check_address, split_address
from muster.agent.servers import NAME, SERVERS_MAX, Server
from muster.bridge.services import SERVICES
from muster.channel.base import LinkOptions, PostOptions
from muster.errors import Broken, Malformed, Refused
from muster.limits import APPROVAL_MS, APPROVAL_MS_MAX, LEASE_MS_MAX, NATS_SERVERS
from muster.node.host.chat_config import ChatConfig
from muster.node.host.money_config import MoneyConfig
from muster.node.host.notify_config import Heartbeat, NotifyConfig
from muster.node.host.sandbox_config import SandboxConfig
from muster.task.problem import nearest

S = TypeVar("S", bound=msgspec.Struct)

# On one line, as a person writes it: with escapes, or in single quotes without any.
_STRING: Final = r"""(?:"(?:[^"\\\n]|\\.)*"|'[^'\n]*')"""
_ARRAY: Final = rf"""\[(?:{_STRING}|[^\]\n"'#])*\]"""


# What stands behind a setting on its line.
_VALUE: Final = rf"(?:{_STRING}|{_ARRAY}|[0-9]+|true|false)"


def with_setting(text: str, name: str, value: Any) -> str:
    """The text of `config.toml` with another value of a setting, and all else as it is.

    `name` may be dotted, of bare keys. Raises: Refused where a person wrote it in a form that is
    theirs to change.
    """
    written = f"{name} = {json.dumps(value, ensure_ascii=False)}"
    line = rf"(?m)^{re.escape(name)}[ \t]*=[ \t]*{_VALUE}"
    changed, found = re.subn(line, lambda _: written, text)
    fresh = changed if found else f"{written}\n{text}"
    wanted, (*tables, key) = tomllib.loads(text), name.split(".")
    table = wanted
    for each in tables:
        table = table.setdefault(each, {})
        if not isinstance(table, dict):
            raise Refused(f"`{name}` stands in config.toml under `{each}`, which is no table")
    table[key] = list(value) if isinstance(value, tuple) else value
    if _means(fresh, wanted):
        return fresh
    raise Refused(f"`{name}` stands in config.toml in a form that is yours: write {written} there")


def without_settings(text: str, table: str) -> str:
    """The text of `config.toml` without what stands in a table, and all else as it is.

    `table` may be dotted, of bare keys. Raises: Refused, as `with_setting`.
    """
    line = rf"(?m)^{re.escape(table)}\.[^\n=]+=[ \t]*{_VALUE}[^\n]*(?:\n|\Z)"
    fresh = re.sub(line, "", text)
    wanted, (*tables, key) = tomllib.loads(text), table.split(".")
    holders = [wanted]
    for each in tables:
        holders.append(holders[-1].get(each, {}))
    holders[-1].pop(key, None)
    # A table that nothing stands in any more is none.
    for each, inside, outside in zip(tables[::-1], holders[:0:-1], holders[-2::-1], strict=True):
        if not inside:
            outside.pop(each, None)
    if _means(fresh, wanted):
        return fresh
    raise Refused(f"`{table}` stands in config.toml in a form that is yours: take it away there")


def _means(text: str, wanted: dict[str, Any]) -> bool:
    with contextlib.suppress(tomllib.TOMLDecodeError):
        return tomllib.loads(text) == wanted
    return False


class NatsServe(msgspec.Struct, frozen=True, omit_defaults=True):
    """`[nats]`: whether this machine runs a NATS server.

    `serve` is where it listens, `auto` on a port for this computer alone, "" nowhere; `address` is
    where others reach that; `server` is the program, "" for the one that is installed. `cluster`
    are the three machines whose servers are one, as the machine with the authority says; `routes`
    is where the other two reach this one's, "" 2000 ports above `serve`; `leaves` is where the
    servers of machines that come and go reach it, "" nowhere.

    On a machine that comes and goes `leaf` is where its own server listens, on this computer
    alone, `auto` on a port that is free; it is linked to the server of `channel.nats.place`.
    """

    serve: str = ""
    address: str = ""
    server: str = ""
    cluster: tuple[str, ...] = ()
    routes: str = ""
    leaves: str = ""
    leaf: str = ""

    def check(self) -> None:
        """Raises: Malformed naming the setting that is of no use."""
        if self.serve not in {"", "auto"}:
            split_address(self.serve)
        if self.address:
            check_address(self.address)
        for where in filter(None, (self.routes, self.leaves)):
            split_address(where)
        if self.leaves and not self.serve:
            raise Malformed("`leaves` is of a machine that serves: say `serve`, too")
        if self.leaf and self.serve:
            raise Malformed("a machine that serves (`serve`) has no `leaf` beside that")
        if self.leaf not in {"", "auto"}:
            host, _ = split_address(self.leaf)
            if host not in {"127.0.0.1", "localhost", "::1"}:
                raise Malformed("`leaf` is of this computer alone: 127.0.0.1:4222, or `auto`")
        if self.cluster and len(set(self.cluster)) != NATS_SERVERS:
            raise Malformed(f"`cluster` names {NATS_SERVERS} machines, each once, or none")


class Config(msgspec.Struct, frozen=True):
    """What `config.toml` says; every value has a default, so an empty file is a whole one."""

    name: str = ""
    role: str = "workstation"
    labels: tuple[str, ...] = ()
    # What others accept of a machine; beyond it the machine would be heard by nobody.
    slots: Annotated[int, msgspec.Meta(ge=0, le=4096)] = 2
    lease_s: Annotated[int, msgspec.Meta(ge=1, le=LEASE_MS_MAX // 1000)] = 30
    # How long an agent waits for a person's word (`muster questions`) before it is a no.
    approval_s: Annotated[int, msgspec.Meta(ge=1, le=APPROVAL_MS_MAX // 1000)] = APPROVAL_MS // 1000
    agent_env: tuple[str, ...] = ()
    # For everything that runs for the person; empty: as their login shell has it (person_path.py).
    path: str = ""
    # Agents that are driven by their headless mode also where an adapter is.
    headless: tuple[str, ...] = ()
    # Whether agents reach this machine over a port of loopback (node/doorway.py).
    door: bool = True
    # Whether a packet wakes this machine, where its cards do not say so themselves (cards.py).
    wake: bool = False
    # Whether it is announced on its local network, and looks for the others there (links/lan.py).
    lan: bool = True
    # By name, what `[channel.<name>]` says, each as the `Options` of that channel.
    channel: Mapping[str, LinkOptions | PostOptions] = {}
    nats: NatsServe = NatsServe()
    # By name, the MCP servers that a phase may name (`[mcp.<name>]`).
    mcp: Mapping[str, Server] = {}
    sandbox: SandboxConfig = SandboxConfig()
    money: MoneyConfig = MoneyConfig()
    notify: NotifyConfig = NotifyConfig()
    heartbeat: Heartbeat = Heartbeat()
    # By name, the chat services that this machine has a bridge to (`[chat.<name>]`).
    chat: Mapping[str, ChatConfig] = {}

    def options(self, channel: str) -> LinkOptions:
        """The settings of a channel; of one that nothing is said of, its own."""
        found = self.channel.get(channel)
        assert not isinstance(found, PostOptions), "a mailbox has no addresses to dial"
        return found or next(s for s in channels.CHANNELS if s.name == channel).load().Options()

    def links(self) -> Iterator[tuple[channels.Spec, LinkOptions]]:
        """The channels that this machine has links over, in the order in which they are tried."""
        for spec in channels.CHANNELS:
            if spec.shape == "link" and (spec.name == channels.FIRST or spec.name in self.channel):
                yield spec, self.options(spec.name)

    def posts(self) -> Iterator[tuple[channels.Spec, PostOptions]]:
        """The places where this machine leaves and takes parcels."""
        for spec in channels.CHANNELS:
            found = self.channel.get(spec.name)
            if spec.shape == "post" and isinstance(found, PostOptions):
                yield spec, found


# Tables of the file with a form of their own.
_OWN: Final[dict[str, Any]] = {
    "nats": NatsServe,
    "sandbox": SandboxConfig,
    "money": MoneyConfig,
    "notify": NotifyConfig,
    "heartbeat": Heartbeat,
}
# Before 0.2 these stood above all tables, and meant the one channel that there was.
_OLDER: Final = tuple(f.name for f in msgspec.structs.fields(LinkOptions))


def read_config(found: dict[str, Any], path: Path) -> Config:
    """What TOML made of the file. Raises: Broken naming the setting that is of no use."""
    servers = _servers(found.pop("mcp", {}), path)
    own = {name: _settings(found.pop(name, {}), _OWN[name], name, path) for name in _OWN}
    for name, section in own.items():
        try:
            section.check()
        except Malformed as error:
            raise Broken(f"{path}: `{name}`: {error}") from error
    chats = _chats(found.pop("chat", {}), path)
    sections = found.pop("channel", {})
    if not isinstance(sections, dict):
        raise Broken(f"{path}: `channel` must be a table, not {repr(sections)[:80]}")
    if older := {name: found.pop(name) for name in _OLDER if name in found}:
        section = sections.get(channels.FIRST, {})
        for name in sorted(older.keys() & section) if isinstance(section, dict) else ():
            raise Broken(
                f"{path}: `{name}` is said twice, also as `channel.{channels.FIRST}.{name}`: keep "
                "one of the two"
            )
        sections[channels.FIRST] = section | older if isinstance(section, dict) else section
    specs = {spec.name: spec for spec in channels.CHANNELS}
    options = {}
    for name, section in sections.items():
        if name not in specs:
            raise Broken(f"{path}: `channel.{name}` is no channel{_others(name, specs)}")
        shape = specs[name].load().Options
        options[name] = _settings(section, shape, f"channel.{name}", path)
    whole = _settings(found, Config, "", path)
    return msgspec.structs.replace(whole, channel=options, mcp=servers, chat=chats, **own)


def _chats(sections: Any, path: Path) -> dict[str, ChatConfig]:
    if not isinstance(sections, dict):
        raise Broken(f"{path}: `chat` must be a table of tables, such as `[chat.matrix]`")
    found = {}
    for name, section in sections.items():
        if name not in SERVICES:
            raise Broken(f"{path}: `chat.{name[:40]}` is no chat service{_others(name, SERVICES)}")
        found[name] = _settings(section, ChatConfig, f"chat.{name}", path)
        if why := found[name].refusal(name):
            raise Broken(f"{path}: `chat.{name}` {why}")
    return found


def _servers(sections: Any, path: Path) -> dict[str, Server]:
    if not isinstance(sections, dict) or len(sections) > SERVERS_MAX:
        raise Broken(f"{path}: `mcp` must be a table of at most {SERVERS_MAX} servers")
    found = {}
    for name, section in sections.items():
        if not NAME.fullmatch(name):
            raise Broken(f"{path}: `mcp.{name[:40]}` is no name: take 1 to 40 of a-z, 0-9 and -")
        server = found[name] = _settings(section, Server, f"mcp.{name}", path)
        if why := server.refusal():
            raise Broken(f"{path}: `mcp.{name}` {why}")
    return found


def _settings(found: Any, shape: type[S], section: str, path: Path) -> S:
    """A table of the file as its Struct. Raises: Broken naming the setting and what it must be."""
    if not isinstance(found, dict):
        raise Broken(f"{path}: `{section}` must be a table, not {repr(found)[:80]}")
    fields = {
        f.name: f.type
        for f in msgspec.structs.fields(shape)
        if f.name not in ("channel", "mcp", "chat", *_OWN)
    }
    values = {}
    for key, value in found.items():
        name = f"{section}.{key}".removeprefix(".")
        if key not in fields:
            raise Broken(f"{path}: `{name}` is not a setting{_others(key, fields)}")
        try:
            values[key] = msgspec.convert(value, fields[key])
        except msgspec.ValidationError as error:
            wanted = _wanted(fields[key], value)
            raise Broken(f"{path}: `{name}` must be {wanted}, not {repr(value)[:80]}") from error
    return shape(**values)


def _others(word: str, known: Mapping[str, Any]) -> str:
    near = nearest(word, known)
    meant = f"; did you mean `{near}`?" if near else ";"
    return f"{meant} there are {', '.join(sorted(known))}"


def _wanted(type_: Any, value: Any) -> str:
    match msgspec.inspect.type_info(type_):
        case msgspec.inspect.IntType(ge=low, le=high) if type(value) is int:
            return f"from {low} to {high}"
        case msgspec.inspect.BoolType():
            return "true or false"
        case msgspec.inspect.IntType():
            return "a whole number"
        case msgspec.inspect.VarTupleType():
            return "a list of texts"
        case msgspec.inspect.LiteralType(values=known):
            return " or ".join(map(json.dumps, known))
        case msgspec.inspect.UnionType(
            types=(msgspec.inspect.VarTupleType(), msgspec.inspect.NoneType())
        ):
            return "a list of texts"
        case msgspec.inspect.DictType():
            return "a table of texts"
        case _:
            return "a text in quotes"


_AGENT_NOTES: Final = (
    "",
    "# Agents find their login in your home folder. Keys come from the environment in which the",
    "# daemon starts, or from the file agents.env beside this one (NAME=VALUE lines, mode 0600),",
    "# which a service needs and which is read anew for each attempt. Each agent gets only the",
    "# variables that it is known to read: claude gets ANTHROPIC_API_KEY, codex OPENAI_API_KEY and",
    "# CODEX_HOME, and so on. agent_env names more, for EVERY attempt, shell phases among them:",
    '# agent_env = ["AWS_PROFILE"]',
    "# The door for agents listens on loopback, once somebody knocks; `door = false` opens none.",
    '# Programs are found on the PATH of your login shell; path replaces it: path = "/a:/b"',
)


# What is written of a channel in any case, and what a person is told of it there.
_CHANNEL_NOTES: Final = {
    "listen": "  # host:port others may dial; auto: where no stranger is; empty: we dial only",
    "address": "  # where others reach that; empty: from `listen`",
    "hub": "  # host:port of the hub; empty on the hub itself",
}


def _mcp_lines(servers: Mapping[str, Server]) -> Iterator[str]:
    for name, server in servers.items():
        for field, value in msgspec.to_builtins(server).items():
            if isinstance(value, dict):
                for key, text in value.items():
                    yield f"mcp.{name}.{field}.{json.dumps(key)} = {json.dumps(text)}"
            elif value:
                yield f"mcp.{name}.{field} = {json.dumps(value)}"


def config_text(config: Config) -> bytes:
    """A config file a person would like to edit.

    No section begins in it: what somebody adds at its end is a setting of the machine.
    """
    channel_lines = []
    for spec, options in (*config.links(), *config.posts()):
        for field, value in msgspec.to_builtins(options).items():
            key = f"channel.{spec.name}.{field}"
            if isinstance(value, dict):
                told = ((json.dumps(k), json.dumps(v)) for k, v in value.items())
                channel_lines += [f"{key}.{name} = {text}" for name, text in told]
            elif value or (spec.name == channels.FIRST and field in _CHANNEL_NOTES):
                channel_lines.append(f"{key} = {json.dumps(value)}{_CHANNEL_NOTES.get(field, '')}")
    labels = ", ".join(json.dumps(label) for label in config.labels)
    named = ", ".join(json.dumps(name) for name in config.agent_env)
    headless = ", ".join(json.dumps(name) for name in config.headless)
    lines = [
        "# This machine, as its owner wants it. `muster doctor` checks the file.",
        f"name = {json.dumps(config.name)}  # changed with `muster machine rename`",
        *([] if config.role == Config().role else [f"role = {json.dumps(config.role)}"]),
        *channel_lines,
        f"labels = [{labels}]  # what `needs: label` of a spec asks for",
        f"slots = {config.slots}  # attempts that may run at once",
        f"lease_s = {config.lease_s}  # seconds without a heartbeat until a task goes elsewhere",
        *(
            []
            if config.approval_s == APPROVAL_MS // 1000
            else [f"approval_s = {config.approval_s}"]
        ),
        *_AGENT_NOTES,
        *([f"agent_env = [{named}]"] if named else []),
        *([f"path = {json.dumps(config.path)}"] if config.path else []),
        *([f"headless = [{headless}]"] if headless else []),
        *([] if config.door else ["door = false"]),
        *(["wake = true"] if config.wake else []),
        *([] if config.lan else ["lan = false"]),
        *(
            f"{name}.{k} = {json.dumps(v)}"
            for name in _OWN
            for k, v in msgspec.to_builtins(getattr(config, name)).items()
        ),
        *_mcp_lines(config.mcp),
        *(
            f"chat.{name}.{key} = {json.dumps(value)}"
            for name, chat in config.chat.items()
            for key, value in msgspec.to_builtins(chat).items()
            if value
        ),
        "",
    ]
    return "\n".join(lines).encode()
