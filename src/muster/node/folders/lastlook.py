"""What was just replaced in a folder is looked at a last time, where the folder is kept no more."""

from collections.abc import Callable
from typing import Final

from muster.errors import MusterError
from muster.node.folders.reader import FRESH_MS
from muster.node.folders.writer import OLD_S, Writer, beside

# So often what somebody is writing is looked at once more: a second.
_TRIES: Final = 1_000 // FRESH_MS


def look_last(writer: Writer, wait: Callable[[float], object]) -> list[str]:
    """Make versions of what nobody expected there; where what stays lies that can be none.

    Whoever had a file open has its second, as ever.
    """
    stayed = list[str]()
    if writer.old:
        wait(OLD_S)
    for name, old in list(writer.old.items()):
        try:
            for _ in range(_TRIES):
                if name not in writer.old:
                    break
                if not writer.look_at_old(name):
                    writer.forget_old(name)
                    break
                wait(FRESH_MS / 1000)
            else:
                stayed.append(beside(old.path, name))
        except (MusterError, OSError):
            # It is told by its name to whoever asked.
            stayed.append(beside(old.path, name))
    return stayed
