"""The judge of `make chaos`: each thing that may be wrong is found, by its name."""

import pytest

from tests.e2e.net.verdict import Message, SetBack, judge, quantiles_ms
from tests.promise import proves


@pytest.fixture
def said() -> list[Message]:
    """Four messages of a to b, and one of c; accepted in the seconds 1 to 4."""
    four = [Message("a", "b", n, n - 0.5, float(n)) for n in range(1, 5)]
    return [*four, Message("c", "b", 1, 0.5, 1.0)]


def inbox(said: list[Message]) -> list[str]:
    return [message.text for message in said]


@proves("chaos.the-judge-sees")
def test_nothing_is_wrong_where_all_is_there_once_and_in_order(said: list[Message]):
    verdict = judge(said, {"b": inbox(said), "a": []})
    assert (verdict.problems, verdict.excused) == ([], 0)
    # What others said may stand anywhere between.
    assert judge(said, {"b": inbox([said[4], *said[:4]])}).problems == []


@proves("chaos.the-judge-sees")
def test_a_lost_message_is_named(said: list[Message]):
    assert judge(said, {"b": inbox(said[:2] + said[3:])}).problems == ["lost: a to b: 3"]


@proves("chaos.the-judge-sees")
def test_a_doubled_message_is_named(said: list[Message]):
    assert judge(said, {"b": inbox([*said, said[1]])}).problems == ["twice: a to b: 2"]


@proves("chaos.the-judge-sees")
def test_a_swapped_message_is_named(said: list[Message]):
    swapped = [said[0], said[2], said[1], *said[3:]]
    assert judge(said, {"b": inbox(swapped)}).problems == ["out of order: a to b: 2"]


@proves("chaos.the-judge-sees")
def test_what_nobody_said_or_what_is_with_another_is_named(said: list[Message]):
    verdict = judge(said, {"b": [*inbox(said), "a to b: 9"], "c": ["a to b: 1"]})
    assert verdict.problems == ["said by nobody: 'a to b: 9' at b, 'a to b: 1' at c"]


@proves("chaos.the-judge-sees")
def test_what_was_never_accepted_may_be_there_and_may_not(said: list[Message]):
    said[3].accepted_s = 0
    assert judge(said, {"b": inbox(said)}).problems == []
    assert judge(said, {"b": inbox(said[:3] + said[4:])}).problems == []


@proves("chaos.the-judge-sees")
def test_only_a_sender_that_was_set_back_and_heard_nothing_is_excused(said: list[Message]):
    without_3 = {"b": inbox(said[:2] + said[3:])}
    excused = judge(said, without_3, [SetBack("a", 2.5, 3.5)])
    assert (excused.problems, excused.excused) == ([], 1)
    lost = ["lost: a to b: 3"]
    # Another machine, a copy that had it, and one that was set back before it was said.
    for set_back in (SetBack("b", 2.5, 3.5), SetBack("a", 3.1, 3.5), SetBack("a", 0.5, 2.9)):
        assert judge(said, without_3, [set_back]).problems == lost
    # Its sender had been told that it is stored at the other end.
    said[2].stored_s = 3.2
    assert judge(said, without_3, [SetBack("a", 2.5, 3.5)]).problems == lost
    # It heard so afterwards, of a machine that had lost it: then it had arrived.
    said[2].stored_s = 3.9
    assert judge(said, without_3, [SetBack("a", 2.5, 3.5)]).excused == 1


@proves("chaos.the-judge-sees")
def test_only_who_was_set_back_before_it_answered_may_say_it_again(said: list[Message]):
    doubled = {"b": inbox([*said, said[1]])}
    excused = judge(said, doubled, [SetBack("a", 0.5, 1.7)])
    assert (excused.problems, excused.again) == ([], 1)
    # Another machine; one that was set back before it was asked, or after it had answered.
    for set_back in (SetBack("b", 0.5, 1.7), SetBack("a", 0.5, 1.4), SetBack("a", 0.5, 2.1)):
        assert judge(said, doubled, [set_back]).problems == ["twice: a to b: 2"]
    thrice = {"b": inbox([*said, said[1], said[1]])}
    assert judge(said, thrice, [SetBack("a", 0.5, 1.7)]).problems == ["twice: a to b: 2"]


@proves("chaos.the-judge-sees")
def test_the_times_are_those_of_what_arrived(said: list[Message]):
    for n, message in enumerate(said[:3], 1):
        message.stored_s = message.begun_s + n
    said[2].seen_s = said[2].begun_s + 2.5
    assert quantiles_ms(said) == (2000.0, 2500.0, 2500.0)
    assert quantiles_ms([]) == (0.0, 0.0, 0.0)
