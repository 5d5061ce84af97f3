"""Verbs about forked streams: which there are, and an operator's decision that closes one.

Rule 1: a fork is never undone and nothing is chosen: the stream ended where its branches part,
everywhere, when the proof came. What is decided is that a person has looked at it.
Rule 2: until then it stands among the incidents of every machine that holds the proof.
"""

import hashlib
from typing import Annotated, Any, Final, Literal

from msgspec import Struct
from msgspec.structs import replace

from muster.errors import Conflict, NotFound, Refused
from muster.fleet import kinds
from muster.fleet.forked import fork_id
from muster.verbs.declaration import Call, Context, Core, Nothing, Request, Words, opt, pos, verb

ID_CHARS_MIN: Final = 4


class Fork(Struct, frozen=True):
    """A fork by its name; `beyond` entries are kept as evidence, `proof` is "" without one here."""

    fork: str
    stream: str
    machine: str
    common: int
    beyond: int = 0
    proof: str = ""
    state: Literal["open", "closed"] = "open"
    by: str = ""
    note: str = ""
    t_ms: int = 0


@verb("forks", auth="local", group="What is true", harmless=True)
def forks(core: Core, call: Call, ask: Nothing) -> list[Fork]:
    """Streams whose own key wrote two histories, and what was decided.

    Every fork that this machine can prove or that an operator closed, open ones first.

        muster forks
    """
    return listed(core)


def listed(core: Core) -> list[Fork]:
    """What the verb answers."""
    found = {each.fork: each for each in proved(core)}
    for fork, closed in core.roster.closed.items():
        machine = core.membership.name_of(closed.stream.partition("/")[0])
        operator = core.roster.operators.get(closed.operator)
        found[fork] = replace(
            found.get(fork) or Fork(fork, closed.stream, machine, closed.common),
            state="closed",
            by=operator.name if operator is not None else closed.operator[:12],
            note=closed.note,
            t_ms=closed.issued_ms,
        )
    return sorted(found.values(), key=lambda each: (each.state != "open", each.stream, each.common))


def proved(core: Core) -> list[Fork]:
    """The forks that this machine holds a proof of."""
    found = []
    for stream, proof in core.replication.forks.proofs().items():
        common = core.store.frozen_at(stream)
        if common is None:
            continue
        held = core.store.query("select held from stream where name = ?", (str(stream),))
        found.append(
            Fork(
                fork=fork_id(str(stream), common),
                stream=str(stream),
                machine=core.membership.name_of(stream.machine),
                common=common,
                beyond=max(0, int(str(held[0][0])) - common) if held else 0,
                proof=hashlib.sha256(proof).hexdigest(),
            )
        )
    return found


class Close(Request, frozen=True):
    fork: Annotated[str, pos("the fork's id (its beginning is enough)")]
    note: Annotated[Words, pos("what you found, for the log")] = ()


@verb("close", auth="local", runs="client", group="What is true")
def close(context: Context, ask: Close) -> Any:
    """Close a fork: you looked at it, its stream stays where it was cut.

    muster close 3fa1 'a backup was started twice'
    """
    found = [each for each in context.ask("forks", {}) if each["fork"].startswith(ask.fork)]
    if not found or len(ask.fork) < ID_CHARS_MIN:
        raise NotFound(f"no fork begins with {ask.fork[:40]!r}; `muster forks` lists them")
    if len(found) > 1:
        raise Refused(f"more than one fork begins with {ask.fork[:40]!r}; give more of its id")
    # The name of the fork in full is what the operator signs.
    signed = {"fork": found[0]["fork"], "note": " ".join(ask.note)[:500]}
    return context.ask("fork.close", signed)


class Settle(Request, frozen=True):
    fork: Annotated[str, pos("the fork's whole id")]
    note: Annotated[str, opt("what was found")] = ""


class Settled(Struct, frozen=True):
    fork: str
    stream: str
    common: int
    entry: str


@verb("fork.close", auth="order", object="fork", operators_only=True)
def settle(core: Core, call: Call, ask: Settle) -> Settled:
    """An operator's decision about a fork."""
    found = next((each for each in listed(core) if each.fork == ask.fork), None)
    if found is None:
        raise NotFound(
            f"this machine holds no proof of fork {ask.fork[:12]}; `muster forks` lists them"
        )
    if found.state != "open":
        raise Conflict(f"fork {ask.fork[:12]} was closed by {found.by} already")
    entry = call.write(
        kinds.ForkClose(found.common, ask.note, found.proof, call.statement, found.stream)
    )
    return Settled(ask.fork, found.stream, found.common, entry.id.hex())
