"""Whoever follows a run from its beginning knows at each moment what one who comes now is told."""

import random
from typing import Any

import pytest
from tests.node.cores import Cores, One, attempt_ended
from tests.node.test_runs import hand_in, know, wanted
from tests.promise import proves

from muster.cli.run_progress import RunProgress
from muster.cli.show.task import Slot
from muster.log import canon
from muster.node.incarnations.own_incarnation import FactsChanged
from muster.node.tasks.attempt_body import AttemptStage
from muster.task.instruction import StartAttempt, StopAttempt

SPEC = """\
muster: 1
name: mixed
phases:
  build: {agent: shell, do: "true", check: "true", retries: 2}
  race: {agent: shell, do: "true", check: "true", race: 3}
  agree: {after: build, by: human, do: Is it good}
  test: {after: build, agent: shell, do: "true", check: "true", retries: 1}
  ship: {after: [agree, race, test], agent: shell, do: "true", check: "true"}
"""


class Play:
    """A fleet of two on which anything may happen to a run, drawn by chance."""

    def __init__(self, seed: int) -> None:
        self.random = random.Random(seed)
        self.world = Cores("hub", "studio")
        self.hub, self.studio = self.world["hub"], self.world["studio"]
        know(self.hub)
        self.world.link("hub", "studio")
        self.linked = True
        self.studio.step(FactsChanged(self.studio.facts(labels=("far",))))
        self.world.pass_ms(3_000)
        self.run = hand_in(self.hub, SPEC, "mixed")
        self.going: dict[tuple[str, Any], tuple[One, Any]] = {}

    def look(self) -> None:
        for machine in (self.hub, self.studio):
            for start in wanted(machine, StartAttempt):
                self.going[start.assign.task, start.assign.epoch] = machine, start
            for stop in wanted(machine, StopAttempt):
                if found := self.going.pop((stop.task, stop.epoch), None):
                    found[0].step(attempt_ended(stop.task, stop.epoch, "killed"))

    def go_on(self) -> None:
        chance = self.random
        what = chance.choice(
            ["pass", "pass", "stage", "end", "end", "end", "cut", "cancel", "decide", "again"]
        )
        if what == "pass":
            self.world.pass_ms(chance.choice([50, 900, 5_000, 40_000]))
        elif what == "cut":
            if self.linked:
                self.world.cut("studio")
            else:
                self.world.link("hub", "studio")
            self.linked = not self.linked
        elif what in ("stage", "end") and self.going:
            place = chance.choice(list(self.going))
            machine, _ = self.going[place]
            if what == "stage":
                stage = chance.choice(["fetching", "working", "checking", "delivering"])
                machine.step(AttemptStage(*place, stage))
            else:
                del self.going[place]
                how = chance.choice(["done", "done", "failed", "killed"])
                more = {"reason": f"reason {chance.random()}"} if how == "failed" else {}
                machine.step(attempt_ended(*place, how, **more))
        elif what in ("cancel", "decide", "again"):
            tasks = self.hub.call("runs", {"run": self.run})["value"]["tasks"]
            task = chance.choice(tasks)["task"]
            if what == "decide":
                self.hub.order(
                    "decide", task, {"task": task, "answer": chance.choice(["yes", "no"])}
                )
            elif what == "again":
                self.hub.order("retry", task, {"task": task})
            elif chance.random() < 0.4:
                what = self.run if chance.random() < 0.2 else task
                self.hub.order("cancel", what, {"what": what})
        self.world.drain()
        self.look()


def known(follower: "Follower") -> dict[Slot, tuple[Any, ...]]:
    """How each task and each phase without one stands, as the follower has it."""
    follower.hear()
    found, progress = dict[Slot, tuple[Any, ...]](), follower.progress
    for slot, change in progress.tasks.items():
        state = change["state"]
        machine = change["machine"] if state in ("leased", "done") else ""
        word = progress.word(slot) if state == "leased" else ""
        left = state == "queued" and slot in progress.left
        found[slot] = (state, machine, change["tries"], change["losses"], word, left)
    return found


class Follower:
    """Somebody who follows the run on a machine, and what is told on that channel alone."""

    def __init__(self, machine: One, run: str, channel: int) -> None:
        self.told = machine.told.setdefault(channel, [])
        self.read, self.progress = 0, RunProgress()
        args = {"live": True, "run": run, "waits": True}
        machine.raw(canon.encode({"args": args, "verb": "watch"}), channel=channel)

    def hear(self) -> None:
        for each in self.told[self.read :]:
            self.progress.hear(each["value"])
        self.read = len(self.told)


def tasks_of(machine: One, run: str) -> dict[Slot, dict[str, Any]]:
    tasks = machine.call("runs", {"run": run})["value"]["tasks"]
    return {(each["phase"], each["instance"]): each for each in tasks}


@proves("cli.live-view")
@pytest.mark.parametrize("seed", range(12))
def test_who_follows_knows_at_each_moment_what_is_so_and_what_one_who_comes_now_is_told(seed):
    play = Play(seed)
    first, far = Follower(play.hub, play.run, 200), Follower(play.studio, play.run, 200)
    for at in range(60):
        play.go_on()
        seen, copied = known(first), known(far)
        run = play.hub.call("runs", {"run": play.run})["value"]
        tasks = tasks_of(play.hub, play.run)
        for slot, task in tasks.items():
            state, machine, tries, losses, *_ = seen[slot]
            assert (state, tries, losses) == (task["state"], task["tries"], task["losses"]), at
            assert machine in ("", task["machine"]), at
        for name in run["progress"].keys() - {slot[0] for slot in tasks}:
            shown = seen.get((name, ""), ("waiting",))[0]
            assert shown.replace("queued", "ready") == run["progress"][name]["state"], (at, name)
        if play.linked and not first.progress.end:
            for slot, task in tasks_of(play.studio, play.run).items():
                assert copied[slot][0] == task["state"], (at, slot)
        late = known(Follower(play.hub, play.run, 300 + at))
        assert {slot: seen[slot] for slot in late} == late, at
        if run["state"] != "open":
            assert first.progress.end["settled"] == run["state"]
            break
