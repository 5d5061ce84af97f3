"""A NATS quorum in the time of a world: what the hand of each machine asks there, and is told."""

from tests.node.cores import WALL_MS, Cores, One

from muster.limits import CLOCK_AHEAD_MS_MAX, ELECTION_RENEW_MS
from muster.node.tasks.elections import Campaign, Elected
from muster.task.election import Candidate, Seen

_STEP_MS = 500


class Quorum:
    """One store of leases. `away` are machines that do not reach it; without `up` nobody does."""

    def __init__(self, world: Cores) -> None:
        self.world = world
        self.up = True
        self.away: set[str] = set()
        # By machine whose work it is the newest revision, and what each wrote last.
        self.newest: dict[str, int] = {}
        self.last: dict[str, dict[str, Seen]] = {}
        # Who writes there before each of the others does, and was not named.
        self.stranger = ""
        self.asked = 0
        self._seeking: dict[tuple[str, str], Candidate] = {}
        self._turn_ms: dict[tuple[str, str], int] = {}

    def pass_ms(self, ms: int) -> None:
        """Let time pass, with whoever seeks election asking as often as it does."""
        for _ in range(ms // _STEP_MS):
            self.world.pass_ms(_STEP_MS)
            for name, machine in self.world.machines.items():
                if name not in self.world.frozen:
                    self._take_up(machine)
                    for key in [each for each in self._seeking if each[0] == name]:
                        self._ask(machine, key)

    def _take_up(self, machine: One) -> None:
        wanted = [each for each in machine.effects if isinstance(each, Campaign)]
        machine.effects = [each for each in machine.effects if not isinstance(each, Campaign)]
        for effect in wanted:
            key = machine.name, effect.of
            if not effect.named:
                self._seeking.pop(key, None)
                continue
            if key not in self._seeking:
                now_ms = self.world.now().boot_ms
                self._seeking[key] = Candidate(machine.id, effect.named, now_ms)
            self._seeking[key].place = effect.place
            self._turn_ms[key] = 0

    def _ask(self, machine: One, key: tuple[str, str]) -> None:
        now_ms, candidate, of = self.world.now().boot_ms, self._seeking[key], key[1]
        if now_ms < self._turn_ms[key]:
            return
        self._turn_ms[key] = now_ms + ELECTION_RENEW_MS
        if machine.name not in self.away:
            self.asked += 1
            # Servers without a quorum answer a read.
            if self.stranger:
                self._keep(of, self.stranger, 0)
            most = WALL_MS + self.world.ms + CLOCK_AHEAD_MS_MAX
            newest, last = self.newest.get(of, 0), self.last.get(of, {})
            candidate.saw(newest, last.values(), now_ms, most)
            write = candidate.due(now_ms)
            if write is not None and self.up:
                assert write.above == newest
                self._keep(of, machine.id, write.place)
                candidate.wrote(write, self.newest[of], now_ms, now_ms)
        until_ms = candidate.held_until_ms(now_ms)
        machine.step(Elected(of, candidate.held_place, until_ms, candidate.living_ms))
        self.world.drain()

    def _keep(self, of: str, by: str, place: int) -> None:
        self.newest[of] = self.newest.get(of, 0) + 1
        self.last.setdefault(of, {})[by] = Seen(self.newest[of], by, place)
