"""What a spec may say of secrets, what a fact says of them, and where such a phase goes."""

from types import SimpleNamespace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tests.promise import proves
from tests.task.specs import text
from tests.task.test_check import told
from tests.task.world import BUILD, STUDIO, machine

from muster.errors import Malformed
from muster.node.tasks.run import Run
from muster.task.delegation import Bounds, refusal
from muster.task.kinds import RunOpen
from muster.task.queue import Queue
from muster.task.route import Fleet, judge, wants_of
from muster.task.secret import Grant, Wanted, check_name, facts_of, lack, wanted_of
from muster.task.spec import parse
from muster.task.template import phase_order
from muster.task.trust import NOTHING_KNOWN

ORDER = {"agent": "shell", "spec": "release", "phase": "publish", "secrets": ["DEPLOY_TOKEN"]}
GRANT = Grant("shell", "release", "publish")
FACTS = facts_of([("DEPLOY_TOKEN", GRANT)])


def granting(id=BUILD, *grants, **facts):
    tools = {"git": "2", **facts_of(("DEPLOY_TOKEN", grant) for grant in grants)}
    return machine(id, tools=tools, **facts)


@proves("secret.goes-where-granted")
def test_a_phase_with_a_secret_goes_to_machines_that_granted_it_to_that_very_work():
    wants = wants_of(ORDER)
    why = "shell is not granted the secret DEPLOY_TOKEN there for release/publish"
    assert judge(wants, machine(BUILD)).reasons == (why,)
    assert judge(wants, granting(BUILD, GRANT)).fits
    for odd in ("*****/release/publish", "shell/release", "sh.*/release/publish", "/".join("****")):
        assert not judge(wants, machine(BUILD, tools={f"secret:DEPLOY_TOKEN/{odd}": ""})).fits
    for other in (Grant("claude", "release", "publish"), Grant("shell", "nightly", "*"),
                  Grant("shell", "release", "test")):  # fmt: skip
        assert judge(wants, granting(BUILD, other)).reasons == (why,)
    for wide in (Grant("*", "*", "*"), Grant("sh*", "*lease", "p*b*sh")):
        assert judge(wants, granting(BUILD, wide)).fits
    # Each of several, by a grant of its own.
    both = {**ORDER, "secrets": ["DEPLOY_TOKEN", "OTHER"]}
    assert "the secret OTHER" in judge(wants_of(both), granting(BUILD, GRANT)).reasons[0]


@proves("secret.goes-where-granted")
def test_of_several_agents_the_one_that_was_granted_it_is_asked():
    wants = wants_of({**ORDER, "agent": ["claude", "codex"]})
    both = {"agents": {"claude": "1", "codex": "1"}}
    found = judge(wants, granting(BUILD, Grant("codex", "release", "*"), **both))
    assert (found.fits, found.agent) == (True, "codex")


@proves("secret.goes-where-granted")
def test_the_queue_tells_apart_what_is_granted_by_spec_and_phase():
    queue = Queue(lambda *_: NOTHING_KNOWN)
    queue.machine_up(granting(BUILD, GRANT))
    queue.machine_up(granting(STUDIO))
    mine = queue.group(ORDER, "")
    other = queue.group({**ORDER, "phase": "test"}, "")
    none = {key: value for key, value in ORDER.items() if key != "secrets"}
    assert len({mine, other, queue.group(none, "")}) == 3
    assert queue.group({**none, "phase": "test"}, "") == queue.group(none, "")
    queue.add("a", other, (0, 1, 1))
    queue.add("b", mine, (0, 2, 2))
    choice = queue.next()
    assert choice is not None
    assert (choice.task, choice.verdict.machine) == ("b", BUILD)


@proves("secret.goes-where-granted")
def test_check_says_before_the_run_that_no_machine_grants_it():
    raw = text({"publish": "agent: shell\ndo: x\ncheck: y\nsecrets: DEPLOY_TOKEN"})
    (sentence,) = told(raw, fleet=Fleet([granting(BUILD)], None, {}))
    assert "is not granted the secret DEPLOY_TOKEN" in sentence
    spec = parse(raw)
    assert phase_order(spec, "publish")["secrets"] == ["DEPLOY_TOKEN"]
    well = Fleet([granting(BUILD, Grant("shell", spec.name, "publish"))], None, {})
    assert told(raw, fleet=well) == []


@proves("secret.goes-where-granted")
@pytest.mark.parametrize(("more", "newer"), [("", False), ("\nsecrets: TOKEN", True)])
def test_no_other_phase_of_such_a_run_goes_to_a_machine_that_cannot_read_its_spec(more, newer):
    spec = parse(text({"a": f"agent: shell\ndo: x\ncheck: y{more}"}))
    body = RunOpen("a" * 32, spec.name, "", statement="00")
    run: Any = SimpleNamespace(spec=spec, handed_on=None, adopted=None, is_held=False, body=body)
    assert Run.is_newer.fget(run) is newer  # type: ignore[attr-defined]


@proves("secret.in-a-spec")
def test_a_spec_says_names_of_secrets_and_nothing_else():
    well = text({"a": "agent: shell\ndo: x\ncheck: y\nsecrets: [DEPLOY_TOKEN, B_2]"})
    assert told(well) == []
    for value in ("{A: b}", "deploy", "[[A]]", "A B", "MUSTER_CAPABILITY", "A=b", "[]", "A/*"):
        assert told(text({"a": f"agent: shell\ndo: x\ncheck: y\nsecrets: {value}"})), value


@proves("secret.in-a-spec")
@pytest.mark.parametrize(
    ("more", "says"),
    [
        ("agent: shell\ndo: x\ncheck: y\nsecrets: TOKEN\nenv: {TOKEN: abc}", "env sets, too"),
        ("agent: shell\ndo: x\ncheck: y\nsecrets: PATH", "every program needs"),
        ("by: human\ndo: x\nsecrets: TOKEN", "phases.a.secrets"),
    ],
)
def test_a_secret_that_makes_no_sense_in_its_phase_is_said(more, says):
    assert [p for p in told(text({"a": more})) if says in p]


@proves("secret.in-a-spec")
@pytest.mark.parametrize("value", [["PATH"], ["a b"], {"A": "b"}, "A", [1], ["MUSTER_SOCK"]])
def test_an_order_that_no_spec_yields_is_refused(value):
    with pytest.raises(Malformed):
        wanted_of({**ORDER, "secrets": value})


@proves("secret.not-handed-on")
def test_what_an_agent_hands_on_gets_no_secret_whatever_it_calls_its_spec():
    own = Bounds(10, 2, ("shell", "claude"))
    plain, wanting = (
        parse(text({"a": f"agent: claude\ndo: x\ncheck: 'true'{more}"}))
        for more in ("", "\nsecrets: TOKEN")
    )
    assert refusal(own, plain, "", str) == ""
    assert refusal(own, wanting, "", str).endswith("a secret, and what is handed on gets none")


@proves("secret.default-deny")
@given(
    facts=st.dictionaries(
        st.text("secret:DEPLOY_TOKEN/*shelraupbi ", max_size=60)
        | st.builds("secret:DEPLOY_TOKEN/{}".format, st.text("abc/*-é\n", max_size=40)),
        st.just(""),
        max_size=5,
    )
)
def test_facts_that_are_no_grant_of_ours_grant_nothing_and_break_nothing(facts):
    wanted = Wanted(("DEPLOY_TOKEN",), "release", "publish")
    granted = lack(wanted, "shell", facts) == ""
    assert not granted or any(
        key.startswith("secret:DEPLOY_TOKEN/") and key.count("/") == 3 for key in facts
    )
    assert lack(wanted, "shell", {**facts, **FACTS}) == ""


@proves("secret.goes-where-granted")
def test_a_grant_names_attempts_by_patterns_that_are_none_of_a_path_or_a_language():
    for pattern in ("*", "a", "release-*", "0", "*-x-*", "a" * 40, "****"):
        Grant(pattern, pattern, pattern).check()
    for odd in ("", "-a", "A", "a b", "a/b", "a.b", "a" * 41, "*****", ".*", "[a]", "a\n", "ä"):
        for field in ("agent", "spec", "phase"):
            with pytest.raises(Malformed, match=f"--{field} "):
                Grant(**{"agent": "a", "spec": "b", "phase": "c", field: odd}).check()
        # As a fact of somebody else's it fits nothing.
        assert not Grant(odd, odd, odd).fits(odd, odd, odd)
    work = ("claude", "release", "publish")
    for patterns, fits in (
        (("*", "*", "*"), True), (work, True), (("cl*e", "rel*", "*ish"), True),
        (("*", "release", "build"), False), (("claud", "*", "*"), False), (("*", "elease", "*"), False),
        (("c*d", "*", "*"), False),
    ):  # fmt: skip
        assert Grant(*patterns).fits(*work) is fits, patterns
    ends = Grant("a", "b", "c", until_ms=5)
    assert [ends.is_over(at) for at in (4, 5, 6)] == [False, True, True]
    assert not Grant("a", "b", "c").is_over(10**15)


@proves("secret.goes-where-granted")
def test_a_secret_has_the_name_of_a_variable_that_no_program_needs_for_itself():
    for name in ("DEPLOY_TOKEN", "A", "_X", "X" * 64, "PATH_X", "LDX", "HOMEPAGE"):
        assert check_name(name) == name
    for name in ("", "a", "1A", "A-B", "X" * 65, "MUSTER_X", "A\n", "Ä"):
        with pytest.raises(Malformed, match="is not a secret's name"):
            check_name(name)
    for name in ("PATH", "HOME", "LD_PRELOAD", "DYLD_LIBRARY_PATH", "LANG", "TMPDIR", "USER"):
        with pytest.raises(Malformed, match="every program needs"):
            check_name(name)
