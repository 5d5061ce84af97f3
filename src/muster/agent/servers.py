"""The MCP servers that a machine's owner offers to its agents, and how an agent is told of one.

Rule 1: an owner says in `config.toml` what a server is; a spec says its name alone. No command and
no address of a server ever comes from a spec.
Rule 2: a secret is a variable of the machine (`agents.env`), named here as `${NAME}` or in `env`.
It is in no argument: over ACP it goes through the pipe, else through the program's environment.
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
    """The servers of one attempt: as ACP has them, and for a program that reads a file."""

    acp: tuple[dict[str, Any], ...] = ()
    file: str = ""
    """The form of `.mcp.json`, in which variables stand by their names."""
    env: dict[str, str] = {}
    """The variables that the file names."""


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
    acp, entries, env = list[dict[str, Any]](), dict[str, Any](), dict[str, str]()
    for name in names:
        server = known.get(name)
        if server is None:
            raise Broken(f"this machine offers no MCP server {name}")
        if lacks := lack(name, server, source, find):
            raise Broken(lacks)
        env |= {variable: source[variable] for variable in server.variables}
        if server.url:
            found = server.headers.items()
            headers = [{"name": key, "value": _filled(value, source)} for key, value in found]
            acp.append({"type": "http", "name": name, "url": server.url, "headers": headers})
            entries[name] = {"type": "http", "url": server.url, "headers": server.headers}
            continue
        program = find(server.command[0])
        assert program is not None
        args, own = list(server.command[1:]), {each: source[each] for each in server.env}
        given = [{"name": key, "value": value} for key, value in own.items()]
        acp.append({"name": name, "command": program, "args": args, "env": given})
        named = {each: f"${{{each}}}" for each in server.env}
        entries[name] = {"type": "stdio", "command": program, "args": args, "env": named}
    return Offered(tuple(acp), json.dumps({"mcpServers": entries}), env)


def _filled(text: str, source: Mapping[str, str]) -> str:
    return _VARIABLE.sub(lambda found: source[found[1]], text)
