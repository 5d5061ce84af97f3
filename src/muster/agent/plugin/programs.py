"""Which programs Muster can be put into: each is a file of this folder, by the name of its agent.

To add a program is to add its file and its line here.
"""

from typing import Final

from muster.agent.plugin.claude import CLAUDE
from muster.agent.plugin.codex import CODEX
from muster.agent.plugin.place import Program
from muster.errors import NotFound

PROGRAMS: Final[dict[str, Program]] = {"claude": CLAUDE, "codex": CODEX}


def program(name: str) -> Program:
    """The program of this name. Raises: NotFound."""
    found = PROGRAMS.get(name)
    if found is None:
        known = ", ".join(PROGRAMS)
        raise NotFound(f"{name[:40]!r} is no program that Muster can be put into: {known}")
    return found
