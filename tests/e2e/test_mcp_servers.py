"""A phase names an MCP server, and its agent has it: the real programs, and a whole fleet."""

import json
import sys
from pathlib import Path

import pytest

from muster.agent import servers
from muster.agent.servers import Server
from tests.e2e import agents, mcp_server
from tests.e2e.stage import ALL, Stage, every
from tests.promise import proves

pytestmark = [pytest.mark.e2e, pytest.mark.timeout(120)]

SERVER = str(Path(__file__).with_name("mcp_server.py"))
# It is there after a while: no program may begin without it.
WORDS = Server(command=(sys.executable, SERVER, "1.5"), env=("WORD",))
FAR = {"Authorization": "Bearer ${FAR_TOKEN}"}
SECRETS = {"WORD": "a-word-of-ours", "FAR_TOKEN": "a-token-of-ours"}
# What they say back, turned round, so that nothing but the servers can have said it.
SAID = ("sruo-fo-drow-a", "sruo-fo-nekot-a reraeB")
# Gemini CLI 0.61 reads servers in no file and no argument, only in settings of its person or root.
CELLS = [(name, mode) for name in ALL for mode in ("acp", "headless")]
CELLS.remove(("gemini", "headless"))


def looks(server):
    return {"tool": "mcp", "server": server, "name": "look_up", "arguments": {"word": "x"}}


def test_a_server_of_the_tests_is_one():
    assert WORDS.refusal() == ""


@proves("agent.mcp-per-task", "agent.real-agents")
@pytest.mark.parametrize(
    ("name", "mode"), [cell for cell in CELLS if cell[0] in every("claude", "codex", "copilot")]
)
def test_a_real_agent_uses_the_servers_of_its_task_and_nobody_is_asked(name, mode, tmp_path):
    """One over standard input and one at an address, each with a secret of its own."""
    if why := agents.absent(name):
        pytest.skip(why)
    with mcp_server.serving() as far, agents.scripted_model(tmp_path) as url:
        known = {"words": WORDS, "far": Server(url=far, headers=FAR)}
        told = servers.offered(tuple(known), known, SECRETS, lambda path: path)
        file = tmp_path / "mcp"
        file.write_text(told.file)
        stage = Stage(name, url, tmp_path, headless=mode == "headless")
        if name == "codex":
            # What the person calls so elsewhere is another one.
            with (stage.home / ".codex" / "config.toml").open("a") as settings:
                settings.write(f'[mcp_servers.words]\ncommand = "{sys.executable}"\n')
        given = {
            "mcp": told.acp, "mcp_file": str(file), "mcp_toml": told.toml, "mcp_json": told.json,
            "mcp_env": told.env,
        }  # fmt: skip
        steps = (looks("words"), looks("far"), {"text": "done"})
        outcome = stage.run(stage.order(*steps, **given))
    what = [(each.kind, each.fields) for each in stage.events]
    assert outcome.status == "ok", (outcome, what)
    requests = (tmp_path / "requests").read_text()
    assert [each for each in SAID if f"it means {each}" not in requests] == [], what
    assert stage.fields("agent.ask") == []
    assert not [s for s in SECRETS.values() if s in json.dumps(what) + file.read_text()]
