"""A pull request, opened by the program that the person has for it: `gh`, or `glab` for GitLab.

Rule 1: Muster knows no token and speaks to no forge: the program does, with its own login.
Rule 2: arguments are a list; a title or a text that somebody wrote is one of them, never a line of
a shell. One that gives no answer is ended, with all that it started.
Rule 3: whether it can be opened is looked at before anything is pushed.
"""

import asyncio
import re
import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import Final, NamedTuple

from muster import child_process
from muster.errors import Conflict, NotFound, Refused, Unreachable, unable
from muster.git import command as git
from muster.git import person
from muster.limits import GIT_TIMEOUT_MS

_ADDRESS: Final = re.compile(
    r"(?:[a-z+]+://(?:[^@/]*@)?(?P<host>[^:/]+)(?::\d+)?/|(?:[^@/]*@)?(?P<scp>[^:/]+):(?![:/]))"
    r"(?P<path>[^?#]+?)(?:\.git)?/?"
)


class Program(NamedTuple):
    """How a forge's own program is asked."""

    name: str
    site: str
    create: tuple[str, ...]
    head: str
    base: str
    text: str


_PROGRAMS: Final = (
    Program("gh", "https://cli.github.com", ("pr", "create"), "--head", "--base", "--body"),
    Program(
        "glab", "https://gitlab.com/gitlab-org/cli", ("mr", "create", "--yes"),
        "--source-branch", "--target-branch", "--description",
    ),
)  # fmt: skip


class Request(NamedTuple):
    """A request to be opened, from a branch with a short name."""

    program: Program
    repo: str
    branch: str

    async def open(self, folder: Path, address: str, onto: str, commit: str, message: str) -> str:
        """Push the branch and open the request; its address.

        Raises: Refused with what the program said; Conflict where the branch is there already.
        """
        program, name = self.program, f"refs/heads/{self.branch}"
        view = f"`{program.name} {program.create[0]} view {self.branch}`"
        if (
            await person.run(["ls-remote", "--heads", "--end-of-options", address, name], folder)
        ).text:
            raise Conflict(
                f"{address} has a branch {self.branch} already: {view} shows its request"
            )
        push = ["push", "--porcelain", "--no-follow-tags", f"--force-with-lease={name}:"]
        await person.run([*push, "--end-of-options", address, f"{commit}:{name}"], folder)
        title, _, text = message.partition("\n")
        words = [*program.create, "--repo", self.repo, program.head, self.branch]
        words += [program.base, onto, "--title", title, program.text, text.strip() or title]
        code, said = await _run([program.name, *words], folder)
        if code:
            raise Refused(
                f"{program.name} opened no request ({git.clean(said)}); the branch {self.branch} "
                f"is pushed: open one for it by hand, or remove it with `git push --delete`"
            )
        urls = re.findall(r"https?://\S+", said)
        return git.clean(urls[-1] if urls else said)


async def of(address: str, branch: str) -> Request:
    """The request that fits an origin. Raises: NotFound, Refused: no program can open one."""
    found = _ADDRESS.fullmatch(address)
    host = found and (found["host"] or found["scp"])
    if not found or not host:
        raise Refused(
            f"{address} is no address of a forge that takes pull requests; land it without --pr"
        )
    fits = _fitting(host)
    here = [each for each in fits if shutil.which(each.name)]
    if not here:
        names = " or ".join(f"{each.name} ({each.site})" for each in fits)
        raise NotFound(
            f"a pull request at {host} is opened by {names}, which is not installed here"
        )
    for program in here:
        code, _ = await _run([program.name, "auth", "status", "--hostname", host], Path.cwd())
        if code == 0:
            return Request(program, f"https://{host}/{found['path']}", branch)
    name = here[0].name
    raise Refused(
        f"{name} is not logged in to {host}: `{name} auth login --hostname {host}` does it"
    )


def _fitting(host: str) -> Sequence[Program]:
    """The programs for a host: by its name, else whichever is logged in there."""
    named = {"github": _PROGRAMS[0], "gitlab": _PROGRAMS[1]}
    return [program for word, program in named.items() if word in host] or _PROGRAMS


async def _run(words: Sequence[str], cwd: Path) -> tuple[int, str]:
    """The exit code, and what it said: standard output, or where there is none its complaint."""
    name = words[0]
    try:
        process = await child_process.start(
            *words,
            cwd=cwd,
            env=person.environment(),
            stdin=asyncio.subprocess.DEVNULL,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.PIPE,
        )
    except OSError as error:
        raise unable(f"{name} cannot be started: {error}; install it anew.", error) from error
    try:
        async with asyncio.timeout(GIT_TIMEOUT_MS / 1000):
            out, err = await process.communicate()
    except TimeoutError as error:
        after = f"gave no answer in {GIT_TIMEOUT_MS // 1000} s and was ended"
        raise Unreachable(f"{name} {after}; try again.") from error
    finally:
        # With what it started, such as a git.
        await process.end()
    return process.returncode or 0, (out or err).decode("utf-8", "replace").strip()
