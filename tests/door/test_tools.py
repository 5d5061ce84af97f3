"""The tools of agents: what they are called, take and give is a promise."""

import json
import re
from pathlib import Path
from typing import Any

import pytest
from tests.promise import proves
from tools import agent_tools, table

from muster.door import tools
from muster.errors import Malformed
from muster.verbs.table import VERBS

VECTOR = Path(__file__).parent.parent / "vectors" / "tools.json"


def listed() -> dict[str, dict[str, Any]]:
    return {row["tool"]["name"]: row["tool"] for row in json.loads(agent_tools.PATH.read_text())}


@proves("door.tools-are-verbs")
def test_the_list_of_tools_is_what_the_verbs_declare():
    assert agent_tools.PATH.read_text() == agent_tools.text(table.rows()), "make table"


@proves("door.tools-are-frozen")
def test_no_tool_and_no_argument_that_agents_know_is_gone_or_means_something_else():
    """Arguments and fields may come; what was there stays, and nothing more is required."""
    frozen, now = json.loads(VECTOR.read_text()), listed()
    for name, was in frozen.items():
        takes, gives = now[name]["inputSchema"], now[name]["outputSchema"]
        assert set(takes.get("required", ())) <= set(was["required"]), name
        for argument, sort in was["takes"].items():
            assert takes["properties"][argument]["type"] == sort, (name, argument)
        assert set(was["gives"]) <= set(gives["properties"]), name
    assert list(frozen) == [name for name in now if name in frozen]
    assert set(now) == set(frozen), "a new tool is frozen, too: python -m tests.door.freeze"


@proves("door.no-more-authority")
def test_no_tool_is_a_verb_that_needs_an_order_or_another_machine():
    for row in tools.load().values():
        assert VERBS[row.verb].auth in ("local", "agent"), row.verb
        # What a capability does not name is refused to every agent.
        assert VERBS[row.verb].auth == "local" or VERBS[row.verb].agents, row.verb


@proves("door.tools-are-verbs")
def test_the_names_fit_every_client_and_every_argument_says_what_it_is():
    for name, tool in listed().items():
        assert re.fullmatch(r"[a-z_]{2,30}", name)
        assert tool["description"].endswith(".")
        assert tool["outputSchema"]["type"] == "object"
        for argument in tool["inputSchema"]["properties"].values():
            assert argument["description"]
            assert argument["type"] in ("string", "integer", "boolean", "array")


@proves("door.tools-are-verbs")
def test_what_the_list_does_not_say_never_reaches_the_daemon_and_who_asks_is_filled_in():
    rows = tools.load()
    inbox = rows["inbox"]
    assert inbox.args({"all": True}, "claude#shop-3fa9") == {
        "all": True, "agent": "claude#shop-3fa9",
    }  # fmt: skip
    for argument in ("agent", "on", "statement", "capability"):
        with pytest.raises(Malformed, match=f"takes no '{argument}'"):
            inbox.args({argument: "x"}, "claude#shop-3fa9")
    assert rows["await"].args({"what": ["x"], "any": None}, "c#s") == {
        "what": ["x"], "timeout": "55s",
    }  # fmt: skip


@proves("door.tools-are-verbs")
def test_an_answer_that_is_a_list_is_given_in_an_object():
    given = tools.load()["tasks"].answer([{"task": "x"}])
    assert given.structured_content == {"tasks": [{"task": "x"}]}
    assert json.loads(given.content[0].text) == given.structured_content


@proves("door.tools-are-verbs")
def test_no_schema_says_what_only_python_reads():
    """A reader that cannot compile one pattern drops every tool: opencode does."""
    assert "\\\\Z" not in agent_tools.PATH.read_text()
