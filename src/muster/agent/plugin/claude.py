"""Claude Code: a plugin in a folder of ours, and its name in the person's settings.

RAN with 2.1.332: a marketplace that is a folder is loaded at the next start, without a question. A
hook in its background (`async`, for versions that know no more) with `asyncRewake` wakes a session
that rests when it ends with 2, and its model reads what stands on its stderr.
"""

from typing import Any, Final

from muster.agent.plugin.edit import Edit, Members, Whole
from muster.agent.plugin.place import Place, Program, as_json, hooks, ours

EVENTS: Final = {
    "SessionStart": "", "UserPromptSubmit": "", "PostToolUse": "*", "Stop": "", "SessionEnd": "",
}  # fmt: skip
ABOUT: Final = "Messages, memory and notices of your fleet in this session"
_S: Final = 10
# The session begins to rest with these. A wait ends with it; Claude ends it after so long, and no
# session rests for longer that somebody goes on with.
WAITS: Final = ("SessionStart", "Stop")
_WAIT_S: Final = 7 * 24 * 3600


def edits(place: Place) -> list[Edit]:
    """What is written. Raises: Malformed."""
    folder = place.folder("CLAUDE_CONFIG_DIR", ".claude")
    settings = folder / "settings.json"
    if place.project is not None:
        settings = place.project / ".claude" / "settings.local.json"
    market = {"source": {"source": "directory", "path": str(place.own)}}
    known = (("extraKnownMarketplaces", place.name), market), (
        ("enabledPlugins", f"{place.name}@{place.name}"), True
    )  # fmt: skip
    return [*_plugin(place), Members(settings, str(place.own), sets=known)]


def _plugin(place: Place) -> list[Edit]:
    """The plugin, and a market for it."""
    about = {"name": place.name, "version": "1.0.0", "description": ABOUT}
    market = {"name": place.name, "owner": {"name": "Muster"},
              "plugins": [{**about, "source": "./muster"}]}  # fmt: skip
    top, author = place.own / "muster", {"name": "Muster"}
    known = hooks(place.command, EVENTS, _S)
    for name in WAITS:
        known[name][0]["hooks"].append(_wait(place))
    return [
        Whole(place.own / ".claude-plugin" / "marketplace.json", as_json(market)),
        Whole(top / ".claude-plugin" / "plugin.json", as_json({**about, "author": author})),
        Whole(top / "hooks" / "hooks.json", as_json({"hooks": known})),
        Whole(top / ".mcp.json", as_json({"mcpServers": {"muster": place.server("claude")}})),
        *ours(place, "claude", wakes="itself"),
    ]  # fmt: skip


def _wait(place: Place) -> dict[str, Any]:
    return {
        "type": "command", "command": place.line(place.waiting), "timeout": _WAIT_S,
        "async": True, "asyncRewake": True,
        "rewakeMessage": "Messages of the fleet came in while this session rested.",
        "rewakeSummary": "Messages of your fleet",
    }  # fmt: skip


CLAUDE: Final = Program("Claude Code", "`claude`", edits)
