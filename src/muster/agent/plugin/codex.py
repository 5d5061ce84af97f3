"""Codex: hooks of the person, and that they are trusted.

Codex leaves out hooks in silence that nobody trusts. Whoever installs Muster was shown them: the
trust is written as Codex itself would, the sha256 of the hook as it reads it, under its place.
RAN with 0.169.0: `app-server` says `trusted` of them, and they run.
"""

import hashlib
import json
import re
from typing import Any, Final

from muster.agent.plugin.edit import Block, Edit, Members, Names, Whole, put
from muster.agent.plugin.place import Place, Program, hooks, toml_text

EVENTS: Final = {
    "SessionStart": "", "UserPromptSubmit": "", "PostToolUse": "*", "Stop": "",
}  # fmt: skip
_S: Final = 10


def edits(place: Place) -> list[Edit]:
    """What is written. Raises: Malformed."""
    place.check_person("Codex")
    folder = place.folder("CODEX_HOME", ".codex")
    file = folder / "hooks.json"
    wanted = hooks(place.command, EVENTS, _S)
    adds: dict[Names, Any] = {("hooks", name): groups[0] for name, groups in wanted.items()}
    ours = Members(file, str(place.hook), adds=adds)
    return [
        Whole(place.hook, place.hook_text("codex")),
        ours,
        Block(folder / "config.toml", _trust(place, ours)),
    ]


def _trust(place: Place, ours: Members) -> str:
    """Tables of config.toml that trust our hooks, each by its number in its event's list."""
    there = json.loads(put(ours, place.read(ours.path)))["hooks"]
    lines = []
    for name, matcher in EVENTS.items():
        event = re.sub(r"(?<!^)(?=[A-Z])", "_", name).lower()
        one = {"async": False, "command": place.command, "timeout": _S, "type": "command"}
        group = {"event_name": event, "hooks": [one], **({"matcher": matcher} if matcher else {})}
        raw = json.dumps(group, sort_keys=True, separators=(",", ":"), ensure_ascii=False)
        number = there[name].index(ours.adds["hooks", name])
        key, found = f"{ours.path}:{event}:{number}:0", hashlib.sha256(raw.encode()).hexdigest()
        lines += [f"[hooks.state.{toml_text(key)}]", f'trusted_hash = "sha256:{found}"', ""]
    return "\n".join(lines)


CODEX: Final = Program(
    "Codex", "sessions that run already keep what they began with: start `codex` anew", edits
)
