"""Verbs about links: to a machine that moved, and through one in the middle."""

from typing import Annotated

from msgspec import Struct, field
from msgspec.structs import replace

from muster.channel import FIRST
from muster.errors import Refused, Unreachable
from muster.node.verb import Line
from muster.verbs.declaration import Daemon, Perform, Request, Stream, data, opt, pos, verb


class Reach(Request, frozen=True):
    machine: Annotated[str, pos("the machine that moved", kind="machine")]
    address: Annotated[str, pos("host:port under which it is reached now")]
    anyway: Annotated[bool, opt("remember it although nobody answers there")] = False
    channel: Annotated[str, opt("the channel of that address")] = FIRST


class Reached(Struct, frozen=True):
    machine: str
    address: str
    linked: bool


@verb(
    "reach", auth="local", runs="async", group="The fleet",
    says=(
        Line("{machine} is at {address}, and there is a link to it now.", "linked"),
        Line("{machine} is looked for at {address} from now on.", "!linked"),
    ),
)  # fmt: skip
async def reach(daemon: Daemon, call: Perform, ask: Reach) -> Reached:
    """Tell this machine where another one is now, when its address has changed.

    The machine itself proves that it is there. Raises: Unreachable where nobody is, unless it is
    to be kept all the same; Refused where it is another machine.

        muster reach build 192.168.1.20:7447
    """
    record = daemon.core.roster.find(ask.machine)
    way = daemon.paths.way(ask.channel, ask.address)
    if record.machine == daemon.core.machine:
        raise Refused(
            "a machine does not dial itself: `address` in config.toml says where others reach it"
        )
    answer = Reached(record.name, way.address, linked=True)
    try:
        link = await daemon.paths.dial(record.machine, way)
    except Unreachable as error:
        if not ask.anyway:
            said = str(error).removesuffix("; try later")
            raise Unreachable(
                f"{record.name} is not there: {said}; nothing was changed, --anyway remembers the "
                "address all the same"
            ) from error
        daemon.machine.found_at(record.machine, way)
        daemon.paths.look()
        return replace(answer, linked=False)
    daemon.machine.found_at(record.machine, way)
    daemon.supervisor.run("dial", daemon.paths.adopt(link, way.address))
    return answer


class Relay(Request, frozen=True, forbid_unknown_fields=False):
    to: Annotated[str, data()] = ""


@verb("relay", auth="peer", runs="stream")
async def relay(daemon: Daemon, call: Perform, stream: Stream, ask: Relay) -> None:
    """A way to another machine, through this one."""
    await daemon.relays.carry(call, stream)


class ServeRelay(Request, frozen=True, forbid_unknown_fields=False):
    by: Annotated[str, data()] = field(default="", name="from")


@verb("relay.serve", auth="peer", runs="stream")
async def serve_relay(daemon: Daemon, call: Perform, stream: Stream, ask: ServeRelay) -> None:
    """Another machine wants a link, through the one that asks."""
    await daemon.relays.serve(call, stream)
