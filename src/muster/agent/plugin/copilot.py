"""GitHub Copilot CLI: a file of hooks, and a server of tools.

Its own names of the events would leave out of the input which event it is: those of Claude, which
it takes as well, bring it. RAN with 1.0.102.
"""

from typing import Final

from muster.agent.plugin.edit import Edit, Members, Whole
from muster.agent.plugin.place import Place, Program, as_json, ours

EVENTS: Final = ("SessionStart", "UserPromptSubmit", "PostToolUse", "Stop", "SessionEnd")
_S: Final = 10


def edits(place: Place) -> list[Edit]:
    """What is written. Raises: Malformed."""
    place.check_person("Copilot CLI")
    folder = place.folder("COPILOT_HOME", ".copilot")
    hook = {"type": "command", "bash": place.command, "timeoutSec": _S}
    known = {"version": 1, "hooks": {name: [hook] for name in EVENTS}}
    server = {"type": "local", **place.server("copilot"), "tools": ["*"]}
    return [
        *ours(place, "copilot"),
        Whole(folder / "hooks" / f"{place.name}.json", as_json(known)),
        Members(folder / "mcp-config.json", str(place.own),
                sets=((("mcpServers", place.name), server),), reads="commas"),
    ]  # fmt: skip


COPILOT: Final = Program("GitHub Copilot CLI", "`copilot`", edits)
