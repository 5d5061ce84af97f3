"""A person's order binds what it named, and lends nothing to what a machine adds."""

import pytest
from msgspec import structs
from tests.promise import proves

from muster.fleet.statement import Statement, args_hash
from muster.log.stream import FLEET
from muster.memory.kinds import MemoryErase, MemoryRefute
from muster.memory.ordered import binds, is_ordered, restated

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


def forgets(**args: str) -> Statement:
    return Statement(
        args=args_hash({"version": NAMED[:12], **args}), fleet="0" * 64, issued_ms=1,
        nonce="0" * 32, object=NAMED[:12], operator="0" * 64, target="a" * 64, until_ms=2,
        verb="forget",
    )  # fmt: skip


ERASURE = MemoryErase(NAMED, "refuted", 2, "k", [OTHER], "0" * 32)


@proves("memory.erased-by-whom")
@pytest.mark.parametrize("reason", [{}, {"reason": "no"}])
@pytest.mark.parametrize(
    "changed",
    [
        {}, {"state": "erased"}, {"rank": 1}, {"key": "other"}, {"over": []},
        {"over": [OTHER, NAMED]}, {"print": ""}, {"target": NAMED[:12] + OTHER[12:]},
    ],
)  # fmt: skip
def test_an_erasure_is_the_persons_in_all_that_it_restates_or_in_its_target_alone(changed, reason):
    body = structs.replace(ERASURE, **changed, **reason)
    whole = forgets(restates=restated(ERASURE), **reason)
    assert binds(body, whole) == is_ordered(body, FLEET, whole, str) == (not changed)
    alone = forgets(**reason)
    assert is_ordered(body, FLEET, alone, str), "as an older Muster signs"
    assert not binds(body, alone)
