"""Every error Muster raises on purpose, by what the caller can do about it.

    MusterError
    ├── Refused         the other side (a peer, a file, a person) broke a rule; nothing changed
    │   ├── Malformed   bytes that are not in the format they claim
    │   ├── Forged      a signature, hash or proof that does not hold
    │   └── Denied      no grant allows it
    ├── NotFound        the thing named does not exist here
    ├── Conflict        the state moved on; ask again
    │   └── Unsettled   not yet: our own log is still being confirmed by peers
    ├── Unreachable     nobody answers; try the next channel, or later
    │   └── Silent      no answer in time; what was asked for may still be done
    ├── Exhausted       not now: the disk is full, or descriptors or memory are used up here
    └── Broken          this machine cannot: disk, installation, configuration
        └── Damaged     what it keeps only as a copy cannot be read; a fresh copy may be made

Whose fault it is decides what becomes of an attempt: `Refused` is the order's or the agent's, and
would be the same on every machine; `Broken` and `Exhausted` are this machine's, so another one may
try; the rest belongs to the moment.

The message is one sentence: what, where, and what to do next. `exit_code` is what a
command ends with, so that scripts can tell the cases apart; 2 is left to usage errors.
"""

import errno
from typing import ClassVar, Final

# What the system says when it has no room or nothing left to give. It passes: a disk is tidied,
# descriptors are closed. EFBIG is the limit of a user's files, which is a full disk to us.
NO_ROOM: Final = frozenset({errno.ENOSPC, errno.EDQUOT, errno.EFBIG})
USED_UP: Final = NO_ROOM | {
    errno.EMFILE,
    errno.ENFILE,
    errno.ENOBUFS,
    errno.ENOMEM,
    errno.EAGAIN,
}


class MusterError(Exception):
    """Base of all; never raised itself.

    `recorded` is what a log may keep of the sentence, where that quotes what is to stay erasable.
    """

    exit_code: ClassVar[int] = 1

    def __init__(self, text: object = "", *, recorded: str = "") -> None:
        super().__init__(text)
        self.recorded = recorded or str(text)


class Refused(MusterError):
    """The other side broke a rule; nothing changed."""

    exit_code = 3


class Malformed(Refused):
    """Bytes that are not in the format they claim."""


class Forged(Refused):
    """A signature, hash or proof that does not hold."""


class Denied(Refused):
    """No grant allows it. `proof` is a signed document that says so, where there is one."""

    exit_code = 4

    def __init__(self, text: str = "", proof: str = "") -> None:
        super().__init__(text)
        self.proof = proof


class NotFound(MusterError):
    """The thing named does not exist here."""

    exit_code = 5


class Conflict(MusterError):
    """The state moved on; ask again."""

    exit_code = 6


class Unsettled(Conflict):
    """Not yet: a peer may know more of our own log than we do."""


class Unreachable(MusterError):
    """Nobody answers; try the next channel, or later."""

    exit_code = 7


class Silent(Unreachable):
    """No answer in time; what was asked for may still be done."""


class Exhausted(MusterError):
    """Not now: something is used up on this machine. Nothing changed, and it goes on by itself."""

    exit_code = 9


class Broken(MusterError):
    """This machine cannot: disk, installation, configuration."""

    exit_code = 8


class Damaged(Broken):
    """What this machine keeps only as a copy cannot be read; a fresh copy may be made."""


# What a mistake of ours can look like where the bytes of others are handled. One entry, task or
# call fails for it and the machine goes on; a failing disk is `Broken`, and not among them.
MISTAKES: Final = (
    ArithmeticError,
    AssertionError,
    AttributeError,
    LookupError,
    NameError,
    RuntimeError,
    StopIteration,
    TypeError,
    ValueError,
)
# What is said where such a mistake ended something.
MISTAKE: Final = "this machine failed at it; its log says how (`muster status` names it)"


def of_exit(code: int) -> type[MusterError]:
    """The error that ends a command with this code; `Broken` where there is none."""
    known = (Refused, Denied, NotFound, Conflict, Unreachable, Exhausted)
    return next((kind for kind in known if kind.exit_code == code), Broken)


def unable(text: str, error: OSError) -> MusterError:
    """Why a file or a process could not be had: a shortage passes, everything else does not."""
    return Exhausted(text) if error.errno in USED_UP else Broken(text)
