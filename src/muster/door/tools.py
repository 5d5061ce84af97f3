"""The tools of an agent: verbs of the daemon, by the list that `make table` writes.

Rule 1: a tool that is not in the list is none; what it takes is what the list says, and nothing of
a call that it does not say reaches the daemon.
Rule 2: a good answer is whole, as its schema says; a bad one is the daemon's own sentence, with the
exit code that a script would get.
"""

import json
from collections.abc import Mapping
from importlib.resources import files
from typing import Any, Final, NamedTuple

import mcp_types as types

from muster.errors import Malformed, MusterError

_FILE: Final = "tools.json"
EXIT_CODE: Final = "muster/exitCode"


class Row(NamedTuple):
    """A tool: the verb behind it, the argument that says who asks, and how its answer is given."""

    tool: types.Tool
    verb: str
    own: str
    wraps: str

    def args(self, given: Mapping[str, Any], reader: str) -> dict[str, Any]:
        """The arguments of the verb. Raises: Malformed for one that the tool has not."""
        known = self.tool.input_schema["properties"]
        if unknown := sorted(given.keys() - known.keys()):
            there = ", ".join(sorted(known)) or "none"
            raise Malformed(
                f"{self.tool.name} takes no {unknown[0][:40]!r}; its arguments are: {there}"
            )
        defaults = {name: each["default"] for name, each in known.items() if "default" in each}
        # A model that has nothing to say for an argument often says null.
        said = {name: value for name, value in given.items() if value is not None}
        return {**defaults, **said, **({self.own: reader} if self.own else {})}

    def answer(self, value: Any) -> types.CallToolResult:
        """A good answer, as its schema says and as text for clients that read nothing else."""
        whole = {self.wraps: value} if self.wraps else value
        text = json.dumps(whole, ensure_ascii=False, separators=(",", ":"))
        return types.CallToolResult(
            content=[types.TextContent(text=text)], structured_content=whole
        )


def load() -> dict[str, Row]:
    """Every tool, by its name, in the order of the list."""
    found = json.loads(files(__package__).joinpath(_FILE).read_text(encoding="utf-8"))
    return {
        row["tool"]["name"]: Row(
            types.Tool.model_validate(row["tool"]), row["verb"], row["own"], row["wraps"]
        )
        for row in found
    }


def failed(error: MusterError) -> types.CallToolResult:
    """A bad answer: one sentence, and the exit code beside it.

    It has no structure: some clients hold that of a bad answer, too, against the schema.
    """
    return types.CallToolResult(
        content=[types.TextContent(text=str(error))],
        is_error=True,
        _meta={EXIT_CODE: error.exit_code},
    )
