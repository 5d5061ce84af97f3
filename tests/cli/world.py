"""Real homes in a temporary folder, and the command run as a person runs it."""

import contextlib
import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

from muster.node.host.config import with_setting

LIMIT_S = 90


class Said(NamedTuple):
    """What a command printed, and its exit code."""

    out: str
    err: str
    code: int

    @property
    def value(self) -> Any:
        """The answer of a command with --json."""
        return json.loads(self.out)

    @property
    def error(self) -> Any:
        """The error of a command with --json."""
        return json.loads(self.err.strip().splitlines()[-1])["error"]


def environment(home: Path, **more: str) -> dict[str, str]:
    """Nothing of the person who runs the tests: no home, no agent's capability, no keychain."""
    more = {"DBUS_SESSION_BUS_ADDRESS": "unix:path=/nonexistent", **more}
    kept = {k: v for k, v in os.environ.items() if not k.startswith("MUSTER_")}
    state = str(home.parent / f"{home.name}-state")
    return {**kept, "MUSTER_HOME": str(home), "MUSTER_STATE": state, **more}


@contextlib.contextmanager
def ended(child: "subprocess.Popen[str]") -> Iterator["subprocess.Popen[str]"]:
    """A program that goes on by itself; it ends with the test, also with one that fails."""
    try:
        yield child
    finally:
        child.kill()
        child.communicate()


def muster(home: Path, *words: str, stdin: str | None = None, **more: str) -> Said:
    """`muster WORDS` with this home."""
    done = subprocess.run(
        [sys.executable, "-m", "muster", *words],
        env=environment(home, **more),
        input=stdin or "",
        capture_output=True,
        text=True,
        timeout=LIMIT_S,
        check=False,
    )
    if done.returncode == 0 and words[:1] in {("init",), ("join",)}:
        unenclosed(home)
    return Said(done.stdout, done.stderr, done.returncode)


def unenclosed(home: Path) -> None:
    """Work that says nothing of a sandbox runs without one in this home, wherever the tests run."""
    config = home / "config.toml"
    text = with_setting(config.read_text(encoding="utf-8"), "sandbox.default", "off")
    config.write_text(text, encoding="utf-8")


def everything_in(folder: Path) -> dict[str, bytes]:
    """Every file below a folder: what must be the same after a refusal."""
    return {
        str(p.relative_to(folder)): p.read_bytes() for p in sorted(folder.rglob("*")) if p.is_file()
    }
