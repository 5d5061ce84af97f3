"""Real daemons on real hosts, and in each round something goes wrong with them or between them.

    python -m tests.e2e.net.chaos --rounds 20 [--seed N] [--beside nats,git,cloud,drop,ssh]

A hub, a studio, and a laptop behind a NAT, each on a host of its own. All talk with all and the hub
gets work, while one or two of FAULTS are at work. `--beside` has them meet in mailboxes, too, and
then the servers of these on the host of the hub are killed and stand still as well. `sftp` is the
place of `drop` on the host of the hub. With `ssh` nothing of ours listens at the studio: the laptop
comes in through its sshd, and that is killed and stands still. Then all is healed, and within a bound whatever
was accepted must have arrived: once, and in its sender's order (verdict.py). The seed draws the
faults; what they meet is as real as the computer is busy.
"""

import argparse
import json
import os
import random
import secrets
import shutil
import signal
import sqlite3
import sys
import time
import traceback
from collections import Counter
from collections.abc import Callable, Sequence
from contextlib import closing
from functools import partial
from pathlib import Path
from typing import Final

from muster.errors import MusterError
from tests.e2e import checks
from tests.e2e.fleet import Machine, until
from tests.e2e.kill import mistakes
from tests.e2e.net import matrix, places, talk, verdict
from tests.e2e.net.fleet import NetFleet
from tests.e2e.net.stage import Net, why_not
from tests.e2e.net.verdict import SetBack

NAMES: Final = ("hub", "studio", "laptop")
BEHIND: Final = "laptop"
# A place without a server.
DROP: Final = "drop"
# Where nothing of ours listens but to the hub, and an sshd does.
DOOR: Final = "ssh"
AT_DOOR: Final = "studio"
# A link that only silence ended is noticed after half a minute, and dialled again within another.
REST_S: Final = 150.0
COPIES: Final = 5
MARKED_S: Final = 10.0
# The whole inboxes are read so often, and in the end; else what is new since the round before.
WHOLE_EVERY: Final = 10

# A hub that was set back calls the results late that it had settled before, in its new stream, which
# has no such task. They change nothing.
SKIPS: Final = frozenset({"no-such-task"})

Heal = Callable[[], None]
Fault = Callable[["Rounds", random.Random], Heal]


class Rounds:
    """One fleet through many rounds."""

    def __init__(self, net: Net, seed: int, beside: Sequence[str] = ()) -> None:
        self.net = net
        self.seed = seed
        dials = {"studio": ["hub"], BEHIND: ["hub", "studio"]}
        deaf = [BEHIND]
        if DOOR in beside:
            dials, deaf = {"studio": ["hub"], BEHIND: ["hub"]}, [BEHIND, AT_DOOR]
        self.fleet = NetFleet(net, dials=dials, deaf=deaf)
        net.behind(BEHIND)
        self.servers = {
            name: places.PLACES[name](self.fleet, self.fleet.hub.name)
            for name in beside if name not in (DROP, DOOR)
        }  # fmt: skip
        self.door = places.door(self.fleet, AT_DOOR, BEHIND) if DOOR in beside else None
        if self.door is not None:
            self.servers[DOOR] = self.door
        self.may_happen = dict(FAULTS)
        for name in self.servers:
            self.may_happen[f"{name}: kill -9 of its server"] = partial(kill_server, name)
            self.may_happen[f"{name}: standstill of its server"] = partial(stop_server, name)
        if DROP in beside:
            self.shared = places.drop(self.fleet)
            self.may_happen["drop: the folder is away"] = folder_away
        self.talk = talk.Talk(self.fleet, str(seed))
        self.copies: list[tuple[Machine, Path, float]] = []
        self.set_back: list[SetBack] = []
        self.faults: Counter[str] = Counter()
        self.now: tuple[str, ...] = ()
        self._judged_s = 0.0
        self.last = verdict.judge((), {})

    def begin(self) -> None:
        """Start the fleet, and wait until each way is one."""
        self.fleet.start()
        if self.door is not None:
            places.let_in(self.fleet, self.door, BEHIND)
            until(lambda: matrix.carries(DOOR, self.fleet[BEHIND], AT_DOOR),
                  f"{BEHIND} comes in by the sshd of {AT_DOOR}", within_s=REST_S)  # fmt: skip

    def play(self, number: int) -> None:
        """One round: talk, faults, heal, rest, verdict."""
        dice = random.Random(f"{self.seed}/{number}")
        self.now = tuple(dice.sample(sorted(self.may_happen), dice.choice((1, 1, 2))))
        self.faults.update(self.now)
        began_s = time.monotonic()
        self.talk.begin(number)
        try:
            heals: list[Heal] = []
            try:
                for name in self.now:
                    time.sleep(dice.uniform(0.0, 0.5))
                    heals.append(self.may_happen[name](self, dice))
                time.sleep(dice.uniform(1.0, 3.0))
            finally:
                for heal in reversed(heals):
                    heal()
        finally:
            self.talk.end()
        self._rest(began_s, whole=number % WHOLE_EVERY == 0)
        self._copy(number, dice)

    def _rest(self, began_s: float, *, whole: bool) -> None:
        since_s = 0.0 if whole else self._judged_s
        said = [m for m in self.talk.said.values() if m.begun_s >= since_s]
        # What was judged may stand between; before it nothing of ours can stand.
        old = {m.text for m in self.talk.said.values() if m.begun_s < since_s}

        def verdict_now() -> verdict.Verdict:
            inboxes = {}
            for machine in self.fleet.machines.values():
                texts = talk.inbox(machine, lambda text: text in old and not whole)
                self.talk.saw(machine.name, texts)
                inboxes[machine.name] = [text for text in texts if text not in old]
            return verdict.judge(said, inboxes, self.set_back)

        until(lambda: not verdict_now().lost, lambda: "; ".join(verdict_now().problems),
              within_s=REST_S)  # fmt: skip
        self.last = verdict_now()
        assert not self.last.problems, "; ".join(self.last.problems)
        hub = self.fleet.hub
        until(lambda: not hub.ask("tasks"), lambda: f"every task is settled: {hub.ask('tasks')[:3]}",
              within_s=REST_S)  # fmt: skip
        until(lambda: not checks.converged(self.fleet), lambda: checks.converged(self.fleet),
              within_s=REST_S)  # fmt: skip
        self._check_tasks()
        self._judged_s = began_s

    def _check_tasks(self) -> None:
        """Every task that was accepted is there and settled, and none was settled twice."""
        log = checks.Log(self.fleet.hub)
        try:
            states = {row["task"]: row["state"] for row in log.rows("select task, state from task")}
            settled = log.rows(
                "select json_extract(cast(body as text), '$.task') task, count(*) n from entry"
                " where json_extract(cast(header as text), '$.kind') = 'task.settle' group by 1"
            )
        finally:
            log.close()
        missing = [task for task in self.talk.tasks if task not in states]
        back = [each for each in self.set_back if each.machine == self.fleet.hub.name]
        lost = [
            task for task in missing
            if not any(b.copied_s < self.talk.tasks[task] < b.restored_s for b in back)
        ]  # fmt: skip
        assert not lost, f"tasks lost: {lost[:5]}"
        twice = [row["task"] for row in settled if row["n"] > 1]
        assert not twice, f"tasks settled twice: {twice[:5]}"
        wrong = {task: state for task, state in states.items() if state != "done"}
        assert not wrong, f"tasks that are not done: {list(wrong.items())[:5]}"

    def _copy(self, number: int, dice: random.Random) -> None:
        """Copy one home's database, as a backup does; the oldest copies go."""
        machine = dice.choice(list(self.fleet.machines.values()))
        path = self.fleet.root / f"copy-{number}.db"
        with (
            closing(sqlite3.connect(f"file:{machine.home.database}?mode=ro", uri=True)) as here,
            closing(sqlite3.connect(path)) as there,
        ):
            copied_s = time.monotonic()
            here.backup(there)
        self.copies.append((machine, path, copied_s))
        while len(self.copies) > COPIES:
            self.copies.pop(0)[1].unlink()

    def finish(self) -> None:
        """Judge all of it, stop the fleet in peace, and read the logs to the last byte."""
        self._rest(time.monotonic(), whole=True)
        checks.check_logs(self.fleet, SKIPS if self.set_back else checks.EXPECTED_SKIPS)
        for machine in self.fleet.machines.values():
            code = machine.stop()
            assert code == 0, f"{machine.name} ended with {code}"
            assert not mistakes(machine), f"{machine.name} made mistakes:\n{mistakes(machine)}"
        for machine in self.fleet.machines.values():
            checks.check_refold(machine)

    def summary(self, rounds: int) -> str:
        """The line that can be published, after `finish`."""
        said, tasks = self.talk.said.values(), self.talk.tasks
        p50, p99, worst = verdict.quantiles_ms(said)
        drawn = ", ".join(f"{count} {name}" for name, count in sorted(self.faults.items()))
        return (
            f"chaos: {rounds} rounds, seed {self.seed}, {len(said)} messages, {len(tasks)} tasks: "
            f"0 lost, 0 twice, order kept; delivery p50 {p50:.0f} ms, p99 {p99 / 1000:.1f} s, "
            f"max {worst / 1000:.1f} s; excused, their sender was set back: {self.last.excused} gone, "
            f"{self.last.again} said again; faults: {drawn}"
        )


# --- what may go wrong -------------------------------------------------------------------


def _pair(rounds: Rounds, dice: random.Random) -> tuple[str, str]:
    one, other = dice.sample(NAMES, 2)
    return one, other


def _machine(rounds: Rounds, dice: random.Random) -> Machine:
    return rounds.fleet[dice.choice(NAMES)]


def _leave(machine: Machine) -> None:
    """Say that it is away until it is started: else who comes through its sshd begins one."""
    machine.home.put_down.touch()


def _up(machine: Machine) -> None:
    # Two faults may have ended the same one.
    if not machine.alive:
        machine.start()


def cut(rounds: Rounds, dice: random.Random) -> Heal:
    """Nothing goes between two of them."""
    between = rounds.net.between(*_pair(rounds, dice)).cut()
    return lambda: between.heal() and None


def cut_one_way(rounds: Rounds, dice: random.Random) -> Heal:
    """One does not reach the other, and hears it."""
    between = rounds.net.between(*_pair(rounds, dice)).cut(one_way=True)
    return lambda: between.heal() and None


def away(rounds: Rounds, dice: random.Random) -> Heal:
    """One machine reaches nobody."""
    name = dice.choice(NAMES)
    ways = [rounds.net.between(name, other).cut() for other in NAMES if other != name]
    return lambda: [way.heal() for way in ways] and None


def loss(rounds: Rounds, dice: random.Random) -> Heal:
    """Of all packets between two of them 30 in a hundred are lost."""
    between = rounds.net.between(*_pair(rounds, dice)).loss(0.3)
    return lambda: between.heal() and None


def slow(rounds: Rounds, dice: random.Random) -> Heal:
    """Each packet takes 200 to 300 ms each way."""
    between = rounds.net.between(*_pair(rounds, dice)).delay(200, 100)
    return lambda: between.heal() and None


def kill(rounds: Rounds, dice: random.Random) -> Heal:
    """`kill -9` of a daemon; it comes back later."""
    machine = _machine(rounds, dice)
    _leave(machine)
    machine.kill()
    return lambda: _up(machine)


def restart(rounds: Rounds, dice: random.Random) -> Heal:
    """A daemon is stopped as a person stops it, and started at once."""
    machine = _machine(rounds, dice)
    machine.signal(signal.SIGCONT)
    _leave(machine)
    machine.stop()
    _up(machine)
    return lambda: None


def stop(rounds: Rounds, dice: random.Random) -> Heal:
    """A daemon stands still for 5 to 20 seconds."""
    machine = _machine(rounds, dice)
    machine.signal(signal.SIGSTOP)
    until_s = time.monotonic() + dice.uniform(5.0, 20.0)

    def heal() -> None:
        time.sleep(max(0.0, until_s - time.monotonic()))
        machine.signal(signal.SIGCONT)

    return heal


def set_back(rounds: Rounds, dice: random.Random) -> Heal:
    """A machine gets the database that it had some rounds ago, and its mark remembers more.

    Where it does not, nothing shows that it was set back (the mark is up to a second behind, and a
    machine that nobody answers writes on after three): then it is killed alone.
    """
    if not rounds.copies:
        return _killed_alone(rounds, dice)
    machine, path, copied_s = dice.choice(rounds.copies)
    give_up_s = time.monotonic() + MARKED_S
    while not _remembers_more(machine, path):
        if time.monotonic() > give_up_s:
            return _killed_alone(rounds, dice)
        time.sleep(0.1)
    _leave(machine)
    machine.kill()
    for old in Path(machine.home.path).glob("log.db*"):
        old.unlink()
    shutil.copyfile(path, machine.home.database)
    os.chmod(machine.home.database, 0o600)
    # What it accepted meanwhile it accepted before this.
    rounds.set_back.append(SetBack(machine.name, copied_s, time.monotonic()))
    return lambda: _up(machine)


def _killed_alone(rounds: Rounds, dice: random.Random) -> Heal:
    # It counts as what it was.
    rounds.faults["set back"] -= 1
    rounds.faults["kill -9"] += 1
    return kill(rounds, dice)


def _remembers_more(machine: Machine, copy: Path) -> bool:
    """Whether the mark of a machine tells of entries that a copy of its database has not."""
    with closing(sqlite3.connect(f"file:{copy}?mode=ro", uri=True)) as database:
        held = dict(database.execute("select name, size from stream"))
    marks = (machine.fleet.root / "state" / machine.name).glob("*/mark.json")
    told = [json.loads(mark.read_bytes())["sizes"] for mark in marks]
    return any(size > held.get(name, 0) for sizes in told for name, size in sizes.items())


def kill_server(name: str, rounds: Rounds, dice: random.Random) -> Heal:
    """`kill -9` of a server that keeps mailboxes, or of the sshd that lets one in, and of all that
    came in by it; it comes back with what is on its disk.
    """
    server = rounds.servers[name]
    server.kill()
    return lambda: server.start().ready() and None


def stop_server(name: str, rounds: Rounds, dice: random.Random) -> Heal:
    """A server takes connections and says nothing."""
    server = rounds.servers[name]
    server.stand_still()
    return server.go_on


def folder_away(rounds: Rounds, dice: random.Random) -> Heal:
    """The folder that all see is away, and comes back with what lay in it."""
    rounds.shared.take_away()
    return rounds.shared.put_back


# A channel that can die: one more line.
FAULTS: Final[dict[str, Fault]] = {
    "cut": cut,
    "one-way cut": cut_one_way,
    "away": away,
    "30 % loss": loss,
    "200 ms": slow,
    "kill -9": kill,
    "restart": restart,
    "standstill": stop,
    "set back": set_back,
}


def main(words: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.e2e.net.chaos", description=__doc__)
    parser.add_argument("--rounds", type=int, default=20)
    parser.add_argument("--seed", type=int, default=None)
    parser.add_argument("--beside", type=lambda text: text.split(","), default=[],
                        metavar=",".join((*places.PLACES, DROP, DOOR)))  # fmt: skip
    options = parser.parse_args(words)
    if {DROP, "sftp"} <= {*options.beside}:
        parser.error("drop and sftp are one channel: give one of them")
    if reason := why_not():
        print(f"chaos {reason}")
        return 0
    seed = secrets.randbits(32) if options.seed is None else options.seed
    print(f"seed {seed}, {options.rounds} rounds", flush=True)
    began_s = time.monotonic()
    with Net(*NAMES, seed=seed) as net:
        rounds = Rounds(net, seed, options.beside)
        number, keep = 0, True
        try:
            rounds.begin()
            for number in range(1, options.rounds + 1):
                rounds.play(number)
                took_s = time.monotonic() - began_s
                print(f"round {number}: {' and '.join(rounds.now)} ({took_s:.0f} s)", flush=True)
            rounds.finish()
            keep = False
        except (AssertionError, MusterError):
            traceback.print_exc(file=sys.stdout)
            print(
                f"round {number} ({' and '.join(rounds.now)}) failed; homes and logs: {rounds.fleet.root}"
            )
            beside = f" --beside {','.join(options.beside)}" if options.beside else ""
            print(
                f"again: python -m tests.e2e.net.chaos --seed {seed} --rounds {max(number, 1)}{beside}"
            )
            return 1
        finally:
            rounds.fleet.close(keep=keep)
            for server in rounds.servers.values():
                server.kill()
    print(rounds.summary(options.rounds))
    return 0


if __name__ == "__main__":
    sys.exit(main())
