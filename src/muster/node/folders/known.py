"""What a file on the disk is, beside what is wanted there (pure).

Rule: a file that is what counts, or what this machine wrote before it could remember that it did,
is no change of anybody's.
"""

from collections.abc import Callable

from muster.log.fold import NO_ENTRY
from muster.node.folders.basis import Base
from muster.node.folders.reader import Change
from muster.node.services.context import Wanted


def as_known(change: Change, wanted: Wanted) -> Base | None:
    """What a file that changed is made of, where it is a version already; None where it is none."""
    where = wanted.content
    if change.signature is None:
        is_gone = where is None and not wanted.as_is
        return Base(None, b"", said_x=False, over=wanted.made_of) if is_gone else None
    if where is not None and (where.digest, wanted.said_x) == (change.digest, change.said_x):
        made_of, holder = wanted.made_of, where.entry
    elif (change.digest, change.said_x) in wanted.known:
        made_of, holder = frozenset({wanted.known[change.digest, change.said_x]}), NO_ENTRY
    else:
        return None
    return Base(change.signature, change.digest, change.said_x, made_of, None, holder)


def stays(base: Base | None, wanted: Wanted) -> bool:
    """Whether what was changed here, and counts for nobody, stays as it is."""
    return base is not None and base.behind is not None and base.behind == wanted.made_of


def is_there(base: Base | None, wanted: Wanted, keeps_x: Callable[[], bool]) -> bool:
    """Whether the disk, which `keeps_x` or not, has it already, whatever it is made of."""
    on_disk = base is not None and base.signature is not None
    if wanted.content is None:
        return not on_disk
    if base is None or base.signature is None:
        return False
    if base.digest != wanted.content.digest:
        return False
    return bool(base.signature.x) == wanted.x or not keeps_x()


def known_base(base: Base | None, wanted: Wanted) -> Base | None:
    """What a file that has what is wanted is made of from now on; None: nothing is known of it."""
    if wanted.content is None:
        return Base(None, b"", said_x=False, over=wanted.made_of) if wanted.made_of else None
    assert base is not None
    holder = wanted.content.entry
    return Base(base.signature, base.digest, wanted.said_x, wanted.made_of, None, holder)
