"""What lies on the branches of a shared repository: of it what is for us, and what of ours is done.

Rule: no branch takes the turn of another, whatever lies on it (channel/turn.py). Where the machines
of the fleet are known, branches that are of none are not asked for at all.
"""

from collections import OrderedDict
from collections.abc import Collection, Iterable, Mapping
from typing import Final, NamedTuple

from muster import limits
from muster.channel import turn
from muster.git.fence import WRITER_CHARS
from muster.git.mailbox import Branch
from muster.git.objects import Blob

SUFFIX: Final = ".mp"
_REMEMBERED_MAX: Final = 4096


class Terms(NamedTuple):
    """How long what was dealt with gathers, and what is gone already.

    `gap_s` lies between two pushes; so many bytes lie there for one machine.
    """

    gap_s: float = 2.0
    ack_s: float = 10.0
    gone_s: float = 60.0
    box_bytes_max: int = limits.GIT_BOX_BYTES_MAX


# A receiver, and the name of a file for it.
Key = tuple[str, str]


def of_fleet(heads: Mapping[str, str], members: Iterable[str]) -> dict[str, str]:
    """The branches of machines of the fleet; all, where none of these is known."""
    known = {machine[:WRITER_CHARS] for machine in members}
    return {name: commit for name, commit in heads.items() if not known or name in known}


def in_turn(branches: Mapping[str, Branch], after: str) -> dict[str, Blob]:
    """What lies there for us by its hash, of each branch one and then of each the next."""
    boxes = {
        writer: [(name.removesuffix(SUFFIX), blob) for name, blob in branch.files.items()]
        for writer, branch in branches.items()
    }
    return dict(each for _, each in turn.in_turn(boxes, after))


def whose(branches: Mapping[str, Branch], id: str) -> str:
    """A branch on which this lies."""
    return next((name for name, each in branches.items() if id + SUFFIX in each.files), "")


def by_writer(left: Iterable[Key]) -> dict[str, set[str]]:
    """The hashes of what we left, by the name of the branch whose machine deals with it."""
    found = dict[str, set[str]]()
    for reader, name in left:
        found.setdefault(reader[:WRITER_CHARS], set()).add(name.removesuffix(SUFFIX))
    return found


def dealt_with(left: Iterable[Key], branches: Mapping[str, Branch]) -> list[Key]:
    """What of ours its receiver says that it dealt with."""
    acks = {name: branch.acks for name, branch in branches.items()}
    return [
        (reader, name)
        for reader, name in left
        if name.removesuffix(SUFFIX) in acks.get(reader[:WRITER_CHARS], ())
    ]


def acks_first(acked: Collection[str], there: Iterable[str]) -> list[str]:
    """What we dealt with: what lies there still in its turn, then what went."""
    known = dict.fromkeys(id for id in there if id in acked)
    return [*known, *(id for id in acked if id not in known)]


def why_full(where: str, sizes: Mapping[Key, int], key: Key, box_bytes_max: int) -> str:
    """Why what lies there is too much, with what is added under this key; "" where it is not."""
    box = [size for (reader, _), size in sizes.items() if reader == key[0]]
    if sum(box) > box_bytes_max or len(box) > limits.GIT_BOX_FILES_MAX:
        return f"too much lies in {where} for one machine: it takes nothing"
    many = len({reader for reader, _ in sizes}) > limits.GIT_BOXES_MAX
    if many or sum(sizes.values()) > limits.GIT_BRANCH_BYTES_MAX:
        return f"what this machine has lying in {where} is too much"
    return ""


def remember(known: OrderedDict[str, None], id: str) -> None:
    """Know it as the newest of so many."""
    known[id] = None
    known.move_to_end(id)
    if len(known) > _REMEMBERED_MAX:
        known.popitem(last=False)
