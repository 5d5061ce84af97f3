"""What Muster puts into files of an agent program, and takes out of them again (pure).

Rule 1: to put in twice is to put in once, and what an older version put in is replaced where it
stands, so that nothing of anybody else moves.
Rule 2: to take out leaves everything else as it is: byte for byte where nobody changed the file
since, and where somebody did, all that is not ours, also what they put into something of ours,
be it a comment, and what they had said of a name that we set.
Rule 3: a file that cannot be read as what it should be is refused and not touched.
Rule 4: what is ours is known by the home that put it there: another home's beside it stays.

    whole     a file that is ours alone
    members   of a JSON object: values set by name, and items added to lists
    tables    of a TOML file, between two marks at its end (tables.py)
"""

import json
from collections.abc import Sequence
from copy import deepcopy
from pathlib import Path
from typing import Any, Final, Literal

from msgspec import Struct

from muster.agent.plugin.jsonc import Node, read, rewritten, same, without_root
from muster.agent.plugin.settings import check_free, read_text
from muster.agent.plugin.tables import Tables, put_tables, take_tables
from muster.errors import Malformed

Names = tuple[str, ...]
# What a program reads in its JSON: no more, comments, or those and a comma behind a last item.
Reads = Literal["plain", "comments", "commas"]
_INNER: Final = "hooks"


class Whole(Struct, frozen=True, tag="whole"):
    """A file that is ours alone."""

    path: Path
    text: str


class Members(Struct, frozen=True, tag="members"):
    """What is set in a JSON object by the names that lead to it, and what is added to lists there.

    A value is known as ours by being what was set, or by `mark`, which stands somewhere in it; an
    item by the command that it runs, in which `mark` stands: it has one, or a list `hooks` of such.
    What the file `needs` is set where it is missing, and goes where nothing else is left.
    """

    path: Path
    mark: str
    needs: tuple[tuple[Names, Any], ...] = ()
    sets: tuple[tuple[Names, Any], ...] = ()
    adds: tuple[tuple[Names, Any], ...] = ()
    reads: Reads = "plain"


Edit = Whole | Members | Tables


def put(edit: Edit, now: bytes | None) -> bytes:
    """The file with what is ours in it. Raises: Malformed, Conflict: it is left alone."""
    if isinstance(edit, Whole):
        return edit.text.encode()
    if isinstance(edit, Tables):
        return put_tables(edit, now)
    text = read_text(edit.path, now)
    found = _object(edit, text, edit.reads)
    wanted = deepcopy(found)
    for names, value in edit.needs:
        _place(edit, wanted, names[:-1]).setdefault(names[-1], value)
    for names, value in edit.sets:
        place = _place(edit, wanted, names[:-1])
        there = place.get(names[-1], value)
        # A word under a name that is ours says something of us only: ours replaces it.
        free = not isinstance(value, dict | list) or _is_ours(edit, there, value)
        check_free(edit.path, ".".join(names), free)
        place[names[-1]] = value
    for names, item in edit.adds:
        items = _place(edit, wanted, names[:-1]).setdefault(names[-1], [])
        if not isinstance(items, list):
            raise Malformed(f"{'.'.join(names)} in {edit.path} is no list; mend it first")
        _add(edit, items, item)
    # What says the same is left as it was written.
    return now if now is not None and same(wanted, found) else _bytes(_written(edit, text, wanted))


def take(edit: Edit, now: bytes | None, before: bytes | None = None) -> bytes | None:
    """The file without what is ours; None where nothing else is in it. Raises: Malformed.

    Of what it was before we came, `before`, what is empty stays; None where it was not there.
    """
    if now is None or isinstance(edit, Whole):
        return None
    if isinstance(edit, Tables):
        kept_tables = take_tables(edit, now)
        return b"" if kept_tables is None and before is not None else kept_tables
    text, old = read_text(edit.path, now), _object(edit, read_text(edit.path, before))
    found = _object(edit, text)
    wanted, emptied = deepcopy(found), list[Names]()
    for names, value in edit.sets:
        place = _reached(wanted, names[:-1])
        if place is not None and names[-1] in place and _is_ours(edit, place[names[-1]], value):
            there = (_reached(old, names[:-1]) or {}).get(names[-1], value)
            if _is_ours(edit, there, value):
                del place[names[-1]]
            else:
                place[names[-1]] = there
            emptied.append(names[:-1])
    for names, _ in edit.adds:
        place = _reached(wanted, names[:-1])
        items = place.get(names[-1]) if place is not None else None
        if place is not None and isinstance(items, list):
            kept = _without(edit, items)
            if kept != items:
                place[names[-1]] = kept
                emptied.append(names)
    if same(wanted, found):
        return now
    stays = _commented(edit, text, wanted, emptied)
    for names in emptied:
        _clear(wanted, names, old, stays)
    rest = deepcopy(wanted)
    for names, value in edit.needs:
        place = _reached(rest, names[:-1])
        if place is not None and place.get(names[-1]) == value and not _has(old, names):
            del place[names[-1]]
            _clear(rest, names[:-1], old, stays)
    if not rest or same(rest, old):
        wanted = rest
    after = _written(edit, text, wanted)
    if wanted or (before is not None and read(before.decode()).root is not None):
        return _bytes(after)
    after = without_root(after)
    return None if before is None and not after.strip() else _bytes(after)


def left_over(old: Edit, new: Edit) -> Members | None:
    """What an older version put into an object that is not put there any more; None for nothing."""
    if not (isinstance(old, Members) and isinstance(new, Members)):
        return None
    stay = {names for names, _ in (*new.sets, *new.adds)}
    sets = tuple(each for each in old.sets if each[0] not in stay)
    adds = tuple(each for each in old.adds if each[0] not in stay)
    return Members(old.path, old.mark, (), sets, adds) if sets or adds else None


def placed(edit: Members, now: bytes | None, names: Names) -> tuple[int, int]:
    """Where our item stands in its list after `put`, and our hook in the item.

    Raises: Malformed, Conflict.
    """
    items = _reached(_object(edit, put(edit, now).decode()), names[:-1]) or {}
    for number, item in enumerate(items[names[-1]]):
        for inner, each in enumerate(_hooks(item)):
            if _runs_ours(edit, each):
                return number, inner
    raise AssertionError("put has put it there")


def _add(edit: Members, items: list[Any], item: Any) -> None:
    """Add an item, in place of the one that an older version added."""
    for number, each in enumerate(items):
        mine = [inner for inner in _hooks(each) if _runs_ours(edit, inner)]
        if not mine:
            continue
        if len(mine) == len(_hooks(each)):
            items[number] = item
        else:
            new = _hooks(item)[0]
            each[_INNER] = [new if inner is mine[0] else inner for inner in each[_INNER]
                            if inner is mine[0] or not _runs_ours(edit, inner)]  # fmt: skip
        return
    items.append(item)


def _without(edit: Members, items: list[Any]) -> list[Any]:
    """The items without our hooks; one of ours that somebody put theirs into keeps those."""
    kept = []
    for each in items:
        others = [inner for inner in _hooks(each) if not _runs_ours(edit, inner)]
        if len(others) == len(_hooks(each)):
            kept.append(each)
        elif others:
            kept.append({**each, _INNER: others})
    return kept


def _hooks(item: Any) -> list[Any]:
    """What an item runs: itself, or those that stand in it."""
    inner = item.get(_INNER) if isinstance(item, dict) else None
    return inner if isinstance(inner, list) else [item]


def _runs_ours(edit: Members, hook: Any) -> bool:
    command = hook.get("command") if isinstance(hook, dict) else hook
    return isinstance(command, str) and edit.mark in command


def _is_ours(edit: Members, there: Any, value: Any) -> bool:
    """Whether what stands under a name of ours is ours: as we set it, or with our mark in it."""
    if same(there, value) or not isinstance(value, dict | list):
        return same(there, value)
    return edit.mark in json.dumps(there, ensure_ascii=False)


def _clear(
    found: dict[str, Any], names: Names, old: dict[str, Any], stays: frozenset[Names]
) -> None:
    """Take out what is empty now and was not there before, from the inner ones on."""
    for size in range(len(names), 0, -1):
        outer, each = _reached(found, names[: size - 1]), names[:size]
        if outer is None or outer.get(each[-1]) not in ({}, []):
            return
        if not _has(old, each) and each not in stays:
            del outer[each[-1]]


def _commented(
    edit: Members, text: str, wanted: dict[str, Any], emptied: list[Names]
) -> frozenset[Names]:
    """Where a comment stands in what ours went out of: we write none, so somebody did."""
    if not read(text).comments:
        return frozenset()
    document = read(_written(edit, text, wanted))
    found = set()
    for names in emptied:
        node = document.root
        for size, name in enumerate(names, 1):
            node = _inner(node, name)
            if node and any(node.start < at < node.end for at in document.comments):
                found.add(names[:size])
    return frozenset(found)


def _inner(node: Node | None, name: str) -> Node | None:
    entries = node.entries if node is not None else ()
    return next((each.node for each in entries if each.name == name), None)


def _has(found: dict[str, Any], names: Sequence[str]) -> bool:
    place = _reached(found, names[:-1])
    return place is not None and names[-1] in place


def _reached(found: dict[str, Any], names: Sequence[str]) -> dict[str, Any] | None:
    place: Any = found
    for name in names:
        place = place.get(name) if isinstance(place, dict) else None
    return place if isinstance(place, dict) else None


def _place(edit: Members, found: dict[str, Any], names: Sequence[str]) -> dict[str, Any]:
    place = found
    for name in names:
        inner = place.setdefault(name, {})
        if not isinstance(inner, dict):
            raise Malformed(f"{'.'.join(names)} in {edit.path} is no object; mend it first")
        place = inner
    return place


def _object(edit: Members, text: str, reads: Reads = "commas") -> dict[str, Any]:
    """What a file says; nothing where it is empty, or has comments alone. Raises: Malformed."""
    try:
        document = read(text)
    except ValueError as error:
        raise Malformed(
            f"{edit.path} is no JSON ({error}), and nothing was changed; mend it first"
        ) from error
    if document.comments and reads == "plain":
        raise Malformed(
            f"{edit.path} has comments, with which its program reads nothing of it; take them out"
        )
    if document.has_last_comma and reads != "commas":
        raise Malformed(
            f"{edit.path} has a comma behind a last item, with which its program reads nothing of "
            "it; take it out"
        )
    found = {} if document.root is None else document.root.value
    if not isinstance(found, dict):
        raise Malformed(f"{edit.path} holds no JSON object; nothing was changed")
    return found


def _written(edit: Members, text: str, wanted: dict[str, Any]) -> str:
    """The text, saying what is wanted. Raises: Malformed."""
    try:
        return rewritten(text, wanted)
    except ValueError as error:
        raise Malformed(
            f"{edit.path} cannot be changed ({error}), and nothing was; mend it first"
        ) from error


def _bytes(text: str) -> bytes:
    # Half a character, which JSON has as an escape alone, is one again.
    return text.encode(errors="backslashreplace")
