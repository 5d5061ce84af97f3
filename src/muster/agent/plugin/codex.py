"""Codex: hooks of the person, and that they are trusted.

Codex leaves out hooks in silence that nobody trusts. Whoever installs Muster was shown them: the
trust is written as Codex itself would, the sha256 of the hook as it reads it, under its place.
RAN with 0.169.0: `app-server` says `trusted` of them, and they run.
"""

import hashlib
import json
import re
from collections.abc import Iterator
from typing import Final

from muster.agent.plugin.edit import Edit, Members, Whole, placed
from muster.agent.plugin.place import Place, Program, hooks, toml_text
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
    ours = Members(file, str(place.hook), adds=adds)
    trust = Tables(folder / "config.toml", place.name, tuple(_trust(place, ours)), _TRUST)
    return [Whole(place.hook, place.hook_text("codex")), ours, trust]


def _trust(place: Place, ours: Members) -> Iterator[tuple[str, str]]:
    """Tables of config.toml that trust our hooks, each by its number in its event's list."""
    there = place.read(ours.path)
    for name, matcher in EVENTS.items():
        event = re.sub(r"(?<!^)(?=[A-Z])", "_", name).lower()
        one = {"async": False, "command": place.command, "timeout": _S, "type": "command"}
        group = {"event_name": event, "hooks": [one], **({"matcher": matcher} if matcher else {})}
        raw = json.dumps(group, sort_keys=True, separators=(",", ":"), ensure_ascii=False)
        item, hook = placed(ours, there, ("hooks", name))
        key, found = f"{ours.path}:{event}:{item}:{hook}", hashlib.sha256(raw.encode()).hexdigest()
        yield f"{_TRUST}{toml_text(key)}", f'trusted_hash = "sha256:{found}"'


CODEX: Final = Program(
    "Codex", "sessions that run already keep what they began with: start `codex` anew", edits
)
