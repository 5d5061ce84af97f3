"""Ids that say whose they are: an order, however it is written, begins one run of one owner."""

import hashlib

from tests.promise import proves

from muster.task.identity import branch_of, one_of, order_id, run_id, task_id

OWNER, OTHER = "1" * 64, "2" * 64


@proves("task.ids-name-their-owner")
def test_an_id_follows_from_who_owns_it_and_from_the_order_alone():
    said = f"muster/run/v1\n{OWNER}\n00ff".encode()
    assert run_id(OWNER, "00ff") == hashlib.sha256(said).hexdigest()[:32]
    runs = {run_id(owner, order) for owner in (OWNER, OTHER) for order in ("00ff", "00fe")}
    assert len(runs) == 4
    places = {task_id(r, p, i) for r in ("r1", "r2") for p in ("a", "b") for i in ("", "1", "b")}
    assert len(places) == 12


@proves("task.one-order-one-run")
def test_an_order_is_told_apart_by_its_bytes_and_not_by_how_its_hex_is_written():
    assert order_id("00ff") == order_id("00FF") == hashlib.sha256(b"\x00\xff").hexdigest()
    assert order_id("00fe") != order_id("00ff")
    # What is no hex is no order, and "" was none.
    for odd in ("", "0", "zz", "00f", "ä", "0x00"):
        assert order_id(odd) == ""


@proves("task.one-order-one-run")
def test_of_several_runs_of_one_order_everybody_names_the_same_one():
    own = run_id(OWNER, "00ff")
    for runs in ([own, "a", "b"], ["b", "a", own], [own]):
        assert one_of(runs, OWNER, "00ff") == one_of(runs, OWNER, "00FF") == own
    # Where none of them has the id that follows from it, the lowest.
    for runs in (["b", "a", "c"], ["c", "b", "a"]):
        assert one_of(runs, OWNER, "00ff") == "a"
    assert one_of(["b", run_id(OTHER, "00ff")], OWNER, "00ff") in ("b", run_id(OTHER, "00ff"))


def test_each_instance_of_a_phase_ends_on_a_branch_of_its_own_and_rounds_on_one():
    assert branch_of("r1", "build") == "muster/r1/build"
    assert branch_of("r1", "") == "muster/r1/task"
    odd = ["a", "A", "a b", "a/b", "../..", "世界", "x" * 99, "x" * 98, "-a", "a.lock"]
    branches = [branch_of("r1", "build", each) for each in odd]
    assert len({each.lower() for each in branches}) == len(odd)
    for branch in branches:
        tail = branch.removeprefix("muster/r1/build-")
        assert len(tail) <= 33
        assert tail.replace("-", "").isalnum()
        assert tail.isascii()
