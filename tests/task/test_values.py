"""Values of earlier phases: text in prompts, variables in the shell, never source."""

import subprocess

import pytest
from tests.promise import proves
from tests.task.specs import text

from muster.errors import Malformed, NotFound
from muster.limits import VALUE_BYTES_MAX, VARIABLE_BYTES_MAX
from muster.task.spec import parse
from muster.task.template import (
    given_inputs,
    largest_order,
    phase_order,
    push_refusal,
    size_refusal,
)
from muster.task.values import (
    PHASE_VALUES,
    Reference,
    bounded,
    command,
    environment,
    misspelt,
    prompt,
    references,
    uses,
    variable,
)

HOSTILE = [
    "$(rm -rf /)",
    "`id`",
    "'; id; '",
    '"; id; "',
    "a\nid\n",
    "\\",
    "${MUSTER_TEST_STATUS}",
    "${test.commit}",
    "* ? [a-z]",
    "a  b",
    "-n",
    "$IFS",
    "&& id",
    "a[$(id)]",
    "ü\u202e",
    "",
]


def shell(script: str, values: dict) -> str:
    done = subprocess.run(
        ["/bin/sh", "-c", command(script)],
        env=environment([script], values),
        capture_output=True,
        text=True,
        check=True,
    )
    return done.stdout


@proves("spec.no-injection")
@pytest.mark.parametrize("value", HOSTILE)
@pytest.mark.parametrize(
    ("script", "frame"),
    [
        ('printf %s "$MUSTER_TEST_SUMMARY"', "{}"),
        ('printf %s "<${MUSTER_TEST_SUMMARY}>"', "<{}>"),
        ('printf %s "$(printf %s "${MUSTER_TEST_SUMMARY}x")"', "{}x"),
        ('x=$MUSTER_TEST_SUMMARY; printf %s "$x"', "{}"),
    ],
)
def test_a_shell_gets_exactly_the_value_and_never_runs_it(script, frame, value):
    assert shell(script, {"test": {"summary": value}}) == frame.format(value)


@proves("spec.no-injection")
@pytest.mark.parametrize(
    ("script", "variable"),
    [
        ("echo ${a.summary}", "$MUSTER_A_SUMMARY"),
        ("echo '${sign-off.summary}'", "$MUSTER_SIGN_OFF_SUMMARY"),
        ("# ${run.id}", "$MUSTER_RUN_ID"),
        ("ls ${each.path}", "$MUSTER_EACH_PATH"),
        ("echo $${inputs.tag-name}", "$MUSTER_INPUTS_TAG_NAME"),
    ],
)
def test_a_reference_in_shell_source_does_not_run_and_the_variable_is_named(script, variable):
    with pytest.raises(Malformed) as caught:
        command(script)
    assert str(caught.value).endswith(f'where a value is a variable: write "{variable}"')


def test_source_without_references_is_byte_for_byte_what_was_signed():
    script = "for f in *.c; do cc -o \"${f%.c}\" '$f'; done <<EOF\n$(x) `y` ${Z:-a.b}\nEOF"
    assert command(script) == script
    assert command("echo a\r\necho b") == "echo a\necho b"


@proves("spec.no-injection")
def test_a_value_in_a_prompt_is_text_and_is_not_read_again():
    values = {"a": {"summary": "${b.commit} $(id)"}, "b": {"commit": "c0ffee"}}
    assert prompt("${a.summary} on ${b.commit}", values) == "${b.commit} $(id) on c0ffee"
    assert prompt("$${a.summary} ${HOME} $x", values) == "${a.summary} ${HOME} $x"


def test_a_value_of_a_phase_that_is_not_known_is_refused_and_one_it_did_not_yield_is_empty():
    for ref, values in (("a.summary", {}), ("a.summary", {"a": {}}), ("a.x", {"a": {"x1": "y"}})):
        with pytest.raises(Malformed, match="has no value"):
            prompt(f"${{{ref}}}", values)
        with pytest.raises(Malformed, match="has no value"):
            environment([f"echo ${{{ref}}}"], values)
    values = {"a": {"status": "done"}}
    assert prompt("<${a.summary}>", values) == "<>"
    assert environment(["echo ${a.usage}"], values) == {
        "MUSTER_A_STATUS": "done",
        "MUSTER_A_USAGE": "",
    }


@proves("node.secret-is-no-value")
def test_a_value_that_was_withheld_is_refused_where_it_is_named_and_absent_elsewhere():
    values = {
        "a": {
            "summary": "[TOKEN]",
            "output": "key [TOKEN]",
            "withheld": "summary output",
            "status": "done",
        }
    }
    for used in (prompt, lambda text, known: environment([text], known)):
        with pytest.raises(Malformed, match="held a secret of the machine"):
            used("it said ${a.output}", values)
    assert environment(["true"], values) == {"MUSTER_A_STATUS": "done"}
    assert prompt("${a.status}", values) == "done"


@proves("spec.bounded-values")
def test_a_value_with_nul_is_refused_for_prompt_and_shell():
    values = {"a": {"summary": "x\0y"}}
    with pytest.raises(Malformed, match=r"a\.summary contains a NUL"):
        prompt("${a.summary}", values)
    with pytest.raises(Malformed, match=r"a\.summary contains a NUL"):
        environment(["echo ${a.summary}"], values)


@proves("spec.bounded-values")
def test_a_value_is_whole_up_to_the_bound_and_refused_by_name_beyond():
    whole = "ä" * (VALUE_BYTES_MAX // 2)
    assert bounded("a", "output", whole) == whole
    with pytest.raises(
        Malformed, match=r"\$\{a.output\} has 1048577 bytes, and 1048576 is the most"
    ):
        bounded("a", "output", whole + "x")


@proves("spec.bounded-values")
@pytest.mark.parametrize("script", ["wc $MUSTER_A_OUTPUT", '"${MUSTER_A_OUTPUT}"'])
def test_source_that_names_what_no_variable_can_hold_is_told_of_the_file(script):
    values = {"a": {"output": "x" * (VARIABLE_BYTES_MAX - len("MUSTER_A_OUTPUT") - 2)}}
    assert "MUSTER_A_OUTPUT" in environment([script], values)
    command(script, values)
    values["a"]["output"] += "x"
    with pytest.raises(Malformed, match=r"from the file that .MUSTER_A_OUTPUT_FILE names"):
        command(script, values)
    assert "MUSTER_A_OUTPUT" not in environment([script], values)


@proves("spec.bounded-values")
def test_the_longest_variable_that_is_allowed_can_be_handed_to_a_program():
    values = {"a": {"output": "x" * (VARIABLE_BYTES_MAX - len("MUSTER_A_OUTPUT") - 2)}}
    assert shell('printf %s "$MUSTER_A_OUTPUT" | wc -c', values).strip() == str(
        len(values["a"]["output"])
    )


@proves("spec.bounded-values")
def test_more_values_than_a_program_can_be_handed_are_refused_together():
    values = {f"p{n}": {"output": "x" * 100_000, "summary": "s"} for n in range(6)}
    with pytest.raises(Malformed, match="as variables, and 524288 is the most"):
        environment([f"echo ${{p{n}.output}}" for n in range(6)], values)


@proves("spec.bounded-values")
def test_a_long_value_that_is_not_named_costs_nobody_anything():
    values = {"a": {"summary": "x" * 2_000_000, "status": "done"}}
    assert environment(["make"], values) == {"MUSTER_A_STATUS": "done"}


def test_the_texts_of_a_phase_say_which_values_it_is_given():
    used = uses(["echo ${a.output} $MUSTER_B_C_USAGE", "cat $MUSTER_A_TESTS_FILE"])
    given = {(n, v) for n in ("a", "b-c", "d") for v in PHASE_VALUES if used.takes(n, v)}
    always = {(n, v) for n in ("a", "b-c", "d") for v in ("branch", "commit", "status", "summary")}
    assert given == always | {("a", "output"), ("b-c", "usage"), ("a", "tests")}
    assert used.as_file("a", "tests")
    assert not used.as_file("a", "output")
    assert not used.names("a", "summary")


@proves("spec.bounded-values")
def test_what_steers_a_terminal_is_replaced():
    assert bounded("a", "summary", "a\x1b[2Jb\r\nc\td\ud800") == "a\ufffd[2Jb\nc\td\ufffd"


@proves("spec.bounded-values")
def test_a_prompt_that_repeats_a_long_value_ends_before_it_fills_the_memory():
    with pytest.raises(Malformed, match="the prompt is over"):
        prompt("${a.output}" * 1_000, {"a": {"output": "ä" * 16_000}})


def test_a_shell_gets_short_values_and_what_it_names():
    values = {
        "a": {"summary": "s", "output": "o", "usage": "u"},
        "each": {"path": "p"},
        "inputs": {"x": "y"},
        "run": {"id": "1", "name": "n"},
    }
    always = {
        "MUSTER_A_SUMMARY": "s",
        "MUSTER_EACH_PATH": "p",
        "MUSTER_INPUTS_X": "y",
        "MUSTER_RUN_ID": "1",
        "MUSTER_RUN_NAME": "n",
    }
    assert environment(["make"], values) == always
    assert environment(["echo $MUSTER_A_OUTPUT"], values) == {**always, "MUSTER_A_OUTPUT": "o"}
    assert environment(["echo ${a.usage}"], values) == {**always, "MUSTER_A_USAGE": "u"}


def test_no_two_values_share_a_variable():
    names = ["a", "a-b", "b", "sign-off", "summary", "a-summary"]
    pairs = [(name, value) for name in names for value in PHASE_VALUES]
    assert len({variable(*pair) for pair in pairs}) == len(pairs)


def test_references_are_found_once_and_misspelt_ones_apart():
    told = "${a.summary} ${a.summary} ${sign-off.branch} $${x.y} ${HOME} ${f%.c} ${ b.status }"
    assert references(told) == [Reference("a", "summary"), Reference("sign-off", "branch")]
    assert misspelt(told) == ["${ b.status }"]


# --- the order of a phase

SPEC = text(
    {
        "a": "timeout: 1m",
        "b": "after: a\ndo: x ${a.summary} ${inputs.word}\nagent: [claude, shell]\ndeliver: N.md\n"
        "needs: {memory: 2GiB, label: x}\nbudget: {tokens: 5, usd: '1.5'}",
        "c": "each: s/*\ndo: x ${each.path}\nagent: claude\ndeliver: '${each.path}/R.md'",
        "d": "race: 2\ndo: x\nagent: claude\ncheck: y",
        "e": "by: human\ndo: look",
    },
    "repo: main\ninputs: {word: hello, other: no}",
)


@proves("spec.same-order")
def test_an_order_is_what_the_text_says_and_nothing_else():
    spec = parse(SPEC)
    assert phase_order(spec, "b") == {
        "v": 1,
        "spec": "trial",
        "phase": "b",
        "do": "x ${a.summary} ${inputs.word}",
        "after": ["a"],
        "agent": ["claude", "shell"],
        "needs": {"memory": "2GiB", "label": "x"},
        "deliver": ["N.md"],
        "timeout_ms": 1_800_000,
        "budget": {"tokens": 5, "usd_millionths": 1_500_000},
        "repo": "main",
        "inputs": {"word": "hello"},
    }
    assert phase_order(spec, "b", inputs={"word": "bye"})["inputs"] == {"word": "bye"}
    assert phase_order(spec, "c", "s/x")["deliver"] == ["s/x/R.md"]
    assert phase_order(spec, "d", "2")["instance"] == "2"
    assert phase_order(spec, "e") == {
        "v": 1,
        "spec": "trial",
        "phase": "e",
        "do": "look",
        "by": "human",
        "repo": "main",
    }
    assert all(size_refusal(spec, largest_order(spec, name, {}), {}) == "" for name in "abe")


@proves("spec.same-order")
def test_the_same_text_gives_the_same_order_and_a_changed_one_another():
    assert phase_order(parse(SPEC), "b") == phase_order(parse(SPEC), "b")
    commented = SPEC.replace(b"phases:", b"phases:   # nothing\n")
    assert phase_order(parse(commented), "b") == phase_order(parse(SPEC), "b")
    for old, new in ((b"x ${a", b"y ${a"), (b"2GiB", b"3GiB"), (b"N.md", b"O.md")):
        assert phase_order(parse(SPEC.replace(old, new)), "b") != phase_order(parse(SPEC), "b")


@proves("spec.same-order")
@pytest.mark.parametrize(
    ("phase", "instance"),
    [
        ("c", ""),
        ("c", "../x"),
        ("c", "/x"),
        ("c", "${a.b}"),
        ("d", ""),
        ("d", "0"),
        ("d", "3"),
        ("d", "01"),
        ("a", "1"),
        ("c", "a\nb"),
        ("c", ".git/hooks"),
    ],
)
def test_an_instance_that_the_phase_does_not_have_is_refused(phase, instance):
    with pytest.raises(Malformed):
        phase_order(parse(SPEC), phase, instance)


@proves("spec.inputs")
@pytest.mark.parametrize(
    ("given", "sentence"),
    [
        ({"wrd": "x"}, 'no input "wrd"; did you mean "word"'),
        ({"": "x"}, 'no input ""; it has word'),
        ({"qq\n": "x"}, 'no input "qq�"; it has word'),
        ({"word": 1}, "names to texts"),
        ({"word": None}, "names to texts"),
        ({"word": ["x"]}, "names to texts"),
        ([], "names to texts"),
        ("word=x", "names to texts"),
        ({"word": "x\0"}, "control character"),
        ({"word": "\x1b[2J"}, "control character"),
        ({"word": "\ud800"}, "control character"),
        ({"word": "x" * 60_000}, "takes 60002 bytes, at most 16384; put it into a file"),
        ({"word": '"' * 10_000}, "takes 20002 bytes"),
    ],
)  # fmt: skip
def test_what_a_run_is_given_and_cannot_take_is_refused_with_the_names_there_are(given, sentence):
    spec = parse(text({"a": ""}, "inputs: {word: hello}"))
    with pytest.raises(Malformed) as caught:
        given_inputs(spec, given)
    assert sentence in str(caught.value)


@proves("spec.inputs")
@pytest.mark.parametrize("word", ["", "x", "a\tb\n", "a\r\nb", "é" * 5_000, "${a.b}", "$(rm x)"])
def test_any_text_of_bounded_size_may_be_given(word):
    spec = parse(text({"a": ""}, "inputs: {word: hello}"))
    assert given_inputs(spec, {"word": word}) == {"word": word}


def test_an_order_of_no_phase_or_with_no_input_of_the_spec_is_refused():
    with pytest.raises(NotFound):
        phase_order(parse(SPEC), "z")
    with pytest.raises(Malformed, match='has no input "wrd"'):
        phase_order(parse(SPEC), "b", inputs={"wrd": "x"})


@proves("task.values-named")
def test_a_phase_depends_on_the_phases_that_it_names_and_on_no_other():
    phases = ["build", "sign-off", "far"]
    assert uses(["make test", "echo $HOME"]).sources(phases) == set()
    assert uses(["say ${build.summary}", "${far.commit}"]).sources(phases) == {"build", "far"}
    assert uses(['echo "$MUSTER_SIGN_OFF_SUMMARY"']).sources(phases) == {"sign-off"}
    assert uses(["echo $MUSTER_FARTHER_SUMMARY $${build.summary}"]).sources(phases) == set()


@proves("spec.push")
def test_a_run_for_a_push_has_one_and_starts_from_its_commit():
    spec = parse(text({"a": ""}, 'repo: main\non: {push: {branches: [main, "f/*"]}}'))
    assert spec.pushes == ("main", "f/*")
    pushed = {"push-branch": "main", "push-commit": "c" * 40, "push-before": ""}
    assert given_inputs(spec, pushed) == pushed
    assert push_refusal(spec, "c" * 40, pushed) == ""
    assert "leave --base out" in push_refusal(spec, "", pushed)
    assert "--push BRANCH" in push_refusal(spec, "", {})
    assert push_refusal(parse(text({"a": ""})), "", {}) == ""
    assert parse(text({"a": ""}, "repo: main\non: push")).pushes == ("**",)
