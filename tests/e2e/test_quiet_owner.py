"""Two real daemons without a link: who is quiet and lives keeps its work, and who is gone does not."""

import time

import pytest

from muster.task.standin import standin_args
from tests.e2e.fleet import until
from tests.promise import proves

pytest.importorskip("pyrage", reason="pip install 'muster-fleet[drop]'")
from tests.e2e.test_drop import apart

pytestmark = [pytest.mark.e2e, pytest.mark.timeout(180)]

AFTER_MS = 12_000
# With a sign and a look of the folder, which is looked at every second.
PATIENCE_S = 12 + 5 + 1
SPEC = """\
muster: 1
name: asks
phases:
  person:
    by: human
    do: look at it
"""


@proves("adopt.stands-in")
def test_a_stand_in_that_meets_a_machine_in_a_folder_alone_waits_until_that_is_gone(tmp_path):
    place = tmp_path / "shared"
    place.mkdir()
    with apart(place, place) as fleet:
        hub, studio = fleet.hub, fleet["studio"]
        args = {"base": "", "repo": "", "spec": SPEC, "values": {}}
        run = str(hub.order("run", "asks", args)["run"])
        hub.order("standin", hub.id, standin_args(hub.id, studio.id, AFTER_MS))
        named = lambda: [m.get("stand_in") for m in studio.ask("machines") if m["name"] == "hub"]  # noqa: E731
        until(lambda: named() == ["studio"], "studio knows that it stands in for the hub")
        owner = lambda: studio.ask("runs", {"run": run})["owner"]  # noqa: E731
        until(lambda: owner() == "hub", "studio knows of the run")
        time.sleep(PATIENCE_S + 8)
        assert owner() == "hub"
        hub.kill()
        until(lambda: owner() == "studio", "the work of a hub that is gone goes on", within_s=90)
