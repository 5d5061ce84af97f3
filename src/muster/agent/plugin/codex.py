"""Codex: hooks of the person, and that they are trusted.

Codex leaves out hooks in silence that nobody trusts. Whoever installs Muster was shown them: the
trust is written as Codex itself would, the sha256 of the hook as it reads it, under its place.
RAN with 0.169.0: `app-server` says `trusted` of them, and they run. Codex has no hook that waits: a
session that rests is woken by `codex queue` (RAN with 0.171.0), which the hook's own waiter calls.
"""

import hashlib
import json
import re
from collections.abc import Iterator
from typing import Final

from muster.agent.plugin.edit import Edit, Members, placed
from muster.agent.plugin.place import Place, Program, hooks, ours, toml_text
from muster.agent.plugin.tables import Tables

EVENTS: Final = {
    "SessionStart": "", "UserPromptSubmit": "", "PostToolUse": "*", "Stop": "",
}  # fmt: skip
_S: Final = 10
_TRUST: Final = "hooks.state."


def edits(place: Place) -> list[Edit]:
    """What is written. Raises: Malformed."""
    place.check_person("Codex")
    folder = place.folder("CODEX_HOME", ".codex")
    file = folder / "hooks.json"
    wanted = hooks(place.command, EVENTS, _S)
    adds = tuple((("hooks", name), groups[0]) for name, groups in wanted.items())
    known = Members(file, str(place.hook), adds=adds)
    tables = (_server(place), *_trust(place, known))
    return [
        *ours(place, "codex", wakes="by its hook"),
        known,
        Tables(folder / "config.toml", place.name, tables, _TRUST),
    ]


def _server(place: Place) -> tuple[str, str]:
    """The table of config.toml that has our tools."""
    server = place.server("codex")
    args = ", ".join(map(toml_text, server["args"]))
    lines = f"command = {toml_text(server['command'])}\nargs = [{args}]"
    return f"mcp_servers.{place.name}", lines


def _trust(place: Place, known: Members) -> Iterator[tuple[str, str]]:
    """Tables of config.toml that trust our hooks, each by its number in its event's list."""
    there = place.read(known.path)
    for name, matcher in EVENTS.items():
        event = re.sub(r"(?<!^)(?=[A-Z])", "_", name).lower()
        one = {"async": False, "command": place.command, "timeout": _S, "type": "command"}
        group = {"event_name": event, "hooks": [one], **({"matcher": matcher} if matcher else {})}
        raw = json.dumps(group, sort_keys=True, separators=(",", ":"), ensure_ascii=False)
        item, hook = placed(known, there, ("hooks", name))
        key, found = f"{known.path}:{event}:{item}:{hook}", hashlib.sha256(raw.encode()).hexdigest()
        yield f"{_TRUST}{toml_text(key)}", f'trusted_hash = "sha256:{found}"'


CODEX: Final = Program("Codex", "`codex`", edits)
