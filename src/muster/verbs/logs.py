"""`muster logs`: the journals of every machine that worked on a task, one after the other.

A journal never leaves its machine by replication. That of this machine is shown to its own user;
each other machine is asked, by an order, and what it shows is in its log as asked for.
"""

import time
from collections.abc import Mapping
from typing import Any, Final

from muster.errors import Denied, MusterError, NotFound, Unreachable
from muster.verbs.client import Door

# Often enough for a person, seldom enough for a daemon.
LOOK_S: Final = 0.5
_LIVE: Final = frozenset({"queued", "waiting", "leased"})


def logs(door: Door, args: Mapping[str, Any]) -> Any:
    """What the agent of a task did, the oldest attempt first."""
    where = door.ask("journal.where", {"task": str(args["task"])}, on=door.on)
    if args.get("follow") and not where["machines"] and where["state"] in _LIVE:
        door.say(f"no machine has begun it yet; `muster why {where['task'][:12]}` says why")
        while not where["machines"] and where["state"] in _LIVE:
            time.sleep(LOOK_S)
            where = door.ask("journal.where", {"task": where["task"]}, on=door.on)
    machines = list(dict.fromkeys(each["machine"] for each in where["machines"]))
    names = {each["machine"]: each["name"] for each in where["machines"]}
    if not machines:
        raise NotFound(
            f"no machine has begun task {where['task'][:12]} yet; "
            f"`muster why {where['task'][:12]}` says what it waits for"
        )
    # Of the machine that was asked; with --on that is another one.
    here = "" if door.on else next((m["machine"] for m in where["machines"] if m["here"]), "")
    shown, missing = 0, list[str]()
    kind: type[MusterError] = Denied
    for machine in machines:
        asked = {"task": where["task"]}
        if args.get("follow") and machine == machines[-1]:
            asked["follow"] = True
        try:
            for each in door.stream("journal", asked, on="" if machine == here else machine):
                if not each.get("end"):
                    door.show(each)
                    shown += 1
        except Unreachable as error:
            missing.append(f"the journal of {names[machine]} cannot be read now: {error}")
            kind = Unreachable
        except Denied:
            missing.append(_stays(where["task"], names[machine]))
    if missing and not shown:
        raise kind("; ".join(missing))
    for text in missing:
        door.say(text)
    if not shown:
        door.say("nothing was written into the journals yet")


def _stays(task: str, machine: str) -> str:
    return (
        f"the journal of {machine} stays there: type `muster logs {task[:12]}` on {machine}, or on "
        "the machine that holds operator.seed"
    )
