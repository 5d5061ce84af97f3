"""Real repositories for the tests: a small world of commits, drawn in a line or two."""

import asyncio
import os
import subprocess
from collections.abc import Coroutine
from pathlib import Path
from typing import Any, TypeVar

from muster.git import command as git
from muster.git import commit as commits
from muster.log.keys import Signer

T = TypeVar("T")
SIGNER = Signer(b"\x07" * 32)
SIGNATURE = commits.Signature("claude@studio", "studio", 1_800_000_000, SIGNER)
MAKER = commits.Maker("claude@studio", "studio", SIGNER.public)


def wait(work: Coroutine[Any, Any, T]) -> T:
    """Run one piece of asynchronous work to its end."""
    return asyncio.run(work)


def git_in(cwd: Path, *args: str, stdin: bytes = b"") -> git.Answer:
    """Muster's own git."""
    return wait(git.run_async(args, cwd, stdin=stdin))


def sh(cwd: Path, *args: str, stdin: bytes = b"", env: dict[str, str] | None = None) -> str:
    """A person's own git, whatever its exit code must be 0."""
    person = {f"GIT_{who}_{what}": "alice" for who in ("AUTHOR", "COMMITTER") for what in ("NAME",)}
    person |= {"GIT_AUTHOR_EMAIL": "a@x", "GIT_COMMITTER_EMAIL": "a@x", "HOME": str(cwd)}
    done = subprocess.run(
        ["git", "-c", "init.defaultBranch=main", "-c", "protocol.file.allow=always", *args],
        cwd=cwd,
        input=stdin,
        capture_output=True,
        env=os.environ | person | {"GIT_CONFIG_GLOBAL": os.devnull} | (env or {}),
        check=False,
    )
    assert done.returncode == 0, done.stderr.decode()
    return done.stdout.decode().strip()


def commit(checkout: Path, message: str, **files: str) -> str:
    """Commit files (`a__txt` is a.txt); the id."""
    for name, text in files.items():
        (checkout / name.replace("__", ".")).write_text(text)
    sh(checkout, "add", "-A")
    sh(checkout, "commit", "-q", "--allow-empty", "-m", message)
    return sh(checkout, "rev-parse", "HEAD")


def checkout(path: Path) -> Path:
    """A local checkout with one commit on main."""
    path.mkdir(parents=True)
    sh(path, "init", "-q")
    commit(path, "first", readme__md="hello\n")
    return path


def plain(path: Path, source: Path) -> str:
    """A foreign bare remote without hooks; its address."""
    sh(source, "clone", "-q", "--bare", str(source), str(path))
    return str(path)


def refs(repo: Path) -> dict[str, str]:
    """Every ref and what it names: what 'nothing changed' is compared with."""
    listed = git_in(repo, "for-each-ref", "--format=%(refname) %(objectname)")
    lines = listed.out.decode("utf-8", "backslashreplace").splitlines()
    return dict(line.split(" ") for line in lines)


def blob(repo: Path, text: bytes) -> str:
    return git_in(repo, "hash-object", "-w", "--stdin", stdin=text).text


def verify(repo: Path, id: str, maker: commits.Maker) -> None:
    """Check a commit of a repository as a promotion does."""
    commits.check(git_in(repo, "cat-file", "commit", id).out, maker)
