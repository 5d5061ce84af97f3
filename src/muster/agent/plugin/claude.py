"""Claude Code: a plugin in a folder of ours, and its name in the person's settings.

RAN with 2.1.332: a marketplace that is a folder is loaded at the next start, without a question.
"""

from typing import Final

from muster.agent.plugin.edit import Edit, Members, Whole
from muster.agent.plugin.place import Place, Program, as_json, hooks, ours

EVENTS: Final = {
    "SessionStart": "", "UserPromptSubmit": "", "PostToolUse": "*", "Stop": "", "SessionEnd": "",
}  # fmt: skip
ABOUT: Final = "Messages, memory and notices of your fleet in this session"
_S: Final = 10


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
    return [*plugin(place, "claude", EVENTS), Members(settings, str(place.own), sets=known)]


def plugin(place: Place, agent: str, events: dict[str, str]) -> list[Edit]:
    """A plugin in Claude's format, which other programs read as well, and a market for it."""
    about = {"name": place.name, "version": "1.0.0", "description": ABOUT}
    market = {"name": place.name, "owner": {"name": "Muster"},
              "plugins": [{**about, "source": "./muster"}]}  # fmt: skip
    top, author = place.own / "muster", {"name": "Muster"}
    return [
        Whole(place.own / ".claude-plugin" / "marketplace.json", as_json(market)),
        Whole(top / ".claude-plugin" / "plugin.json", as_json({**about, "author": author})),
        Whole(top / "hooks" / "hooks.json", as_json({"hooks": hooks(place.command, events, _S)})),
        Whole(top / ".mcp.json", as_json({"mcpServers": {"muster": place.server(agent)}})),
        *ours(place, agent),
    ]  # fmt: skip


CLAUDE: Final = Program("Claude Code", "`claude`", edits)
