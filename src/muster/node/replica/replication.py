"""Streams in and out: what the core does with offers, segments, cosigns and forks.

Rule 1: our cosign is stored in the transaction that makes it true, and given only after its commit;
another machine's is proof by itself, and waits for the next commit or tick.
Rule 2: what is refused still moves on: a bad segment is counted by name, never asked for again
from the same link at once, and never stops another stream.
Rule 3: our own stream is written by us alone. A seal of ours over more than we hold proves that
this machine was set back, another branch proves a clone. Both end the incarnation. Only our own
signature proves it: what a cosigner claims about us moves nothing.
Rule 4: which streams ended, and where, is the business of forks.py.
"""

from collections import Counter
from collections.abc import Callable

from muster.errors import Forged, Malformed, MusterError, Refused
from muster.limits import COSIGNS_KNOWN, LINK_FAULTS_MAX, STREAMS_OF_MACHINE_MAX
from muster.log import seal as seals
from muster.log import segment as segments
from muster.log import tree, wire
from muster.log.admit import Diverged, Gap, Nothing, Taken, admit
from muster.log.entry import Entry
from muster.log.seal import Cosign, Seal
from muster.log.stream import FLEET, MachineId, StreamName
from muster.log.sync import Sync
from muster.node.counter import DECLARED, Counts, labelled
from muster.node.event import Event
from muster.node.replica.forks import Forks, Regressed
from muster.node.replica.intake import Intake
from muster.node.replica.membership import Membership
from muster.node.replica.waiting_receipts import Awaited, Claims, EarlyReceipts
from muster.store.store import Store

DECLARED[__name__] = {
    "streams-without-a-place": "A stream was not begun: its writer has too many.",
    "seal-contradicts-what-was-seen": "A seal does not follow the last one: not vouched for.",
    "cosign-of-unknown-stream": "A cosign of a stream that is not known here was put aside.",
    "cosign-of-unknown-machine": "A cosign of a machine that is not known here was passed over.",
    "cosign-of-another-branch": "A cosign vouches for other entries than those that are here.",
    "cosign-ahead-of-us": "A cosign vouches for more of our own stream than is here.",
    "entries-held-back": "A segment was not taken yet: its writer sends too much at once.",
    "entries-taken": "Entries of other machines that were taken.",
    "refused-<error>": "A message about streams was refused.",
}


class Contradicted(Event, frozen=True):
    """A writer showed two histories of what we may not hold."""

    stream: StreamName
    what: str


class EntriesTaken(Event, frozen=True):
    """Entries that were not here came over this link, or mailbox."""

    link: int


class OwnWanted(Event, frozen=True):
    """A machine asks for entries of its own log: it was set back, or is a copy."""

    machine: MachineId
    stream: StreamName


class Replication:
    """Between the links and the store. The core calls it inside its transaction."""

    def __init__(  # noqa: PLR0917 - its parts, and whom it tells
        self,
        store: Store,
        membership: Membership,
        sync: Sync,
        counters: Counts,
        on_entries: Callable[[StreamName, tuple[Entry, ...]], None],
        tell: Callable[[Event], None],
    ) -> None:
        self.store = store
        self.membership = membership
        # Whether what others wrote is receipted now: not while a copy of us runs.
        self.may_receipt = True
        self.sync = sync
        self.counters = counters
        self._on_entries = on_entries
        self._tell = tell
        self._touched: dict[StreamName, dict[int, None]] = {}
        self.claims = Claims(store)
        # Streams of ours, of any incarnation, that our own seal says were longer than they are.
        self.longer: dict[StreamName, int] = {}
        self._known_cosigns: dict[bytes, Cosign] = {}
        self._faults: Counter[int] = Counter()
        self.early = EarlyReceipts()
        self.awaited = Awaited(store)
        self.intake = Intake(membership.machine)
        self.forks = Forks(store, membership, sync, self.counters, tell)

    # --- messages --------------------------------------------------------------------

    def on_message(self, link: int, raw: bytes, now_ms: int, wall_ms: int) -> None:
        """One sync message. Raises: Refused (count it; cut the link when it happens too often)."""
        self.on_said(link, wire.decode(raw), now_ms, wall_ms)

    def on_said(self, link: int, message: wire.Message, now_ms: int, wall_ms: int) -> None:
        """As `on_message`, where it was looked at before."""
        self.forks.now_ms = now_ms
        match message:
            case wire.Offer():
                self._on_offer(link, message, now_ms, wall_ms)
            case wire.Want():
                session = self.sync.paths.by_link.get(link)
                stream = StreamName.parse(message.stream)
                own = session is not None and stream.machine == session.peer
                # Who asks for entries of its own stream has fewer of them than we.
                fewer = message.start < self.store.log.size(stream)
                if own and stream.scope == FLEET and fewer:
                    self._tell(OwnWanted(stream.machine, stream))
                self.sync.on_want(link, message, now_ms)
            case wire.Witnessed():
                self.sync.witnesses.saw(link, message, now_ms)
            case wire.Roots():
                self.sync.refresh.on_roots(link, message, now_ms)
            case wire.Differ():
                self.sync.refresh.on_differ(link, message, now_ms)
            case wire.Cosigns():
                for note in message.notes:
                    self._on_cosign(link, note.encode(), now_ms)
            case wire.Probe() | wire.Root() | wire.Prove() | wire.Leaf():
                self.forks.on_question(link, message, wall_ms)

    def fault(self, link: int, error: MusterError) -> bool:
        """Count a refusal; True when the link has brought too many and should be cut."""
        self.counters[labelled("refused", error)] += 1
        self._faults[link] += 1
        return self._faults[link] > LINK_FAULTS_MAX

    def closed(self, link: int) -> None:
        self._faults.pop(link, None)
        self.early.closed(link)
        self.forks.closed(link)

    def _on_offer(self, link: int, offer: wire.Offer, now_ms: int, wall_ms: int) -> None:
        for raw in offer.forks:
            self.forks.learn(raw.encode(), wall_ms)
        for head in offer.heads:
            stream = StreamName.parse(head.stream)
            longer = head.size > self.store.log.size(stream)
            if longer and stream.machine == self.membership.machine:
                self._is_longer(stream, head.seal.encode())
        living = [h for h in offer.heads if not self._is_over(link, h)]
        offer = wire.Offer(living, whole=offer.whole)
        for head in self.sync.on_offer(link, offer, now_ms):
            stream = StreamName.parse(head.stream)
            if self.sync.may_hold(stream, self.membership.machine):
                self._compare(link, stream, head)
            else:
                self._witness(link, stream, head, now_ms, wall_ms)

    def _is_longer(self, stream: StreamName, note: bytes) -> None:
        """Somebody shows more of our stream than we hold; our own seal on it settles it."""
        seal = self._open(note) if note else None
        if seal is None or seal.stream != stream or seal.size <= self.store.log.size(stream):
            return
        if stream.scope == FLEET:
            self.longer[stream] = max(seal.size, self.longer.get(stream, 0))
        if self.forks.is_ours(stream):
            self._tell(Regressed(stream, "a peer holds more of our stream than we do"))

    def _is_over(self, link: int, head: wire.Head) -> bool:
        """Whether the peer offers what lies beyond the end of a frozen stream; tell it why."""
        stream = StreamName.parse(head.stream)
        if self.forks.is_nothing(stream):
            return True
        end = self.forks.end_of(stream)
        if end is None or head.size <= end:
            return False
        self.forks.tell_frozen(link, stream)
        return self.store.log.size(stream) >= end

    def _open(self, note: bytes) -> Seal | None:
        """The seal, checked; None when the machine is not (yet) known here."""
        stream = seals.peek_stream(note)
        public = self.membership.key_of(stream.machine, "seal")
        return None if public is None else seals.open_seal(note, self.membership.fleet, public)

    def _compare(self, link: int, stream: StreamName, head: wire.Head) -> None:
        """A peer's seal for a stream of which we hold at least as much: is it our history?"""
        seal = self.store.log.seal_of(stream)
        if seal is None or seal.note != head.seal.encode():
            seal = self._open(head.seal.encode())
            if seal is None or seal.stream != stream or seal.size > self.store.log.size(stream):
                return
            if self.store.log.root_at(stream, seal.size) != seal.root:
                self.forks.dispute(link, stream, min(seal.size, self.store.log.size(stream)))
                return
        if not self.sync.wants_receipt(link, stream):
            return
        held = self._held(stream)
        if held is not None and held.size >= seal.size:
            self.sync.answer_cosign(link, held)

    def _held(self, stream: StreamName) -> Cosign | None:
        """Our own receipt for a stream, the newest."""
        for cosign in self.store.log.cosigns(stream):
            if cosign.machine == self.membership.machine and cosign.strength == "held":
                return cosign
        return None

    def _witness(
        self, link: int, stream: StreamName, head: wire.Head, now_ms: int, wall_ms: int
    ) -> None:
        """A stream we may not hold: check that its seal follows what we saw, then say so."""
        seal = self._open(head.seal.encode())
        if seal is None or seal.stream != stream or self.forks.end_of(stream) is not None:
            return
        seen = self.store.log.latest_seal(stream)
        size, root = (seen.size, seen.root) if seen is not None else (0, tree.EMPTY_ROOT)
        if seal.size < size:
            return
        if not self.store.log.has_place(stream) or not seal.size:
            self.counters["streams-without-a-place"] += 1
            return
        if seal.size > size or seal.root != root:
            if head.since != size and seal.size > size:
                self.sync.say(link, wire.Witnessed(str(stream), size))
                return
            try:
                path = [bytes.fromhex(text) for text in head.proof] if size else []
            except ValueError as error:
                raise Malformed(f"a proof about {stream} is not made of hashes") from error
            if size and not tree.verify_consistency(size, seal.size, root, seal.root, path):
                # Genuine, and does not follow what we saw: never vouched for, and not silent.
                self.counters["seal-contradicts-what-was-seen"] += 1
                saw = f"the one over {size} entries that this machine saw"
                what = f"a seal of {stream} contradicts {saw}"
                self._tell(Contradicted(stream, what))
                raise Forged(what)
            self.store.put_seal(seal)
            self._heard_before(stream, now_ms)
        cosign = self._make_cosign("seen", seal.stream, seal.size, seal.root, wall_ms)
        self.sync.answer_cosign(link, cosign)
        self.sync.cosigned(cosign)

    def _heard_before(self, stream: StreamName, now_ms: int) -> None:
        """Something of a stream is here now: what was said of it before may count."""
        for link, note in self.early.of(stream):
            try:
                self._on_cosign(link, note, now_ms)
            except Refused as error:
                self.fault(link, error)

    def _on_cosign(self, link: int, note: bytes, now_ms: int) -> None:
        known = self._known_cosigns.get(note)
        if known is not None:
            # Three peers pass the same one on: its signature was checked the first time.
            self.sync.heard_cosign(link, known, now_ms)
            return
        stream = seals.peek_stream(note)
        if not self.store.log.knows(stream) and not self.forks.is_ours(stream):
            self.counters["cosign-of-unknown-stream"] += 1
            self.early.keep(link, stream, note)
            return
        by = seals.peek_cosigner(note)
        seen, held = self.membership.key_of(by, "seen"), self.membership.key_of(by, "held")
        if seen is None or held is None:
            self.counters["cosign-of-unknown-machine"] += 1
            return
        cosign = seals.open_cosign(note, self.membership.fleet, seen=seen, held=held)
        if cosign.size <= self.store.log.size(cosign.stream):
            if self.store.log.root_at(cosign.stream, cosign.size) != cosign.root:
                self.counters["cosign-of-another-branch"] += 1
                return
        elif self.forks.is_ours(cosign.stream):
            # A hint that we were set back, no proof: anybody may claim it.
            self.counters["cosign-ahead-of-us"] += 1
            self.claims.heard(cosign)
            return
        if len(self._known_cosigns) >= COSIGNS_KNOWN:
            self._known_cosigns.clear()
        self._known_cosigns[note] = cosign
        self.sync.heard_cosign(link, cosign, now_ms)
        if self.store.put_cosign(cosign, may_wait=True):
            self.awaited.settle(cosign)
            self.sync.cosigned(cosign)

    def _make_cosign(
        self, strength: seals.Strength, stream: StreamName, size: int, root: bytes, wall_ms: int
    ) -> Cosign:
        cosign = seals.make_cosign(
            self.membership.fleet,
            stream,
            size,
            root,
            self.membership.machine,
            strength,
            self.membership.signer(strength),
            max(0, wall_ms // 1000),
        )
        self.store.put_cosign(cosign)
        return cosign

    # --- segments --------------------------------------------------------------------

    def on_segment(self, link: int, raw: bytes, now_ms: int, wall_ms: int) -> None:
        """Entries of somebody's stream. Raises: Refused."""
        segment = segments.decode(raw)
        stream = segment.stream
        self.forks.now_ms = now_ms
        if not self.sync.may_hold(stream, self.membership.machine):
            raise Refused(f"a segment of {stream} came here, which may not hold it")
        if self.forks.is_ours(stream):
            self._is_longer(stream, segment.note)
            return
        if self.forks.is_nothing(stream):
            return
        end = self.forks.end_of(stream)
        if end is not None and segment.end > end:
            # It may not have heard yet: no fault of the peer.
            self.forks.tell_frozen(link, stream)
            return
        if not self.store.log.has_place(stream):
            most = STREAMS_OF_MACHINE_MAX
            raise Refused(f"{stream} is one more than {most} of its machine: `muster revoke` it")
        public = self.membership.key_of(stream.machine, "seal")
        if public is None and segment.start == 0 and segment.entries:
            # From the record in its very first entry.
            public = self.membership.introduced(stream, segment.entries[0])
        if public is None:
            raise Refused(f"the machine of {stream} is not known here yet")
        state, held_tree = self.store.log.state(stream), self.store.log.tree(stream)
        outcome = admit(state, segment, self.membership.fleet, public, held_tree)
        match outcome:
            case Taken() if not self.intake.admits(stream.machine, len(raw), now_ms):
                # It is offered again, and by then there may be room for more of its writer.
                self.counters["entries-held-back"] += 1
            case Taken() if outcome.entries:
                fresh = not self.store.log.knows(stream)
                self.store.take(outcome, wall_ms)
                if fresh:
                    self._heard_before(stream, now_ms)
                self._touched.setdefault(stream, {})[link] = None
                self.sync.took(link, stream, outcome.end)
                self.counters["entries-taken"] += len(outcome.entries)
                self._on_entries(stream, outcome.entries)
                self._tell(EntriesTaken(link))
            case Taken():
                pass
            case Nothing():
                # All of it is here already: the receipt was lost, give it again.
                held = self._held(stream)
                if held is not None:
                    self.sync.answer_cosign(link, held)
                self.sync.again(link, stream)
            case Gap() if stream.machine in self.intake.held_back:
                # What is missing found no room: asked for now it would come now, and again and
                # again until there is some. It is offered anew before long.
                pass
            case Gap():
                self.sync.gap(link, stream, now_ms)
            case Diverged():
                self.forks.dispute(
                    link, stream, min(outcome.seal.size, self.store.log.size(stream))
                )

    def receipts(self, wall_ms: int) -> None:
        """One *held* cosign per stream that grew in this transaction; call before its commit."""
        for stream, links in list(self._touched.items()):
            if stream.machine != self.membership.machine and not self.may_receipt:
                # It is given when that is certain again; until then its writer waits for it.
                continue
            del self._touched[stream]
            size = self.store.log.size(stream)
            root = self.store.log.root_at(stream, size)
            cosign = self._make_cosign("held", stream, size, root, wall_ms)
            for link in links:
                self.sync.answer_cosign(link, cosign)
            self.sync.cosigned(cosign)
