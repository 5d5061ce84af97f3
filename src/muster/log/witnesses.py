"""What a machine that may not hold a stream is shown of it: its seals, each following the last.

Rule 1: a seal is shown with the proof that leads to it from what the witness saw, as far as that is
known; who saw something else says so, and is shown it from there.
Rule 2: of a stream a witness is shown a seal at most every `WITNESS_MS`, and never an older one.
"""

from collections.abc import Callable
from typing import Protocol

from muster.log import wire
from muster.log.session import WITNESS_MS, Replica, Session
from muster.log.stream import MachineId, StreamName


class Speaker(Protocol):
    """What is asked of sync.py."""

    machine: MachineId
    replica: Replica
    may_hold: Callable[[StreamName, MachineId], bool]

    def _heard(self, link: int, now_ms: int) -> Session | None: ...
    def _send(self, link: int, message: wire.Message) -> None: ...


class Witnesses:
    """Those who are shown the seals of what we hold."""

    def __init__(self, sync: Speaker) -> None:
        self._sync = sync

    def show(self, session: Session, stream: StreamName, now_ms: int) -> None:
        """To a machine that may not hold the stream: its seal, with the proof from what it saw."""
        sync = self._sync
        if not sync.may_hold(stream, sync.machine) or stream.machine == session.peer:
            return
        lane = session.lane(stream)
        seal = sync.replica.seal_of(stream)
        if seal is None or seal.size > sync.replica.size(stream) or seal.size <= lane.shown:
            return
        if now_ms - lane.shown_ms < WITNESS_MS:
            return
        lane.shown, lane.shown_ms = seal.size, now_ms
        since = min(lane.witnessed, seal.size)
        proof = sync.replica.consistency(stream, since, seal.size) if since else []
        hexes = [each.hex() for each in proof]
        head = wire.Head(str(stream), seal.size, seal.note.decode(), since, hexes)
        sync._send(session.link, wire.Offer([head]))

    def saw(self, link: int, answer: wire.Witnessed, now_ms: int) -> None:
        """The peer saw up to `size`: prove from there."""
        session = self._sync._heard(link, now_ms)
        if session is None:
            return
        stream = StreamName.parse(answer.stream)
        if not self._sync.replica.knows(stream):
            return
        lane = session.lane(stream)
        lane.witnessed = max(0, answer.size)
        lane.shown = 0
        lane.shown_ms = now_ms - WITNESS_MS
        self.show(session, stream, now_ms)
