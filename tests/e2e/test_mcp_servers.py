"""A phase names an MCP server, and its agent has it: the real programs, and a whole fleet."""

import json
import sys
from pathlib import Path

import pytest

from muster.agent import servers
from muster.agent.servers import Server
from tests.e2e import agents
from tests.e2e.stage import Stage, every
from tests.promise import proves

pytestmark = [pytest.mark.e2e, pytest.mark.timeout(120)]

SERVER = str(Path(__file__).with_name("mcp_server.py"))
WORDS = Server(command=(sys.executable, SERVER), env=("WORD",))
LOOKS = {"tool": "mcp", "server": "words", "name": "look_up", "arguments": {"word": "x"}}
# What it says back, turned round, so that nothing but the server can have said it.
SECRET, SAID = "a-word-of-ours", "sruo-fo-drow-a"


def test_a_server_of_the_tests_is_one():
    assert WORDS.refusal() == ""


@proves("agent.mcp-per-task", "agent.real-agents")
@pytest.mark.parametrize(
    ("name", "mode"),
    [("claude", "headless"), *((name, "acp") for name in ("claude", *every()) if name in
     ("claude", "gemini", "opencode")), *((name, "headless") for name in every() if name == "copilot")],
)  # fmt: skip
def test_a_real_agent_uses_the_server_of_its_task_and_nobody_is_asked(name, mode, tmp_path):
    if why := agents.absent(name):
        pytest.skip(why)
    told = servers.offered(("words",), {"words": WORDS}, {"WORD": SECRET}, lambda path: path)
    file = tmp_path / "mcp"
    file.write_text(told.file)
    with agents.scripted_model(tmp_path) as url:
        stage = Stage(name, url, tmp_path, headless=mode == "headless")
        given = {"mcp": told.acp, "mcp_file": str(file), "mcp_env": told.env}
        outcome = stage.run(stage.order(LOOKS, {"text": "done"}, **given))
    assert outcome.status == "ok", outcome
    assert f"it means {SAID}" in (tmp_path / "requests").read_text()
    assert stage.fields("agent.ask") == []
    decided = stage.fields("agent.decision")
    assert all("words, which the task names" in each["because"] for each in decided)
    assert SECRET not in json.dumps([each.fields for each in stage.events])
