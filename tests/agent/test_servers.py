"""Which MCP servers an agent is told of, and how."""

import json
import tomllib

import pytest
from tests.promise import proves

from muster.agent.base import AttemptOrder
from muster.agent.catalogue import load, start_of
from muster.agent.invocation import invocation
from muster.agent.permission import server_of
from muster.agent.servers import Server, offered
from muster.errors import Broken

DOCS = Server(command=("docs-mcp", "--all"), env=("DOCS_TOKEN",))
WEB = Server(url="https://example.org/mcp", headers={"Authorization": "Bearer ${WEB_TOKEN}"})
KNOWN = {"docs": DOCS, "web": WEB}
SOURCE = {"DOCS_TOKEN": "docs-secret", "WEB_TOKEN": "web-secret", "OTHER": "other-secret"}


def find(program):
    return f"/opt/{program}" if program == "docs-mcp" else None


@proves("agent.mcp-per-task")
def test_a_server_is_told_over_acp_with_its_own_secrets_and_no_others():
    told = offered(("docs", "web"), KNOWN, SOURCE, find)
    docs, web = told.acp
    assert docs == {
        "name": "docs",
        "command": "/opt/docs-mcp",
        "args": ["--all"],
        "env": [{"name": "DOCS_TOKEN", "value": "docs-secret"}],
    }
    assert web["headers"] == [{"name": "Authorization", "value": "Bearer web-secret"}]
    assert "other-secret" not in json.dumps(told.acp)


@proves("agent.mcp-per-task")
def test_a_file_for_a_program_names_the_secrets_and_has_none():
    told = offered(("docs", "web"), KNOWN, SOURCE, find)
    assert "secret" not in told.file
    entries = json.loads(told.file)["mcpServers"]
    assert entries["docs"]["env"] == {"DOCS_TOKEN": "${DOCS_TOKEN}"}
    assert entries["web"]["headers"] == {"Authorization": "Bearer ${WEB_TOKEN}"}
    assert told.env == {
        "DOCS_TOKEN": "docs-secret", "WEB_TOKEN": "web-secret",
        "MUSTER_MCP_2": "Bearer web-secret",
    }  # fmt: skip


@proves("agent.mcp-per-task")
def test_a_table_and_a_configuration_name_the_secrets_and_have_none():
    told = offered(("docs", "web"), KNOWN, SOURCE, find)
    assert "secret" not in told.json + "".join(told.toml.values())
    docs, web = (tomllib.loads(f"it = {told.toml[name]}")["it"] for name in ("docs", "web"))
    assert docs["command"] == "/opt/docs-mcp"
    assert (docs["args"], docs["env_vars"]) == (["--all"], ["DOCS_TOKEN"])
    # Codex takes a whole header out of a variable.
    assert web["env_http_headers"] == {"Authorization": "MUSTER_MCP_2"}
    assert docs["default_tools_approval_mode"] == web["default_tools_approval_mode"] == "approve"
    entries = json.loads(told.json)["mcp"]
    assert entries["docs"]["command"] == ["/opt/docs-mcp", "--all"]
    assert entries["docs"]["environment"] == {"DOCS_TOKEN": "{env:DOCS_TOKEN}"}
    assert entries["web"]["headers"] == {"Authorization": "Bearer {env:WEB_TOKEN}"}


@proves("agent.mcp-per-task")
def test_each_header_of_each_server_has_a_variable_of_its_own():
    headers = {"A": "${WEB_TOKEN}", "B": "b", "C": "${OTHER}"}
    known = {name: Server(url="https://x.org", headers=headers) for name in ("one", "two")}
    told = offered(("one", "two"), known, SOURCE, find)
    tables = [tomllib.loads(f"it = {each}")["it"] for each in told.toml.values()]
    given = [{k: told.env[v] for k, v in each["env_http_headers"].items()} for each in tables]
    assert given == [{"A": "web-secret", "B": "b", "C": "other-secret"}] * 2


@pytest.mark.parametrize(
    "word", ['a"b', "a\\b", "a\nb\x01", "a\x7fb", "{x} = 'y'", "\u00fc\U0001f600"]
)
@proves("agent.mcp-per-task")
def test_whatever_a_word_of_a_command_is_the_table_says_it(word):
    told = offered(("x",), {"x": Server(command=("docs-mcp", word))}, SOURCE, find)
    assert tomllib.loads(f"it = {told.toml['x']}")["it"]["args"] == [word]
    assert told.toml["x"].isprintable()


@proves("agent.mcp-per-task")
@pytest.mark.parametrize(
    ("names", "known", "source", "why"),
    [
        (("docs",), {}, SOURCE, "this machine offers no MCP server docs"),
        (("docs",), KNOWN, {}, "docs needs DOCS_TOKEN, which is not set here"),
        (("web",), KNOWN, {"WEB_TOKEN": ""}, "web needs WEB_TOKEN"),
        (("x",), {"x": Server(command=("x-mcp",))}, {}, "x needs x-mcp, which is not on PATH"),
    ],
)
def test_a_server_that_cannot_be_given_is_this_machines_fault_and_named(names, known, source, why):
    with pytest.raises(Broken, match=why):
        offered(names, known, source, find)


@pytest.mark.parametrize(
    ("server", "why"),
    [
        (Server(), "a command or a url"),
        (Server(command=("x",), url="https://x"), "not both"),
        (Server(url="file:///etc/passwd"), "begins with https"),
        (Server(command=("x",), headers={"A": "b"}), "only a url is told"),
        (Server(url="https://x.org", env=("A",)), "only a command is given"),
    ],
)
@proves("agent.mcp-per-task")
def test_what_is_no_server_says_why(server, why):
    assert why in server.refusal()
    assert DOCS.refusal() == WEB.refusal() == ""


def driven(tmp_path, agent, names=("docs", "web"), *, headless=True, **order):
    entry = load()[agent]
    for name in {agent, entry.command[0]}:
        program = tmp_path / name
        program.write_text("#!/bin/sh\n")
        program.chmod(0o755)
    start = start_of(agent, entry, str(tmp_path), headless=headless)
    told = offered(names, {**KNOWN, "shell": WEB, "write": WEB}, SOURCE, find)
    made = AttemptOrder(
        task="t", epoch=(1, 1), agent=agent, cwd="/", env={}, mcp=told.acp, mcp_file="/v/mcp",
        mcp_toml=told.toml, mcp_json=told.json, mcp_env=told.env, **order,
    )  # fmt: skip
    return invocation(made, entry, start)


@proves("agent.mcp-per-task")
def test_a_headless_program_reads_the_file_and_has_the_secrets_in_its_environment(tmp_path):
    made = driven(tmp_path, "claude")
    assert made["argv"][-4:] == [
        "--mcp-config=/v/mcp", "--strict-mcp-config", "--allowedTools=mcp__docs",
        "--allowedTools=mcp__web",
    ]  # fmt: skip
    assert "secret" not in " ".join(made["argv"])
    assert made["env"]["DOCS_TOKEN"] == "docs-secret"


@proves("agent.mcp-per-task")
@pytest.mark.parametrize("agent", ["claude", "codex", "opencode", "qwen", "copilot"])
@pytest.mark.parametrize("headless", [True, False])
def test_no_secret_is_in_an_argument_and_what_names_variables_is_given_them(
    tmp_path, agent, headless
):
    made = driven(tmp_path, agent, headless=headless)
    assert "-secret" not in " ".join(made["argv"])
    words = " ".join([*made["argv"], *made["env"].values()])
    reads = "/v/mcp" in words or "DOCS_TOKEN" in words
    assert ("docs-secret" in made["env"].values()) == reads
    assert reads or not headless, "without a session it reads them by words or a variable"
    assert not [word for word in made["argv"] if "{server}" in word or "{toml}" in word]


@proves("agent.mcp-per-task")
def test_each_server_of_codex_is_one_word(tmp_path):
    words = driven(tmp_path, "codex")["argv"][-2:]
    assert [word.split("=")[1] for word in words] == ["mcp_servers.docs", "mcp_servers.web"]


@proves("agent.mcp-per-task")
def test_over_acp_codex_is_told_to_wait_and_copilot_is_told_of_none_in_the_session(tmp_path):
    codex = driven(tmp_path, "codex", headless=False)
    assert [each["name"] for each in codex["mcp"]] == ["docs", "web"]
    assert codex["mcp_meta"] == {"mcpStartupAwaitTimeoutMs": 60000}
    copilot = driven(tmp_path, "copilot", headless=False)
    assert (copilot["mcp"], copilot["mcp_meta"]) == ([], {})
    assert copilot["argv"][-3:] == [
        "--additional-mcp-config=@/v/mcp", "--allow-tool=docs", "--allow-tool=web",
    ]  # fmt: skip


@proves("agent.mcp-per-task")
@pytest.mark.parametrize("headless", [True, False])
@pytest.mark.parametrize("name", ["shell", "write"])
def test_a_server_that_is_called_as_what_a_program_does_itself_gives_it_no_leave_for_that(
    tmp_path, name, headless
):
    assert "--allow-tool=docs" in driven(tmp_path, "copilot", headless=headless)["argv"]
    with pytest.raises(Broken, match=f"the MCP server {name} for leave to do what it calls {name}"):
        driven(tmp_path, "copilot", ("docs", name), headless=headless)


@proves("agent.mcp-per-task")
def test_a_headless_mode_that_is_given_no_server_is_not_started_without_it(tmp_path):
    with pytest.raises(Broken, match="given no MCP server; the task needs ACP: gemini"):
        driven(tmp_path, "gemini")


@proves("agent.mcp-per-task")
@pytest.mark.parametrize(
    ("title", "server"),
    [
        ("mcp__docs__search", "docs"),
        ("search (docs MCP Server)", "docs"),
        ("mcp__docs__get_one.v2", "docs"),
        ("mcp__docs__evil__drop_all", ""),
        ("mcp__docs___drop_all", ""),
        ("mcp__docs__", ""),
        ("mcp__docs__search then rm -rf", ""),
        ("search (docs MCP Server) rm -rf", ""),
        ("search (docs MCP Server)\n", ""),
        ("mcp__docsx__search", ""),
        ("mcp__web__x", ""),
        ("tell (docs) MCP Server", ""),
        ("run: x (docs MCP Server)", ""),
        ("", ""),
    ],
)
def test_only_tools_of_the_servers_of_the_task_are_known_by_their_names(title, server):
    assert server_of(title, [{"name": "docs"}], of_server=True) == server


@proves("agent.mcp-per-task")
def test_what_a_model_may_have_put_into_a_title_makes_no_tool_one_of_a_server():
    """Of Gemini a title is a `command` of the model; that it is of a server, its options say."""
    assert server_of("search (docs MCP Server)", [{"name": "docs"}]) == ""
    assert server_of("mcp__docs__search", [{"name": "docs"}]) == "docs"


@proves("agent.mcp-per-task")
def test_gemini_starts_the_servers_of_the_task_alone(tmp_path):
    made = driven(tmp_path, "gemini", headless=False)
    words = ["--allowed-mcp-server-names=docs", "--allowed-mcp-server-names=web"]
    assert made["argv"][-2:] == words
    assert not any("mcp" in each for each in driven(tmp_path, "gemini", (), headless=False)["argv"])
