"""A mount namespace of a program's own, made by root before it becomes somebody else.

Rule 1: nothing that is mounted here is seen by anybody else, and it ends with the program.
Rule 2: what lies below folders that the other user cannot enter (a daemon's home is for root alone)
is bound to a place that it can enter, and nothing else of those folders.
Rule 3: called between fork and exec: it allocates little, and reports by OSError.
"""

import ctypes
import os
from collections.abc import Sequence
from typing import Final

_CLONE_NEWNS: Final = 0x00020000
_NOSUID: Final = 2
_NODEV: Final = 4
_BIND: Final = 4096
_RECURSIVE: Final = 16384
_PRIVATE: Final = 1 << 18
# Folders that every Linux has, and of which hardly any sandbox is given anything.
_PLACES: Final = ("/sys", "/mnt", "/media", "/srv")


def place_for(sources: Sequence[str]) -> str:
    """A folder that may be covered, because none of the sources lies there; "" for none."""
    for place in _PLACES:
        if os.path.isdir(place) and not any(f"{each}/".startswith(f"{place}/") for each in sources):
            return place
    return ""


def stage(place: str, sources: Sequence[str], unfollowed: int) -> None:
    """Each source as `place`/0, `place`/1 and so on, for everybody to enter, in a namespace of
    the calling process alone; the first `unfollowed` of them may be no links.
    """
    libc = ctypes.CDLL(None, use_errno=True)

    def call(what: str, code: int) -> None:
        if code != 0:
            number = ctypes.get_errno()
            raise OSError(number, os.strerror(number), what)

    def mount(source: str, target: str, kind: str | None, flags: int, data: str | None) -> None:
        raw = [None if each is None else os.fsencode(each) for each in (source, target, kind, data)]
        call(target, libc.mount(*raw[:3], ctypes.c_ulong(flags), raw[3]))

    call("a mount namespace", libc.unshare(_CLONE_NEWNS))
    mount("none", "/", None, _RECURSIVE | _PRIVATE, None)
    handles = []
    for number, source in enumerate(sources):
        follow = os.O_NOFOLLOW if number < unfollowed else 0
        handles.append(os.open(source, os.O_PATH | os.O_CLOEXEC | follow))
    mount("tmpfs", place, "tmpfs", _NOSUID | _NODEV, "mode=0711,size=1m")
    for number, handle in enumerate(handles):
        target = f"{place}/{number}"
        if os.path.isdir(f"/proc/self/fd/{handle}"):
            os.mkdir(target, 0o711)
        else:
            os.close(os.open(target, os.O_WRONLY | os.O_CREAT, 0o600))
        mount(f"/proc/self/fd/{handle}", target, None, _BIND | _RECURSIVE, None)
        os.close(handle)
