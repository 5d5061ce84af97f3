"""One real agent in a fresh home with a git worktree, driven through runner, shim and program.

    stage = Stage("codex", url, folder, headless=True)
    outcome = stage.run(stage.order({"tool": "shell", "command": "ls"}, {"text": "done"}))

No credentials and no network: the model is fake_model.py on 127.0.0.1, and each agent has a whole
environment of its own. Install them with tests/e2e/install_agents.py.
"""

import asyncio
import json
import os
import subprocess

from muster.agent.base import AttemptOrder
from muster.agent.catalogue import load
from muster.agent.discovery import Discovery
from muster.agent.process import Runner
from tests.agent.world import until
from tests.e2e import install_agents, vendor

ALL = tuple(name for name in install_agents.SETS if name != "mcp")
PATH = install_agents.programs_path(install_agents.folder()) + os.pathsep + os.environ["PATH"]


def every(*short):
    """These agents, or all six where `MUSTER_AGENTS=all` asks for the long form."""
    return ALL if os.environ.get("MUSTER_AGENTS") == "all" else short


class Stage:
    """One agent in a fresh home with a git worktree to work in."""

    def __init__(self, name, url, folder, *, headless=False):
        self.name = name
        # Who never has an adapter on PATH, or is to be driven without it.
        self.headless = (name,) if headless else ()
        self.mark = f"MUSTER_TEST_MARK={folder.name}-{os.getpid()}"
        self.home = folder / "home"
        self.tree = folder / "tree"
        self.home.mkdir()
        # Codex makes no helpers below the folder for temporary files, and its home is below /tmp.
        (folder / "temporary").mkdir()
        self.events = []
        repository = folder / "repository"
        git = ["git", "-c", "user.name=t", "-c", "user.email=t@t", "-C", str(repository)]
        subprocess.run(["git", "init", "-q", "-b", "main", str(repository)], check=True)
        subprocess.run([*git, "commit", "-q", "--allow-empty", "-m", "start"], check=True)
        subprocess.run([*git, "worktree", "add", "-q", "-b", "work", str(self.tree)], check=True)
        key, _, value = self.mark.partition("=")
        self.env = {
            "PATH": PATH,
            "HOME": str(self.home),
            "TMPDIR": str(folder / "temporary"),
            "TERM": "dumb",
            "LANG": "C.UTF-8",
            "NO_PROXY": "127.0.0.1",
            "GIT_AUTHOR_NAME": name,
            "GIT_AUTHOR_EMAIL": "agent@example.invalid",
            "GIT_COMMITTER_NAME": name,
            "GIT_COMMITTER_EMAIL": "agent@example.invalid",
            key: value,
        }
        self.env |= vendor.settled(name, url, self.home)

    def order(self, *steps, **changes):
        script = json.dumps(steps)
        wanted = {
            "task": "t1",
            "epoch": (1, 1),
            "agent": self.name,
            "cwd": str(self.tree),
            "env": self.env,
            "prompt": f"Do what the script says. @@script {script}",
            "timeout_s": 90,
            "grace_s": 3,
        }
        return AttemptOrder(**(wanted | changes))

    async def start(self, order):
        return await Runner(Discovery(load(), self.headless)).start(order, self.events.append)

    def run(self, order):
        async def go():
            return await (await self.start(order)).wait()

        return asyncio.run(go())

    async def answer(self, attempt, asked, *, allow):
        """A person's answer; a yes is used for what was asked, and for nothing else."""
        attempt.answer(asked["ask"], "allow" if allow else "deny")
        if allow:
            used = lambda: [u for u in self.fields("agent.use") if u["ask"] == asked["ask"]]  # noqa: E731
            assert await until(used, 60)
            same = used()[0]["action"] == asked["action"]
            attempt.answer(asked["ask"], "use" if same else "deny")

    def fields(self, kind):
        return [event.fields for event in self.events if event.kind == kind]

    def shell(self, command):
        """A shell step; Codex asks the client only for commands beyond its own sandbox."""
        beyond = {"sandbox_permissions": "require_escalated", "justification": "the test asks"}
        arguments = {"arguments": beyond} if self.name == "codex" else {}
        return {"tool": "shell", "command": command, **arguments}
