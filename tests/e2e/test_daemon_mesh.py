"""Machines that were told of the hub alone find each other."""

import pytest

from tests.e2e.fleet import Fleet, until
from tests.promise import proves

pytestmark = [pytest.mark.e2e, pytest.mark.timeout(120)]


@proves("node.members-find-each-other")
def test_two_machines_that_only_know_the_hub_hear_what_is_for_them_alone():
    with Fleet(["hub", "studio", "laptop"], dials={"studio": ["hub"], "laptop": ["hub"]}) as fleet:
        fleet.start()
        until(lambda: "laptop" in fleet["studio"].linked(), "studio and laptop are linked")
        args = {"text": ["for you alone"], "to": "laptop", "wait": True}
        sent = fleet["studio"].order("send", "laptop", args)
        assert sent["state"] == "stored"
        assert [m["text"] for m in fleet["laptop"].ask("inbox")] == ["for you alone"]
