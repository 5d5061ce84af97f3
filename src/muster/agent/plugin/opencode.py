"""opencode: a plugin of its own kind, in one file, and a server of tools.

RAN with 1.18.33.
"""

import json
from importlib.resources import files
from pathlib import Path
from typing import Final

from muster.agent.plugin.edit import Edit, Members, Whole
from muster.agent.plugin.place import Place, Program, ours


def edits(place: Place) -> list[Edit]:
    """What is written. Raises: Malformed."""
    config = Path(place.env.get("XDG_CONFIG_HOME") or place.person / ".config") / "opencode"
    folder = config if place.project is None else place.project / ".opencode"
    hook = json.dumps([place.python, "-I", "-S", str(place.hook)], ensure_ascii=False)
    text = (files("muster.agent.plugin") / "opencode.js").read_text(encoding="utf-8")
    command = place.server("opencode")
    server = {"type": "local", "command": [command["command"], *command["args"]], "enabled": True}
    return [
        *ours(place, "opencode"),
        Whole(folder / "plugins" / f"{place.name}.js", text.replace('"@HOOK@"', hook)),
        Members(
            (config if place.project is None else place.project) / "opencode.json", str(place.own),
            # Where it has none, opencode writes it into the file by itself.
            needs=((("$schema",), "https://opencode.ai/config.json"),),
            sets=((("mcp", place.name), server),),
        ),
    ]  # fmt: skip


OPENCODE: Final = Program("opencode", "`opencode`", edits)
