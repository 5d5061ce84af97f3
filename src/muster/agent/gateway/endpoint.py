"""How an agent reaches its model, as its entry of the catalogue says it.

Rule 1: what stands here names variables, files and hosts; it has no value of a secret.
"""

import msgspec

from muster.agent.gateway.address import address_of
from muster.agent.gateway.api import Api
from muster.agent.gateway.apis import APIS
from muster.errors import Broken
from muster.task.host_rule import host_refusal


class Endpoint(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """One API that an agent speaks, with a key.

    In `env` and `files` stand `{url}` for the address of the gateway, with what the base URLs of
    this API end in, and `{key}` for what stands in the key's place.
    """

    api: str
    """By its name in `APIS`."""
    keys: dict[str, str]
    """The variables that may have its key, the first that is set counts, and the header that takes
    it; "" is the one of the API."""
    base: str = ""
    """The variable that names the base URL, in the agent's environment and on the machine."""
    upstream: str = ""
    """The base URL where that says none; without both there is no such endpoint."""
    headers: str = ""
    """The variable with more headers, as lines `name: value`."""
    env: dict[str, str] = {}
    """More variables of the agent."""
    files: dict[str, str] = {}
    """Files below the agent's home, by their paths there; of several with one path, which are
    objects of JSON then, each has its part."""

    def __post_init__(self) -> None:
        if self.api not in APIS or not self.keys:
            raise ValueError(f"an endpoint needs an api of {', '.join(APIS)}, and keys")
        if any({"", "..", "."} & set(path.split("/")) for path in self.files):
            raise ValueError("a file of an endpoint stands below the agent's home")
        if self.upstream:
            try:
                address_of(self.upstream)
            except Broken as error:
                raise ValueError(str(error)) from error

    @property
    def spoken(self) -> Api:
        return APIS[self.api]


class Access(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What of the network an agent needs."""

    endpoints: tuple[Endpoint, ...] = ()
    """Where it has a key: it goes through a gateway, and has none itself."""
    hosts: tuple[str, ...] = ()
    """`name[:port]` or `*.name[:port]`: what it needs else, however it has its account."""
    login_hosts: tuple[str, ...] = ()
    """What it needs where its account is a login, which no gateway can hold for it."""

    def __post_init__(self) -> None:
        for each in (*self.hosts, *self.login_hosts):
            if why := host_refusal(each):
                raise ValueError(f"{each!r} {why}")
