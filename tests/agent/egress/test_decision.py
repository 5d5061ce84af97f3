"""What is told of what was reached, and of what was refused."""

from tests.promise import proves

from muster.agent.egress.decision import (
    ALLOWED_TOLD_MAX,
    OTHERS,
    REFUSED_TOLD_MAX,
    Account,
    Decision,
)


@proves("egress.told-in-sums")
def test_the_same_refusal_is_told_once_and_counted_at_the_end():
    told: list[Decision] = []
    account = Account(told.append)
    for _ in range(10_000):
        account.add(Decision("evil.test", 443, allowed=False, why="no", ms=1))
    assert told == [Decision("evil.test", 443, allowed=False, why="no", ms=1)]
    account.close()
    assert told[1:] == [Decision("evil.test", 443, allowed=False, why="no", ms=9_999, times=9_999)]
    account.close()
    assert len(told) == 2


@proves("egress.told-in-sums")
def test_a_flood_of_different_refusals_is_told_in_one_sum():
    told: list[Decision] = []
    account = Account(told.append)
    for number in range(10_000):
        account.add(Decision(f"{number}.test", 443, allowed=False, why="no"))
    account.close()
    assert len(told) == REFUSED_TOLD_MAX + 1
    assert told[-1].host == OTHERS
    assert sum(each.times for each in told) == account.refused == 10_000


@proves("egress.told-in-sums")
def test_what_was_allowed_is_told_one_by_one_and_then_summed_by_host():
    told: list[Decision] = []
    account = Account(told.append)
    for _ in range(ALLOWED_TOLD_MAX + 50):
        account.add(Decision("a.test", 443, allowed=True, sent_bytes=1, received_bytes=2))
    account.close()
    assert len(told) == ALLOWED_TOLD_MAX + 1
    assert (told[-1].times, told[-1].sent_bytes, told[-1].received_bytes) == (50, 50, 100)
    for number in range(5_000):
        account.add(Decision(f"{number}.test", 443, allowed=True, sent_bytes=1))
    account.close()
    assert len(told) < 2 * ALLOWED_TOLD_MAX + 2 * REFUSED_TOLD_MAX
    assert sum(each.times for each in told) == account.allowed
