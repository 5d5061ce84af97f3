"""What happens in the night, hour by hour, and that each of it ended as it should.

Each event is a method: it lets the time until then pass while nothing is under way, does the harm,
and waits for what the fleet makes of it. What is said of the night afterwards is read from the
fleet's own log (account.py).
"""

import contextlib
import signal
from collections.abc import Callable, Iterator, Sequence
from typing import Any, Final

from muster.bridge.base import Button
from tests.e2e import agents
from tests.e2e.fleet import until
from tests.e2e.night.account import Account
from tests.e2e.night.world import PERSON, World

# A busy computer takes its time for everything.
WITHIN_S: Final = 150.0
# A stand-in asks so much later than the owner; no schedule here says otherwise.
HANDOVER_MS: Final = 120_000

# The hub, which has the repository, has room for one task: the second goes to studio.
TESTS: Final = """\
muster: 1
name: tests
repo: main
phases:
  lint:
    agent: shell
    do: sleep 4; echo fine > lint.txt
    deliver: lint.txt
  unit:
    agent: shell
    do: |
      test -e %(marks)s/unit || { touch %(marks)s/unit; sleep 300; }
      echo passed > unit.txt
    deliver: unit.txt
"""
UPDATES: Final = """\
muster: 1
name: updates
repo: main
phases:
  update:
    agent: [stuck]
    retries: 1
    check: "true"
    do: |
      do: loops %(marks)s/loops
"""
BACKUP: Final = """\
muster: 1
name: backup
repo: main
phases:
  list:
    agent: shell
    do: sleep 4; ls > list.txt
    deliver: list.txt
  pack:
    agent: shell
    do: |
      touch %(marks)s/pack; while ! test -e %(marks)s/filled; do sleep 0.2; done
      head -c 1M /dev/zero > archive
      rm archive; echo packed > pack.txt
    deliver: pack.txt
"""
TICKETS: Final = """\
muster: 1
name: tickets
repo: main
phases:
  file:
    agent: [planner]
    retries: 0
    check: "true"
    do: %(script)s
"""
REPORT: Final = """\
muster: 1
name: report
repo: main
phases:
  write:
    agent: shell
    do: echo well > report.txt
    deliver: report.txt
"""
# By the part of the night, its schedule: name, spec and when.
PLANS: Final[dict[str, tuple[str, str, int, int]]] = {
    "killed": ("tests", TESTS, 1, 0),
    "endless": ("updates", UPDATES, 2, 0),
    "full": ("backup", BACKUP, 3, 0),
    "question": ("tickets", TICKETS, 4, 0),
    "wake": ("report", REPORT, 6, 30),
}
LONG: Final = ("sleep", "killed", "endless", "full", "question", "wake", "end")
SHORT: Final = ("sleep", "killed", "question", "wake", "end")


def _moved(did: Sequence[str]) -> bool:
    return did[:1] == ["studio"] and did[-1:] == ["hub"]


# What the log says of each part.
SAID: Final[dict[str, dict[str, Callable[[Account], bool]]]] = {
    "killed": {
        "a try of studio's was lost": lambda a: a.says("task.expire", "tests/unit"),
        "the hub did it": lambda a: _moved(a.did("tests/unit")),
    },
    "endless": {
        "the agent was ended for its loop": lambda a: a.says(
            "attempt.finish", "updates/update", status="failed", reason="loop: "
        ),
        "another machine did it": lambda a: len(set(a.did("updates/update"))) == 2,
    },
    "full": {
        "studio's disk was full": lambda a: a.says("incident.open", key="disk-full"),
        "a person looks at it": lambda a: a.says("chat.acknowledge"),
        "the hub did it": lambda a: _moved(a.did("backup/pack")),
    },
    "question": {
        "an agent asked": lambda a: a.says("approval.ask", "tickets/file"),
        "it was answered by the phone": lambda a: a.says(
            "approval.answer", account="chat.telegram."
        ),
        "the answer was used": lambda a: a.says("approval.use", "tickets/file"),
    },
    "end": {
        "every run was told of": lambda a: a.told() >= {"tests", "tickets", "report"},
    },
}
ASKED: Final = "write the vendor a ticket"


class Story:
    """One night in a world; `say` tells whoever looks what is done to it."""

    def __init__(self, world: World, say: Any) -> None:
        self.world, self.clocks, self.fleet = world, world.clocks, world.fleet
        self._say = say
        # By schedule, when its slot is.
        self.slots: dict[str, int] = {}
        self.played: list[str] = []

    def play(self, parts: Sequence[str]) -> None:
        """The evening, these parts of the night, and the morning."""
        for part in parts:
            if part in PLANS:
                self.plan(*PLANS[part])
        for part in parts:
            self.played.append(part)
            getattr(self, part)()

    def missing(self, account: Account) -> Iterator[str]:
        """What the log does not say of what was done to the fleet."""
        for name, slot in self.slots.items():
            keeper = "hub" if slot < self.clocks.at_ms(6) else "laptop"
            found = {event.machine for event in account.decided(name, slot)}
            if found != {keeper}:
                yield f"{name} was fired by {sorted(found)}, not by {keeper}"
        for part in self.played:
            for what, says in SAID.get(part, {}).items():
                if not says(account):
                    yield f"the log does not say that {what}"

    # --- the evening ----------------------------------------------------------------------

    def plan(self, name: str, spec: str, hour: int, minute: int = 0) -> None:
        """A schedule whose owner is the laptop, and the hub stands in for it."""
        script = agents.prompt({"ask": "other", "title": ASKED}, {"text": "That was all."})
        filled = spec % {"marks": self.world.marks, "script": script}
        (self.world.marks / f"{name}.yaml").write_text(filled, encoding="utf-8")
        file = self.world.marks / f"{name}-schedule.yaml"
        file.write_text(
            f"muster: 1\nschedule: {name}\nrun: {name}.yaml\nkeepers: [laptop, hub]\n"
            f'when: {{cron: "{minute} {hour} * * *", zone: {self.clocks.zone}}}\n',
            encoding="utf-8",
        )
        self.world.muster("schedule", "add", str(file), "--json")
        self.slots[name] = self.clocks.at_ms(hour, minute)

    def sleep(self) -> None:
        """The lid of the laptop is closed."""
        knows = lambda: {s["name"] for s in self.fleet["laptop"].ask("schedule.list")}  # noqa: E731
        until(lambda: knows() >= self.slots.keys(), "the laptop knows its schedules")
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
        """02:00: an agent makes the same call again and again."""
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

    # --- the morning ----------------------------------------------------------------------

    def wake(self) -> None:
        """06:00: the laptop is opened, and fires the next slot itself."""
        self.clocks.jump(self.clocks.at_ms(6))
        self._say("the lid of laptop is opened (SIGCONT)")
        self.fleet["laptop"].signal(signal.SIGCONT)
        self._rests("laptop")
        with self._slot("report", keeper="laptop"):
            pass

    def end(self) -> None:
        """07:00: quiet hours are over, and everybody rests."""
        self.clocks.jump(self.clocks.at_ms(7) + 1_000)
        told = lambda: all(self.told(f"run {name}: done") for name in self.slots)  # noqa: E731
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

    # --- in between -----------------------------------------------------------------------

    @contextlib.contextmanager
    def _slot(self, name: str, keeper: str = "hub") -> Iterator[str]:
        """The run of a slot, from its fire to its end."""
        at_ms = self._before(name)
        if keeper == "hub":
            self.clocks.jump(at_ms + HANDOVER_MS - 1_000)
        run = self._until(lambda: self._fired(name), f"the slot of {name} is fired")
        yield run
        self._until(lambda: self._run(run)["state"] != "open", f"the run of {name} ends")
        assert self._run(run)["state"] == "done", self._run(run)

    def _rests(self, name: str) -> None:
        """Wait until a machine is back: linked, and sure of its own past."""
        machine = self.fleet[name]
        back = lambda: "hub" in machine.linked() and machine.ask("health.look")["settled"]  # noqa: E731
        self._until(back, f"{name} is back")

    def _before(self, name: str) -> int:
        """Shortly before a slot; when it is."""
        self.clocks.jump(self.slots[name] - 2_000)
        return self.slots[name]

    def _fired(self, name: str) -> str:
        shown = self.fleet.hub.ask("schedule.show", {"name": name})
        return next((e["run"] for e in shown["decided"] if e["what"] == "fire"), "")

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
