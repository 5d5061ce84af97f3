"""How streams spread between replicas: the pure half, which knows no channel and no clock.

Rule 1: a writer pushes its own streams; everybody else's are offered and asked for. So in a full
mesh an entry crosses each link once, and a machine that was away gets it from whoever holds it.
Rule 2: nothing is settled by sending. A lane moves when the peer's *held* cosign or want says so;
what was sent and not confirmed within `RETRY_MS` is offered again.
Rule 3: replication follows scope. A stream is offered, served and asked for only where
`may_hold` allows it; every other machine gets seals with consistency proofs, to witness.
Rule 4: to the writer of a stream everybody shows the newest seal they know of it, members or not:
that is how a machine that was set back learns of it before it writes.
Rule 5: the same calls give the same messages in the same order; nothing iterates over a set.
Rule 6: what one peer says costs a bounded amount of memory and work (session.py, rule 3; `_pump`).
Rule 7: one way for each stream. Over a link through a third machine goes what that machine may not
hold: the rest it passes on. What its own writer pushes is asked of nobody else, and whoever sends
it all the same is told to stop. What does not come by that way is asked for after `RETRY_MS`.
Rule 8: one session for each process of a peer, however many links lead there. It speaks over one of
them, and moves to another when that one is gone or brings no answer; it hears over all.
Rule 9: what growth costs does not grow with the fleet. Who hears a stream from its writer declines
to be told of it by others; a seal is shown, and a head compared, at once with the `NEAR` machines
of that stream alone, the same for everybody, so that two histories meet there; with all others at
the refresh (refresh.py). A receipt goes to the writer, or towards it, and to nobody else.
Rule 10: a mailbox is no link. What is left there, and when, post.py says.

`Sync` holds the sessions and one lane per stream in each. Methods take what arrived and
put what is to be sent into `outbox`; the caller drains it after its commit, never before.
"""

from collections.abc import Callable, Iterable
from typing import Final

from muster.limits import (
    LANE_BYTES_MAX,
    OFFER_HEADS_MAX,
    SEGMENT_SLICE_BYTES,
    STEP_LINK_BYTES_MAX,
    STREAM_ASKS_MAX,
    STREAMS_CLAIMED_MAX,
)
from muster.log import segment as segments
from muster.log import wire
from muster.log.paths import Paths, Unnamed
from muster.log.post import Posts
from muster.log.refresh import REFRESH_MS, Refresh
from muster.log.seal import Cosign
from muster.log.session import RETRY_MS, WITNESS_MS, Outgoing, Replica, Session
from muster.log.stream import MachineId, StreamName
from muster.log.witnesses import Witnesses

# Others' growth is told this often; one hop through a third machine costs at most this much more.
GOSSIP_MS: Final = 100
ASK_MS: Final = 2_000
# A peer that is busy answers within this, or our words do not reach it.
UNANSWERED_MS: Final = 4 * RETRY_MS
# A want from there on ends the pushing that another want began, and the telling of growth: no
# stream is as long. The next one asks for the telling again, for the writer is not heard any more.
NOT_NOW: Final = 1 << 40
TELL_AGAIN: Final = NOT_NOW + 1
# So many machines compare at once what others show them of a stream, or witness it.
NEAR: Final = 3

# Segments, and where each ends, by where they begin and from where on they have bodies.
_Made = dict[tuple[int, int], tuple[bytes, int]]


class Sync:
    """All sessions of one machine. `may_hold(stream, machine)` is asked at every step."""

    def __init__(
        self,
        machine: MachineId,
        replica: Replica,
        may_hold: Callable[[StreamName, MachineId], bool],
        bodies_from: Callable[[StreamName, MachineId], int] = lambda _stream, _machine: 0,
        forks: Callable[[], Iterable[bytes]] = tuple,
    ) -> None:
        self.machine = machine
        self.replica = replica
        self.may_hold = may_hold
        self.bodies_from = bodies_from
        self.forks = forks
        self.near_max = NEAR
        self.paths = Paths()
        self.sessions = self.paths.sessions
        self.posts = Posts(self)
        self.refresh = Refresh(self)
        self.witnesses = Witnesses(self)
        self.outbox: list[Outgoing] = []
        # Who answers nothing, and the link over which it was spoken to; the caller drains it too.
        self.unanswered: dict[MachineId, int] = {}
        self._asked: dict[StreamName, tuple[Session, int]] = {}
        # In the order in which they grew, as a dict because a set has no order to rely on.
        self._grown: dict[StreamName, None] = {}
        # Whether something grew, or was receipted, since news were told.
        self._untold = False
        self._cosigned: dict[tuple[StreamName, MachineId, str], bytes] = {}
        # What was made for each link in this step.
        self._made_bytes: dict[int, int] = {}
        self._gossip_ms = 0

    # --- sessions --------------------------------------------------------------------

    def open(
        self, link: int, peer: MachineId, now_ms: int, through: str = "", cost: int = 0
    ) -> None:
        """A link to `peer` (perhaps through a third machine) is up: tell it what we hold.

        Where the peer is spoken with already the link may lead to the same process: that is known
        by its word (`process_named`), and until then nothing is told over it.
        """
        unnamed = Unnamed(peer, through, cost, now_ms)
        if self.paths.is_spoken_with(peer):
            self.paths.unnamed[link] = unnamed
        else:
            self._begin(link, unnamed, "", now_ms)

    def process_named(self, link: int, process: str, now_ms: int) -> None:
        """The peer named its process over `link`: "" is an older one, told over each link."""
        session = self.paths.by_link.get(link)
        if session is None:
            unnamed = self.paths.unnamed.pop(link, None)
            if unnamed is not None:
                self._begin(link, unnamed, process, now_ms)
        elif process and not session.process:
            known = self.paths.with_process(session.peer, process)
            session.process = process
            if known is not None:
                to = Unnamed(session.peer, session.paths[link], session.costs[link], now_ms)
                self.close(link, now_ms)
                self._add_path(known, link, to, now_ms)

    def _begin(self, link: int, to: Unnamed, process: str, now_ms: int) -> Session:
        """From now on we speak over this link with this process, or may."""
        known = self.paths.with_process(to.peer, process)
        if known is not None:
            self._add_path(known, link, to, now_ms)
            return known
        session = Session(
            link, to.peer, {link: to.through}, {link: to.cost}, process, patience_ms=RETRY_MS,
            heard_ms=now_ms, answered_ms=now_ms, refreshed_ms=now_ms, retried_ms=now_ms,
            proofs=self.paths.proofs,
        )  # fmt: skip
        self.paths.begin(session)
        self._greet(session, link)
        return session

    def _heard(self, link: int, now_ms: int) -> Session | None:
        """The session in which a message came."""
        session = self.paths.by_link.get(link)
        if session is None:
            unnamed = self.paths.unnamed.pop(link, None)
            if unnamed is None:
                return None
            session = self._begin(link, unnamed, "", now_ms)
        session.heard_ms = now_ms
        if link != session.link and link == session.best():
            self._return(session, now_ms)
        return session

    def _greet(self, session: Session, link: int) -> None:
        """Tell the peer over this link what we hold and vouch for, and who vouches for its own."""
        self._offer_all(session, link)
        notes = []
        for key, size, note in self.replica.cosigned():
            stream, by, _ = key
            if session.peer == stream.machine or (
                by == self.machine and self._leads_to_writer(session, stream)
            ):
                session.cosigns[key] = size
                notes.append(note.decode())
        self._send_cosigns(link, notes)

    def _leads_to_writer(self, session: Session, stream: StreamName) -> bool:
        """Whether our receipt reaches the writer of a stream by this peer, and not from us."""
        middles = {s.through for s in self.sessions.values() if s.peer == stream.machine}
        return "" not in middles and (session.peer in middles | self._near(stream))

    def _add_path(self, session: Session, link: int, to: Unnamed, now_ms: int) -> None:
        """Another link to the same process; the two tell each other anew what they hold.

        Where the others are in doubt it is spoken over at once, whatever it costs.

        It may have been set back in its running: a snapshot of a whole machine takes up the process
        as well, and only its links are new.
        """
        self.paths.add(session, link, to)
        self._greet(session, link)
        if session.best() == link:
            self._move(session, link, now_ms)

    def _move(self, session: Session, link: int, now_ms: int) -> None:
        """Speak over another path from now on."""
        before = session.through
        session.link, session.answered_ms = link, now_ms
        self._unask(session)
        if session.through == before:
            return
        self._hear_others(session.peer)
        if link not in session.fresh:
            # What the machine in the middle passes on is another matter now.
            self._offer_all(session, link)

    def _return(self, session: Session, now_ms: int) -> None:
        """Back to the best path, once it had the time to heal."""
        if now_ms - session.answered_ms >= session.patience_ms:
            self._move(session, session.best(), now_ms)

    def proved(self, link: int, now_ms: int) -> None:
        """The peer answered a question over this link: it carries, and counts from now on."""
        self.paths.proofs.prove(link, now_ms)
        session = self.paths.by_link.get(link)
        if session is not None and session.link != link and link == session.best():
            self._move(session, link, now_ms)

    def close(self, link: int, now_ms: int) -> None:
        """A link is gone; its session goes on over another one, if there is any."""
        session = self.paths.leave(link)
        if session is None:
            return
        if not session.paths:
            self._unask(session)
        elif session.link == link:
            session.link = session.best()
            session.answered_ms = now_ms
            self._unask(session)
            self._greet(session, session.link)
            # What was under way over the link that is gone is sent once more.
            for stream, lane in list(session.lanes.items()):
                if lane.over in session.paths:
                    # It goes over one that still stands, and was not lost.
                    continue
                lane.sent, lane.flight_bytes = lane.has, 0
                if lane.serve:
                    self._pump(session, stream, now_ms)
            if session.greeted:
                self._pump_session(session, now_ms)
        self._hear_others(session.peer)

    def _unask(self, session: Session) -> None:
        """What was asked of this peer may be asked of others."""
        for stream, (asked, _) in list(self._asked.items()):
            if asked is session:
                del self._asked[stream]

    def _hear_others(self, writer: MachineId) -> None:
        """Of a writer that is not linked any more others are to tell again."""
        # A path of our own leads through nobody.
        if any(s.peer == writer and not s.through for s in self.sessions.values()):
            return
        for session in self.sessions.values():
            for stream, lane in session.lanes.items():
                if lane.declined and stream.machine == writer:
                    lane.declined = False
                    self._send(session.link, wire.Want(str(stream), TELL_AGAIN))

    def cut(self, peer: MachineId) -> list[int]:
        """The links to `peer`, no longer served (it was revoked); the caller closes them."""
        links, sessions = self.paths.cut(peer)
        for session in (*sessions, *self.posts.cut(peer)):
            self._unask(session)
        return links

    # --- what arrives ----------------------------------------------------------------

    def on_offer(self, link: int, offer: wire.Offer, now_ms: int) -> list[wire.Head]:
        """Take sizes in; returns the heads the caller must check: seals to witness, or branches."""
        session = self._heard(link, now_ms)
        if session is None:
            return []
        if offer.whole:
            for lane in session.lanes.values():
                lane.quiet = False
        to_check: list[wire.Head] = []
        for head in offer.heads:
            stream = StreamName.parse(head.stream)
            if not self.may_hold(stream, self.machine):
                if head.seal:
                    to_check.append(head)
                continue
            # A witness shows us seals of streams that it cannot serve.
            holds = self.may_hold(stream, session.peer)
            if not self._may_open(session, stream, claims=holds and head.size > 0):
                continue
            lane = session.lane(stream)
            mine = self.replica.size(stream)
            # At a greeting the peer hears what we hold from ours, and what we declined it shows for
            # us to compare. Whoever shows the same again soon has not heard that we hold it.
            again = lane.claims == head.size and now_ms - lane.claimed_ms < UNANSWERED_MS
            compared = link in session.fresh or (lane.declined and not again)
            lane.unanswered = stream.machine == session.peer or not compared
            lane.claimed_ms = now_ms
            stands = lane.over in session.paths and not session.unanswered
            under_way = stands and head.size >= lane.has
            if holds and link in session.fresh and not under_way:
                # Its first words over this link: it may hold less than we knew. What goes to it
                # over a link that answers is not lost.
                lane.has = lane.sent = min(head.size, mine)
                lane.claims, lane.flight_bytes = head.size, 0
            elif holds:
                lane.has = max(lane.has, min(head.size, mine))
                lane.sent = max(lane.sent, lane.has)
                lane.claims = head.size
            if head.size > mine:
                # What comes another way is asked for by `_retry`, if it did not.
                other = self._comes_anyway(session, stream) or self._is_pushed(session, stream)
                if holds and not other:
                    self._ask(session, stream, now_ms)
            elif head.size and head.seal:
                to_check.append(head)
            if holds and session.greeted and self._is_pushed(session, stream):
                self._decline(session, stream)
        if offer.whole and (link in session.fresh or not session.greeted):
            session.fresh.discard(link)
            session.greeted = True
            self._pump_session(session, now_ms)
        elif offer.whole and now_ms - session.refreshed_ms >= RETRY_MS:
            # Said again, for it never heard ours.
            session.refreshed_ms = now_ms
            self._offer_all(session, session.link)
        return to_check

    def on_want(self, link: int, want: wire.Want, now_ms: int) -> None:
        session = self._heard(link, now_ms)
        stream = StreamName.parse(want.stream)
        if session is None or not self.may_hold(stream, session.peer):
            return
        if not self.replica.knows(stream):
            return
        lane = session.lane(stream)
        if want.start >= NOT_NOW:
            lane.serve, lane.quiet = False, want.start == NOT_NOW
            self.grew(stream)
            return
        lane.quiet = False
        lane.has = lane.sent = min(max(want.start, 0), self.replica.size(stream))
        lane.flight_bytes = 0
        lane.serve = True
        self._pump(session, stream, now_ms)

    def heard_cosign(self, link: int, cosign: Cosign, now_ms: int) -> None:
        """A checked cosign came over `link`; one by the peer itself moves its lane."""
        session, stream, size = self._heard(link, now_ms), cosign.stream, cosign.size
        if session is None:
            return
        key = (stream, cosign.machine, cosign.strength)
        session.cosigns[key] = max(session.cosigns.get(key, -1), size)
        if session.peer != cosign.machine:
            return
        lane = session.lane(stream)
        if size > (lane.has if cosign.strength == "held" else lane.witnessed):
            session.answered(link, now_ms)
            lane.owes_ms = now_ms
        if cosign.strength != "held":
            lane.witnessed = max(lane.witnessed, size)
            return
        lane.has = max(lane.has, size)
        lane.sent = max(lane.sent, lane.has)
        if lane.has >= lane.sent:
            lane.flight_bytes = 0
            ours = stream.machine == self.machine
            if lane.serve or (ours and not self._comes_anyway(session, stream)):
                self._pump(session, stream, now_ms)

    def gap(self, link: int, stream: StreamName, now_ms: int) -> None:
        """A segment began beyond what we hold: ask for the missing part."""
        session = self.paths.by_link.get(link)
        if session is not None:
            self._asked.pop(stream, None)
            self._ask(session, stream, now_ms)

    def again(self, link: int, stream: StreamName) -> None:
        """Entries came that are here already: whoever is not their writer need not send them."""
        session = self.paths.by_link.get(link)
        if session is not None and (
            self._comes_anyway(session, stream) or self._is_pushed(session, stream)
        ):
            self._decline(session, stream)

    def _decline(self, session: Session, stream: StreamName) -> None:
        """It comes another way: the peer need neither send it nor tell of it, and hears so once."""
        lane = session.lane(stream)
        if not lane.declined:
            lane.declined = True
            self._send(session.link, wire.Want(str(stream), NOT_NOW))

    # --- what the caller did ----------------------------------------------------------

    def grew(self, stream: StreamName) -> None:
        """The stream has new entries under a seal, committed or about to be."""
        self._grown[stream] = None
        self._untold = True
        self.refresh.changed(stream)
        self.posts.grew(stream)

    def took(self, link: int, stream: StreamName, size: int) -> None:
        """Entries up to `size` came over `link`: its peer holds them, no need to send them back."""
        session = self.paths.by_link.get(link)
        if session is not None:
            lane = session.lane(stream)
            lane.has = max(lane.has, size)
            lane.sent = max(lane.sent, size)
        for each in self.sessions.values():
            each.claims.pop(stream, None)
        asked = self._asked.get(stream)
        if asked is not None and session is not None and asked[0] is session:
            session.answered(link, session.heard_ms)
            del self._asked[stream]
        self.grew(stream)

    def cosigned(self, cosign: Cosign) -> None:
        """A cosign is stored: give it to the writer of the stream at once, to others soon."""
        stream = cosign.stream
        self.posts.cosigned(cosign)
        if stream.machine == self.machine:
            return
        key = (stream, cosign.machine, cosign.strength)
        self._cosigned[key] = cosign.note
        self._untold = True
        for session in self.sessions.values():
            if session.peer != stream.machine or self._comes_anyway(session, stream):
                continue
            if session.cosigns.get(key, -1) < cosign.size:
                session.cosigns[key] = cosign.size
                self._send(session.link, wire.Cosigns([cosign.note.decode()]))

    def wants_receipt(self, link: int, stream: StreamName) -> bool:
        """Whether the head that a peer showed last is to be answered with our receipt."""
        session = self.paths.by_link.get(link)
        return session is not None and session.lane(stream).unanswered

    def answer_cosign(self, link: int, cosign: Cosign) -> None:
        """Our own cosign, to the peer whose segment or seal it answers."""
        session = self.paths.by_link.get(link)
        if session is not None:
            session.cosigns[cosign.stream, self.machine, cosign.strength] = cosign.size
            self._send(link, wire.Cosigns([cosign.note.decode()]))
            if session.peer == cosign.stream.machine and cosign.strength == "seen":
                self.refresh.has_shown(session, cosign.stream)

    def cut_back(self, stream: StreamName, size: int) -> None:
        """The stream was frozen at `size`: what was agreed beyond it counts no more."""
        for session in (*self.sessions.values(), *self.posts.sessions()):
            lane = session.lanes.get(stream)
            if lane is not None:
                lane.has, lane.sent = min(lane.has, size), min(lane.sent, size)
                lane.claims = min(lane.claims, size)
                lane.shown, lane.flight_bytes = 0, 0
        self._asked.pop(stream, None)
        self.grew(stream)

    def forget(self, stream: StreamName) -> None:
        """The stream is known no more: nothing is kept for it."""
        for session in (*self.sessions.values(), *self.posts.sessions()):
            session.lanes.pop(stream, None)
            session.claims.pop(stream, None)
            session.late.pop(stream, None)
            session.showed.pop(stream, None)
            for key in [k for k in session.cosigns if k[0] == stream]:
                del session.cosigns[key]
        self._asked.pop(stream, None)
        self._grown.pop(stream, None)
        self.refresh.changed(stream)

    def after_commit(self, now_ms: int) -> None:
        """Push what grew; the caller sends `outbox` now that it is durable."""
        self._made_bytes.clear()
        for session in self.sessions.values():
            late, session.late = session.late, {}
            for stream in late:
                self._pump(session, stream, now_ms)
        for stream in self._grown:
            ours, made = stream.machine == self.machine, _Made()
            for session in self.sessions.values():
                lane = session.lanes.get(stream)
                asked = lane is not None and lane.serve
                pushed = ours and session.greeted and not self._comes_anyway(session, stream)
                if asked or pushed:
                    self._pump(session, stream, now_ms, made)

    @property
    def needs_tick(self) -> bool:
        """Whether something is to be told with the next tick."""
        return self._untold or any(session.late for session in self.sessions.values())

    def tick(self, now_ms: int) -> None:
        """Offer again what was not confirmed; call it every `GOSSIP_MS` while links are up."""
        if now_ms - self._gossip_ms >= GOSSIP_MS:
            self._gossip(now_ms)
        for link, unnamed in list(self.paths.unnamed.items()):
            if unnamed.since_ms <= now_ms - RETRY_MS:
                del self.paths.unnamed[link]
                self._begin(link, unnamed, "", now_ms)
        for session in list(self.sessions.values()):
            if now_ms - session.refreshed_ms >= (REFRESH_MS if session.greeted else RETRY_MS):
                session.refreshed_ms = now_ms
                if session.link != session.best():
                    self._return(session, now_ms)
                if session.greeted:
                    self.refresh.due(session, now_ms)
                else:
                    self._offer_all(session, session.link)
            elif now_ms - session.retried_ms >= RETRY_MS:
                session.retried_ms = now_ms
                self._retry(session, now_ms)

    def _retry(self, session: Session, now_ms: int) -> None:
        late, asking, waiting, seek = [], False, False, False
        unanswered_ms = now_ms - session.answered_ms
        is_silent = unanswered_ms >= RETRY_MS
        for stream, lane in list(session.lanes.items()):
            if session.claims.get(stream, 0) >= STREAM_ASKS_MAX:
                # It was said to be there and never came. Whoever has it may offer it again.
                del session.claims[stream], session.lanes[stream]
                asked = self._asked.get(stream)
                if asked is not None and asked[0] is session:
                    del self._asked[stream]
                continue
            if not self.may_hold(stream, session.peer):
                if lane.witnessed < lane.shown and now_ms - lane.shown_ms >= RETRY_MS:
                    lane.shown = lane.witnessed
                    self.witnesses.show(session, stream, now_ms)
                continue
            if lane.claims > self.replica.size(stream) and self.may_hold(stream, self.machine):
                asked = self._asked.get(stream)
                if asked is not None and asked[0] is session:
                    asking = True
                    if is_silent and now_ms - asked[1] >= RETRY_MS:
                        missed = session.link, self.replica.size(stream)
                        seek = seek or lane.missed_asked != missed
                        waiting, lane.missed_asked = True, missed
                self._ask(session, stream, now_ms)
            # What a peer declined it was shown to compare: it owes no answer.
            told = 0 if lane.quiet else max(lane.sent, lane.shown)
            # Somebody who says something all the time must not wait for an answer for ever.
            since_ms = min(lane.owes_ms, lane.sent_ms) if is_silent else lane.sent_ms
            if told > lane.has and now_ms - since_ms >= RETRY_MS:
                lane.sent_ms = now_ms
                late.append(stream)
                missed = session.link, lane.has
                if is_silent and lane.missed_sent != missed:
                    seek, lane.missed_sent = True, missed
        session.unanswered = is_silent and bool(late or waiting)
        other = None
        if seek:
            self.unanswered[session.peer] = session.link
            other = session.other()
        # A peer that says nothing at all may be gone from the path we speak over; one that speaks
        # to us over its own path, and answers nothing, hears us not. Each move that brings no
        # answer doubles the wait: a path that is only slow must not be given up again and again.
        heard = now_ms - session.heard_ms < RETRY_MS
        patience_ms = max(session.patience_ms, UNANSWERED_MS if heard else 0)
        links = list(session.paths)
        if other is not None:
            self._move(session, other, now_ms)
        elif (late or asking) and len(links) > 1 and unanswered_ms >= patience_ms:
            following = links[(links.index(session.link) + 1) % len(links)]
            session.patience_ms = min(2 * session.patience_ms, REFRESH_MS)
            self._move(session, following, now_ms)
        self._send_heads(session, late)

    def say(self, link: int, message: wire.Message) -> None:
        """Send one message on a live link."""
        if link in self.paths.by_link:
            self._send(link, message)

    def spread_fork(self, raw: bytes) -> None:
        """Tell every peer of a fork, over each link; it is proof enough by itself."""
        for link in self.paths.by_link:
            self._send(link, wire.Offer([], forks=[raw.decode()]))

    def unconfirmed(self) -> int:
        """Entries sent on live links and not yet confirmed."""
        return sum(
            max(0, lane.sent - lane.has)
            for s in self.sessions.values()
            for lane in s.lanes.values()
        )

    # --- inside ------------------------------------------------------------------------

    def _send(self, link: int, message: wire.Message) -> None:
        self.outbox.append(Outgoing(link, wire.encode(message), bulk=False))

    def _send_cosigns(self, link: int, notes: list[str]) -> None:
        for i in range(0, len(notes), OFFER_HEADS_MAX):
            self._send(link, wire.Cosigns(notes[i : i + OFFER_HEADS_MAX]))

    def _send_heads(self, session: Session, streams: list[StreamName], link: int = 0) -> None:
        heads = [self._head(session, stream) for stream in streams]
        for i in range(0, len(heads), OFFER_HEADS_MAX):
            self._send(link or session.link, wire.Offer(heads[i : i + OFFER_HEADS_MAX]))

    def _head(self, session: Session, stream: StreamName) -> wire.Head:
        size = self.replica.size(stream)
        if stream.machine == session.peer:
            seal = self.replica.latest_seal(stream)
            size = max(size, seal.size if seal is not None else 0)
        else:
            seal = self.replica.seal_of(stream)
        return wire.Head(str(stream), size, seal.note.decode() if seal else "")

    def _offer_all(self, session: Session, link: int) -> None:
        """Begin anew: what was declined is no more, and the peer knows so by the word `whole`."""
        for lane in session.lanes.values():
            lane.declined = False
        told = [each for each in self.replica.streams() if self._is_told(session, each)]
        offered = [each for each in told if each.machine != session.peer]
        theirs = [each for each in told if each.machine == session.peer]
        for fork in self.forks():
            self._send(link, wire.Offer([], forks=[fork.decode()]))
        # Its own streams come in the very message that says `whole`: when that one arrives, the
        # peer knows what we know of it, whatever became of the parts before.
        last = theirs[-OFFER_HEADS_MAX:]
        for stream in theirs:
            self.refresh.has_shown(session, stream)
        self._send_heads(session, [*offered, *theirs[:-OFFER_HEADS_MAX]], link)
        heads = [self._head(session, stream) for stream in last]
        self._send(link, wire.Offer(heads, whole=True))

    def _is_told(self, session: Session, stream: StreamName) -> bool:
        """Whether a peer is offered what there is of a stream; its own it is told in any case."""
        if stream.machine == session.peer:
            return True
        size = self.replica.size(stream)
        if not size or not all(self.may_hold(stream, m) for m in (session.peer, self.machine)):
            return False
        session.lane(stream).shown = size
        return True

    def _may_open(self, session: Session, stream: StreamName, *, claims: bool) -> bool:
        """Whether a peer may have us keep a lane for a stream: one we know, or one claim more."""
        if stream in session.lanes or self.replica.knows(stream):
            return True
        full = len(session.claims) >= STREAMS_CLAIMED_MAX
        if not claims or full or not self.replica.has_place(stream):
            return False
        session.claims[stream] = 0
        return True

    def _ask(self, session: Session, stream: StreamName, now_ms: int) -> None:
        if self.posts.holds_back(session):
            return
        asked = self._asked.get(stream)
        if asked is not None and asked[0] is not session and now_ms - asked[1] < ASK_MS:
            return
        if stream in session.claims:
            session.claims[stream] += 1
        # Whoever is asked again and does not send gains no time by that: others are asked after it.
        first_ms = asked[1] if asked is not None and asked[0] is session else now_ms
        self._asked[stream] = (session, first_ms)
        session.lane(stream).declined = False
        self._send(session.link, wire.Want(str(stream), self.replica.size(stream)))

    def _pump_session(self, session: Session, now_ms: int) -> None:
        for stream in self.replica.streams():
            if not self.may_hold(stream, session.peer):
                self.witnesses.show(session, stream, now_ms)
            elif stream.machine == self.machine and not self._comes_anyway(session, stream):
                self._pump(session, stream, now_ms)

    def _comes_anyway(self, session: Session, stream: StreamName) -> bool:
        """Whether the machine in the middle of this link holds the stream, and passes it on."""
        middle = MachineId(session.through)
        return bool(
            middle and self.may_hold(stream, middle) and not self.bodies_from(stream, middle)
        )

    def _is_pushed(self, session: Session, stream: StreamName) -> bool:
        """Whether what this peer has of a stream comes from its writer: linked, and heard of it."""
        if session.peer == stream.machine:
            return False
        for each in self.sessions.values():
            if each.peer == stream.machine and not each.through and each.greeted:
                lane = each.lanes.get(stream)
                if lane is not None and lane.has:
                    return True
        return False

    def _told_anyway(self, session: Session, stream: StreamName) -> bool:
        """Whether news of it need not go over this link: it is the middle's to pass on.

        Of the middle's own stream the two ends tell each other: it could tell each of them another.
        """
        return stream.machine != session.through and self._comes_anyway(session, stream)

    def _pump(
        self, session: Session, stream: StreamName, now_ms: int, made: _Made | None = None
    ) -> None:
        """Send what the peer lacks, as far as the lane's window allows.

        Between two changes of the stream what is `made` for one peer is the same for the next.
        """
        made = {} if made is None else made
        if not self.may_hold(stream, session.peer) or self.posts.holds_back(session):
            return
        lane = session.lane(stream)
        size = self.replica.size(stream)
        while lane.sent < size and lane.flight_bytes < LANE_BYTES_MAX:
            if self._made_bytes.get(session.link, 0) >= STEP_LINK_BYTES_MAX:
                session.late[stream] = None
                return
            bodies_from = self.bodies_from(stream, session.peer)
            key = (lane.sent, bodies_from)
            if key not in made:
                segment = self.replica.segment(stream, lane.sent, SEGMENT_SLICE_BYTES, bodies_from)
                if segment is None:
                    return
                made[key] = segments.encode(segment), segment.end
            raw, end = made[key]
            if lane.sent <= lane.has:
                lane.owes_ms = now_ms
            self.outbox.append(Outgoing(session.link, raw, bulk=True))
            lane.sent = lane.shown = end
            lane.sent_ms, lane.over = now_ms, session.link
            lane.flight_bytes += len(raw)
            self._made_bytes[session.link] = self._made_bytes.get(session.link, 0) + len(raw)

    def _gossip(self, now_ms: int) -> None:
        self._gossip_ms, self._untold = now_ms, False
        if not self._grown and not self._cosigned:
            return
        near = {stream: self._near(stream) for stream in self._grown}
        for session in self.sessions.values():
            if session.greeted:
                self._gossip_session(session, near, now_ms)
        self._pass_on()
        self._cosigned.clear()
        self._grown = {s: None for s in self._grown if self._is_held_back(s, near[s])}

    def _near(self, stream: StreamName) -> frozenset[MachineId]:
        """Who compares at once what it is shown of a stream: of those that hold it, and others."""
        return self.paths.near(stream, self.near_max, lambda peer: self.may_hold(stream, peer))

    def _pass_on(self) -> None:
        """Receipts whose writer is not linked go to those near: one of them may reach it."""
        lost = {
            k: n for k, n in self._cosigned.items() if not self.paths.is_spoken_with(k[0].machine)
        }
        for session in self.sessions.values() if lost else ():
            notes = []
            for key, note in lost.items():
                size = int(note.split(b"\n", 2)[1])
                if (
                    session.greeted
                    and session.peer in self._near(key[0])
                    and session.peer != key[1]
                    and not self._told_anyway(session, key[0])
                    and session.cosigns.get(key, -1) < size
                ):
                    session.cosigns[key] = size
                    notes.append(note.decode())
            self._send_cosigns(session.link, notes)

    def _is_held_back(self, stream: StreamName, near: frozenset[MachineId]) -> bool:
        """Whether some live peer was not told yet how far the stream has come, and is to be."""
        size = self.replica.size(stream)
        return any(
            session.lane(stream).shown < size
            for session in self.sessions.values()
            if session.greeted
            and session.peer != stream.machine
            and self._is_news_for(session, stream, near)
        )

    def _is_news_for(
        self, session: Session, stream: StreamName, near: frozenset[MachineId]
    ) -> bool:
        """Whether a peer is told of growth as it happens."""
        if self._told_anyway(session, stream):
            return False
        if session.peer in near:
            return True
        lane = session.lanes.get(stream)
        quiet = lane is not None and lane.quiet
        return not quiet and self.may_hold(stream, session.peer)

    def _gossip_session(
        self, session: Session, near: dict[StreamName, frozenset[MachineId]], now_ms: int
    ) -> None:
        news, of_itself = [], []
        for stream in self._grown:
            if session.peer == stream.machine:
                # Where its key wrote this stream elsewhere, a machine should hear of a copy of
                # itself. It is told once; growth is sent when it asked for the stream, and all of
                # it at the refresh.
                lane = session.lane(stream)
                if not (lane.has or lane.claims or lane.shown):
                    lane.has = lane.sent = lane.shown = self.replica.size(stream)
                    of_itself.append(stream)
                continue
            if not self._is_news_for(session, stream, near[stream]):
                continue
            if not self.may_hold(stream, session.peer):
                self.witnesses.show(session, stream, now_ms)
                continue
            lane = session.lane(stream)
            size = self.replica.size(stream)
            if lane.quiet and now_ms - lane.shown_ms < WITNESS_MS:
                # It is to be compared with, and not waited for.
                continue
            if stream.machine != self.machine and max(lane.has, lane.shown) < size:
                lane.shown, lane.sent_ms, lane.shown_ms = size, now_ms, now_ms
                news.append(stream)
            elif lane.has >= size:
                lane.shown = max(lane.shown, size)
        self._send_heads(session, news)
        for link in session.paths:
            # Over each of them another copy of it may be listening.
            self._send_heads(session, of_itself, link)
