"""Verbs about what is known: to write it down, to look at it, to say that it is wrong.

Rule 1: whoever replaces a version has read it. What `remember` is to replace is named, or is what
this attempt or session was shown, and is what counts now; else it is refused, with what is there.
Rule 2: nothing is merged and nothing is dropped by itself: a conflict is shown until somebody ends
it.
"""

from collections.abc import Iterable, Sequence
from typing import Annotated, Final

from msgspec import UNSET, Struct, UnsetType, field, structs

from muster.context.secret import find_secret
from muster.errors import Conflict, Denied, Malformed, NotFound, Refused
from muster.limits import (
    MEMORIES_SHOWN_MAX,
    MEMORY_AGENT_TEXT_BYTES_MAX,
    MEMORY_LINE_CHARS_MAX,
    MEMORY_OVER_MAX,
    MEMORY_SHOWN_MAX,
    MEMORY_TEXT_BYTES_MAX,
)
from muster.log.entry import Entry, EntryId
from muster.log.fold import body_or_none
from muster.log.stream import FLEET, JOURNAL, Scope, group_name, is_group
from muster.memory.kinds import (
    PINNED,
    MemoryPut,
    MemoryRefute,
    check_key,
    check_put,
    check_refute,
)
from muster.memory.ordered import ID_DIGITS_MIN
from muster.memory.state import Record, RecordName, Version
from muster.message.kinds import is_id
from muster.node.services import digests
from muster.node.services.knowing import ReaderOf, readers
from muster.node.services.learned import Learned, learned
from muster.node.services.memory import Memory
from muster.node.services.quotas import Quotas
from muster.node.services.recalled import readable, similar
from muster.node.services.search import Search
from muster.node.services.showings import SIMILAR, Showings
from muster.node.tasks.actor import said
from muster.node.verb import Column, Line, Turns
from muster.verbs.declaration import Call, Core, Request, Words, opt, pos, verb
from muster.verbs.listing import Room, Rows, say_cut
from muster.verbs.recipient import group_of

_KEY: Final = pos("what it is about: main/tests/where")
_SCOPE: Final = opt("who may know it: fleet, private (this machine alone), thread:NAME")
_OVER: Final = opt("a version that this replaces; give it several times")


class Remember(Request, frozen=True):
    key: Annotated[str, _KEY]
    text: Annotated[Words, pos("what is so")]
    scope: Annotated[str, _SCOPE] = ""
    tag: Annotated[Words, opt("what it belongs to: repo:main, phase:build")] = ()
    over: Annotated[Words, _OVER] = ()
    about: Annotated[Words, opt("the task, run or message that it comes from")] = ()
    pin: Annotated[bool, opt("a rule: told to every agent first (only a person's is)")] = False


class Like(Struct, frozen=True):
    """A record that says something like what was written down."""

    version: str
    key: str
    state: str
    text: str


class Remembered(Struct, frozen=True):
    """A version that is written down, and what counts under its key from now on.

    `similar` are other records with some of its words: to be joined with it, or known as refuted.
    """

    version: str
    key: str
    state: str
    similar: list[Like] | UnsetType = UNSET


@verb("remember", auth="agent", agents=True, daily=True, group="Memory", object="key", naming=True,
      harmless=True)  # fmt: skip
def remember(core: Core, call: Call, ask: Remember) -> Remembered:
    """Write down what is so, for everybody's agents.

    muster remember main/tests/where 'the tests are in tests/, run them with make test'
    muster remember main/port 'it is 7450' --over 3fa9c1 --tag repo:main
    """
    by_agent = not call.actor.startswith("op:")
    if by_agent and ask.pin:
        raise Denied("only a person writes down a rule: leave --pin out")
    if by_agent and ask.scope not in ("", "fleet"):
        raise Denied("an agent writes down what the whole fleet may know: leave --scope out")
    scope, tags = scope_of(core, ask.scope), [*ask.tag, *([PINNED] if ask.pin else [])]
    over = [open_version(core, call, each).id for each in ask.over]
    check_key(ask.key)
    if PINNED in ask.tag:
        raise Malformed(f"{PINNED} is no tag to give: a person makes a rule with --pin")
    record = core.part(Memory).records(ask.key).get(RecordName(scope, ask.key))
    # As many as one version can name: who wrote more heads than that keeps nobody from writing.
    heads = () if record is None or record.state == "erased" else record.heads[:MEMORY_OVER_MAX]
    showings = core.part(Showings)
    over = over or showings.shown_of(call, (head.id for head in heads))
    body = MemoryPut(
        ask.key, " ".join(ask.text), [each.hex() for each in over], tags, list(ask.about),
        origin=showings.origin(call, [*over, *_ids(ask.about)]),
    )  # fmt: skip
    check_put(body, MEMORY_AGENT_TEXT_BYTES_MAX if by_agent else MEMORY_TEXT_BYTES_MAX)
    _check_secret(ask.key, body.text, *tags)
    if record is not None:
        _check_read(core, ask.key, record.state, heads, over, by_agent=by_agent)
    core.part(Quotas).take(call, scope, ask.key)
    if ask.pin and scope == FLEET:
        digests.check_rule(core, ask.key, body.text)
    entry = call.write(body, scope=scope)
    like = _similar(core, RecordName(scope, ask.key), body.text, by_agent=by_agent)
    if like:
        showings.note(call, SIMILAR, _ids(each.version for each in like), ask.key)
    return Remembered(entry.id.hex(), ask.key, state_of(core, scope, ask.key), like)


def _ids(named: Iterable[str]) -> list[EntryId]:
    """Those of these that are the ids of entries."""
    return [EntryId(bytes.fromhex(each)) for each in named if is_id(each)]


def _check_secret(*texts: str) -> None:
    """Raises: Refused where a key stands in them: no machine could take it back in time."""
    if found := find_secret("\n".join(texts)):
        raise Refused(
            f"it holds {found.sort}, and every agent would read it: write down where it is kept "
            "instead; nothing was written"
        )


def _similar(core: Core, name: RecordName, text: str, *, by_agent: bool) -> list[Like]:
    """What else is known like it; nothing where the index fails, for it was written down."""
    search = core.part(Search)

    def found() -> list[Like]:
        scopes = [each for each in readable(core) if each == FLEET or not by_agent]
        return [
            Like(each.about, each.name, each.state, each.excerpt)
            for each in similar(core, name, text, scopes)
        ]

    return search.now(found, [])


def _check_read(
    core: Core, key: str, state: str, heads: Sequence[Version], over: list[EntryId], *,
    by_agent: bool,
) -> None:  # fmt: skip
    """Raises: Conflict where something counts that whoever writes neither named nor was shown."""
    unread = [head for head in heads if head.id not in over]
    if not unread:
        return
    first = unread[0]
    text = text_of(core.log.entry(first.id))
    every = " ".join(f"--over {head.id.hex()[:12]}" for head in heads)
    known = f"{key} says already (version {first.id.hex()[:12]}, {state})"
    end = f"nothing was written. To replace it, add {every}"
    # The refusal is an entry: what it quoted could never be erased.
    recorded = f"{known}; {end}"
    if by_agent and core.part(Showings).has_outside([first.id]):
        # Nor is a refusal a showing: who is told what comes from outside is one who was shown it.
        raise Conflict(f"{recorded}; `muster memory {key}` shows it")
    raise Conflict(f"{known}: {text[:300]!r}; {end}", recorded=recorded)


class Recall(Request, frozen=True):
    key: Annotated[str, pos("a key, or the id of a version (its beginning is enough)")]
    scope: Annotated[str, _SCOPE] = ""
    history: Annotated[bool, opt("every version, also those that were replaced")] = False


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


@verb("memory", auth="local", agents=True, writes=True, group="Memory", harmless=True,
      names="version")  # fmt: skip
def memory(core: Core, call: Call, ask: Recall) -> list[Known]:
    """What is known under a key, and who says so.

    muster memory main/tests/where
    muster memory main/port --history
    """
    part, key = core.part(Memory), ask.key
    found = part.records(key)
    if not found:
        key = open_version(core, call, key).key
        found = part.records(key)
    scopes = {scope_of(core, ask.scope)} if ask.scope else {name.scope for name in found}
    reader = core.part(Showings).reader(call)
    if reader is not None:
        # What is private to a machine or a group is not every agent's.
        scopes &= {FLEET}
    counts = {
        head.id: record.state
        for name, record in found.items()
        if name.scope in scopes
        for head in record.heads
    }
    versions = [v for record in found.values() for v in record.heads]
    if ask.history:
        versions = part.history(key)
    room = Room(MEMORIES_SHOWN_MAX)
    shown = [
        shown_version(core, each, counts.get(each.id, "replaced"))
        for each in versions
        if each.stream.scope in scopes
    ]
    most = MEMORY_SHOWN_MAX if reader is not None else len(shown)
    fitting = [each for each in shown[:most] if room.has(each.text)]
    if len(fitting) < len(shown):
        say_cut(call, len(fitting), "versions", "--scope shows those of one scope")
    if reader is not None and not fitting:
        raise NotFound(f"nothing is known as {ask.key[:60]!r}; `muster memories` lists what is")
    if fitting:
        read = [EntryId(bytes.fromhex(each.version)) for each in fitting]
        core.part(Showings).note(call, "get", read, ask.key[:MEMORY_LINE_CHARS_MAX])
    return fitting if reader is not None else [_with_readers(core, each) for each in fitting]


def _with_readers(core: Core, known: Known) -> Known:
    """For a person: also who was shown it here."""
    found = readers(core, EntryId(bytes.fromhex(known.version)))
    return structs.replace(known, shown_to=found) if found else known


class Refute(Request, frozen=True):
    version: Annotated[str, pos("the version that is wrong (its beginning is enough)")]
    reason: Annotated[Words, pos("why: told instead of it")]


@verb("refute", auth="agent", agents=True, daily=True, group="Memory", object="version",
      harmless=True, says=(Line("{version:id}  {key}: {state}"),))  # fmt: skip
def refute(core: Core, call: Call, ask: Refute) -> Remembered:
    """Say that something known is wrong: the same text counts nowhere any more.

    muster refute 3fa9c1 'the flag was removed in 2.0'
    """
    known = open_version(core, call, ask.version)
    if not known.key:
        raise NotFound(f"the version {ask.version[:12]} is erased: there is nothing to refute")
    _check_secret(*ask.reason)
    core.part(Quotas).take(call, known.stream.scope, known.key)
    origin = core.part(Showings).origin(call)
    body = MemoryRefute(known.key, [known.id.hex()], " ".join(ask.reason), origin=origin)
    entry = call.write(check_refute(body), scope=known.stream.scope)
    return Remembered(entry.id.hex(), known.key, state_of(core, known.stream.scope, known.key))


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
    """A scope as it is typed."""
    if scope == JOURNAL:
        return "private"
    if is_group(scope):
        return f"thread:{group_name(scope)}"
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
