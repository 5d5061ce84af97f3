"""A machine looks at itself: bounded, without a shell, and never wrong about what is absent."""

import asyncio
import os
import stat
from types import SimpleNamespace

import msgspec
import psutil
import pytest
from tests.promise import proves

from muster import limits
from muster.agent.catalogue import load
from muster.agent.servers import Server
from muster.fleet.facts import Facts
from muster.log import canon
from muster.node.host.facts import TOOLS, Tools, power, probe, run_tool, servers_of
from muster.task.route import Machine, judge, wants_of


def program(folder, name, script):
    path = folder / name
    path.write_text("#!/bin/sh\n" + script)
    path.chmod(path.stat().st_mode | stat.S_IXUSR)
    return path


def answers(**known):
    asked = []

    def run(argv, path):
        asked.append(tuple(argv))
        return known.get(argv[0])

    return run, asked


@proves("node.facts-are-asked-not-guessed")
def test_a_tool_that_answers_is_a_fact_and_one_that_does_not_is_absent():
    run, asked = answers(**{"git": "\ngit version 2.43.0\nlicence\n", "nvidia-smi": None})
    found = Tools(run).installed(0)
    assert found == ({"git": "git version 2.43.0"}, ())
    assert set(TOOLS.values()) <= set(asked)


def test_each_gpu_is_named():
    run, _ = answers(**{"nvidia-smi": "RTX 4090\nRTX 4090\n\n"})
    assert Tools(run).installed(0).gpus == ("RTX 4090", "RTX 4090")


def test_facts_are_plain_data_that_fit_an_entry_and_that_route_can_judge():
    configured = {"labels": ["gpu"], "agents": {"shell": ""}, "repositories": ["main"]}
    plain = asyncio.run(probe(**configured, slots=2, logins={}, drivers={}, path=os.defpath))
    assert canon.encode(plain)
    facts = msgspec.convert(plain, Facts)
    assert msgspec.to_builtins(facts) == plain
    assert (facts.labels, facts.repositories, facts.slots) == (("gpu",), ("main",), 2)
    machine = Machine("a" * 64, "here", facts)
    assert judge(wants_of({"do": "x", "needs": {"os": facts.os, "cpu": 1}}), machine).fits


def test_tools_are_asked_again_only_after_a_while():
    run, asked = answers(git="git version 1.0")
    tools = Tools(run)
    tools.installed(0)
    once = len(asked)
    tools.installed(limits.FACTS_REFRESH_MS - 1)
    assert len(asked) == once
    tools.installed(limits.FACTS_REFRESH_MS)
    assert len(asked) == 2 * once


@proves("node.facts-are-bounded")
def test_a_tool_that_hangs_fails_or_is_not_there_is_absent_in_bounded_time(tmp_path, monkeypatch):
    monkeypatch.setattr(limits, "PROBE_MS_MAX", 200)
    monkeypatch.setenv("PATH", f"{tmp_path}{os.pathsep}/usr/bin{os.pathsep}/bin")
    # The limit of a test is shorter than this.
    program(tmp_path, "hangs", "exec sleep 600")
    program(tmp_path, "fails", "echo 1.0; exit 3")
    program(tmp_path, "works", 'echo "works $1 in $PWD"')
    # Not where the daemon was started: `go version` there may fetch another Go.
    monkeypatch.chdir(tmp_path)
    assert [run_tool([n, "-v"]) for n in ("hangs", "fails", "missing")] == [None, None, None]
    assert run_tool(["works", "$(id); 1.2"]) == "works $(id); 1.2 in /\n"


@proves("node.facts-are-asked-not-guessed")
def test_npm_is_asked_only_where_its_package_does_not_say_its_version(tmp_path, monkeypatch):
    monkeypatch.setenv("PATH", f"{tmp_path}{os.pathsep}/usr/bin{os.pathsep}/bin")
    for name in ("node", "npm"):
        program(tmp_path, name, "echo 7.0.0 asked")
    home = tmp_path / "lib" / "npm"
    (home / "bin").mkdir(parents=True)
    ask = ["npm", "--version"]
    assert run_tool(ask) == "7.0.0 asked\n"
    (tmp_path / "npm").rename(home / "bin" / "npm-cli.js")
    (tmp_path / "npm").symlink_to(home / "bin" / "npm-cli.js")
    for text in ("", "[1]", "{", "[" * 60_000, '{"name": "npm"}', '{"name": "x", "version": "1"}'):
        (home / "package.json").write_text(text)
        assert run_tool(ask) == "7.0.0 asked\n", text[:20]
    (home / "package.json").write_text('{"name": "npm", "version": "9.2.0"}')
    assert run_tool(ask) == "9.2.0"
    # Without a node there is no npm.
    (tmp_path / "node").unlink()
    monkeypatch.setenv("PATH", str(tmp_path))
    (home / "bin" / "npm-cli.js").write_text("#!/nonexistent\n")
    assert run_tool(ask) is None


def test_what_a_tool_prints_cannot_steer_a_terminal_or_grow():
    run, _ = answers(git="\x1b[31mgit\x07 2.0" + "x" * 5000)
    told = Tools(run).installed(0).tools["git"]
    assert told.isprintable()
    assert len(told) <= 200


@pytest.mark.parametrize(
    ("battery", "comes"),
    [
        (None, "mains"),
        (SimpleNamespace(percent=80.4, power_plugged=True), "mains"),
        (SimpleNamespace(percent=12.9, power_plugged=False), "battery"),
        (SimpleNamespace(percent=50, power_plugged=None), "mains"),
    ],
)
def test_only_an_unplugged_battery_is_battery_power(monkeypatch, battery, comes):
    monkeypatch.setattr(psutil, "sensors_battery", lambda: battery, raising=False)
    assert power() == comes


@proves("agent.mcp-per-task", "node.facts-are-asked-not-guessed")
def test_a_server_is_a_fact_only_where_its_program_and_its_variables_are(tmp_path):
    program(tmp_path, "docs-mcp", "exit 0")
    offers = {
        "docs": Server(command=("docs-mcp",), env=("DOCS_TOKEN",)),
        "web": Server(url="https://example.org/mcp", headers={"A": "Bearer ${WEB_TOKEN}"}),
        "gone": Server(command=("gone-mcp",)),
    }
    path = str(tmp_path)

    def told(**source):
        return servers_of(offers, source, path, {}, {})

    assert told(DOCS_TOKEN="x") == {"mcp:docs": ""}
    assert told(WEB_TOKEN="x", DOCS_TOKEN="") == {"mcp:web": ""}


@proves("agent.mcp-per-task", "node.facts-are-asked-not-guessed")
def test_the_fact_of_a_server_names_the_agents_that_are_not_given_it_as_they_are_driven_here():
    offers = {name: Server(url="https://example.org/mcp") for name in ("docs", "shell")}
    agents = load()
    drivers = {"gemini": "headless", "claude": "headless", "copilot": "acp"}
    assert servers_of(offers, {}, "", agents, drivers) == {
        "mcp:docs": "except gemini", "mcp:shell": "except gemini, copilot",
    }  # fmt: skip
    assert servers_of(offers, {}, "", agents, {"gemini": "acp"})["mcp:docs"] == ""
    many = {f"agent-{n:033}": agents["gemini"] for n in range(5)}
    assert servers_of(offers, {}, "", many, dict.fromkeys(many, "headless")) == {}
