"""From a text to a typed spec: every mistake, at its place."""

import re
import subprocess
import sys
from pathlib import Path

import msgspec
import pytest
from tests.promise import proves
from tests.task.specs import shown, text

from muster.duration import duration_ms, duration_of, wait_s
from muster.errors import Malformed
from muster.task import schema, yaml
from muster.task.budget import Budget, RunBudget
from muster.task.problem import SpecErrors
from muster.task.spec import (
    Delegate,
    May,
    Needs,
    On,
    Paths,
    Phase,
    Push,
    Remembering,
    Spec,
    Unless,
    parse,
    read,
)
from muster.task.units import path_refusal, size_mib

ROOT = Path(__file__).parents[2]
EXAMPLES = sorted((ROOT / "examples").glob("*.yaml"))


def problems(raw: bytes) -> list[str]:
    with pytest.raises(SpecErrors) as caught:
        parse(raw)
    return [shown(problem) for problem in caught.value.problems]


def test_the_example_of_the_decisions_is_read_as_meant():
    spec = parse((ROOT / "examples/release-notes.yaml").read_bytes())
    assert (spec.name, spec.repo, list(spec.phases)) == (
        "release-notes",
        "main",
        ["test", "notes", "sign-off"],
    )
    work = spec.phases["test"]
    assert work.needs == Needs(label="tests", tools={"python": ">=3.11"})
    assert (work.agents, work.deliverables, work.timeout_ms) == (
        ("shell",),
        ("report.txt",),
        600_000,
    )
    assert (work.retries, work.deadline_ms, work.by_human) == (2, 0, False)
    assert spec.phases["notes"].agents == ("claude", "shell")
    assert spec.phases["notes"].prerequisites == ("test",)
    assert spec.phases["sign-off"].by_human


@proves("spec.every-mistake", "spec.nearest-word")
def test_every_mistake_is_told_at_once_with_its_place():
    raw = b"""\
muster: 2
nme: x
phases:
  Test: {do: a}
  build:
    aftr: [x]
    timeout: 10
    retries: 99
    agent: {a: b}
    needs: {memory: 8, tools: {python: ~>3}, gpu: "1", pwer: mains}
    do: []
    by: humn
"""
    assert problems(raw) == [
        'x:1:9: muster: "2" is not 1, the only version that this Muster reads',
        'x:2:1: a spec has no key "nme"; did you mean "name"?',
        'x:4:3: phases: "Test" is not a name: 1 to 40 of a-z, 0-9 and -, not starting with -',
        'x:6:5: phases.build has no key "aftr"; did you mean "after"?',
        (
            'x:7:14: phases.build.timeout: "10" is not a duration; write a number and a unit, '
            "as 45s, 10m, 2h or 1h30m"
        ),
        "x:8:14: phases.build.retries is 99; it must be from 0 to 10",
        "x:9:12: phases.build.agent is a text, not a list or a mapping; put it in quotes",
        (
            'x:10:21: phases.build.needs.memory: "8" is not an amount of memory; write a number and '
            "a unit, as 512MiB or 8GiB"
        ),
        (
            'x:10:40: phases.build.needs.tools.python: "~>3" is not a range of versions; write '
            '">=3.11,<4", "3.x" or "*"'
        ),
        "x:10:51: phases.build.needs.gpu is a whole number from 1 to 64, without quotes",
        'x:10:56: phases.build.needs has no key "pwer"; did you mean "power"?',
        "x:11:9: phases.build.do is a text, not a list or a mapping; put it in quotes",
        'x:12:9: phases.build.by: "humn" is not human; did you mean "human"?',
    ]


@proves("spec.every-mistake")
def test_a_problem_has_the_path_of_what_is_wrong():
    with pytest.raises(SpecErrors) as caught:
        parse(text({"a": "after: [b, C]"}))
    assert [(p.path, p.line, p.column) for p in caught.value.problems] == [
        ("phases.a.after[1]", 8, 16)
    ]


@proves("spec.every-mistake")
def test_a_key_without_a_value_is_told():
    (told,) = problems(text({"a": "do: x\ntimeout:"}))
    assert "phases.a.timeout has no value" in told


@proves("spec.mistakes-say-the-mend")
@pytest.mark.parametrize(
    ("raw", "said"),
    [
        ("muster: '1'\nname: a", 'muster: "1" is not 1, without quotes'),
        ("muster: 1\nname:", "name has no value; give it one"),
        ("muster: 1\nname: a\nphases: {}", "phases is empty; give it a value"),
        ("muster: 1\nname: a\nphases:", "phases is empty; indent its names below it, as in"),
        ("muster: 1\nname: a\nphases:\n  a:", "phases.a is empty; indent its keys below it"),
        ("muster: 1\nname: a\nphases:\n  - a", "not a list: write name: value, without the -"),
        ("muster: 1\nname: a\nbase: ''", "base is empty; give it a value or leave the key out"),
        (
            "muster: 1\nname: a\nphases: {a: {agent: shell, do: x, check: [ -s x ]}}",
            "phases.a.check is a text, not a list or a mapping; put it in quotes",
        ),
    ],
)
def test_a_mistake_of_form_says_what_to_write_instead(raw, said):
    found = [each for each in problems(raw.encode()) if said in each]
    assert len(found) == 1
    assert ("leave the key out" in found[0]) == said.endswith("leave the key out")


@proves("spec.every-mistake")
def test_a_key_that_is_there_under_a_mistyped_name_is_not_missing_besides():
    told = problems(b"muster: 1\nnmae: x\nphases: {a: {agent: shell, doo: x, check: y}}")
    assert [each for each in told if "has no key" not in each] == []
    assert len(told) == 2


@proves("spec.every-mistake")
def test_a_file_of_nothing_but_mistakes_gives_a_hundred_of_them_quickly():
    raw = b"muster: 1\nname: x\n" + b"".join(b"aa%d: b\n" % i for i in range(4_000))
    assert len(problems(raw)) == 100


@pytest.mark.parametrize("root", [b"[a]", b"text", b"7"])
def test_a_file_that_is_no_mapping_is_refused(root):
    (told,) = problems(root)
    assert told.startswith("x:1:1: the spec is a mapping of keys to values, ")


@proves("spec.inside-repository")
@pytest.mark.parametrize(
    "path",
    [
        "/etc/passwd",
        "~/x",
        "~root/x",
        "C:\\x",
        "c:/x",
        "../x",
        "a/../../x",
        "a/./b",
        "a//b",
        ".",
        "..",
        ".git/config",
        ".GIT/config",
        "a/.git/hooks/x",
        ".git./x",
        "GIT~1/x",
        "-rf",
        "a\\b",
        "a:b",
        "a*",
        "a. /b",
        "x" * 201,
    ],
)
def test_a_deliverable_outside_the_repository_is_refused(path):
    quoted = path.replace("'", "''")
    told = problems(text({"a": f"deliver: ['{quoted}']"}))
    assert len(told) == 1
    assert "phases.a.deliver[0]" in told[0]


@proves("spec.inside-repository")
@pytest.mark.parametrize("path", ["a", "a/b.txt", "build/", ".github/x", "a b/ü.md", "git", "..a"])
def test_a_path_inside_the_repository_is_taken(path):
    assert path_refusal(path) == ""


@pytest.mark.parametrize(
    ("written", "ms"),
    [("45s", 45_000), ("10m", 600_000), ("1h30m", 5_400_000), ("2d", 172_800_000)],
)
def test_a_duration_is_counted_in_its_units(written, ms):
    assert parse(text({"a": f"timeout: {written}"})).phases["a"].timeout_ms == ms
    assert duration_ms(written) == ms
    assert (duration_of(written), wait_s(written)) == (ms, ms / 1000), "as a person types it"


@pytest.mark.parametrize("written", ["10", "", "m", "1.5h", "10m5", "30m1h", "-5m", "10 m", "1w"])
def test_a_duration_without_sense_is_refused(written):
    assert "timeout" in problems(text({"a": f"timeout: '{written}'"}))[0]
    assert duration_of(written) is None
    with pytest.raises(Malformed, match="no time to wait"):
        wait_s(written)


@pytest.mark.parametrize(
    ("written", "mib"), [("512MiB", 512), ("8GiB", 8192), ("8G", 8192), ("1TB", 1_048_576)]
)
def test_an_amount_of_memory_is_counted_in_its_unit(written, mib):
    assert size_mib(written) == mib
    assert parse(text({"a": f"needs: {{memory: {written}}}"})).phases["a"].needs.memory_mib == mib


def test_a_variable_of_muster_itself_cannot_be_set():
    assert "MUSTER_X" in problems(text({"a": "env: {MUSTER_X: y}"}))[0]


def test_what_looks_like_a_number_is_text_where_text_is_wanted():
    spec = parse(text({"a": "env: {PORT: 8080, FLAG: no, OLD: 3.10, NONE: }"}))
    assert spec.phases["a"].env == {"PORT": "8080", "FLAG": "no", "OLD": "3.10", "NONE": ""}


def test_the_place_of_everything_is_known():
    document = read(text({"a": "timeout: 5m"}))
    assert document.places["phases.a.timeout"] == (8, 14)
    assert document.problem("phases.a.nothing.here", "x")[:2] == (5, 5)


# --- the types, the schema, the reader


@proves("spec.one-form")
def test_the_published_schema_is_the_generated_one():
    published = (ROOT / "src/muster/task/spec.schema.json").read_text(encoding="utf-8")
    assert published == schema.text(), (
        "run: python -c \"from muster.task import schema; print(schema.text(), end='')\" "
        "> src/muster/task/spec.schema.json"
    )


@proves("spec.one-form")
def test_every_key_has_a_sentence_in_the_schema_and_in_the_docs():
    docs = (ROOT / "docs/spec/spec.md").read_text(encoding="utf-8")
    for name, keys in schema.KEYS.items():
        fields = {field.encode_name for field in msgspec.structs.fields(_types()[name])}
        assert set(keys) == fields
        for key, sentence in keys.items():
            assert f"| `{key}` | {sentence} |" in docs, f"docs/spec/spec.md lacks {name}.{key}"


def _types() -> dict[str, type]:
    types = (Spec, On, Push, Phase, May, Delegate, Needs, Unless, Remembering, Budget, RunBudget)
    types = (*types, Paths)
    return {each.__name__: each for each in types}


def as_json(node: yaml.Node) -> object:
    if isinstance(node, yaml.Scalar):
        return node.value
    if isinstance(node, yaml.Sequence):
        return [as_json(item) for item in node.items]
    return {key: as_json(value) for key, value in node.values.items()}


KNOWN = {
    "$ref", "$defs", "$schema", "title", "description", "default", "type", "enum", "anyOf",
    "pattern", "minLength", "maxLength", "minimum", "maximum", "items", "minItems", "maxItems",
    "properties", "required", "additionalProperties", "propertyNames", "minProperties",
    "maxProperties",
}  # fmt: skip


def fits(value: object, rule: dict, root: dict) -> bool:
    """The part of JSON Schema that our schema uses; another keyword fails the test."""
    assert set(rule) <= KNOWN, set(rule) - KNOWN
    if "$ref" in rule and not fits(value, root["$defs"][rule["$ref"].split("/")[-1]], root):
        return False
    if "anyOf" in rule and not any(fits(value, choice, root) for choice in rule["anyOf"]):
        return False
    if "enum" in rule and value not in rule["enum"]:
        return False
    kinds = {"object": dict, "array": list, "string": str, "integer": int}
    if "type" in rule and type(value) is not kinds[rule["type"]]:
        return False
    if isinstance(value, str):
        return re.search(rule.get("pattern", ""), value) is not None and rule.get(
            "minLength", 0
        ) <= len(value) <= rule.get("maxLength", 10**9)
    if isinstance(value, int):
        return rule.get("minimum", value) <= value <= rule.get("maximum", value)
    if isinstance(value, list):
        return rule.get("minItems", 0) <= len(value) <= rule.get("maxItems", 10**9) and all(
            fits(item, rule.get("items", {}), root) for item in value
        )
    if isinstance(value, dict):
        return _object_fits(value, rule, root)
    return True


def _object_fits(value: dict, rule: dict, root: dict) -> bool:
    more = rule.get("additionalProperties", {})
    named = rule.get("properties", {})
    if not set(rule.get("required", ())) <= set(value):
        return False
    if not rule.get("minProperties", 0) <= len(value) <= rule.get("maxProperties", 10**9):
        return False
    for key, item in value.items():
        if not fits(key, rule.get("propertyNames", {}), root):
            return False
        if key not in named and more is False:
            return False
        if not fits(item, named.get(key, more), root):
            return False
    return True


@proves("spec.one-form")
@pytest.mark.parametrize("file", EXAMPLES, ids=lambda file: file.name)
def test_every_example_fits_the_schema_and_is_read(file):
    tree = as_json(yaml.read(file.read_bytes()))
    root = schema.schema()
    assert fits(tree, root, root)
    assert msgspec.to_builtins(parse(file.read_bytes())) == tree


@proves("spec.one-form")
@pytest.mark.parametrize(
    "body",
    [
        "nothing: x",
        "retries: 11",
        "retries: -1",
        "retries: '1'",
        "race: 1",
        "race: 9",
        "timeout: 10",
        "after: [A]",
        "agent: []",
        "deliver: []",
        "by: machine",
        "needs: {gpu: 0}",
        "needs: {memory: 8}",
        "needs: {power: battery}",
        "env: {lower: x}",
        "budget: {tokens: 0}",
        "budget: {usd: '1.234'}",
        "priority: 11",
        "needs: []",
        "check:",
    ],
)
def test_what_the_reader_refuses_the_schema_refuses_too(body):
    raw = text({"a": f"do: x\n{body}"})
    assert problems(raw)
    root = schema.schema()
    assert not fits(as_json(yaml.read(raw)), root, root)


def test_reading_specs_does_not_kill_the_interpreter():
    """msgspec 0.22 counts references wrongly for a text with a pattern beside a list."""
    program = (
        "import sys; from muster.task.spec import Spec, parse; from muster.task import schema\n"
        "schema.text(); [parse(open(f, 'rb').read()) for f in sys.argv[1:]]"
    )
    for _ in range(4):
        done = subprocess.run(
            [sys.executable, "-c", program, *map(str, EXAMPLES)], capture_output=True, check=False
        )
        assert (done.returncode, done.stderr) == (0, b"")
