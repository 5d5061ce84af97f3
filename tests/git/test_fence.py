"""The fence's rules as tables."""

import pytest
from tests.promise import proves

from muster.errors import Malformed
from muster.git.fence import (
    Epoch,
    Update,
    attempt_ref,
    fence_bytes,
    fence_epoch,
    fence_ref,
    may_commit,
    may_push,
    may_push_all,
    must_advance,
    repository_name,
    schedule_ref,
    slot_of,
)

NONE, ONE, TWO = "0" * 40, "1" * 40, "2" * 40
WORKER, OTHER, OWNER, LAPTOP = "aa" * 32, "bb" * 32, "cc" * 32, "dd" * 32
NOW = Epoch(2, 7)
SCHEDULE = "5" * 64


class World:
    """Task t1 is at epoch 2-7, held by WORKER, owned by OWNER; LAPTOP may write branches."""

    def epoch(self, task: str) -> Epoch | None:
        return {"t1": NOW}.get(task)

    def holder(self, task: str) -> str | None:
        return {"t1": WORKER}.get(task)

    def owner(self, what: str, name: str) -> str | None:
        return {("task", "t1"): OWNER, ("run", "r1"): OWNER}.get((what, name))

    def keeps(self, peer: str, schedule: str) -> bool:
        return (peer, schedule) in {(OWNER, SCHEDULE), (LAPTOP, SCHEDULE)}

    def bars(self, peer: str) -> str | None:
        return None if peer == LAPTOP else "no `push` was granted"


ATTEMPT = "refs/muster/attempt/t1/2-7"
MOVES = [
    # who, ref, old, new, allowed
    (WORKER, ATTEMPT, NONE, ONE, True),
    (WORKER, ATTEMPT, ONE, TWO, True),
    (WORKER, ATTEMPT, ONE, NONE, False),
    (OTHER, ATTEMPT, NONE, ONE, False),
    (OWNER, ATTEMPT, NONE, ONE, False),
    ("", ATTEMPT, NONE, ONE, False),
    (WORKER, "refs/muster/attempt/t1/2-6", NONE, ONE, False),
    (WORKER, "refs/muster/attempt/t1/1-9", NONE, ONE, False),
    (WORKER, "refs/muster/attempt/t1/2-8", NONE, ONE, False),
    (WORKER, "refs/muster/attempt/t1/02-7", NONE, ONE, False),
    (WORKER, "refs/muster/attempt/t1/2-7/x", NONE, ONE, False),
    (WORKER, "refs/muster/attempt/t2/2-7", NONE, ONE, False),
    (WORKER, "refs/muster/attempt/T1/2-7", NONE, ONE, False),
    (WORKER, "refs/muster/fence/t1", ONE, TWO, False),
    (OWNER, "refs/muster/fence/t1", ONE, TWO, True),
    (OWNER, "refs/muster/fence/t1", ONE, NONE, False),
    (OWNER, "refs/muster/fence/t2", NONE, ONE, False),
    (WORKER, "refs/heads/muster/r1/test", NONE, ONE, False),
    (OWNER, "refs/heads/muster/r1/test", NONE, ONE, True),
    (OWNER, "refs/heads/muster/r1/test", ONE, NONE, False),
    (OWNER, "refs/heads/muster/r2/test", NONE, ONE, False),
    (OWNER, "refs/heads/muster/r1", NONE, ONE, False),
    (LAPTOP, "refs/heads/muster/r1/test", NONE, ONE, False),
    (LAPTOP, "refs/heads/muster", NONE, ONE, False),
    (LAPTOP, "refs/heads/main", ONE, TWO, True),
    (LAPTOP, "refs/heads/main", ONE, NONE, False),
    (LAPTOP, "refs/heads/../config", NONE, ONE, False),
    (WORKER, "refs/heads/main", ONE, TWO, False),
    (LAPTOP, f"refs/heads/muster-post/{LAPTOP[:16]}", ONE, TWO, True),
    (LAPTOP, f"refs/heads/muster-post/{LAPTOP[:16]}", ONE, NONE, False),
    (LAPTOP, f"refs/heads/muster-post/{LAPTOP[:15]}", ONE, TWO, False),
    (LAPTOP, f"refs/heads/muster-post/{LAPTOP[:16]}/x", ONE, TWO, False),
    (LAPTOP, f"refs/heads/muster-post/{WORKER[:16]}", NONE, TWO, False),
    (WORKER, f"refs/heads/muster-post/{WORKER[:16]}", NONE, TWO, False),
    (OWNER, f"refs/muster/schedule/{SCHEDULE}", ONE, TWO, True),
    (LAPTOP, f"refs/muster/schedule/{SCHEDULE}", NONE, TWO, True),
    (LAPTOP, f"refs/muster/schedule/{SCHEDULE}", ONE, NONE, False),
    (LAPTOP, f"refs/muster/schedule/{'6' * 64}", NONE, TWO, False),
    (LAPTOP, "refs/muster/schedule/nightly", NONE, TWO, False),
    (WORKER, f"refs/muster/schedule/{SCHEDULE}", ONE, TWO, False),
    (LAPTOP, "refs/tags/v1", NONE, ONE, False),
    (LAPTOP, "refs/replace/" + ONE, NONE, TWO, False),
    (LAPTOP, "HEAD", ONE, TWO, False),
    (WORKER, ATTEMPT, NONE, "--exec", False),
    (WORKER, ATTEMPT + "\n", NONE, ONE, False),
]


@proves("git.attempt-ref-only")
@pytest.mark.parametrize(("peer", "ref", "old", "new", "allowed"), MOVES)
def test_a_ref_moves_only_for_whom_the_table_says(peer, ref, old, new, allowed):
    reason = may_push(peer, Update(ref, old, new), World())
    assert (reason is None) is allowed
    assert reason is None or reason.isprintable()


@proves("git.attempt-ref-only")
def test_one_bad_ref_refuses_the_whole_push():
    good, bad = Update(ATTEMPT, NONE, ONE), Update("refs/heads/main", ONE, TWO)
    assert may_push_all(WORKER, [good], World()) is None
    assert "refs/heads/main" in may_push_all(WORKER, [good, bad], World())
    assert may_push_all(WORKER, [], World())


OBJECTS = {fence_ref("t1"): b"2-7\n", ONE: b"2-7\n", TWO: b"3-0\n", "3" * 40: b"2-6\n"}
OBJECTS |= {fence_ref("bad"): b"soon", "4" * 40: b"\xff" * 9}
COMMITS = [
    (ATTEMPT, NONE, ONE, True),
    ("refs/muster/attempt/t1/2-6", NONE, ONE, False),
    ("refs/muster/attempt/t1/2-8", NONE, ONE, False),
    ("refs/muster/attempt/t2/2-7", NONE, ONE, False),
    ("refs/muster/attempt/bad/2-7", NONE, ONE, False),
    ("refs/muster/fence/t1", ONE, TWO, True),
    ("refs/muster/fence/t1", ONE, ONE, False),
    ("refs/muster/fence/t1", ONE, "3" * 40, False),
    ("refs/muster/fence/t1", ONE, "4" * 40, False),
    ("refs/muster/fence/t1", ONE, "5" * 40, False),
    ("refs/muster/fence/new", NONE, ONE, True),
    ("refs/heads/muster/r1/test", NONE, ONE, True),
    ("refs/heads/main", NONE, ONE, True),
    (f"refs/heads/muster-post/{LAPTOP[:16]}", ONE, TWO, True),
    ("refs/tags/x", NONE, ONE, False),
]


@proves("git.transaction-checks-fence")
@pytest.mark.parametrize(("ref", "old", "new", "allowed"), COMMITS)
def test_a_prepared_transaction_passes_only_at_the_fences_epoch(ref, old, new, allowed):
    assert (may_commit(Update(ref, old, new), OBJECTS.get) is None) is allowed


def test_epochs_compare_by_incarnation_first():
    assert Epoch(1, 99) < Epoch(2, 0) < Epoch(2, 1)
    assert fence_epoch(fence_bytes(Epoch(3, 12))) == Epoch(3, 12)


@pytest.mark.parametrize("text", ["", "1", "1-", "01-2", "1-2-3", "-1-2", "1-2\n", "a-b", "9" * 20])
def test_a_text_that_is_no_epoch_is_refused(text):
    with pytest.raises(Malformed):
        Epoch.parse(text)


@proves("git.hostile-input")
@pytest.mark.parametrize("name", ["", "../x", "-rf", "a/b", "A", "a..b", "x" * 65, "a\n", "a.git"])
def test_a_name_that_could_be_a_path_or_an_option_is_refused(name):
    with pytest.raises(Malformed):
        repository_name(name)
    if len(name) < 65:
        for make in (fence_ref, lambda name: attempt_ref(name, NOW)):
            with pytest.raises(Malformed):
                make(name)


def test_only_history_refs_must_advance():
    assert must_advance(Update(ATTEMPT, ONE, TWO))
    assert not must_advance(Update(ATTEMPT, NONE, TWO))
    assert not must_advance(Update("refs/muster/fence/t1", ONE, TWO))
    assert not must_advance(Update(f"refs/heads/muster-post/{LAPTOP[:16]}", ONE, TWO))


@proves("schedule.register")
def test_the_register_of_a_schedule_only_moves_to_a_later_slot():
    name = schedule_ref(SCHEDULE)
    held = {ONE: b'{"nonce":"\\"slot\\":9,","slot":5,"what":"fire"}', TWO: b'{"slot":6}'}
    other = {"3" * 40: b'{"slot":5}', "4" * 40: b"{}", "7" * 40: b'{"slot":9' + b" " * 2_000}

    def move(new: str, now: str | None = ONE) -> str | None:
        known = {**held, **other, **({name: held[now]} if now else {})}
        return may_commit(Update(name, now or NONE, new), known.get)

    assert move(TWO) is None
    assert move(ONE, None) is None
    assert slot_of(held[ONE]) == 5
    for new in ("3" * 40, "4" * 40, "7" * 40, "8" * 40, ONE):
        assert move(new) is not None
    assert move(ONE, TWO) is not None
    assert not must_advance(Update(name, ONE, TWO))
