"""What a spec and a machine's owner write for a path of a machine that a sandbox shows.

Rule 1: it begins with / or with ~/ (the home of whoever runs the daemon), is spelt plainly, and is
        neither all of a disk nor all of a home.
Rule 2: what belongs to the kernel and to running services is shown to nobody: a socket in /run may
        be worth the whole machine.
Rule 3: whether one path lies in another is a question of their spelling; where links lead is looked
        at by whoever opens them.
"""

import re
from collections.abc import Iterable
from typing import Final

from muster.task.units import path_refusal

_REFUSED: Final = re.compile(r'[\x00-\x1f\x7f\\*?"<>|]')
_SYSTEMS_OWN: Final = ("/proc", "/sys", "/dev", "/run", "/var/run", "/boot")

_SAYS: Final = "a path of the machine begins with / or ~/"


def host_path_refusal(path: str) -> str:
    """Why this is no path of a machine that could be shown, or ""."""
    if not path.startswith(("/", "~/")):
        if path == "~":
            return "is all of a home; name a folder in it, as ~/datasets"
        if path.startswith("~"):
            return "is another user's home; write the path from /"
        return f"lies in the work folder, which is shown in any case; {_SAYS}"
    if refusal := _plain_refusal(path):
        return refusal
    whole = f"{path.rstrip('/')}/"
    if whole in {"/", "~/"}:
        return f"is all of a {'disk' if whole == '/' else 'home'}; name a folder in it"
    if any(whole.startswith(f"{top}/") for top in _SYSTEMS_OWN):
        return "belongs to the system and is shown to no attempt"
    return ""


def writable_refusal(path: str) -> str:
    """As `host_path_refusal`, of a path that may also lie in the work folder."""
    if path.startswith(("/", "~")):
        return host_path_refusal(path)
    if _is_git(path):
        return "is git's own: what stands in it is run by the machine itself, outside"
    return path_refusal(path)


def is_of_host(path: str) -> bool:
    """Whether it is a path of the machine, not of the work folder."""
    return path.startswith(("/", "~"))


def lies_in(path: str, tops: Iterable[str]) -> bool:
    """Whether it is one of these folders, or in one."""
    whole = f"{path.rstrip('/')}/"
    return any(whole.startswith(f"{top.rstrip('/')}/") for top in tops)


def _is_git(path: str) -> bool:
    return path.split("/", maxsplit=1)[0].lower().rstrip(". ") in {".git", "git~1"}


def _plain_refusal(path: str) -> str:
    try:
        path.encode()
    except UnicodeEncodeError:
        return "must be UTF-8"
    if "${" in path or "$" in path:
        return "has a variable, and which path is meant must stand in the spec"
    if _REFUSED.search(path):
        return 'must not contain \\ * ? " < > | or control characters'
    parts = path.removeprefix("~").removeprefix("/").removesuffix("/").split("/")
    if any(part in {".", ".."} for part in parts) or ("" in parts and len(parts) > 1):
        return 'must be a plain path, without "..", "." or an empty part'
    return ""
