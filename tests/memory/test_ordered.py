"""A person's order to refute binds what it named, and lends nothing to what a machine adds."""

import pytest
from tests.promise import proves

from muster.fleet.statement import Statement, args_hash
from muster.log.stream import FLEET
from muster.memory.kinds import MemoryRefute
from muster.memory.ordered import is_ordered

NAMED, OTHER = "ab" * 32, "cd" * 32


@proves("memory.agents-object-and-never-replace")
@pytest.mark.parametrize(
    ("over", "about", "proven"),
    [([NAMED], [], True), ([NAMED, OTHER], [], False), ([OTHER], [], False), ([NAMED], [OTHER], False)],
)  # fmt: skip
def test_a_refutation_is_the_persons_of_the_version_that_was_named_alone(over, about, proven):
    statement = Statement(
        args=args_hash({"version": NAMED[:12], "reason": "no"}), fleet="0" * 64, issued_ms=1,
        nonce="0" * 32, object=NAMED[:12], operator="0" * 64, target="a" * 64, until_ms=2,
        verb="refute",
    )  # fmt: skip
    body = MemoryRefute("k", over, "no", about)
    assert is_ordered(body, FLEET, statement, str) == proven
