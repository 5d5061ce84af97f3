"""The safe part of YAML: what it refuses, where, and how fast."""

import json
from pathlib import Path

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from tests.promise import proves
from tests.work import calls

from muster import limits
from muster.task import yaml
from muster.task.problem import Problem, SpecErrors


def refusal(raw: bytes) -> Problem:
    with pytest.raises(SpecErrors) as caught:
        yaml.read(raw)
    (problem,) = caught.value.problems
    return problem


def plain(node: yaml.Node) -> object:
    if isinstance(node, yaml.Scalar):
        return node.value
    if isinstance(node, yaml.Sequence):
        return [plain(item) for item in node.items]
    return {key: plain(value) for key, value in node.values.items()}


# Eleven were counted, in the longest of them.
CALLS_OF_A_BYTE_MAX = 20
HOSTILE = {
    "brackets": (b"[" * 100_000, "nested deeper than 16 levels"),
    "braces": (b"{" * 100_000, "a key is a word"),
    "dashes": (b"- " * 100_000, "nested deeper than 16 levels"),
    "indents": (b"".join(b" " * i + b"a:\n" for i in range(600)), "nested deeper"),
    "laughs": (b"a: &a [x, x]\nb: [*a, *a]\n", "anchors (&name) are not allowed"),
    "alias": (b"*" + b"a" * 250_000, "aliases (*name) are not allowed"),
    "NUL": (b"a: \0", "the character U+0000 must not be in a spec"),
    "NUL by escape": (b'a: "\\0"', "the character U+0000 must not be in a value"),
    "surrogate by escape": (b'a: "\\ud800"', "the character U+D800 must not be in a value"),
    "no character": (b'"\\U0FFFFFFF"', "this is not YAML"),
    "not UTF-8": (b"a: b\nc: \xff", "byte 0xff is not UTF-8"),
    "reordered text": ("a: \u202eb".encode(), "the character U+202E must not be in a spec"),
    "other line end": ("a: b\u2028c: d".encode(), "the character U+2028"),
    "huge": (b"x" * (limits.SPEC_BYTES_MAX + 1), "at most 256 KiB"),
    "items": (b"[" + b"a," * 130_000, "more than 10000 values"),
    "keys": (b"".join(b"k%d: v\n" % i for i in range(25_000)), "more than 10000 values"),
    "documents": (b"---\n" * 60_000, "a file holds one spec"),
    "directives": (b"%a b\n" * 50_000, "this is not YAML"),
    "version": (b"%YAML 1." + b"9" * 200_000 + b"\n---\na", "this is not YAML"),
    "tabs": (b"a:\n\tb: c", "indent with spaces"),
    "open quote": (b'"' + b"x " * 131_000, "this is not YAML"),
    "ampersands": (b"&" * 260_000, "this is not YAML"),
    "question marks": (b"? " * 130_000, "a key is a word"),
    "comments": (b"[" + b"#\n" * 130_000, "this is not YAML"),
    "blank lines": (b"a: x" + b"\n" * 260_000 + b"y", "this is not YAML"),
    "nothing": (b"", "the file is empty"),
    "UTF-16": ("muster: 1".encode("utf-16-le"), "save it as UTF-8"),
    "only a comment": (b"#" + b" x" * 131_000, "the file is empty"),
}


@proves("spec.hostile-text")
@pytest.mark.parametrize("name", HOSTILE)
@pytest.mark.timeout(30)
def test_hostile_bytes_are_refused_by_one_sentence_after_bounded_work(name):
    raw, sentence = HOSTILE[name]
    found = []
    assert calls(lambda: found.append(refusal(raw))) < CALLS_OF_A_BYTE_MAX * len(raw) + 1_000
    (problem,) = found
    assert sentence in problem.sentence
    assert problem.line >= 1
    assert problem.column >= 1
    assert len(problem.sentence) < 200
    assert problem.sentence.isprintable()


@proves("spec.hostile-text")
@pytest.mark.parametrize(
    "raw",
    [
        b"a: " + b"x" * 262_000,
        b"a: " + b"x " * 131_000,
        b"a: |\n" + b" x\n" * 87_000,
        b"a: >\n x\n" + b"\n" * 250_000 + b" y\n",
        b'"' + b"\\n" * 131_000 + b'"',
    ],
)
@pytest.mark.timeout(30)
def test_a_large_scalar_is_read_whatever_is_in_it_with_a_few_calls(raw):
    assert calls(lambda: yaml.read(raw)) < 500


@proves("spec.hostile-text")
def test_a_refusal_names_the_place_in_the_text():
    assert refusal(b"a: b\nc:\n  d: \xff")[:2] == (3, 6)
    assert refusal("ä: \0".encode())[:2] == (1, 4)
    assert refusal(b"a: 1\n\n b: 2")[:2] == (3, 3)
    assert refusal(b"[" * 17)[:2] == (1, 17)
    assert refusal(b"a: 1\nb: &x 2")[:2] == (2, 4)


@proves("spec.safe-yaml")
@pytest.mark.parametrize(
    ("raw", "sentence"),
    [
        (b"a: !!python/object:os.system x", "tags"),
        (b"a: !x b", "tags"),
        (b"a: ! b", "tags"),
        (b"a: !!str b", "tags"),
        (b"! [a]", "tags"),
        (b"a: &x b", "anchors"),
        (b"a: *x", "aliases"),
        (b"<<: {a: b}", "merge keys"),
        (b"%YAML 1.1\n---\na: b", "directives"),
        (b"%TAG ! x\n---\na: b", "directives"),
        (b"a: b\n---\nc: d", "one spec"),
        (b"a: b\n...\n---\nc: d", "one spec"),
        (b"a: b\nc: d\na: e", "there already in line 1"),
        (b'a: b\n"a": e', "there already in line 1"),
        (b"? [a]\n: b", "a key is a word"),
    ],
)
def test_what_could_mean_something_else_than_it_shows_is_refused(raw, sentence):
    assert sentence in refusal(raw).sentence


@proves("spec.plain-values")
@pytest.mark.parametrize(
    ("raw", "value"),
    [
        ("no", "no"),
        ("yes", "yes"),
        ("on", "on"),
        ("3.10", "3.10"),
        ("1e3", "1e3"),
        ("12:30:45", "12:30:45"),
        ("2026-11-20", "2026-11-20"),
        ("0x10", "0x10"),
        ("007", "007"),
        ("1_000", "1_000"),
        (".inf", ".inf"),
        ("=", "="),
        ("9" * 30, "9" * 30),
        ("7", 7),
        ("-7", -7),
        ("true", True),
        ("False", False),
        ("null", None),
        ("~", None),
        ("", None),
        ("'7'", "7"),
        ('"true"', "true"),
        ("''", ""),
        ("|\n  7", "7"),
    ],
)
def test_a_value_is_what_was_written(raw, value):
    result = plain(yaml.read(f"a: {raw}".encode()))
    assert result == {"a": value}
    assert type(result["a"]) is type(value)


@proves("spec.plain-values")
def test_a_key_is_text_whatever_it_looks_like():
    assert plain(yaml.read(b"on: a\n1: b\nnull: c")) == {"on": "a", "1": "b", "null": "c"}


def walk(node):
    yield node
    below = node.items if isinstance(node, yaml.Sequence) else getattr(node, "values", {})
    for each in below.values() if isinstance(below, dict) else below:
        yield from walk(each)


def test_every_node_knows_its_place():
    tree = yaml.read(b"\xef\xbb\xbfa: [x, {b: y}]\nc:\n  - |\n    z\n")
    places = [(node.line, node.column) for node in walk(tree)]
    assert places == [(1, 1), (1, 4), (1, 5), (1, 8), (1, 12), (3, 3), (3, 5)]


@proves("spec.hostile-text")
@settings(max_examples=300, deadline=None)
@given(st.text("ab:-[]{},#&*!|>'\"%@`?~<\n\t \\0\u00e9", max_size=200) | st.binary(max_size=200))
def test_any_bytes_give_a_tree_or_one_problem_inside_the_text(data):
    raw = data if isinstance(data, bytes) else data.encode()
    try:
        yaml.read(raw)
    except SpecErrors as errors:
        (problem,) = errors.problems
        assert 1 <= problem.line <= raw.count(b"\n") + raw.count(b"\r") + 2
        assert problem.sentence.isprintable()


def slowly(raw: bytes) -> object:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(yaml, "_QUICK", None)
        return outcome(raw)


def outcome(raw: bytes) -> object:
    try:
        return yaml.read(raw)
    except SpecErrors as error:
        return error.problems


def placed(read: object) -> object:
    """A tree without the places of what nobody wrote: `?` at the end has a value in both."""
    if isinstance(read, yaml.Scalar):
        return read if read.text or not read.plain else None
    if isinstance(read, yaml.Sequence):
        return (read.line, read.column, [placed(item) for item in read.items])
    if isinstance(read, yaml.Mapping):
        values = [(name, placed(value)) for name, value in read.values.items()]
        return (read.line, read.column, list(read.keys.values()), values)
    return read


PIECES = (
    *(
        "a",
        "b: ",
        "- ",
        ": ",
        " ",
        "\n",
        "\n  ",
        "\n    ",
        "\t",
        "\r\n",
        "\r",
        "|",
        ">",
        "|-",
        ">+",
        "2",
    ),
    *("[", "]", "{", "}", ",", ", ", "? ", "?", "#", " #", "---", "...", "%YAML 1.2\n", "%TAG ! x"),
    *(
        '"',
        "'",
        "\\",
        "\\n",
        "\\x41",
        "\\u00e9",
        "\\ud83d",
        "\\N",
        "\\_",
        "\ufeff",
        "é",
        "😀",
        "null",
    ),
    *("1", "x" * 1100, "k: |\n  ", "~", "<<", "&a", "*a", "!x", "!!str ", "=", "@", "`", "%", ":"),
)


@proves("spec.hostile-text")
@pytest.mark.skipif(yaml._QUICK is None, reason="this PyYAML was built without libyaml")
@settings(max_examples=500, deadline=None)
@given(st.lists(st.sampled_from(PIECES), max_size=24).map("".join))
@example("a: [b?]")
@example("a:\n  b: c\t")
@example("a: |-# c")
@example("{a: b?}")
def test_both_parsers_read_one_tree_or_refuse_with_the_same_words(text):
    raw = text.encode("utf-8")
    assert placed(outcome(raw)) == placed(slowly(raw))


@proves("spec.json-reads-as-yaml")
@given(
    st.recursive(
        st.sampled_from(
            (1, -5, 10**15, 10**17, True, None, 1.5, "", "a: b", "#x", "\t", '"', "é😀")
        ),
        lambda inner: (
            st.lists(inner, max_size=3)
            | st.dictionaries(st.sampled_from(("a", "<<", "- x", "x" * 1100)), inner, max_size=3)
        ),
        max_leaves=12,
    ),
    st.sampled_from((None, 0, 2)),
    st.booleans(),
)
@settings(max_examples=200, deadline=None)
def test_json_that_a_program_wrote_is_read_alike_by_both(value, indent, ascii_only):
    raw = json.dumps({"a": value}, indent=indent, ensure_ascii=ascii_only).encode()
    assert placed(outcome(raw)) == placed(slowly(raw))


@pytest.mark.skipif(yaml._QUICK is None, reason="this PyYAML was built without libyaml")
def test_a_spec_without_mistakes_needs_no_parser_in_python(monkeypatch):
    monkeypatch.setattr(yaml.yaml, "SafeLoader", None)
    for path in sorted((Path(__file__).parents[2] / "examples").glob("*.yaml")):
        assert yaml.read(path.read_bytes())
    assert yaml.read(
        json.dumps({"muster": 1, "name": "a", "phases": {"p": {"after": []}}}).encode()
    )


SLIPS = {
    "no colon": ("muster 1\nname: a", "line 1 has no colon; write it as name: value"),
    "no colon in the middle": ("muster: 1\nname a\nphases: {}", "line 2 has no colon"),
    "no colon above deeper lines": ("phases:\n  a\n    agent: shell", "line 2 has no colon"),
    "no space": ("muster:1\nname:a\nphases:\n  a: b", "line 2 has a colon without a space"),
    "too deep": ("muster: 1\n name: a", "indented deeper than line 1, which has a value already"),
    "too deep behind blank lines": ("muster: 1\n\n\n name: a", "indented deeper than line 1"),
    "not deep enough": ("a:\n    b: c\n   d: e", "begins in another column"),
    "colon in a value": ("a:\n  do: echo foo: bar", "stands in quotes, or below a"),
    "at": ("a: @b", "a value cannot begin with @; put it in quotes"),
    "backtick": ("a: `ls`", "a value cannot begin with `"),
    "percent": ("a: %b", "a value cannot begin with %"),
    "star": ("a: *.txt", "* and & have a meaning of their own before a value"),
    "exclamation mark": ("a: !test -s b", "or put the text in quotes"),
    "open brace": ("a: 1\nb: {c: d, e: f", "the { of line 2 is not closed"),
    "open bracket": ("a: 1\n\nb: [c, d", "the [ of line 3 is not closed"),
    "mark in braces": ("a: {b: c?}", "or a value in it needs quotes"),
    "open quote": ('a: "b\nc: d', "the quote of line 1 is not closed"),
    "quote that opens another": ('a: "b\nc: "d"', "look for a quote that is not closed before"),
    "tab": ("a:\n\tb: c", "a tab cannot indent a line"),
    "list beside its key": ("a: - b", "a list begins on the line below its key"),
    "escape": (r'a: "\d"', "or a \\ in it is no escape"),
}


@proves("spec.mistakes-say-the-mend")
@pytest.mark.parametrize("slip", SLIPS)
def test_what_people_mistype_is_named_with_its_line_and_its_mend(slip):
    raw, said = SLIPS[slip]
    assert said in refusal(raw.encode()).sentence


@proves("spec.hostile-text")
@settings(max_examples=300, deadline=None)
@given(st.text(alphabet="ab:{}[]\"'\\*&!@- \n\t", max_size=40))
def test_whatever_is_typed_is_read_or_refused_in_one_sentence(text):
    try:
        yaml.read(text.encode())
    except SpecErrors as error:
        (problem,) = error.problems
        assert problem.sentence
        assert "\n" not in problem.sentence
