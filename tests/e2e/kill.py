"""Kill a real fleet again and again, and see that nothing it promised is lost.

    python -m tests.e2e.kill --rounds 20 [--seed N]

A hub and two machines, over mutual TLS on loopback, take messages, single tasks and a run with a
real git repository, while their daemons (and now and then the shims of attempts) get `kill -9`.
After each round the fleet is left alone until it rests; then every promise is checked.
"""

import argparse
import contextlib
import os
import random
import secrets
import signal
import subprocess
import sys
import time
import traceback
from collections.abc import Sequence
from pathlib import Path

from muster.errors import MusterError
from muster.git.fence import Epoch, attempt_ref
from tests.e2e import checks
from tests.e2e.fleet import Fleet, Machine, until
from tests.e2e.load import Acknowledged, Load

NAMES = ("hub", "studio", "laptop")
REST_S = 60.0


class Rounds:
    """One fleet through many rounds."""

    def __init__(self, seed: int) -> None:
        self.seed = seed
        # Everybody can reach everybody: what is addressed to one machine passes no other.
        self.fleet = Fleet(NAMES, dials={"studio": ["hub"], "laptop": ["hub", "studio"]})
        self.repo = self.fleet.add_repository()
        self.known = Acknowledged()
        self.kills: dict[str, int] = dict.fromkeys((*NAMES, "shim"), 0)
        self.stale = 0

    def play(self, number: int) -> None:
        """One round: load, kills, rest, checks."""
        chance = random.Random(f"{self.seed}/{number}")
        load = Load(self.fleet, self.known, chance.getrandbits(32))
        load.start()
        try:
            load.run(f"run-{number}", chance.uniform(0.0, 0.4))
            # Never three times: a task that takes three machines with it is rightly given up. One
            # that is killed again in the middle of its start may have taken a task in between.
            moments = chance.choice((1, 2, 2))
            for _ in range(moments):
                time.sleep(chance.uniform(0.0, 1.0))
                self._kill(chance, again=moments == 1)
        finally:
            load.stop()
        self._rest()
        checks.check_acknowledged(self.fleet, self.known)
        checks.check_repository(self.fleet, self.repo, self.known)
        checks.check_notes(self.fleet.notes)
        self._push_stale(chance)
        until(
            lambda: not self.fleet.orphans(),
            lambda: f"no orphan is left: {self.fleet.orphans()}",
            within_s=10,
        )

    def _kill(self, chance: random.Random, *, again: bool) -> None:
        if chance.random() < 0.3 and self._kill_shim(chance):
            return
        victims = chance.sample(list(self.fleet.machines.values()), chance.choice((1, 1, 1, 2, 3)))
        for victim in victims:
            victim.kill()
            self.kills[victim.name] += 1
        time.sleep(chance.choice((0.0, 0.1, 0.7)))
        readers = [(victim, victim.begin()) for victim in victims]
        if again and chance.random() < 0.2:
            # Killed again in the middle of its start.
            time.sleep(chance.uniform(0.0, 0.8))
            victim, reader = readers.pop()
            os.close(reader)
            victim.kill()
            readers.append((victim, victim.begin()))
        for victim, reader in readers:
            victim.ready(reader)

    def _kill_shim(self, chance: random.Random) -> bool:
        """The shim of an attempt, as soon as there is one; False when there was none for a second."""
        end = time.perf_counter() + 1.0
        while not (shims := self._shims()):
            if time.perf_counter() > end:
                return False
            time.sleep(0.02)
        with contextlib.suppress(ProcessLookupError):
            os.kill(chance.choice(shims), signal.SIGKILL)
        self.kills["shim"] += 1
        return True

    def _shims(self) -> list[int]:
        return sorted(pid for pid, line in self.fleet.processes().items() if "agent.shim" in line)

    def _rest(self) -> None:
        """Until every run and task is settled and everybody holds the same."""
        hub = self.fleet.hub
        with hub.client() as client:
            until(
                lambda: all(r["state"] != "open" for r in client.call("runs", {})),
                lambda: f"every run is settled: {client.call('runs', {})}", within_s=REST_S,
            )  # fmt: skip
            until(
                lambda: not client.call("tasks", {}),
                lambda: f"every task is settled: {client.call('tasks', {})[:3]}",
                within_s=REST_S,
            )
        until(lambda: not checks.converged(self.fleet), lambda: checks.converged(self.fleet),
              within_s=REST_S)  # fmt: skip

    def _push_stale(self, chance: random.Random) -> None:
        """A zombie of each kind pushes: a settled attempt again, an old epoch, a made-up one."""
        log = checks.Log(self.fleet.hub)
        try:
            rows = log.rows(
                "select task, machine, epoch_order o, epoch_count c, commit_id from task where run != ''"
            )
        finally:
            log.close()
        row = chance.choice(rows)
        machine = next(m for m in self.fleet.machines.values() if m.id == row["machine"])
        before = checks.git(self.repo, "for-each-ref")
        epoch = chance.choice((Epoch(row["o"], row["c"] + 1), Epoch(row["o"] - 1, row["c"])))
        refused = push(machine, self.repo, row["commit_id"], attempt_ref(row["task"], epoch))
        assert refused, f"a stale push for {row['task']} at {epoch} was taken"
        assert checks.git(self.repo, "for-each-ref") == before, "a refused push left something"
        self.stale += 1

    def finish(self) -> None:
        """Stop the fleet in peace; then the logs are read to the last byte."""
        checks.check_logs(self.fleet)
        for machine in self.fleet.machines.values():
            code = machine.stop()
            assert code == 0, f"{machine.name} ended with {code}"
            assert not mistakes(machine), f"{machine.name} made mistakes:\n{mistakes(machine)}"
        checks.check_logs(self.fleet)
        for machine in self.fleet.machines.values():
            checks.check_refold(machine)
        assert not self.fleet.orphans(), self.fleet.orphans()

    def summary(self) -> str:
        known = self.known
        return (
            f"{sum(self.kills.values())} kills {self.kills}; acknowledged and there: "
            f"{len(known.messages)} messages ({sum(m.held for m in known.messages.values())} held), "
            f"{len(known.tasks)} tasks, {len(known.runs)} runs of 4 phases; "
            f"{self.stale} stale pushes refused; {known.unanswered} calls cut off"
        )


def push(machine: Machine, repo: Path, commit: str, ref: str) -> bool:
    """Push as the git of this machine would; True when it was refused."""
    env = machine.fleet.environment(machine) | {
        "MUSTER_SOCK": machine.home.socket,
        "GIT_CONFIG_GLOBAL": os.devnull,
    }
    url = f"muster::hub/{repo.name.removesuffix('.git')}"
    done = subprocess.run(
        ["git", "push", "-q", url, f"{commit}:{ref}"],
        cwd=repo,
        env=env,
        capture_output=True,
        check=False,
    )
    return done.returncode != 0


def mistakes(machine: Machine) -> str:
    """What the daemon's own log says about mistakes of ours."""
    log = machine.log()
    at = log.find("our mistake")
    return log[max(0, at - 200) : at + 3000] if at >= 0 else ""


def main(words: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.e2e.kill", description=__doc__)
    parser.add_argument("--rounds", type=int, default=20)
    parser.add_argument("--seed", type=int, default=None)
    options = parser.parse_args(words)
    seed = secrets.randbits(32) if options.seed is None else options.seed
    print(f"seed {seed}, {options.rounds} rounds", flush=True)
    began = time.perf_counter()
    rounds = Rounds(seed)
    number, keep = 0, True
    try:
        rounds.fleet.start()
        for number in range(1, options.rounds + 1):
            rounds.play(number)
            print(f"round {number} ({time.perf_counter() - began:.0f} s)", flush=True)
        rounds.finish()
        keep = False
    except (AssertionError, MusterError):
        traceback.print_exc()
        print(f"round {number} failed; homes and logs: {rounds.fleet.root}")
        print(f"again: python -m tests.e2e.kill --seed {seed} --rounds {max(number, 1)}")
        return 1
    finally:
        rounds.fleet.close(keep=keep)
    print(f"{options.rounds} rounds, nothing lost: {rounds.summary()}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
