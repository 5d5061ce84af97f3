"""Two fleets that ask each other for work, each of its own operator, in one process.

two = Two()
two.grant(two.acme, "yard", two.ours, agents=("claude",))
task = two.asked("yard.acme")
two.carry()
"""

from typing import Any

import msgspec
from tests.node.cores import WALL_MS, Cores, One, attempt_ended

from muster.fleet import certificate
from muster.fleet.grant import Bounds, Grant, sign_give
from muster.fleet.peer import Door, Foreign, peer_args, write_card
from muster.fleet.record import open_record
from muster.node import event as ev
from muster.node.incarnations.own_incarnation import FactsChanged
from muster.node.services.letters import LetterSettled
from muster.node.services.peer_asks import PeerAsks
from muster.task.instruction import StartAttempt

NAMES = {0: "ours", 1: "acme"}
HOUR_MS = 3_600_000
SPEC = """\
muster: 1
name: tidy
memory: none
phases:
  work:
    agent: claude
    needs: {machine: yard}
    do: "Tidy up"
    check: "true"
"""


def spec(**phase: Any) -> str:
    """The same, with other keys in its phase."""
    lines = {"agent": "claude", "needs": "{machine: yard}", "do": '"x"', "check": '"true"', **phase}
    keys = "".join(f"    {name}: {value}\n" for name, value in lines.items() if value)
    return f"muster: 1\nname: tidy\nmemory: none\nphases:\n  work:\n{keys}"


class Two:
    """Our fleet (hub, studio) and acme (yard, shed); the first of each is its door."""

    def __init__(self) -> None:
        self.ours, self.acme = Cores("hub", "studio"), Cores("yard", "shed", other=1)
        for world in (self.ours, self.acme):
            for one in world.machines.values():
                one.step(FactsChanged(one.facts(agents={"shell": "", "claude": ""})))
            world.link(*world.machines)
            world.pass_ms(2_000)
        for here, there in ((self.ours, self.acme), (self.acme, self.ours)):
            door = next(iter(here.machines.values()))
            card = self.card(there)
            args = peer_args(card, there.fleet, NAMES[there.other])
            answer = door.order("peer.add", there.fleet, args)
            assert answer["ok"], answer
            here.drain()
        self._next = 1000

    @staticmethod
    def card(world: Cores) -> str:
        door = next(iter(world.machines.values()))
        chain = certificate.issue(world.authority, open_record(door.record, world.fleet), WALL_MS)
        return write_card(
            world.fleet, chain.ca_pem.decode(), [Door("127.0.0.1:7", door.id, door.name)]
        )

    def grant(self, world: Cores, object: str, to: Cores, **bounds: Any) -> str:
        """A grant of `task` to another fleet; its id."""
        door = next(iter(world.machines.values()))
        most = Bounds(**{"at_once": 2, "per_day": 5, "agents": ("claude",), **bounds})
        named = object if object == "*" else world[object].id
        until_ms = WALL_MS + world.ms + 24 * HOUR_MS
        given = Grant(named, f"fleet:{to.fleet}", until_ms, "task", most)
        raw = sign_give(
            world.operator.statement, world.fleet, given, nonce=door.core.draw(16),
            issued_ms=WALL_MS + world.ms,
        )  # fmt: skip
        args = {"to": f"fleet:{NAMES[to.other]}", "verb": "task", "object": named}
        options = {"grant": msgspec.to_builtins(given), "statement": raw.decode()}
        answer = door.order("grant", "task", args, options=options)
        assert answer["ok"], answer
        world.pass_ms(1_000)
        return next(g.id for g in door.core.roster.grants if g.grant == given)

    def remove(self, world: Cores, other: Cores) -> None:
        door = next(iter(world.machines.values()))
        assert door.order("peer.remove", other.fleet, {"fleet": other.fleet})["ok"]
        self.pass_ms(2_000)

    # --- what is asked ----------------------------------------------------------------------

    def ask(self, to: str = "yard.acme", at: str = "hub", text: str = SPEC, **more: Any) -> Any:
        return self.ours[at].order("peer.ask", to, {"to": to, "spec": text, **more})

    def asked(self, to: str = "yard.acme", at: str = "hub", text: str = SPEC, **more: Any) -> str:
        answer = self.ask(to, at, text, **more)
        assert answer["ok"], answer
        return str(answer["value"]["task"])

    def state(self, task: str, at: str = "hub") -> str:
        (found,) = [r for r in self.ours[at].call("runs", {})["value"] if r["run"] == task]
        return str(found["state"])

    def why(self, task: str, at: str = "hub") -> str:
        return str(self.ours[at].call("runs", {"run": task})["value"]["summary"])

    # --- what is carried --------------------------------------------------------------------

    def link(self, at: One, who: One) -> int:
        """A link from a machine of the other fleet, as TLS proved it."""
        self._next += 1
        at.step(ev.LinkUp(self._next, "", False, "http", "", str(Foreign(who.world.fleet, who.id))))
        return self._next

    def shown(self, one: One) -> list[tuple[Any, dict[str, str]]]:
        """What waits on a machine, as its carrier shows it."""
        part, record = one.core.part(PeerAsks), one.record.decode()
        return [(row, {"letter": part.document(row), "record": record}) for row in part.waiting()]

    def show(self, who: One, args: dict[str, str], at: One | None = None) -> Any:
        door = at or next(
            iter((self.acme if who.world is self.ours else self.ours).machines.values())
        )
        answer = door.call("peer.work", args, link=self.link(door, who))
        door.world.drain()
        return answer

    def carry(self) -> None:
        """Show all that waits on either side, and bring the receipts back, until nothing does."""
        for _ in range(6):
            quiet = True
            for one in (*self.ours.machines.values(), *self.acme.machines.values()):
                for row, args in self.shown(one):
                    quiet = False
                    answer = self.show(one, args)
                    if answer is not None and answer["ok"]:
                        said = answer["value"]
                        one.step(LetterSettled(row.letter, said["receipt"], said["record"]))
            if quiet:
                return
            self.pass_ms(2_000)

    def pass_ms(self, ms: int) -> None:
        self.ours.pass_ms(ms)
        self.acme.pass_ms(ms)

    # --- what is done -----------------------------------------------------------------------

    def started(self, where: str = "yard") -> list[StartAttempt]:
        return [e for e in self.acme[where].effects if isinstance(e, StartAttempt)]

    def done(self, where: str = "yard", summary: str = "it is tidy", **more: Any) -> None:
        start = self.started(where)[-1]
        ended = attempt_ended(start.assign.task, start.assign.epoch, "done", summary, **more)
        self.acme[where].step(ended)
        self.pass_ms(2_000)
