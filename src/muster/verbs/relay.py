"""Verbs about links through a machine in the middle; the rules are those of node/relay.py."""

from typing import TYPE_CHECKING, Any

from muster.node import event as ev

if TYPE_CHECKING:
    from muster.node.daemon import Daemon


async def carry(daemon: "Daemon", call: ev.Perform) -> Any:
    """Join a machine to another one that has a link here, too."""
    await daemon.relays.carry(call)
    return None


async def serve(daemon: "Daemon", call: ev.Perform) -> Any:
    """A link through the machine that asks, from the one that it names."""
    await daemon.relays.serve(call)
    return None
