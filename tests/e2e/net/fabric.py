"""What becomes of a frame between two hosts: delayed, lost, held back, dropped at a NAT, or passed on.

Pure: bytes and the time come in, who gets what and when goes out; switch.py has the devices.

Rule 1: each direction between two hosts has its own rule, its own counters and its own dice, which
        follow from the seed: the same frames in the same order meet the same fate.
Rule 2: a direction keeps the order of what it passes on, as a cable does.
Rule 3: a frame for all (broadcast, multicast) goes to all, by the rule of each direction.
Rule 4: a host that is `behind` a NAT opens flows outward; inward comes what belongs to an open one,
        and nothing for all. A flow over which nothing went for a minute is forgotten.
"""

import random
import struct
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from typing import Any, Final, NamedTuple

FLOW_IDLE_S: Final = 60.0
# What a bounded line holds of what came too fast, before it drops the rest.
QUEUE_S: Final = 1.0

_ARP: Final = 0x0806
_IPV4: Final = 0x0800
_IPV6: Final = 0x86DD
_TCP_OR_UDP: Final = (6, 17)
_OF_ETHERNET: Final = 14


@dataclass(frozen=True)
class Rule:
    """What one direction does to what goes through it."""

    delay_ms: float = 0.0
    jitter_ms: float = 0.0
    """Up to so much more, drawn for each frame."""
    loss: float = 0.0
    """Of one frame, from 0 to 1."""
    cut: bool = False
    rate: int = 0
    """Bytes in a second; 0 for as many as there are."""


@dataclass
class Counters:
    """What one direction passed on, and what it did not."""

    frames: int = 0
    bytes: int = 0
    dropped: int = 0


class Flow(NamedTuple):
    """One conversation as a packet names it; the ports are 0 where there are none."""

    protocol: int
    source: bytes
    source_port: int
    target: bytes
    target_port: int

    def back(self) -> "Flow":
        """The same conversation as an answer names it."""
        return Flow(
            self.protocol, self.target, self.target_port, self.source, self.source_port
        )  # fmt: skip


def flow_of(frame: bytes) -> Flow | None:
    """The conversation of a frame; None where it is of none: no IP, or a later part of a packet."""
    kind = int.from_bytes(frame[12:14], "big")
    if kind == _IPV4 and len(frame) >= _OF_ETHERNET + 20:
        if int.from_bytes(frame[20:22], "big") & 0x1FFF:
            return None
        protocol, source, target = frame[23], frame[26:30], frame[30:34]
        ports = _OF_ETHERNET + (frame[14] & 15) * 4
    elif kind == _IPV6 and len(frame) >= _OF_ETHERNET + 40:
        protocol, source, target = frame[20], frame[22:38], frame[38:54]
        ports = _OF_ETHERNET + 40
    else:
        return None
    if protocol not in _TCP_OR_UDP:
        return Flow(protocol, source, 0, target, 0)
    if len(frame) < ports + 4:
        return None
    near, far = struct.unpack_from("!HH", frame, ports)
    return Flow(protocol, source, near, target, far)


class Direction:
    """From one host to another."""

    def __init__(self, seed: str) -> None:
        self.rule = Rule()
        self.counters = Counters()
        self._dice = random.Random(seed)
        self._busy_s = 0.0
        self._last_s = 0.0

    def due(self, size: int, now_s: float) -> float | None:
        """When a frame that comes now comes out at the other end; None where it never does."""
        rule = self.rule
        if rule.cut or (rule.loss and self._dice.random() < rule.loss):
            self.drop()
            return None
        out_s = now_s
        if rule.rate:
            begins_s = max(now_s, self._busy_s)
            if begins_s - now_s > QUEUE_S:
                self.drop()
                return None
            out_s = self._busy_s = begins_s + size / rule.rate
        out_s += (rule.delay_ms + self._dice.uniform(0, rule.jitter_ms)) / 1000
        self._last_s = out_s = max(out_s, self._last_s)
        self.counters.frames += 1
        self.counters.bytes += size
        return out_s

    def set(self, rule: Rule) -> None:
        """From now on by this rule; what is under way comes out as it would have."""
        self.rule = rule
        self._busy_s = 0.0

    def drop(self) -> None:
        """Count one that does not come out."""
        self.counters.dropped += 1


@dataclass
class Nat:
    """The flows that one host opened."""

    heard_s: dict[Flow, float] = field(default_factory=dict)

    def out(self, frame: bytes, now_s: float) -> None:
        """Remember what the host says to whom."""
        if (flow := flow_of(frame)) is not None:
            self.heard_s[flow.back()] = now_s

    def lets_in(self, frame: bytes, now_s: float) -> bool:
        """Whether somebody in there waits for it."""
        if int.from_bytes(frame[12:14], "big") == _ARP:
            return True
        flow = flow_of(frame)
        if flow is None or frame[0] & 1:
            return False
        if now_s - self.heard_s.get(flow, -FLOW_IDLE_S) >= FLOW_IDLE_S:
            self.heard_s.pop(flow, None)
            return False
        self.heard_s[flow] = now_s
        return True


class Out(NamedTuple):
    """A frame that comes out at a host."""

    due_s: float
    host: str


class Fabric:
    """All directions between some hosts, and who of them is behind a NAT."""

    def __init__(self, hosts: Sequence[str], seed: str) -> None:
        self._hosts = tuple(hosts)
        self._by_mac = {mac_of(n): host for n, host in enumerate(hosts, 1)}
        self._nats: dict[str, Nat] = {}
        self._ways = {
            (a, b): Direction(f"{seed}/{a}>{b}") for a in hosts for b in hosts if a != b
        }  # fmt: skip

    def direction(self, source: str, target: str) -> Direction:
        """From one host to another. Raises: KeyError where one of them is not there."""
        return self._ways[source, target]

    def behind(self, host: str, *, on: bool) -> None:
        """Put a host behind a NAT of its own that knows no flow yet, or in front of it again."""
        if on:
            self._nats[host] = Nat()
        else:
            self._nats.pop(host, None)

    def pass_on(self, source: str, frame: bytes, now_s: float) -> list[Out]:
        """Who gets a frame that a host sent, and when."""
        target = self._by_mac.get(frame[:6])
        if target is None and not frame[0] & 1:
            # For somebody who is not here: a switch that learned all its hosts knows that.
            return []
        if (nat := self._nats.get(source)) is not None:
            nat.out(frame, now_s)
        found = []
        for host in self._hosts if target is None else (target,):
            if host == source:
                continue
            way, wall = self._ways[source, host], self._nats.get(host)
            if wall is not None and not wall.lets_in(frame, now_s):
                way.drop()
            elif (due_s := way.due(len(frame), now_s)) is not None:
                found.append(Out(due_s, host))
        return found


def mac_of(number: int) -> bytes:
    """The address of the device of the host with this number, from 1."""
    return bytes((0x02, 0x78, 0, 0, 0, number))


def rule_of(said: dict[str, Any]) -> Rule:
    """A rule as `told` wrote it."""
    return Rule(**said)


def told(thing: Rule | Counters) -> dict[str, Any]:
    """A rule or counters as what JSON can say."""
    return asdict(thing)
