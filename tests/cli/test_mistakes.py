"""What people mistype: options twice, without a value, for another action, unknown, too many."""

import pytest

from muster.cli import parse
from muster.verbs.table import VERBS
from tests.cli.world import muster
from tests.promise import proves

WITH_VALUES = [
    (verb, arg)
    for verb in VERBS.values()
    for arg in verb.args
    if not verb.hidden and not arg.position and arg.kind in ("text", "int")
]


def refused(*words: str) -> str:
    with pytest.raises(parse.Usage) as error:
        parse.parse(words)
    return str(error.value)


def _needed(verb):
    """Words that the verb itself is content with, so that only the option is wrong."""
    for arg in verb.args:
        if arg.position and arg.required and arg.kind != "file":
            yield arg.choices[0] if arg.choices else "x"
        elif arg.position and arg.required:
            yield "/dev/null"


@proves("cli.said-once")
@pytest.mark.parametrize(("verb", "arg"), WITH_VALUES, ids=lambda each: each.name)
def test_no_option_counts_by_its_last_value_and_none_is_empty_by_mistake(verb, arg):
    words, value = [verb.name, *_needed(verb)], next(filter(None, arg.choices or ("1",)))
    assert f"--{arg.name} is given twice" in refused(
        *words, f"--{arg.name}", value, f"--{arg.name}={value}"
    )
    if arg.kind == "int":
        assert "'' is no whole number" in refused(*words, f"--{arg.name}", "")
    elif arg.choices:
        assert "invalid choice: ''" in refused(*words, f"--{arg.name}", "")
    elif arg.name not in ("listen", "reason", "note"):
        assert f"--{arg.name} is empty" in refused(*words, f"--{arg.name}", "")


@proves("cli.usage")
@pytest.mark.parametrize(
    ("words", "says"),
    [
        (("pause",), "muster pause build"),
        (("drain",), "muster drain build"),
        (("notify", "list"), "notify acts on the machine it is typed on"),
    ],
    ids=lambda each: " ".join(each) if isinstance(each, tuple) else "",
)
def test_a_verb_that_names_its_machine_says_so_where_it_is_given_on(tmp_path, words, says):
    said = muster(tmp_path / "none", *words, "--on", "build")
    assert (said.code, says in said.err) == (3, True), said


@proves("cli.said-once")
def test_an_empty_on_or_home_is_not_this_machine(tmp_path):
    """`muster down --on "$HOST"` where HOST was never set."""
    assert "--on is empty" in refused("down", "--on", "")
    assert "--home is empty" in refused("status", "--home=")
    assert "--home is given twice" in refused("--home", "a", "status", "--home", "b")
    said = muster(tmp_path / "home", "init", "--name", "", "--listen", "")
    assert (said.code, "--name is empty" in said.err) == (2, True)
    assert not (tmp_path / "home").exists()


@proves("cli.usage")
@pytest.mark.parametrize(
    ("words", "says"),
    [
        (["operator", "revoke"], "operator revoke needs NAME"),
        (["operator", "add"], "operator add needs NAME"),
        (["device", "add"], "device add needs WHAT"),
        (["device", "join"], "device join needs WHAT"),
        (["audit", "explain"], "audit explain needs WHAT"),
        (["audit", "export"], "audit export needs WHAT"),
        (["repo", "add"], "repo add needs NAME"),
        (["repo", "add", "main"], "repo add needs PATH"),
        (["send", "build", ""], "TEXT is empty"),
        (["send", "build", "  "], "TEXT is empty"),
        (["ask", ""], "INTENTION is empty"),
    ],
)
def test_a_word_that_is_missing_is_a_mistake_of_the_words_whatever_the_verb(words, says):
    assert says in refused(*words)


@proves("cli.usage")
@pytest.mark.parametrize(
    ("words", "says"),
    [
        (["operator", "list", "bob"], "operator list takes no NAME"),
        (["operator", "key", "--here"], "operator key takes no --here"),
        (["operator", "add", "bob", "--last"], "for `muster operator revoke`"),
        (["device", "list", "--days", "365"], "device list takes no --days"),
        (["device", "revoke", "build", "--may", "run"], "device revoke takes no --may"),
        (["repo", "list", "main"], "repo list takes no NAME"),
        (["audit", "explain", "t", "--file", "x"], "audit explain takes no --file"),
    ],
)
def test_what_belongs_to_another_action_is_not_passed_over(words, says):
    assert says in refused(*words)


@proves("cli.usage")
@pytest.mark.parametrize(
    ("words", "says"),
    [
        (["init", "--nmae", "x"], "no option '--nmae'; did you mean `--name`"),
        (["run", "x", "--detatch=1"], "did you mean `--detach`"),
        (["invite", "build", "tests"], "'tests' is one word too many"),
        (["send", "build", "-x"], "a text that begins with - stands behind --"),
        (["tasks", "--limit", "x"], "'x' is no whole number"),
        (["tasks", "--limit", "9" * 20], "no whole number of at most 15 digits"),
        (["acknowledge"], "are required: INCIDENT;"),
    ],
)
def test_an_unknown_option_a_word_too_many_and_no_number_are_named(words, says):
    assert says in refused(*words)
    assert refused(*words).count("\n") == 0


@proves("cli.on-others")
@pytest.mark.parametrize("verb", [["down"], ["rerun", "r"], ["ask", "x"], ["takeover", "t"]])
@pytest.mark.parametrize("many", ["all", "label=tests"])
def test_what_goes_to_one_machine_is_not_offered_to_many_and_says_so(verb, many):
    assert f"{verb[0]} goes to one machine" in refused(*verb, "--on", many)
    assert parse.parse([*verb, "--on", "allan"]).on == "allan"
    with pytest.raises(parse.Shown) as shown:
        parse.parse([verb[0], "--help"])
    assert "label=NAME" not in str(shown.value)


@proves("cli.usage")
def test_a_text_may_begin_with_a_dash_behind_two():
    assert parse.parse(["send", "build", "--", "-x", "y"]).args["text"] == ["-x", "y"]


@proves("cli.zero-is-an-argument")
def test_no_rows_are_no_list(tmp_path):
    assert parse.parse(["tasks", "--limit", "0"]).args["limit"] == 0
