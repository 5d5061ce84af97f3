"""Which agents are known, and what of them is here."""

import asyncio
import json

import pytest
from tests.promise import proves

from muster.agent.catalogue import discover, is_logged_in, load, program_argv
from muster.errors import Broken, NotFound


def program(folder, name, says="1.2.3"):
    folder.mkdir(exist_ok=True)
    file = folder / name
    file.write_text(f"#!/bin/sh\necho '{says}'\n")
    file.chmod(0o755)
    return str(file)


def entry(**changes):
    return {
        "title": "Mine",
        "protocol": "acp",
        "command": ["mine", "acp"],
        "program": "mine",
        "version_probe": ["mine", "--version"],
    } | changes


@proves("agent.catalogue")
def test_the_catalogue_knows_the_agents_it_promises():
    assert set(load()) == {"shell", "claude", "codex", "gemini", "opencode", "qwen", "copilot"}


@proves("agent.catalogue")
def test_an_adapter_is_told_to_use_the_program_on_path(tmp_path):
    adapter = program(tmp_path / "bin", "claude-agent-acp")
    claude = program(tmp_path / "bin", "claude")
    argv, env = program_argv("claude", load()["claude"], str(tmp_path / "bin"))
    assert argv == [adapter]
    assert env["CLAUDE_CODE_EXECUTABLE"] == claude


@proves("agent.discover")
@pytest.mark.parametrize("absent", ["claude-agent-acp", "claude"])
def test_an_agent_without_its_adapter_or_its_program_is_not_found(tmp_path, absent):
    names = {"claude-agent-acp", "claude"} - {absent}
    for name in names:
        program(tmp_path / "bin", name)
    with pytest.raises(NotFound, match=f"needs '{absent}' on PATH"):
        program_argv("claude", load()["claude"], str(tmp_path / "bin"))
    found = asyncio.run(discover(load(), {"PATH": str(tmp_path / "bin")}))
    assert set(found) == {"noop", "shell"}


@proves("agent.discover")
@pytest.mark.parametrize(
    ("says", "version"),
    [("2.1.329 (Claude Code)", "2.1.329"), ("v0.5.0-beta.1", "0.5.0-beta.1"), ("no idea", "")],
)
def test_a_found_agent_has_a_path_and_the_version_it_says(tmp_path, says, version):
    path = program(tmp_path / "bin", "qwen", says)
    env = {"PATH": f"{tmp_path / 'bin'}:/bin:/usr/bin"}
    found = asyncio.run(discover({"qwen": load()["qwen"]}, env))
    assert found["qwen"] == (path, version)


@proves("agent.catalogue")
def test_a_persons_entries_are_added_and_win(tmp_path):
    file = tmp_path / "agents.json"
    own = {"mine": entry(), "qwen": entry(title="My Qwen")}
    file.write_text(json.dumps({"version": 1, "agents": own}))
    agents = load(file)
    assert agents["mine"].command == ("mine", "acp")
    assert agents["qwen"].title == "My Qwen"
    assert "claude" in agents


@proves("agent.drivers-by-name")
def test_a_driver_that_is_not_there_is_told_with_those_that_are(tmp_path):
    file = tmp_path / "agents.json"
    file.write_text(json.dumps({"version": 1, "agents": {"mine": entry(protocol="telepathy")}}))
    with pytest.raises(Broken, match="'telepathy'; there are acp, shell"):
        load(file)


@proves("agent.catalogue")
def test_no_entry_of_a_person_stands_in_the_place_of_the_shell(tmp_path):
    file = tmp_path / "agents.json"
    file.write_text(json.dumps({"version": 1, "agents": {"shell": entry()}}))
    assert load(file)["shell"].is_plain


@proves("agent.catalogue")
def test_a_file_that_is_not_there_adds_nothing(tmp_path):
    assert load(tmp_path / "absent.json") == load()


@proves("agent.catalogue")
@pytest.mark.parametrize(
    "text",
    [
        "not json",
        json.dumps({"version": 2, "agents": {}}),
        json.dumps({"version": 1, "agents": {"mine": entry(surprise=1)}}),
        json.dumps({"version": 1, "agents": {"mine": entry(protocol="telepathy")}}),
        json.dumps({"version": 1, "agents": {"mine": entry(protocol=["acp"])}}),
        json.dumps({"version": 1, "agents": {"mine": entry(command=[])}}),
        json.dumps({"version": 1, "agents": {"mine": entry(version_probe=[])}}),
    ],
)
def test_a_file_in_another_form_is_refused_with_its_name(tmp_path, text):
    file = tmp_path / "agents.json"
    file.write_text(text)
    with pytest.raises(Broken, match=r"agents\.json"):
        load(file)


@proves("task.logins-are-facts")
def test_whether_an_agent_looks_logged_in_is_told_by_its_files_and_its_keys(tmp_path):
    agents = load()
    home = {"HOME": str(tmp_path)}
    moved = {**home, "CLAUDE_CONFIG_DIR": str(tmp_path / "elsewhere")}
    assert is_logged_in(agents["claude"], home, "linux") is False
    assert is_logged_in(agents["claude"], home, "darwin") is None, "it may lie in the keychain"
    assert is_logged_in(agents["copilot"], home, "linux") is None, "nobody knows where it lies"
    assert is_logged_in(agents["claude"], {**home, "ANTHROPIC_API_KEY": "sk"}, "linux") is True
    assert is_logged_in(agents["claude"], {**home, "ANTHROPIC_MODEL": "x"}, "linux") is False
    (tmp_path / ".claude").mkdir()
    (tmp_path / ".claude" / ".credentials.json").write_text("{}")
    assert is_logged_in(agents["claude"], home, "linux") is True
    assert is_logged_in(agents["claude"], moved, "linux") is False
    (tmp_path / "elsewhere").mkdir()
    (tmp_path / "elsewhere" / ".credentials.json").write_text("{}")
    assert is_logged_in(agents["claude"], moved, "linux") is True
    assert is_logged_in(agents["codex"], home, "linux") is False
    (tmp_path / ".codex").mkdir()
    (tmp_path / ".codex" / "auth.json").write_text("{}")
    assert is_logged_in(agents["codex"], home, "linux") is True
