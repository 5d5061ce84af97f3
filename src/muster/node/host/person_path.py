"""The PATH of the person whose machine this is, for everything that runs for them.

Rule 1: `path` in config.toml is the whole answer, where it stands. Of any PATH only whole paths
count: another one means the folder of whatever work is done there, and its programs.
Rule 2: else the person's login shell is asked for its own, once. A PATH that we were started with
and that has all of it, as in a terminal, keeps its order; a poorer one, as the system gives it,
comes after the shell's.
Rule 3: the shell is asked with a bound, and nothing of it is left running: it is hung up on, as by
a terminal that closes, and then killed. What it prints is data: only whole paths between two marks
count, whatever else a greeting says.
Rule 4: where installers put programs without telling any shell is looked at last.
"""

import asyncio
import contextlib
import os
import re
import uuid
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Final

from muster import child_process

# A shell with a version manager of every language takes a second or two.
SHELL_S_MAX: Final = 8.0
# What it left running, or is in the middle of, may tidy up for so long.
TIDY_S_MAX: Final = 2.0
ANSWER_BYTES_MAX: Final = 256 * 1024
PATH_BYTES_MAX: Final = 64 * 1024
# Shells of accounts nobody logs in to.
_NO_SHELLS: Final = frozenset({"false", "nologin", "true", "sync"})
# Below the person's home, and for the whole machine.
_OF_HOME: Final = (
    *(".local/bin", "bin", ".npm-global/bin", ".claude/local", ".opencode/bin", ".bun/bin"),
    *(".volta/bin", ".cargo/bin", ".local/share/mise/shims", ".asdf/shims"),
)
_OF_MACHINE: Final = ("/opt/homebrew/bin", "/home/linuxbrew/.linuxbrew/bin", "/usr/local/bin")


async def person_path(configured: str, env: Mapping[str, str]) -> str:
    """The PATH for whatever runs here; `env` is what the daemon was started with."""
    if configured:
        return os.pathsep.join(_whole(configured))
    own = _whole(env.get("PATH", os.defpath))
    asked = await _of_shell(env)
    first = own if set(asked) <= set(own) else asked
    home = Path(env.get("HOME") or Path.home())
    return os.pathsep.join(dict.fromkeys([*first, *own, *_installed(home)]))


def _whole(path: str) -> list[str]:
    """The folders of a PATH that mean the same wherever one stands."""
    return [each for each in path.split(os.pathsep) if os.path.isabs(each) and "\n" not in each]


def _installed(home: Path) -> Iterator[str]:
    """Folders of programs that are there, also where no shell was told."""
    folders = [*(home / each for each in _OF_HOME), *map(Path, _OF_MACHINE)]
    versions = home / ".nvm" / "versions" / "node"
    # There is none, so no newest one of it.
    with contextlib.suppress(OSError):
        newest = sorted(versions.iterdir(), key=lambda each: _numbers(each.name))[-1:]
        folders += [each / "bin" for each in newest]
    for folder in folders:
        # A home that cannot be looked into has no programs for us.
        with contextlib.suppress(OSError):
            if folder.is_dir():
                yield str(folder)


def _numbers(version: str) -> list[int]:
    return [int(each) for each in re.findall(r"[0-9]{1,9}", version)]


def _shell_of_account() -> str:
    """The shell of who runs this, as the system has it; "" where there is no such list."""
    # The system has no such list, or not us in it.
    with contextlib.suppress(ImportError, KeyError):
        import pwd  # noqa: PLC0415 - Windows has none

        return pwd.getpwuid(os.getuid()).pw_shell
    return ""


async def _of_shell(env: Mapping[str, str]) -> list[str]:
    """What the person's login shell has as PATH; nothing where it does not say."""
    shell = env.get("SHELL") or _shell_of_account()
    if not os.path.isabs(shell) or os.path.basename(shell) in _NO_SHELLS:
        return []
    mark = f"muster-{uuid.uuid4().hex}"
    try:
        asked = await child_process.start(
            # Interactive, because only such a shell reads the files that set up version managers.
            # Apart from the name, in the one way that sh, zsh and fish all read.
            *(shell, "-ilc", f"printf '%s' {mark}\"$PATH\"{mark}"),
            stdin=asyncio.subprocess.DEVNULL,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.DEVNULL,
            env={**env, "TERM": "dumb"},
            cwd="/",
        )
    except OSError:
        return []
    assert asked.stdout is not None
    said = b""
    try:
        # What it said until then is looked at; a shell that hangs is ended below.
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(SHELL_S_MAX):
                # It may leave a child that keeps its output open: the answer ends with the mark.
                while said.count(mark.encode()) < 2 and len(said) < ANSWER_BYTES_MAX:
                    piece = await asked.stdout.read(ANSWER_BYTES_MAX)
                    said += piece
                    if not piece:
                        break
    finally:
        # A version manager that is killed leaves its lock, and every terminal waits for that.
        await asked.hang_up(TIDY_S_MAX)
    found = os.fsdecode(said).split(mark)
    return _whole(found[1]) if len(found) == 3 and len(found[1]) <= PATH_BYTES_MAX else []
