"""Whose packets are taken next, and what a name tells."""

from itertools import islice

from tests.channel.fellows import known_to, secrets_of
from tests.promise import proves

from muster.channel.turn import NAME, Looks, Lying, Names, in_turn, writer_of

HASH = "ab" * 32


def names_of(machine: str) -> Names:
    return Names(machine, *known_to(machine).values())


@proves("channel.post-fair")
def test_of_each_writer_one_is_taken_and_then_of_each_the_next_and_what_is_nobodys_last():
    waiting = {"b": ["b1", "b2", "b3"], "a": ["a1"], "c": ["c1", "c2"]}
    assert [each for _, each in in_turn(waiting, last=["x"])] == [
        "a1", "b1", "c1", "b2", "c2", "b3", "x",
    ]  # fmt: skip
    assert [each for _, each in in_turn(waiting, after="a")][:3] == ["b1", "c1", "a1"]
    assert next(in_turn(waiting, after="b and gone")) == ("c", "c1")


@proves("channel.post-fair")
def test_more_writers_than_are_taken_at_once_have_each_their_turn():
    looks, seen = Looks[str](), set()
    for _ in range(4):
        lying = [Lying(f"{n:03}", n, n, f"{n:03}") for n in range(100)]
        seen |= set(islice(looks.order(lying), 25))
    assert len(seen) == 100


@proves("channel.post-fair")
def test_the_name_of_a_packet_tells_its_writer_to_its_receiver_and_nobody_makes_one_for_another():
    far, third = names_of("far"), names_of("third")
    name = names_of("near").name("far", HASH)
    assert NAME.match(name)
    assert writer_of(name, far.hints()) == "near"
    assert writer_of(name, third.hints()) is None, "and to nobody else"
    assert "near" not in name
    # Another content under it, the mark of another machine, and what is made up.
    other = "cd" * 32
    marked = third.name("far", HASH).split("-")
    for forged in (
        name.replace(HASH, other),
        "-".join([*name.split("-")[:2], marked[2], f"{HASH}.mp"]),
        f"of-{'0' * 16}-{'0' * 16}-{HASH}.mp",
    ):
        assert NAME.match(forged)
        assert writer_of(forged, far.hints()) is None


@proves("channel.post-fair")
def test_who_is_not_known_to_read_names_is_left_what_it_finds_and_its_own_has_a_turn():
    assert names_of("older").name("far", HASH) == f"{HASH}.mp"
    assert writer_of(f"{HASH}.mp", names_of("far").hints()) == ""
    reads: set[str] = set()
    near = Names("near", lambda: secrets_of("near"), reads.__contains__)
    assert near.name("far", HASH) == f"{HASH}.mp"
    reads.add("far")
    assert near.name("far", HASH).startswith("of-")
    assert near.name("stranger", HASH) == f"{HASH}.mp"


@proves("channel.post-fair")
def test_only_what_is_its_own_fills_the_mailbox_for_a_machine():
    near, third = names_of("near"), names_of("third")
    is_ours = near.ours("far")
    assert is_ours(near.name("far", HASH))
    assert not is_ours(third.name("far", HASH))
    assert not is_ours(near.name("far", HASH).replace(HASH, "cd" * 32))
    assert not is_ours(f"{HASH}.mp")
    assert names_of("older").ours("far")(f"{HASH}.mp")


@proves("channel.post-fair")
def test_of_what_tells_no_writer_the_newest_comes_and_all_of_it_whatever_cannot_be_read():
    looks, seen = Looks[int](), list[int]()
    lying = [Lying("", age, age, age) for age in range(100)]
    # Nothing of it ever goes: each look goes on where the last one ended.
    seen = list(islice(looks.order(lying), 10))
    assert 99 in seen[:2]
    for _ in range(30):
        seen += islice(looks.order(lying), 10)
    assert set(seen) == set(range(100))
