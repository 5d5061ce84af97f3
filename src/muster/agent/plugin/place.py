"""Where a program is told of Muster, and what every program's file is made of (pure)."""

import json
import shlex
from collections.abc import Callable, Mapping
from importlib.util import find_spec
from pathlib import Path
from typing import Any, Literal, NamedTuple

from muster.agent.plugin.edit import Edit, Whole
from muster.agent.plugin.hook import WAIT, script
from muster.errors import Malformed


class Place(NamedTuple):
    """One person's programs, and our own files for them.

    `person` is their home folder, `env` their variables, `own` our folder for this program, `name`
    what we are called in it, another home's Muster otherwise; `project` is the folder that alone is
    meant, or none; `python` starts hooks, `socket` is where the daemon listens, and `read` says
    what stands in a file.
    """

    person: Path
    env: Mapping[str, str]
    own: Path
    name: str
    python: str
    socket: str
    read: Callable[[Path], bytes | None]
    project: Path | None = None

    def folder(self, variable: str, usual: str) -> Path:
        """The program's own folder: where its variable says, or the usual one."""
        return Path(self.env.get(variable) or self.person / usual)

    def check_person(self, title: str) -> None:
        """Raises: Malformed where one project alone is meant, which this program cannot do."""
        if self.project is not None:
            raise Malformed(f"{title} is told of Muster for all folders: leave --project out")

    @property
    def hook(self) -> Path:
        """Where the hook of the program lies."""
        return self.own / "hook.py"

    @property
    def shim(self) -> Path:
        """Where the program's end of the door lies."""
        return self.own / "mcp_stdio.py"

    def server(self, agent: str) -> dict[str, Any]:
        """The server of our tools, as most programs have it: a command, and no secret."""
        args = ["-I", "-S", str(self.shim), str(self.own.parent.parent), agent]
        return {"command": self.python, "args": args}

    @property
    def waiting(self) -> Path:
        """Where the hook that wakes a session lies, of a program that has such."""
        return self.own / "wait_script.py"

    @property
    def command(self) -> str:
        """A shell line that runs the hook, and does nothing where that is gone."""
        return self.line(self.hook)

    def line(self, hook: Path) -> str:
        """A shell line that runs this hook, and does nothing where that is gone.

        Python would end with 2 there, with which a hook forbids what it was asked about: nobody
        could type a word to a program whose Muster was taken out meanwhile.
        """
        path = shlex.quote(str(hook))
        return f"[ ! -f {path} ] || exec {shlex.quote(self.python)} -I -S {path}"


def ours(
    place: Place, agent: str, *, wakes: Literal["", "itself", "by its hook"] = ""
) -> list[Edit]:
    """The files of every program: its hook, its end of the door, and what wakes it, which it begins
    itself, or its hook does. Raises: Malformed.
    """
    shim = find_spec("muster.door.mcp_stdio")
    assert shim is not None, "it is a part of Muster"
    assert shim.origin is not None, "it is a file"
    text = Path(shim.origin).read_text(encoding="utf-8")
    waits = [Whole(place.waiting, script(agent, place.socket, WAIT))] if wakes else []
    waiter = str(place.waiting) if wakes == "by its hook" else ""
    hook = Whole(place.hook, script(agent, place.socket, waiter=waiter))
    return [hook, *waits, Whole(place.shim, text)]


def as_json(value: Any) -> str:
    """A file of ours."""
    return json.dumps(value, indent=2, ensure_ascii=False) + "\n"


def hooks(command: str, names: Mapping[str, str], timeout: int) -> dict[str, Any]:
    """Hooks by the program's names of its events, each with the matcher that it needs, or ""."""
    return {
        name: [{**({"matcher": matcher} if matcher else {}),
                "hooks": [{"type": "command", "command": command, "timeout": timeout}]}]
        for name, matcher in names.items()
    }  # fmt: skip


def toml_text(text: str) -> str:
    """A text as TOML takes it between quotes. Raises: Malformed where it cannot stand there."""
    if not text.isprintable():
        raise Malformed(f"no TOML can name {text!r}; choose a plainer path")
    return json.dumps(text, ensure_ascii=False)


class Program(NamedTuple):
    """A program: what it is called, what its person starts anew, what is written for a place."""

    title: str
    starts: str
    edits: Callable[[Place], list[Edit]]

    @property
    def next(self) -> str:
        """What its person does now."""
        return f"sessions that run already keep what they began with: start {self.starts} anew"
