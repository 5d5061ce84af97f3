"""The sandbox as bubblewrap is told it: a root made from nothing, and what is put into it.

Rule 1: what is not put in is not there: no list of what is hidden, which would lack something.
Rule 2: no value of the environment stands in an argument: these lines go through a file.
Rule 3: what comes later lies over what came before: the work folder over what is readable, what is
protected over the work folder; the root is made read-only when everything has its place.
"""

import contextlib
import os
import stat
from collections.abc import Callable, Iterable, Mapping
from typing import Final

from muster.agent.sandbox.profile import HOME, Profile
from muster.errors import Broken

NAME: Final = "agent"
UID: Final = 1000
_NOBODY: Final = 65534
_SYSTEM: Final = ("/usr", "/bin", "/sbin", "/lib", "/lib32", "/lib64", "/libx32")
# What programs read of a machine that is no secret and nobody's name. Files are copied: each mount
# makes all others dearer, for bubblewrap reads the list of them again.
_ETC_FOLDERS: Final = (
    "alternatives", "crypto-policies", "pki/ca-trust", "pki/tls/certs", "ssl/certs",
)  # fmt: skip
_ETC_FILES: Final = (
    "ld.so.cache", "localtime", "mime.types", "os-release", "pki/tls/cert.pem", "protocols",
    "services", "ssl/cert.pem", "ssl/openssl.cnf", "timezone",
)  # fmt: skip
_ETC_FILE_BYTES_MAX: Final = 4 * 1024**2
_FILES: Final = {
    "/etc/passwd": (
        f"{NAME}:x:{UID}:{UID}::{HOME}:/bin/sh\nnobody:x:{_NOBODY}:{_NOBODY}::/:/bin/false\n"
    ),
    "/etc/group": f"{NAME}:x:{UID}:\nnogroup:x:{_NOBODY}:\n",
    "/etc/hosts": "127.0.0.1 localhost sandbox\n",
    "/etc/nsswitch.conf": "passwd: files\ngroup: files\nhosts: files\n",
}
_ALWAYS: Final = (
    "--unshare-user", "--unshare-ipc", "--unshare-pid", "--unshare-net", "--unshare-uts",
    "--unshare-cgroup-try", "--hostname", "sandbox", "--uid", str(UID), "--gid", str(UID),
    "--die-with-parent", "--new-session", "--cap-drop", "ALL", "--clearenv",
)  # fmt: skip
TMP: Final = "/tmp"  # noqa: S108 - of the sandbox, which nobody shares
# Chosen arbitrarily: as much memory as one attempt may fill with temporary files, and share; and of
# memory that its owner bounds at most such a part.
_MIB: Final = 1024**2
_IN_MEMORY: Final = {
    TMP: (2048 * _MIB, 2),
    "/dev/shm": (512 * _MIB, 4),  # noqa: S108
    "/var/tmp": (256 * _MIB, 8),  # noqa: S108
    "/run": (16 * _MIB, 16),
}
# A placed file is a configuration; what is larger is shown as readable.
PLACED_BYTES_MAX: Final = 4 * 1024**2

Give = Callable[[bytes], int]
"""Takes bytes, gives the descriptor that bubblewrap reads them from."""
At = Callable[[str], str]
"""Where bubblewrap finds a path of the host."""


def arguments(
    profile: Profile,
    protection: tuple[Iterable[str], Iterable[str]],
    env: Mapping[str, str],
    give: Give,
    at: At = str,
) -> list[str]:
    """All that stands before the command. Raises: Broken for a path that cannot be put in."""
    cwd = profile.cwd
    words = [*_ALWAYS, *_environment(env)]
    words += _system(give)
    words += ["--proc", "/proc", "--ro-bind", "/proc/sys", "/proc/sys", "--dev", "/dev"]
    for path, (most, part) in _IN_MEMORY.items():
        size = min(most, profile.memory_bytes // part) if profile.memory_bytes else most
        words += ["--perms", "1777", "--size", str(size), "--tmpfs", path]
    words += ["--remount-ro", "/dev"]
    for path in sorted(filter(os.path.exists, profile.readable), key=len):
        words += ["--ro-bind", at(path), path]
    for path in sorted(profile.writable, key=len):
        words += ["--bind", at(path), path]
    words += ["--bind", at(profile.home), HOME, "--bind", at(cwd), cwd]
    pinned, protected = protection
    for path in pinned:
        words += ["--bind", f"{at(cwd)}/{path}", f"{cwd}/{path}"]
    for path in protected:
        words += ["--ro-bind", f"{at(cwd)}/{path}", f"{cwd}/{path}"]
    for inside, path in profile.placed.items():
        words += _placed(profile, inside, path, give, at)
    return [*words, "--remount-ro", "/", "--chdir", cwd]


def _environment(env: Mapping[str, str]) -> list[str]:
    whole = {**env, "HOME": HOME, "TMPDIR": TMP, "USER": NAME, "LOGNAME": NAME}
    return [word for name, value in whole.items() for word in ("--setenv", name, value)]


def _system(give: Give) -> list[str]:
    words = []
    for path in _SYSTEM:
        if os.path.islink(path):
            words += ["--symlink", os.readlink(path), path]
        elif os.path.isdir(path):
            words += ["--ro-bind", path, path]
    for name in _ETC_FOLDERS:
        path = f"/etc/{name}"
        if os.path.isdir(path):
            words += ["--ro-bind", path, path]
    files = {path: text.encode() for path, text in _FILES.items()}
    for name in _ETC_FILES:
        # Not every system has each of them, and none needs to be there.
        with contextlib.suppress(OSError), open(f"/etc/{name}", "rb") as file:
            files[f"/etc/{name}"] = file.read(_ETC_FILE_BYTES_MAX)
    for path, content in files.items():
        words += ["--perms", "0444", "--file", str(give(content)), path]
    return words


def _placed(profile: Profile, inside: str, path: str, give: Give, at: At) -> list[str]:
    if f"{inside}/".startswith(f"{profile.cwd}/"):
        raise Broken(f"{inside} is in the work folder, where nothing is put for an agent")
    try:
        kind = os.stat(path).st_mode
        if not stat.S_ISREG(kind):
            return ["--ro-bind", at(path), inside]
        with open(path, "rb") as file:
            content = file.read(PLACED_BYTES_MAX + 1)
    except OSError as error:
        raise Broken(f"{path} cannot be put into the sandbox: {error.strerror}") from error
    if len(content) > PLACED_BYTES_MAX:
        raise Broken(f"{path} is larger than the {PLACED_BYTES_MAX} bytes of a placed file")
    # A mount of its own, also where others may write.
    return ["--perms", "0444", "--ro-bind-data", str(give(content)), inside]


def sources(profile: Profile) -> list[str]:
    """The paths of the host that `arguments` asks for by `at`."""
    sockets = [
        path
        for path in profile.placed.values()
        if os.path.exists(path) and not os.path.isfile(path)
    ]
    readable = [path for path in profile.readable if os.path.exists(path)]
    return list(dict.fromkeys([profile.cwd, profile.home, *profile.writable, *readable, *sockets]))
