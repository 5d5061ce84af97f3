"""What an agent may do when it asks: a table, and whether the paths are inside.

Rule 1: the table decides; there is no other rule anywhere. First the kind of tool, then inside
or outside of the working folder; a kind that is not in the table counts as `other`.
Rule 2: inside means: every path, with all symbolic links resolved, lies within the folder. A
request that changes files and names no path is outside.
Rule 3: an answer holds once. The agent's "always" options are never taken, so that each
decision is recorded and none outlives the task.

The policy answers what an agent asks; it is not a fence. A program that does not ask, or that
swaps a link between question and deed, is held by the sandbox or by another user id.
"""

import os.path
from collections.abc import Callable, Sequence
from typing import Final, Literal

import msgspec

Answer = Literal["allow", "deny", "ask"]

CHANGING: Final = frozenset({"edit", "delete", "move"})


class Rule(msgspec.Struct, frozen=True):
    """The answer for one kind of tool."""

    inside: Answer
    outside: Answer


ALLOW: Final = Rule("allow", "allow")
DENY: Final = Rule("deny", "deny")
ASK: Final = Rule("ask", "ask")
INSIDE_ONLY: Final = Rule("allow", "deny")

# For a task in its own worktree, by the kinds of tools of ACP, to which other protocols are mapped.
# A mode switch would lift the rules the task was given.
TASK_RULES: Final[dict[str, Rule]] = {
    "read": INSIDE_ONLY,
    "search": INSIDE_ONLY,
    "think": ALLOW,
    "edit": INSIDE_ONLY,
    "delete": INSIDE_ONLY,
    "move": INSIDE_ONLY,
    "execute": INSIDE_ONLY,
    "fetch": ALLOW,
    "switch_mode": DENY,
    "other": ASK,
}


class Policy(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """The table of one task; kinds that it leaves out follow the default for tasks."""

    rules: dict[str, Rule] = {}


class Decision(msgspec.Struct, frozen=True):
    """An answer and the line of the table that gave it."""

    answer: Answer
    because: str


def contains(folder: str, path: str, resolve: Callable[[str], str]) -> bool:
    """Whether `path`, taken from `folder` when relative, ends up within it.

    What no file system can name, or whose links lead nowhere, ends up outside.
    """
    # A program may read these as somewhere else than the file system does.
    if "\0" in path or path.startswith("~") or "://" in path:
        return False
    try:
        root = resolve(folder)
        target = resolve(os.path.join(root, path))
        return os.path.commonpath((root, target)) == root
    except (OSError, ValueError, RecursionError):
        # Half of a character, a link that changes while it is read, a thousand links in a row.
        return False


def decide(
    policy: Policy,
    kind: str,
    paths: Sequence[str],
    cwd: str,
    resolve: Callable[[str], str] = os.path.realpath,
) -> Decision:
    """The answer of the table to one request; pure but for `resolve`, which reads links."""
    outside = [path for path in paths if not contains(cwd, path, resolve)]
    name = kind if kind in TASK_RULES else "other"
    rule = policy.rules.get(name, TASK_RULES[name])
    if outside:
        return Decision(rule.outside, f"{kind} outside the working folder: {outside[0]}")
    if not paths and kind in CHANGING:
        return Decision(rule.outside, f"{kind} without a path counts as outside")
    return Decision(rule.inside, f"{kind} inside the working folder")
