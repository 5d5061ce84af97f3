"""How a session is opened with a program that speaks ACP: the protocol, the session, its mode.

Rule 1: no file and no terminal capability is offered (acp.py, rule 2).
Rule 2: an agent that does not take the mode in which it asks us is not prompted at all.
Rule 3: a session of an attempt that was cut off is gone on with where the agent still knows it;
else it is a new one, and whoever prompts it says so.
"""

import asyncio
import time
from collections.abc import Mapping
from typing import Any, Final, NamedTuple, Protocol

import muster
from muster.agent.rpc import Peer, RpcError
from muster.agent.transcript import mapping, mappings

PROTOCOL_VERSION: Final = 1
AUTH_REQUIRED: Final = -32000
_METHOD: Final = {"mode": "session/set_mode", "model": "session/set_model"}
_MINUTE_S: Final = 60


class Unusable(Exception):
    """The agent cannot be asked; the sentence says why."""


class Listener(Protocol):
    """Who hears what the session tells. While it `replays`, that is its past."""

    replays: bool


class Opened(NamedTuple):
    """The session, whether it is that of an attempt that was cut off, and the model it names."""

    number: str
    resumes: bool
    model: str


async def until_it_loads(order: Mapping[str, Any]) -> None:
    """Wait for the next minute where an agent destroys a session that it loads in the first."""
    if not (order.get("resume") and order.get("loads_next_minute")):
        return
    opened_s = int(order.get("resume_opened_ms") or 0) // 1000
    now_s = time.clock_gettime(time.CLOCK_REALTIME)
    if now_s // _MINUTE_S == opened_s // _MINUTE_S:
        await asyncio.sleep(_MINUTE_S + 0.5 - now_s % _MINUTE_S)


async def open_session(order: Mapping[str, Any], peer: Peer, listener: Listener) -> Opened:
    """A session in the mode in which the agent asks us before it acts.

    Raises: Unusable, RpcError, EOFError.
    """
    offered = {"fs": {"readTextFile": False, "writeTextFile": False}, "terminal": False}
    client = {"name": "muster", "version": muster.__version__}
    hello = {"protocolVersion": PROTOCOL_VERSION, "clientCapabilities": offered}
    said = mapping(await peer.ask("initialize", {**hello, "clientInfo": client}))
    found = await _reopened(order, peer, mapping(said.get("agentCapabilities")), listener)
    resumes = bool(found)
    if not resumes:
        found = mapping(await peer.ask("session/new", _where(order)))
    number = found.get("sessionId")
    if not isinstance(number, str) or not number:
        raise Unusable("the agent opened no session")
    await _choose(peer, number, found, "mode", str(order.get("mode") or ""))
    if wanted := str(order.get("set_model") or ""):
        await _choose(peer, number, found, "model", wanted)
    return Opened(number, resumes, wanted or _current(found, "model"))


def _where(order: Mapping[str, Any]) -> dict[str, Any]:
    """What a session is told that is opened: its folder, and the servers of its task."""
    told = {"cwd": order["cwd"], "mcpServers": list(order.get("mcp") or ())}
    return told | ({"_meta": order["mcp_meta"]} if order.get("mcp_meta") else {})


async def _reopened(
    order: Mapping[str, Any], peer: Peer, able: Mapping[str, Any], listener: Listener
) -> Mapping[str, Any]:
    """The session of an attempt that was cut off; empty where the agent knows it no more."""
    number = str(order.get("resume") or "")
    resumes = "resume" in mapping(able.get("sessionCapabilities"))
    if not number or not (resumes or able.get("loadSession") is True):
        return {}
    asked = {"sessionId": number, **_where(order)}
    listener.replays = True
    try:
        found = await peer.ask("session/resume" if resumes else "session/load", asked)
    except RpcError as error:
        if error.code == AUTH_REQUIRED:
            raise
        return {}
    finally:
        listener.replays = False
    return {**mapping(found), "sessionId": number}


async def _choose(
    peer: Peer, number: str, opened: Mapping[str, Any], what: str, wanted: str
) -> None:
    """Put the session into a mode, or give it a model. Raises: Unusable where it has none such."""
    listed, option = _listed(opened, what), _option(opened, what)
    known = listed or _values(option)
    if not wanted or not known or wanted == _current(opened, what):
        return
    if wanted not in known:
        raise Unusable(f"the agent has no {what} {wanted!r}; it has {', '.join(known[:50])}")
    if listed:
        await peer.ask(_METHOD[what], {"sessionId": number, f"{what}Id": wanted})
    else:
        setting = {"configId": str(option.get("id")), "value": wanted}
        await peer.ask("session/set_config_option", {"sessionId": number, **setting})


def _listed(opened: Mapping[str, Any], what: str) -> list[str]:
    """The modes or models of the session, where it lists them by themselves."""
    each = mappings(mapping(opened.get(f"{what}s")).get(f"available{what.title()}s"))
    return [str(one.get("id" if what == "mode" else "modelId")) for one in each]


def _option(opened: Mapping[str, Any], what: str) -> Mapping[str, Any]:
    """The same among its options."""
    options = mappings(opened.get("configOptions"))
    return next((each for each in options if each.get("category") == what), {})


def _values(option: Mapping[str, Any]) -> list[str]:
    found = []
    for each in mappings(option.get("options")):
        found += [str(one.get("value")) for one in [each, *mappings(each.get("options"))]]
    return [value for value in found if value != "None"]


def _current(opened: Mapping[str, Any], what: str) -> str:
    listed = mapping(opened.get(f"{what}s")).get(f"current{what.title()}Id")
    current = listed or _option(opened, what).get("currentValue")
    return current if isinstance(current, str) else ""
