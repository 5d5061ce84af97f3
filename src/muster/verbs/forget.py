"""The verb that erases a text of what is known, on every machine and for good.

Rule: whoever asked hears where it is gone and who has not heard of it: a machine that has the
erasure has erased (node/services/erasure.py). To ask again writes nothing, and tells how far it is.
"""

from typing import Annotated, Final

from msgspec import UNSET, Struct, UnsetType

from muster.errors import Conflict, NotFound
from muster.log.entry import Entry
from muster.memory.kinds import PERSON, MemoryErase, check_erase
from muster.memory.ordered import restated
from muster.memory.state import Version
from muster.node.services.memory import Memory
from muster.node.services.messages import held_size
from muster.node.verb import Line, Loss
from muster.verbs.declaration import Call, Core, Request, data, opt, pos, verb
from muster.verbs.known import find_version

_VERSION: Final = pos("the version to erase (its beginning is enough)")


class Forget(Request, frozen=True):
    version: Annotated[str, _VERSION]
    reason: Annotated[str, opt("why, in one line: it stays, so it says nothing of the text")] = ""
    # What the erasure is to say of the version (memory/ordered.py), where that takes a person.
    restates: Annotated[str, data()] = ""


class Forgotten(Struct, frozen=True):
    """What is erased here, and the machines that have not heard of it."""

    version: str
    key: str
    erased: str
    waiting: list[str]


@verb(
    "forget", auth="order", group="Memory", object="version", signs="forget_args",
    destroys=(
        Loss("the text of {key} (version {version:id}) is erased on every machine, for good",
             asks="forget.check"),
    ),
    says=(
        Line("{version:id}  erased on {erased}"),
        Line("waiting for {waiting}: it is erased there as soon as it hears of it", "waiting"),
    ),
)  # fmt: skip
def forget(core: Core, call: Call, ask: Forget) -> Forgotten:
    """Erase what is known, its text and not that it was: on every machine, for good.

    muster forget 3fa9c1 --reason 'it held a password'
    """
    known = find_version(core, ask.version)
    part = core.part(Memory)
    entry = part.erased_by(known.id)
    if entry is None:
        _check_here(known)
        body = _erasure(part, known, ask.reason)
        if ask.restates not in ("", restated(body)):
            raise Conflict(
                f"what is known of the version {known.id.hex()[:12]} is not on {core.name} what "
                "it was where you asked: nothing was erased; give the order again"
            )
        entry = call.write(body, scope=known.stream.scope)
    return Forgotten(known.id.hex(), known.key, core.name, _waiting(core, entry))


def _check_here(known: Version) -> None:
    """Raises: NotFound where nothing tells what has to be restated of a version."""
    if not known.key:
        raise NotFound(
            f"the text of {known.id.hex()[:12]} was never sent to this machine, which came to the "
            "fleet later: forget it on one that has it"
        )


def _erasure(part: Memory, known: Version, reason: str) -> MemoryErase:
    """What stays of a version: without its print, where nothing says that it is wrong."""
    body = MemoryErase(
        known.id.hex(),
        "refuted" if known.state == "refuted" else "erased",
        known.rank,  # type: ignore[arg-type]
        known.key,
        sorted(each.hex() for each in known.over),
        known.print.hex() if part.is_refuted(known.id) else "",
        reason,
    )
    return check_erase(body)


def _waiting(core: Core, entry: Entry) -> list[str]:
    """The machines that may have the text and have not receipted its erasure."""
    held, stream = held_size(core, entry.stream), entry.stream
    return sorted(
        core.membership.name_of(machine)
        for machine in core.roster.machines
        if machine not in (core.machine, stream.machine)
        and core.membership.may_hold(stream, machine)
        and held(machine) <= entry.header.seq
    )


class Asked(Request, frozen=True):
    version: Annotated[str, _VERSION]


class Meant(Struct, frozen=True):
    version: str
    key: str
    restates: str | UnsetType = UNSET


@verb("forget.check", auth="local")
def check(core: Core, call: Call, ask: Asked) -> Meant | None:
    """What would be lost; nothing where it is erased already. Raises: NotFound, Refused."""
    known, part = find_version(core, ask.version), core.part(Memory)
    if part.erased_by(known.id) is not None:
        return None
    _check_here(known)
    body = _erasure(part, known, "")
    # Whoever is of an older Muster takes no order that restates: only what needs it has one.
    needs = body.rank == PERSON and bool(body.over or body.print)
    return Meant(known.id.hex(), known.key, restated(body) if needs else UNSET)
