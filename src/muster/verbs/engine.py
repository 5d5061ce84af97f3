"""Verbs about the NATS server of a machine: how it is, and what lets another machine in there."""

from typing import Annotated

from msgspec import Meta, Struct
from msgspec.structs import asdict

from muster.limits import NATS_ACCOUNTS_MAX
from muster.node.engine.told import Answer, Id, Place
from muster.node.verb import Line
from muster.verbs.declaration import Daemon, Nothing, Perform, Request, data, verb


class Engine(Struct, frozen=True):
    """The NATS server of this machine: `off`, `starting`, `serves` or `stopped`, and why.

    `beside` are the machines whose servers are one with it; `leaf_of` is the one to whose server it
    is linked, where it serves this computer alone, and `linked` whether it is now.
    """

    state: str
    address: str
    program: str
    version: str
    pid: int
    machines: int
    restarts: int
    beside: tuple[str, ...]
    why: str
    leaf_of: str
    linked: bool


@verb(
    "engine", auth="local", runs="async", group="The fleet", harmless=True,
    says=(
        Line("This machine runs no NATS server (`[nats]` in its config.toml).", "state=off"),
        Line("The NATS server is starting.", "state=starting"),
        Line(
            "nats-server {version} serves {machines} machines at {address}.",
            "state=serves !leaf_of",
        ),
        Line(
            "nats-server {version} serves this computer at {address}, and is linked to that of "
            "{leaf_of}.",
            "state=serves linked",
        ),
        Line(
            "nats-server {version} serves this computer at {address}, and is not linked to that of "
            "{leaf_of} now: {why}",
            "state=serves leaf_of !linked",
        ),
        Line("It is one with those of {beside}.", "state=serves beside"),
        Line("Its mailboxes are not looked after now: {why}", "state=serves why !leaf_of"),
        Line("The NATS server does not run: {why}", "state=stopped"),
    ),
)  # fmt: skip
async def engine(daemon: Daemon, call: Perform, ask: Nothing) -> Engine:
    """How the NATS server of this machine is.

    It runs where `nats.serve` of config.toml says an address, or `auto`. Three are one where
    `nats.cluster` of the machine with the authority names them. Where `nats.leaf` says an address
    of this computer, or `auto`, it is linked to the server of another machine.

        muster engine
        muster engine --on build
    """
    return Engine(**asdict(daemon.engine.how()))


class Pass(Struct, frozen=True):
    """`jwt` says who is let in at `server`, and at `more`, the other servers of its cluster; the
    machine proves its `nats` key beside it. `word` is the authority's, of whose servers are one.
    `leaves` is where a server of the machine's own is let in.
    """

    jwt: str
    server: str
    more: tuple[str, ...]
    word: str = ""
    leaves: tuple[str, ...] = ()


@verb("engine.pass", auth="peer", runs="async")
async def engine_pass(daemon: Daemon, call: Perform, ask: Nothing) -> Pass:
    """What lets the machine that asks in at the NATS server of this one."""
    return Pass(**daemon.engine.pass_for(call.peer))


class Telling(Request, frozen=True, forbid_unknown_fields=False):
    address: Annotated[str, Meta(max_length=300), data()]
    routes: Annotated[str, Meta(max_length=300), data()]
    machines: Annotated[Annotated[list[Id], Meta(max_length=NATS_ACCOUNTS_MAX)], data()]
    leaves: Annotated[str, Meta(max_length=300), data()] = ""


@verb("engine.told", auth="peer", runs="async")
async def engine_told(daemon: Daemon, call: Perform, ask: Telling) -> Answer:
    """What the NATS server of the machine that asks has to know of these machines."""
    return daemon.engine.cluster.tell(
        call.peer, Place(ask.address, ask.routes, ask.leaves), ask.machines
    )
