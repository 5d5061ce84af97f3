"""The security page and the code say the same."""

from pathlib import Path

from muster.verbs.table import VERBS
from tests.promise import proves

PAGE = (Path(__file__).parents[2] / "docs" / "spec" / "security.md").read_text(encoding="utf-8")


@proves("node.order-needs-statement")
def test_each_verb_that_a_machine_may_call_without_an_operator_is_named_on_the_page() -> None:
    """A new one is a decision: read its handler as an attacker, then name it there."""
    free = {v.name for v in VERBS.values() if v.auth in ("peer", "nothing")}
    assert free, "there is enrolment at least"
    assert not {name for name in free if f"`{name}`" not in PAGE}


@proves("node.order-needs-statement")
def test_only_enrolment_needs_nothing_and_no_need_is_unknown() -> None:
    assert {v.name for v in VERBS.values() if v.auth == "nothing"} == {"enrol"}
    assert {v.auth for v in VERBS.values()} <= {
        "nothing",
        "peer",
        "foreign",
        "local",
        "order",
        "agent",
    }
