"""`muster-ssh-serve`: what machines of the fleet run through the sshd of this computer.

    python3 -I -m muster.cli.ssh_serve HOME

Rule 1: nothing of what comes is read here; the bytes go to the daemon, which has whoever sends them
prove who it is. Where none runs one is begun, which ends after them.
Rule 2: no word of the far side is looked at, neither arguments nor environment.
Rule 3: the first word is `BEGIN`: whatever a login said before is not ours.
docs/spec/ssh.md holds the conversation.
"""

import os
import sys
import time
from contextlib import suppress
from typing import Final

from muster import umask
from muster.channel.ipc_client import Client
from muster.cli import call, pipe
from muster.errors import Conflict, Malformed, MusterError, Unreachable
from muster.printable import visible

# As channel/ssh_client.py waits for it; that file stands on what need not be installed here.
BEGIN: Final = b"\nmuster-ssh 1\n"

# Chosen so that whoever dialled is still there: it waits for half a minute.
_LOOKS: Final = 250
_LOOK_S: Final = 0.1


def main() -> int:
    """The program; its exit code is for people who look at sshd's log."""
    umask.narrow()
    try:
        if len(sys.argv) not in (2, 3):
            raise Malformed("this program is run by sshd; `muster ssh trust` says so to it")
        os.environ["MUSTER_HOME"] = sys.argv[1]
        os.environ.pop("MUSTER_SOCK", None)
        if len(sys.argv) == 3:
            return _visit(sys.argv[1])
        path = call.socket_path()
        with _called(path) as client:
            call.last(call.answers(client, path, "ssh.serve"))
            os.write(1, BEGIN)
            pipe.carry(client, 0, 1)
    except (MusterError, OSError) as error:
        print(visible(f"muster: {error}"), file=sys.stderr)
        return error.exit_code if isinstance(error, MusterError) else 1
    return 0


def _called(path: str) -> Client:
    """The link over which the daemon was called; one is begun where none runs.

    Raises: Unreachable where none comes up or a person put it down, NotFound where no machine is.
    """
    args = {"sshd": os.getppid()}
    try:
        return call.begin(path, "ssh.serve", args)
    except Unreachable:
        from muster.node.host.home import Home  # noqa: PLC0415 - heavy, and seldom needed
        from muster.verbs import daemon  # noqa: PLC0415 - as above

        home = Home()
        if home.put_down.exists():
            raise Unreachable("a person put its daemon down: `muster up` there first") from None
        # Another one may be beginning at this moment: then that one is waited for.
        with suppress(Conflict):
            daemon.visit(home)
    for _ in range(_LOOKS):
        # It does not listen yet; after the last look it is said.
        with suppress(Unreachable):
            return call.begin(path, "ssh.serve", args)
        time.sleep(_LOOK_S)
    return call.begin(path, "ssh.serve", args)


def _visit(home: str) -> int:
    """Be the daemon, until nobody comes through sshd any more."""
    from muster.node.host.home import Home  # noqa: PLC0415 - as above
    from muster.verbs import daemon  # noqa: PLC0415 - as above

    daemon.be_visited(Home(home), lambda said: print(said, file=sys.stderr))
    return 0


if __name__ == "__main__":
    sys.exit(main())
