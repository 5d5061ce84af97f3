"""The verb that erases a text of what is known, on every machine and for good.

Rule: whoever asked hears where it is gone and who has not heard of it: a machine that has the
erasure has erased (node/services/erasure.py). To ask again writes nothing, and tells how far it is.
"""

from typing import Annotated, Final

from msgspec import Struct

from muster.errors import NotFound
from muster.log.entry import Entry
from muster.memory.kinds import MemoryErase, check_erase
from muster.memory.state import Version
from muster.node.services.memory import Memory
from muster.node.services.messages import held_size
from muster.node.verb import Line, Loss
from muster.verbs.declaration import Call, Core, Request, opt, pos, verb
from muster.verbs.memory import find_version

_VERSION: Final = pos("the version to erase (its beginning is enough)")


class Forget(Request, frozen=True):
    version: Annotated[str, _VERSION]
    reason: Annotated[str, opt("why, in one line: it stays, so it says nothing of the text")] = ""


class Forgotten(Struct, frozen=True):
    """What is erased here, and the machines that have not heard of it."""

    version: str
    key: str
    erased: str
    waiting: list[str]


@verb(
    "forget", auth="order", group="Memory", object="version",
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
        entry = call.write(_erasure(part, known, ask.reason), scope=known.stream.scope)
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


@verb("forget.check", auth="local")
def check(core: Core, call: Call, ask: Asked) -> Meant | None:
    """What would be lost; nothing where it is erased already. Raises: NotFound, Refused."""
    known = find_version(core, ask.version)
    if core.part(Memory).erased_by(known.id) is not None:
        return None
    _check_here(known)
    return Meant(known.id.hex(), known.key)
