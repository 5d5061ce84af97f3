"""Verbs that end what is disputed under a key, or go back to what was said before.

Rule 1: both write one version, over all that stands there: it is written by `remember`, with the
versions that it replaces named, so what a person signs is what they saw, and what nobody saw stays.
Rule 2: a text is taken, given or merged by lines, never guessed: where two changed the same lines
nothing is written.
"""

import asyncio
from typing import Annotated, Any, Final

from msgspec import UNSET, Struct, UnsetType, convert

from muster.errors import Conflict, Malformed, NotFound, Refused
from muster.git.text_merge import merge_texts
from muster.limits import MEMORY_OVER_MAX
from muster.log.entry import EntryId
from muster.log.stream import FLEET
from muster.memory.kinds import PINNED
from muster.memory.ordered import ID_DIGITS_MIN
from muster.memory.state import RecordName, Version
from muster.node.services.memory import Memory
from muster.node.services.showings import Showings
from muster.node.verb import Line
from muster.verbs.declaration import Call, Context, Core, Request, opt, pos, verb
from muster.verbs.known import Known, open_version, scope_of, shown_version, state_of
from muster.verbs.memory import Remembered

_KEY: Final = pos("what it is about: main/tests/where")
_SCOPE: Final = opt("where, if it is known in several scopes: fleet, private, thread:NAME")


class Resolve(Request, frozen=True):
    key: Annotated[str, _KEY]
    take: Annotated[str, opt("the version that is right (its beginning is enough)")] = ""
    text: Annotated[str, opt("what is right instead of all of them")] = ""
    merge: Annotated[bool, opt("what all of them say, by lines; refused when not clean")] = False
    scope: Annotated[str, _SCOPE] = ""


@verb("resolve", auth="local", runs="client", group="Memory", harmless=True, on="one",
      says=(Line("{version:id}  {key}: {state}"),))  # fmt: skip
def resolve(context: Context, ask: Resolve) -> Remembered:
    """End a conflict or a dispute about a key, for every machine.

    muster resolve main/port --take 3fa9c1
    muster resolve main/port --text 'it is 8443'
    muster resolve main/notes --merge
    """
    if sum(map(bool, (ask.take, ask.text, ask.merge))) != 1:
        raise Malformed("give one of --take VERSION, --text TEXT and --merge")
    found = _standing(context, ask.key, ask.scope)
    if found.state not in ("conflict", "disputed", "refuted"):
        raise Refused(
            f"{ask.key} is {found.state}: there is nothing to end; `muster remember --over` "
            "replaces what is known"
        )
    texts = [each for each in found.versions if each.version in found.texts]
    first = texts[0] if texts else None
    if ask.take:
        first = _taken(texts, ask.take)
    text = ask.text
    if first is not None and not ask.text:
        text = first.text if ask.take else _merged(found.base, texts)
    if not text:
        raise Refused(f"no text stands under {ask.key}: --text says what is right")
    return _write(context, found, text, first)


def _taken(texts: list[Known], version: str) -> Known:
    if len(version) < ID_DIGITS_MIN:
        raise NotFound(f"{version!r} is no version: give {ID_DIGITS_MIN} digits of its id at least")
    fitting = [each for each in texts if each.version.startswith(version)]
    if len(fitting) != 1:
        every = ", ".join(each.version[:12] for each in texts)
        raise NotFound(
            f"{version[:12]} is none of the texts that stand there ({every}); `muster undo --to` "
            "goes back to an older one"
        )
    return fitting[0]


def _merged(base: str | UnsetType, texts: list[Known]) -> str:
    """Raises: Conflict where it is not clean."""
    hint = "nothing was written. --take takes one of them, --text says what is right"
    if not isinstance(base, str):
        raise Conflict(f"they were not made of one version, so they cannot be merged: {hint}")
    # A last line without its end would be another line.
    whole, *others = (f"{each.text}\n".encode() for each in texts)
    for other in others:
        merged = asyncio.run(merge_texts(whole, f"{base}\n".encode(), other, union=False))
        if merged is None:
            raise Conflict(f"they changed the same lines: {hint}")
        whole = merged
    return whole.decode().removesuffix("\n")


class Undo(Request, frozen=True):
    key: Annotated[str, _KEY]
    to: Annotated[str, opt("the version to go back to; without it, what was replaced last")] = ""
    scope: Annotated[str, _SCOPE] = ""


@verb("undo", auth="local", runs="client", group="Memory", harmless=True, on="one",
      says=(Line("{version:id}  {key}: {state}"),))  # fmt: skip
def undo(context: Context, ask: Undo) -> Remembered:
    """Say again what was known under a key before: a new version with the older text.

    muster undo main/port
    muster undo main/port --to 3fa9c1
    """
    found = _standing(context, ask.key, ask.scope, ask.to)
    back = found.earlier
    if not isinstance(back, Known):
        raise NotFound(
            f"no other text was known under {ask.key}; `muster memory {ask.key} --history` shows "
            "every version"
        )
    if not back.text:
        raise Refused(f"version {back.version[:12]} is erased: its text is nowhere any more")
    return _write(context, found, back.text, back)


def _write(context: Context, found: "Standing", text: str, like: Known | None) -> Remembered:
    """One version over all that stands, with the tags of the one that it is taken from."""
    over = [each.version for each in found.versions][:MEMORY_OVER_MAX]
    tags = list(like.tags) if like is not None else []
    args: dict[str, Any] = {"key": found.key, "text": [text], "over": over}
    args |= {"scope": found.scope} if found.scope != "fleet" else {}
    if plain := [tag for tag in tags if tag != PINNED]:
        args["tag"] = plain
    # What an agent tagged so, on a machine that let it, is no rule: a person would sign it as one.
    if PINNED in tags and not found.by_agent and like is not None and like.trust == "person":
        args["pin"] = True
    return convert(context.ask("remember", args, on=context.on), Remembered)


def _standing(context: Context, key: str, scope: str, to: str = "") -> "Standing":
    args = {"key": key, "scope": scope, "to": to}
    given = {name: value for name, value in args.items() if value}
    return convert(context.ask("memory.standing", given, on=context.on), Standing)


class Stands(Request, frozen=True):
    key: Annotated[str, _KEY]
    scope: Annotated[str, _SCOPE] = ""
    to: Annotated[str, opt("a version to go back to")] = ""


class Standing(Struct, frozen=True):
    """What stands under a key in one scope, the first first; `texts` are those that say something.

    `base` is the text that all of these were made of, `earlier` what was there before them, or the
    version that was asked for.
    """

    key: str
    scope: str
    state: str
    by_agent: bool
    versions: list[Known]
    texts: list[str]
    base: str | UnsetType = UNSET
    earlier: Known | UnsetType = UNSET


@verb("memory.standing", auth="local", agents=True, writes=True)
def stands(core: Core, call: Call, ask: Stands) -> Standing:
    """What stands under a key, and what it was made of. Raises: NotFound, Refused."""
    part, reader = core.part(Memory), core.part(Showings).reader(call)
    scopes = {name.scope for name in part.records(ask.key)}
    scopes &= {scope_of(core, ask.scope)} if ask.scope else scopes
    scopes &= {FLEET} if reader is not None else scopes
    if not scopes:
        raise NotFound(f"nothing is known under {ask.key[:60]!r}; `muster memories` lists what is")
    if len(scopes) > 1:
        raise Refused(f"{ask.key} is known in several scopes: say which with --scope")
    (scope,) = scopes
    left = [each for each in part.standing(RecordName(scope, ask.key)) if each.state != "erased"]
    texts = [each for each in left if each.state == "active"]
    every = {each.id: each for each in part.history(ask.key) if each.stream.scope == scope}
    if ask.to:
        back: Version | None = open_version(core, call, ask.to)
    else:
        back = _before(every, texts or left)
    if back is not None and back.stream.scope != scope:
        raise Refused(f"{ask.to[:12]} was written in another scope: what it says stays there")
    shown = [shown_version(core, each, each.state) for each in left]
    base = _base(every, texts)
    read = [*left, *(each for each in (back, base) if each is not None and each not in left)]
    core.part(Showings).note(call, "get", [each.id for each in read], ask.key)
    return Standing(
        ask.key,
        shown[0].scope if shown else ask.scope or "fleet",
        state_of(core, scope, ask.key),
        reader is not None,
        shown,
        [each.id.hex() for each in texts],
        UNSET if base is None else shown_version(core, base, "replaced").text,
        UNSET if back is None else shown_version(core, back, "replaced"),
    )


def _before(every: dict[EntryId, Version], heads: list[Version]) -> Version | None:
    """The newest text that the first head replaced, or else the newest other text."""
    prints = {each.print for each in heads[:1]}
    others = [v for v in every.values() if v.state == "active" and v.print not in prints]
    direct = [v for v in others if heads and v.id in heads[0].over]
    return max(direct or others, key=lambda v: (v.stamp, v.id), default=None)


def _base(every: dict[EntryId, Version], texts: list[Version]) -> Version | None:
    """The newest version with a text that all of these were made of; it may be one of them."""
    made_of = [_ancestors(every, each) for each in texts]
    common = set.intersection(*made_of) if made_of else set()
    known = [every[id] for id in common if every[id].state == "active"]
    return max(known, key=lambda v: (v.stamp, v.id), default=None)


def _ancestors(every: dict[EntryId, Version], version: Version) -> set[EntryId]:
    found = {version.id}
    left = [version]
    while left:
        for id in left.pop().over:
            if id in every and id not in found:
                found.add(id)
                left.append(every[id])
    return found
