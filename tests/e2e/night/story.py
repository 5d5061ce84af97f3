"""What happens in the night, hour by hour, and that each of it ended as it should.

Each event is a method: it lets the time until then pass while nothing is under way, does the harm,
and waits for what the fleet makes of it. What is said of the night afterwards is read from the
fleet's own log (account.py).
"""

import contextlib
import signal
from collections.abc import Iterator, Sequence
from typing import Any, Final

from muster.bridge.base import Button
from tests.e2e import agents
from tests.e2e.fleet import until
from tests.e2e.night.account import Account
from tests.e2e.night.plan import ASKED, HANDOVER_MS, PLANS, SAID, Plan
from tests.e2e.night.world import PERSON, World

# A busy computer takes its time for everything.
WITHIN_S: Final = 150.0


class Story:
    """One night in a world; `say` tells whoever looks what is done to it."""

    def __init__(self, world: World, say: Any) -> None:
        self.world, self.clocks, self.fleet = world, world.clocks, world.fleet
        self._say = say
        self.plans: list[Plan] = []
        self._played: list[str] = []

    def play(self, parts: Sequence[str]) -> None:
        """The evening, these parts of the night, and the morning."""
        self.plans += [plan for part in parts for plan in PLANS.get(part, ())]
        for plan in self.plans:
            self._sign(plan)
        for part in parts:
            self._played.append(part)
            getattr(self, part)()

    def missing(self, account: Account) -> Iterator[str]:
        """What the log does not say of what was planned, and of what was done to the fleet."""
        yield from account.missing({plan: self._slot_ms(plan) for plan in self.plans})
        posts = [each.text for each in self.world.posts()]
        for name in sorted(self.runs):
            told = f": run {name} has ended: done."
            if (times := sum(text.endswith(told) for text in posts)) != 1:
                yield f"the chat shows {times} times that {name} has ended"
        for part in self._played:
            for what, says in SAID.get(part, {}).items():
                if not says(account):
                    yield f"the log does not say that {what}"

    @property
    def runs(self) -> set[str]:
        """The schedules of which there is to be a run."""
        return {plan.name for plan in self.plans if plan.becomes == "schedule.fire"}

    def _slot_ms(self, plan: Plan) -> int:
        return self.clocks.at_ms(plan.hour, plan.minute)

    # --- the evening ----------------------------------------------------------------------

    def _sign(self, plan: Plan) -> None:
        """Add a schedule, as the operator does at the hub."""
        name, folder = plan.name, self.world.marks
        script = agents.prompt({"ask": "other", "title": ASKED}, {"text": "That was all."})
        filled = plan.spec % {"marks": folder, "script": script}
        (folder / f"{name}.yaml").write_text(filled, encoding="utf-8")
        when = f'cron: "{plan.minute} {plan.hour} * * *", zone: {self.clocks.zone}'
        file = folder / f"{name}-schedule.yaml"
        file.write_text(
            f"muster: 1\nschedule: {name}\nrun: {name}.yaml\nkeepers: [{plan.keepers}]\n"
            f"when: {{{when}}}\nlate: {plan.late}\n",
            encoding="utf-8",
        )
        self.world.muster("schedule", "add", str(file), "--json")

    def sleep(self) -> None:
        """The lid of the laptop is closed."""
        knows = lambda: len(self.fleet["laptop"].ask("schedule.list")) == len(self.plans)  # noqa: E731
        self._until(knows, "the laptop knows its schedules")
        self.clocks.jump(self.clocks.at_ms(22))
        self._say("the lid of laptop is closed (SIGSTOP)")
        self.fleet["laptop"].signal(signal.SIGSTOP)

    # --- the night ------------------------------------------------------------------------

    def killed(self) -> None:
        """01:00: a worker's daemon is killed in the middle of its attempt."""
        with self._slot("tests") as run:
            mark, studio = self.world.marks / "unit", self.fleet["studio"]
            self._until(mark.exists, "the task is begun")
            assert self._task(run, "unit")["machine"] == "studio", self._task(run, "unit")
            self._say("the daemon of studio is killed (SIGKILL)")
            studio.kill()
            elsewhere = lambda: self._task(run, "unit")["machine"] == "hub"  # noqa: E731
            self._until(elsewhere, "the task goes to another machine")
            self._say("its service starts the daemon of studio again")
            studio.start()
        self._rests("studio")

    def endless(self) -> None:
        """02:00: one agent makes the same call again and again, and one says nothing any more."""
        with self._slot("updates"):
            pass

    def full(self) -> None:
        """03:00: somebody else fills the disk of a machine that works."""
        marks = self.world.marks
        with self._slot("backup") as run:
            self._until((marks / "pack").exists, "the task is begun")
            assert self._task(run, "pack")["machine"] == "studio", self._task(run, "pack")
            self._say("somebody else's files fill the disk of studio")
            self.world.fill()
            (marks / "filled").touch()
        self._say("they are gone")
        self.world.empty()
        self._until(lambda: self._open("disk-full"), "the full disk is told of")
        self._rests("studio")

    def question(self) -> None:
        """04:00: an agent asks a person, who answers from the phone."""
        with self._slot("tickets"):
            post = self._until(self._asked, "the question reaches the phone")
            yes = next(data for data in post.buttons if data.startswith("y"))
            self._say(f"{PERSON} presses yes on the phone")
            desk = self.world.phone.desk
            self.world.phone.do(desk.press(PERSON, post.ref, Button(yes, "allow", "")))

    def alone(self) -> None:
        """05:00: nobody stands in for the laptop in two slots; one of them can wait longer."""
        self.clocks.jump(self.clocks.at_ms(5, 30))

    def restart(self) -> None:
        """05:30: the hub is told to end, and begins again, as for a new version."""
        self._say("the daemon of hub is ended (SIGTERM), and begins again")
        code = self.fleet.hub.stop()
        assert code == 0, f"the daemon of hub ended with {code}"
        self.fleet.hub.start()
        self._rests("studio")

    # --- the morning ----------------------------------------------------------------------

    def wake(self) -> None:
        """06:00: the laptop is opened, and fires the next slot itself."""
        self.clocks.jump(self.clocks.at_ms(6))
        self._say("the lid of laptop is opened (SIGCONT)")
        self.fleet["laptop"].signal(signal.SIGCONT)
        self._rests("laptop")
        for plan in self.plans:
            if plan.by == "laptop" and self._slot_ms(plan) < self.clocks.now_ms:
                self._until(lambda p=plan: self._decided(p.name), f"{plan.name} is decided")
        none_open = lambda: all(r["state"] != "open" for r in self.fleet.hub.ask("runs"))  # noqa: E731
        self._until(none_open, "what was late is done")
        with self._slot("report"):
            pass

    def end(self) -> None:
        """07:00: quiet hours are over, and everybody rests."""
        self.clocks.jump(self.clocks.at_ms(7) + 1_000)
        told = lambda: all(self.told(f"run {name}: done") for name in self.runs)  # noqa: E731
        self._until(told, "the runs of the night are told of")
        for post in self.world.posts() if self._open("") else ():
            if looks := next((data for data in post.buttons if data.startswith("a")), ""):
                text = post.text.partition("\n")[0]
                self._until(lambda t=text: self.told(t.rpartition(": ")[2]), f"told: {text}")
                self._say(f"{PERSON} presses on the phone that she looks at it: {text}")
                desk = self.world.phone.desk
                self.world.phone.do(desk.press(PERSON, post.ref, Button(looks, "looks", "")))
        said = lambda: [each["title"] for each in self._open("")]  # noqa: E731
        until(lambda: not said(), lambda: f"nothing needs a person: {said()}", within_s=WITHIN_S)
        well = agents.muster(self.fleet, self.fleet.hub, "health", "--on", "all")
        assert well.code == 0, f"a machine is not well in the morning: {well.out}{well.err}"

    # --- in between -----------------------------------------------------------------------

    @contextlib.contextmanager
    def _slot(self, name: str) -> Iterator[str]:
        """The run of a slot, from its fire to its end."""
        plan = next(each for each in self.plans if each.name == name)
        # A stand-in has its turn one handover later.
        turn_ms = HANDOVER_MS if plan.by == "hub" else 0
        self.clocks.jump(self._slot_ms(plan) + turn_ms - 1_000)
        run = self._until(lambda: self._decided(name), f"the slot of {name} is fired")[0]["run"]
        yield run
        self._until(lambda: self._run(run)["state"] != "open", f"the run of {name} ends")
        assert self._run(run)["state"] == "done", self._run(run)

    def _decided(self, name: str) -> Any:
        return self.fleet.hub.ask("schedule.show", {"name": name})["decided"]

    def _rests(self, name: str) -> None:
        """Wait until a machine is back: linked, sure of its own past, and greeted.

        What they tell each other at first has the time in it, and must not be under way when that
        jumps.
        """
        machine, hub = self.fleet[name], self.fleet.hub
        back = lambda: name in hub.linked() and machine.ask("health.look")["settled"]  # noqa: E731
        self._until(back, f"{name} is back")
        for other in {"hub", "studio"} - {name}:
            ping = ("ping", other)
            heard = lambda p=ping: agents.muster(self.fleet, machine, *p).code == 0  # noqa: E731
            self._until(heard, f"{name} is heard by {other}")

    def _run(self, run: str) -> Any:
        return self.fleet.hub.ask("runs", {"run": run})

    def _task(self, run: str, phase: str) -> Any:
        return next(t for t in self._run(run)["tasks"] if t["phase"] == phase)

    def _open(self, key: str) -> list[Any]:
        """The incidents that need a person, of this key or of all."""
        found = [i for i in self.fleet.hub.ask("incidents") if i["open"] and not i.get("by")]
        return [each for each in found if key in ("", each["key"])]

    def _asked(self) -> Any:
        return next((e for e in self.world.posts() if ASKED in e.text and e.buttons), None)

    def told(self, words: str) -> bool:
        """Whether the web server was told something with these words."""
        return any(words in text for text in self.world.told())

    @staticmethod
    def _until(true: Any, what: str) -> Any:
        return until(true, what, within_s=WITHIN_S)
