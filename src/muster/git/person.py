"""The person's own git: with their name, configuration, hooks and credentials.

Rule 1: only what a person typed comes here, on the machine that they sit at; a daemon has no
person's git, it has `command.py`.
Rule 2: arguments are a list, never a shell's line; time and what git says are bounded.
Rule 3: git stays in the person's session: it may ask for a password, and Ctrl-C ends it as git
ends itself, which leaves no lock behind.
"""

import asyncio
import contextlib
import os
import signal
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import BinaryIO, Final, NamedTuple

from muster import limits
from muster.errors import Broken, Refused, Unreachable, unable
from muster.git import command as git
from muster.git import fault

# What a hook or a git alias that runs us has set: it would speak of another repository.
_LOCAL: Final = (
    "GIT_DIR", "GIT_WORK_TREE", "GIT_INDEX_FILE", "GIT_OBJECT_DIRECTORY", "GIT_COMMON_DIR",
    "GIT_ALTERNATE_OBJECT_DIRECTORIES", "GIT_PREFIX", "GIT_NAMESPACE",
)  # fmt: skip
_NOBODY: Final = (
    "git knows no name for you, and what lands is committed by somebody: "
    "`git config --global user.name` and `user.email` say it."
)


class Identity(NamedTuple):
    """Who commits, as a commit says it: `Alice <alice@example.com> 1800000000 +0100`."""

    author: str
    committer: str


def environment() -> dict[str, str]:
    """The person's environment, in which git finds our remote helper and speaks as we read it."""
    env = {name: text for name, text in os.environ.items() if name not in _LOCAL}
    # Behind what the person has: their git stays theirs.
    beside = str(Path(sys.executable).parent)
    return env | {"LC_ALL": "C", "PATH": env.get("PATH", os.defpath) + os.pathsep + beside}


async def run(
    args: Sequence[str], cwd: Path, *, codes: Sequence[int] = (0,), whole: bool = False
) -> git.Answer:
    """Run the person's git; an exit code not in `codes` raises what it means.

    `whole`: half of it would stay in a folder, so it goes on to its end when we are ended.
    """
    with tempfile.TemporaryFile() as out, tempfile.TemporaryFile() as err:
        try:
            process = await asyncio.create_subprocess_exec(
                *("git", *args), cwd=cwd, env=environment(), stdin=None, stdout=out, stderr=err,
                # The Ctrl-C of a terminal goes to all who are in its session.
                start_new_session=whole,
            )  # fmt: skip
        except OSError as error:
            what = f"git cannot be started in {cwd}: {error}; install it, or look at the folder."
            raise unable(what, error) from error
        try:
            code = await _ended(process, whole=whole)
        except TimeoutError as error:
            after = f"gave no result in {limits.GIT_TIMEOUT_MS // 1000} s and was ended"
            raise Unreachable(f"git {args[0]} {after}; try again.") from error
        finally:
            if process.returncode is None:
                # Also after Ctrl-C: TERM lets git take its locks away.
                with contextlib.suppress(ProcessLookupError):
                    process.terminate()
                await process.wait()
        said, size = _read(err, limits.GIT_ERROR_BYTES_MAX), out.seek(0, os.SEEK_END)
        if size > limits.GIT_OUTPUT_BYTES_MAX:
            raise Refused(f"git {args[0]} answered {size} bytes, which is more than we read.")
        answer = git.Answer(code, _read(out, size), said.decode("utf-8", "replace"))
    if code not in codes:
        raise fault.meaning(args[0], code, answer.err, answer.err + answer.text)
    return answer


async def _ended(process: asyncio.subprocess.Process, *, whole: bool) -> int:
    """Its exit code. Raises: TimeoutError."""
    ended = asyncio.ensure_future(process.wait())
    async with asyncio.timeout(limits.GIT_TIMEOUT_MS / 1000) as bound:
        try:
            return await asyncio.shield(ended)
        except asyncio.CancelledError:
            if whole and not bound.expired():
                await asyncio.wait([ended])
            raise


async def show(args: Sequence[str], cwd: Path) -> None:
    """Run git for the person's eyes: on their terminal, in their language, with their pager."""
    env = environment()
    env.pop("LC_ALL")
    if "LC_ALL" in os.environ:
        env["LC_ALL"] = os.environ["LC_ALL"]
    process = await asyncio.create_subprocess_exec("git", *args, cwd=cwd, env=env)
    code = await process.wait()
    # Whoever closes the pager early has seen enough.
    if code not in (0, 128 + signal.SIGPIPE, -signal.SIGPIPE):
        raise Broken(f"git {args[0]} ended with exit code {code}.")


def _read(file: BinaryIO, most: int) -> bytes:
    file.seek(0)
    return file.read(most)


async def identity(cwd: Path) -> Identity:
    """Who the person is, as git has it in this folder. Raises: Refused where it was never told."""
    lines = []
    for what in ("GIT_AUTHOR_IDENT", "GIT_COMMITTER_IDENT"):
        asked = ["-c", "user.useConfigOnly=true", "var", what]
        answer = await run(asked, cwd, codes=(0, 128))
        if answer.code:
            raise Refused(_NOBODY)
        lines.append(answer.text)
    return Identity(*lines)


async def repository_at(folder: Path) -> Path | None:
    """The repository that a folder is in: its shared `.git`; None where it is in none."""
    answer = await run(["rev-parse", "--git-common-dir"], folder, codes=(0, 128))
    return None if answer.code else (folder / answer.text).resolve()
