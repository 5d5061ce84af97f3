"""Verbs about what this machine does not know of its own past; node/doubt.py has the rules."""

from collections.abc import Mapping
from typing import Any

from muster.errors import Conflict
from muster.node.call import Call
from muster.node.core import Core
from muster.verbs.client import Door


def view(core: Core, _call: Call) -> dict[str, Any] | None:
    """The doubt, and whether another copy of this machine runs; None where all is known."""
    found = core.doubt.view()
    if core.lives.beside is None:
        return found
    why = "another copy of this machine runs with the same key"
    nothing: dict[str, Any] = {"id": "", "reasons": [], "since_ms": core.now.wall_ms}
    before = found if found is not None else nothing
    return {
        **before,
        "reasons": [why, *before["reasons"]],
        "waits": True,
        "awaits": "one of the two copies to be stopped",
    }


def resume(door: Door, _args: Mapping[str, Any]) -> Any:
    """Name the doubt, which is what the operator signs."""
    found = door.ask("doubt", {})
    if found is None or not found["id"]:
        raise Conflict("this machine knows its own past: there is nothing to go on without")
    return {**door.ask("doubt.end", {"doubt": found["id"]}), "reasons": found["reasons"]}


def end(core: Core, call: Call) -> dict[str, Any]:
    """An operator looked, and says to go on without what is lost."""
    core.doubt.end(str(call.args["doubt"]))
    return {"resumed": core.name}
