"""What git's hooks run: the fence asks, and refuses whatever is not answered with a clear yes.

Rule 1: every path that does not end in an explicit yes ends in exit code 1.
Rule 2: nothing heavy is imported; a push starts this file twice.

`pre-receive` learns the pushing machine from MUSTER_PEER, which the daemon set when it started
receive-pack, and asks the daemon at MUSTER_SOCK. `reference-transaction` compares the epoch
again with the fence in the repository, after the answer and under the ref's lock.
docs/spec/git.md holds the call and the reply.
"""

import os
import subprocess
import sys
from functools import partial
from typing import Any, Final

from muster import limits
from muster.cli import call
from muster.errors import Malformed, MusterError, Refused, Unreachable
from muster.git.fence import (
    HEADS_PREFIX,
    SCHEDULE_PREFIX,
    Update,
    may_commit,
    must_advance,
    slot_of,
)
from muster.printable import visible

# Three fields of at most 64, 64 and 4096 bytes, a line each.
_INPUT_BYTES_MAX: Final = limits.GIT_PUSH_REFS_MAX * 4_300


def main() -> int:
    """Run one hook; 0 lets git go on."""
    try:
        hook = {"pre-receive": pre_receive, "reference-transaction": reference_transaction}
        hook[sys.argv[1]](updates(sys.stdin.buffer.read(_INPUT_BYTES_MAX + 1)))
    except (MusterError, OSError, ValueError, LookupError, subprocess.SubprocessError) as error:
        word = "unreachable" if isinstance(error, Unreachable) else "refused"
        print(visible(f"muster: {word}: {error}"), file=sys.stderr)
    else:
        return 0
    return 1


def pre_receive(moves: list[Update]) -> None:
    """Ask the hub, then look at the histories that only this repository knows."""
    peer, path = os.environ.get("MUSTER_PEER", ""), os.environ.get("MUSTER_SOCK", "")
    if not peer or not path:
        raise Refused("this repository is pushed to as muster::<machine>/<name> only")
    if not moves:
        raise Refused("the push names no ref")
    # Anything but the daemon's yes raises.
    args: dict[str, Any] = {
        "peer": peer,
        "repo": os.environ.get("MUSTER_REPO", ""),
        "updates": list(map(list, moves)),
    }
    slots = {m.ref: _slot(m.new) for m in moves if m.ref.startswith(SCHEDULE_PREFIX)}
    args |= {"slots": slots} if slots else {}
    call.ask(path, "git.may-push", args, within_s=limits.GIT_HOOK_MS_MAX / 1000)
    for move in moves:
        if must_advance(move) and _git("merge-base", "--is-ancestor", move.old, move.new) is None:
            raise Refused(f"{move.ref} may only move forward, not be rewritten")


def _slot(new: str) -> int:
    """The slot that a register is to move to. Raises: Refused, Malformed."""
    raw = _git("cat-file", "blob", new)
    if raw is None:
        raise Refused("what a register of a schedule is to hold is no blob")
    return slot_of(raw)


def reference_transaction(moves: list[Update]) -> None:
    """Compare each attempt's epoch with the fence as it is now."""
    branches = {move[1:] for move in moves if move.ref.startswith(HEADS_PREFIX)}
    for move in moves:
        # Git lists HEAD beside the branch it stands for; nothing but its log is written then.
        if move.ref == "HEAD" and move[1:] in branches:
            continue
        if (reason := may_commit(move, partial(_git, "cat-file", "blob"))) is not None:
            raise Refused(reason)


def updates(raw: bytes) -> list[Update]:
    """The lines git writes to a hook. Raises Malformed."""
    lines = raw.decode("utf-8").splitlines()
    if len(raw) > _INPUT_BYTES_MAX or len(lines) > limits.GIT_PUSH_REFS_MAX:
        raise Malformed(f"one push moves at most {limits.GIT_PUSH_REFS_MAX} refs")
    moves = []
    for line in lines:
        old, new, ref = line.split(" ", 2)
        moves.append(Update(ref, old, new))
    return moves


def _git(*args: str) -> bytes | None:
    """Git in the environment git gave us, which knows where the pushed objects wait."""
    done = subprocess.run(
        ["git", *args],
        stdin=subprocess.DEVNULL,
        capture_output=True,
        timeout=limits.GIT_HOOK_MS_MAX / 1000,
        check=False,
    )
    return done.stdout if done.returncode == 0 else None


if __name__ == "__main__":
    sys.exit(main())
