"""A machine that is killed, and the git of its that lives on. Real git throughout."""

import asyncio
import os
import random
import shutil
import subprocess
import sys
import time
from pathlib import Path

import psutil
import pytest
from tests.channel.git_places import bare, git_post, run, take_all, until
from tests.promise import proves

from muster.git.mailbox import Mailbox


@pytest.fixture
def place(tmp_path: Path) -> Path:
    return bare(tmp_path / "place.git")


KILLED = """
import asyncio, sys
from pathlib import Path
from tests.channel.git_places import git_post

# Our own programs come first on the path of git.
sys.executable = sys.argv[3]

async def main():
    post = git_post(Path(sys.argv[1]), "near")
    number = 0
    while True:
        body = f"{sys.argv[2]} {number}"
        await post.put(body.encode(), to="far")
        print(body, flush=True)
        number += 1

asyncio.run(main())
"""


def life(tmp_path: Path, name: str, programs: Path) -> "subprocess.Popen[bytes]":
    words = [sys.executable, "-c", KILLED, str(tmp_path), name, str(programs / "python")]
    env = os.environ | {"PYTHONPATH": os.pathsep.join(sys.path)}
    return subprocess.Popen(words, stdout=subprocess.PIPE, env=env)


@proves("channel.git-killed")
def test_a_machine_that_is_killed_anywhere_loses_nothing_that_it_left(place, tmp_path):
    rng, left = random.Random(1), set[bytes]()
    for number in range(4):
        with life(tmp_path, str(number), tmp_path) as child:
            assert child.stdout is not None
            for _ in range(2):
                left.add(child.stdout.readline().strip())
            time.sleep(rng.random() * 0.2)
            child.kill()
            left |= {line.strip() for line in child.stdout.read().splitlines()}

    async def scenario() -> None:
        near, far = (git_post(tmp_path, each) for each in ("near", "far"))
        await near.put(b"last", to="far")
        found = await take_all(far)
        assert left | {b"last"} <= found
        # What was written down and not pushed at the end of a life is pushed in the next.
        assert len(found) <= len(left) + 1 + 4

    run(scenario())


SLOW = """\
#!{python}
# Git, of which what writes down waits until it is told to go on.
import os, sys, time
words = ["git", *sys.argv[1:]]
if "fast-import" in words:
    open({began!r}, "w").write(str(os.getpid()))
    while not os.path.exists({go!r}):
        time.sleep(0.01)
os.execv({git!r}, words)
"""


@proves("channel.git-killed")
def test_what_a_git_of_an_earlier_life_still_writes_takes_nothing_from_the_next(
    place, tmp_path, monkeypatch
):
    began, go, folder = tmp_path / "began", tmp_path / "go", tmp_path / "bin"
    prune = Mailbox._prune

    async def late(self: Mailbox) -> None:
        """The worst moment: what is ours was looked up, and what is nobody's goes now."""
        go.touch()
        await until(lambda: has_ended(int(began.read_text())))
        await prune(self)

    async def scenario() -> None:
        near, far = (git_post(tmp_path, each) for each in ("near", "far"))
        await near.put(b"one", to="far")
        await near.close()
        real = shutil.which("git")
        folder.mkdir()
        text = SLOW.format(python=sys.executable, began=str(began), go=str(go), git=real)
        (folder / "git").write_text(text)
        (folder / "git").chmod(0o755)
        with life(tmp_path, "two", folder) as child:
            await until(began.exists)
            child.kill()
        monkeypatch.setattr(Mailbox, "_prune", late)
        near = git_post(tmp_path, "near")
        asyncio.get_running_loop().call_later(0.5, go.touch)
        await near.put(b"last", to="far")
        assert {b"one", b"last"} <= await take_all(far)

    run(scenario())


def has_ended(pid: int) -> bool:
    try:
        return psutil.Process(pid).status() == psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return True
