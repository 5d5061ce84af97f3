"""Whatever happens, in whatever order: one holder, rising epochs, one outcome, and everything ends."""

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule
from tests.promise import proves
from tests.task.world import BUILD, STUDIO, World, machine, of, order

from muster import limits
from muster.task import kinds
from muster.task.fold import TASK
from muster.task.instruction import Fenced, MoveBranch, Promoted, RaiseFence
from muster.task.open_task import Beat
from muster.task.state import LIVE

MACHINES = (BUILD, STUDIO)


@proves("task.one-holder", "task.epochs-rise", "task.settles-once", "task.restart-keeps-work")
class Fleet(RuleBasedStateMachine):
    """An owner, two machines that do anything at all, and a fence that answers when it likes."""

    def __init__(self):
        super().__init__()
        self.world = World(machine(BUILD), machine(STUDIO, slots={"": 1}))
        self.count = 0
        self.order = 1
        self.fence: list[RaiseFence] = []
        self.remote: list[MoveBranch] = []
        self.given: dict[str, list[tuple[kinds.Epoch, str]]] = {}
        self.final: dict[str, object] = {}
        self.ended: set[tuple[str, kinds.Epoch]] = set()

    def settle(self, out):
        self.fence += of(out, RaiseFence)
        self.remote += of(out, MoveBranch)
        for body in of(out, kinds.TaskAssign):
            before = self.given.setdefault(body.task, [])
            assert not before or body.epoch > before[-1][0], "an epoch did not rise"
            if before:
                assert (body.task, before[-1][0]) in self.ended, "two machines hold one task"
            before.append((body.epoch, body.machine))
        for kind in (kinds.TaskExpire, kinds.TaskRetry):
            self.ended |= {(body.task, body.epoch) for body in of(out, kind)}

    def flush(self):
        # An end comes before the next assignment in one flush, so ends are noted first.
        out = self.world.flush()
        for kind in (kinds.TaskExpire, kinds.TaskRetry):
            self.ended |= {(body.task, body.epoch) for body in of(out, kind)}
        self.settle(out)

    def tasks(self, *states):
        return sorted(r.task for r in self.world.stream.rows.every(TASK) if r.state in states)

    @rule(repo=st.booleans(), retries=st.integers(0, 2), human=st.booleans(), n=st.integers(1, 3))
    def submit(self, repo, retries, human, n):
        orders = []
        for _ in range(n):
            self.count += 1
            template = {"do": str(self.count), **({"by": "human"} if human else {})}
            known = {"template": template, "retries": retries, "repo": "main" if repo else ""}
            orders.append(order(f"t{self.count}", **known))
        self.world.owner.submit(orders, self.world.now)
        self.flush()

    @rule(ms=st.sampled_from([1, limits.BUSY_DELAY_MS, 1_000, limits.BEAT_MS, limits.LEASE_MS]))
    def wait(self, ms):
        self.world.later(ms)
        self.world.tick()
        self.flush()

    @rule(who=st.sampled_from(MACHINES), up=st.booleans())
    def link(self, who, up):
        known = {m.id: m for m in self.world.machines}
        if up:
            self.world.owner.machine_up(known[who])
        else:
            self.world.owner.machine_down(who)
        self.flush()

    @rule(who=st.sampled_from(MACHINES), session=st.sampled_from("xy"), all_of=st.booleans())
    def beat(self, who, session, all_of):
        rows = {n: self.world.stream.task(n) for n in self.tasks("leased")}
        holds = [Beat(n, r.epoch) for n, r in rows.items() if all_of or r.machine == who]
        self.world.owner.beat(who, f"{session}:1", holds, self.world.now)
        self.flush()

    @precondition(lambda self: self.given)
    @rule(
        data=st.data(),
        status=st.sampled_from(["done", "failed", "killed", "refuse", "busy"]),
        commit=st.sampled_from(["", "c0"]),
    )
    def report(self, data, status, commit):
        """Any machine says anything about any epoch that was ever given."""
        name = data.draw(st.sampled_from(sorted(self.given)))
        epoch, holder = data.draw(st.sampled_from(self.given[name]))
        who = data.draw(st.sampled_from([holder, holder, *MACHINES]))
        counts = (epoch, who) == self.given[name][-1] and (name, epoch) not in self.ended
        counts = counts and name in self.tasks("leased")
        if status in {"refuse", "busy"}:
            reason = "busy" if status == "busy" else "misfit"
            out = self.world.say(who, kinds.AttemptRefuse(name, epoch, reason))
        else:
            out = self.world.say(who, kinds.AttemptFinish(name, epoch, status, commit=commit))
        ends = [b for b in of(out, kinds.Body) if not isinstance(b, kinds.TaskLate)]
        assert counts or not [b for b in ends if b.task == name], "who does not hold it was heard"
        for kind in (kinds.TaskExpire, kinds.TaskRetry):
            self.ended |= {(body.task, body.epoch) for body in of(out, kind)}
        self.settle(out)

    @precondition(lambda self: self.fence)
    @rule(data=st.data(), ok=st.booleans(), keep=st.booleans())
    def fence_answers(self, data, ok, keep):
        """In any order, late, or twice."""
        asked = data.draw(st.sampled_from(self.fence))
        if not keep:
            self.fence.remove(asked)
        if ok:
            self.world.owner.fenced(Fenced(asked.task, asked.epoch), self.world.now)
        else:
            self.world.owner.fenced(Fenced(asked.task, asked.epoch, "no"), self.world.now)
        self.flush()

    @precondition(lambda self: self.remote)
    @rule(data=st.data(), answer=st.sampled_from(["ok", "again", "no"]))
    def remote_answers(self, data, answer):
        asked = data.draw(st.sampled_from(self.remote))
        reason, again = "" if answer == "ok" else "no", answer == "again"
        moved = Promoted(asked.task, asked.epoch, reason=reason, again=again)
        self.world.owner.promoted(moved, self.world.now)
        self.flush()

    @precondition(lambda self: self.tasks(*LIVE))
    @rule(data=st.data())
    def cancel(self, data):
        name = data.draw(st.sampled_from(self.tasks(*LIVE)))
        self.world.owner.cancel(name, "enough", (), self.world.now)
        self.flush()

    @precondition(lambda self: self.tasks("waiting"))
    @rule(data=st.data(), verdict=st.sampled_from(["approve", "reject"]))
    def decide(self, data, verdict):
        name = data.draw(st.sampled_from(self.tasks("waiting")))
        body = kinds.TaskDecide(name, verdict, "00")
        self.world.owner.decide(self.world.stream.entries[0].id, body)
        self.flush()

    @rule()
    def crash(self):
        """The owner starts again, with a higher order; unanswered questions get no answer."""
        self.order += 1
        self.fence.clear()
        self.world.restart(self.order)
        self.flush()

    @invariant()
    def a_settled_task_never_changes(self):
        for name in self.tasks("done", "failed", "lost", "cancelled"):
            row = self.world.stream.task(name)
            assert self.final.setdefault(name, row) == row

    @invariant()
    def slots_hold(self):
        held: dict[str, int] = {}
        owner = self.world.owner
        for (who, _), slot in owner._ledger.queue._slots.items():
            held[who] = held.get(who, 0) + slot.used
            assert slot.used >= 0
        running = sum(1 for t in owner._ledger.tasks.values() if t.stage in {"running", "fencing"})
        assert sum(held.values()) == running + len(owner._ledger._stopping)

    @invariant()
    def memory_and_table_agree(self):
        live = {name: self.world.stream.task(name).state for name in self.tasks(*LIVE)}
        assert live == {name: t.state for name, t in self.world.owner._ledger.tasks.items()}

    def teardown(self):
        """One machine stays and does its work, the fence and the remote answer: everything ends."""
        world = self.world
        for _ in range(400):
            if not self.tasks(*LIVE):
                return
            self.link(STUDIO, True)
            self.beat(STUDIO, "x", all_of=False)
            for asked in list(self.fence):
                self.fence.remove(asked)
                world.owner.fenced(Fenced(asked.task, asked.epoch), world.now)
            for asked in list(self.remote):
                self.remote.remove(asked)
                world.owner.promoted(Promoted(asked.task, asked.epoch), world.now)
            self.flush()
            for name in self.tasks("waiting"):
                body = kinds.TaskDecide(name, "approve", "00")
                world.owner.decide(world.stream.entries[0].id, body)
            self.flush()
            for name in self.tasks("leased"):
                row = world.stream.task(name)
                if row.machine == STUDIO and world.owner._ledger.tasks[name].stage == "running":
                    self.settle(world.finish(name))
            self.wait(limits.LEASE_MS)
        raise AssertionError(f"these never end: {self.tasks(*LIVE)}")


TestFleet = Fleet.TestCase
TestFleet.settings = settings(max_examples=200, stateful_step_count=50, deadline=None)
