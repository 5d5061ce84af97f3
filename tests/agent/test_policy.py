"""What an agent may do: the table, and what inside means. Links are drawn, not made."""

import pytest
from tests.promise import proves

from muster.agent.policy import (
    ALLOW,
    ASK,
    CHANGING,
    TASK_RULES,
    Policy,
    Rule,
    contains,
    decide,
)

TREE = "/srv/tree"
LINKS = {"/srv/tree/out": "/etc", "/srv/alias": "/srv/tree"}


def resolve(path):
    """A file system in a table: normal form, then the drawn links."""
    parts = []
    for part in path.split("/"):
        if part == "..":
            parts = parts[:-1]
        elif part not in {"", "."}:
            parts.append(part)
            parts = LINKS.get("/" + "/".join(parts), "/" + "/".join(parts)).split("/")[1:]
    return "/" + "/".join(parts)


@proves("agent.policy")
@pytest.mark.parametrize(
    ("path", "inside"),
    [
        ("/srv/tree/a", True),
        ("/srv/tree", True),
        ("a/b", True),
        ("./a/../b", True),
        ("/srv/alias/a", True),
        ("../tree/a", True),
        ("/srv/tree2/a", False),
        ("..", False),
        ("../other", False),
        ("/srv/tree/../secret", False),
        ("out/passwd", False),
        ("/srv/tree/out/passwd", False),
        ("/etc/passwd", False),
        ("/", False),
        ("~/.ssh/config", False),
        ("file:///srv/tree/a", False),
        ("a\0b", False),
    ],
)
def test_a_path_is_inside_only_when_it_ends_up_there(path, inside):
    assert contains(TREE, path, resolve) is inside


@proves("agent.policy")
@pytest.mark.parametrize("kind", TASK_RULES)
def test_a_task_follows_the_table_inside_and_outside(kind):
    rule = TASK_RULES[kind]
    assert decide(Policy(), kind, ["a"], TREE, resolve).answer == rule.inside
    assert decide(Policy(), kind, ["/etc/passwd"], TREE, resolve).answer == rule.outside


@proves("agent.policy")
@pytest.mark.parametrize("kind", sorted(CHANGING))
def test_a_change_that_names_no_path_counts_as_outside(kind):
    decision = decide(Policy(), kind, [], TREE, resolve)
    assert decision.answer == "deny"
    assert "without a path" in decision.because


@proves("agent.policy")
def test_one_path_outside_makes_the_whole_request_outside():
    decision = decide(Policy(), "edit", ["a", "/etc/passwd", "b"], TREE, resolve)
    assert decision.answer == "deny"
    assert "/etc/passwd" in decision.because


@proves("agent.policy")
def test_a_kind_that_nobody_knows_is_treated_as_other():
    assert decide(Policy(), "launch_missiles", [], TREE, resolve).answer == "ask"
    allowing = Policy({"other": ALLOW})
    assert decide(allowing, "launch_missiles", [], TREE, resolve).answer == "allow"


@proves("agent.policy")
def test_a_task_changes_only_the_lines_of_the_table_that_it_names():
    policy = Policy({"execute": ASK, "read": Rule("allow", "ask")})
    assert decide(policy, "execute", [], TREE, resolve).answer == "ask"
    assert decide(policy, "read", ["/etc/hosts"], TREE, resolve).answer == "ask"
    assert decide(policy, "edit", ["/etc/hosts"], TREE, resolve).answer == "deny"


@proves("agent.policy", "agent.every-question-answered")
def test_a_path_that_no_file_system_can_follow_is_outside(tmp_path):
    for n in range(2000):
        (tmp_path / f"l{n}").symlink_to(f"l{n + 1}")
    paths = ["\ud83d.txt", "a/\ud83d/b", "l0", "l1999"]
    answers = [decide(Policy(), "edit", [path], str(tmp_path)).answer for path in paths]
    assert answers == ["deny", "deny", "deny", "allow"]


@proves("agent.policy")
def test_real_links_are_resolved_by_default(tmp_path):
    tree = tmp_path / "tree"
    tree.mkdir()
    (tree / "out").symlink_to("/etc")
    assert decide(Policy(), "edit", ["out/passwd"], str(tree)).answer == "deny"
    assert decide(Policy(), "edit", ["new/file"], str(tree)).answer == "allow"
