"""Visual Studio Code: a server of tools, as its documentation has it. Not run: it is not here.

Its agents read hooks where Copilot CLI has its own; one file for both would run for both, as
whoever of them it is not. So messages come in by the tool `inbox` here.
"""

import sys
from pathlib import Path
from typing import Final

from muster.agent.plugin.edit import Edit, Members
from muster.agent.plugin.place import Place, Program, ours


def edits(place: Place) -> list[Edit]:
    """What is written. Raises: Malformed."""
    config = Path(place.env.get("XDG_CONFIG_HOME") or place.person / ".config")
    if sys.platform == "darwin":
        config = place.person / "Library" / "Application Support"
    user = config / "Code" / "User" / "mcp.json"
    file = user if place.project is None else place.project / ".vscode" / "mcp.json"
    server = {"type": "stdio", **place.server("vscode")}
    known = ((("servers", place.name), server),)
    return [*ours(place, "vscode"), Members(file, str(place.own), sets=known, reads="commas")]


VSCODE: Final = Program("Visual Studio Code", "its window", edits)
