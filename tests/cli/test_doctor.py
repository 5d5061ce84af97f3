"""`muster doctor` on a machine whose daemon has something to say."""

from typing import Any

from muster.verbs.doctor import _of_daemon
from tests.promise import proves


class Door:
    def ask(self, verb: str, _args: Any) -> Any:
        assert verb == "status", "a revoked machine is asked nothing else"
        return {"name": "build", "revoked": {"t_ms": 1, "reason": "stolen"}, "exposed": 3}


@proves("node.revoked-learns-it")
def test_doctor_says_that_this_machine_was_revoked_what_to_do_and_nothing_that_misleads():
    door: Any = Door()
    checks = list(_of_daemon(door))
    assert [(check.name, check.state) for check in checks] == [
        ("daemon", "ok"),
        ("membership", "wrong"),
    ]
    assert "invitation" in checks[-1].mend
