"""What counts of an agent on a machine: results that somebody else looked at, and nothing else."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tests.promise import proves
from tests.task.world import BUILD, STUDIO, Stream, World, machine, of, order

from muster.task import kinds
from muster.task.identity import task_id
from muster.task.instruction import Fenced, Now, Promoted
from muster.task.trust import CHECKED, NOTHING_KNOWN, PASSED, Standing, TrustFold

OWNER = "0" * 64
CHECKED_WORK = {"agent": "shell", "do": "x", "check": "true"}
RUN = "r1"


def told(stream: Stream) -> list[tuple[str, str, str]]:
    """Of each result the machine, the agent and what came of it."""
    rows = sorted(stream.rows.every(CHECKED), key=lambda row: row.seq)
    return [(row.machine[:1], row.agent, row.outcome) for row in rows]


def owner() -> Stream:
    return Stream(OWNER, folds=(TrustFold(),))


class Log:
    """An owner's stream, one attempt after the other."""

    def __init__(self) -> None:
        self.stream = owner()
        self.count = 0

    def open(self, name: str, template=CHECKED_WORK, **more) -> str:
        self.stream.append(kinds.TaskOpen(name, template, **more))
        return name

    def give(self, name: str, to: str = BUILD, agent: str = "claude") -> tuple[int, int]:
        self.count += 1
        epoch = (1, self.count)
        self.stream.append(kinds.TaskAssign(name, epoch, to, agent, 1000))
        return epoch

    def settle(self, name: str, epoch, outcome="done", summary="said", **more) -> None:
        self.stream.append(kinds.TaskSettle(name, outcome, epoch, summary, **more))

    def result(self, name: str, outcome="done", template=CHECKED_WORK, **who) -> None:
        self.settle(self.open(name, template), self.give(name, **who), outcome)


@proves("task.trust-checked-only")
def test_a_result_counts_where_a_check_passed_or_failed_and_nowhere_else():
    log = Log()
    log.result("a")
    log.result("b", template={"agent": "shell", "do": "x", "deliver": ["y"]})
    log.result("c", "failed", to=STUDIO)
    log.result("d", "lost")
    assert told(log.stream) == [("b", "claude", "passed"), ("5", "claude", "failed")]


@proves("task.trust-no-machines-fault")
def test_what_is_nobodys_failure_is_not_counted():
    log = Log()
    epoch = log.give(log.open("a"))
    log.stream.append(kinds.TaskExpire("a", epoch, "the lease ended"))
    epoch = log.give("a", STUDIO)
    log.stream.append(kinds.TaskRetry("a", epoch, "refused", "no"))
    epoch = log.give("a")
    # The deadline: the owner ends it without an attempt's word.
    log.settle("a", epoch, "failed", summary="", reason="the deadline passed")
    epoch = log.give(log.open("b"))
    log.stream.append(kinds.TaskCancel("b", "racer 2 passed first"))
    log.stream.append(kinds.TaskLate("b", epoch, BUILD, "done"))
    assert told(log.stream) == []


def checked_world(retries: int = 0, **more) -> World:
    world = World(machine(BUILD))
    world.stream = owner()
    world.stream.folds = (*Stream(OWNER).folds, TrustFold())
    world.submit(order("t1", template=CHECKED_WORK, retries=retries, **more))
    return world


@proves("task.trust-no-machines-fault")
def test_an_order_that_can_begin_nowhere_ends_without_a_failure_of_its_agent():
    world = checked_world(retries=1)
    begun = kinds.AttemptRefuse("t1", (1, 1), "no-start", "test and lint conflict")
    (retry,) = of(world.say(BUILD, begun), kinds.TaskRetry)
    assert (retry.why, retry.reason) == ("refused", "it could not begin: test and lint conflict")
    assert world.owner.faults() == {}, "nor of its machine"
    world.later(retry.after_ms)
    world.tick()
    world.flush()
    world.restart(2)
    world.say(BUILD, kinds.AttemptRefuse("t1", (1, 2), "no-start", "test and lint conflict"))
    row = world.stream.task("t1")
    assert (row.state, row.summary, row.tries) == ("failed", "", 0)
    assert row.reason == "it could not begin: test and lint conflict"
    assert told(world.stream) == []


@proves("task.trust-no-machines-fault")
@pytest.mark.parametrize("retries", [0, 1])
def test_a_branch_that_its_owner_cannot_move_is_no_failure_of_the_agent(retries):
    world = checked_world(retries, repo="main")
    world.owner.fenced(Fenced("t1", (1, 1)), world.now)
    world.flush()
    world.finish("t1", commit="a" * 40, summary="mended", usage={"tokens": 7})
    world.owner.promoted(Promoted("t1", (1, 1), reason="no machine keeps main"), world.now)
    out = world.flush()
    if retries:
        (retry,) = of(out, kinds.TaskRetry)
        assert (retry.why, retry.reason) == ("refused", "no machine keeps main")
    else:
        (end,) = of(out, kinds.TaskSettle)
        assert (end.outcome, end.reason, end.summary) == ("failed", "no machine keeps main", "")
        assert (end.commit, end.usage) == ("a" * 40, {"tokens": 7}), "what it made is named"
    assert told(world.stream) == []


@proves("task.trust-checked-only")
def test_each_attempt_of_a_task_is_its_agents_result():
    log = Log()
    epoch = log.give(log.open("a"))
    log.stream.append(kinds.TaskRetry("a", epoch, "failed", "the check failed"))
    log.settle("a", log.give("a", STUDIO, "codex"))
    assert told(log.stream) == [("b", "claude", "failed"), ("5", "codex", "passed")]


def reviewed(log: Log, instance: str = "", reviewers=("verdict",)) -> str:
    author = {**CHECKED_WORK, "reviewers": list(reviewers)}
    name = task_id(RUN, "feature", instance)
    log.open(name, author, run=RUN, phase="feature", instance=instance)
    log.settle(name, log.give(name))
    return name


def judge(
    log: Log, said: str, phase="verdict", instance="", to=STUDIO, agent="codex", did=""
) -> None:
    name = task_id(RUN, phase, instance)
    template = {"agent": "codex", "do": "look", "review": "feature"}
    values = {"run": {"did": did}}
    log.open(name, template, run=RUN, phase=phase, instance=instance, values=values)
    log.settle(name, log.give(name, to, agent), values={"verdict": said})


@proves("task.trust-reviews-count")
def test_what_is_reviewed_passes_with_the_accept_and_fails_with_the_rejection():
    log = Log()
    reviewed(log)
    assert told(log.stream) == [], "its check alone is not enough"
    judge(log, "reject")
    assert told(log.stream) == [("b", "claude", "failed")]
    reviewed(log, "round:2")
    judge(log, "accept", instance="round:2")
    assert told(log.stream) == [("b", "claude", "failed"), ("b", "claude", "passed")]


@proves("task.trust-reviews-count")
def test_all_reviewers_must_accept_and_one_rejection_counts_once():
    log = Log()
    reviewed(log, reviewers=("verdict", "second"))
    judge(log, "accept")
    assert told(log.stream) == []
    judge(log, "accept", "second")
    assert told(log.stream) == [("b", "claude", "passed")]
    log = Log()
    reviewed(log, reviewers=("verdict", "second"))
    judge(log, "reject")
    judge(log, "reject", "second")
    assert told(log.stream) == [("b", "claude", "failed")]


@proves("task.trust-reviews-count")
@pytest.mark.parametrize(
    ("said", "judges", "wanted"),
    [
        ("reject", 1, [("b", "claude", "failed")]),
        ("reject", 2, [("b", "claude", "failed")]),
        ("accept", 1, [("b", "claude", "passed")]),
        # Whether the other one accepted stands in another stream.
        ("accept", 2, []),
    ],
)
def test_what_was_done_before_its_owner_began_anew_is_judged_all_the_same(said, judges, wanted):
    log = Log()
    judge(log, said, did=f"{BUILD} claude 1-7 {judges}")
    assert told(log.stream) == wanted
    assert [(row.epoch_order, row.epoch_count) for row in log.stream.rows.every(CHECKED)] == [
        (1, 7)
    ] * len(wanted)


@proves("task.trust-nobody-vouches-for-itself")
@pytest.mark.parametrize("did", ["", f"{BUILD} claude 1-7", f"{BUILD} claude 1-x 1", f"{STUDIO} codex 1-7 1", "  1-7 1"])  # fmt: skip
def test_what_an_opening_does_not_say_or_says_of_the_reviewer_itself_counts_for_nothing(did):
    log = Log()
    judge(log, "reject", did=did)
    assert told(log.stream) == []


@proves("task.trust-nobody-vouches-for-itself")
def test_an_agent_that_reviews_itself_earns_nothing():
    log = Log()
    reviewed(log)
    judge(log, "accept", to=BUILD, agent="claude")
    assert told(log.stream) == []


@proves("task.trust-nobody-vouches-for-itself")
@pytest.mark.parametrize("said", ["", "maybe", "Accept"])
def test_what_is_no_verdict_counts_for_nothing(said):
    log = Log()
    reviewed(log)
    judge(log, said)
    assert told(log.stream) == []


@proves("task.trust-nobody-vouches-for-itself")
def test_a_review_of_what_was_not_to_be_reviewed_or_is_not_there_counts_for_nothing():
    log = Log()
    name = task_id(RUN, "feature", "")
    log.open(name, {"agent": "shell", "do": "x", "check": "true"}, run=RUN, phase="feature")
    log.give(name)
    judge(log, "accept")
    other = Log()
    judge(other, "accept")
    assert told(log.stream) == told(other.stream) == []


@proves("task.trust-once")
def test_an_epoch_has_one_result_whatever_is_said_of_it_later():
    log = Log()
    epoch = log.give(log.open("a"))
    log.settle("a", epoch)
    log.settle("a", epoch, "failed")
    log.settle("a", (1, 99))
    log.stream.append(kinds.TaskRetry("a", epoch, "failed", "no"))
    assert told(log.stream) == [("b", "claude", "passed")]


@proves("task.trust-checked-only")
def test_a_worker_that_claims_earns_nothing_in_its_own_stream():
    stream = owner()
    stream.append(kinds.AttemptFinish("a", (1, 1), "done", values={"verdict": "accept"}))
    assert told(stream) == []


@proves("task.trust-standing")
def test_a_standing_is_what_people_read_and_falls_with_a_failure():
    standing = NOTHING_KNOWN
    assert str(standing) == ""
    for number in range(13):
        standing = standing.after("failed" if number == 4 else PASSED)
    assert str(standing) == "12 of 13 checked results passed, 8 in a row"
    assert standing.after("failed")[:3] == (12, 2, 0)
    assert str(Standing().after(PASSED)) == "1 of 1 checked result passed"


@proves("task.trust-standing")
@settings(max_examples=100, deadline=None)
@given(st.lists(st.sampled_from([PASSED, "failed"]), max_size=60))
def test_a_standing_counts_and_its_average_stays_within_its_bounds(outcomes):
    standing = NOTHING_KNOWN
    for outcome in outcomes:
        standing = standing.after(outcome)
    assert (standing.passed, standing.failed) == (
        outcomes.count(PASSED), outcomes.count("failed"),
    )  # fmt: skip
    tail = 0
    for outcome in outcomes:
        tail = tail + 1 if outcome == PASSED else 0
    assert standing.streak == tail
    assert 0 <= standing.success <= 1000


@proves("task.trust-routes")
def test_what_is_known_of_an_agent_moves_work_and_stands_in_the_reason():
    known = {BUILD: NOTHING_KNOWN, STUDIO: NOTHING_KNOWN}
    for _ in range(8):
        known[BUILD], known[STUDIO] = known[BUILD].after("failed"), known[STUDIO].after(PASSED)
    world = World(machine(BUILD), machine(STUDIO), standing=lambda where, _agent: known[where])
    world.submit(order("t"))
    (assigned,) = of(world.seen, kinds.TaskAssign)
    assert assigned.machine == STUDIO
    reasons = {who: why for who, _, _, why in assigned.candidates}
    assert reasons[STUDIO] == "chosen: 8 of 8 checked results passed, 8 in a row"
    assert reasons[BUILD] == "lower score: 0 of 8 checked results passed"
    assert isinstance(world.now, Now)
