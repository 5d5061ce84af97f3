"""Shared repositories for tests of mailboxes: real git, and no waiting between two pushes."""

import asyncio
import hashlib
import random
import subprocess
from collections.abc import Callable, Coroutine
from pathlib import Path
from typing import Any, Final

from tests.channel import rigs
from tests.git.repositories import sh

from muster.channel import git
from muster.channel.base import Visitor
from muster.git import mailbox

QUICK: Final = git.Terms(gap_s=0.0, ack_s=600.0, gone_s=600.0)

# What ended nothing, by its word, since a scenario began.
SURVIVED: Final[list[str]] = []
_OPEN: Final[list[git.GitPost]] = []


def bare(path: Path) -> Path:
    """An empty repository that takes pushes of anybody who may write it."""
    path.mkdir(parents=True)
    sh(path, "init", "-q", "--bare")
    return path


def git_post(
    folder: Path, machine: str, place: str = "", terms: git.Terms = QUICK, **more: Any
) -> git.GitPost:
    """The mailbox of a machine in `place.git` of a folder, in which it has its own copy, too."""
    options = git.Options(place=place or str(folder / "place.git"), deadline_s=1)
    visitor = Visitor(
        machine, folder / f"home-{machine}", lambda what, error: SURVIVED.append(what), **more
    )
    post = git.open_channel(options, visitor)
    post.terms = terms
    _OPEN.append(post)
    return post


def run(scenario: Coroutine[Any, Any, None]) -> None:
    """One scenario, after which every mailbox of it is closed."""

    SURVIVED.clear()

    async def closing() -> None:
        try:
            await scenario
        finally:
            while _OPEN:
                await _OPEN.pop().close()

    # Git is dozens of processes, on a machine that may be busy.
    rigs.run(closing(), within_s=100.0)


def litter_git(place: Path) -> None:
    """More branches than are looked at, each with something for far, before all others by name."""
    lines = list[bytes]()
    for number in range(300):
        ref, raw = f"{mailbox.BRANCHES}0-{number}", b"litter %d" % number
        name = hashlib.sha256(raw).hexdigest()
        lines.append(f"commit {ref}\ncommitter x <x@localhost> now\ndata 0\n".encode())
        lines.append(f"M 100644 inline to/far/{name}.mp\ndata {len(raw)}\n".encode() + raw + b"\n")
    subprocess.run(
        ["git", "fast-import", "--quiet", "--force", "--date-format=now"],
        cwd=place, input=b"".join(lines), check=True,
    )  # fmt: skip


async def take_all(post: git.GitPost, most: int = 64) -> set[bytes]:
    """Everything, each once; nothing waits afterwards."""
    found = set()
    while packets := await post.take(most):
        found |= {each.body for each in packets}
        await post.ack([each.id for each in packets])
    return found


async def until(true: Callable[[], Any]) -> None:
    async with asyncio.timeout(60):
        while True:
            if true():
                return
            await asyncio.sleep(0.02)


def foreign(place: Path, tmp_path: Path, *branches: str) -> str:
    """A history of two commits by somebody else, force-pushed to branches; the newest."""
    source = tmp_path / f"foreign-{random.random()}"
    source.mkdir()
    sh(source, "init", "-q")
    for text in ("one", "two"):
        (source / "readme").write_text(text)
        sh(source, "add", "readme")
        sh(source, "commit", "-q", "-m", text)
    for branch in branches:
        sh(source, "push", "-q", "--force", str(place), f"HEAD:{branch}")
    return sh(source, "rev-parse", "HEAD")
