"""A night of three machines with nobody at the keyboard: `python -m tests.e2e.night [--short]`.

What is done to the fleet is said as it is done; then the night is told by the fleet's own log, with
its sums. It ends with 1 and a sentence where something is missing.
"""

import argparse
import os
import subprocess
import sys
from collections.abc import Sequence
from typing import Final

from muster.errors import MusterError
from tests.e2e import checks
from tests.e2e.fleet import until
from tests.e2e.night.account import Account, held
from tests.e2e.night.plan import LONG, SHORT
from tests.e2e.night.story import WITHIN_S, Story
from tests.e2e.night.world import PERSON, World, obstacle

# Set where this process is already in mounts of its own.
APART: Final = "MUSTER_NIGHT_APART"


def main(words: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.e2e.night", description=__doc__)
    parser.add_argument("--short", action="store_true", help="three events, within a minute")
    options = parser.parse_args(words)
    parts, why = (SHORT, "") if options.short else (LONG, obstacle())
    if not options.short and not why and APART not in os.environ:
        # What it mounts nobody else sees, and it is gone with the last of its processes.
        argv = ["unshare", "--mount", "--propagation", "private", "--", sys.executable, "-m"]
        return subprocess.run([*argv, __package__], env=os.environ | {APART: "1"}, check=False).returncode  # fmt: skip
    if why:
        print(f"Without a full disk: {why}.")
        parts = tuple(part for part in parts if part != "full")
    with World(disk="full" in parts) as world:
        return _night(world, parts)


def _night(world: World, parts: Sequence[str]) -> int:
    def say(text: str) -> None:
        print(f"{world.clocks.shown(world.clocks.now_ms)}  {text}", flush=True)

    missing = []
    story = Story(world, say)
    try:
        print("What is done to the fleet:\n", flush=True)
        world.begin()
    except (AssertionError, MusterError) as error:
        print(f"The night did not begin: {error}")
        return 1
    try:
        story.play(parts)
        written = lambda: _account(world).told() == story.runs  # noqa: E731
        until(written, "what was told is written down", within_s=WITHIN_S)
        until(lambda: not checks.converged(world.fleet), "all hold the same", within_s=WITHIN_S)
        checks.check_logs(world.fleet)
    except (AssertionError, MusterError) as error:
        missing.append(str(error))
    account = _account(world)
    print(
        f"\nWhat happened, by the log of {world.fleet.hub.name} (times of {world.clocks.zone}):\n"
    )
    print("\n".join(account.lines(world.clocks.shown)))
    sums = account.sums() | {"messages received": len(world.told())}
    print("\n" + ", ".join(f"{number} {what}" for what, number in sums.items()))
    missing += story.missing(account)
    if missing:
        for machine in world.fleet.machines.values():
            print(f"\nWhat the daemon of {machine.name} said last:\n{machine.log()[-2000:]}")
        print(f"The night lacks something: {'; '.join(missing)}")
        return 1
    print("Nothing is missing, and nobody was at the keyboard.")
    return 0


def _account(world: World) -> Account:
    names = {machine.id: machine.name for machine in world.fleet.machines.values()}
    names[f"chat.telegram.{world.phone.desk.account(PERSON)}"] = PERSON
    return Account(held(world.fleet.hub), names)


if __name__ == "__main__":
    sys.exit(main())
