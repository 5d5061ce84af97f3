"""Cursor: hooks and a server of tools, as its documentation has them. Not run: nobody may have it
here without its maker's installer.

Its hook before a prompt can add nothing to one, so it has none of ours.
"""

from typing import Final

from muster.agent.plugin.edit import Edit, Members
from muster.agent.plugin.place import Place, Program, ours

EVENTS: Final = ("sessionStart", "postToolUse", "stop", "sessionEnd")
_S: Final = 10
# Of turns that go on; the daemon lets each message do it once.
_TURNS_MAX: Final = 10


def edits(place: Place) -> list[Edit]:
    """What is written. Raises: Malformed."""
    folder = (place.project or place.person) / ".cursor"
    hook = {"command": place.command, "timeout": _S}
    stop = {**hook, "loop_limit": _TURNS_MAX}
    return [
        *ours(place, "cursor"),
        Members(
            folder / "hooks.json", str(place.own), needs=((("version",), 1),),
            adds=tuple((("hooks", name), stop if name == "stop" else hook) for name in EVENTS),
            reads="commas",
        ),
        Members(folder / "mcp.json", str(place.own),
                sets=((("mcpServers", place.name), place.server("cursor")),), reads="commas"),
    ]  # fmt: skip


CURSOR: Final = Program("Cursor", "Cursor", edits)
