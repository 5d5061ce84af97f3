"""Which programs Muster can be put into: each is a file of this folder, by the name of its agent.

To add a program is to add its file and its line here.
"""

from typing import Final

from muster.agent.plugin.claude import CLAUDE
from muster.agent.plugin.codex import CODEX
from muster.agent.plugin.copilot import COPILOT
from muster.agent.plugin.cursor import CURSOR
from muster.agent.plugin.gemini import GEMINI
from muster.agent.plugin.opencode import OPENCODE
from muster.agent.plugin.place import Program
from muster.agent.plugin.qwen import QWEN
from muster.agent.plugin.vscode import VSCODE
from muster.errors import NotFound

PROGRAMS: Final[dict[str, Program]] = {
    "claude": CLAUDE, "codex": CODEX, "gemini": GEMINI, "opencode": OPENCODE, "qwen": QWEN,
    "copilot": COPILOT, "cursor": CURSOR, "vscode": VSCODE,
}  # fmt: skip


def program(name: str) -> Program:
    """The program of this name. Raises: NotFound."""
    found = PROGRAMS.get(name)
    if found is None:
        known = ", ".join(PROGRAMS)
        raise NotFound(f"{name[:40]!r} is no program that Muster can be put into: {known}")
    return found
