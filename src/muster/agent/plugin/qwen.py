"""Qwen Code: hooks and a server of tools in the person's settings.

RAN with 0.24.4: hooks of the person's own settings run without a question.
"""

from typing import Final

from muster.agent.plugin.edit import Edit, Members
from muster.agent.plugin.place import Place, Program, hooks, ours

EVENTS: Final = {
    "SessionStart": "", "UserPromptSubmit": "", "PostToolUse": "*", "Stop": "", "SessionEnd": "",
}  # fmt: skip
_S: Final = 10


def edits(place: Place) -> list[Edit]:
    """What is written. Raises: Malformed."""
    folder = place.folder("QWEN_HOME", ".qwen")
    if place.project is not None:
        folder = place.project / ".qwen"
    groups = hooks(place.command, EVENTS, _S)
    settings = Members(
        folder / "settings.json", str(place.own),
        sets=((("mcpServers", place.name), place.server("qwen")),),
        adds=tuple((("hooks", name), group[0]) for name, group in groups.items()),
        reads="comments",
    )  # fmt: skip
    return [*ours(place, "qwen"), settings]


QWEN: Final = Program("Qwen Code", "`qwen`", edits)
