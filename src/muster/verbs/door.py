"""Where programs of this machine find its door, for those that configure agents."""

from msgspec import Struct

from muster.verbs.declaration import Daemon, Nothing, Perform, verb


class Door(Struct, frozen=True):
    """The port of loopback that is held, 0 for none; whether a door runs behind it."""

    port: int
    runs: bool


@verb("door", auth="local", runs="async")
async def door(daemon: Daemon, call: Perform, ask: Nothing) -> Door:
    """Where the door of this machine is."""
    return Door(daemon.doorway.port, daemon.doorway.runs)
