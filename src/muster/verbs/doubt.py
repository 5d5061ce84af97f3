"""Verbs about what this machine does not know of its own past; node/incarnations/doubt.py."""

from typing import Annotated

from msgspec import Struct

from muster.errors import Conflict
from muster.node.incarnations.doubt import Doubt
from muster.node.incarnations.lives import Lives
from muster.node.verb import Line, Loss
from muster.verbs.declaration import Call, Context, Core, Nothing, Request, pos, verb


class View(Struct, frozen=True):
    """A doubt, "" where there is none but a second copy; `awaits` says what ends its waiting."""

    id: str
    reasons: list[str]
    since_ms: int
    waits: bool
    awaits: str


@verb("doubt", auth="local")
def doubt(core: Core, call: Call, ask: Nothing) -> View | None:
    """What this machine does not know of its own past.

    That another copy of it runs is one of the reasons; nothing where all is known.
    """
    kept, beside = core.part(Doubt).kept, core.part(Lives).beside is not None
    if kept is None and not beside:
        return None
    reasons = ["another copy of this machine runs with the same key"] if beside else []
    awaits = core.part(Doubt).awaits() if kept is not None and kept.waits else ""
    return View(
        id=kept.id if kept else "",
        reasons=reasons + list(kept.reasons if kept else ()),
        since_ms=kept.since_ms if kept else core.now.wall_ms,
        waits=core.part(Doubt).waits,
        awaits="one of the two copies to be stopped" if beside else awaits,
    )


class Vouched(Struct, frozen=True):
    """The machine that goes on, and why it had stood still."""

    vouched: str
    reasons: list[str]


@verb(
    "vouch", auth="local", runs="client", group="What is true",
    says=(
        Line("{vouched} goes on without what it lost of its log. Orders signed before that are "
             "refused: whether it obeyed them cannot be known."),
    ),
    destroys=(
        Loss("this machine goes on without what it lost of its log, for good, and refuses orders "
             "that were signed before", asks="doubt", urgent=True),
    ),
)  # fmt: skip
def vouch(context: Context, ask: Nothing) -> Vouched:
    """Go on without what this machine lost of its log: you know it is no copy.

    muster vouch
    """
    found = context.ask("doubt", {})
    if found is None or not found["id"]:
        raise Conflict("this machine knows its own past: there is nothing to go on without")
    # The doubt by its name is what the operator signs.
    return Vouched(context.ask("doubt.end", {"doubt": found["id"]})["resumed"], found["reasons"])


class End(Request, frozen=True):
    doubt: Annotated[str, pos("the doubt")]


class Ended(Struct, frozen=True):
    resumed: str


@verb("doubt.end", auth="order", object="doubt", operators_only=True)
def end(core: Core, call: Call, ask: End) -> Ended:
    """An operator's word that ends a machine's doubt."""
    core.part(Doubt).end(ask.doubt)
    return Ended(core.name)
