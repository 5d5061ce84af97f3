"""The hidden verb that a command asks before it signs an order: who acts."""

import contextlib
from typing import Annotated

from msgspec import Struct

from muster.errors import NotFound, Refused
from muster.verbs import peer_work
from muster.verbs.declaration import Call, Core, Request, data, verb
from muster.verbs.find import whose
from muster.verbs.incident import meant
from muster.verbs.table import VERBS


class Ask(Request, frozen=True, forbid_unknown_fields=False):
    """Which verb is to be ordered, on what, and where, as far as `--on` says."""

    verb: Annotated[str, data()] = ""
    object: Annotated[str, data()] = ""
    on: Annotated[str, data()] = ""


class Target(Struct, frozen=True):
    """The machine that is to act, "" for everybody; `object` is the whole id of what is meant.

    `asker` is the machine that was asked.
    """

    machine: str
    name: str
    here: bool
    fleet: str
    now_ms: int
    object: str
    asker: str


@verb("target", auth="local")
def target(core: Core, call: Call, ask: Ask) -> Target:
    """The machine that is to act on an order.

    The one that is named; else the owner of the task or run that is meant, this machine, or a hub
    that we reach, or who goes on with its work, as the verb says. What no owner can be asked about
    is for everybody where the verb can be done without it.
    """
    asked = VERBS.get(ask.verb)
    wanted, whole, rule = ask.on, "", "hub" if asked is None else asked.target
    if asked is not None and (asked.object, "incident") in {(a.name, a.kind) for a in asked.args}:
        whole = meant(core, ask.object).id
    everybody = False
    if not wanted and rule in {"owner", "owner or all"} and ask.object:
        # What is wrong with it says the machine that acts.
        with contextlib.suppress(NotFound, Refused):
            # Nothing but a cancelling is for what was asked of another fleet.
            out = peer_work.meant(core, ask.object) if rule == "owner or all" else None
            if out is not None:
                # Whoever asked takes it back.
                wanted = out.stream.machine
            else:
                found = whose(core, ask.object)
                everybody = rule == "owner or all" and not found.there
                # By a name or a place the newest is meant: of which a newer one may come meanwhile.
                whole = found.id if everybody or not found.id.startswith(ask.object) else ""
                wanted = "" if everybody else found.machine
    if rule == "here" or (rule == "authority" and core.authority is not None):
        wanted = wanted or core.machine
    if wanted:
        record = core.roster.find(wanted)
    else:
        record = core.roster.machine(next(iter(core.leads()), core.machine))
    return Target(
        machine="" if everybody else record.machine,
        name=record.name,
        here=record.machine == core.machine,
        fleet=core.membership.fleet,
        now_ms=core.now.wall_ms,
        object=whole,
        asker=core.machine,
    )
