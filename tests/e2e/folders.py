"""Real daemons that share a context folder, made by the commands that people type.

with FolderFleet(tmp_path, "hub", "studio") as fleet:
    fleet.share("hub", "studio")
    (fleet.notes("hub") / "n.md").write_text("one")
    has(fleet.notes("studio") / "n.md", "one")
"""

import contextlib
import os
import signal
from pathlib import Path
from typing import Self

from tests.cli.world import Said, muster
from tests.e2e.fleet import until
from tests.ports import free_port


class FolderFleet:
    """A hub and others, each with a folder `notes` beside its home."""

    def __init__(self, folder: Path, *names: str) -> None:
        self.folder, self.names = folder, names
        self.address = {name: f"127.0.0.1:{free_port()}" for name in names}
        for name in names:
            self.notes(name).mkdir(parents=True)

    def __enter__(self) -> Self:
        try:
            self._begin()
        except BaseException:
            self.end()
            raise
        return self

    def __exit__(self, *_: object) -> None:
        self.end()

    def _begin(self) -> None:
        hub, *others = self.names
        self.at(hub, "init", "--name", hub, "--listen", self.address[hub])
        self.up(hub)
        for name in others:
            line = self.at(hub, "invite", name, "--json").value["invitation"]
            self.at(name, "join", line, "--listen", self.address[name])
            self.up(name)

    def end(self) -> None:
        for name in self.names:
            with contextlib.suppress(OSError):
                muster(self.home(name), "down")

    def home(self, name: str) -> Path:
        return self.folder / name / "home"

    def notes(self, name: str) -> Path:
        return self.folder / name / "notes"

    def at(self, name: str, *words: str, code: int = 0) -> Said:
        said = muster(self.home(name), *words, HOME=str(self.folder / name))
        assert said.code == code, (words, said)
        return said

    def hub(self, *words: str, code: int = 0) -> Said:
        return self.at(self.names[0], *words, code=code)

    def up(self, name: str) -> None:
        self.at(name, "up", "--detach")

    def kill(self, name: str) -> None:
        """kill -9 of its daemon."""
        number = int((self.home(name) / "run" / "pid").read_text())
        os.kill(number, signal.SIGKILL)
        until(lambda: not _lives(number), f"the daemon of {name} is gone")

    def share(self, *names: str) -> None:
        """All of them have the folder, and may write it."""
        first, *others = names
        self.at(first, "context", "add", str(self.notes(first)), "--writers", "all")
        for name in others:
            where = str(self.notes(name))
            self.at(self.names[0], "context", "map", "notes", where, "--on", name)


def _lives(number: int) -> bool:
    try:
        text = Path(f"/proc/{number}/stat").read_text()
    except OSError:
        return False
    return text.rpartition(")")[2].split()[0] != "Z"


def read(path: Path) -> str | None:
    try:
        return path.read_text()
    except FileNotFoundError:
        return None


def has(path: Path, text: str | None, *, within_s: float = 60.0) -> None:
    """Wait until a file has this text, or is not there."""
    until(lambda: read(path) == text, lambda: f"{path} has {read(path)!r}", within_s=within_s)
