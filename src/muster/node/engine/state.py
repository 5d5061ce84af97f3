"""How the NATS server of a machine is, whichever it has: one for the fleet, or for itself."""

from msgspec import Struct


class State(Struct):
    """What the server of this machine is at."""

    state: str = "off"
    address: str = ""
    program: str = ""
    version: str = ""
    pid: int = 0
    machines: int = 0
    restarts: int = 0
    # The names of the others of its cluster.
    beside: tuple[str, ...] = ()
    why: str = ""
    # Of a server for this computer alone: to whose it is linked, and whether it is now.
    leaf_of: str = ""
    linked: bool = False
