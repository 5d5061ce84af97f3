"""What is planned for a night: the schedules, what each is to become, and what the log is to say."""

from collections.abc import Callable, Mapping, Sequence
from typing import Final, NamedTuple

from tests.e2e.night.account import Account

# What the agent of a task asks a person.
ASKED: Final = "write the vendor a ticket"
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
  look:
    agent: [stuck]
    retries: 0
    check: "true"
    do: |
      do: silent %(marks)s/silent
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
STOCK: Final = """\
muster: 1
name: stock
repo: main
inputs: {slot-late: "0"}
phases:
  count:
    agent: shell
    do: echo "$MUSTER_INPUTS_SLOT_LATE seconds late" > stock.txt
    deliver: stock.txt
"""
WEATHER: Final = """\
muster: 1
name: weather
repo: main
phases:
  look:
    agent: shell
    do: echo rain > weather.txt
    deliver: weather.txt
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


class Plan(NamedTuple):
    """A schedule of the night: when its slot is, and what becomes of that, by whom."""

    name: str
    spec: str
    hour: int
    minute: int = 0
    by: str = "hub"
    becomes: str = "schedule.fire"
    # The first is the owner; a slot that is later than `late` is missed.
    keepers: str = "laptop, hub"
    late: str = "1h"


# A stand-in asks so much later than the owner; no schedule here says otherwise.
HANDOVER_MS: Final = 120_000
# By the part of the night.
PLANS: Final[Mapping[str, tuple[Plan, ...]]] = {
    "killed": (Plan("tests", TESTS, 1),),
    "endless": (Plan("updates", UPDATES, 2),),
    "full": (Plan("backup", BACKUP, 3),),
    "question": (Plan("tickets", TICKETS, 4),),
    "alone": (
        Plan("stock", STOCK, 5, by="laptop", keepers="laptop", late="2h"),
        Plan("weather", WEATHER, 5, 10, "laptop", "schedule.miss", "laptop", "30m"),
    ),
    "wake": (Plan("report", REPORT, 6, 30, by="laptop"),),
}
LONG: Final = ("sleep", "killed", "endless", "full", "question", "alone", "restart", "wake", "end")
SHORT: Final = ("sleep", "killed", "question", "wake", "end")


def _moved(did: Sequence[str]) -> bool:
    return did[:1] == ["studio"] and did[-1:] == ["hub"]


# What the log says of each part.
SAID: Final[dict[str, dict[str, Callable[[Account], bool]]]] = {
    "sleep": {
        "the hub waited for its turn": lambda a: min(a.late_ms("hub"), default=0) >= HANDOVER_MS,
    },
    "killed": {
        "a try of studio's was lost": lambda a: a.says("task.expire", "tests/unit"),
        "the hub did it": lambda a: _moved(a.did("tests/unit")),
    },
    "endless": {
        "the agent was ended for its loop": lambda a: a.says(
            "attempt.finish", "updates/update", status="failed", reason="loop: "
        ),
        "it was done all the same": lambda a: len(a.did("updates/update")) > 1,
        "the other was ended as silent": lambda a: a.says(
            "attempt.finish", "updates/look", status="killed", reason="silent: "
        ),
        "the hub did that": lambda a: _moved(a.did("updates/look")),
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
    "alone": {
        "a slot that was too late was missed": lambda a: a.says("schedule.miss", reason="asleep"),
        "the other was fired an hour later": lambda a: max(a.late_ms("laptop")) >= 3_600_000,
    },
}
