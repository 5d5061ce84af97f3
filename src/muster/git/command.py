"""How the git command is run: the only door to it.

Rule 1: git is given a list of arguments, a bounded environment and a time limit; never a shell.
Rule 2: no configuration but ours counts. System and user files are off, hooks are off unless the
        caller asks for them, and the settings that can start a program are overridden.
Rule 3: an exit code is always looked at, and a failure names the first useful line git said.

A repository is written by strangers: agents, and whoever pushed before. What they can influence
are contents, ref names and messages. Submodules are therefore never entered, only four
transports are allowed, `ext::` is not among them, and what git prints is stripped of control
characters before a person sees it.

Git looks for a repository in the folders above, too. It is forbidden here: where a cache has lost
its HEAD, the repository that a person's home lies in must not be taken for it.

Output goes to a temporary file and is read back up to a bound, so a hostile repository costs
disk for a moment, never memory.
"""

import asyncio
import contextlib
import os
import re
import signal
import subprocess
import sys
import tempfile
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from functools import cache
from pathlib import Path
from typing import Any, Final, NamedTuple

from muster import limits, umask
from muster.errors import (
    USED_UP,
    Broken,
    Exhausted,
    Malformed,
    MusterError,
    NotFound,
    Refused,
    Unreachable,
    unable,
)
from muster.git import fault

# 2.28 brought the reference-transaction hook, on which the fence stands; 2.29 refspecs with `^`.
VERSION_MIN: Final = (2, 29)

# `ext` runs any command and `git`/`http` prove no one's identity, so they are left out.
_TRANSPORTS: Final = "file:https:muster:ssh"

# Taken over from our own environment; everything else could change what git does.
_PASSED: Final = (
    "HOME", "PATH", "TMPDIR", "TEMP", "TMP", "SYSTEMROOT", "SSH_AUTH_SOCK", "MUSTER_HOME",
    "MUSTER_SOCK",
)  # fmt: skip

# Large files are passed on as they are: to look for what two of them share takes minutes and as
# much memory as they are long. A part of every configuration of ours, since git's own server
# programs are told by nothing else.
LARGE_FILES: Final = "\tbigFileThreshold = 8m\n[pack]\n\twindowMemory = 128m\n\tthreads = 2\n"

# More than git needs for the largest pack that is bounded, less than what hostile deltas ask for.
_MEMORY_KB: Final = 4 * 1024 * 1024

# What asks a person's helpers for a password; see `_logins`.
_NO_HELPER: Final = "credential.helper="

_SETTINGS: Final = (
    "core.fsmonitor=false",
    "core.untrackedCache=false",
    # What one machine of a fleet could not check out, none is given.
    "core.protectHFS=true",
    "core.protectNTFS=true",
    "core.quotePath=false",
    "core.pager=cat",
    "core.editor=false",
    "core.sshCommand=ssh -oBatchMode=yes",
    "core.askPass=",
    _NO_HELPER,
    "commit.gpgSign=false",
    "tag.gpgSign=false",
    "submodule.recurse=false",
    "fetch.recurseSubmodules=false",
    "push.recurseSubmodules=no",
    "diff.ignoreSubmodules=all",
    "protocol.ext.allow=never",
    "gc.auto=0",
    "maintenance.auto=false",
    "advice.detachedHead=false",
    # Every directory is given by Muster itself and explicitly; git's own guess about
    # ownership would only fail under user namespaces.
    "safe.directory=*",
)

_LOGINS: Final = r"^(credential|http)\."
_WEB: Final = (
    "https_proxy", "HTTPS_PROXY", "no_proxy", "NO_PROXY", "SSL_CERT_FILE", "SSL_CERT_DIR",
    "XDG_CONFIG_HOME",
)  # fmt: skip

ZERO: Final = "0" * 40
"""The id that means 'no object'."""
_OBJECT_ID: Final = re.compile(r"[0-9a-f]{40}(?:[0-9a-f]{24})?")

clean, listed, reason, shown = fault.clean, fault.listed, fault.reason, fault.shown


class Answer(NamedTuple):
    """What a git command said."""

    code: int
    out: bytes
    err: str

    @property
    def text(self) -> str:
        """Standard output as stripped text."""
        return self.out.decode("utf-8", "replace").strip()


def environment(
    extra: Mapping[str, str] | None = None, within: Path | None = None
) -> dict[str, str]:
    """The whole environment of a git command, which looks in no folder above `within`."""
    env = {name: os.environ[name] for name in _PASSED if name in os.environ}
    # `git-remote-muster` is installed beside the interpreter that runs us.
    env["PATH"] = os.pathsep.join([str(Path(sys.executable).parent), env.get("PATH", os.defpath)])
    env |= {
        "LC_ALL": "C",
        "GIT_CONFIG_NOSYSTEM": "1",
        "GIT_CONFIG_GLOBAL": os.devnull,
        "GIT_ATTR_NOSYSTEM": "1",
        "GIT_TERMINAL_PROMPT": "0",
        "GIT_ALLOW_PROTOCOL": _TRANSPORTS,
        "GIT_NO_REPLACE_OBJECTS": "1",
        # A partial clone names the program that fetches what it lacks.
        "GIT_NO_LAZY_FETCH": "1",
        "GIT_OPTIONAL_LOCKS": "0",
        "GIT_LITERAL_PATHSPECS": "1",
        # What is pushed is the machine's word, and no person's: see cli/git_remote.py.
        "MUSTER_PUSHES": "machine",
        **(extra or {}),
    }
    return env | ({"GIT_CEILING_DIRECTORIES": str(within.resolve().parent)} if within else {})


def command(args: Sequence[str], *, hooks: bool = False, logins: bool = False) -> list[str]:
    """The full argument list of a git command."""
    settings = [each for each in _SETTINGS if not (logins and each == _NO_HELPER)]
    settings += [] if hooks else [f"core.hooksPath={os.devnull}"]
    return ["git", *(part for setting in settings for part in ("-c", setting)), *args]


async def run_async(
    args: Sequence[str],
    cwd: Path,
    *,
    env: Mapping[str, str] | None = None,
    stdin: bytes = b"",
    timeout_ms: int = limits.GIT_TIMEOUT_MS,
    codes: Sequence[int] = (0,),
    for_person: bool = False,
    logins: bool = False,
    file_bytes_max: int = 0,
    inherits: Sequence[int] = (),
) -> Answer:
    """Run git; an exit code not in `codes` raises what it means.

    A cancelled caller leaves no git process behind. `for_person`: the files that it writes get the
    modes that an attempt would give them. `logins`: a stranger's server may ask who we are.
    `file_bytes_max`: it writes no file larger than that, and takes a bounded amount of memory.
    `inherits`: descriptors that it and what it starts have as well.
    """
    words = command(args, logins=logins)
    words = umask.as_person(words) if for_person else words
    words = _bounded(words, file_bytes_max) if file_bytes_max else words
    whole = environment(env, cwd)
    if logins:
        whole |= await asyncio.to_thread(_logins)
    with _files(stdin) as files:
        try:
            process = await asyncio.create_subprocess_exec(
                *words, cwd=cwd, env=whole, start_new_session=True, pass_fds=inherits, **files
            )
        except OSError as error:
            raise _cannot_start(cwd, error) from error
        try:
            async with asyncio.timeout(timeout_ms / 1000):
                code = await process.wait()
        except TimeoutError as error:
            after = f"{_verb(args)} gave no result in {timeout_ms // 1000} s and was ended"
            raise Unreachable(f"git {after}; try again.") from error
        finally:
            if process.returncode is None:
                # And the children it started; they share its process group.
                with contextlib.suppress(ProcessLookupError):
                    os.killpg(process.pid, signal.SIGKILL)
                await process.wait()
        output, complaints = files["stdout"], files["stderr"]
        complaints.seek(0)
        said = complaints.read(limits.GIT_ERROR_BYTES_MAX).decode("utf-8", "replace")
        size = output.seek(0, os.SEEK_END)
        if size > limits.GIT_OUTPUT_BYTES_MAX:
            raise Refused(f"git {_verb(args)} answered {size} bytes, which is more than we read.")
        output.seek(0)
        answer = Answer(code, output.read(), said)
    if code not in codes:
        raise fault.meaning(_verb(args), code, said, said + answer.out.decode("utf-8", "replace"))
    return answer


class Git(NamedTuple):
    """Git in one folder, with what all its commands there share."""

    folder: Path
    env: Mapping[str, str] = {}
    settings: tuple[str, ...] = ()

    async def run(
        self,
        *args: str,
        stdin: bytes = b"",
        paths: Iterable[bytes] = (),
        codes: Sequence[int] = (0,),
    ) -> Answer:
        """`run_async` here; it reads `stdin`, or the paths as `-z` wants them."""
        words, given = [*self.settings, *args], stdin or b"".join(b"%s\0" % each for each in paths)
        return await run_async(words, self.folder, env=self.env, stdin=given, codes=codes)

    async def names(self, *args: str, codes: Sequence[int] = (0,)) -> list[bytes]:
        """What a command with `-z` lists."""
        listed = await self.run(*args, codes=codes)
        return [name for name in listed.out.split(b"\0") if name]

    async def keep(self, paths: Collection[bytes]) -> None:
        """These files are as the index says; git reads none of them."""
        if paths:
            await self.run("update-index", "--assume-unchanged", "-z", "--stdin", paths=paths)


def _logins() -> dict[str, str]:
    """How a git command asks the person's own helpers who we are, and reaches the web.

    These are settings of whoever runs this daemon, and of this system: nothing that a repository
    can say. They go by the environment, for a helper may be a line of shell with a secret in it.
    Git older than 2.31 does not read it there and asks nobody.
    """
    env = {name: os.environ[name] for name in (*_PASSED, *_WEB) if name in os.environ}
    found: list[tuple[str, str]] = []
    for where in ("--system", "--global"):
        asked = ["git", "config", where, "--includes", "--null", "--get-regexp", _LOGINS]
        # Without a git, or with one that hangs, nobody is logged in; what asks then says so.
        with contextlib.suppress(OSError, subprocess.SubprocessError):
            done = subprocess.run(asked, env=env, capture_output=True, timeout=10, check=False)
            text = done.stdout.decode("utf-8", "surrogateescape")
            found += [_setting(each) for each in text.split("\0") if each]
    given = {"GIT_CONFIG_COUNT": str(len(found)), "GCM_INTERACTIVE": "never"}
    # Behind a proxy, or with a certificate authority of its own.
    given |= {name: os.environ[name] for name in _WEB if name in os.environ}
    for number, (key, value) in enumerate(found):
        given |= {f"GIT_CONFIG_KEY_{number}": key, f"GIT_CONFIG_VALUE_{number}": value}
    return given


def _setting(said: str) -> tuple[str, str]:
    """A setting and its value; one that stands without any is true, and an empty one is false."""
    name, given, value = said.partition("\n")
    return name, value if given else "true"


def object_id(text: str, what: str) -> str:
    """The text as an object id; anything else (an option, a ref, a path) is refused."""
    if _OBJECT_ID.fullmatch(text) is None:
        raise Malformed(f"{what} is {text[:80]!r}, not a commit id of 40 hex digits.")
    return text


@cache
def check_version() -> tuple[int, int]:
    """The version of the installed git; one too old to fence is refused."""
    asked = command(["--version"])
    try:
        done = subprocess.run(asked, env=environment(), capture_output=True, timeout=10, check=True)
    except OSError as error:
        raise _cannot_start(Path.cwd(), error) from error
    except subprocess.SubprocessError as error:
        raise Broken(f"git does not say its version: {error}; update git.") from error
    text = done.stdout.decode("utf-8", "replace").strip()
    found = re.search(r"(\d+)\.(\d+)", text)
    version = (int(found[1]), int(found[2])) if found else (0, 0)
    if version < VERSION_MIN:
        raise Broken(f"Muster needs git 2.29 or newer, and here is {text[:40]!r}; update git.")
    return version


@contextlib.contextmanager
def _files(stdin: bytes) -> Iterator[dict[str, Any]]:
    """The three files that a process is started with, by their names."""
    try:
        with contextlib.ExitStack() as stack:
            names = ("stdin", "stdout", "stderr")
            files = {name: stack.enter_context(tempfile.TemporaryFile()) for name in names}
            files["stdin"].write(stdin)
            files["stdin"].seek(0)
            yield files
    except OSError as error:
        what = f"git's output has no place to go: {error}; free some disk space."
        raise unable(what, error) from error


def _bounded(words: list[str], file_bytes_max: int) -> list[str]:
    """The command, ended where it makes too large a file: git has no such limit for a fetch."""
    # Not every system limits memory.
    limited = f"ulimit -f {file_bytes_max // 512} && {{ ulimit -v {_MEMORY_KB} 2>&-; :; }}"
    return ["/bin/sh", "-c", f'{limited} && exec "$@"', "sh", *words]


def _cannot_start(cwd: Path, error: OSError) -> MusterError:
    if not cwd.is_dir():
        return NotFound(f"There is no folder {cwd} to run git in; check the path.")
    if error.errno in USED_UP:
        return Exhausted(f"git cannot be started now: {error}; try again.")
    return Broken(f"git cannot be started: {error}; install git 2.29 or newer.")


def _verb(args: Sequence[str]) -> str:
    """What git is asked to do: the first word that is no option and no setting."""
    for before, arg in zip(("", *args), args, strict=False):
        if not arg.startswith("-") and before != "-c":
            return arg
    return ""
