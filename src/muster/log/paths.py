"""Which links lead to which process of which peer: the bookkeeping below sync.py, rule 8.

Rule 1: a session is with one process of one peer, whatever another machine says its process is.
Rule 2: a link to a peer that is spoken with already waits until the peer has named its process
over it; what the peer says before that, or three seconds without a word, ends the waiting.
"""

from collections.abc import Callable
from hashlib import sha256
from typing import NamedTuple

from muster.log.proofs import Proofs
from muster.log.session import Session
from muster.log.stream import MachineId, StreamName


class Unnamed(NamedTuple):
    """A link of which it is not known yet to which process of its peer it leads."""

    peer: MachineId
    through: str
    cost: int
    since_ms: int


class Paths:
    """Every session of one machine and every link."""

    def __init__(self) -> None:
        # By the number of the link with which each began.
        self.sessions: dict[int, Session] = {}
        self.by_link: dict[int, Session] = {}
        # The links that are up and over which the peer has not said who speaks.
        self.unnamed: dict[int, Unnamed] = {}
        self.proofs = Proofs()
        # Of the present sessions; a stream is shown to whoever may see it, whatever stands here.
        self._near: dict[StreamName, frozenset[MachineId]] = {}

    def is_spoken_with(self, peer: MachineId) -> bool:
        """Whether there is a session with some process of this peer."""
        return any(session.peer == peer for session in self.sessions.values())

    def near(
        self, stream: StreamName, count: int, holds: Callable[[MachineId], bool]
    ) -> frozenset[MachineId]:
        """So many peers that hold a stream, and as many that do not; its writer is none of them.

        They are the first by a hash of both names (rendezvous hashing, Thaler and Ravishankar
        1998): everybody takes the same ones, as far as they are linked.
        """
        found = self._near.get(stream)
        if found is None:
            peers = {s.peer for s in self.sessions.values()} - {stream.machine}
            ranked = sorted(peers, key=lambda p: sha256(f"{stream} {p}".encode()).digest())
            holders = [peer for peer in ranked if holds(peer)]
            others = [peer for peer in ranked if peer not in holders]
            found = self._near[stream] = frozenset(holders[:count] + others[:count])
        return found

    def with_process(self, peer: MachineId, process: str) -> Session | None:
        """The session with this process of a peer; none where it names none."""
        those = (s for s in self.sessions.values() if s.peer == peer and s.process == process)
        return next(those, None) if process else None

    def begin(self, session: Session) -> None:
        """A session with one link."""
        self._near.clear()
        self.sessions[session.link] = self.by_link[session.link] = session
        session.fresh.add(session.link)

    def add(self, session: Session, link: int, to: Unnamed) -> None:
        """Another link to the same process."""
        self.by_link[link] = session
        session.paths[link], session.costs[link] = to.through, to.cost
        session.fresh.add(link)

    def leave(self, link: int) -> Session | None:
        """A link is gone: the session that it belonged to, which is over when it was the last."""
        self.proofs.forget(link)
        self.unnamed.pop(link, None)
        session = self.by_link.pop(link, None)
        if session is None:
            return None
        session.fresh.discard(link)
        del session.paths[link], session.costs[link]
        if not session.paths:
            self._end(session)
        return session

    def cut(self, peer: MachineId) -> tuple[list[int], list[Session]]:
        """Forget a peer: its links, and its sessions."""
        links = [link for link, each in self.unnamed.items() if each.peer == peer]
        for link in links:
            del self.unnamed[link]
            self.proofs.forget(link)
        sessions = [each for each in self.sessions.values() if each.peer == peer]
        for session in sessions:
            links += session.paths
            for link in session.paths:
                del self.by_link[link]
                self.proofs.forget(link)
            self._end(session)
        return links, sessions

    def _end(self, session: Session) -> None:
        self._near.clear()
        for number in [n for n, each in self.sessions.items() if each is session]:
            del self.sessions[number]
