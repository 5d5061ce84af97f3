"""A git that goes on after its daemon was killed, and the next daemon at the same repository."""

import contextlib
import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import pytest
from tests.git.repositories import checkout, refs, sh, wait
from tests.promise import proves

from muster import limits
from muster.errors import Unreachable
from muster.git import cache, mirror, repository

HUB = "a" * 64
# What a daemon does, which is killed meanwhile: {path} is ours, {url} somebody else's.
WORKS = {
    "mirror": "mirror.pull(Path({path!r}).parent.parent, HUB, 'main', {url!r}, 'main')",
    "follow": "mirror.follow(Path({path!r}), HUB, {url!r}, 'main')",
    "cache": "cache.refresh(Path({path!r}), {url!r})",
    "origin": "repository.fetch(Path({path!r}), {url!r}, ['+refs/heads/*:refs/heads/*'], 60_000)",
}
DAEMON = """\
import asyncio
from pathlib import Path
from muster.git import cache, mirror, repository
HUB = "a" * 64
asyncio.run(WORK)
"""


class Place(NamedTuple):
    """A repository of ours, the one that it is a copy of, and that one as it was before."""

    path: Path
    kept: Path
    slow: Path


def work(what: str, path: Path, url: Path) -> str:
    return WORKS[what].format(path=str(path), url=str(url))


def again(what: str, place: Place) -> None:
    """What the next daemon does."""
    names = {"mirror": mirror, "cache": cache, "repository": repository, "Path": Path, "HUB": HUB}
    wait(eval(work(what, place.path, place.kept), names))


@pytest.fixture
def place(tmp_path: Path) -> Place:
    kept = wait(repository.add(tmp_path / "there", "main", str(checkout(tmp_path / "src")))).path
    path = tmp_path / "here" / HUB / "main.git"
    wait(mirror.pull(tmp_path / "here", HUB, "main", str(kept), "main"))
    # Whoever serves it opens its HEAD, a pipe, and waits for somebody who writes.
    slow = tmp_path / "slow.git"
    shutil.copytree(kept, slow)
    (slow / "HEAD").unlink()
    os.mkfifo(slow / "HEAD")
    return Place(path, kept, slow)


@contextlib.contextmanager
def outlived(place: Place, what: str) -> Iterator[None]:
    """A daemon was killed while its git waits; at the end it is served, as all was before."""
    pipe = place.slow / "HEAD"
    words = DAEMON.replace("WORK", work(what, place.path, place.slow))
    with subprocess.Popen([sys.executable, "-c", words]) as daemon:
        # It is open as soon as somebody waits at the other end.
        writing = os.open(pipe, os.O_WRONLY)
        daemon.kill()
    pipe.unlink()
    pipe.write_text("ref: refs/heads/main\n")
    with open(writing, "w") as waited_for:
        yield
        waited_for.write("ref: refs/heads/main\n")


@proves("git.outlived")
@pytest.mark.parametrize("what", WORKS)
def test_a_git_that_outlives_its_daemon_overwrites_nothing_that_the_next_one_took(
    place: Place, what: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    with outlived(place, what):
        sh(place.kept, "branch", "new", "main")
        before = refs(place.path)
        monkeypatch.setattr(limits, "GIT_OUTLIVED_MS_MAX", 200)
        with pytest.raises(Unreachable, match="of an earlier start still works in"):
            again(what, place)
        assert refs(place.path) == before
        monkeypatch.undo()
    # It waits, and has the last word.
    again(what, place)
    assert any(name.endswith("/new") for name in refs(place.path))


@proves("git.outlived")
def test_a_mirror_that_a_git_still_writes_into_becomes_no_repository(
    place: Place, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    here, repos = place.path.parent.parent, tmp_path / "repos"
    with outlived(place, "mirror"):
        monkeypatch.setattr(limits, "GIT_OUTLIVED_MS_MAX", 200)
        with pytest.raises(Unreachable, match="of an earlier start still works in"):
            wait(mirror.keep(here, HUB, "main", repos))
        assert not repos.exists()
        monkeypatch.undo()
    wait(mirror.keep(here, HUB, "main", repos))
    assert (repos / "main.git").is_dir()
