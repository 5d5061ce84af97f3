"""The keepers of a schedule in virtual time: what is fired, by whom, and what becomes of the rest."""

from typing import Any

import pytest
from tests.promise import proves

from muster.task.occurrences import Times, following, slots
from muster.task.slot_keeper import FIRE, MISS, SKIP, Keeper, Plan, Seen, Value, value_of

MINUTE = 60_000
HOUR = 60 * MINUTE
DAY = 24 * HOUR
NIGHTLY = Times(cron="30 2 * * *", zone="UTC")
SLOT = 2 * HOUR + 30 * MINUTE


class Watch:
    """Three keepers and a register; `away` machines do nothing, `cut` ones do not reach it."""

    def __init__(self, times: Times = NIGHTLY, **plan: Any) -> None:
        self.value, self.now, self.number = Value(), 0, 0
        self.away: set[str] = set()
        self.cut: set[str] = set()
        self.skew: dict[str, int] = {}
        self.seen: dict[str, Seen] = {}
        self.done: list[tuple[str, Value, int]] = []
        self.plan = {"late_ms": 6 * HOUR, "prompt_ms": 6 * MINUTE, **plan}
        self.keepers = {
            m: Keeper(
                m, "1",
                Plan(
                    n, lambda a, b: slots(times, a, b), lambda a: following(times, a, 1)[0], 0,
                    400 * DAY, **self.plan,
                ),
            )
            for n, m in enumerate(("nas", "studio", "laptop"))
        }  # fmt: skip

    def until(self, ms: int, step: int = MINUTE) -> None:
        while self.now < ms:
            self.now += step
            for m, keeper in self.keepers.items():
                if m not in self.away:
                    self.turn(m, keeper)

    def turn(self, m: str, keeper: Keeper) -> None:
        now, seen = self.now + self.skew.get(m, 0), self.seen.get(m, Seen())
        if not keeper.wants(now, self.now, seen):
            return
        keeper.ask(self.now)
        if m in self.cut:
            keeper.silent(self.now)
            return
        self.take(m, keeper.moved(self.value))
        claim = keeper.claim(now, seen, f"{self.number}")
        self.number += 1
        if claim is not None:
            assert claim.slot > self.value.slot
            self.value = claim
            self.take(m, keeper.moved(claim))

    def take(self, m: str, own: Value | None) -> None:
        if own is not None:
            self.done.append((m, own, self.now))

    @property
    def told(self) -> list[tuple[str, str, int, int]]:
        """Who did what of which slot, and how many more with it."""
        return [(m, v.what, v.slot, v.missed) for m, v, _ in self.done]


@proves("schedule.stand-ins")
def test_the_owner_fires_and_a_stand_in_does_where_that_is_away_for_longer_than_a_handover():
    watch = Watch()
    watch.until(SLOT + HOUR)
    assert watch.told == [("nas", FIRE, SLOT, 0)]
    # Asleep for less than the handover: late, by itself.
    watch.away = {"nas"}
    watch.until(SLOT + DAY + MINUTE)
    watch.away = set()
    watch.until(SLOT + DAY + HOUR)
    assert watch.told[1:] == [("nas", FIRE, SLOT + DAY, 0)]
    # Longer: the next one, and the one behind that where that is away as well.
    for away, by in (({"nas"}, "studio"), ({"nas", "studio"}, "laptop")):
        watch.away, before = away, len(watch.done)
        first = (watch.now // DAY + 1) * DAY + SLOT
        watch.until(first + HOUR)
        # Whoever wakes learns of it and does nothing.
        watch.away = set()
        watch.until(first + 2 * HOUR)
        assert watch.told[before:] == [(by, FIRE, first, 0)]
        assert watch.done[before][2] <= first + 5 * MINUTE


@proves("schedule.catch-up")
@pytest.mark.parametrize(
    ("catch_up", "told"),
    [
        ("latest", [(FIRE, SLOT + 2 * DAY, 2)]),
        ("none", [(MISS, SLOT + 2 * DAY, 3)]),
        ("all", [(FIRE, SLOT + 2 * DAY, 2)]),
    ],
)
def test_after_everybody_slept_the_first_awake_catches_up_as_the_schedule_says(catch_up, told):
    watch = Watch(catch_up=catch_up)
    watch.away = {"nas", "studio", "laptop"}
    watch.until(SLOT + 2 * DAY + 3 * HOUR)
    watch.away = {"nas"}
    watch.until(SLOT + 2 * DAY + 5 * HOUR)
    assert [(v.what, v.slot, v.missed) for _, v, _ in watch.done] == told
    assert watch.done[0][1].since == 0


@proves("schedule.catch-up")
def test_each_of_several_slots_is_caught_up_where_that_is_said_and_no_older_one():
    watch = Watch(Times(every_ms=HOUR), catch_up="all", overlap="allow", late_ms=3 * HOUR)
    watch.away = {"nas", "studio", "laptop"}
    watch.until(10 * HOUR + MINUTE)
    watch.away = set()
    watch.until(10 * HOUR + 30 * MINUTE)
    # What is older than three hours was missed, and is counted with the first.
    assert [(v.what, v.slot // HOUR, v.missed) for _, v, _ in watch.done] == [
        (FIRE, 8, 7), (FIRE, 9, 0), (FIRE, 10, 0)
    ]  # fmt: skip


@proves("schedule.every-slot-has-an-entry")
def test_what_is_too_late_is_missed_once_by_one_keeper_with_the_count_and_the_reason():
    watch = Watch()
    watch.away = {"nas", "studio", "laptop"}
    watch.until(SLOT + DAY + 8 * HOUR)
    watch.away = set()
    watch.seen["nas"] = Seen(awake_ms=watch.now)
    watch.until(SLOT + DAY + 9 * HOUR)
    assert watch.told == [("nas", MISS, SLOT + DAY, 2)]
    assert watch.done[0][1].reason == "asleep"


@proves("schedule.fence-first")
def test_without_the_register_nobody_fires_and_the_side_that_has_it_does():
    watch = Watch()
    watch.cut = {"nas"}
    watch.until(SLOT + HOUR)
    assert watch.told == [("studio", FIRE, SLOT, 0)]
    watch.cut = {"nas", "studio", "laptop"}
    watch.until(SLOT + DAY + 8 * HOUR)
    assert len(watch.done) == 1
    # Asked again, later each time, and no more often than every half minute.
    assert watch.keepers["nas"].silent_since_ms
    watch.seen["nas"] = Seen(unreached_ms=watch.keepers["nas"].silent_since_ms)
    watch.cut = set()
    watch.until(SLOT + DAY + 9 * HOUR)
    assert watch.told[1:] == [("nas", MISS, SLOT + DAY, 1)]
    assert watch.done[1][1].reason == "no-fence"


@proves("schedule.fired-once")
def test_a_clock_that_is_wrong_asks_for_nothing_and_one_that_is_set_back_repeats_nothing():
    watch = Watch()
    watch.seen["nas"] = Seen(skewed=True)
    watch.until(SLOT + HOUR)
    assert watch.told == [("studio", FIRE, SLOT, 0)]
    watch.seen.clear()
    watch.skew = dict.fromkeys(watch.keepers, -3 * HOUR)
    watch.until(SLOT + 6 * HOUR)
    assert len(watch.done) == 1


@proves("schedule.fence-first")
def test_a_clock_that_is_set_back_keeps_no_keeper_from_asking():
    watch = Watch(Times(every_ms=MINUTE), late_ms=10 * DAY)
    watch.cut = {"nas"}
    watch.away = {"studio", "laptop"}
    watch.skew = {"nas": 3 * DAY}
    watch.until(10 * MINUTE)
    # It asked in vain, in the time of a clock that is put right now.
    watch.cut, watch.skew = set(), {}
    watch.until(13 * MINUTE, step=1_000)
    assert [(v.what, v.slot // MINUTE) for _, v, _ in watch.done] == [
        (FIRE, 10), (FIRE, 11), (FIRE, 12), (FIRE, 13)
    ]  # fmt: skip


@proves("schedule.overlap")
def test_a_run_that_is_still_open_keeps_the_next_from_beginning_as_the_schedule_says():
    busy = Seen(busy="the run before is open")
    for overlap, told in (("skip", [(SKIP, 0)]), ("allow", [(FIRE, 0)]), ("replace", [(FIRE, 0)])):
        watch = Watch(overlap=overlap)
        watch.seen = dict.fromkeys(watch.keepers, busy)
        watch.until(SLOT + HOUR)
        assert [(v.what, v.missed - (v.what != FIRE)) for _, v, _ in watch.done] == told
    # One waits: it begins when the other one is over, in time.
    watch = Watch(overlap="queue")
    watch.seen = dict.fromkeys(watch.keepers, busy)
    watch.until(SLOT + 2 * HOUR)
    assert watch.told == []
    watch.seen = {}
    watch.until(SLOT + 3 * HOUR)
    assert watch.told == [("nas", FIRE, SLOT, 0)]
    # And is missed where that takes too long.
    watch.seen = dict.fromkeys(watch.keepers, busy)
    watch.until(SLOT + DAY + 8 * HOUR)
    assert watch.told[1:] == [("nas", MISS, SLOT + DAY, 1)]


@proves("schedule.paused")
def test_what_was_due_while_it_was_paused_is_skipped_as_one_range_and_never_caught_up():
    watch = Watch(paused_ms=HOUR)
    watch.until(SLOT + DAY + HOUR)
    assert watch.told == []
    for keeper in watch.keepers.values():
        keeper.plan = keeper.plan._replace(paused_ms=0, resumed_ms=watch.now)
    watch.until(SLOT + 2 * DAY + HOUR)
    assert watch.told == [("nas", SKIP, SLOT + DAY, 2), ("nas", FIRE, SLOT + 2 * DAY, 0)]
    assert watch.done[0][1].reason == "paused"


@proves("schedule.not-silent")
def test_whose_signer_may_not_order_it_any_more_is_skipped_with_the_reason():
    watch = Watch()
    watch.seen = dict.fromkeys(watch.keepers, Seen(denied="bob is revoked"))
    watch.until(SLOT + HOUR)
    assert watch.told == [("nas", SKIP, SLOT, 1)]
    assert watch.done[0][1].reason == "not-allowed: bob is revoked"


@proves("schedule.fired-once")
def test_a_claim_is_taken_up_by_its_own_life_alone_and_said_to_be_missed_where_it_was_replaced():
    watch = Watch()
    nas = watch.keepers["nas"]
    nas.moved(Value())
    claim = nas.claim(SLOT + MINUTE, Seen(), "aa")
    assert claim is not None
    again, other = Keeper("nas", "1", nas.plan), Keeper("nas", "2", nas.plan)
    # The next life in the same incarnation asks at once, and carries out what had moved.
    again.claims = {"aa": claim}
    assert again.wants(SLOT + MINUTE, MINUTE, Seen())
    assert again.moved(claim) == claim
    # A life from a backup does not, also where it remembers the claim.
    other.claims = {"aa": claim}
    assert other.moved(claim) is None
    # It had not moved: the same claim is said again, with nothing new.
    third = Keeper("nas", "1", nas.plan)
    third.claims = {"aa": claim}
    assert third.moved(Value()) is None
    assert third.claim(SLOT + 2 * MINUTE, Seen(), "bb") == claim
    # Somebody went past it: it had stood there, and is carried out by nobody any more.
    later = Value(SLOT + DAY, "studio", "1", "cc", FIRE, before="aa")
    assert third.moved(later) is None
    assert third.claim(SLOT + DAY + MINUTE, Seen(), "dd") is None
    assert third.replaced("aa") == claim
    assert third.replaced("aa") is None


@proves("schedule.form")
def test_what_a_register_holds_is_judged_before_it_is_believed():
    said = Value(5, "nas", "1", "aa", FIRE)._asdict()
    assert value_of(said) == Value(5, "nas", "1", "aa", FIRE)
    assert value_of({"slot": 7, "more": 1}) == Value(7)
    for wrong in ({"slot": "5"}, {"slot": -1}, {"slot": True}, {"by": 3}, {"slot": 2**60}):
        with pytest.raises(ValueError, match="register"):
            value_of({**said, **wrong})
