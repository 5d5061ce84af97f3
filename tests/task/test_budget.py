"""What work may use up, as sums: pots, shares, and what an attempt's end says it used."""

import random

import pytest
from tests.promise import proves

from muster.task import budget, pot
from muster.task.budget import Amount, Budget, RunBudget
from muster.task.pot import SPENT, WAIT, Part, Share, share, state

M = budget.MILLION


def of(usd: int = 0, tokens: int = 0) -> Amount:
    return Amount(tokens, usd)


@proves("budget.shares")
@pytest.mark.parametrize(
    ("most", "parts", "want", "sharers", "got"),
    [
        (of(10), [], of(), 1, Share(of(10))),
        (of(10), [], of(), 3, Share(of(3))),
        (of(10), [], of(4), 3, Share(of(4))),
        (of(10), [Part(of(8))], of(4), 1, Share(none=WAIT)),
        (of(10), [Part(of(8), of(7))], of(4), 1, Share(of(3))),
        (of(10), [Part(of(10))], of(), 1, Share(none=WAIT)),
        (of(10), [Part(of(8), of(10))], of(1), 1, Share(none=SPENT)),
        (of(10), [Part(of(8), of(10)), Part(of(1))], of(1), 1, Share(none=SPENT)),
        (of(0, 9), [], of(4), 1, Share(of(4, 9))),
        (of(5, 9), [Part(of(1, 9), of(1, 9))], of(1), 1, Share(none=SPENT)),
        (of(2), [], of(), 9, Share(of(1))),
        (of(), [Part(of(8))], of(3), 1, Share(of(3))),
        (of(), [], of(), 1, Share()),
    ],
)
def test_an_attempt_gets_what_it_wants_or_its_share_or_waits(most, parts, want, sharers, got):
    assert share([state(most, parts)], want, sharers) == got


@proves("budget.shares")
def test_of_several_limits_the_tightest_holds_and_a_spent_one_ends_it():
    day, month = state(of(10), []), state(of(30), [Part(of(28), of(28))])
    assert share([day, month], of(5)) == Share(of(2))
    assert share([day, state(of(30), [Part(of(31), of(31))])], of(5)) == Share(none=SPENT)
    assert share([], of(5)) == Share(of(5))
    assert of(2, 8).within(of(0, 5)) == of(2, 5)
    assert [of(2).is_above(each) for each in (of(), of(2), of(1), of(9, 1))] == [0, 0, 1, 0]
    days = {("a", 1, 1): (20261128, Part(of(1))), ("b", 1, 1): (20261101, Part(of(2)))}
    assert pot.days_parts(days, 20261128) == [Part(of(1))]
    assert len(pot.months_parts(days, 20261130)) == 2
    assert pot.months_parts(days, 20261201) == []


@proves("budget.pot")
def test_what_an_end_says_is_counted_reported_or_unknown():
    counted = {"metered": 1, "tokens": 7, "usd_millionths": 5, "reported_tokens": 9}
    assert budget.used(counted) == budget.Used(of(5, 7))
    assert budget.used({**counted, "estimated": 1}).estimated
    assert budget.used({"metered": 1}) == budget.Used()
    assert budget.used({}) == budget.Used(estimated=True, known=False)
    said = {"input_tokens": 3, "output_tokens": 4, "cache_read_input_tokens": 2}
    assert budget.used(said) == budget.Used(of(0, 9), estimated=True)
    assert budget.used({**said, "total_tokens": 8}).amount.tokens == 8
    offs = [budget.difference({**counted, "reported_tokens": n}) for n in (0, 6, 7, 8, 70)]
    assert offs == [0, -15, 0, 14, 900]
    assert budget.difference({"tokens": 7, "reported_tokens": 70}) == 0


@proves("budget.bounded")
@pytest.mark.parametrize(
    ("used", "reserved", "counts"),
    [
        (of(3), of(2), of(3)),
        (of(5 * M), of(2), of(5 * M)),
        (of(6 * M), of(2), of(5 * M + 2)),
        (of(41 * M), of(20 * M), of(40 * M)),
        (of(0, 9 * M), of(2), of(0, 9 * M)),
        (of(0, 9 * M), of(0, 8), of(0, M + 8)),
        (of(1 << 62, 1 << 62), of(), of(10**15, 10**15)),
    ],
)
def test_an_end_counts_with_no_more_than_was_reserved_and_a_call(used, reserved, counts):
    assert pot.counted(used, reserved) == counts


def test_a_day_is_one_of_a_month_and_no_time_is_none():
    assert [pot.day_of(at) for at in (0, 1_790_000_000_000, 1 << 62, -(1 << 62))] == [
        19700101, 20260921, 0, 0
    ]  # fmt: skip
    assert pot.month_of(20260921) == 20260901


def test_budgets_as_a_spec_writes_them():
    assert Budget(tokens=3, usd="2.5").amount == of(2_500_000, 3)
    assert RunBudget(time="1h30m").time_ms == 5_400_000
    assert budget.attempt_limit({"budget": {"tokens": 4}}, {}) == of(0, 4)
    assert budget.attempt_limit({"budget": {"tokens": 4}}, {"usd_millionths": 9}) == of(9)
    assert budget.run_limit(RunBudget(tokens=5), {}) == of(0, 5)
    assert budget.said(of(2 * M, 3)) == "3 tokens and $2.00"


class World:
    """A pot, its keeper, attempts that spend from it call by call, and a network that is cut.

    `most` is passed by no more than what one call of each attempt uses beyond what it had left.
    """

    def __init__(self, seed: int) -> None:
        self.rng = random.Random(seed)
        self.most = of(self.rng.randint(50, 500))
        self.parts: dict[int, Part] = {}
        self.running: dict[int, list[int]] = {}
        self.ended: dict[int, int | None] = {}
        self.spent = self.beyond = self.began = self.next = 0
        self.away: set[int] = set()

    def step(self) -> None:
        what = self.rng.choice(("ask", "call", "call", "call", "end", "die", "cut", "heal", "hear"))
        getattr(self, what)()
        held = state(self.most, self.parts.values())
        assert held.held.usd_millionths + held.used.usd_millionths <= (
            self.most.usd_millionths + self.beyond
        )
        assert self.spent <= self.most.usd_millionths + self.beyond

    def ask(self) -> None:
        """Another attempt asks; while the keeper is cut off from it, it does not begin."""
        self.next += 1
        want = of(self.rng.choice((0, 0, self.rng.randint(1, 120))))
        got = share([state(self.most, self.parts.values())], want, self.rng.randint(1, 3))
        if self.rng.random() < 0.2 or got.none:
            return
        self.parts[self.next] = Part(got.amount)
        # The answer may be lost: then it never begins, and says so one day.
        if self.rng.random() < 0.1:
            self.ended[self.next] = 0
            return
        self.running[self.next] = [got.amount.usd_millionths, 0]
        self.began += 1

    def call(self) -> None:
        """Its gateway begins a call while anything is left; the prompt is known afterwards."""
        if not self.running:
            return
        name = self.rng.choice(sorted(self.running))
        most, used = self.running[name]
        if used < most:
            cost = self.rng.randint(1, 40)
            self.running[name][1] += cost
            self.spent += cost
            self.beyond += max(0, used + cost - most)

    def end(self) -> None:
        if self.running:
            name = self.rng.choice(sorted(self.running))
            self.ended[name] = self.running.pop(name)[1]

    def die(self) -> None:
        """Nobody ever knows what it used."""
        if self.running and self.rng.random() < 0.3:
            name = self.rng.choice(sorted(self.running))
            self.running.pop(name)
            self.ended[name] = None

    def cut(self) -> None:
        self.away |= {name for name in self.parts if self.rng.random() < 0.5}

    def heal(self) -> None:
        self.away.clear()

    def hear(self) -> None:
        """The keeper hears of an end, early or late; a second time it changes nothing."""
        for name in list(self.ended):
            if name not in self.away and self.rng.random() < 0.5:
                used, part = self.ended[name], self.parts[name]
                if part.settled is None:
                    known = part.reserved if used is None else of(used)
                    self.parts[name] = part._replace(settled=known)


@proves("budget.pot")
def test_in_a_thousand_seeds_with_partitions_a_pot_is_passed_by_one_call_of_each_at_most():
    began = spent = waited = 0
    for seed in range(1_000):
        world = World(seed)
        for _ in range(60):
            world.step()
        began += world.began
        spent += world.spent
        waited += world.next - world.began
    # The worlds were no peaceful ones.
    assert (began > 3_000, spent > 50_000, waited > 2_000) == (True, True, True)


@proves("budget.pot")
def test_without_the_reservation_the_same_worlds_pass_their_pots(monkeypatch):
    monkeypatch.setitem(globals(), "share", lambda *_: Share(of(120)))
    with pytest.raises(AssertionError):
        for seed in range(20):
            world = World(seed)
            for _ in range(60):
                world.step()
