"""The small, safe part of YAML that a spec may use.

Rule 1: bounded before parsing (bytes, UTF-8, characters) and while parsing (depth, nodes).
Rule 2: no tags, anchors, aliases, merge keys, directives, duplicate keys or second document:
    each is either an attack or a way to make the text mean something else than it shows.
Rule 3: a plain scalar is `null`, `true`/`false`, a decimal integer or text; nothing else has a
    meaning of its own, so `no`, `3.10`, `12:30` and `2026-11-20` stay what was written.
Rule 4: every node knows its line and column, counted from 1.
Rule 5: what libyaml reads is what the parser in Python reads, at a tenth of its time. Wherever the
    two could differ, and for the words of every refusal, the one in Python reads the text again.

Only events are asked of either: a composer calls itself for every level, and 100,000 brackets
crash the one in C, while events stop at depth 16. Characters that change how a text is displayed
(bidirectional controls, unusual line ends) are refused, because an operator signs what they see.
"""

import contextlib
import re
from dataclasses import dataclass, field
from typing import Final

import yaml

from muster import limits
from muster.task import yaml_hint
from muster.task.problem import Problem, SpecErrors, shown

# U+0085, U+2028 and U+2029 end a line for PyYAML and not for an editor; the bidirectional
# controls reorder what a person sees; a byte order mark may only come first.
_REFUSED: Final = re.compile(
    "[^\t\n\r -~\u00a0-\ud7ff\ue000-\ufffd\U00010000-\U0010ffff]"
    "|[\u200e\u200f\u061c\u2028\u2029\u202a-\u202e\u2066-\u2069\ufeff\ufffe\uffff]"
)
# Not in a PyYAML that was built where there is no libyaml.
_QUICK: Final = getattr(yaml, "CSafeLoader", None)
# Mistakes to the parser in Python and none to libyaml: a tab between tokens, and a comment that
# touches the mark of a block of text.
_DIFFERENT: Final = re.compile(r"\t|[|>][-+0-9]*#")
_INTEGER: Final = re.compile(r"[-+]?(0|[1-9][0-9]{0,15})")
_CONSTANTS: Final[dict[str, bool | None]] = {
    **dict.fromkeys(("true", "True", "TRUE"), True),
    **dict.fromkeys(("false", "False", "FALSE"), False),
    **dict.fromkeys(("", "~", "null", "Null", "NULL"), None),
}


@dataclass(frozen=True, slots=True)
class Scalar:
    """A value; `text` is what was written, `plain` tells that it had no quotes."""

    line: int
    column: int
    text: str
    plain: bool

    @property
    def value(self) -> str | int | bool | None:
        if not self.plain:
            return self.text
        if self.text in _CONSTANTS:
            return _CONSTANTS[self.text]
        return int(self.text) if _INTEGER.fullmatch(self.text) else self.text


@dataclass(frozen=True, slots=True)
class Sequence:
    line: int
    column: int
    items: "list[Node]" = field(default_factory=list)


@dataclass(frozen=True, slots=True)
class Mapping:
    """Keys are text, whatever they look like; `keys` has the place of each."""

    line: int
    column: int
    keys: dict[str, Scalar] = field(default_factory=dict)
    values: "dict[str, Node]" = field(default_factory=dict)


Node = Scalar | Sequence | Mapping


def read(raw: bytes) -> Node:
    """The tree of a spec's bytes.

    Raises:
        SpecErrors: with exactly one problem, when the bytes are not the YAML that is allowed.

    """
    text = _decoded(raw)
    if _QUICK is not None and not _DIFFERENT.search(text):
        # The slow way below says where and what is wrong.
        with contextlib.suppress(yaml.YAMLError, SpecErrors):
            builder = _Builder(quick=True)
            for event in yaml.parse(text, Loader=_QUICK):
                builder.take(event)
            if builder.root is not None:
                return builder.root
    builder = _Builder()
    try:
        for event in yaml.parse(text, Loader=yaml.SafeLoader):
            builder.take(event)
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        line, column = (mark.line + 1, mark.column + 1) if mark else (1, 1)
        what = error.problem or error.context or "nothing more is known"
        began = error.context_mark.line + 1 if error.context_mark else 0
        stop = yaml_hint.Stop(what, error.context or "", line, column, began)
        hint = yaml_hint.sentence(text, stop)
        raise _refused(line, column, f"this is not YAML: {hint}") from error
    except (yaml.YAMLError, ValueError, OverflowError) as error:
        # int() of `\U0010FFFFF`-like escapes and of endless numbers in directives ends here.
        raise _refused(1, 1, f"this is not YAML: {shown(str(error))}") from error
    if builder.root is None:
        raise _refused(1, 1, "the file is empty; a spec starts with muster: 1")
    return builder.root


def _refused(line: int, column: int, sentence: str) -> SpecErrors:
    return SpecErrors([Problem(line, column, "", sentence)])


def _decoded(raw: bytes) -> str:
    if len(raw) > limits.SPEC_BYTES_MAX:
        most = limits.SPEC_BYTES_MAX // 1024
        raise _refused(1, 1, f"a spec is at most {most} KiB, this has {len(raw)} bytes")
    try:
        text = raw.decode("utf-8").removeprefix("\ufeff")
    except UnicodeDecodeError as error:
        before = raw[: error.start].decode("utf-8")
        place = _place(before)
        byte = raw[error.start]
        raise _refused(*place, f"byte 0x{byte:02x} is not UTF-8; save it as UTF-8") from error
    bad = _REFUSED.search(text)
    if bad:
        if raw[:4].count(0) == 2:
            raise _refused(1, 1, "the file is UTF-16; save it as UTF-8")
        place = _place(text[: bad.start()])
        raise _refused(
            *place, f"the character U+{ord(bad[0]):04X} must not be in a spec; remove it"
        )
    return text


def _place(before: str) -> tuple[int, int]:
    line_start = before.rfind("\n") + 1
    return before.count("\n") + 1, len(before) - line_start + 1


class _Builder:
    """Takes one event after the other; a frame is a collection that is still open."""

    def __init__(self, *, quick: bool = False) -> None:
        self.root: Node | None = None
        self._quick = quick
        self._open: list[Sequence | Mapping] = []
        self._keys: list[Scalar | None] = []
        self._nodes = 0
        self._documents = 0

    def take(self, event: yaml.Event) -> None:
        mark = event.start_mark
        assert mark is not None, "both parsers mark every event"
        line, column = mark.line + 1, mark.column + 1
        self._refuse(event, line, column)
        match event:
            case yaml.ScalarEvent():
                # An escape in quotes can make what the text itself must not hold, such as NUL.
                if bad := _REFUSED.search(event.value):
                    what = f"the character U+{ord(bad[0]):04X} must not be in a value; remove it"
                    raise _refused(line, column, what)
                plain = not event.style
                if self._quick and plain and "?" in event.value:
                    # Within brackets a text to libyaml, the mark of a key to the parser in Python.
                    raise yaml.YAMLError
                self._add(Scalar(line, column, event.value, plain))
            case yaml.SequenceStartEvent() | yaml.MappingStartEvent():
                if len(self._open) >= limits.SPEC_DEPTH_MAX:
                    most = limits.SPEC_DEPTH_MAX
                    raise _refused(line, column, f"nested deeper than {most} levels; flatten it")
                is_list = isinstance(event, yaml.SequenceStartEvent)
                node = Sequence(line, column) if is_list else Mapping(line, column)
                self._add(node)
                self._open.append(node)
                self._keys.append(None)
            case yaml.SequenceEndEvent() | yaml.MappingEndEvent():
                self._open.pop()
                self._keys.pop()

    def _refuse(self, event: yaml.Event, line: int, column: int) -> None:
        what = ""
        if isinstance(event, yaml.DocumentStartEvent):
            self._documents += 1
            if self._documents > 1:
                what = "a file holds one spec; put the second in its own file"
            elif event.version or event.tags:
                what = "directives (%YAML, %TAG) are not allowed; remove them"
        elif isinstance(event, yaml.AliasEvent):
            what = "aliases (*name) are not allowed; write the value out, text in quotes"
        elif isinstance(event, yaml.NodeEvent) and event.anchor is not None:
            what = "anchors (&name) are not allowed; remove it, or put the text in quotes"
        elif getattr(event, "tag", None) is not None:
            what = "tags (!name) are not allowed; remove it, or put the text in quotes"
        if what:
            raise _refused(line, column, what)

    def _add(self, node: Node) -> None:
        self._nodes += 1
        if self._nodes > limits.SPEC_NODES_MAX:
            most = limits.SPEC_NODES_MAX
            raise _refused(node.line, node.column, f"more than {most} values; split the spec")
        if not self._open:
            self.root = node
            return
        parent = self._open[-1]
        if isinstance(parent, Sequence):
            parent.items.append(node)
            return
        key = self._keys[-1]
        if key is None:
            self._keys[-1] = self._key(parent, node)
        else:
            parent.keys[key.text] = key
            parent.values[key.text] = node
            self._keys[-1] = None

    @staticmethod
    def _key(parent: Mapping, node: Node) -> Scalar:
        if not isinstance(node, Scalar):
            raise _refused(node.line, node.column, "a key is a word, not a list or a mapping")
        if node.plain and node.text == "<<":
            raise _refused(node.line, node.column, "merge keys (<<) are not allowed; write it out")
        if node.text in parent.keys:
            first = parent.keys[node.text].line
            name = shown(node.text)
            raise _refused(
                node.line, node.column, f"{name} is there already in line {first}; keep one"
            )
        return node
