"""The gateways of an attempt: what its agent is given in the place of its keys, and what stands
outside.

Rule 1: a key that a gateway has is in nothing that the agent gets: not under another name either.
Rule 2: an agent without a key keeps what it has: its login is its own, and no gateway can hold it.
"""

import asyncio
import itertools
import json
import socket
from collections.abc import Callable, Iterable, Mapping
from typing import Any, Final, NamedTuple

from muster.agent.catalogue import AgentEntry
from muster.agent.gateway.account import Account
from muster.agent.gateway.address import address_of
from muster.agent.gateway.api import Api
from muster.agent.gateway.call import Call
from muster.agent.gateway.endpoint import Endpoint
from muster.agent.gateway.held import Held
from muster.agent.gateway.key import Key
from muster.agent.gateway.meter import Limits, Meter
from muster.agent.gateway.prices import known
from muster.agent.gateway.server import Gateway
from muster.errors import Broken
from muster.limits import MODEL_STALL_S

# What stands in the place of a key; clients want one before they ask.
PLACEHOLDER: Final = "muster-has-the-key-outside"
# 3128 is the egress proxy's.
FIRST_PORT: Final = 3129


class Planned(NamedTuple):
    """One gateway, to be made outside."""

    port: int
    """Of 127.0.0.1, where the agent finds it."""
    api: Api
    upstream: str
    key: Key
    headers: tuple[tuple[str, str], ...]


class Plan(NamedTuple):
    """How the agent of one attempt reaches its model."""

    gateways: tuple[Planned, ...]
    env: dict[str, str]
    """What its environment has; nothing of it is a secret."""
    removed: frozenset[str]
    """What its environment must not have, beside every variable that has a key of `gateways`."""
    files: dict[str, str]
    """What is written below its home, by the path there."""
    hosts: tuple[str, ...]
    """What else of the network it needs."""

    def inside(self, env: Mapping[str, str]) -> dict[str, str]:
        """The agent's environment, made of what it would have had."""
        kept = {name: v for name, v in env.items() if name not in self.removed}
        keys = [each.key for each in self.gateways]
        return {n: v for n, v in kept.items() if not any(key.is_in(v) for key in keys)} | self.env


def gateways_for(
    entry: AgentEntry, variables: Mapping[str, str], ports: Iterable[int] = ()
) -> Plan:
    """The plan for an agent on a machine with these variables.

    They are the machine's alone, never a spec's: a base URL among them is where the machine's key
    is sent to, and whoever writes a spec could send it to himself.

    Each gateway takes the next of `ports`; without any, 3129 and on. Raises: Broken where a key or
    an address of the machine's owner is none.
    """
    access, taken = entry.access, iter(ports or itertools.count(FIRST_PORT))
    gateways, env, files = [], dict[str, str](), dict[str, str]()
    removed = set[str]()
    for endpoint in access.endpoints:
        found = next((name for name in endpoint.keys if variables.get(name)), "")
        upstream = variables.get(endpoint.base) or endpoint.upstream
        if not found or not upstream:
            continue
        address_of(upstream, f"{endpoint.base or endpoint.api} of this machine")
        port = next(taken)
        api = endpoint.spoken
        key = Key(variables[found], endpoint.keys[found])
        gateways.append(Planned(port, api, upstream, key, _more(endpoint, variables)))
        removed |= {*endpoint.keys, endpoint.headers} - {""}
        values = {"{url}": f"http://127.0.0.1:{port}{api.base}", "{key}": PLACEHOLDER}
        env[found] = PLACEHOLDER
        if endpoint.base:
            env[endpoint.base] = values["{url}"]
        env |= {name: _filled(text, values) for name, text in endpoint.env.items()}
        for path, text in endpoint.files.items():
            filled = _filled(text, values)
            files[path] = _joined(files[path], filled) if path in files else filled
    if gateways:
        # It needs no other account, and a login's token is as good as a key to whoever has it.
        removed |= {name for name in entry.variables if name.endswith(("_KEY", "_TOKEN"))}
    hosts = access.hosts if gateways else (*access.hosts, *access.login_hosts)
    return Plan(tuple(gateways), env, frozenset(removed), files, hosts)


class Gateways:
    """The gateways of one attempt, on what they cost together."""

    def __init__(
        self,
        plan: Plan,
        limits: Limits,
        day: str,
        tell: Callable[[Call], None],
        *,
        env: Mapping[str, str],
        count: Callable[[str], None],
        stall_s: float = MODEL_STALL_S,
        is_spare: Callable[[int], bool] = lambda _: True,
        ended: Callable[[Call], None] = lambda _: None,
    ) -> None:
        """`day` (UTC) says the prices, and `env`, the daemon's, the proxy on the way.

        `ended` hears of every call, of which `tell` hears as far as they are told each.

        Raises: Broken where that is none.
        """
        self.meter = Meter(limits, known(day))
        self._account, self._ended = Account(tell), ended
        held = Held()
        self._made = {
            each.port: Gateway(
                each.api,
                each.upstream,
                each.key,
                self.meter,
                self._add,
                headers=each.headers,
                env=env,
                stall_s=stall_s,
                count=count,
                is_spare=is_spare,
                held=held,
            )
            for each in plan.gateways
        }

    def _add(self, call: Call) -> None:
        self._ended(call)
        self._account.add(call)

    @property
    def running(self) -> int:
        """How many calls of a model have not ended."""
        return sum(each.running for each in self._made.values())

    async def serve(self, listeners: Mapping[int, socket.socket]) -> None:
        """Serve from now on, on the listening socket of each port of the plan."""
        for port, made in self._made.items():
            await made.serve(listeners[port])

    async def close(self) -> None:
        """End every call; all has been told, and the sum is the sum, when this returns."""
        await asyncio.gather(*(each.close() for each in self._made.values()))
        self._account.close()


def _more(endpoint: Endpoint, variables: Mapping[str, str]) -> tuple[tuple[str, str], ...]:
    """The headers that the machine's owner has set for this API."""
    lines = variables.get(endpoint.headers, "").splitlines() if endpoint.headers else []
    headers = []
    for line in filter(str.strip, lines):
        name, colon, value = line.partition(":")
        plain = name.strip().replace("-", "a").replace("_", "a")
        if not colon or not plain.isalnum() or not line.isascii() or not value.isprintable():
            raise Broken(f"{endpoint.headers} has a line that is no header: write name: value")
        headers.append((name.strip().lower(), value.strip()))
    return tuple(headers)


def _joined(one: str, other: str) -> str:
    """Two objects of JSON that stand in one file, name by name."""
    return json.dumps(_both(json.loads(one), json.loads(other)))


def _both(one: Any, other: Any) -> Any:
    if not (isinstance(one, dict) and isinstance(other, dict)):
        return other
    return one | {name: _both(one[name], v) if name in one else v for name, v in other.items()}


def _filled(text: str, values: Mapping[str, str]) -> str:
    for name, value in values.items():
        text = text.replace(name, value)
    return text
