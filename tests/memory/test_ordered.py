"""A person's order binds what it named, and lends nothing to what a machine adds."""

from typing import Any

import pytest
from msgspec import structs
from tests.promise import proves

from muster.fleet.statement import Statement, args_hash, veiled
from muster.log.stream import FLEET, JOURNAL, Scope
from muster.memory.kinds import PINNED, MemoryErase, MemoryPut, MemoryRefute
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


PUT = MemoryPut("deploy", "by hand", tags=["ops", PINNED], about=["r1"])
SALTED = MemoryPut("deploy", "word", salt="ab" * 16)
GROUP = Scope(f"g.{'a' * 64}.ideas")


def remembers(object: str = "deploy", **args: Any) -> Statement:
    return structs.replace(forgets(), verb="remember", object=object, args=args_hash(args))


TYPED = {"key": "deploy", "text": "by hand", "tag": ["ops"], "pin": True, "about": ["r1"]}


@proves("memory.agents-object-and-never-replace")
@pytest.mark.parametrize("text", ["by hand", ["by hand"], ["by", "hand"]])
@pytest.mark.parametrize("where", [{}, {"scope": "fleet"}])
def test_a_version_is_the_persons_however_its_text_was_typed(text, where):
    said = remembers(**{**TYPED, "text": text, **where})
    assert is_ordered(PUT, FLEET, said, str)
    assert not is_ordered(PUT, JOURNAL, said, str), "it was ordered elsewhere"
    assert not is_ordered(PUT, FLEET, structs.replace(said, verb="refute"), str)


@proves("memory.agents-object-and-never-replace")
@pytest.mark.parametrize(
    "changed",
    [
        {"key": "other"}, {"text": "by hand "}, {"tags": ["ops"]}, {"tags": [PINNED]},
        {"about": []}, {"over": [NAMED]}, {"origin": "outside"}, {"salt": "ab" * 16},
    ],
)  # fmt: skip
def test_what_a_machine_changed_of_a_version_is_not_the_persons(changed):
    assert not is_ordered(structs.replace(PUT, **changed), FLEET, remembers(**TYPED), str)


@proves("memory.agents-object-and-never-replace")
@pytest.mark.parametrize(("digits", "proven"), [(5, False), (6, True), (64, True)])
def test_a_version_that_is_replaced_is_named_by_as_many_digits_as_name_one(digits, proven):
    body = structs.replace(PUT, over=[NAMED])
    said = remembers(**TYPED, over=[NAMED[:digits]])
    assert is_ordered(body, FLEET, said, str) == proven


@proves("memory.private-is-veiled")
def test_a_private_version_is_the_persons_under_its_veil_in_the_journal_alone():
    said = remembers(
        veiled("deploy", SALTED.salt), key="deploy", text="word", salt=SALTED.salt, scope="private"
    )
    assert is_ordered(SALTED, JOURNAL, said, str)
    assert not is_ordered(SALTED, FLEET, said, str)
    assert not is_ordered(structs.replace(SALTED, salt=""), JOURNAL, said, str)


@proves("memory.agents-object-and-never-replace")
def test_a_thread_is_named_alone_or_with_its_keeper():
    for scope in ("thread:ideas", "thread:ideas@build"):
        assert is_ordered(PUT, GROUP, remembers(**TYPED, scope=scope), lambda _: "build")
    said = remembers(**TYPED, scope="thread:ideas@studio")
    assert not is_ordered(PUT, GROUP, said, lambda _: "build")
