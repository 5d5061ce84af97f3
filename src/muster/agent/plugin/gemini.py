"""Gemini CLI: hooks and a server of tools in the person's settings.

RAN with 0.61.0: hooks of the person's own settings run without a question.
"""

from pathlib import Path
from typing import Final

from muster.agent.plugin.edit import Edit, Members
from muster.agent.plugin.place import Place, Program, hooks, ours

EVENTS: Final = {
    "SessionStart": "", "BeforeAgent": "", "AfterTool": ".*", "AfterAgent": "", "SessionEnd": "",
}  # fmt: skip
_MS: Final = 10_000


def edits(place: Place) -> list[Edit]:
    """What is written. Raises: Malformed."""
    top = Path(place.env.get("GEMINI_CLI_HOME") or place.person)
    groups = hooks(place.command, EVENTS, _MS)
    settings = Members(
        (place.project or top) / ".gemini" / "settings.json", str(place.own),
        sets=((("mcpServers", place.name), place.server("gemini")),),
        adds=tuple((("hooks", name), group[0]) for name, group in groups.items()),
        reads="comments",
    )  # fmt: skip
    return [*ours(place, "gemini"), settings]


GEMINI: Final = Program("Gemini CLI", "`gemini`", edits)
