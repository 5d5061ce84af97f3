"""Whether the fleet gets better by remembering: real daemons, and an agent that only knows what it
is told.

The stub reads the file that its machine gives it, and takes the last flag that is named there. The
check wants one flag, and says so to whoever built without it.
"""

import pytest

from tests.e2e.fleet import Fleet
from tests.e2e.test_blobs import begin, settled, tasks
from tests.promise import proves

pytestmark = [pytest.mark.e2e, pytest.mark.timeout(240)]

SPEC = """\
muster: 1
name: NAME
phases:
  build:
    needs: {label: on-WHERE}
    agent: shell
    do: |
      flag=$(grep -o 'pass --[a-z-]*' "$MUSTER_MEMORY" | tail -1) || true
      ls -l "$MUSTER_MEMORY" | cut -c1-10
      echo "built: $flag" > out.txt
    deliver: out.txt
    retries: 1
    check: 'grep -q -- --no-lto out.txt || { echo "linker error 42: pass --no-lto"; exit 1; }'
"""
NONE = SPEC.replace("    agent: shell", "    memory: none\n    agent: shell")
# An agent that has it wrong writes it down for everybody, in its own words.
POISON = """\
muster: 1
name: poison
phases:
  tell:
    needs: {label: on-studio}
    agent: shell
    do: |
      muster remember NAME/flag 'it builds where you pass --fast' > said.txt
    deliver: said.txt
"""


@pytest.fixture(scope="module")
def fleet():
    with Fleet(["hub", "studio", "laptop"]) as made:
        made.start()
        yield made


def build(fleet: Fleet, name: str, where: str, spec: str = SPEC) -> tuple[str, int]:
    """One more run: how it ended, and after how many tries that failed."""
    text = spec.replace("NAME", name).replace("WHERE", where)
    run = begin(fleet, name, text)
    outcome = settled(fleet, run)
    (task,) = tasks(fleet, run).values()
    return outcome, task["tries"]


@proves("memory.helps-the-next-run")
def test_from_the_second_run_on_the_first_try_succeeds_elsewhere_too_and_after_a_restart(fleet):
    assert build(fleet, "release", "studio") == ("done", 1), "the first one learns it"
    assert build(fleet, "release", "studio") == ("done", 0)
    assert build(fleet, "release", "laptop") == ("done", 0), "and not only where it was learned"
    for name in ("hub", "studio", "laptop"):
        fleet[name].stop()
    fleet.start()
    assert build(fleet, "release", "laptop") == ("done", 0)
    assert build(fleet, "release", "studio") == ("done", 0)
    # What helped stands in no other place than the entries that it came from.
    assert build(fleet, "other", "studio", NONE) == ("failed", 1)


@proves("memory.helps-the-next-run")
def test_whoever_is_told_nothing_fails_again_and_again(fleet):
    for _ in range(3):
        assert build(fleet, "forgetful", "studio", NONE) == ("failed", 1)


@proves("memory.helps-the-next-run", "memory.refuted-stays-refuted")
def test_a_wrong_lesson_harms_until_somebody_says_that_it_is_wrong(fleet):
    assert build(fleet, "ship", "studio") == ("done", 1)
    run = begin(fleet, "poison", POISON.replace("NAME", "ship"))
    assert settled(fleet, run) == "done"
    (known,) = fleet.hub.ask("memory", {"key": "ship/flag"})
    assert (known["from"], known["trust"]) == ("shell@studio", "agent")
    for _ in range(2):
        assert build(fleet, "ship", "studio") == ("failed", 1)
    args = {"version": known["version"][:12], "reason": ["that", "is", "for", "another", "linker"]}
    assert fleet.hub.order("refute", known["version"][:12], args)["state"] == "refuted"
    assert build(fleet, "ship", "studio") == ("done", 0)
