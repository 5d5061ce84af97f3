"""The MCP servers that a machine's owner offers to its agents, and how an agent is told of one.

Rule 1: an owner says in `config.toml` what a server is; a spec says its name alone. No command and
no address of a server ever comes from a spec.
Rule 2: a secret is a variable of the machine (`agents.env`), named here as `${NAME}` or in `env`.
It is in no argument and no file: over ACP it goes through the pipe, else through the program's
environment, and what the program reads names the variable.
Rule 3: what is named and not there is this machine's fault, said before the agent is asked.
"""

import json
import re
from collections.abc import Callable, Mapping
from typing import Annotated, Any, Final

import msgspec
from msgspec import Meta

from muster.errors import Broken

# More than any machine we know offers; each is started by every agent that is told of it.
SERVERS_MAX: Final = 50
NAME: Final = re.compile(r"[a-z0-9](?:[a-z0-9-]{0,38}[a-z0-9])?")
_VARIABLE: Final = re.compile(r"\$\{([A-Za-z_][A-Za-z0-9_]*)\}")

Short = Annotated[str, Meta(max_length=4_096)]


class Server(msgspec.Struct, frozen=True):
    """One server: a program that is started, or an address."""

    command: tuple[Short, ...] = ()
    url: Short = ""
    env: tuple[Short, ...] = ()
    """The variables of this machine that its program is given."""
    headers: dict[Short, Short] = {}
    """What its address is told; `${NAME}` is a variable of this machine."""

    def refusal(self) -> str:
        """Why it is none; "" where it is one."""
        if bool(self.command) == bool(self.url):
            return "needs a command or a url, and not both"
        if self.url and not re.match(r"https?://[^/]", self.url):
            return "needs a url that begins with https:// or http://"
        if self.command and self.headers:
            return "has headers, which only a url is told"
        if self.url and self.env:
            return "has env, which only a command is given; write headers with ${NAME}"
        return ""

    @property
    def variables(self) -> tuple[str, ...]:
        """The variables of this machine that it needs."""
        texts = " ".join(self.headers.values())
        return tuple(dict.fromkeys([*self.env, *_VARIABLE.findall(texts)]))


class Offered(msgspec.Struct, frozen=True):
    """The servers of one attempt, in each form in which a program reads them."""

    acp: tuple[dict[str, Any], ...] = ()
    """As ACP has them, with their secrets."""
    file: str = ""
    """The form of `.mcp.json`, in which variables stand by their names."""
    toml: dict[str, str] = {}
    """Each as an inline table of TOML, with the keys of Codex."""
    json: str = ""
    """A configuration of opencode with nothing else in it."""
    env: dict[str, str] = {}
    """The variables that these name."""


def lack(
    name: str, server: Server, source: Mapping[str, str], find: Callable[[str], str | None]
) -> str:
    """What a server needs and this machine has not, as a sentence; "" where it can be given."""
    for variable in server.variables:
        if not source.get(variable):
            return f"the MCP server {name} needs {variable}, which is not set here"
    if server.command and find(server.command[0]) is None:
        return f"the MCP server {name} needs {server.command[0]}, which is not on PATH"
    return ""


def offered(
    names: tuple[str, ...],
    known: Mapping[str, Server],
    source: Mapping[str, str],
    find: Callable[[str], str | None],
) -> Offered:
    """What an agent is told of these servers; `find` gives the whole path of a program.

    Raises: Broken where one is not offered here, or what it needs is not there.
    """
    acp, env = list[dict[str, Any]](), dict[str, str]()
    entries, tables, own = dict[str, Any](), dict[str, str](), dict[str, Any]()
    for name in names:
        server = known.get(name)
        if server is None:
            raise Broken(f"this machine offers no MCP server {name}")
        if lacks := lack(name, server, source, find):
            raise Broken(lacks)
        env |= {variable: source[variable] for variable in server.variables}
        if server.url:
            filled = {key: _filled(value, source) for key, value in server.headers.items()}
            headers = [{"name": key, "value": value} for key, value in filled.items()]
            acp.append({"type": "http", "name": name, "url": server.url, "headers": headers})
            # Programs differ in what they call an address of this kind, and leave out the rest.
            address = {"type": "http", "url": server.url, "httpUrl": server.url}
            entries[name] = {**address, "headers": server.headers}
            # Codex takes a header out of a variable, and that is the whole header.
            whole = {key: f"MUSTER_MCP_{len(env) + n}" for n, key in enumerate(server.headers)}
            env |= {variable: filled[key] for key, variable in whole.items()}
            tables[name] = _inline(url=server.url, env_http_headers=whole, **_CODEX)
            told = {key: _of_opencode(value) for key, value in server.headers.items()}
            own[name] = {"type": "remote", "url": server.url, "headers": told, "enabled": True}
            continue
        program = find(server.command[0])
        assert program is not None
        args = list(server.command[1:])
        given = [{"name": each, "value": source[each]} for each in server.env]
        acp.append({"name": name, "command": program, "args": args, "env": given})
        named = {each: f"${{{each}}}" for each in server.env}
        entries[name] = {"type": "stdio", "command": program, "args": args, "env": named}
        tables[name] = _inline(command=program, args=args, env_vars=server.env, **_CODEX)
        told = {each: _of_opencode(value) for each, value in named.items()}
        own[name] = {
            "type": "local", "command": [program, *args], "environment": told, "enabled": True,
        }  # fmt: skip
    file, config = json.dumps({"mcpServers": entries}), json.dumps({"mcp": own})
    return Offered(tuple(acp), file, tables, config, env)


# It waits for the server, fails without it, and asks nobody about its tools.
_CODEX: Final = {"required": True, "default_tools_approval_mode": "approve"}


def _inline(**values: Any) -> str:
    """A table of TOML on one line."""
    return f"{{{', '.join(f'{key} = {_toml(value)}' for key, value in values.items())}}}"


def _toml(value: Any) -> str:
    match value:
        case Mapping():
            pairs = (f"{_toml(key)} = {_toml(each)}" for key, each in value.items())
            return f"{{{', '.join(pairs)}}}"
        case list() | tuple():
            return f"[{', '.join(map(_toml, value))}]"
        case bool():
            return "true" if value else "false"
        case _:
            # A text of JSON is one of TOML, but for this character, which TOML wants escaped.
            return json.dumps(value, ensure_ascii=False).replace("\x7f", "\\u007f")


def _of_opencode(text: str) -> str:
    return _VARIABLE.sub(r"{env:\1}", text)


def _filled(text: str, source: Mapping[str, str]) -> str:
    return _VARIABLE.sub(lambda found: source[found[1]], text)
