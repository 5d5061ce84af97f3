"""Verbs about grants: give one, take it back; and what can be granted with effect.

Rule 1: a grant that cannot have an effect is refused with the reason: who believes to have allowed
something, and has not, learns it too late.
Rule 2: two askers are decided by grants. A *key* signs orders: what it may is a verb of the table.
A *machine* (alone, or by its role) acts over its link, without a statement: `push` and `repo`; and
it hands on work for its agents, within bounds: `delegate`; or writes files that others put on
their disks: `context.write`, `context.exec`.
Rule 3: nothing is guessed about who is meant: see `_candidates`.
"""

import contextlib
import re
from collections.abc import Mapping
from typing import Annotated, Final, NamedTuple

from msgspec import UNSET, Struct, UnsetType

from muster.duration import duration_ms
from muster.errors import Conflict, Denied, MusterError, NotFound, Refused
from muster.fleet import kinds
from muster.fleet.grant import (
    ANYTHING,
    CHAT_GRANTEE,
    CHAT_VERBS,
    DELEGATE,
    FILE,
    FLEET_GRANTEE,
    GIVE,
    GRANT,
    TAKE,
    TASK,
    UNENCLOSED,
    Bounds,
    Grant,
    agent_key,
    gives,
    is_bounded,
    is_for_chat,
    takes,
)
from muster.fleet.name import Hex32, check_word
from muster.fleet.named import SORTS, meant
from muster.fleet.record import ROLES
from muster.fleet.statement import open_statement
from muster.limits import (
    DELEGATION_DEPTH_MAX,
    DELEGATIONS_MAX,
    GRANT_DAYS_MAX,
    PEER_FILE_BYTES,
    PHASE_TIMEOUT_MS_MAX,
)
from muster.node.verb import Line
from muster.task.units import SIZE, size_mib
from muster.verbs.declaration import Call, Core, Request, Words, data, opt, pos, verb
from muster.verbs.table import VERBS

# What a machine may over its own link, and what the object of such a grant is.
MACHINE_VERBS: Final[Mapping[str, str]] = {
    "push": "repo", "repo": "repository", DELEGATE: "machine",
    "context.write": "folder", "context.exec": "folder",
}  # fmt: skip
# What another fleet may over a link of its own; the object is the machine that it is asked of.
FLEET_VERBS: Final[Mapping[str, str]] = {"send": "machine", TASK: "machine", FILE: "machine"}
# What an agent asks for on its own machine, and nobody orders.
_OF_AGENTS: Final = frozenset({DELEGATE, "withdraw"})
# Whose objects begin with the id of a machine.
OF_MACHINE: Final = frozenset({DELEGATE, *(v.name for v in VERBS.values() if v.of_machine)})
# What a machine may hand on where nobody says otherwise; chosen arbitrarily.
PER_DAY: Final = 20
AT_ONCE: Final = 4
# Only an operator does these, whatever was granted: a grant of them would mean nothing.
OPERATORS_ONLY: Final = frozenset(
    {GIVE, TAKE, *(v.name for v in VERBS.values() if v.operators_only)}
)
_SORTS: Final = ("key", "operator", "device", "machine", "role", "agent", "fleet", "chat")
# To whom nothing is granted, and why.
_ALL_SAID: Final[Mapping[str, str]] = {
    "agent": "an agent asks with the capability of its task, which names what it may; no grant "
    "changes that",
    "operator": "an operator may do everything already",
    "device": "what a device may is said when it is added; `muster device revoke`, then `muster "
    "device add` with --may",
}


class Grantee(NamedTuple):
    """Whom a person means: `to` is how grants name it."""

    sort: str
    to: str


def key_verbs() -> dict[str, str]:
    """Every verb that a key can be granted, and what its object is ("" where it has none)."""
    found = {"task": "task", GRANT: "verb", UNENCLOSED: "spec"}
    for each in VERBS.values():
        asked = each.auth in {"order", "agent", "local"} and each.runs != "client"
        if asked and each.name not in OPERATORS_ONLY | _OF_AGENTS:
            found.setdefault(each.name, "spec" if each.object == "statement" else each.object)
    return found


def check_right(verb: str, object: str, sort: str = "key") -> None:
    """Raises where a grant of this verb on this object to such a grantee has no effect.

    Raises: NotFound: there is no such verb; Refused: with the reason.
    """
    of_machine = MACHINE_VERBS
    tables = {"machine": of_machine, "role": of_machine, "fleet": FLEET_VERBS, "chat": CHAT_VERBS}
    verbs = tables.get(sort) or key_verbs()
    if sort in _ALL_SAID:
        raise Refused(f"nothing to grant: {_ALL_SAID[sort]}")
    if sort == "chat" and not is_for_chat(Grant(object, CHAT_GRANTEE, 0, verb)):
        raise Refused(
            f"an account of a chat may be granted {', '.join(CHAT_VERBS)}; approve of one class "
            "of approvals, such as --object class:edit-outside, and never of spending, secrets or "
            "what is pushed"
        )
    if verb == ANYTHING and sort != "fleet":
        if object != ANYTHING:
            raise Refused("`*` is every verb, and their objects have nothing in common: leave it *")
        return
    if verb not in verbs:
        _refuse_verb(verb, sort)
    check_word(object, "The object")
    meaning = verbs[verb]
    if object != ANYTHING and not meaning:
        raise Refused(f"{verb} has no object: leave it out, the grant is for all of it")
    if verb == GRANT and object not in (ANYTHING, *key_verbs()):
        raise NotFound(f"there is no verb {object[:40]!r} to give; `muster grants --verbs`")


def _refuse_verb(verb: str, sort: str) -> None:
    if sort == "fleet":
        raise Refused(f"another fleet may be granted {', '.join(FLEET_VERBS)}, and nothing else")
    if verb in OPERATORS_ONLY:
        raise Refused(f"{verb} is an operator's own: a grant of it would have no effect")
    if sort in ("machine", "role") and verb in key_verbs():
        raise Refused(
            f"{verb} is ordered with a person's key, and a machine has none: it may be granted "
            f"{', '.join(MACHINE_VERBS)}; `muster device add` makes a machine order"
        )
    if verb in MACHINE_VERBS:
        raise Refused(f"{verb} is for machines and roles, which act over their own link")
    if verb in VERBS:
        why = "machines ask it of each other"
        if verb in _OF_AGENTS:
            why = "agents ask it, each on its own machine"
        if VERBS[verb].runs == "client":
            why = "it is done inside the command, by other verbs"
        raise Refused(f"{verb} cannot be granted: {why}; `muster grants --verbs` lists what can")
    raise NotFound(f"there is no verb {verb[:40]!r} to grant; `muster grants --verbs` lists them")


# --- who is meant --------------------------------------------------------------------------------


def grantee(core: Core, text: str, verb: str, object: str, *, taking: bool = False) -> Grantee:
    """Whom a person means; `verb` decides between two where only one of them can use it.

    Raises: NotFound, Denied, Conflict with what to type instead; Refused where nobody who could be
    meant can use it, except to take back what was given all the same.
    """
    sort, colon, rest = text.partition(":")
    if colon and sort in _SORTS:
        found = _candidates(core, rest, sort)
    else:
        found = _candidates(core, text, "")
    fitting = []
    for each in found:
        # The sorts that this right is not for are left out; where none is left, it is said below.
        with contextlib.suppress(MusterError):
            check_right(verb, object if each.sort == "chat" else ANYTHING, each.sort)
            fitting.append(each)
    if found and not fitting:
        if not taking:
            check_right(verb, object, found[-1].sort)
        fitting = found
    if len(fitting) == 1:
        return fitting[0]
    if fitting:
        ways = " or ".join(f"`{each.sort}:{rest or text}`" for each in fitting)
        raise Conflict(f"{text[:64]} could be more than one: write {ways}; nothing was done")
    raise NotFound(
        f"nobody is called {text[:64]!r}: name a machine, a role ({', '.join(ROLES)}), or an "
        "operator's key"
    )


def _candidates(core: Core, text: str, sort: str) -> list[Grantee]:
    """All that a word can mean, of this sort where the person said one."""
    roster, found = core.roster, []
    if sort in ("", "role") and text in ROLES:
        found.append(Grantee("role", text))
    agent, at, machine = text.partition("@")
    if sort == "fleet":
        return [Grantee("fleet", FLEET_GRANTEE + roster.peer(text)[0])]
    if sort == "chat":
        chats = core.roster.chats.values()
        return [Grantee("chat", c.key) for c in chats if f"{c.service}:{c.account}" == text]
    if sort in ("", "agent") and at:
        return [Grantee("agent", agent_key(agent, roster.find(machine).machine))]
    for each in SORTS:
        if sort in ("", each):
            try:
                who = meant(roster, text, each)
            except (NotFound, Denied):
                # It is none of this sort; where it is of no sort, that is said below.
                continue
            found.append(Grantee(each, who.key))
    for key, device in roster.devices.items():
        name = roster.machines[device.terms.machine].name  # type: ignore[index]
        if sort in ("", "device") and text in (name, key) and Grantee("operator", key) not in found:
            found.append(Grantee("device", key))
    if sort in ("", "key") and not found and len(text) == 64:
        if roster.is_dead(text):
            raise Denied("this key was revoked and may do nothing any more")
        for record in roster.known.values():
            for purpose, public in record.keys.items():
                # A machine's sub-keys sign what they are for; its `statement` key signs orders.
                if public == text and purpose != "statement":
                    whose = f"the {purpose} key of {record.name}"
                    raise Refused(f"this is {whose}, which signs no orders")
        found.append(Grantee("key", text))
    if not found and sort in SORTS:
        # It says why not.
        meant(roster, text, sort)
    return found


# --- verbs ---------------------------------------------------------------------------------------


class Which(Request, frozen=True):
    to: Annotated[
        str, pos("a key, machine:NAME or role:NAME (the sort may be left out), or fleet:NAME")
    ]
    verb: Annotated[str, pos("the verb, or *; `muster grants --verbs` lists them")]
    object: Annotated[str, opt("what it may be used on")] = ANYTHING
    take: Annotated[bool, opt("take the grant back instead")] = False
    runs: Annotated[int, opt("of delegate, task: so many in a day", ge=0, le=DELEGATIONS_MAX)] = 0
    open: Annotated[int, opt("of delegate, task: so many at once", ge=0, le=DELEGATIONS_MAX)] = 0
    depth: Annotated[
        int, opt("of delegate: how often it is handed on", ge=0, le=DELEGATION_DEPTH_MAX)
    ] = 0
    agent: Annotated[Words, opt("of delegate, task: whom; delegate without it: any but shell")] = ()
    repo: Annotated[
        Words, opt("of delegate, task: where; delegate without it: any repository")
    ] = ()
    size: Annotated[str, opt("of file: how large one may be: 64MiB")] = ""
    folder: Annotated[str, opt("of file: below which folder; else ~/muster-inbox/FLEET")] = ""
    timeout: Annotated[str, opt("of delegate, task: how long an attempt may take: 30m")] = ""


class Meant(Struct, frozen=True):
    """How grants name whom and what a person means, the bounds, and the ids of those that stand."""

    grantee: str
    sort: str
    held: list[str]
    object: str = ANYTHING
    bounds: Bounds | UnsetType = UNSET


@verb("grant.check", auth="local")
def check(core: Core, call: Call, ask: Which) -> Meant:
    """Whom and what a grant means, and whether it has an effect."""
    who = grantee(core, ask.to, ask.verb, ask.object, taking=ask.take)
    object = ask.object
    if (ask.verb in OF_MACHINE or who.sort == "fleet") and object != ANYTHING:
        object = core.roster.object_of_machine(object)
    if not ask.take:
        check_right(ask.verb, object, who.sort)
    bounds = _bounds(ask, who.to)
    meant_here = (ask.verb, object, who.to)
    held = [
        g.id
        for g in core.roster.grants
        if (g.grant.verb, g.grant.object, g.grant.to) == meant_here and g.giver
    ]
    return Meant(who.to, who.sort, held, object, bounds)


def _bounds(ask: Which, to: str) -> Bounds | UnsetType:
    """The bounds of what agents hand on, or another fleet asks for; of no other verb.

    Raises: Refused.
    """
    if not is_bounded(ask.verb, to):
        given = (
            ask.runs, ask.open, ask.depth, ask.agent, ask.repo, ask.timeout, ask.size, ask.folder,
        )  # fmt: skip
        if any(given):
            raise Refused(f"bounds are those of {DELEGATE}: {ask.verb} has none, leave them out")
        return UNSET
    if ask.verb == FILE:
        return _bounds_of_files(ask)
    if ask.size or ask.folder:
        raise Refused(f"--size and --folder are of {FILE}: leave them out")
    timeout_ms = duration_ms(ask.timeout) if ask.timeout else 0
    if timeout_ms > PHASE_TIMEOUT_MS_MAX:
        raise Refused(f"an attempt takes at most {PHASE_TIMEOUT_MS_MAX // 3_600_000} h")
    if ask.verb == TASK and not ask.agent and not ask.take:
        raise Refused("say which agents that fleet may ask: --agent NAME, several times")
    if ask.verb == TASK and ask.depth > 1:
        raise Refused("what another fleet asks for is handed on by nobody: leave --depth out")
    per_day = ask.runs or PER_DAY
    at_once = ask.open or min(AT_ONCE, per_day)
    return Bounds(at_once, per_day, ask.agent, ask.depth or 1, ask.repo, timeout_ms)


class Give(Which, frozen=True):
    days: Annotated[int, opt("how long", ge=1, le=GRANT_DAYS_MAX)] = 30
    # The grant's own statement, which the command signs, is what gives it or takes it back.
    grant: Annotated[Grant | None, data(unsigned=True)] = None
    id: Annotated[Hex32 | None, data(unsigned=True)] = None
    statement: Annotated[str, data(unsigned=True)] = ""


class Written(Struct, frozen=True):
    entry: str


@verb(
    "grant", auth="order", group="The fleet", object="verb", target="hub", signs="grant_options",
    says=(Line("Written down as entry {entry:id}…."),),
)  # fmt: skip
def grant(core: Core, call: Call, ask: Give) -> Written:
    """Allow a key, a machine or a role one verb; `muster grants` lists them.

    muster grant machine:build push --object main
    muster grant machine:build push --object main --take
    muster grant machine:mac1 delegate --object mac2 --runs 20    # its agents ask others
    muster grant fleet:acme send --object build    # its machines may send letters to build
    muster grant fleet:acme task --object build --agent claude --repo shop    # and ask for tasks
    muster grant fleet:acme file --object build --size 64MiB    # and leave files
    """
    body: kinds.GrantGive | kinds.GrantTake
    # All that the fold will ask, before anything is written.
    if ask.take and ask.id and ask.statement:
        body = kinds.GrantTake(ask.id, ask.statement)
        fits = takes(open_statement(ask.statement.encode(), core.membership.fleet), ask.id)
    elif not ask.take and ask.grant and ask.statement:
        body = kinds.GrantGive(ask.grant, ask.statement)
        signed = open_statement(ask.statement.encode(), core.membership.fleet)
        core.roster.check_give(signed, ask.grant)
        check_right(ask.grant.verb, ask.grant.object, sort_of(core, ask.grant.to))
        _check_bounds(core, ask.grant)
        if ask.grant.until_ms <= core.now.wall_ms:
            raise Refused("the grant would have ended before it began: give it some days")
        fits = gives(signed, ask.grant)
    else:
        raise Denied("a grant needs a statement of its own; use `muster grant` as the operator")
    if not fits:
        raise Refused("the statement is about another grant; use `muster grant` as the operator")
    return Written(call.write(body).id.hex())


def _bounds_of_files(ask: Which) -> Bounds:
    """How many files of which size go into which folder. Raises: Refused."""
    if ask.depth or ask.agent or ask.repo or ask.timeout:
        raise Refused(f"of {FILE} there are --runs a day, --open at once, --size and --folder")
    if ask.size and not re.match(SIZE, ask.size):
        raise Refused(f"{ask.size[:20]!r} is no size: write 64MiB or 2GiB")
    folder = ask.folder.rstrip("/") or ask.folder
    if folder and (not folder.startswith(("/", "~/")) or ".." in folder.split("/")):
        raise Refused("the folder is a whole path, or begins with ~/, and has no `..`")
    most = size_mib(ask.size) * 1024 * 1024 if ask.size else PEER_FILE_BYTES
    per_day = ask.runs or PER_DAY
    at_once = ask.open or min(AT_ONCE, per_day)
    return Bounds(at_once, per_day, bytes_max=most, folder=folder)


def _check_bounds(core: Core, grant: Grant) -> None:
    """Raises: Refused where a grant has bounds and none of its verb, or the other way round."""
    bounded = is_bounded(grant.verb, grant.to)
    if bounded != (grant.bounds is not None):
        raise Refused(
            f"{DELEGATE}, and {TASK} and {FILE} to another fleet, are granted within bounds; no "
            "other verb is"
        )
    if bounded and grant.object not in (ANYTHING, *core.roster.machines):
        raise Refused(f"the object of {grant.verb} is a machine that may be asked, or *")


def sort_of(core: Core, to: str) -> str:
    """What a grant's `to` is."""
    roster = core.roster
    if to in ROLES:
        return "role"
    if to.startswith(FLEET_GRANTEE):
        return "fleet"
    if to.startswith(CHAT_GRANTEE):
        return "chat"
    if "@" in to:
        return "agent"
    if to in roster.known:
        return "machine"
    return "operator" if to in roster.operators else "device" if to in roster.devices else "key"
