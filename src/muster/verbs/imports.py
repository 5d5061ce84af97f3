"""What `import` and `export` ask of the daemon: what would become of notes, to take them in, and
what there is.

Rule 1: an import compares: what says the same is nothing new, what was refuted stays so, and what
is over a version is over one that counts. Absence says nothing.
Rule 2: what is imported counts least (rank 0), whoever ordered it: it was said elsewhere. What a
person says to be their own comes as `remember`, one order for each.
"""

from collections.abc import Sequence
from typing import Annotated, Final, Literal

from msgspec import Meta, Struct

from muster.context.secret import find_secret
from muster.errors import Malformed, Refused
from muster.limits import (
    IMPORT_CALL_BYTES,
    IMPORT_CALL_NOTES,
    MEMORY_OVER_MAX,
    MEMORY_TEXT_BYTES_MAX,
)
from muster.log.entry import EntryId
from muster.log.fold import body_or_none
from muster.log.stream import Scope, is_group
from muster.memory.fold import ERASED, VERSION
from muster.memory.kinds import OUTSIDE, PINNED, MemoryPut, check_put
from muster.memory.print import text_print
from muster.memory.state import Record, RecordName, Version
from muster.message.kinds import is_id
from muster.node.services.memory import Memory
from muster.node.services.quotas import Quotas
from muster.node.services.recalled import COUNTS
from muster.node.services.threads import keeper_of
from muster.node.tasks.actor import said
from muster.node.verb import Turns
from muster.verbs.declaration import Call, Core, Request, data, verb
from muster.verbs.known import scope_of, scope_word

# What would become of a note.
Fate = Literal["new", "changed", "same", "refuted", "stale", "differs", "unfit"]
# Rows of the same text that are looked at, for what was refuted.
_ALIKE_MAX: Final = 32
_NOTES_PER_TURN: Final = 5


class Item(Struct, frozen=True, forbid_unknown_fields=True):
    """A note as a file has it."""

    key: str
    text: str
    tags: list[str] = []
    version: str = ""
    source: str = ""


class Judged(Struct, frozen=True):
    """What would become of a note, which versions it would be over, and why if it is not new."""

    fate: Fate
    over: list[str] = []
    why: str = ""
    version: str = ""


Items = Annotated[list[Item], Meta(max_length=IMPORT_CALL_NOTES)]


class Plan(Request, frozen=True):
    notes: Annotated[Items, data()]
    scope: Annotated[str, data()] = ""


@verb("memory.plan", auth="local")
def plan(core: Core, call: Call, ask: Plan) -> Turns[list[Judged]]:
    """What would become of these notes; nothing is written."""
    return (yield from _judged(core, ask))


@verb("memory.import", auth="order", object="scope")
def take(core: Core, call: Call, ask: Plan) -> Turns[list[Judged]]:
    """Write down those of these notes that say something new, as what was said elsewhere."""
    judged = yield from _judged(core, ask)
    done, scope = list[Judged](), scope_of(core, ask.scope)
    for item, each in zip(ask.notes, judged, strict=True):
        if each.fate not in ("new", "changed"):
            done.append(each)
            continue
        try:
            core.part(Quotas).take_record(scope, item.key)
        except Refused as error:
            done.append(Judged("unfit", why=str(error)))
            continue
        version = core.append_body(_body(item, each.over), scope=scope, cause=call.cites).id
        done.append(Judged(each.fate, each.over, each.why, version.hex()))
    return done


def _body(item: Item, over: list[str]) -> MemoryPut:
    # Only a person writes down a rule, and an import is nobody's word.
    tags = [tag for tag in item.tags if tag != PINNED]
    return MemoryPut(item.key, item.text, over, tags, source=item.source, origin="import")


def _judged(core: Core, ask: Plan) -> Turns[list[Judged]]:
    found, scope = list[Judged](), scope_of(core, ask.scope)
    here: set[tuple[bytes, str]] = set()
    for number, item in enumerate(ask.notes):
        if number % _NOTES_PER_TURN == 0:
            yield
        once = (text_print(item.text), item.key)
        each = _judge(core, scope, item) if once not in here else Judged("same", why="twice here")
        here.add(once)
        found.append(each)
    return found


def _judge(core: Core, scope: Scope, item: Item) -> Judged:
    try:
        check_put(_body(item, []), MEMORY_TEXT_BYTES_MAX)
    except Malformed as error:
        return Judged("unfit", why=str(error))
    if secret := find_secret(f"{item.key}\n{item.text}"):
        return Judged("unfit", why=f"it holds {secret.sort}: take it out first")
    known = core.part(Memory).records(item.key)
    record, print_ = known.get(RecordName(scope, item.key)), text_print(item.text)
    heads = record.heads[:MEMORY_OVER_MAX] if record and record.state in COUNTS else ()
    same = next((head for head in heads if head.print == print_), None)
    if same is not None:
        return Judged("same", version=same.id.hex())
    if reason := _refuted(core, scope, print_, record):
        return Judged("refuted", why=reason)
    if not heads and item.version and _was_here(core, scope, item.version):
        return Judged("stale", why="its version counts no more, it was erased or replaced")
    if not heads:
        return Judged("new")
    first = heads[0]
    if item.version:
        named = next((head for head in heads if head.id.hex() == item.version), None)
        if named is not None:
            return Judged("changed", [named.id.hex()])
        why = f"it was changed meanwhile, to version {first.id.hex()[:12]}: export it anew"
        return Judged("stale", why=why)
    if all(head.rank == OUTSIDE for head in heads):
        # An import is over what an earlier one brought.
        return Judged("changed", [head.id.hex() for head in heads])
    why = f"version {first.id.hex()[:12]} says something else, and the file names none: "
    why += f"`muster remember {item.key} TEXT --over {first.id.hex()[:12]}` replaces it"
    return Judged("differs", why=why)


def _refuted(core: Core, scope: Scope, print_: bytes, record: Record | None) -> str:
    """Why this text does not count, where a refutation stands over the same one; else ""."""
    memory, seen = core.part(Memory), set[str]()
    rows = core.tables.rows_of_each(VERSION, _ALIKE_MAX, ("-seq",), print=print_)
    alike = {row.id: row.key for row in rows}
    tombs = core.tables.rows_of_each(ERASED, _ALIKE_MAX, ("-seq",), print=print_)
    alike |= {tomb.target: tomb.key for tomb in tombs}
    for key in alike.values():
        if key in seen or not key:
            continue
        seen.add(key)
        for name, each in memory.records(key).items():
            for head in each.heads:
                if head.state == "refuted" and head.over & alike.keys() and _reaches(name, scope):
                    return f"version {head.id.hex()[:12]} refutes it"
    return ""


def _reaches(name: RecordName, scope: Scope) -> bool:
    """Whether what is refuted there is refuted here: everywhere, or in the same scope."""
    return name.scope in ("fleet", scope)


# --- what there is -------------------------------------------------------------------------


class Listing(Request, frozen=True):
    scope: Annotated[str, data()] = ""
    after: Annotated[str, data()] = ""


class Kept(Struct, frozen=True, kw_only=True):
    """A version that counts, as a file tells it."""

    key: str
    text: str
    tags: list[str]
    version: str
    scope: str
    state: str
    source: str
    by: str
    t_ms: int


class Page(Struct, frozen=True):
    """What counts of some keys, and after which key the next are; "" after the last."""

    notes: list[Kept]
    next: str


_KEYS: Final = "select distinct key from memory_version where key > ? order by key limit ?"


@verb("memory.list", auth="local")
def kept(core: Core, call: Call, ask: Listing) -> Turns[Page]:
    """What counts, by key: every text of a conflict."""
    wanted, notes, size = scope_of(core, ask.scope) if ask.scope else None, list[Kept](), 0
    keys = [str(key) for (key,) in core.tables.query(_KEYS, (ask.after, IMPORT_CALL_NOTES))]
    for number, key in enumerate(keys, 1):
        if number % _NOTES_PER_TURN == 0:
            yield
        for name, record in core.part(Memory).records(key).items():
            if record.state in COUNTS and wanted in (None, name.scope):
                notes += _kept(core, record.heads, record.state)
        size += sum(len(each.text) for each in notes[-4:])
        if size > IMPORT_CALL_BYTES:
            return Page(notes, key)
    return Page(notes, keys[-1] if len(keys) == IMPORT_CALL_NOTES else "")


def _kept(core: Core, heads: Sequence[Version], state: str) -> list[Kept]:
    found = []
    for head in heads:
        entry = core.log.entry(EntryId(head.id))
        put = body_or_none(entry, MemoryPut)
        if entry is None or put is None:
            continue
        found.append(
            Kept(
                key=head.key, text=put.text, tags=put.tags, version=head.id.hex(),
                scope=_place(core, head.stream.scope), state=state, source=put.source,
                by=said(core, entry).name, t_ms=head.stamp[0],
            )
        )  # fmt: skip
    return found


def _place(core: Core, scope: Scope) -> str:
    """A scope as it is typed, today and when there is another thread of this name."""
    word = scope_word(core, scope)
    return word if "@" in word or not is_group(scope) else f"{word}@{keeper_of(core, scope)}"


def _was_here(core: Core, scope: Scope, version: str) -> bool:
    """Whether a version was said in this scope, or was erased wherever it was said: of what is
    erased the header stays.
    """
    entry = core.log.entry(EntryId(bytes.fromhex(version))) if is_id(version) else None
    return entry is not None and (entry.stream.scope == scope or entry.body is None)
