"""What of this machine a program needs to see in order to run: itself, its interpreter, its tools.

Rule 1: of a person's home nothing is seen but the folders in which programs lie: those of PATH, the
toolchains that installers keep in places of their own, the files of the agent's program and ours.
What is beside them (keys, logins, mail) is not.
Rule 2: what the system has (`/usr` and the like) is seen by everybody and named here by nobody.
"""

import os
import sys
from collections.abc import Collection, Iterable, Iterator, Mapping
from pathlib import Path
from typing import Final

from muster.agent.relay import SOURCE_ROOT

_SYSTEM: Final = ("/usr/", "/bin/", "/sbin/", "/lib/", "/lib64/")
# Below a home: the folder of which one in PATH is part, the folder that its programs read, and
# the variable that tells them where it is, for inside HOME is another one.
_TOOLCHAINS: Final = (
    (".asdf", ".asdf", "ASDF_DATA_DIR"),
    (".cargo/bin", ".rustup", "RUSTUP_HOME"),
    (".local/share/mise", ".local/share/mise", "MISE_DATA_DIR"),
    (".nvm", ".nvm", "NVM_DIR"),
    (".pyenv", ".pyenv", "PYENV_ROOT"),
    (".rbenv", ".rbenv", "RBENV_ROOT"),
    (".sdkman", ".sdkman", "SDKMAN_DIR"),
    (".volta", ".volta", "VOLTA_HOME"),
)
_MODULES: Final = "node_modules"
_SHEBANG_BYTES_MAX: Final = 256
# As many as the kernel follows (path_resolution(7)).
_LINKS_MAX: Final = 40
# Scripts that are run by scripts, as many as the kernel takes (execve(2)).
_SCRIPTS_MAX: Final = 4


def variables(path: str) -> dict[str, str]:
    """What tells the toolchains of PATH where they are."""
    return dict(_toolchains(path))


def readable(
    programs: Iterable[str], path: str, home: str, never: Collection[str] = ()
) -> list[str]:
    """The folders and files that programs, found on PATH or named whole, and all others of PATH
    need; sorted, none of them below another. What holds one of `never`, or lies in it, is not seen.
    """
    found = {place for _, place in _toolchains(path)}
    found |= {folder for folder in path.split(os.pathsep) if _is_for_programs(folder, home)}
    for folder in tuple(found):
        # What npm installs beside its `bin`.
        found.add(os.path.join(os.path.dirname(folder), "lib", _MODULES))
    ours = (SOURCE_ROOT, sys.prefix, sys.base_prefix)
    found |= {folder for folder in ours if _is_for_programs(folder, home)}
    for program in programs:
        found |= set(_of_program(program, home))
    there = (os.path.normpath(each) for each in found if os.path.exists(each))
    apart = [path for own in never for path in (own, os.path.realpath(own))]
    return _outermost(
        each
        for each in there
        if not f"{each}/".startswith(_SYSTEM)
        and not any(_meet(path, own) for own in apart for path in (each, os.path.realpath(each)))
    )


def _of_program(program: str, home: str, deep: int = 0) -> Iterator[str]:
    """The files of one program, as it was found: each link on the way, its package, whoever runs
    it.
    """
    if not os.path.isabs(program) or deep > _SCRIPTS_MAX:
        return
    # A link is followed by name, so each of them has to be there.
    for _ in range(_LINKS_MAX):
        if not os.path.islink(program):
            break
        yield program
        program = os.path.join(os.path.dirname(program), os.readlink(program))
    whole = os.path.realpath(program)
    before, modules, _ = whole.partition(f"/{_MODULES}/")
    yield before + modules.rstrip("/") if modules else whole
    interpreter = _interpreter(whole)
    if interpreter and interpreter != whole:
        base = os.path.dirname(os.path.dirname(interpreter))
        if os.path.exists(os.path.join(base, "pyvenv.cfg")) and _is_for_programs(base, home):
            yield base
        yield from _of_program(interpreter, home, deep + 1)


def _interpreter(program: str) -> str:
    """Who runs a script, "" for what is none."""
    try:
        with open(program, "rb") as file:
            line = file.read(_SHEBANG_BYTES_MAX).partition(b"\n")[0]
    except OSError:
        return ""
    words = line.removeprefix(b"#!").split() if line.startswith(b"#!") else []
    return os.fsdecode(words[0]) if words else ""


def _toolchains(path: str) -> Iterator[tuple[str, str]]:
    """The variable and the folder of each that PATH leads to, in whoever's home it lies."""
    for folder in path.split(os.pathsep):
        for part, place, name in _TOOLCHAINS:
            base, found, _ = f"{folder}/".partition(f"/{part}/")
            if found and os.path.isabs(folder):
                yield name, f"{base}/{place}"


def _meet(one: str, other: str) -> bool:
    """Whether one of two paths lies in the other."""
    return f"{one}/".startswith(f"{other}/") or f"{other}/".startswith(f"{one}/")


def _is_for_programs(folder: str, home: str) -> bool:
    """Whether a folder is shown because programs lie in it: never a home, or what holds one."""
    if not os.path.isabs(folder) or not os.path.isdir(folder):
        return False
    real, person = os.path.realpath(folder), os.path.realpath(home)
    return real not in ("/", person) and not f"{person}/".startswith(f"{real}/")


def _outermost(paths: Iterable[str]) -> list[str]:
    kept: list[str] = []
    for path in sorted(paths):
        if not kept or not f"{path}/".startswith(f"{kept[-1]}/"):
            kept.append(path)
    return kept


def files_named(env: Mapping[str, str], names: Iterable[str]) -> list[str]:
    """The files and folders that variables name, where they are there: certificates, mostly."""
    found = (env.get(name, "") for name in names)
    return _outermost(
        path for path in found if path and os.path.isabs(path) and Path(path).exists()
    )
