"""Verbs about what is known: to write it down, and to say that it is wrong.

Rule 1: whoever replaces a version has read it. What `remember` is to replace is named, or is what
this attempt or session was shown, and is what counts now; else it is refused, with what is there.
Rule 2: nothing is merged and nothing is dropped by itself: a conflict is shown until somebody ends
it.
"""

from collections.abc import Iterable, Sequence
from typing import Annotated, Final

from msgspec import UNSET, Struct, UnsetType

from muster.context.secret import find_secret
from muster.errors import Conflict, Denied, Malformed, MusterError, NotFound, Refused
from muster.limits import (
    MEMORY_AGENT_TEXT_BYTES_MAX,
    MEMORY_OVER_MAX,
    MEMORY_TEXT_BYTES_MAX,
)
from muster.log.entry import EntryId
from muster.log.stream import FLEET, JOURNAL
from muster.memory.kinds import (
    PINNED,
    MemoryPut,
    MemoryRefute,
    check_key,
    check_put,
    check_refute,
)
from muster.memory.state import RecordName, Version
from muster.message.kinds import is_id
from muster.node.services import digests
from muster.node.services.memory import Memory
from muster.node.services.quotas import Quotas
from muster.node.services.recalled import readable, similar
from muster.node.services.search import Search
from muster.node.services.showings import SIMILAR, Showings
from muster.node.verb import Line
from muster.verbs.declaration import Call, Core, Request, Words, data, opt, pos, verb
from muster.verbs.known import open_version, scope_of, state_of, text_of

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
    # Of a private one: nobody else reads from the order what it is about (fleet/statement.py).
    salt: Annotated[str, data()] = ""


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
      harmless=True, signs="remember_args")  # fmt: skip
def remember(core: Core, call: Call, ask: Remember) -> Remembered:
    """Write down what is so, for everybody's agents.

    muster remember main/tests/where 'the tests are in tests/, run them with make test'
    muster remember main/port 'it is 7450' --over 3fa9c1 --tag repo:main
    """
    if ask.scope != "private":
        return _remember(core, call, ask)
    try:
        return _remember(core, call, ask)
    except MusterError as error:
        # That it was refused is an entry which the whole fleet reads.
        error.recorded = "what is private here was not written"
        raise


def _remember(core: Core, call: Call, ask: Remember) -> Remembered:
    by_agent = not call.actor.startswith("op:")
    if by_agent and ask.pin:
        raise Denied("only a person writes down a rule: leave --pin out")
    if by_agent and ask.scope not in ("", "fleet"):
        raise Denied("an agent writes down what the whole fleet may know: leave --scope out")
    scope, tags = scope_of(core, ask.scope), [*ask.tag, *([PINNED] if ask.pin else [])]
    over = [open_version(core, call, each).id for each in ask.over]
    check_key(ask.key)
    if ask.salt and scope != JOURNAL:
        raise Malformed("only what is private has a salt: leave it out")
    if PINNED in ask.tag:
        raise Malformed(f"{PINNED} is no tag to give: a person makes a rule with --pin")
    record = core.part(Memory).records(ask.key).get(RecordName(scope, ask.key))
    # As many as one version can name: who wrote more heads than that keeps nobody from writing.
    heads = () if record is None or record.state == "erased" else record.heads[:MEMORY_OVER_MAX]
    showings = core.part(Showings)
    over = over or showings.shown_of(call, (head.id for head in heads))
    body = MemoryPut(
        ask.key, " ".join(ask.text), [each.hex() for each in over], tags, list(ask.about),
        origin=showings.origin(call, [*over, *_ids(ask.about)]), salt=ask.salt,
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
