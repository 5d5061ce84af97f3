"""What two replicas say to each other about streams; the forms of docs/spec/sync.md.

Rule 1: every message is idempotent; losing, repeating or reordering one costs time, never truth.
Rule 2: nothing here is believed: sizes and roots are hints until a seal and a proof say so.
Rule 3: entries travel as segments (segment.py), everything else as canonical JSON.

An offer says what the sender holds. To a machine that may hold the stream it invites a want;
to one that may not it carries the seal with a consistency proof, so that everyone can witness.
`probe`, `root`, `prove` and `leaf` find the first entry in which two branches of one stream differ.
"""

from typing import cast

import msgspec

from muster.log import canon

MESSAGE_BYTES_MAX = 256 * 1024


class Head(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """One stream as the sender holds it: `size` entries under the seal `seal` (a signed note).

    `since` and `proof` are for witnesses: `proof` leads from the tree of `since` entries to the
    seal's.
    """

    stream: str
    size: int
    seal: str = ""
    since: int = 0
    proof: list[str] = []


class Offer(msgspec.Struct, frozen=True, forbid_unknown_fields=True, tag="offer"):
    """`whole` ends what the sender tells when a link comes up.

    The receiver's own streams are in this very part, so that it knows then what is known of it.
    """

    heads: list[Head]
    whole: bool = False
    forks: list[str] = []


class Want(msgspec.Struct, frozen=True, forbid_unknown_fields=True, tag="want"):
    stream: str
    start: int


class Witnessed(msgspec.Struct, frozen=True, forbid_unknown_fields=True, tag="witnessed"):
    """A witness's answer to a head it cannot follow: its own last size, to prove from."""

    stream: str
    size: int


class Cosigns(msgspec.Struct, frozen=True, forbid_unknown_fields=True, tag="cosigns"):
    notes: list[str]


class Probe(msgspec.Struct, frozen=True, forbid_unknown_fields=True, tag="probe"):
    stream: str
    size: int


class Root(msgspec.Struct, frozen=True, forbid_unknown_fields=True, tag="root"):
    stream: str
    size: int
    root: str


class Prove(msgspec.Struct, frozen=True, forbid_unknown_fields=True, tag="prove"):
    stream: str
    index: int


class Leaf(msgspec.Struct, frozen=True, forbid_unknown_fields=True, tag="leaf"):
    stream: str
    index: int
    branch: str


class Roots(msgspec.Struct, frozen=True, forbid_unknown_fields=True, tag="roots"):
    """Sums over the streams that both may hold, of one part by their names: one of all that is in
    it, or sixteen of the parts below it. Said only to who knows the word (feature `roots`).
    """

    part: str
    sums: list[str]


class Differ(msgspec.Struct, frozen=True, forbid_unknown_fields=True, tag="differ"):
    """Sums of these parts differ: the sender told its heads of them, and asks for the others'."""

    parts: list[str]


Message = Offer | Want | Witnessed | Cosigns | Probe | Root | Prove | Leaf | Roots | Differ


def encode(message: Message) -> bytes:
    """The bytes of one message, without the frame around them."""
    return canon.encode(msgspec.to_builtins(message))


def decode(raw: bytes) -> Message:
    """The message in `raw`. Raises: Malformed."""
    forms = cast("type[Message]", Message)
    return canon.decode_as(raw, forms, "sync message", size_max=MESSAGE_BYTES_MAX)
