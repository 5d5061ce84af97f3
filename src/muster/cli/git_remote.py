"""`git-remote-muster`: what git starts for an address `muster::<machine>/<repository>`.

Rule 1: nothing of git's protocol is understood here; bytes go through, both ways, with credit.
Rule 2: nothing heavy is imported; git starts this for every fetch.

    git fetch muster::hub/site
        └─ git-remote-muster <remote> hub/site
              │ connect git-upload-pack
              └─ the local daemon's socket ── a link ── the hub ── git upload-pack

Git closes its end when it is done, or the daemon does when the far git ended.
docs/spec/git.md holds the call.
"""

import io
import os
import sys
from typing import Final

from muster.cli import call, pipe
from muster.errors import Malformed, MusterError, NotFound, Unreachable
from muster.printable import visible

_SERVICES: Final = ("git-upload-pack", "git-receive-pack")


def main() -> int:
    """The program. Git speaks first, a line at a time."""
    try:
        if len(sys.argv) != 3:
            raise Malformed("this program is started by git, for addresses like muster::hub/site")
        machine, repo = parse(sys.argv[2])
        # Without a buffer: what follows `connect` is not ours.
        commands = io.FileIO(0, closefd=False)
        while line := commands.readline(1024).decode("utf-8", "replace"):
            if line == "capabilities\n":
                os.write(1, b"connect\n\n")
            elif line.startswith("connect "):
                return connect(machine, repo, line.removeprefix("connect ").strip())
            elif line != "\n":
                raise Malformed(f"git asked for {line.strip()[:60]!r}, which we do not know")
    except (MusterError, ValueError, OSError) as error:
        word = "unreachable" if isinstance(error, Unreachable) else "refused"
        print(visible(f"muster: {word}: {error}"), file=sys.stderr)
        return 1
    return 0


def parse(text: str) -> tuple[str, str]:
    """The names in `<machine>/<repository>`, also behind `muster://`. Raises Malformed."""
    machine, _, repo = text.removeprefix("muster://").partition("/")
    for name in (machine, repo):
        # The daemon checks names by its own rules; here only what could never be one.
        if not name or not set(name) <= set("abcdefghijklmnopqrstuvwxyz0123456789-"):
            raise Malformed(f"{text[:80]!r} is not an address like muster::hub/site")
    return machine, repo


def connect(machine: str, repo: str, service: str) -> int:
    """Ask for the stream and carry it until one side is done; 0 when the far git ended well."""
    if service not in _SERVICES:
        raise Malformed(f"git asked for the service {service[:40]!r}, which we do not know")
    args = {"machine": machine, "repo": repo, "service": service}
    path = call.socket_path()
    try:
        client = call.begin(path, "git.connect", args)
    except NotFound as error:
        told = f"{error}, or set MUSTER_HOME to the home of a machine that is there"
        raise Unreachable(told) from error
    with client:
        call.last(call.answers(client, path, "git.connect"))
        # An empty line tells git that from here on the bytes are the service's own.
        os.write(1, b"\n")
        said = pipe.carry(client, 0, 1).removeprefix("muster: ")
    if said:
        print(visible(f"muster: {said}"), file=sys.stderr)
    return 1 if said else 0


if __name__ == "__main__":
    sys.exit(main())
