"""What a machine refuses before anything of it begins, by its owner's word and what it can."""

import pytest
from tests.node.cores import Cores
from tests.node.test_runs import know, wanted
from tests.promise import proves
from tests.task.test_worker import given, now, refusals
from tests.task.world import BUILD, machine, of

from muster.node.tasks.enclosures import Enclosures
from muster.task import kinds
from muster.task.enclosure import Here, Terms
from muster.task.instruction import StartAttempt
from muster.task.worker import Worker

ABLE = {"sandbox": "enforced"}
OFF = {"sandbox": "off"}
UNABLE = {"sandbox": "bubblewrap is not installed"}
OFF_UNABLE = {"sandbox": "off: bubblewrap is not installed"}


def work(**more: object) -> dict[str, object]:
    return {"agent": "shell", "do": "make", **more}


def worker(terms: Terms, tools: dict[str, str]) -> Worker:
    one = Worker(machine(BUILD, tools=tools), "s1")
    one.refuses = lambda each: Enclosures(terms, Here(home="/home/a")).refusal(
        each, one.machine.facts.tools.get("sandbox")
    )
    return one


@proves("openings.fails-closed", "openings.decided")
@pytest.mark.parametrize(
    ("terms", "tools", "template", "foreign", "why"),
    [
        (Terms(), ABLE, work(), False, ""),
        # A daemon that has told nothing yet: whoever starts the attempt decides again.
        (Terms(), {}, work(), False, ""),
        (Terms(), UNABLE, work(), False, "cannot enclose: bubblewrap is not installed"),
        (Terms("off"), OFF, work(sandbox="on"), False, ""),
        (Terms("off"), OFF_UNABLE, work(), False, ""),
        (Terms("off"), OFF_UNABLE, work(sandbox="on"), False, "cannot enclose: bubblewrap is not"),
        # Another fleet's work fits by its needs, and is enclosed all the same.
        (Terms("off"), OFF_UNABLE, work(), True, "this machine cannot enclose it: bubblewrap is not"),
        (Terms(), ABLE, work(network=["a.org"]), True, "another fleet's work"),
        (Terms(), UNABLE, work(sandbox="off"), False, ""),
        (Terms(off="refuse"), ABLE, work(sandbox="off"), False, "has nothing run without a sandbox"),
        (Terms(), ABLE, work(paths={"read": ["/opt"]}), False, "is to be shown /opt, and the owner"),
        (Terms(network=()), ABLE, work(network=["a.org"]), False, "lets no sandbox reach"),
    ],
)  # fmt: skip
def test_an_assignment_that_cannot_be_done_as_it_asks_is_refused_and_begins_nothing(
    terms, tools, template, foreign, why
):
    one = worker(terms, tools)
    one.accept(given(template=template)._replace(foreign=foreign), now(2000))
    out = one.flush()
    assert len(of(out, StartAttempt)) == (not why)
    assert refusals(out) == ([("t1", "misfit")] if why else [])
    if why:
        assert why in of(out, kinds.AttemptRefuse)[0].text


@proves("openings.fails-closed")
def test_the_agent_that_does_nothing_needs_no_sandbox():
    one = Worker(machine(BUILD, tools=UNABLE, agents={"noop": ""}), "s1")
    one.refuses = lambda each: Enclosures(Terms(), Here()).refusal(each, UNABLE["sandbox"])
    one.accept(given(template={"agent": "noop"}, agent="noop"), now(2000))
    assert len(of(one.flush(), StartAttempt)) == 1


@proves("openings.fails-closed", "openings.owner")
def test_a_machine_obeys_its_owner_before_whoever_gives_it_work():
    world = Cores("hub")
    hub = world["hub"]
    know(hub)
    terms = Terms(off="refuse")
    hub.core.settings = {**hub.core.settings, "sandbox": Enclosures(terms, Here())}
    hub.submit(agent=["shell"], do="make", sandbox="off")
    world.pass_ms(2_000)
    assert wanted(hub, StartAttempt) == []
    (refused, *_) = hub.entries("attempt.refuse")
    assert b"has nothing run without a sandbox" in (refused.body or b"")
    hub.submit(agent=["shell"], do="make")
    world.pass_ms(2_000)
    assert len(wanted(hub, StartAttempt)) == 1
