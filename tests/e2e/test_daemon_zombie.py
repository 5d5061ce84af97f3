"""A machine that stood still and comes back: it does no harm, whether it learns of it or not."""

import signal
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from muster.git.fence import Epoch, attempt_ref
from tests.e2e import checks, kill
from tests.e2e.fleet import Fleet, Machine, until
from tests.promise import proves

pytestmark = [pytest.mark.e2e, pytest.mark.timeout(180)]

LEASE_S = 4
# The first two attempts sleep longer than the lease; whoever comes third is quick.
SPEC = """\
muster: 1
name: frozen
repo: main
phases:
  only:
    needs: {machine: [studio, laptop]}
    agent: shell
    do: |
      echo "$MUSTER_TASK $MUSTER_EPOCH" >> "$E2E_NOTES"
      test "$(cat "$E2E_NOTES" | wc -l)" -gt 1 || sleep 3
      echo "$MUSTER_EPOCH" > epoch.txt
    deliver: epoch.txt
"""


@pytest.fixture
def fleet() -> Iterator[Fleet]:
    """A hub with a short lease, and two machines that work for it."""
    with Fleet(["hub", "studio", "laptop"]) as made:
        text = (made.hub.home.path / "config.toml").read_text()
        assert "lease_s = 30" in text
        (made.hub.home.path / "config.toml").write_text(
            text.replace("lease_s = 30", f"lease_s = {LEASE_S}")
        )
        made.add_repository()
        made.start()
        yield made


@proves("node.zombie-harmless")
def test_a_machine_that_was_frozen_past_its_lease_changes_nothing_when_it_thaws(fleet):
    """run -> frozen in the middle -> lease ends -> another machine is done -> thaw."""
    args = {"base": "", "repo": "main", "spec": SPEC, "values": {}}
    run = fleet.hub.order("run", "frozen", args)["run"]
    until(fleet.notes.exists, "the attempt runs")
    (task,) = fleet.hub.ask("runs", {"run": run})["tasks"]
    frozen: Machine = fleet[task["machine"]]
    frozen.signal(signal.SIGSTOP)
    try:
        until(
            lambda: fleet.hub.ask("runs", {"run": run})["state"] == "done",
            lambda: str(fleet.hub.ask("runs", {"run": run})["tasks"]),
            within_s=40,
        )
    finally:
        frozen.signal(signal.SIGCONT)
    (task,) = fleet.hub.ask("runs", {"run": run})["tasks"]
    assert task["machine"] not in ("", frozen.name)
    assert task["losses"] == 1
    repo = Path(fleet.hub.home.repos) / "main.git"
    before = checks.git(repo, "for-each-ref")
    # Its agent finished long ago; the daemon now finds that out, and that its epoch is spent.
    until(lambda: not fleet.orphans(), "the old attempt is over", within_s=30)
    until(
        lambda: (
            fleet.hub.name in frozen.linked() and frozen.ask("status")["worker"]["running"] == 0
        ),
        "the frozen machine is back",
    )
    time.sleep(1.0)
    assert checks.git(repo, "for-each-ref") == before
    assert fleet.hub.ask("runs", {"run": run})["tasks"] == [task]
    assert checks.git(repo, "show", f"muster/{run}/only:epoch.txt").strip().endswith(".2")
    # And if it pushed all the same, the repository would refuse.
    order, count = task["epoch"]
    old = attempt_ref(task["task"], Epoch(order, count - 1))
    assert kill.push(frozen, repo, task["commit"], old)
    assert checks.git(repo, "for-each-ref") == before
    until(lambda: not checks.converged(fleet), lambda: checks.converged(fleet))
    checks.check_logs(fleet)
