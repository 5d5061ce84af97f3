"""JSON as people write it, with comments and a comma behind the last one, changed in place (pure).

Rule 1: what is not changed keeps its bytes: comments, blanks, line ends, order, a mark of its
encoding. What is put in stands as its neighbours do, and leaves no trace when it goes.
Rule 2: what comes out is read again before it counts, and has to say what was wanted.
Rule 3: no deeper and no longer than settings are. Where programs read one text differently, a name
that stands twice or a line end within a comment, nothing is changed.

    read(text) ── Document: its value, and where each part of it stands ── rewritten(text, value)
"""

import json
import math
import re
from bisect import bisect_right
from collections.abc import Iterator
from typing import Any, Final, NamedTuple

_TOKEN: Final = re.compile(
    r'(?P<text>"[^"\\\x00-\x1f]*+(?:\\.[^"\\\x00-\x1f]*+)*+")'
    r"|(?P<number>-?(?:0|[1-9][0-9]*)(?:\.[0-9]+)?(?:[eE][-+]?[0-9]+)?)(?![\w.+-])"
    r"|(?P<word>true|false|null)(?!\w)"
    r"|(?P<mark>[{}\[\]:,])"
    r"|(?P<line>//[^\r\n]*+(?!\r(?!\n)))"
    r"|(?P<block>/\*(?s:.*?)\*/)"
)
# The end of a line is one for every program: none of `\r` alone.
_BLANKS: Final = re.compile(r"(?:[ \t\n]|\r\n)*+")
_LINE_BLANKS: Final = re.compile(r"\ufeff?([ \t]*)")
_LINE_ENDS: Final = re.compile(r"[ \t]*\r?\n")
_WORDS: Final = {"true": True, "false": False, "null": None}
_CLOSING: Final = {"{": "}", "[": "]"}
_DEPTH_MAX: Final = 100
_TOKENS_MAX: Final = 200_000
_STEPS_MAX: Final = 1000


class _Token(NamedTuple):
    kind: str
    start: int
    end: int
    text: str


class Number(str):
    """A number as it is written, where no number of ours is the same."""

    __slots__ = ()


class Node(NamedTuple):
    """A value, and where it stands; what an object or a list has in it, in its order."""

    start: int
    end: int
    value: Any
    entries: tuple["Entry", ...] = ()


class Entry(NamedTuple):
    """A member or an item: from `start` on, with the place of the comma behind it, if any."""

    name: str
    start: int
    node: Node
    comma: int | None


class Document(NamedTuple):
    """A text that was read: its value, which is none where it has comments alone."""

    text: str
    root: Node | None
    comments: dict[int, _Token]
    ends: list[int]
    lines: frozenset[int]

    @property
    def has_last_comma(self) -> bool:
        """Whether a comma stands behind a last item."""
        return self.root is not None and _has_last_comma(self.root)


def read(text: str) -> Document:
    """Raises: ValueError, with what is wrong, and in which line."""
    tokens = list(_tokens(text))
    comments = {each.start: each for each in tokens if each.kind in ("line", "block")}
    said = [each for each in tokens if each.start not in comments]
    root = None
    if said:
        root, at = _value(text, said, 0, 0)
        if at < len(said):
            raise _wrong(text, said[at].start, "something stands behind its end")
    lines = frozenset(each.end for each in comments.values() if each.kind == "line")
    return Document(text, root, comments, [each.end for each in tokens], lines)


def rewritten(text: str, wanted: Any) -> str:
    """The text changed as little as can be, so that it says what is wanted.

    Raises: ValueError where that cannot be had.
    """
    for _ in range(_STEPS_MAX):
        document = read(text)
        if document.root is None:
            text = _begun(text, wanted)
        elif same(document.root.value, wanted):
            return text
        else:
            text = _step(document, document.root, wanted)
    raise ValueError("it would have to change in too many places")


def without_root(text: str) -> str:
    """A text of comments alone again, where an empty value is all that it has."""
    document = read(text)
    root = document.root
    if root is None or root.value or any(root.start < at < root.end for at in document.comments):
        return text
    before, after = text[: root.start], text[root.end :]
    end = _end_of_line(text)
    if after.startswith(end):
        return before + after[len(end) :]
    return before.removesuffix(end) + after


def same(one: Any, other: Any) -> bool:
    """Whether two values say the same; 1 is not true, and in an object the order says nothing."""
    if type(one) is not type(other):
        return False
    if isinstance(one, dict):
        return one.keys() == other.keys() and all(same(one[key], other[key]) for key in one)
    if isinstance(one, list):
        return len(one) == len(other) and all(map(same, one, other))
    return bool(one == other)


def _tokens(text: str) -> Iterator[_Token]:
    at = 1 if text.startswith("\ufeff") else 0
    for _ in range(_TOKENS_MAX):
        found = _BLANKS.match(text, at)
        at = found.end() if found else at
        if at == len(text):
            return
        token = _TOKEN.match(text, at)
        if token is None or token.lastgroup is None:
            raise _wrong(text, at, f"it cannot be read from {text[at : at + 20]!r} on")
        at = token.end()
        yield _Token(token.lastgroup, token.start(), at, token[0])
    raise ValueError("it is longer than any settings are")


def _value(text: str, tokens: list[_Token], at: int, depth: int) -> tuple[Node, int]:
    """The value that begins with this token, and the number of the one behind it."""
    first = _at(text, tokens, at)
    if depth > _DEPTH_MAX:
        raise _wrong(text, first.start, "it is nested deeper than any settings are")
    if first.text not in _CLOSING:
        return Node(first.start, first.end, _plain(text, first)), at + 1
    closing, entries, at = _CLOSING[first.text], list[Entry](), at + 1
    while (token := _at(text, tokens, at)).text != closing:
        if entries and entries[-1].comma is None:
            raise _wrong(text, token.start, "a comma is missing")
        name = ""
        if closing == "}":
            if token.kind != "text":
                raise _wrong(text, token.start, "a name is missing")
            name = json.loads(token.text)
            if _at(text, tokens, at + 1).text != ":":
                raise _wrong(text, token.end, "a colon is missing")
            at += 2
        node, at = _value(text, tokens, at, depth + 1)
        comma = None
        if _at(text, tokens, at).text == ",":
            comma = tokens[at].start
            at += 1
        entries.append(Entry(name, token.start, node, comma))
    value: Any = [each.node.value for each in entries]
    if closing == "}":
        value = {each.name: each.node.value for each in entries}
    return Node(first.start, token.end, value, tuple(entries)), at + 1


def _plain(text: str, token: _Token) -> Any:
    if token.kind == "word":
        return _WORDS[token.text]
    if token.kind == "text":
        return json.loads(token.text)
    if token.kind != "number":
        raise _wrong(text, token.start, "a value is missing")
    try:
        number = json.loads(token.text)
    except ValueError:
        # Python reads no number of some thousand digits.
        return Number(token.text)
    return number if math.isfinite(number) else Number(token.text)


def _at(text: str, tokens: list[_Token], at: int) -> _Token:
    if at == len(tokens):
        raise _wrong(text, len(text), "its end is missing")
    return tokens[at]


def _wrong(text: str, at: int, what: str) -> ValueError:
    return ValueError(f"line {text.count(chr(10), 0, at) + 1}: {what}")


def _has_last_comma(node: Node) -> bool:
    return bool(node.entries) and (
        node.entries[-1].comma is not None or any(_has_last_comma(e.node) for e in node.entries)
    )


def _step(document: Document, node: Node, wanted: Any) -> str:
    """One change of those that make what a node says what is wanted; it does not say that yet."""
    if isinstance(node.value, dict) and isinstance(wanted, dict):
        return _step_of_object(document, node, wanted)
    if isinstance(node.value, list) and isinstance(wanted, list):
        return _step_of_list(document, node, wanted)
    text = document.text
    printed = _printed(text, wanted, _indent(text, node.start), _unit(document))
    return text[: node.start] + printed + text[node.end :]


def _step_of_object(document: Document, node: Node, wanted: dict[str, Any]) -> str:
    names = [each.name for each in node.entries]
    for number, each in enumerate(node.entries):
        stays = each.name in wanted
        if stays and same(node.value[each.name], wanted[each.name]):
            continue
        if names.count(each.name) > 1:
            raise _wrong(document.text, each.start, f"it has {each.name[:40]!r} twice")
        if not stays:
            return _removed(document, node, number)
        return _step(document, each.node, wanted[each.name])
    name = next(each for each in wanted if each not in node.value)
    return _added(document, node, f"{json.dumps(name, ensure_ascii=False)}: ", wanted[name])


def _step_of_list(document: Document, node: Node, wanted: list[Any]) -> str:
    found, ahead, behind = node.value, 0, 0
    shorter = min(len(found), len(wanted))
    while ahead < shorter and same(found[ahead], wanted[ahead]):
        ahead += 1
    while behind < shorter - ahead and same(found[-1 - behind], wanted[-1 - behind]):
        behind += 1
    old, new = found[ahead : len(found) - behind], wanted[ahead : len(wanted) - behind]
    if not new or (len(old) > len(new) and any(same(each, new[0]) for each in old[1:])):
        return _removed(document, node, ahead)
    if ahead == len(found):
        return _added(document, node, "", new[0])
    return _step(document, node.entries[ahead].node, new[0])


def _added(document: Document, node: Node, name: str, value: Any) -> str:
    """The text with a member or an item behind the last one, written as that is."""
    text, unit = document.text, _unit(document)
    end_of_line, outer = _end_of_line(text), _indent(text, node.start)
    if not node.entries:
        at = _end_before(document, node.end - 1)
        indent = outer + unit
        body = end_of_line + indent + name + _printed(text, value, indent, unit)
        if at == node.start + 1:
            body += end_of_line + outer
        return text[:at] + body + text[at:]
    last = node.entries[-1]
    at, is_line = _behind(document, last.node.end if last.comma is None else last.comma + 1)
    own_line = "\n" in text[_end_before(document, last.start) : last.start]
    if own_line or is_line:
        indent = _indent(text, last.start) if own_line else outer + unit
        body = end_of_line + indent + name + _printed(text, value, indent, unit)
    else:
        body = f" {name}{json.dumps(value, ensure_ascii=False)}"
    if last.comma is not None:
        return f"{text[:at]}{body},{text[at:]}"
    end = last.node.end
    return f"{text[:end]},{text[end:at]}{body}{text[at:]}"


def _removed(document: Document, node: Node, number: int) -> str:
    """The text without one of the entries, and without what stood around it because of it."""
    text, entry = document.text, node.entries[number]
    start, rest = _end_before(document, entry.start), text[entry.node.end :]
    if entry.comma is not None:
        rest = text[entry.node.end : entry.comma] + text[entry.comma + 1 :]
    if number == 0 and entry.comma is None and start == node.start + 1:
        closing = _end_of_line(text) + _indent(text, node.start)
        rest = rest.removeprefix(closing)
    if start in document.lines and not _LINE_ENDS.match(rest):
        # What follows would be a part of the comment.
        start = entry.start
    before = text[:start]
    if entry.comma is None and number:
        comma = node.entries[number - 1].comma
        assert comma is not None, "one stands between two"
        before = text[:comma] + text[comma + 1 : start]
    return before + rest


def _begun(text: str, value: Any) -> str:
    """A text that has no value yet, with this one at its end."""
    end = _end_of_line(text)
    printed = _printed(text, value, "", "  ")
    alone = not text.removeprefix("\ufeff") or text.endswith("\n")
    return text + printed + end if alone else text + end + printed


def _printed(text: str, value: Any, indent: str, unit: str) -> str:
    lines = json.dumps(value, indent=unit, ensure_ascii=False).split("\n")
    return (_end_of_line(text) + indent).join(lines)


def _end_before(document: Document, at: int) -> int:
    """The end of what stands before this place, be it a comment."""
    number = bisect_right(document.ends, at)
    return document.ends[number - 1]


def _behind(document: Document, at: int) -> tuple[int, bool]:
    """The end of the comments behind this place in its line; whether that is one of `//`."""
    while True:
        blanks = _LINE_BLANKS.match(document.text, at)
        comment = document.comments.get(blanks.end() if blanks else at)
        if comment is None or (comment.kind == "block" and "\n" in comment.text):
            return at, False
        at = comment.end
        if comment.kind == "line":
            return at, True


def _indent(text: str, at: int) -> str:
    """The blanks at the beginning of the line in which this stands."""
    found = _LINE_BLANKS.match(text, text.rfind("\n", 0, at) + 1)
    return found[1] if found else ""


def _unit(document: Document) -> str:
    """By how much the text indents."""
    text, root = document.text, document.root
    if root is None or not root.entries:
        return "  "
    first = root.entries[0].start
    outer, inner = _indent(text, root.start), _indent(text, first)
    own_line = "\n" in text[root.start : first]
    return inner.removeprefix(outer) if own_line and len(inner) > len(outer) else "  "


def _end_of_line(text: str) -> str:
    at = text.find("\n")
    return "\r\n" if at > 0 and text[at - 1] == "\r" else "\n"
