"""Streams that came to their end: forked ones, and those of revoked machines.

Rule 1: a forked stream is frozen at the first difference, a revoked machine's at the size that the
revocation names. Everybody ends at the same entry, in whatever order the news came.
Rule 2: a fork counts when it is proved, by two seals of the writer's own key; nobody is believed.
Rule 3: a revocation, the taking of a grant, an order that we obeyed and a removal from a thread are
never forgotten: where rolling a stream back takes one away, whoever may says it again, and who saw
a removal leaves the member out (fleet/permanent.py).
Rule 4: a search for the first difference asks one peer, and gives up what is never answered.
Rule 5: a machine that was revoked may have thousands of streams, full of entries. One step ends so
many of them and no more, whoever names them; meanwhile none of them grows beyond its end. A single
stream ends at once, however long it is: a hundred thousand entries take a second.
"""

from collections.abc import Callable
from dataclasses import dataclass

from muster.errors import NotFound, Refused
from muster.fleet.acknowledgement import name_of
from muster.fleet.kinds import Fork
from muster.fleet.permanent import KINDS, removals
from muster.limits import BURIED_ENTRIES_AS_STREAM, BURIED_PER_STEP_MAX, DISPUTE_MS
from muster.log import canon, wire
from muster.log import fork as forks
from muster.log.entry import Entry
from muster.log.fork import Branch, Search
from muster.log.session import RETRY_MS
from muster.log.stream import MachineId, StreamName
from muster.log.sync import Sync
from muster.node.counter import DECLARED, Counts
from muster.node.event import Event
from muster.node.replica.membership import Membership
from muster.store.store import Store

DECLARED[__name__] = {
    "beyond-the-end-of-a-frozen-stream": "A peer spoke of more than a frozen stream has.",
    "disputes": "Two copies of a stream differ, and a search for the place began.",
    "forks": "A stream was frozen: its writer signed two histories.",
    "streams-forgotten": "A stream of a revoked machine, of which nothing was here, is gone.",
    "streams-of-revoked-machines": "A stream was ended where its machine was revoked.",
}

Question = wire.Probe | wire.Root | wire.Prove | wire.Leaf


@dataclass(slots=True)
class Dispute:
    """A search for the first difference, asked of the peer at the end of `link`."""

    link: int
    search: Search
    asked_ms: int
    until_ms: int


class Regressed(Event, frozen=True):
    """Our incarnation is over: we were set back, or somebody else writes in our name.

    What is only claimed is not `proven`: anybody can claim.
    """

    stream: StreamName
    why: str
    proven: bool = True


class RolledBack(Event, frozen=True):
    """Streams were cut back; what is never forgotten of the entries beyond their ends."""

    lost: list[Entry]


class Forks:
    """What was frozen, and what is looked into. Replication calls it, and the core at ticks."""

    def __init__(
        self,
        store: Store,
        membership: Membership,
        sync: Sync,
        counters: Counts,
        tell: Callable[[Event], None],
    ) -> None:
        self.store = store
        self.membership = membership
        self.sync = sync
        self.counters = counters
        self._tell = tell
        self._disputes: dict[StreamName, Dispute] = {}
        self._proofs: dict[StreamName, bytes] | None = None
        # The time at which the newest messages came.
        self.now_ms = 0
        # Streams of revoked machines that are still to be ended, in the order of their turns.
        self._to_bury: dict[StreamName, None] = {}

    def closed(self, link: int) -> None:
        for stream, dispute in list(self._disputes.items()):
            if dispute.link == link:
                del self._disputes[stream]

    def is_ours(self, stream: StreamName) -> bool:
        """Whether it is a stream that we write now."""
        return stream == self.membership.own(stream.scope)

    def tell_frozen(self, link: int, stream: StreamName) -> None:
        """The peer does not know yet that the stream ended; here is why."""
        self.counters["beyond-the-end-of-a-frozen-stream"] += 1
        proof = self.proofs().get(stream)
        if proof is not None:
            self.sync.say(link, wire.Offer([], forks=[proof.decode()]))

    # --- looking for the place -----------------------------------------------------------

    def dispute(self, link: int, stream: StreamName, differ: int) -> None:
        """Our tree and a peer's differ at `differ` entries: look for the first difference."""
        if self.is_ours(stream):
            self._tell(Regressed(stream, "a peer holds another branch of our stream"))
        frozen = self.store.log.frozen_at(stream)
        if differ <= 0 or (frozen is not None and frozen < differ):
            return
        old = self._disputes.get(stream)
        if old is not None and self.sync.paths.by_link.get(old.link) is not None:
            return
        now_ms = self.now_ms
        self._disputes[stream] = Dispute(link, Search(0, differ), now_ms, now_ms + DISPUTE_MS)
        self.counters["disputes"] += 1
        self._ask_next(stream)

    def _ask_next(self, stream: StreamName) -> None:
        dispute = self._disputes[stream]
        dispute.asked_ms = self.now_ms
        size = dispute.search.probe()
        if size is None:
            self.sync.say(dispute.link, wire.Prove(str(stream), dispute.search.equal))
        else:
            self.sync.say(dispute.link, wire.Probe(str(stream), size))

    def retry(self, now_ms: int, wall_ms: int) -> None:
        """Ask again what may have been lost; give up what a peer never answers. Call at ticks."""
        self.now_ms = now_ms
        self._bury_some(wall_ms)
        for stream, dispute in list(self._disputes.items()):
            if now_ms >= dispute.until_ms or self.sync.paths.by_link.get(dispute.link) is None:
                del self._disputes[stream]
            elif now_ms - dispute.asked_ms >= RETRY_MS:
                self._ask_next(stream)

    def on_question(self, link: int, message: Question, wall_ms: int) -> None:
        stream = StreamName.parse(message.stream)
        session = self.sync.paths.by_link.get(link)
        if session is None or not self.sync.may_hold(stream, session.peer):
            raise Refused(f"a question about {stream} from a machine that may not hold it")
        dispute = self._disputes.get(stream)
        asked = dispute is not None and dispute.link == link
        match message:
            case wire.Probe(size=size):
                if 0 < size <= self.store.log.size(stream):
                    root = self.store.log.root_at(stream, size)
                    self.sync.say(link, wire.Root(str(stream), size, root.hex()))
                elif self.store.log.frozen_at(stream) is not None:
                    self.tell_frozen(link, stream)
            case wire.Root(size=size, root=root_hex):
                if dispute is not None and asked and 0 < size <= self.store.log.size(stream):
                    same = self.store.log.root_at(stream, size).hex() == root_hex
                    dispute.search.learn(size, same=same)
                    self._ask_next(stream)
            case wire.Prove(index=index):
                branch = self._branch(stream, index)
                if branch is not None:
                    text = forks.encode_branch(branch)
                    self.sync.say(link, wire.Leaf(str(stream), index, text))
                elif self.store.log.frozen_at(stream) is not None:
                    self.tell_frozen(link, stream)
            case wire.Leaf(index=index, branch=text):
                if asked:
                    ours = self._branch(stream, index)
                    del self._disputes[stream]
                    if ours is not None:
                        theirs = forks.decode_branch(text)
                        self.learn(forks.make_fork(stream, index, ours, theirs), wall_ms)

    def _branch(self, stream: StreamName, index: int) -> Branch | None:
        """Our side of a dispute, under the first seal that covers the place.

        Also of a frozen stream, and then from what lies beyond its end as evidence: of three
        branches two may differ earlier than those that were proved first.
        """
        store = self.store
        for seal in store.log.seals(stream):
            if not 0 <= index < seal.size:
                continue
            try:
                if store.log.root_at(stream, seal.size) != seal.root:
                    continue
                proof = store.log.inclusion(stream, index, seal.size)
            except NotFound:
                # A seal ahead of the entries that are here.
                continue
            header = store.log.entry_at(stream, index).raw.decode()
            return Branch(seal.note.decode(), header, [h.hex() for h in proof])
        return None

    def proofs(self) -> dict[StreamName, bytes]:
        """The fork proofs we have; a stream frozen by a revocation has none."""
        if self._proofs is None:
            found = {}
            for raw in self.store.log.forks():
                try:
                    found[forks.stream_of(raw)] = raw
                except Refused:
                    # A stream that a revocation froze has no proof of two histories.
                    continue
            self._proofs = found
        return self._proofs

    def proved(self) -> dict[str, Fork]:
        """The forks that these prove, by name."""
        found = ((str(s), self.store.log.frozen_at(s)) for s in self.proofs())
        forks = [Fork(common, stream) for stream, common in found if common is not None]
        return {name_of(fork): fork for fork in forks}

    def learn(self, raw: bytes, wall_ms: int) -> None:
        """A fork proof: freeze, roll back to the common prefix, spread. Raises: Refused.

        Of several proofs the one with the earliest difference counts, so that everybody's stream
        ends at the same entry. Who has not come so far freezes all the same, and fills up to it.
        """
        stream = forks.stream_of(raw)
        public = self.membership.key_of(stream.machine, "seal")
        frozen = self.store.log.frozen_at(stream)
        if public is None or (frozen is not None and self.proofs().get(stream) == raw):
            return
        if self.is_nothing(stream) or not self.store.log.has_place(stream):
            return
        proof = forks.open_fork(raw, self.membership.fleet, public)
        if frozen is not None and frozen <= proof.index:
            return
        self.counters["forks"] += 1
        lost = self._end(stream, proof.index, raw, wall_ms)
        self._proofs = None
        self._tell(RolledBack(lost))
        self.membership.changed()
        self.sync.spread_fork(raw)

    def _end(self, stream: StreamName, common: int, evidence: bytes, wall_ms: int) -> list[Entry]:
        """Freeze it; what is to be said again, once all that ends in this step has ended."""
        self.store.freeze(stream, common, evidence, wall_ms)
        # Before anybody hears of it: what is written in answer must not meet a frozen stream.
        if self.is_ours(stream):
            self._tell(Regressed(stream, "our stream has two branches"))
        self._disputes.pop(stream, None)
        self.sync.cut_back(stream, common)
        return self._lasting_beyond(stream, common)

    def start(self) -> None:
        """Say again what a crash may have kept us from saying; call it before any `step`."""
        for stream in self.store.log.streams():
            common = self.store.log.frozen_at(stream)
            if common is not None:
                self._tell(RolledBack(self._lasting_beyond(stream, common)))
        self.membership.stale()

    def _lasting_beyond(self, stream: StreamName, common: int) -> list[Entry]:
        """What is never forgotten of the entries after the end of a frozen stream."""
        lost = self.store.log.entries_of(stream, common, KINDS)
        self.membership.left_out(stream, removals(lost))
        return lost

    # --- revoked machines ----------------------------------------------------------------

    def is_nothing(self, stream: StreamName) -> bool:
        """Whether nothing of a stream is here, and nothing of it will count: it gets no row."""
        if self.store.log.knows(stream) or stream.machine == self.membership.machine:
            return False
        return self.membership.roster.cut(stream) == 0

    def end_of(self, stream: StreamName) -> int | None:
        """Where a stream ends; None while it lives. A revoked machine's is frozen there soon."""
        frozen = self.store.log.frozen_at(stream)
        cut = self.membership.roster.cut(stream)
        ours = stream.machine == self.membership.machine
        if cut is None or ours or (frozen is not None and frozen <= cut):
            return frozen
        self._to_bury[stream] = None
        return cut

    def _bury(self, stream: StreamName, wall_ms: int, lost: list[Entry]) -> int:
        """End it; how many entries that costs. `lost` gets what is to be said again."""
        cut = self.membership.roster.cut(stream)
        if cut is None:
            # Whoever told of the revocation was cut back; it is said again, and so is this.
            return 0
        size = self.store.log.size(stream)
        # To undo a part costs what the whole stream wrote.
        cost = size if cut < size else 0
        if cut == 0 and self.store.drop(stream):
            # It was seen, or said to be there, and no entry of it ever was here.
            self.sync.forget(stream)
            self.counters["streams-forgotten"] += 1
            return 0
        frozen = self.store.log.frozen_at(stream)
        if frozen is None or frozen > cut:
            # The revocation itself is an entry of whoever wrote it; this only points there.
            evidence = canon.encode({"cut": cut, "revoked": stream.machine})
            lost += self._end(stream, cut, evidence, wall_ms)
            if self._proofs is not None:
                self._proofs.pop(stream, None)
            self.counters["streams-of-revoked-machines"] += 1
        return cost

    def end_streams_of(self, machine: MachineId, wall_ms: int) -> None:
        """A machine was revoked: end every stream of it that we know.

        It may have opened thousands to make this dear: so many are ended now, the rest at ticks,
        and the roster is combined anew when all of them have ended.
        """
        for stream in self.store.log.streams():
            if stream.machine == machine:
                self.end_of(stream)
        self._bury_some(wall_ms)

    def _bury_some(self, wall_ms: int) -> None:
        if not self._to_bury:
            return
        room = BURIED_PER_STEP_MAX
        lost: list[Entry] = []
        while self._to_bury and room > 0:
            stream = next(iter(self._to_bury))
            del self._to_bury[stream]
            room -= 1 + self._bury(stream, wall_ms, lost) // BURIED_ENTRIES_AS_STREAM
        self._tell(RolledBack(lost))
        if not self._to_bury:
            self.membership.changed()
