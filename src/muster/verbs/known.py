"""Verbs that look at what is known: under a key, and all of it; and what others of them share.

Rule: what counts is shown with who says it as far as that is proven; an agent is shown what the
whole fleet may know, and its machine writes down that it was.
"""

import re
from collections.abc import Sequence
from typing import Annotated, Final

from msgspec import UNSET, Struct, UnsetType, field, structs

from muster.errors import Malformed, NotFound, Refused
from muster.limits import (
    MEMORIES_SHOWN_MAX,
    MEMORY_LINE_CHARS_MAX,
    MEMORY_OVER_MAX,
    MEMORY_SHOWN_MAX,
)
from muster.log.entry import Entry, EntryId
from muster.log.fold import body_or_none
from muster.log.stream import FLEET, JOURNAL, Scope, group_name, is_group
from muster.memory.difference import difference
from muster.memory.kinds import (
    MemoryPut,
    MemoryRefute,
)
from muster.memory.ordered import ID_DIGITS_MIN
from muster.memory.state import Record, RecordName, Version
from muster.node.services.knowing import ReaderOf, readers
from muster.node.services.learned import Learned, learned
from muster.node.services.memory import Memory
from muster.node.services.showings import Showings
from muster.node.services.threads import group_of, groups, keeper_of
from muster.node.tasks.actor import said
from muster.node.verb import Column, Turns
from muster.store.index import EVERY_NUMBER
from muster.verbs.declaration import Call, Core, Request, Words, opt, pos, verb
from muster.verbs.listing import Room, Rows, say_cut
from muster.verbs.task import moment

# What may be a version; every other text is a moment.
_VERSION: Final = re.compile("m[0-9]+|[0-9a-f]{6,64}")
_SIDES: Final = 2
# Versions that are made ready to be shown in one turn: of each is proven who said it.
_SHOWN_PER_TURN: Final = 20
_SCOPE: Final = opt("who may know it: fleet, private (this machine alone), thread:NAME")
_DIFF: Final = opt("what changed since this version or moment; of two, between them: give it twice")


class Recall(Request, frozen=True):
    key: Annotated[str, pos("a key, or the id of a version (its beginning is enough)")]
    scope: Annotated[str, _SCOPE] = ""
    history: Annotated[bool, opt("every version, also those that were replaced")] = False
    at: Annotated[str, opt("as this machine knew it then: 10m (ago), or 2026-11-20T23:00")] = ""
    diff: Annotated[Words, _DIFF] = ()


class Known(Struct, frozen=True, kw_only=True):
    """One version as it is shown: who wrote it as far as that is proven."""

    version: str
    key: str
    scope: str
    state: str
    text: str
    by: str = field(name="from")
    trust: str
    claims: str | UnsetType = UNSET
    machine: str
    tags: list[str]
    over: list[str]
    t_ms: int
    # Who was shown it on this machine, the newest first; for people alone.
    shown_to: list[ReaderOf] | UnsetType = UNSET


class Side(Struct, frozen=True, kw_only=True):
    """One side of a comparison: a version, or what counted at a moment, every text of a conflict.

    `asked` is what was named. `state` is `nothing` where nothing was known then; a text that was
    erased since is "".
    """

    asked: str
    state: str
    versions: list[str]
    by: list[str] = field(name="from")
    text: str


class Changed(Struct, frozen=True, kw_only=True):
    """What changed under a key. `lines` are those that went and came, behind `-` and `+`, with some
    around them; [] where the text is the same.
    """

    key: str
    scope: str
    before: Side
    after: Side
    lines: list[str]


@verb("memory", auth="local", agents=True, writes=True, group="Memory", harmless=True,
      names="version")  # fmt: skip
def memory(core: Core, call: Call, ask: Recall) -> Turns[list[Known] | Changed]:
    """What is known under a key, and who says so.

    muster memory main/tests/where
    muster memory main/port --history
    muster memory main/port --at 2d
    muster memory main/port --diff 3fa9c1
    muster memory main/port --diff 2d --diff 10m --json
    """
    part, key, now_ms = core.part(Memory), ask.key, core.now.wall_ms
    if not part.records(key):
        key = open_version(core, call, key).key
    until = core.log.admissions_at(moment(ask.at, now_ms)) if ask.at else EVERY_NUMBER
    found = part.records(key, until)
    every = {*found, *part.records(key)}
    scopes = {scope_of(core, ask.scope)} if ask.scope else {name.scope for name in every}
    reader = core.part(Showings).reader(call)
    if reader is not None:
        # What is private to a machine or a group is not every agent's.
        scopes &= {FLEET}
    if ask.diff:
        return _changed(core, call, ask, key, scopes)
    counts = {
        head.id: record.state
        for name, record in found.items()
        if name.scope in scopes
        for head in record.heads
    }
    versions = [v for record in found.values() for v in record.heads]
    if ask.history:
        versions = part.history(key, until)
    room = Room(MEMORIES_SHOWN_MAX)
    shown = list[Known]()
    for number, version in enumerate(v for v in versions if v.stream.scope in scopes):
        if number and number % _SHOWN_PER_TURN == 0:
            yield
        shown.append(shown_version(core, version, counts.get(version.id, "replaced")))
    most = MEMORY_SHOWN_MAX if reader is not None else len(shown)
    fitting = [each for each in shown[:most] if room.has(each.text)]
    if len(fitting) < len(shown):
        say_cut(call, len(fitting), "versions", "--scope shows those of one scope")
    if reader is not None and not fitting:
        raise NotFound(f"nothing is known as {ask.key[:60]!r}; `muster memories` lists what is")
    if fitting:
        read = [EntryId(bytes.fromhex(each.version)) for each in fitting]
        core.part(Showings).note(call, "get", read, ask.key[:MEMORY_LINE_CHARS_MAX])
    if reader is not None:
        return fitting
    told = list[Known]()
    for number, each in enumerate(fitting):
        if number and number % _SHOWN_PER_TURN == 0:
            yield
        told.append(_with_readers(core, each))
    return told


def _changed(core: Core, call: Call, ask: Recall, key: str, scopes: set[Scope]) -> Changed:
    """Raises: Malformed, NotFound, Refused."""
    if len(ask.diff) > _SIDES or ask.history or ask.at:
        raise Malformed("--diff is given once or twice, and without --history or --at")
    if not scopes:
        raise NotFound(f"nothing is known as {ask.key[:60]!r}; `muster memories` lists what is")
    if len(scopes) > 1:
        raise Refused(f"{key} is known in several scopes: say which with --scope")
    name = RecordName(next(iter(scopes)), key)
    (before, first), (after, second) = (
        _side(core, call, name, each) for each in (*ask.diff, "now")[:_SIDES]
    )
    if not first and not second:
        raise NotFound(f"nothing was known as {key} at any of the two")
    read = list(dict.fromkeys([*first, *second]))
    core.part(Showings).note(call, "get", read, ask.key[:MEMORY_LINE_CHARS_MAX])
    lines = difference(before.text, after.text)
    where = scope_word(core, name.scope)
    return Changed(key=key, scope=where, before=before, after=after, lines=lines)


def _side(core: Core, call: Call, name: RecordName, asked: str) -> tuple[Side, list[EntryId]]:
    """A version, or what counted at a moment, and the ids of what is told of it."""
    if _VERSION.fullmatch(asked):
        one = open_version(core, call, asked)
        if (one.stream.scope, one.key) != name:
            raise NotFound(f"the version {asked[:12]} is none of {name.key}; see its --history")
        now = core.part(Memory).records(name.key).get(name)
        counts = now is not None and any(head.id == one.id for head in now.heads)
        return _told(core, asked, now.state if now and counts else "replaced", [one])
    until = EVERY_NUMBER
    if asked != "now":
        until = core.log.admissions_at(moment(asked, core.now.wall_ms))
    record = core.part(Memory).records(name.key, until).get(name)
    if record is None:
        return _told(core, asked, "nothing", [])
    return _told(core, asked, record.state, record.heads[:MEMORY_OVER_MAX])


def _told(
    core: Core, asked: str, state: str, versions: Sequence[Version]
) -> tuple[Side, list[EntryId]]:
    shown = [shown_version(core, each, state) for each in versions]
    texts = [each.text for each in shown if each.text]
    ids, by = [each.version for each in shown], [each.by for each in shown]
    side = Side(asked=asked, state=state, versions=ids, by=by, text="\n\n".join(texts))
    return side, [each.id for each in versions]


def _with_readers(core: Core, known: Known) -> Known:
    """For a person: also who was shown it here."""
    found = readers(core, EntryId(bytes.fromhex(known.version)))
    return structs.replace(known, shown_to=found) if found else known


class Listed(Request, frozen=True):
    conflicts: Annotated[bool, opt("only what several say differently, or object to")] = False
    stats: Annotated[bool, opt("count whether it helps: what was told, and what followed")] = False
    scope: Annotated[str, _SCOPE] = ""
    limit: Annotated[Rows, opt("show so many at most")] = None


class Memories(Struct, frozen=True, kw_only=True):
    """A key, what counts under it, and the first of its texts."""

    key: str
    scope: str
    state: str
    text: str
    by: str = field(name="from")
    version: str
    t_ms: int


@verb("memories", auth="local", group="Memory", harmless=True, names="key", watches=("memory",),
      nothing="Nothing is known yet: `muster remember KEY TEXT` writes something down.",
      columns=(Column("key", form="bold"), Column("state", form="state"),
               Column("text", rank=1, least=16, width=60), Column("from", rank=2),
               Column("t_ms", "when", "ago", rank=2), Column("scope", rank=3),
               Column("version", form="id", rank=3)))  # fmt: skip
def memories(core: Core, call: Call, ask: Listed) -> Turns[list[Memories] | Learned]:
    """List what is known, the newest first.

    muster memories
    muster memories --conflicts
    muster memories --stats
    """
    if ask.stats:
        return (yield from learned(core))
    wanted = scope_of(core, ask.scope) if ask.scope else None
    most, found = ask.limit or MEMORIES_SHOWN_MAX, list[Memories]()
    for key in core.part(Memory).newest_keys():
        yield
        for name, record in core.part(Memory).records(key).items():
            fits = wanted in (None, name.scope) and record.state != "erased"
            if fits and (not ask.conflicts or record.state in ("conflict", "disputed")):
                found.append(_listed(core, name, record))
        if len(found) > most:
            say_cut(call, most, "keys", "--limit shows more, --scope those of one scope")
            break
    return found[:most]


def _listed(core: Core, name: RecordName, record: Record) -> Memories:
    shown = shown_version(core, record.heads[0], record.state)
    return Memories(
        key=name.key, scope=shown.scope, state=record.state, text=shown.text, by=shown.by,
        version=shown.version, t_ms=shown.t_ms,
    )  # fmt: skip


def scope_of(core: Core, text: str) -> Scope:
    """The scope that somebody typed. Raises: NotFound, Refused."""
    if text in ("", "fleet"):
        return FLEET
    if text == "private":
        return JOURNAL
    if text.startswith("thread:"):
        return group_of(core, text.removeprefix("thread:"))
    raise NotFound(f"{text[:60]!r} is no scope: there are fleet, private and thread:NAME")


def scope_word(core: Core, scope: Scope) -> str:
    """A scope as it is typed: a thread with its keeper, where several have one of its name."""
    if scope == JOURNAL:
        return "private"
    if is_group(scope):
        name = str(group_name(scope))
        kept = f"@{keeper_of(core, scope)}" if len(groups(core, name)) > 1 else ""
        return f"thread:{name}{kept}"
    return "fleet" if scope == FLEET else "direct"


def find_version(core: Core, text: str) -> Version:
    """The one version whose id begins like this. Raises: NotFound, Refused."""
    if len(text) < ID_DIGITS_MIN:
        raise NotFound(
            f"{text[:40]!r} is no version: give {ID_DIGITS_MIN} digits of its id at least, "
            "`muster memory KEY --history` shows them"
        )
    found = core.part(Memory).alike(text)
    if len(found) > 1:
        raise Refused(f"more than one version begins with {text[:40]!r}; give more of its id")
    if not found:
        raise NotFound(f"nothing is known as {text[:60]!r}; `muster memories` lists what is")
    return found[0]


def open_version(core: Core, call: Call, text: str) -> Version:
    """As `find_version`, or by its name in what was shown last (`m3`); for an agent what is not the
    whole fleet's is not there. Raises: NotFound.
    """
    named = core.part(Showings).named(call, text)
    found = find_version(core, text if named is None else named.hex())
    if found.stream.scope != FLEET and not call.actor.startswith("op:") and call.actor != "muster":
        raise NotFound(f"nothing is known as {text[:60]!r}; `muster memories` lists what is")
    return found


def state_of(core: Core, scope: Scope, key: str) -> str:
    record = core.part(Memory).records(key).get(RecordName(scope, key))
    return record.state if record is not None else "erased"


def text_of(entry: Entry | None) -> str:
    put, refuted = body_or_none(entry, MemoryPut), body_or_none(entry, MemoryRefute)
    if put is not None:
        return put.text
    return refuted.reason if refuted is not None else ""


def shown_version(core: Core, version: Version, state: str) -> Known:
    entry = core.log.entry(version.id)
    if entry is None:
        raise NotFound(f"the version {version.id.hex()[:12]} is not here any more")
    by, put = said(core, entry), body_or_none(entry, MemoryPut)
    return Known(
        version=version.id.hex(), key=version.key, scope=scope_word(core, version.stream.scope),
        state=state, text=text_of(entry), by=by.name, trust=by.trust, claims=by.claims or UNSET,
        machine=core.membership.name_of(version.stream.machine),
        tags=list(put.tags) if put is not None else [],
        over=sorted(each.hex() for each in version.over), t_ms=version.stamp[0],
    )  # fmt: skip
