"""Handing in a run: what is refused before anything is written, and what makes two runs one."""

import json
from typing import Any

import pytest
from tests.node.cores import Cores, One
from tests.node.test_runs import CHAIN, SLOW, know, renew, wanted
from tests.promise import proves

from muster.cli.show import run as page
from muster.limits import INPUT_BYTES_MAX
from muster.log import canon
from muster.node.tasks.runs import RunService
from muster.task.evidence import task_args
from muster.task.instruction import StartAttempt
from muster.task.kinds import TaskOpen

INPUTS = SLOW.replace("name: chain", "name: chain\ninputs: {word: hello}")


@pytest.fixture
def hub() -> One:
    world = Cores("hub")
    know(world["hub"])
    return world["hub"]


def run(
    machine: One, spec: str = INPUTS, *, key: str = "", again: bool = False, **more: Any
) -> Any:
    args = {"base": "", "repo": "", "spec": spec, "values": {}, **more}
    options = {k: v for k, v in {"again": again, "key": key}.items() if v}
    return machine.order("run", "chain", args, options=options)


def refused(machine: One, *sentences: str, code: int = 3, **more: Any) -> None:
    """The order is refused, and but for that nothing was written or begun."""
    wanted(machine, StartAttempt)
    kept = len(machine.entries("run.open")), len(machine.entries("order.take"))
    answer = run(machine, **more)
    assert answer["ok"] is False
    assert answer["error"]["exit"] == code
    for sentence in sentences:
        assert sentence in answer["error"]["text"]
    assert (len(machine.entries("run.open")), len(machine.entries("order.take"))) == kept
    assert wanted(machine, StartAttempt) == []


@proves("spec.inputs", "node.run-refused-at-once")
@pytest.mark.parametrize(
    ("values", "sentence"),
    [
        ({"nope": "1"}, "it has word"),
        ({"word": "x" * 60_000}, "at most 16384"),
        ({"word": 1}, "names to texts"),
        ({"word": {}}, "names to texts"),
        ([["word", "x"]], "names to texts"),
        ("word=x", "names to texts"),
        (None, "names to texts"),
        ({"word": "\x1b"}, "control character"),
    ],
)
def test_values_that_a_run_cannot_take_are_refused_before_anything_is_written(
    hub, values, sentence
):
    refused(hub, sentence, values=values)


@proves("spec.known-repository", "node.run-refused-at-once")
def test_a_repository_that_nobody_keeps_is_refused_before_anything_is_written(hub):
    refused(hub, "mian", 'did you mean "main"', spec=CHAIN, repo="mian")
    named = CHAIN.replace("name: chain", "name: chain\nrepo: mian")
    refused(hub, "mian", spec=named, repo="mian")


@proves("node.run-refused-at-once")
def test_an_order_that_leaves_out_the_repository_of_its_spec_is_refused(hub):
    refused(hub, "repository main", spec=CHAIN.replace("name: chain", "name: chain\nrepo: main"))


@proves("node.run-refused-at-once")
def test_a_base_without_a_repository_is_refused(hub):
    refused(hub, "no repository", base="side")


@proves("spec.fits-the-log", "node.run-refused-at-once")
def test_a_run_that_would_not_fit_into_its_entry_is_refused(hub):
    long = INPUTS.replace("name: chain", "name: chain\n" + "# pad\n" * 7_000)
    assert run(hub, long)["ok"]
    refused(hub, "together, at most 65536", spec=long, values={"word": "x" * 16_000})


@proves("node.same-run-once", "node.key-means-one-order")
@pytest.mark.parametrize("other", [{"values": {"word": "x"}}, {"repo": "main"}, {"repo": "main", "base": "side"}])  # fmt: skip
def test_the_same_spec_with_other_input_repository_or_base_is_another_run(hub, other):
    first = run(hub)["value"]
    assert run(hub)["value"] == {**first, "fresh": False}
    second = run(hub, **other)["value"]
    assert second["fresh"]
    assert second["run"] != first["run"]
    assert run(hub, **other)["value"]["run"] == second["run"]


@proves("node.key-means-one-order")
@pytest.mark.parametrize(
    ("other", "word"),
    [
        ({"values": {"word": "x"}}, "values"),
        ({"repo": "main"}, "repository"),
        ({"spec": INPUTS.replace("second", "last")}, "spec"),
    ],
)
def test_a_key_with_another_content_is_a_conflict_also_when_its_run_is_settled(hub, other, word):
    first = run(hub, key="k")["value"]
    for _ in range(2):
        assert run(hub, key="k")["value"] == {**first, "fresh": False}
        refused(hub, f"ordered with another {word}", first["run"][:12], code=6, key="k", **other)
        if first["run"] in hub.core.part(RunService).runs:
            hub.order("cancel", first["run"], {"what": first["run"]})
            hub.world.pass_ms(2_000)
    assert run(hub, key="k2", **other)["value"]["fresh"]


@proves("node.key-means-one-order")
def test_a_run_that_is_over_under_its_key_is_not_said_to_be_going_on(hub):
    first = run(hub, key="k")["value"]["run"]
    hub.order("cancel", first, {"what": first})
    again = page.run(run(hub, key="k")["value"], {})
    assert first[:12] in again
    assert "under this key before" in again
    assert "runs already" not in again
    assert "--again" not in again
    assert "--again starts another" in page.run({**run(hub)["value"], "fresh": False}, {})


@proves("node.key-means-one-order")
def test_a_key_is_known_for_ever(hub, monkeypatch):
    first = run(hub, key="k")["value"]["run"]
    hub.order("cancel", first, {"what": first})
    for number in range(3):
        run(hub, key=f"other-{number}", values={"word": str(number)})
    monkeypatch.setattr("muster.verbs.task.SHOWN_MAX", 2)
    assert run(hub, key="k")["value"]["run"] == first


@proves("node.key-means-one-order")
def test_a_key_that_is_too_long_is_refused_and_never_cut(hub):
    refused(hub, "at most 200 characters", key="k" * 201)


def submit(machine: One, *templates: dict[str, Any], key: str, wait: bool = False) -> Any:
    items = []
    for template in templates:
        task = machine.core.draw(16).hex()
        args = task_args(TaskOpen(task=task, template=template))
        signed = machine.world.sign("task", task, machine, args)
        items.append({"key": key, "statement": signed, "task": task, "template": template})
    return machine.raw(canon.encode({"args": {"tasks": items, "wait": wait}, "verb": "submit"}))


@proves("node.key-means-one-order")
def test_a_key_of_a_task_with_another_content_is_a_conflict(hub):
    one, other = ({"v": 1, "agent": ["noop"], "do": f'{{"x":{n}}}'} for n in range(2))
    first = submit(hub, one, key="k")["value"]["tasks"][0]
    assert submit(hub, one, key="k")["value"]["tasks"][0] == {**first, "fresh": False}
    for both in ((other,), (one, other)):
        answer = submit(hub, *both, key="k")
        assert answer["error"]["exit"] == 6
        assert "another content" in answer["error"]["text"]
    assert submit(hub, other, one, key="k3")["error"]["exit"] == 6
    assert len(hub.entries("task.open")) == 1


@proves("node.key-means-one-order")
@pytest.mark.parametrize("again", ["at once", "in a new incarnation"])
def test_whoever_waits_for_a_task_that_is_over_under_its_key_is_told_how_it_ended(hub, again):
    template = {"v": 1, "agent": ["noop"], "do": "{}"}
    first = submit(hub, template, key="k", wait=True)["value"]
    assert [end["outcome"] for end in first["ends"]] == ["done"]
    if again != "at once":
        renew(hub.world, "hub")
        hub.world.pass_ms(4_000)
    answer = submit(hub, template, key="k", wait=True)
    assert answer["value"]["ends"] == first["ends"]
    assert len(hub.entries("task.open")) == 1


@proves("spec.inputs", "spec.fits-the-log")
def test_the_longest_input_that_is_taken_reaches_the_phase_that_names_it(hub):
    longest = "x" * (INPUT_BYTES_MAX - 2)
    named = INPUTS.replace("shell", "noop").replace("sleep 1", "${inputs.word}")
    assert run(hub, named, values={"word": longest})["ok"]
    opened = hub.entries("task.open")[0]
    body = json.loads(opened.body)
    assert body["values"]["inputs"]["word"] == body["template"]["inputs"]["word"] == longest
