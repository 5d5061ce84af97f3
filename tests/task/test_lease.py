"""Leases on two clocks."""

from hypothesis import given
from hypothesis import strategies as st
from tests.promise import proves

from muster import limits
from muster.task.alarms import Alarms
from muster.task.lease import lease_end_ms, make_mark, worker_lease_ms

times = st.integers(0, 10**9)


@proves("task.worker-ends-first")
@given(sent=times, way=times, until_grant=times, skew=st.integers(-(10**9), 10**9))
def test_the_workers_lease_ends_before_the_owners_whatever_the_delays(sent, way, until_grant, skew):
    """The worker's clock at the beat, on the owner's clock: sent; skew is unknown to both."""
    worker_clock_at_beat = sent + skew + 10**9
    mark = make_mark("s1", worker_clock_at_beat)
    granted_at = sent + way + until_grant
    worker_end = lease_end_ms(mark, "s1", limits.LEASE_MS) - skew - 10**9
    assert worker_end + limits.LEASE_MARGIN_MS <= granted_at + limits.LEASE_MS


@proves("task.worker-ends-first")
def test_a_mark_of_another_session_or_of_no_form_grants_nothing():
    for mark in ("", "s1", "s2:5", "s1:", "s1:-5", "s1:٣", "s1:5 ", "s1:" + "9" * 17, ":5"):
        assert lease_end_ms(mark, "s1", 30_000) == 0
    assert lease_end_ms("s1:5", "s1", 30_000) == 5 + worker_lease_ms(30_000)


@given(st.integers(0, 10**6))
def test_a_workers_lease_is_shorter_and_never_negative(lease_ms):
    assert 0 <= worker_lease_ms(lease_ms) <= lease_ms
    assert lease_ms == 0 or worker_lease_ms(lease_ms) < lease_ms or lease_ms == 1


operations = st.lists(
    st.tuples(st.sampled_from(["set", "clear", "due"]), st.sampled_from("abc"), st.integers(0, 50)),
    max_size=60,
)


@given(operations)
def test_alarms_ring_once_when_due_and_never_early(steps):
    alarms, model, now = Alarms(), {}, 0
    for what, key, number in steps:
        if what == "set":
            alarms.set(key, number)
            model[key] = number
        elif what == "clear":
            alarms.clear(key)
            model.pop(key, None)
        else:
            now = max(now, number)
            due = {k for k, at in model.items() if at <= now}
            rung = alarms.due(now)
            assert set(rung) == due
            assert len(rung) == len(due)
            for each in due:
                del model[each]


def test_alarms_do_not_grow_with_what_was_cleared():
    alarms = Alarms()
    for number in range(10_000):
        alarms.set(str(number), number)
        alarms.clear(str(number))
    assert len(alarms._heap) < 200
