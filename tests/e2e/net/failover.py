"""How long a message takes when the channel that it would go over dies, and when that is used again.

    python -m tests.e2e.net.failover --trials 200

Three daemons on hosts of their own. The studio and the laptop have a direct link (`http`) and can
have one through the hub (`relay`). In each trial one of them sends a message to the other at the
moment at which the direct link dies: `seen`, both kernels end the connection and nothing goes
between the hosts any more; or `silent`, nothing goes one way, drawn which, and nobody is told. It
took until the sender had the receiver's receipt. Then the cable is whole, and `back` is how long it
takes until both speak over the direct link again.
"""

import argparse
import random
import secrets
import statistics
import subprocess
import sys
import time
from collections.abc import Sequence
from typing import Final

from tests.e2e.fleet import Machine, until
from tests.e2e.net.fleet import NetFleet
from tests.e2e.net.stage import Net, why_not

HUB, STUDIO, LAPTOP = "hub", "studio", "laptop"
NAMES: Final = (HUB, STUDIO, LAPTOP)
DIALS: Final = {STUDIO: [HUB], LAPTOP: [HUB, STUDIO]}
# What is promised, in seconds: of a hundred trials ninety-nine are no slower.
PROMISED: Final = {"seen": 5.0, "silent": 15.0, "back": 10.0}
GIVE_UP_S: Final = 120.0
# A link that lived so long is no flapping one, and the pauses between dials begin anew.
STABLE_S: Final = 11.0


class Failover:
    """The trials on one net; `took_s` has the seconds of each kind."""

    def __init__(self, net: Net, seed: int) -> None:
        self.fleet = NetFleet(net, NAMES, dials=DIALS)
        self.took_s: dict[str, list[float]] = {kind: [] for kind in PROMISED}
        self._net, self._dice = net, random.Random(seed)
        self._number = 0

    def start(self) -> None:
        """Begin, and wait until the two are linked."""
        self.fleet.start()
        self._wait_for_the_direct_link()

    def trial(self, kind: str) -> None:
        """Let the direct link die in one of the two ways, and come back. Raises: AssertionError."""
        sender, receiver = self._dice.sample((self.fleet[STUDIO], self.fleet[LAPTOP]), 2)
        lost = self._dice.sample((STUDIO, LAPTOP), 2)
        self._wait_until_it_rests()
        between = self._net.between(lost[0], lost[1])
        began_s = time.monotonic()
        between.cut(one_way=kind == "silent")
        if kind == "seen":
            for one, other in ((STUDIO, LAPTOP), (LAPTOP, STUDIO)):
                self._end_connections(one, other)
        self._number += 1
        text = f"trial {self._number}"
        sender.order("send", receiver.name, {"text": [text], "to": receiver.name})
        until(lambda: _is_stored(sender, text), text, within_s=GIVE_UP_S)
        self.took_s[kind].append(time.monotonic() - began_s)
        between.heal()
        began_s = time.monotonic()
        self._wait_for_the_direct_link()
        self.took_s["back"].append(time.monotonic() - began_s)

    def _end_connections(self, host: str, other: str) -> None:
        self._net.exec(host, ["ss", "-K", "-t", "dst", self._net.address(other)])

    def _wait_for_the_direct_link(self) -> None:
        for one, other in ((STUDIO, LAPTOP), (LAPTOP, STUDIO)):
            machine = self.fleet[one]
            until(
                lambda a=machine, b=other: _states(a, b).get("http") == "speaks",
                lambda a=machine, b=other: f"{a.name} speaks to {b} directly: {_states(a, b)}",
                within_s=GIVE_UP_S,
            )

    def _wait_until_it_rests(self) -> None:
        """The last trial must not help the next one."""
        time.sleep(STABLE_S)
        for one, other in ((STUDIO, LAPTOP), (LAPTOP, STUDIO)):
            machine = self.fleet[one]
            until(
                lambda a=machine, b=other: _states(a, b).get("relay") not in ("up", "speaks"),
                lambda a=machine, b=other: f"the relayed link ended: {_states(a, b)}",
                within_s=GIVE_UP_S,
            )

    def summary(self) -> str:
        """A line for each figure."""
        return "\n".join(line(kind, took) for kind, took in self.took_s.items() if took)

    def kept(self) -> bool:
        """Whether what is promised held."""
        return all(_p99(took) <= PROMISED[kind] for kind, took in self.took_s.items() if took)


def line(kind: str, took_s: Sequence[float]) -> str:
    """What a person reads of one figure."""
    p50 = statistics.median(took_s)
    return (
        f"{kind:6} n {len(took_s)}, p50 {p50:.2f} s, p99 {_p99(took_s):.2f} s, "
        f"worst {max(took_s):.2f} s (promised: p99 ≤ {PROMISED[kind]:.0f} s)"
    )


def _p99(took_s: Sequence[float]) -> float:
    """The nearest rank: of fewer than a hundred the worst."""
    return sorted(took_s)[-(-99 * len(took_s) // 100) - 1]


def _states(machine: Machine, other: str) -> dict[str, str]:
    """How each channel to another machine is, as a machine says itself."""
    return {each["channel"]: each["state"] for each in machine.ask("channels", {"machine": other})}


def _is_stored(sender: Machine, text: str) -> bool:
    found = [each for each in sender.ask("sent") if each["text"] == text]
    return bool(found) and all(each["state"] == "stored" for each in found[0]["to"])


def can_end_connections(net: Net) -> bool:
    """Whether the kernel ends a connection when it is asked to (`ss -K`)."""
    with net.socket(HUB) as there, net.socket(STUDIO) as here:
        there.bind((net.address(HUB), 0))
        there.listen()
        here.connect(there.getsockname())
        try:
            net.exec(STUDIO, ["ss", "-K", "-t", "dst", net.address(HUB)])
        except (OSError, subprocess.SubprocessError):
            return False
        try:
            here.send(b"x")
        except OSError:
            return True
        return False


def main(words: Sequence[str] | None = None) -> int:
    """The command line."""
    parser = argparse.ArgumentParser(prog="python -m tests.e2e.net.failover")
    parser.add_argument("--trials", type=int, default=200, help="of each way to die")
    parser.add_argument("--seed", type=int, default=None)
    options = parser.parse_args(words)
    if reason := why_not():
        print(f"failover {reason}")
        return 0
    seed = secrets.randbits(32) if options.seed is None else options.seed
    print(f"seed {seed}, {options.trials} trials of each", flush=True)
    with Net(*NAMES, seed=seed) as net:
        kinds = ["seen", "silent"] if can_end_connections(net) else ["silent"]
        failover, keep = Failover(net, seed), True
        try:
            failover.start()
            for number in range(1, options.trials + 1):
                for kind in kinds:
                    failover.trial(kind)
                    took, back = failover.took_s[kind][-1], failover.took_s["back"][-1]
                    print(f"trial {number} {kind}: {took:.2f} s, back {back:.2f} s", flush=True)
            keep = False
        finally:
            failover.fleet.close(keep=keep)
            print(failover.summary(), flush=True)
            if keep:
                print(f"homes and logs: {failover.fleet.root}")
    return 0 if failover.kept() else 1


if __name__ == "__main__":
    sys.exit(main())
