"""Agents hand on work through real cores: within what a person signed, once, and as long as it counts."""

import json
from functools import partial
from typing import Any

import msgspec
import pytest
from tests.node.cores import WALL_MS, Cores, One, attempt_ended
from tests.promise import proves

from muster.fleet.capability import make_capability
from muster.fleet.grant import Bounds, Grant, sign_give, sign_take
from muster.limits import UNPROVEN_PER_MINUTE_MAX
from muster.node import event as ev
from muster.node.call.authorize import Authorizer
from muster.node.incarnations.own_incarnation import FactsChanged
from muster.node.tasks import asked_work
from muster.node.tasks.asked_work import AskedWork
from muster.node.tasks.delegations import Delegations
from muster.node.tasks.followers import Followers
from muster.node.tasks.runs import RunService
from muster.task import evidence, kinds, spec
from muster.task.delegation_fold import DELEGATION
from muster.task.delegation_kinds import DelegationOpen, DelegationRefuse, DelegationWithdraw
from muster.task.evidence import run_args
from muster.task.identity import run_id
from muster.task.instruction import StartAttempt

DAY_MS = 24 * 3_600_000
PARENT = """\
muster: 1
name: parent
phases:
  lead:
    agent: claude
    needs: {machine: mac1}
    do: "Ask the other machine"
    check: "true"
    may: {delegate: %s}
"""


class Fleet(Cores):
    """A hub and two machines with an agent program each."""

    def __init__(self, *names: str) -> None:
        super().__init__(*(names or ("hub", "mac1", "mac2")))
        for one in self.machines.values():
            one.step(FactsChanged(one.facts(agents={"noop": "", "shell": "", "claude": ""})))
        self.link("hub", "mac1")
        self.link("hub", "mac2")
        self.pass_ms(8_000)

    def grant(self, to: str, object: str = "*", *, days: int = 30, **bounds: Any) -> str:
        """An operator lets a machine hand on work; the grant's id."""
        most = Bounds(**{"at_once": 4, "per_day": 20, **bounds})
        until_ms = WALL_MS + self.ms + days * DAY_MS
        named = object if object == "*" else self[object].id
        given = Grant(named, self[to].id, until_ms, "delegate", most)
        raw = sign_give(
            self.operator.statement, self.fleet, given, nonce=self._nonces.randbytes(16),
            issued_ms=WALL_MS + self.ms,
        )  # fmt: skip
        shown = msgspec.to_builtins(given)
        args = {"to": to, "verb": "delegate"}
        options = {"grant": shown, "statement": raw.decode()}
        answer = self["hub"].order("grant", "delegate", args, options=options)
        assert answer["ok"], answer
        self.pass_ms(1_000)
        return next(g.id for g in self["hub"].core.roster.grants if g.grant == given)

    def take(self, id: str) -> None:
        raw = sign_take(
            self.operator.statement, self.fleet, id, nonce=self._nonces.randbytes(16),
            issued_ms=WALL_MS + self.ms,
        )  # fmt: skip
        args = {"to": "mac1", "verb": "delegate", "take": True}
        answer = self["hub"].order(
            "grant", "delegate", args, options={"id": id, "statement": raw.decode()}
        )
        assert answer["ok"], answer
        self.pass_ms(1_000)

    def begin(self, may: str = "{}", text: str = "", where: str = "mac1") -> str:
        """A run whose one phase works there; the capability of its agent."""
        spec = text or PARENT % may
        args = {"base": "", "repo": "", "spec": spec, "values": {}}
        answer = self["hub"].order("run", "parent", args)
        assert answer["ok"], answer
        self.pass_ms(1_000)
        return self.agent_of(self.started(where), where)

    def started(self, where: str) -> StartAttempt:
        return [e for e in self[where].effects if isinstance(e, StartAttempt)][-1]

    def agent_of(self, start: StartAttempt, where: str) -> str:
        verbs = ("delegate", "withdraw", "send")
        token, capability = make_capability(
            bytes(32), task=start.assign.task, agent="claude", verbs=verbs,
            until_ms=WALL_MS + self.ms + DAY_MS,
        )  # fmt: skip
        self[where].core.part(Authorizer).allow_agent(capability)
        return token

    def done(self, where: str, summary: str = "it is fine") -> None:
        start = self.started(where)
        self[where].step(attempt_ended(start.assign.task, start.assign.epoch, "done", summary))
        self.pass_ms(2_000)

    def state(self, run: str, at: str = "mac1", by: str = "") -> str:
        part = self[at].core.part(Delegations)
        (row,) = part._rows(run=run, writer=self[by].id if by else "")
        return part.state(row)


ASK = {"text": ["why do the tests fail?"], "agent": ["claude"], "machine": ["mac2"]}


def ask(one: One, token: str = "", **changes: Any) -> Any:
    more = {"capability": token} if token else {}
    return one.call("delegate", {**ASK, **changes}, **more)


def asked(one: One, token: str = "", **changes: Any) -> str:
    answer = ask(one, token, **changes)
    assert answer["ok"], answer
    return str(answer["value"]["run"])


def refusal(answer: Any) -> str:
    assert not answer["ok"], answer
    return str(answer["error"]["text"])


@proves("delegation.default-deny")
def test_without_a_grant_no_agent_of_a_machine_hands_on_anything_and_is_told_what_would_let_it():
    world = Fleet()
    before = world["mac1"].sizes()
    assert "muster grant machine:mac1 delegate" in refusal(ask(world["mac1"]))
    assert world["mac1"].sizes() == before


@proves("delegation.by-grant")
def test_by_a_grant_a_session_asks_another_machine_and_hears_how_it_ended():
    world = Fleet()
    world.grant("mac1")
    run = asked(world["mac1"])
    world.pass_ms(2_000)
    assert world.state(run) == "open"
    start = world.started("mac2")
    assert start.open.run == run
    world.done("mac2", "a missing import")
    assert world.state(run) == "done"
    (message,) = world["mac1"].entries("message.send")
    assert "a missing import" in json.loads(message.body)["text"]
    assert json.loads(message.body)["about"] == run


@proves("delegation.by-attempt")
def test_by_its_spec_the_agent_of_a_task_asks_another_machine():
    world = Fleet()
    token = world.begin("{}")
    run = asked(world["mac1"], token)
    world.pass_ms(2_000)
    assert world.started("mac2").open.run == run
    world.done("mac2")
    assert world.state(run) == "done"


@proves("delegation.default-deny")
def test_a_task_whose_spec_says_nothing_hands_on_nothing_though_its_machine_may():
    world = Fleet()
    world.grant("mac1")
    token = world.begin(text=PARENT.replace("    may: {delegate: %s}\n", ""))
    assert "may: {delegate" in refusal(ask(world["mac1"], token))


# --- what is not within the bounds ---------------------------------------------------------


@proves("delegation.never-wider")
@pytest.mark.parametrize(
    ("may", "changes", "why"),
    [
        ("{agent: codex}", {}, "asks claude"),
        ("{machine: hub}", {}, "is not bound to hub"),
        ("{machine: mac2}", {"machine": []}, "is not bound to mac2"),
        ("{label: gpu}", {}, "label gpu"),
        ("{timeout: 5m}", {"timeout": "6m"}, "longer than 300 s"),
        ("{}", {"agent": ["shell"]}, "asks shell"),
        ("{}", {"check": "rm -rf /"}, "has a check"),
        ("{}", {"timeout": "31m"}, "longer than 1800 s"),
    ],
)
def test_what_is_wider_than_its_spec_says_is_refused_and_writes_nothing(may, changes, why):
    world = Fleet()
    token = world.begin(may)
    before = world["mac1"].sizes()
    assert why in refusal(ask(world["mac1"], token, **changes))
    assert world["mac1"].sizes() == before


def whole(**phase: Any) -> dict[str, Any]:
    """A whole spec of one phase, as an agent may hand it on."""
    lines = {"agent": "claude", "do": '"x"', "check": '"true"', **phase}
    text = "".join(f"    {name}: {value}\n" for name, value in lines.items())
    return {"text": [], "agent": [], "machine": [],
            "spec": f"muster: 1\nname: whole\nphases:\n  work:\n{text}"}  # fmt: skip


@proves("delegation.never-wider")
@pytest.mark.parametrize(
    ("most", "phase", "why"),
    [
        ({"depth": 2, "repos": ("main",)}, {"may": "{delegate: {repo: other}}"}, "in repositories"),
        ({}, {"env": "{PATH: /tmp}"}, "sets variables"),
        ({}, {"race": "8", "retries": "2"}, "16 tasks"),
        ({}, {"priority": "5"}, "takes no turn"),
        ({}, {"may": "{delegate: {}}"}, "may hand on work 1 times more, and none is allowed"),
        ({"depth": 2}, {"may": "{delegate: {depth: 2}}"}, "2 times more, and 1 is allowed"),
        ({"depth": 2}, {"may": "{delegate: {agent: shell}}"}, "may ask shell"),
        ({"depth": 2}, {"may": "{delegate: {timeout: 2h}}", "timeout": "5m"}, "takes longer"),
        (
            {"depth": 2, "agents": ("claude",)},
            {"may": "{delegate: {agent: codex}}"},
            "may ask codex",
        ),
    ],
)
def test_a_whole_spec_keeps_within_a_grant_and_hands_on_nothing_wider(most, phase, why):
    world = Fleet()
    world.grant("mac1", **{"timeout_ms": 1_800_000, **most})
    before = world["mac1"].sizes()
    assert why in refusal(ask(world["mac1"], **whole(**phase)))
    assert world["mac1"].sizes() == before


@proves("delegation.never-wider")
def test_an_agent_that_is_told_nothing_and_has_a_budget_hands_on_no_more_than_that():
    world = Fleet()
    more = "    memory: {read: [], write: []}\n    budget: {tokens: 9000}\n    do:"
    token = world.begin(text=(PARENT % "{runs: 3}").replace("    do:", more))
    here, needs = world["mac1"], "{machine: mac2}"
    assert "is told" in refusal(ask(here, token, **whole(needs=needs)))
    wrote = whole(needs=needs, memory="none")
    assert "more than 9000 tokens" in refusal(ask(here, token, **wrote))
    asked(here, token, **whole(needs=needs, memory="none", budget="{tokens: 9000}"))
    # A prompt says nothing of either, and keeps to both.
    run = asked(here, token, text=["and the other thing?"])
    world.pass_ms(3_000)
    start = world.started("mac2")
    assert start.open.run == run
    assert start.open.template["memory"] == {"read": [], "write": []}
    assert start.open.template["budget"] == {"tokens": 9000}


@proves("delegation.never-wider")
def test_a_grant_that_names_a_machine_is_for_that_machine_alone():
    world = Fleet()
    world.grant("mac1", "mac2")
    assert "is not bound to" in refusal(ask(world["mac1"], machine=["hub"]))
    asked(world["mac1"])


@proves("delegation.never-wider")
def test_with_a_step_more_what_was_handed_on_is_handed_on_once_more_and_then_no_further():
    world = Fleet()
    token = world.begin("{depth: 2, runs: 2}")
    needs = "{machine: mac2}"
    asked(world["mac1"], token, **whole(needs=needs, may="{delegate: {}}"))
    world.pass_ms(2_000)
    further = world.agent_of(world.started("mac2"), "mac2")
    run = asked(world["mac2"], further, machine=["hub"])
    world.pass_ms(2_000)
    assert world.started("hub").open.run == run
    last = world.agent_of(world.started("hub"), "hub")
    assert "may: {delegate" in refusal(ask(world["hub"], last))


@proves("delegation.budget")
def test_an_attempt_hands_on_so_many_runs_and_no_more_whatever_became_of_them():
    world = Fleet()
    token = world.begin("{runs: 2}")
    for number in range(2):
        asked(world["mac1"], token, text=[f"part {number}"])
        world.pass_ms(2_000)
        world.done("mac2")
    assert "2 runs by one attempt" in refusal(ask(world["mac1"], token, text=["part 3"]))


@proves("delegation.budget")
def test_a_grant_is_spent_by_the_day_and_by_what_is_open_at_once():
    world = Fleet()
    world.grant("mac1", per_day=3, at_once=2)
    asked(world["mac1"], text=["1"])
    second = asked(world["mac1"], text=["2"])
    world.pass_ms(2_000)
    assert "2 at once" in refusal(ask(world["mac1"], text=["3"]))
    answer = world["mac1"].call("withdraw", {"run": second})
    assert answer["ok"], answer
    world.pass_ms(2_000)
    asked(world["mac1"], text=["3"])
    world.pass_ms(2_000)
    world.done("mac2")
    assert "3 runs in a day" in refusal(ask(world["mac1"], text=["4"]))


@proves("delegation.once")
def test_under_one_key_and_for_the_same_words_there_is_one_run():
    world = Fleet()
    world.grant("mac1")
    first = asked(world["mac1"], key="k1")
    assert ask(world["mac1"], key="k1")["value"] == {"run": first, "fresh": False, "owner": "mac2"}
    assert "take another key" in refusal(ask(world["mac1"], key="k1", text=["something else"]))
    assert asked(world["mac1"]) == first
    world.pass_ms(2_000)
    world.done("mac2")
    assert asked(world["mac1"], key="k1") == first
    again = asked(world["mac1"])
    assert again != first
    world.pass_ms(2_000)
    assert len(world["mac1"].entries("delegation.open")) == 2
    assert len(world["mac2"].entries("run.open")) == 2


@proves("delegation.once")
def test_a_key_is_its_askers_own():
    world = Fleet()
    world.grant("mac1")
    token = world.begin()
    assert asked(world["mac1"], token, key="k") != asked(world["mac1"], key="k")


# --- what counts no more -------------------------------------------------------------------


@proves("delegation.ends")
def test_a_grant_that_is_taken_back_or_has_ended_lets_nothing_more():
    world = Fleet()
    world.take(world.grant("mac1"))
    assert "muster grant machine:mac1" in refusal(ask(world["mac1"]))
    world.grant("mac1", days=1)
    world.pass_ms(1_000)
    world.ms += DAY_MS
    assert "muster grant machine:mac1" in refusal(ask(world["mac1"]))


@proves("delegation.ends")
def test_what_waits_for_its_owner_when_the_grant_ends_is_not_begun():
    world = Fleet()
    world.grant("mac1", days=1)
    world.cut("mac2")
    world.ms += DAY_MS // 2
    run = asked(world["mac1"])
    world.ms += DAY_MS // 2 + 10_000
    world.link("hub", "mac2")
    world.pass_ms(10_000)
    assert world.state(run) == "refused"
    assert "has ended" in whys(world, run)


@proves("delegation.ends")
def test_the_agent_of_an_attempt_that_ends_has_nothing_of_what_its_machine_may():
    world = Fleet()
    world.grant("mac1")
    token, capability = make_capability(
        bytes(32), task="t9", agent="claude", verbs=("delegate",), until_ms=WALL_MS + DAY_MS
    )
    world["mac1"].core.part(Authorizer).allow_agent(capability)
    assert "about to end" in refusal(ask(world["mac1"], token))


@proves("delegation.ends")
def test_what_waits_for_its_owner_when_the_grant_is_taken_back_is_not_begun():
    world = Fleet()
    id = world.grant("mac1")
    world.cut("mac2")
    run = asked(world["mac1"])
    world.take(id)
    world.link("hub", "mac2")
    world.pass_ms(10_000)
    assert world.state(run) == "refused"
    assert not world["mac2"].entries("run.open")
    (message,) = world["mac1"].entries("message.send")
    assert "no operator's grant" in json.loads(message.body)["text"]


@proves("delegation.ends")
@pytest.mark.parametrize("how", ["revoked", "taken"])
def test_what_waits_for_a_slot_when_its_machine_is_revoked_or_its_grant_taken_never_begins(how):
    world = Fleet()
    id = world.grant("mac1")
    for number in range(3):
        last = asked(world["mac1"], text=[str(number)])
        world.pass_ms(2_000)
    begun = [e.open.run for e in world["mac2"].effects if isinstance(e, StartAttempt)]
    assert len(begun) == 2
    assert last not in begun
    if how == "revoked":
        assert world["hub"].order("revoke", "mac1", {"name": "mac1"})["ok"]
    else:
        world.take(id)
    world.pass_ms(2_000)
    world.done("mac2")
    world.pass_ms(10_000)
    begun = [e.open.run for e in world["mac2"].effects if isinstance(e, StartAttempt)]
    assert last not in begun
    assert world.state(last, "mac2") == "failed"


@proves("delegation.ends")
def test_what_the_agent_of_an_attempt_asked_for_is_not_begun_once_its_machine_is_revoked():
    world = Fleet()
    token = world.begin("{machine: hub, runs: 3}")
    world.cut("mac1")
    world.link("mac1", "mac2")
    world.pass_ms(8_000)
    for number in range(3):
        # Two run, and the third waits for a slot.
        last = asked(world["mac1"], token, text=[str(number)], machine=["hub"])
    world.cut("mac1")
    world.link("mac1", "hub")
    world.pass_ms(5_000)
    assert len(begun(world, "hub")) == 2
    assert world["hub"].order("revoke", "mac1", {"name": "mac1"})["ok"]
    world.done("hub")
    world.pass_ms(10_000)
    assert last not in begun(world, "hub")
    assert world.state(last, "hub") == "failed"


@proves("delegation.default-deny")
def test_only_who_handed_it_on_takes_it_back_and_nobody_asks_from_elsewhere():
    world = Fleet()
    world.grant("mac1")
    token = world.begin("{runs: 2}")
    mine, other = asked(world["mac1"], token), asked(world["mac1"], text=["another"])
    world.pass_ms(2_000)
    answer = world["mac1"].call("withdraw", {"run": other}, capability=token)
    assert "handed on by somebody else" in refusal(answer)
    assert world.state(other) == "open"
    assert world["mac1"].call("withdraw", {"run": mine}, capability=token)["ok"]
    world.pass_ms(2_000)
    assert world.state(mine) == "cancelled"
    for verb, args in (("delegate", ASK), ("withdraw", {"run": other})):
        statement = world.sign(verb, "*", world["mac1"], args)
        answer = world["hub"].call(verb, args, on="mac1", statement=statement)
        assert "each on its own machine" in refusal(answer)


@proves("delegation.ends")
def test_what_was_withdrawn_before_its_owner_heard_of_it_is_not_begun():
    world = Fleet()
    world.grant("mac1")
    world.cut("mac2")
    run = asked(world["mac1"])
    assert world["mac1"].call("withdraw", {"run": run[:8]})["ok"]
    world.link("hub", "mac2")
    world.pass_ms(10_000)
    assert world.state(run) == "refused"
    assert not world["mac2"].entries("run.open")
    assert "already" in refusal(world["mac1"].call("withdraw", {"run": run}))


@proves("delegation.ends")
def test_what_the_agent_of_an_attempt_that_is_over_asked_for_is_not_begun():
    world = Fleet()
    token = world.begin()
    world.cut("mac2")
    run = asked(world["mac1"], token)
    world.done("mac1")
    assert "no running task" in refusal(ask(world["mac1"], token, text=["more"]))
    world.link("hub", "mac2")
    world.pass_ms(10_000)
    assert world.state(run) == "refused"


@proves("delegation.reaches-sleepers")
def test_who_sleeps_while_its_work_is_done_finds_the_result_in_its_inbox_once():
    world = Fleet()
    world.grant("mac1")
    run = asked(world["mac1"])
    world.pass_ms(1_000)
    world.cut("mac1")
    world.pass_ms(60_000)
    world.done("mac2", "it was the clock")
    world.link("hub", "mac1")
    world.pass_ms(10_000)
    unread = world["mac1"].call("inbox", {})["value"]
    assert ["it was the clock" in each["text"] for each in unread] == [True]
    assert world.state(run) == "done"


@proves("delegation.reaches-sleepers")
def test_an_owner_that_was_away_begins_it_when_it_is_back_and_not_after_a_day():
    world = Fleet()
    world.grant("mac1")
    world.cut("mac2")
    run = asked(world["mac1"])
    world.pass_ms(60_000)
    assert world.state(run) == "asked"
    world.link("hub", "mac2")
    world.pass_ms(10_000)
    assert world.state(run) == "open"
    world.cut("mac2")
    late = asked(world["mac1"], text=["too late"])
    world.ms += DAY_MS + 1
    world.link("hub", "mac2")
    world.pass_ms(10_000)
    assert world.state(late) == "refused"


# --- what hostile members show -------------------------------------------------------------


class Forged(ev.Event, frozen=True):
    """A member does in a step what no rule of ours lets it."""

    work: Any


def forge(one: One, work: Any) -> None:
    if Forged not in one.core._hears:
        one.core.on(Forged, lambda event: event.work())
    one.step(Forged(work))


class Forger:
    """What a member writes that keeps no rule but that of its own key."""

    def __init__(self, world: Fleet, name: str) -> None:
        self.world, self.one = world, world[name]

    def asks(
        self,
        owner: str,
        *,
        cause: Any = (),
        text: str = "",
        signer: Any = None,
        kept: Any = None,
        wait_ms: int = 5_000,
        **body: Any,
    ) -> str:
        """An entry that asks `owner` for a run; the run's id."""
        core, made = self.one.core, self.draft(owner, text, signer, kept, **body)
        forge(self.one, lambda: core.append_body(made, cause=cause, actor="claude@mac1"))
        # Whatever it wrote leaves with its next step.
        self.world.pass_ms(wait_ms)
        return made.run

    def draft(
        self, owner: str, text: str = "", signer: Any = None, kept: Any = None, back_ms: int = 0,
        **body: Any,
    ) -> DelegationOpen:  # fmt: skip
        """What such an entry says; the order in it is given so long before now."""
        core, to = self.one.core, self.world[owner].id
        spec = text or whole(needs="{machine: mac2}")["spec"]
        run = kinds.RunOpen("-", "whole", spec, "", kept=kept or {})
        self.world.ms -= back_ms
        raw = self.world.sign(
            "run", "whole", self.world[owner], run_args(run), life_ms=back_ms + 60_000,
            signer=signer or core.membership.signer("statement"),
        ).encode().hex()  # fmt: skip
        self.world.ms += back_ms
        made = DelegationOpen(run_id(to, raw), to, raw, spec)
        return msgspec.structs.replace(made, **body)

    def opens(self, asked: str, owner: str, kept: Any = None) -> None:
        """As the hostile owner of what was asked for it begins it, whatever it is."""
        core = self.one.core
        (row,) = core.tables.rows(DELEGATION, run=asked)
        body = core.part(Delegations).body(row)
        run = kinds.RunOpen(body.run, "whole", body.spec, body.statement, kept=kept or {})
        runs = core.part(RunService)
        forge(self.one, lambda: runs.open(run, (row.entry,), "claude@mac1"))
        self.world.pass_ms(5_000)


def begun(world: Fleet, where: str = "mac2") -> list[str]:
    return [e.open.run for e in world[where].effects if isinstance(e, StartAttempt)]


def whys(world: Fleet, run: str, at: str = "mac2") -> str:
    part = world[at].core.part(Delegations)
    (row,) = part._rows(run=run)
    return part.refused(row)


@proves("delegation.evidence")
def test_the_owner_refuses_what_no_grant_and_no_attempt_lets():
    world = Fleet()
    forger = Forger(world, "mac1")
    assert "no assignment" in whys(world, forger.asks("mac2"))
    assert "no operator's grant" in whys(world, forger.asks("mac2", grant="0" * 64))
    assert begun(world) == []


@proves("delegation.evidence")
def test_the_owner_refuses_another_machines_grant_key_attempt_and_order():
    world = Fleet()
    id = world.grant("hub")
    forger, other = Forger(world, "mac1"), world["mac2"].core
    assert "no operator's grant" in whys(world, forger.asks("mac2", grant=id))
    forger.asks("mac2", grant=id, signer=other.membership.signer("statement"))
    assert other.counters["delegations-forged"] == 1
    world["hub"].step(FactsChanged(world["hub"].facts(agents={"claude": ""})))
    world.begin(text=(PARENT % "{runs: 3}").replace("mac1", "mac2"), where="mac2")
    (assign,) = world["mac1"].entries("task.assign")
    assert "for another machine" in whys(world, forger.asks("mac2", cause=(assign.id,)))
    assert begun(world) == [world.started("mac2").open.run]


@proves("delegation.evidence")
def test_the_owner_refuses_what_is_wider_than_the_spec_of_the_attempt_and_more_than_it_says():
    world = Fleet()
    world.begin("{machine: hub}")
    (assign,) = world["mac1"].entries("task.assign")
    forger = Forger(world, "mac1")
    assert "is not bound to hub" in whys(world, forger.asks("mac2", cause=(assign.id,)))
    narrow = whole(needs="{machine: hub}")["spec"]
    second = forger.asks("mac2", cause=(assign.id,), text=narrow)
    assert "more runs are handed on than the 1" in whys(world, second)


@proves("delegation.evidence")
def test_a_run_under_an_id_that_its_order_does_not_give_is_never_begun():
    world = Fleet()
    forger, id = Forger(world, "mac1"), world.grant("mac1")
    forger.asks("mac2", run="1" * 32, grant=id)
    assert begun(world) == []
    assert not world["hub"].core.tables.rows(DELEGATION)
    assert world["mac2"].core.counters["delegations-forged"] == 1


@proves("delegation.only-its-own")
def test_nobody_has_refused_what_another_machine_asked_for_by_asking_for_it_first():
    world = Fleet()
    world.grant("mac1")
    world.cut("mac1")
    run = asked(world["mac1"])
    (entry,) = world["mac1"].entries("delegation.open")
    body = msgspec.json.decode(entry.body, type=DelegationOpen)
    # What a machine on its way can read: its order, and so the id of its run.
    for each in (body, msgspec.structs.replace(body, statement="00", spec="x")):
        hub = world["hub"].core
        forge(world["hub"], partial(hub.append_body, each, actor="claude@hub"))
        world.pass_ms(2_000)
    assert world["mac2"].core.counters["delegations-forged"] == 2
    world.link("hub", "mac1")
    world.pass_ms(10_000)
    assert begun(world) == [run]
    assert world.state(run, by="mac1") == "open"
    assert not world["mac2"].entries("delegation.refuse")


@proves("delegation.only-its-own")
@pytest.mark.parametrize("whose", ["operator", "agent"])
@pytest.mark.parametrize("anew", [False, True])
def test_no_other_member_withdraws_a_run_by_saying_that_it_asked_for_it(whose, anew):
    world = Fleet()
    world.begin("{machine: hub}" if whose == "operator" else "{}")
    run = next(iter(world["hub"].core.part(RunService).runs))
    if whose == "agent":
        world.grant("mac1", "hub")
        run = asked(world["mac1"], machine=["hub"])
        world.pass_ms(2_000)
    (opening,) = (e for e in world["hub"].entries("run.open") if run in str(e.body))
    opened = msgspec.json.decode(opening.body, type=kinds.RunOpen)
    if anew:
        # What a machine that had to begin a new stream has: its own opening, repeated.
        hub = world["hub"].core
        forge(
            world["hub"],
            lambda: hub.append("run.open", opening.body, cause=(opening.id,), actor="muster"),
        )
        repeated = world["hub"].entries("run.open")[-1]
        hub.part(RunService).runs[run].opened = repeated.id
    other = world["mac2"].core
    for statement in ("00", opened.statement):
        claim = DelegationOpen(run, world["hub"].id, statement, "x")
        forge(world["mac2"], partial(other.append_body, claim, actor="claude@mac2"))
        world.pass_ms(2_000)
        taken = DelegationWithdraw(run, "because I say so")
        forge(world["mac2"], partial(other.append_body, taken, actor="claude@mac2"))
        world.pass_ms(2_000)
    runs = world["hub"].core.part(RunService)
    assert not runs.runs[run].progress.cancelled
    assert runs.runs[run].handed_on == (whose == "agent")
    runs.runs.clear()
    forge(world["hub"], runs.adopt)
    # Whoever reads it back is not told either that an agent wants it.
    assert runs.runs[run].handed_on == (whose == "agent")
    if whose == "agent":
        assert world["mac1"].call("withdraw", {"run": run})["ok"]
        world.pass_ms(2_000)
        assert world.state(run, by="mac1") == "cancelled"


@proves("delegation.only-its-own")
def test_nobody_but_its_owner_says_that_what_was_handed_on_has_ended():
    world = Fleet()
    world.grant("mac1")
    run = asked(world["mac1"])
    world.pass_ms(2_000)
    told = list[str]()
    world["mac1"].core.part(Followers).follow(run, lambda said: told.append(str(said)))
    other = world["hub"].core
    for said in (DelegationRefuse(run, "no"), kinds.RunSettle(run, "failed")):
        forge(world["hub"], partial(other.append_body, said))
        world.pass_ms(1_000)
    assert "{}" not in told
    assert world.state(run) == "open"
    assert not world["mac1"].entries("message.send")


@proves("delegation.cheap")
def test_no_text_is_read_of_what_nothing_lets_anybody_hand_on(monkeypatch):
    world = Fleet()
    world.begin("{machine: hub}")
    (assign,) = world["mac1"].entries("task.assign")
    forger, id = Forger(world, "mac1"), world.grant("mac1", per_day=1)
    forger.asks("mac2", grant=id)
    forger.asks("mac2", cause=(assign.id,))
    read = list[bytes]()
    for module in (evidence, asked_work):
        monkeypatch.setattr(module, "parse", lambda text: read.append(text) or spec.parse(text))
    whats: list[dict[str, Any]] = [
        {}, {"grant": "0" * 64}, {"grant": id}, {"cause": (assign.id,)}, {"statement": "00"},
    ]  # fmt: skip
    for each in whats:
        forger.asks("mac2", text="junk: " + "[" * 40_000, **each)
    assert len(world["mac2"].entries("delegation.refuse")) >= 4
    assert not [text for text in read if text.startswith(b"junk")]


@proves("delegation.cheap")
def test_one_step_looks_at_one_of_all_that_came_in_it_and_nobody_waits_behind_another():
    world = Fleet()
    looked = list[int]()
    part = world["mac2"].core.part(AskedWork)
    step, look = world["mac2"].core.step, part._look

    def counted(*args: Any) -> Any:
        looked.append(0)
        return step(*args)

    def look_at(entry: Any) -> None:
        looked[-1] += 1
        look(entry)

    world["mac2"].core.step, part._look = counted, look_at
    world.grant("hub")
    core = Forger(world, "mac1").one.core
    drafts = [Forger(world, "mac1").draft("mac2") for _ in range(30)]
    forge(world["mac1"], lambda: [core.append_body(d, actor="claude@mac1") for d in drafts])
    run = asked(world["hub"])
    world.pass_ms(500)
    assert begun(world) == [run]
    world.pass_ms(1_000)
    assert sum(looked) == 31
    assert max(looked) == 1


@proves("delegation.evidence")
def test_a_worker_refuses_what_a_hostile_owner_begins_all_the_same():
    world = Fleet()
    world.link("mac1", "mac2")
    world.pass_ms(8_000)
    forger = Forger(world, "mac1")
    for more, reason in (
        ({}, "delegation-missing"),
        ({"grant": "0" * 64}, "delegation-not-allowed"),
        ({"grant": world.grant("mac1", "hub")}, "delegation-too-wide"),
    ):
        run = forger.asks("mac1", **more)
        forger.opens(run, "mac1")
        assert begun(world) == []
        refused = [json.loads(e.body)["reason"] for e in world["mac2"].entries("attempt.refuse")]
        assert reason in refused
    good = forger.asks("mac1", grant=world.grant("mac1"))
    assert begun(world) == [good]


@proves("delegation.evidence")
def test_a_worker_refuses_a_run_that_was_handed_on_and_keeps_what_another_did():
    world = Fleet()
    world.link("mac1", "mac2")
    world.pass_ms(8_000)
    forger, kept = Forger(world, "mac1"), {"other": "1" * 32}
    two = (
        whole(needs="{machine: mac2}")["spec"] + "  other: {agent: claude, do: x, check: 'true'}\n"
    )
    run = forger.asks("mac1", text=two, kept=kept, grant=world.grant("mac1"))
    forger.opens(run, "mac1", kept)
    assert begun(world) == []
    refused = [json.loads(e.body)["reason"] for e in world["mac2"].entries("attempt.refuse")]
    assert set(refused) == {"delegation-too-wide"}


@proves("delegation.cheap")
def test_nobody_makes_an_owner_look_and_write_as_often_as_it_asks():
    world = Fleet()
    forger, most = Forger(world, "mac1"), UNPROVEN_PER_MINUTE_MAX
    for _ in range(most + 20):
        forger.asks("mac2", wait_ms=100)
    world.pass_ms(2_000)
    assert len(world["mac2"].entries("delegation.refuse")) == most
    world.pass_ms(60_000)
    # Nothing is forgotten: it waited for its minute.
    assert len(world["mac2"].entries("delegation.refuse")) == most + 20
    assert "no assignment" in whys(world, forger.asks("mac2"))


@proves("delegation.cheap")
def test_only_so_much_waits_of_one_machine(monkeypatch):
    monkeypatch.setattr(asked_work, "DELEGATIONS_MAX", 3)
    world = Fleet()
    core, forger = world["mac1"].core, Forger(world, "mac1")
    drafts = [forger.draft("mac2") for _ in range(8)]
    forge(world["mac1"], lambda: [core.append_body(d, actor="claude@mac1") for d in drafts])
    world.pass_ms(3_000)
    assert world["mac2"].core.counters["delegations-unanswered"] == 5
    assert len(world["mac2"].entries("delegation.refuse")) == 3


@proves("delegation.budget")
def test_the_owner_refuses_more_at_once_than_the_grant_says_whatever_the_asker_thinks():
    world = Fleet()
    forger, id = Forger(world, "mac1"), world.grant("mac1", at_once=1)
    first, second = forger.asks("mac2", grant=id), forger.asks("mac2", grant=id)
    assert "1 at once" in whys(world, second)
    assert begun(world) == [first]


@proves("delegation.once")
def test_an_owner_that_starts_anew_begins_nothing_twice_and_nobody_is_told_twice():
    world = Fleet()
    world.grant("mac1")
    run = asked(world["mac1"])
    world.pass_ms(2_000)
    world.done("mac2")
    world.cut("hub")
    refused = asked(world["mac1"], text=["too late"])
    assert world["mac1"].call("withdraw", {"run": refused})["ok"]
    world.link("hub", "mac1")
    world.link("hub", "mac2")
    world.pass_ms(8_000)
    names = ("run.open", "delegation.refuse", "message.send")
    before = {name: len(world["mac1"].entries(name)) for name in names}
    assert before == {"run.open": 1, "delegation.refuse": 1, "message.send": 2}
    for name in ("mac1", "mac2"):
        for part in (AskedWork, Delegations):
            forge(world[name], world[name].core.part(part).start)
        world.pass_ms(5_000)
    assert {name: len(world["mac1"].entries(name)) for name in names} == before
    assert world.state(run) == "done"


@proves("delegation.evidence")
def test_a_worker_refuses_what_was_asked_for_after_the_grant_had_ended():
    world = Fleet()
    world.link("mac1", "mac2")
    id = world.grant("mac1", days=1)
    world.pass_ms(8_000)
    world.ms += DAY_MS
    world.pass_ms(8_000)
    forger = Forger(world, "mac1")
    forger.opens(forger.asks("mac1", grant=id), "mac1")
    assert begun(world) == []
    refused = [json.loads(e.body)["reason"] for e in world["mac2"].entries("attempt.refuse")]
    assert set(refused) == {"delegation-not-allowed"}


@proves("delegation.once")
def test_an_order_that_another_machine_shows_again_begins_nothing():
    world = Fleet()
    world.grant("mac1")
    run = asked(world["mac1"])
    world.pass_ms(2_000)
    (entry,) = world["mac1"].entries("delegation.open")
    body = msgspec.json.decode(entry.body, type=DelegationOpen)
    for name in ("hub", "mac2"):
        core = world[name].core
        forge(world[name], partial(core.append_body, body, actor="claude@mac1"))
        world.pass_ms(5_000)
    assert begun(world) == [run]
    assert len(world["mac2"].entries("run.open")) == 1


@proves("delegation.old-machines")
def test_a_machine_that_cannot_check_the_chain_gets_none_of_it():
    world = Fleet()
    world.grant("mac1")
    world["mac2"].step(FactsChanged(world["mac2"].facts(agents={"claude": ""}, muster="0.2.9")))
    world.pass_ms(1_000)
    run = asked(world["mac1"])
    world.pass_ms(5_000)
    assert begun(world) == []
    assert world.state(run) == "open"
    answer = world["hub"].call("why", {"task": run})
    assert "its Muster 0.2.9 cannot read what was ordered" in str(answer)


@proves("delegation.visible")
def test_whoever_looks_sees_which_agent_handed_it_on_and_the_person_who_let_it():
    world = Fleet()
    id = world.grant("mac1")
    token = world.begin("{depth: 2}")
    by_grant, by_task = asked(world["mac1"]), asked(world["mac1"], token, text=["another"])
    world.pass_ms(5_000)
    for where in ("hub", "mac1", "mac2"):
        seen = world[where].call("runs", {"run": by_grant})["value"]
        assert seen["handed_on"] == {"by": "mac1", "person": "alice", "grant": id}
        seen = world[where].call("why", {"task": by_task})["value"]["handed_on"]
        parent = world.started("mac1").assign.task
        assert seen == {"by": "claude@mac1", "person": "alice", "task": parent}
        listed = world[where].call("runs", {"more": True})["value"]
        assert {r["run"]: r["by"] for r in listed}[by_task] == "claude@mac1"
    kinds_of = {
        e["kind"] for e in world["hub"].call("explain", {"task": by_task})["value"]["entries"]
    }
    assert {"delegation.open", "run.open", "task.assign"} <= kinds_of
