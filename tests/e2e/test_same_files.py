"""The hooks of programs on a laptop and a desktop, in two clones of one repository: both are told.

Neither machine can be dialled, as it is where people have them: they meet through a hub.
"""

import json
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from muster.agent.plugin import hook
from tests.e2e.fleet import Fleet, Machine, until
from tests.promise import proves

pytestmark = [pytest.mark.e2e, pytest.mark.timeout(120)]


class Program:
    """An agent program on a machine, in a clone of its own: its hook is the one it would start."""

    def __init__(self, machine: Machine, folder: Path, origin: str) -> None:
        self.machine, self.folder = machine, folder
        subprocess.run(["git", "init", "-q", str(folder)], check=True)
        subprocess.run(["git", "-C", str(folder), "remote", "add", "origin", origin], check=True)
        self.script = folder.parent / f"{folder.name}-hook.py"
        # This machine does five things at once; that a hook waits no longer has a test of its own.
        text = hook.script("claude", str(machine.home.socket))
        self.script.write_text(text.replace("LIMIT_S = 0.05", "LIMIT_S = 20.0"))

    def hook(self, event: str, **more: object) -> str:
        """What the model reads of what the hook prints."""
        said = {"session_id": "1", "cwd": str(self.folder), "hook_event_name": event, **more}
        done = subprocess.run(
            [sys.executable, "-I", "-S", str(self.script)], input=json.dumps(said), text=True,
            cwd=self.folder, capture_output=True, check=True, timeout=60,
        )  # fmt: skip
        return (
            str(json.loads(done.stdout)["hookSpecificOutput"]["additionalContext"])
            if done.stdout
            else ""
        )

    def edits(self, path: str) -> str:
        tool = {"tool_name": "Edit", "tool_input": {"file_path": str(self.folder / path)}}
        return self.hook("PostToolUse", **tool)

    @property
    def address(self) -> str:
        (live,) = self.machine.ask("sessions")
        return str(live["address"])


@pytest.fixture
def fleet() -> Iterator[Fleet]:
    with Fleet(["hub", "laptop", "desktop"], deaf=["laptop", "desktop"]) as made:
        made.start()
        until(lambda: "laptop" in made["desktop"].linked(), "desktop reaches laptop")
        yield made


@proves("hook.collisions-across-machines")
def test_programs_on_two_machines_that_edit_one_file_are_told_by_their_hooks(fleet):
    one = Program(fleet["laptop"], fleet.root / "shop", "git@example.com:acme/shop.git")
    other = Program(fleet["desktop"], fleet.root / "copy", "https://example.com/acme/shop")
    one.edits("src/other.py")
    one.edits("src/api.py")
    other.edits("src/api.py")
    told = until(lambda: one.hook("UserPromptSubmit"), "laptop's session is told")
    back = until(lambda: other.hook("UserPromptSubmit"), "desktop's session is told")
    assert told.startswith(f"[muster] {other.address} wrote src/api.py, too, 0 min ago, in another "
                           "checkout on desktop")  # fmt: skip
    assert back.startswith(f"[muster] {one.address} wrote src/api.py, too")
    assert "other.py" not in told + back
    assert one.edits("src/api.py") == other.edits("src/api.py") == ""
