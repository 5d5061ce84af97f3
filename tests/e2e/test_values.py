"""Values between real daemons: whole, whatever their size, also where two have no link."""

import hashlib

import pytest

from tests.e2e.fleet import Fleet
from tests.e2e.test_blobs import begin, settled, tasks
from tests.promise import proves

pytestmark = [pytest.mark.e2e, pytest.mark.timeout(240)]

# Quotes, tabs, backslashes, characters of two and four bytes: 600,000 bytes in a value.
SAY = """python3 -c 'print(("\\"\\\\\\té🙂 " * 60_000)[:400_000], end="")'"""
WHOLE = ('"\\\té🙂 ' * 60_000)[:400_000]
SPEC = f"""\
muster: 1
name: values
phases:
  say:
    needs: {{{{label: on-studio}}}}
    agent: shell
    do: |
      {SAY}
    check: "true"
  short:
    needs: {{{{label: on-studio}}}}
    agent: shell
    do: head -c 100000 /dev/zero | tr '\\0' y
    check: "true"
  file:
    after: [say, short]
    needs: {{{{label: on-laptop}}}}
    agent: shell
    do: |
      sha256sum < "$MUSTER_SAY_OUTPUT_FILE"
      printf %s "$MUSTER_SHORT_OUTPUT" | wc -c
      ls | wc -l
    check: test -s "$MUSTER_SAY_OUTPUT_FILE"
  named:
    after: [say]
    needs: {{{{label: on-laptop}}}}
    agent: shell
    do: printf %s "$MUSTER_SAY_OUTPUT" | wc -c
    check: "true"
"""


@pytest.fixture(scope="module")
def fleet():
    with Fleet(["hub", "studio", "laptop"]) as made:
        made.start()
        yield made


@proves("node.values-whole")
def test_long_values_reach_a_machine_without_a_link_byte_for_byte(fleet):
    run = begin(fleet, "values", SPEC.replace("{{", "{").replace("}}", "}"))
    assert settled(fleet, run) == "failed", "one phase names what no variable can hold"
    found = tasks(fleet, run)
    assert found["file"]["state"] == "done", found["file"]
    task = found["file"]["task"]
    said = fleet.hub.ask("result", {"task": task})["values"]["output"].split()
    assert said == [hashlib.sha256(WHOLE.encode()).hexdigest(), "-", "100000", "0"]
    assert "MUSTER_SAY_OUTPUT_FILE names" in found["named"]["reason"]
    result = fleet.hub.ask("result", {"task": found["say"]["task"]})
    assert result["values"]["output"].startswith("[the last 4096 of ")
    assert list((fleet["laptop"].home.path / "work").iterdir()) == [], "the file is gone"
