"""What is added to an agent's command for one attempt: its model, and the session that it goes on
with.

Rule 1: what stands in an argument every user of the machine can read: no prompt, no secret.
Rule 2: the words come from the catalogue, with one value in the place of a name. A value never
begins with a dash, for then it would be an option of the program.
Rule 3: no task puts an agent into a mode in which nobody is asked: what it may do is the policy's.
"""

import uuid
from collections.abc import Mapping, Sequence
from typing import Any, Final

import msgspec

from muster.agent.base import AttemptOrder
from muster.agent.catalogue import HEADLESS, AgentEntry, Start, gives_no_server
from muster.errors import Broken, Malformed

# What names variables, and is of no use without them.
_NAMING: Final = ("{file}", "{json}", "{toml}")


def invocation(order: AttemptOrder, entry: AgentEntry, start: Start) -> dict[str, Any]:
    """What the driver is told beside the order.

    Raises: Malformed for a session or model that is no name, Broken where the agent is not run so.
    """
    own, headless = entry.headless, start.driver == HEADLESS
    if order.mode in entry.unasked and order.mode:
        raise Broken(
            f"in its mode {order.mode!r} {order.agent} asks nobody, and no task is put into it"
        )
    if headless and order.mode:
        raise Broken(
            f"{order.agent} is driven by its headless mode here, which knows no other mode; the "
            f"task wants {order.mode!r}, and needs the adapter {' or '.join(entry.command[:1])}"
        )
    argv, env, session, asks = list(start.argv), dict[str, str](), "", ""
    if order.sandbox and headless and own is not None:
        argv = [own.enclosed.get(word, word) for word in argv]
    added = own.model if headless and own is not None else entry.model
    if order.model and added is not None:
        argv += _filled(added.args, model=order.model)
        env = dict(
            zip(added.env, _filled(tuple(added.env.values()), model=order.model), strict=True)
        )
    elif order.model:
        asks = order.model
    servers = _servers(order, entry, start)
    argv += servers["argv"]
    env |= servers["env"]
    if headless and own is not None:
        if order.resume and own.resume:
            session = order.resume
            argv += _filled(own.resume, session=session)
        elif own.session:
            session = str(uuid.uuid4())
            argv += _filled(own.session, session=session)
    return {
        "driver": start.driver,
        "argv": argv,
        "env": {**start.env, **order.env, **env},
        "dialect": own.dialect if own else "",
        "session": session,
        "set_model": asks,
        "loads_next_minute": entry.loads_next_minute,
        "mode": order.mode or entry.mode,
        "login": entry.login,
        **servers["told"],
    }


def _servers(order: AttemptOrder, entry: AgentEntry, start: Start) -> dict[str, Any]:
    """What the program's command, its environment and its session have of its MCP servers.

    Raises: Broken where it is not given one of them.
    """
    names = [str(server["name"]) for server in order.mcp]
    for name in names:
        if why := gives_no_server(entry, start.driver, name):
            raise Broken(f"{order.agent} {why}")
    given = entry.headless.mcp if start.driver == HEADLESS and entry.headless else entry.mcp
    if not names or given is None:
        return {"argv": [], "env": {}, "told": {}}
    argv, texts = list[str](), {"file": order.mcp_file, "json": order.mcp_json}
    for word in given.args:
        for name in names if "{server}" in word else names[:1]:
            known = {"server": name, **texts, "toml": order.mcp_toml.get(name, "")}
            argv += _filled([word], **{k: v for k, v in known.items() if f"{{{k}}}" in word})
    env = {key: _with(value, texts) for key, value in given.env.items()}
    if any(mark in word for word in (*given.args, *given.env.values()) for mark in _NAMING):
        env |= order.mcp_env
    told = {"mcp": msgspec.to_builtins(order.mcp) if given.session else [], "mcp_meta": given.meta}
    return {"argv": argv, "env": env, "told": told}


def _filled(words: Sequence[str], **values: str) -> list[str]:
    """The words with the values in the place of their names."""
    for name, value in values.items():
        if not value or value.startswith("-") or not value.isprintable():
            raise Malformed(f"{value[:40]!r} cannot be a {name}")
    return [_with(word, values) for word in words]


def _with(word: str, values: Mapping[str, str]) -> str:
    for name, value in values.items():
        word = word.replace(f"{{{name}}}", value)
    return word
