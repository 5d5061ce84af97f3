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
    waits = json.dumps(str(place.waiting), ensure_ascii=False)
    text = text.replace('"@HOOK@"', hook).replace('"@WAIT@"', waits)
    command = place.server("opencode")
    server = {"type": "local", "command": [command["command"], *command["args"]], "enabled": True}
    return [
        *ours(place, "opencode", wakes="itself"),
        Whole(folder / "plugins" / f"{place.name}.js", text),
        Members(
            _settings(place, config), str(place.own),
            # Where it has none, opencode writes it into the file by itself.
            needs=((("$schema",), "https://opencode.ai/config.json"),),
            sets=((("mcp", place.name), server),), reads="commas",
        ),
    ]  # fmt: skip


def _settings(place: Place, config: Path) -> Path:
    """The file of settings: the one that the person has, where that is the one with comments."""
    folder = config if place.project is None else place.project
    plain, other = folder / "opencode.json", folder / "opencode.jsonc"
    only_other = place.read(plain) is None and place.read(other) is not None
    return other if only_other else plain


OPENCODE: Final = Program("opencode", "`opencode`", edits)
