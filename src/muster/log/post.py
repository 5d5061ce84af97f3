"""What is said to a peer over mailboxes, and when: the half of sync.py for whom no link reaches.

Rule 1: a session over a mailbox is one like any other: lanes, receipts, wants. It stands among the
links and not among the sessions: nobody takes its peer for one that is spoken with, nothing is
told over it as it happens, and it never greets.
Rule 2: it begins from the receipts that are stored: nobody answers a greeting, so what a peer has
receipted is known, and all beyond that is sent. A lane goes back for a want alone.
Rule 3: a parcel is due while the peer lacks something of ours, or we of its, and no link reaches
it, or one does and brings no receipt for `UNPROVEN_MS`. What was left and is not receipted is
offered again, never sent again, after a wait that doubles until something comes back.
Rule 4: the first parcel tells of every stream, for a machine may have no other neighbour, and so
does one after another process of the peer spoke, whose disk may be an older one. Others tell of
some at each refresh, and of growth whose writer leaves nothing there itself: again and again, as
in rule 3, until the peer says that it holds it.
Rule 5: a quiet place falls silent: what is told in turn, and offered again to who never left
anything there, waits twice as long each time.
Rule 6: what is said in one turn of a box is left there before its next; what comes meanwhile goes
together.
"""

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from itertools import islice
from typing import Final, Protocol

from muster.limits import LANE_BYTES_MAX, STREAM_ASKS_MAX
from muster.log import refresh, wire
from muster.log.pace import SELDOM_MS, Pace
from muster.log.seal import Cosign
from muster.log.session import Outgoing, Session
from muster.log.signs import Signs
from muster.log.stream import MachineId, StreamName

# A link that is up and brings no receipt for so long may carry nothing.
UNPROVEN_MS: Final = 10_000
# After a start links come up; then there is nothing to leave for whom they reach.
FIRST_MS: Final = 2_000
# Whatever is due, a box is looked at so often at most.
_REST_MS: Final = 1_000
NEVER: Final = 1 << 60
# So many streams of others are told of again at once, until the peer says that it holds them.
REOFFERED_MAX: Final = 32


class Speaker(refresh.Speaker, Protocol):
    """What is asked of sync.py: it knows what to say, and this file when."""

    outbox: list[Outgoing]
    refresh: refresh.Refresh
    forks: Callable[[], Iterable[bytes]]

    def say(self, link: int, message: wire.Message) -> None: ...
    def _ask(self, session: Session, stream: StreamName, now_ms: int) -> None: ...
    def _pump(self, session: Session, stream: StreamName, now_ms: int) -> None: ...
    def _is_pushed(self, session: Session, stream: StreamName) -> bool: ...
    def _send_cosigns(self, link: int, notes: list[str]) -> None: ...


@dataclass(slots=True)
class Box:
    """A mailbox of one peer at one place: what is left there, in our name, for it."""

    place: str
    session: Session
    pace: Pace
    # When everything is told, then a part of it again, and how long after that; when all was told.
    refresh_ms: int
    refresh_wait_ms: int
    wait_ms: int
    told: bool = False
    told_ms: int = 0
    # Whether something was said and does not lie there yet; when the last parcel did.
    under_way: bool = False
    left_ms: int = 0
    rests_until_ms: int = 0
    # Our streams of which a receipt is missing, since when, and of what there was one then.
    behind: dict[StreamName, tuple[int, int]] = field(default_factory=dict)
    # Streams of which the peer has more, since when; and what of each was asked for.
    lacking: dict[StreamName, int] = field(default_factory=dict)
    asked: dict[StreamName, int] = field(default_factory=dict)
    # Streams that the peer asked for, and those that grew and that it was not told of.
    wanted: dict[StreamName, None] = field(default_factory=dict)
    news: dict[StreamName, None] = field(default_factory=dict)
    # Others' streams of which it was told, until it says that it holds them.
    offered: dict[StreamName, None] = field(default_factory=dict)
    # What is known of the peer's own streams, until it was told.
    notes: list[str] = field(default_factory=list)


class Posts:
    """Every mailbox of one machine. Numbers are links that no channel has: they are below 0."""

    def __init__(self, sync: Speaker) -> None:
        self._sync = sync
        self.boxes: dict[int, Box] = {}
        self.signs = Signs()
        self._last = 0
        # Of whom a parcel came over a place since the start.
        self._heard: dict[str, set[MachineId]] = {}
        self._grown: dict[StreamName, None] = {}
        # Whether something changed since everything was looked at, and when the next is due.
        self._changed = False
        self._due_ms = NEVER
        # The box that is being filled.
        self._filling = 0

    def sessions(self) -> Iterator[Session]:
        return (box.session for box in self.boxes.values())

    def holds_back(self, session: Session) -> bool:
        """Whether it is a mailbox's, and not its turn: it is filled as a whole, when it is due."""
        return session.link in self.boxes and session.link != self._filling

    # --- what the caller did ---------------------------------------------------------

    def open(self, place: str, peers: list[MachineId], pace: Pace, now_ms: int) -> list[int]:
        """Mailboxes for these peers; the number of each."""
        fresh: dict[MachineId, Box] = {}
        for peer in peers:
            self._last -= 1
            session = Session(self._last, peer, {self._last: ""}, {self._last: 0}, heard_ms=now_ms)
            box = Box(place, session, pace, now_ms + FIRST_MS, pace.refresh_ms, pace.retry_ms)
            self.boxes[self._last] = fresh[peer] = box
            self._sync.paths.by_link[self._last] = session
        for (stream, by, strength), size, note in self._sync.replica.cosigned():
            if by in fresh:
                lane = fresh[by].session.lane(stream)
                if strength == "held":
                    lane.has = lane.sent = max(lane.has, min(size, self._sync.replica.size(stream)))
                else:
                    lane.witnessed = max(lane.witnessed, size)
            if stream.machine in fresh:
                fresh[stream.machine].session.cosigns[stream, by, strength] = size
                fresh[stream.machine].notes.append(note.decode())
        streams = self._sync.replica.streams()
        self._grown |= dict.fromkeys(s for s in streams if s.machine == self._sync.machine)
        self._changed = True
        return [box.session.link for box in fresh.values()]

    def cut(self, peer: MachineId) -> list[Session]:
        """The peer was revoked: nothing more is left for it, and nothing of it is heard."""
        gone = [box.session for box in self.boxes.values() if box.session.peer == peer]
        for session in gone:
            del self.boxes[session.link], self._sync.paths.by_link[session.link]
        for heard in self._heard.values():
            heard.discard(peer)
        return gone

    def grew(self, stream: StreamName) -> None:
        if self.boxes:
            self._grown[stream] = None

    def cosigned(self, cosign: Cosign) -> None:
        """A receipt is stored, however it came: by the peer of a box, or of the peer's stream."""
        stream, size = cosign.stream, cosign.size
        key = (stream, cosign.machine, cosign.strength)
        for box in self.boxes.values():
            session = box.session
            if session.peer == cosign.machine and cosign.strength == "held":
                lane = session.lane(stream)
                lane.has, lane.sent = max(lane.has, size), max(lane.sent, size)
                if lane.has >= lane.sent:
                    lane.flight_bytes = 0
                self._changed = True
            elif session.peer == stream.machine and session.cosigns.get(key, -1) < size:
                session.cosigns[key] = size
                if not self._is_linked(session):
                    self._sync.say(session.link, wire.Cosigns([cosign.note.decode()]))

    def links_changed(self) -> None:
        """A link came or went: what is due is another matter now."""
        self._changed = bool(self.boxes)

    def heard(self, number: int, now_ms: int) -> None:
        """A parcel of the peer was dealt with, and it was a new one."""
        box = self.boxes[number]
        box.wait_ms = box.pace.retry_ms
        self._heard.setdefault(box.place, set()).add(box.session.peer)
        self._changed = True
        size, may_hold = self._sync.replica.size, self._sync.may_hold
        for stream, lane in box.session.lanes.items():
            if lane.claims > size(stream) and may_hold(stream, self._sync.machine):
                box.refresh_wait_ms = box.pace.refresh_ms
                box.refresh_ms = min(box.refresh_ms, now_ms + box.refresh_wait_ms)
                box.lacking.setdefault(stream, now_ms)
            if lane.serve and lane.sent < size(stream):
                box.wanted[stream] = None
            ours = stream.machine == self._sync.machine and may_hold(stream, box.session.peer)
            if ours and lane.has < size(stream):
                box.behind.setdefault(stream, (now_ms, lane.has))

    def began_anew(self, number: int, now_ms: int) -> None:
        """Another process of the peer speaks here: what it receipted may be gone with its disk."""
        box = self.boxes[number]
        if box.told_ms and not self._is_linked(box.session):
            box.told, box.refresh_wait_ms = False, box.pace.refresh_ms
            box.refresh_ms = min(box.refresh_ms, max(now_ms, box.told_ms + box.pace.retry_ms_max))

    def left(self, number: int, now_ms: int) -> None:
        """What was said lies in the mailbox now."""
        box = self.boxes.get(number)
        if box is not None:
            box.under_way, self._changed = False, True
            box.left_ms = box.left_ms if self.signs.was_alone(number) else now_ms

    # --- when --------------------------------------------------------------------------

    def look(self, now_ms: int) -> int:
        """Say what is due, into the outbox of the sync; returns when to look again (`NEVER`)."""
        if not (self._grown or self._changed or now_ms >= self._due_ms):
            return self._due_ms
        grown, self._grown, self._changed = self._grown, {}, False
        self._due_ms = NEVER
        for box in self.boxes.values():
            for stream in grown:
                self._grew(box, stream, now_ms)
            due_ms = self._due(box, now_ms)
            if due_ms <= now_ms:
                self._fill(box, now_ms)
                due_ms = self._due(box, now_ms)
            self._due_ms = min(self._due_ms, due_ms)
        return self._due_ms

    def _grew(self, box: Box, stream: StreamName, now_ms: int) -> None:
        session, sync = box.session, self._sync
        session.claims.pop(stream, None)
        if stream.machine == session.peer or not sync.may_hold(stream, session.peer):
            return
        lane, size = session.lane(stream), sync.replica.size(stream)
        if stream.machine == sync.machine:
            if lane.has < size:
                box.behind.setdefault(stream, (now_ms, lane.has))
        elif max(lane.has, lane.shown, lane.claims) < size and not self._is_heard(box, stream):
            box.news[stream] = None

    def _is_heard(self, box: Box, stream: StreamName) -> bool:
        """Whether the writer of a stream leaves parcels at the same place itself."""
        return stream.machine in self._heard.get(box.place, ())

    def _is_linked(self, session: Session) -> bool:
        return self._sync.paths.is_spoken_with(session.peer)

    def _due(self, box: Box, now_ms: int) -> int:
        """When something is to be said next; what is settled is struck off meanwhile."""
        lanes, size = box.session.lanes, self._sync.replica.size
        for stream, (_, had) in list(box.behind.items()):
            has = lanes[stream].has if stream in lanes else size(stream)
            if has >= size(stream):
                del box.behind[stream]
            elif has != had:
                box.behind[stream] = (now_ms, has)
                box.wait_ms = box.pace.retry_ms
        for stream in list(box.lacking):
            if stream not in lanes or lanes[stream].claims <= size(stream):
                del box.lacking[stream]
                box.asked.pop(stream, None)
        for stream in list(box.offered):
            has = lanes[stream].has if stream in lanes else size(stream)
            if has >= size(stream) or self._is_heard(box, stream):
                del box.offered[stream]
        if box.under_way:
            return NEVER
        if not box.told_ms:
            return box.refresh_ms
        patience_ms = UNPROVEN_MS if self._is_linked(box.session) else 0
        again_ms = box.left_ms + box.wait_ms
        dues = [box.refresh_ms]
        for stream, (since_ms, _) in box.behind.items():
            fresh = self._has_room(box, stream)
            dues.append(max(since_ms + patience_ms, 0 if fresh else again_ms))
        for stream, since_ms in box.lacking.items():
            fresh = box.asked.get(stream) != lanes[stream].claims
            dues.append(max(since_ms + self._patience_ms(box, stream), 0 if fresh else again_ms))
        if not patience_ms:
            dues += [again_ms] * bool(box.offered) + self.signs.due_ms(box.session, box.pace)
        if (box.news and not patience_ms) or any(self._has_room(box, s) for s in box.wanted):
            dues.append(0)
        return max(min(dues), box.rests_until_ms)

    def _patience_ms(self, box: Box, stream: StreamName) -> int:
        """How long a stream of which the peer has more may still come another way."""
        linked = self._is_linked(box.session) or self._sync._is_pushed(box.session, stream)
        return UNPROVEN_MS if linked else 0

    def _has_room(self, box: Box, stream: StreamName) -> bool:
        """Whether there is more of a stream to be sent now."""
        lane = box.session.lane(stream)
        if lane.sent >= self._sync.replica.size(stream) or lane.flight_bytes >= LANE_BYTES_MAX:
            return False
        flight_bytes = sum(each.flight_bytes for each in box.session.lanes.values())
        return flight_bytes < box.pace.flight_bytes

    # --- what --------------------------------------------------------------------------

    def _fill(self, box: Box, now_ms: int) -> None:
        """Say all that is due; the caller puts it into one parcel, or several."""
        session, sync = box.session, self._sync
        before = len(sync.outbox)
        first, self._filling = not box.told_ms, session.link
        try:
            if now_ms >= box.refresh_ms:
                box.refresh_ms = now_ms + box.refresh_wait_ms
                box.refresh_wait_ms = min(2 * box.refresh_wait_ms, SELDOM_MS)
                if box.told:
                    sync.refresh.due(session, now_ms)
                else:
                    self._tell_all(box, now_ms)
            linked = self._is_linked(session)
            again = now_ms >= box.left_ms + box.wait_ms
            late = self._push(box, now_ms - UNPROVEN_MS * linked, again, now_ms)
            anew = self._ask(box, again, now_ms) or bool(late)
            if not linked:
                late += [stream for stream in box.news if sync._is_told(session, stream)]
                if again and not first:
                    late += self._offered_anew(box)
                    anew = anew or bool(box.offered)
                box.offered |= box.news
            sync._send_heads(session, late)
        finally:
            self._filling = 0
            session.late.clear()
        if not linked:
            box.news.clear()
            if len(sync.outbox) == before and self.signs.is_due(session, box.pace, now_ms):
                sync.say(session.link, wire.Offer([]))
        if anew:
            comes = session.peer in self._heard.get(box.place, ())
            box.wait_ms = min(2 * box.wait_ms, box.pace.retry_ms_max if comes else SELDOM_MS)
        box.under_way = len(sync.outbox) > before
        if box.under_way:
            self.signs.said(session.link, now_ms)
        if self._due(box, now_ms) <= now_ms:
            # Nothing came of it: whatever seems due is looked at again in a while.
            box.rests_until_ms = now_ms + _REST_MS

    def _tell_all(self, box: Box, now_ms: int) -> None:
        """What there is of every stream; and to whom no link leads, who vouches for its own."""
        session, sync = box.session, self._sync
        box.told, box.told_ms = True, now_ms
        for fork in sync.forks():
            sync.say(session.link, wire.Offer([], forks=[fork.decode()]))
        told = []
        for stream in sync.replica.streams():
            if stream.machine != session.peer and not sync.may_hold(stream, session.peer):
                sync.witnesses.show(session, stream, now_ms)
            elif sync._is_told(session, stream):
                told.append(stream)
                if stream.machine not in {session.peer, sync.machine}:
                    box.offered[stream] = None
        sync._send_heads(session, told)
        if not self._is_linked(session):
            sync._send_cosigns(session.link, box.notes)
        box.notes = []

    def _push(self, box: Box, until_ms: int, again: bool, now_ms: int) -> list[StreamName]:
        """Send what the peer lacks; returns what is only offered, for it was sent before."""
        session, sync = box.session, self._sync
        late = []
        for stream in list(box.wanted):
            lane = session.lane(stream)
            if self._has_room(box, stream):
                sync._pump(session, stream, now_ms)
            if lane.sent >= sync.replica.size(stream):
                del box.wanted[stream]
                # What it grows by is offered.
                lane.serve = False
        for stream, (since_ms, _) in box.behind.items():
            if since_ms > until_ms:
                continue
            if self._has_room(box, stream):
                sync._pump(session, stream, now_ms)
            elif again:
                late.append(stream)
        return late

    def _offered_anew(self, box: Box) -> list[StreamName]:
        """Some of others' streams that the peer does not say that it holds, each in turn."""
        found = [stream for stream in islice(box.offered, REOFFERED_MAX) if stream not in box.news]
        for stream in found:
            box.offered[stream] = box.offered.pop(stream)
        return found

    def _ask(self, box: Box, again: bool, now_ms: int) -> bool:
        """Ask for what the peer has more of; returns whether something was asked for before."""
        session, anew = box.session, False
        for stream, since_ms in list(box.lacking.items()):
            lane, asked = session.lane(stream), box.asked.get(stream)
            if since_ms + self._patience_ms(box, stream) > now_ms:
                continue
            if asked == lane.claims and not again:
                continue
            if session.claims.get(stream, 0) >= STREAM_ASKS_MAX:
                # It was said to be there and never came. Whoever has it may offer it again.
                del session.claims[stream], session.lanes[stream], box.lacking[stream]
                box.asked.pop(stream, None)
                continue
            anew |= asked == lane.claims
            box.asked[stream] = lane.claims
            self._sync._ask(session, stream, now_ms)
        return anew
