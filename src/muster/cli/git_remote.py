"""`git-remote-muster`: what git starts for an address `muster::<machine>/<repository>`.

Rule 1: nothing of git's protocol is understood here; bytes go through, both ways, with credit.
Rule 2: nothing heavy is imported; git starts this for every fetch.
Rule 3: a person's push is an order, signed here with the person's key.

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
from contextlib import ExitStack
from functools import partial
from typing import Final

from muster.channel.ipc_client import Client
from muster.cli import call, pipe
from muster.errors import Broken, Denied, Malformed, MusterError, NotFound, Unreachable
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
        client = _ordered(path, machine, repo) if service == "git-receive-pack" else None
        client = client or _accepted(path, "git.connect", args)
    except NotFound as error:
        if os.path.exists(path):
            raise
        told = f"{error}, or set MUSTER_HOME to the home of a machine that is there"
        raise Unreachable(told) from error
    with client:
        # An empty line tells git that from here on the bytes are the service's own.
        os.write(1, b"\n")
        said = pipe.carry(client, 0, 1).removeprefix("muster: ")
    if said:
        print(visible(f"muster: {said}"), file=sys.stderr)
    return 1 if said else 0


def _accepted(path: str, verb: str, args: call.Args, **fields: str) -> Client:
    """The link over which a verb was called, once the far side took the call."""
    with ExitStack() as stack:
        client = stack.enter_context(call.begin(path, verb, args, **fields))
        call.last(call.answers(client, path, verb))
        stack.pop_all()
    return client


def _ordered(path: str, machine: str, repo: str) -> Client | None:
    """The stream of a push that a person orders; None where only this machine may push.

    The daemon's own git, and an agent in its attempt, push as their machine: what they may is no
    matter of whose key lies here. A person whose key may not push is judged as the machine, too.
    """
    environ = os.environ
    if environ.get("MUSTER_PUSHES") == "machine" or "MUSTER_CAPABILITY" in environ:
        return None
    if "MUSTER_SOCK" in environ and not environ.get("MUSTER_HOME"):
        # Whose daemon that is, and so which key goes with it, is not known.
        return None
    from muster.node.host.home import Home  # noqa: PLC0415 - only a push signs

    home = Home()
    if not (home.has_seed("operator.seed") or home.has_seed("device.seed")):
        return None
    from muster.cli import sign  # noqa: PLC0415 - as above
    from muster.verbs.table import VERBS  # noqa: PLC0415 - as above

    args = {"repo": repo}
    to = sign.target(partial(call.ask, path), VERBS["push"], args, machine)
    order = {"on": to.machine, "statement": sign.sign("push", args, to, repo)}
    try:
        return _accepted(path, "push", args, **order)
    except (Denied, Broken):
        # Broken: it runs an older version, which knows machines only.
        return None


if __name__ == "__main__":
    sys.exit(main())
