"""Several machines at once: who is meant, how many at a time, and what of them is shown."""

import subprocess
import sys
import threading
from typing import Any

import pytest

from muster.cli import parse, several
from muster.errors import Malformed, NotFound, Unreachable
from muster.verbs.table import VERBS
from tests.promise import proves


def machine(name: str, *, roles: tuple[str, ...] = (), labels: tuple[str, ...] = ()) -> Any:
    facts = {"labels": list(labels)} if labels else None
    return {"name": name, "machine": name * 4, "roles": list(roles), "facts": facts, "state": "up"}


FLEET = [
    machine("build", roles=("workstation",), labels=("gpu", "tests")),
    {**machine("gone", roles=("hub",), labels=("gpu",)), "state": "revoked"},
    machine("hub", roles=("hub",)),
    machine("nas", roles=("edge",), labels=("gpu",)),
]


@pytest.mark.parametrize(
    ("on", "names"),
    [
        ("all", ["build", "hub", "nas"]),
        ("label=gpu", ["build", "nas"]),
        ("role=hub", ["hub"]),
        ("nas,build,nas", ["build", "nas"]),
        ("hubhubhubhub,label=tests", ["build", "hub"]),
        ("role=edge,role=hub", ["hub", "nas"]),
    ],
)
@proves("cli.on-others")
def test_names_labels_and_roles_mean_machines_each_once(on, names):
    assert parse.means_several(on)
    assert [each["name"] for each in several.meant(FLEET, on)] == names


@pytest.mark.parametrize(
    ("on", "error", "says"),
    [
        ("build,nobody", NotFound, "no machine is 'nobody'"),
        ("build,gone", NotFound, "no machine is 'gone'"),
        ("label=none", NotFound, "the label 'none'"),
        ("role=none", NotFound, "the role 'none'"),
        ("label=", Malformed, "'label=' is nobody"),
        ("build,", Malformed, "'' is nobody"),
        ("os=linux,build", Malformed, "'os=linux' is nobody"),
    ],
)
@proves("cli.on-others")
def test_a_part_that_means_nobody_ends_it_before_anybody_is_asked(on, error, says):
    """`label=$NONE` with a variable that was never set meant every machine."""
    with pytest.raises(error, match=says):
        several.meant(FLEET, on)


@proves("cli.on-others")
def test_a_slow_machine_holds_nobody_up_and_at_most_eight_are_asked_at_once():
    names = [f"m{number:02}" for number in range(20)]
    lock, others = threading.Lock(), threading.Event()
    running = most = done = 0

    def ask(name: str) -> tuple[Any, int]:
        nonlocal running, most, done
        with lock:
            running += 1
            most = max(most, running)
        if name == "m00":
            # It answers when all others have.
            assert others.wait(60)
        with lock:
            running -= 1
            done += 1
            if done == len(names) - 1:
                others.set()
        if name == "m03":
            raise Unreachable("m03 is away")
        return {"name": name}, 1 if name == "m04" else 0

    said = list(several.in_order(names, ask))
    assert [name for name, _, _ in said] == names
    assert most <= several.AT_ONCE
    assert {name: str(error) for name, _, error in said if error} == {"m03": "m03 is away"}
    assert said[4][1] == ({"name": "m04"}, 1)


@proves("cli.on-others")
def test_what_the_system_refuses_for_one_machine_costs_no_other():
    """The others' orders went: what they did is said."""

    def ask(name: str) -> tuple[Any, int]:
        if name == "a":
            raise BrokenPipeError(32, "Broken pipe")
        return name, 0

    said = list(several.in_order(["a", "b"], ask))
    assert "Broken pipe" in str(said[0][2])
    assert said[1] == ("b", ("b", 0), None)


@proves("cli.on-others")
def test_our_own_mistake_is_not_a_machines_answer():
    def ask(_name: str) -> tuple[Any, int]:
        raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        list(several.in_order(["a", "b"], ask))


@proves("cli.plan-first")
def test_what_orders_can_be_planned_and_nothing_else():
    for verb in VERBS.values():
        if verb.hidden:
            continue
        # A copy is ordered by the verb that it needs.
        plans = verb.auth in ("order", "agent") or verb.name == "cp"
        with pytest.raises(parse.Shown) as shown:
            parse.parse([verb.name, "--help"])
        assert ("what would be ordered of" in str(shown.value)) is plans, verb.name
    assert parse.parse(["revoke", "build", "--plan"]).plan
    assert not parse.parse(["revoke", "build"]).plan


@proves("log.canon-threads")
@pytest.mark.parametrize("words", [["status"], ["doctor"], ["await", "nightly"], ["run", "-"]])
def test_what_threads_read_was_learnt_before_there_are_any(words):
    """Else the command ends with a segmentation fault, now and then."""
    script = (
        "import sys; from muster.cli import context, parse; from muster.log import canon\n"
        "context.ready(parse.parse(sys.argv[1:]))\n"
        "print(sorted(each.__name__ for each in canon._decoders))"
    )
    done = subprocess.run(
        [sys.executable, "-c", script, *words, "--on", "all"],
        input="x", capture_output=True, text=True, timeout=50, check=True,
    )  # fmt: skip
    assert "'Statement'" in done.stdout
    assert ("'Check'" in done.stdout) == (words == ["doctor"])
