"""How what an extra stands on comes to where this program is installed.

Its name alone brings nothing where it came from a folder or a file: it is installed again from
there (PEP 610 says where that is), by the program that installed it.
"""

import json
import os
import shlex
import sys
from typing import Any, Final
from urllib.parse import unquote, urlsplit

PACKAGE: Final = "muster-fleet"
# What installs a program into an environment of its own, by the file that it leaves in that.
_TOOLS: Final = {"pipx_metadata.json": "pipx install", "uv-receipt.toml": "uv tool install"}


def bring(extra: str) -> str:
    """The command that a person types; a tool of its own gets all extras at once."""
    for left, words in _TOOLS.items():
        if os.path.exists(os.path.join(sys.prefix, left)):
            what, editable = _what("all")
            return f"{words} --force{' --editable' * editable} {shlex.quote(what)}"
    what, editable = _what(extra)
    python = shlex.quote(sys.executable or "python3")
    return f"{python} -m pip install{' -e' * editable} {shlex.quote(what)}"


def _what(extra: str) -> tuple[str, bool]:
    """The program with an extra, from where it came, and whether it is used where it lies."""
    # Only for who lacks something: it costs a third of a quick command.
    from importlib.metadata import PackageNotFoundError, distribution  # noqa: PLC0415

    try:
        said: Any = json.loads(distribution(PACKAGE).read_text("direct_url.json") or "{}")
        url, editable = str(said["url"]), bool(said.get("dir_info", {}).get("editable"))
        kind = f"{said['vcs_info']['vcs']}+" if "vcs_info" in said else ""
    except (PackageNotFoundError, ValueError, KeyError, TypeError, AttributeError):
        return f"{PACKAGE}[{extra}]", False
    if url.startswith("file://"):
        return f"{unquote(urlsplit(url).path)}[{extra}]", editable
    return f"{PACKAGE}[{extra}] @ {kind}{url}", False
