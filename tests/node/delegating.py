"""A fleet whose agents hand on work, and a member of it that keeps no rule but that of its own key.

    world = Fleet()
    world.grant("mac1")
    run = asked(world["mac1"])

What the tests named test_delegation… draw with.
"""

from typing import Any

import msgspec
from tests.node.cores import WALL_MS, Cores, One, attempt_ended

from muster.fleet.capability import make_capability
from muster.fleet.grant import Bounds, Grant, sign_give, sign_take
from muster.node import event as ev
from muster.node.call.authorize import Authorizer
from muster.node.incarnations.own_incarnation import FactsChanged
from muster.node.tasks.delegations import Delegations
from muster.node.tasks.runs import RunService
from muster.task import kinds
from muster.task.delegation_fold import DELEGATION
from muster.task.delegation_kinds import DelegationOpen
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


def whole(**phase: Any) -> dict[str, Any]:
    """A whole spec of one phase, as an agent may hand it on."""
    lines = {"agent": "claude", "do": '"x"', "check": '"true"', **phase}
    text = "".join(f"    {name}: {value}\n" for name, value in lines.items())
    return {"text": [], "agent": [], "machine": [],
            "spec": f"muster: 1\nname: whole\nphases:\n  work:\n{text}"}  # fmt: skip


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
