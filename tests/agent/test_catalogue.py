"""Which agents are known, and what of them is here."""

import asyncio
import json
from pathlib import Path

import jsonschema
import pytest
from tests.promise import proves

from muster.agent import registry
from muster.agent.catalogue import credentials_of, is_logged_in, load, start_of
from muster.agent.discovery import Discovery
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
    tested = {"shell", "claude", "codex", "gemini", "opencode", "qwen", "copilot"}
    assert set(load()) == tested | {"vibe", "goose", "cursor"}


@proves("agent.catalogue")
def test_an_adapter_is_told_to_use_the_program_on_path(tmp_path):
    adapter = program(tmp_path / "bin", "claude-agent-acp")
    claude = program(tmp_path / "bin", "claude")
    start = start_of("claude", load()["claude"], str(tmp_path / "bin"))
    assert (start.driver, start.argv) == ("acp", [adapter])
    assert start.env["CLAUDE_CODE_EXECUTABLE"] == claude


@proves("agent.headless-without-adapter")
def test_a_program_without_its_adapter_is_driven_by_its_headless_mode(tmp_path):
    claude = program(tmp_path / "bin", "claude")
    start = start_of("claude", load()["claude"], str(tmp_path / "bin"))
    assert (start.driver, start.argv[:2]) == ("headless", [claude, "-p"])


@proves("agent.headless-without-adapter")
@pytest.mark.parametrize(("node", "driver"), [(20, "headless"), (22, "acp"), (None, "acp")])
def test_an_adapter_under_a_node_that_is_too_old_is_as_good_as_absent(tmp_path, node, driver):
    for name in ("claude", "claude-agent-acp"):
        program(tmp_path / "bin", name)
    start = start_of("claude", load()["claude"], str(tmp_path / "bin"), node_major=node)
    assert start.driver == driver


@proves("agent.discover")
@pytest.mark.parametrize("folder", ["", ".", "bin", "./bin"])
def test_a_program_in_the_folder_where_one_stands_is_no_agent(tmp_path, monkeypatch, folder):
    """A spec may say which PATH its commands have; a repository brings no `claude` by it."""
    program(tmp_path, "claude")
    program(tmp_path / "bin", "claude")
    monkeypatch.chdir(tmp_path)
    path = f"{folder}:/no/such/folder"
    with pytest.raises(NotFound):
        start_of("claude", load()["claude"], path)
    own = asyncio.run(Discovery(load()).found({"PATH": path, "HOME": str(tmp_path)}))
    assert "claude" not in own


@proves("agent.headless-rights")
def test_an_agent_of_which_no_headless_mode_keeps_to_the_policy_is_asked_over_acp(tmp_path):
    """None that was tried: what nobody looked at is not let edit without asking."""
    program(tmp_path / "bin", "goose")
    goose = str(tmp_path / "bin" / "goose")
    start = start_of("goose", load()["goose"], str(tmp_path / "bin"), headless=True)
    assert (start.driver, start.argv) == ("acp", [goose, "acp"])


@proves("agent.headless-without-adapter")
def test_the_owner_of_a_machine_can_prefer_the_headless_mode(tmp_path):
    program(tmp_path / "bin", "gemini")
    path = str(tmp_path / "bin")
    assert start_of("gemini", load()["gemini"], path).driver == "acp"
    wished = start_of("gemini", load()["gemini"], path, headless=True)
    assert (wished.driver, wished.argv[1:3]) == ("headless", ["-o", "stream-json"])


@proves("agent.headless-without-adapter")
def test_the_defaults_of_the_headless_mode_count_above_those_of_the_agent(tmp_path):
    program(tmp_path / "bin", "opencode")
    known, path = load()["opencode"], str(tmp_path / "bin")
    asks = start_of("opencode", known, path).env["OPENCODE_PERMISSION"]
    refuses = start_of("opencode", known, path, headless=True).env["OPENCODE_PERMISSION"]
    assert json.loads(asks)["edit"] == "ask"
    assert json.loads(refuses)["external_directory"] == "deny"


@proves("agent.discover")
def test_an_adapter_without_its_program_is_no_agent_and_the_program_is_named(tmp_path):
    program(tmp_path / "bin", "claude-agent-acp")
    wanted = r"claude: no program 'claude' is on PATH; install it with `npm install -g @anthropic"
    with pytest.raises(NotFound, match=wanted):
        start_of("claude", load()["claude"], str(tmp_path / "bin"))
    found = asyncio.run(Discovery(load()).found({"PATH": str(tmp_path / "bin")}))
    assert set(found) == {"noop", "shell"}


@proves("agent.discover")
def test_a_program_that_only_its_adapter_can_drive_names_the_adapter(tmp_path):
    program(tmp_path / "bin", "vibe")
    with pytest.raises(NotFound, match="its adapter 'vibe-acp' is not on PATH"):
        start_of("vibe", load()["vibe"], str(tmp_path / "bin"))


@proves("agent.catalogue")
def test_every_agent_that_has_a_package_of_its_maker_says_how_to_install_it():
    for name, known in load().items():
        assert known.install or known.by_hand or name == "shell", name
        assert "://" not in known.install + known.by_hand


@proves("agent.catalogue")
def test_a_persons_entries_are_added_and_win(tmp_path):
    file = tmp_path / "agents.json"
    own = {"mine": entry(), "qwen": entry(title="My Qwen")}
    file.write_text(json.dumps({"version": 1, "agents": own}))
    agents = load(tmp_path)
    assert agents["mine"].command == ("mine", "acp")
    assert agents["qwen"].title == "My Qwen"
    assert "claude" in agents


@proves("agent.drivers-by-name")
def test_a_driver_that_is_not_there_is_told_with_those_that_are(tmp_path):
    file = tmp_path / "agents.json"
    file.write_text(json.dumps({"version": 1, "agents": {"mine": entry(protocol="telepathy")}}))
    with pytest.raises(Broken, match="'telepathy'; there are acp, headless, shell"):
        load(tmp_path)


@proves("agent.catalogue")
def test_no_entry_of_a_person_stands_in_the_place_of_the_shell(tmp_path):
    file = tmp_path / "agents.json"
    file.write_text(json.dumps({"version": 1, "agents": {"shell": entry()}}))
    assert load(tmp_path)["shell"].is_plain


@proves("agent.catalogue")
def test_a_file_that_is_not_there_adds_nothing(tmp_path):
    assert load(tmp_path / "absent") == load()


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
        json.dumps({"version": 1, "agents": {"mine": entry(protocol="headless")}}),
        json.dumps(
            {"version": 1, "agents": {"mine": entry(headless={"command": ["m"], "dialect": "?"})}}
        ),
        json.dumps({"version": 1, "agents": {"mine": entry(version_probe=[])}}),
    ],
)
def test_a_file_in_another_form_is_refused_with_its_name(tmp_path, text):
    file = tmp_path / "agents.json"
    file.write_text(text)
    with pytest.raises(Broken, match=r"agents\.json"):
        load(tmp_path)


@proves("task.logins-are-facts")
def test_whether_an_agent_looks_logged_in_is_told_by_its_files_and_its_keys(tmp_path):
    agents = load()
    home = {"HOME": str(tmp_path)}
    moved = {**home, "CLAUDE_CONFIG_DIR": str(tmp_path / "elsewhere")}
    assert is_logged_in(agents["claude"], home, "linux") is False
    assert is_logged_in(agents["claude"], home, "darwin") is None, "it may lie in the keychain"
    assert is_logged_in(agents["claude"], {**home, "ANTHROPIC_API_KEY": "sk"}, "linux") is True
    assert is_logged_in(agents["claude"], {**home, "ANTHROPIC_MODEL": "x"}, "linux") is False
    (tmp_path / ".claude").mkdir()
    (tmp_path / ".claude" / ".credentials.json").write_text("{1234}")
    assert is_logged_in(agents["claude"], home, "linux") is True
    assert is_logged_in(agents["claude"], moved, "linux") is False
    (tmp_path / "elsewhere").mkdir()
    (tmp_path / "elsewhere" / ".credentials.json").write_text("{1234}")
    assert is_logged_in(agents["claude"], moved, "linux") is True
    assert is_logged_in(agents["codex"], home, "linux") is False
    (tmp_path / ".codex").mkdir()
    (tmp_path / ".codex" / "auth.json").write_text("{}\n")
    assert is_logged_in(agents["codex"], home, "linux") is False, "somebody has logged out"
    (tmp_path / ".codex" / "auth.json").write_text("{1234}")
    assert is_logged_in(agents["codex"], home, "linux") is True


@proves("task.logins-are-facts")
@pytest.mark.parametrize(
    ("agent", "file", "text"),
    [
        ("claude", ".claude/settings.json", '{"apiKeyHelper": "pass show claude"}'),
        ("codex", ".codex/config.toml", 'model_provider = "ollama"'),
        ("gemini", ".gemini/settings.json", '{"security": {"auth": {"selectedType": "oauth"}}}'),
        ("qwen", ".qwen/settings.json", '{"security": {"auth": {"selectedType": "openai"}}}'),
        ("copilot", ".copilot/config.json", "{}"),
        ("copilot", ".config/gh/hosts.yml", "github.com:"),
    ],
)
def test_an_agent_is_logged_out_only_where_nothing_says_that_its_account_is_elsewhere(
    tmp_path, agent, file, text
):
    """A no keeps all work from a machine: it must be certain."""
    entry, home = load()[agent], {"HOME": str(tmp_path)}
    assert is_logged_in(entry, home, "linux") is False
    before = credentials_of(entry, home)
    (tmp_path / file).parent.mkdir(parents=True)
    (tmp_path / file).write_text(text)
    assert is_logged_in(entry, home, "linux") is None
    assert credentials_of(entry, home) != before, "who was refused may have mended it there"


@proves("task.logins-are-facts")
def test_settings_of_which_none_is_about_an_account_change_nothing(tmp_path):
    (tmp_path / ".gemini").mkdir()
    (tmp_path / ".gemini" / "settings.json").write_text('{"ui": {"theme": "dark"}}')
    home = {"HOME": str(tmp_path)}
    assert is_logged_in(load()["gemini"], home, "linux") is False
    own = {**home, "COPILOT_PROVIDER_BASE_URL": "http://127.0.0.1:11434"}
    assert is_logged_in(load()["copilot"], own, "linux") is None, "a model of one's own asks nobody"
    assert is_logged_in(load()["opencode"], home, "linux") is None, "it has models for everybody"
    (tmp_path / ".local" / "share" / "opencode").mkdir(parents=True)
    (tmp_path / ".local" / "share" / "opencode" / "auth.json").write_text('{"anthropic": {}}')
    assert is_logged_in(load()["opencode"], home, "linux") is True


SCHEMA = json.loads((Path(__file__).parent / "agent.schema.json").read_text())
OURS = sorted((Path(registry.__file__).parent / "known").glob("*.json"))
PLAIN = {
    "id": "kimi",
    "name": "Kimi CLI",
    "version": "1.9.0",
    "description": "A coding agent",
    "website": "https://example.org",
    "distribution": {
        "binary": {
            "linux-x86_64": {
                "archive": "https://example.org/k.tgz",
                "cmd": "./kimi",
                "args": ["acp"],
            }
        }
    },
}


def registered(folder, name="kimi", **changes):
    (folder / "agents").mkdir(exist_ok=True)
    file = folder / "agents" / f"{name}.json"
    file.write_text(json.dumps(PLAIN | changes))
    return file


@proves("agent.registry-format")
@pytest.mark.parametrize("file", OURS, ids=lambda file: file.stem)
def test_each_of_our_files_is_one_of_the_acp_registry(file):
    """`agent.schema.json` is the registry's own."""
    entry = json.loads(file.read_text())
    jsonschema.validate(entry, SCHEMA)
    assert entry["id"] == file.stem
    assert load()[file.stem].comes_from


@proves("agent.registry-format", "agent.catalogue")
def test_a_file_of_the_registry_in_the_home_is_an_agent(tmp_path):
    """As it stands there, with nothing of ours in it."""
    registered(tmp_path)
    jsonschema.validate(PLAIN, SCHEMA)
    known = load(tmp_path)["kimi"]
    assert (known.title, known.command, known.tested) == ("Kimi CLI", ("kimi", "acp"), "1.9.0")
    kimi = program(tmp_path / "bin", "kimi")
    start = start_of("kimi", known, str(tmp_path / "bin"))
    assert (start.driver, start.argv) == ("acp", [kimi, "acp"])
    found = asyncio.run(Discovery(load(tmp_path)).found({"PATH": str(tmp_path / "bin")}))
    assert found["kimi"] == (kimi, "1.2.3", "acp")


@proves("agent.registry-format")
@pytest.mark.parametrize(
    ("way", "command", "install"),
    [
        ({"npx": {"package": "@x/y-acp@1.0.0", "args": ["a"]}}, ("y-acp", "a"), "npm install -g @x/y-acp"),
        ({"npx": {"package": "auggie"}}, ("auggie",), "npm install -g auggie"),
        ({"uvx": {"package": "fast-agent==0.4"}}, ("fast-agent",), "uv tool install fast-agent"),
    ],
)  # fmt: skip
def test_a_package_says_which_program_is_looked_for_and_what_installs_it(
    tmp_path, way, command, install
):
    registered(tmp_path, distribution=way)
    known = load(tmp_path)["kimi"]
    assert (known.command, known.install) == (command, install)
    named = {"program": "k", "adapter": "k-acp", "env": {"A": "1"}}
    registered(tmp_path, distribution=way, muster=named)
    known = load(tmp_path)["kimi"]
    assert (known.program, known.command[0], known.env) == ("k", "k-acp", {"A": "1"})


@proves("agent.registry-format")
@pytest.mark.parametrize(
    ("changes", "why"),
    [
        ({"id": "other"}, "must be called other.json"),
        ({"id": "../x"}, "id"),
        ({"version": "new"}, "version"),
        ({"distribution": {}}, "npx, uvx or binary"),
        ({"muster": {"surprise": 1}}, "surprise"),
        ({"description": "x" * 70_000}, "65536 is the most"),
        ({"x": json.loads("[" * 900 + "]" * 900)}, "deep|recursion|not usable"),
    ],
)
def test_a_file_that_is_none_of_the_registry_is_refused_with_its_name(tmp_path, changes, why):
    file = registered(tmp_path, **changes)
    if "x" in changes:
        file.write_text(json.dumps(PLAIN)[:-1] + ', "x": ' + "[" * 30_000 + "]" * 30_000 + "}")
    with pytest.raises(Broken, match=why) as told:
        load(tmp_path)
    assert str(file) in str(told.value)


@proves("agent.registry-format")
def test_more_files_than_there_are_agents_are_refused(tmp_path, monkeypatch):
    monkeypatch.setattr(registry, "FILES_MAX", 0)
    registered(tmp_path)
    with pytest.raises(Broken, match="has 1 files, and 0 is the most"):
        load(tmp_path)
