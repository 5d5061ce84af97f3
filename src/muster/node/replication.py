"""Streams in and out: what the core does with offers, segments, cosigns and forks.

Rule 1: a cosign is stored in the transaction that makes it true, and given only after its commit.
Rule 2: what is refused still moves on: a bad segment is counted by name, never asked for again
from the same link at once, and never stops another stream.
Rule 3: our own stream is written by us alone. A peer that holds more of it than we do proves that
this machine was set back; a peer that holds another branch proves a clone. Both end the incarnation.
"""

from collections import Counter
from collections.abc import Callable
from typing import NamedTuple

from muster.errors import Forged, MusterError, Refused
from muster.limits import LINK_FAULTS_MAX
from muster.log import fork as forks
from muster.log import segment as segments
from muster.log import seal as seals
from muster.log import tree, wire
from muster.log.admit import Diverged, Gap, Nothing, Taken, admit
from muster.log.entry import Entry
from muster.log.fork import Branch, Search
from muster.log.seal import Cosign, Seal
from muster.log.stream import FleetId, MachineId, StreamName
from muster.log.sync import Sync
from muster.node.standing import Standing
from muster.store.store import Store


class Awaited(NamedTuple):
    """Somebody waits until these machines hold so much of a stream."""

    size: int
    machines: set[MachineId]
    then: Callable[[], None]


class Replication:
    """Between the links and the store. The core calls it inside its transaction."""

    def __init__(
        self,
        store: Store,
        standing: Standing,
        sync: Sync,
        on_entries: Callable[[StreamName, tuple[Entry, ...]], None],
        on_regressed: Callable[[StreamName, str], None],
    ) -> None:
        self.store = store
        self.standing = standing
        self.sync = sync
        self.counters: Counter[str] = Counter()
        self._on_entries = on_entries
        self._on_regressed = on_regressed
        self._touched: dict[StreamName, set[int]] = {}
        self._search: dict[StreamName, tuple[int, Search]] = {}
        self._faults: Counter[int] = Counter()
        self._awaited: dict[StreamName, list[Awaited]] = {}
        # Forks proved beyond what we hold: (common size, proof).
        self._pending: dict[StreamName, tuple[int, bytes]] = {}

    @property
    def _fleet(self) -> FleetId:
        return self.standing.fleet

    # --- messages --------------------------------------------------------------------

    def on_message(self, link: int, raw: bytes, now_ms: int, wall_ms: int) -> None:
        """One sync message. Raises: Refused (count it; cut the link when it happens too often)."""
        message = wire.decode(raw)
        match message:
            case wire.Offer():
                self._on_offer(link, message, now_ms, wall_ms)
            case wire.Want():
                self.sync.on_want(link, message, now_ms)
            case wire.Witnessed():
                self.sync.on_witnessed(link, message, now_ms)
            case wire.Cosigns():
                for note in message.notes:
                    self._on_cosign(link, note.encode())
            case wire.Probe() | wire.Root() | wire.Prove() | wire.Leaf():
                self._on_dispute(link, message, wall_ms)

    def fault(self, link: int, error: MusterError) -> bool:
        """Count a refusal; True when the link has brought too many and should be cut."""
        self.counters[f"refused-{type(error).__name__.lower()}"] += 1
        self._faults[link] += 1
        return self._faults[link] > LINK_FAULTS_MAX

    def closed(self, link: int) -> None:
        self._faults.pop(link, None)
        for stream, (at, _) in list(self._search.items()):
            if at == link:
                del self._search[stream]

    def _on_offer(self, link: int, offer: wire.Offer, now_ms: int, wall_ms: int) -> None:
        for raw in offer.forks:
            self.learn_fork(raw.encode(), wall_ms)
        for head in offer.heads:
            stream = wire.stream_of(head.stream)
            if self.sync.regressed(stream, head.size) and stream == self.standing.own(stream.scope):
                seal = self._open(head.seal.encode())
                if seal is not None and seal.size > self.store.size(stream):
                    self._on_regressed(stream, "a peer holds more of our stream than we do")
        for head in self.sync.on_offer(link, offer, now_ms):
            stream = wire.stream_of(head.stream)
            if self.sync.may_hold(stream, self.standing.machine):
                self._compare(link, stream, head)
            else:
                self._witness(link, stream, head, wall_ms)

    def _open(self, note: bytes) -> Seal | None:
        """The seal, checked; None when the machine is not (yet) known here."""
        stream = seals.peek_stream(note)
        public = self.standing.key_of(stream.machine, "seal")
        return None if public is None else seals.open_seal(note, self._fleet, public)

    def _compare(self, link: int, stream: StreamName, head: wire.Head) -> None:
        """A peer's seal for a stream of which we hold at least as much: is it our history?"""
        mine = self.store.seal_of(stream)
        if mine is not None and mine.note == head.seal.encode():
            held = self._held(stream)
            if held is not None:
                self.sync.answer_cosign(link, stream, "held", held.size, held.note)
            return
        seal = self._open(head.seal.encode())
        if seal is None or seal.stream != stream:
            return
        if seal.size > self.store.size(stream):
            return
        if self.store.root_at(stream, seal.size) != seal.root:
            self._dispute(link, stream, min(seal.size, self.store.size(stream)))
            return
        held = self._held(stream)
        if held is not None and held.size >= seal.size:
            self.sync.answer_cosign(link, stream, "held", held.size, held.note)

    def _held(self, stream: StreamName) -> Cosign | None:
        """Our own receipt for a stream, the newest."""
        for cosign in self.store.cosigns(stream):
            if cosign.machine == self.standing.machine and cosign.strength == "held":
                return cosign
        return None

    def _witness(self, link: int, stream: StreamName, head: wire.Head, wall_ms: int) -> None:
        """A stream we may not hold: check that its seal follows what we saw, then say so."""
        seal = self._open(head.seal.encode())
        if seal is None or seal.stream != stream:
            return
        seen = self.store.latest_seal(stream)
        size, root = (seen.size, seen.root) if seen is not None else (0, tree.EMPTY_ROOT)
        if seal.size < size:
            return
        if seal.size > size or seal.root != root:
            if head.since != size:
                self.sync.say(link, wire.Witnessed(str(stream), size))
                return
            path = [bytes.fromhex(h) for h in head.proof]
            if size and not tree.verify_consistency(size, seal.size, root, seal.root, path):
                self.counters["seal-contradicts-what-was-seen"] += 1
                raise Forged(f"the seal of {stream} contradicts the one this machine has seen")
            self.store.put_seal(seal)
        cosign = self._make_cosign("seen", seal.stream, seal.size, seal.root, wall_ms)
        self.sync.answer_cosign(link, stream, "seen", seal.size, cosign.note)
        self.sync.cosigned(stream, self.standing.machine, "seen", seal.size, cosign.note)

    def _on_cosign(self, link: int, note: bytes) -> None:
        by = seals.peek_cosigner(note)
        seen, held = self.standing.key_of(by, "seen"), self.standing.key_of(by, "held")
        if seen is None or held is None:
            self.counters["cosign-of-unknown-machine"] += 1
            return
        cosign = seals.open_cosign_by(note, self._fleet, seen=seen, held=held)
        if cosign.size <= self.store.size(cosign.stream):
            if self.store.root_at(cosign.stream, cosign.size) != cosign.root:
                self.counters["cosign-of-another-branch"] += 1
                return
        elif cosign.stream == self.standing.own(cosign.stream.scope):
            self._on_regressed(cosign.stream, "a peer vouches for more of our stream than we hold")
            return
        self.sync.on_cosign(link, cosign.stream, by, cosign.strength == "held", cosign.size)
        if self.store.put_cosign(cosign):
            self._settle_awaited(cosign)
            self.sync.cosigned(cosign.stream, by, cosign.strength, cosign.size, note)

    def when_held(
        self, stream: StreamName, size: int, machines: set[MachineId], then: Callable[[], None]
    ) -> None:
        """Call `then` once, when all of `machines` have receipted `size` entries of `stream`."""
        for cosign in self.store.cosigns(stream):
            if cosign.strength == "held" and cosign.size >= size:
                machines.discard(cosign.machine)
        if machines:
            self._awaited.setdefault(stream, []).append(Awaited(size, machines, then))
        else:
            then()

    def _settle_awaited(self, cosign: Cosign) -> None:
        waiting = self._awaited.get(cosign.stream)
        if not waiting or cosign.strength != "held":
            return
        left = []
        for each in waiting:
            if each.size <= cosign.size:
                each.machines.discard(cosign.machine)
            if each.machines:
                left.append(each)
            else:
                each.then()
        if left:
            self._awaited[cosign.stream] = left
        else:
            del self._awaited[cosign.stream]

    def _make_cosign(
        self, strength: seals.Strength, stream: StreamName, size: int, root: bytes, wall_ms: int
    ) -> Cosign:
        cosign = seals.make_cosign(
            self._fleet,
            stream,
            size,
            root,
            self.standing.machine,
            strength,
            self.standing.signer(strength),
            max(0, wall_ms // 1000),
        )
        self.store.put_cosign(cosign)
        return cosign

    # --- segments --------------------------------------------------------------------

    def on_segment(self, link: int, raw: bytes, now_ms: int, wall_ms: int) -> None:
        """Entries of somebody's stream. Raises: Refused."""
        segment = segments.decode(raw)
        stream = segment.stream
        if not self.sync.may_hold(stream, self.standing.machine):
            raise Refused(f"a segment of {stream} came here, which may not hold it")
        if stream == self.standing.own(stream.scope):
            self._own_segment(stream, segment)
            return
        public = self._key_for(segment)
        pending = self._pending.get(stream)
        outcome = admit(
            self.store.state(stream), segment, self._fleet, public, self.store.tree(stream)
        )
        if isinstance(outcome, Taken) and pending is not None and outcome.end > pending[0]:
            outcome = self._up_to(outcome, pending[0])
        match outcome:
            case Taken():
                self._take(link, outcome, wall_ms)
            case Nothing():
                self._again(link, stream)
            case Gap():
                self.sync.gap(link, stream, now_ms)
            case Diverged():
                self._dispute(link, stream, min(outcome.seal.size, self.store.size(stream)))

    def _key_for(self, segment: segments.Segment) -> bytes:
        """The writer's seal key, from the roster, or from the record in its very first entry."""
        public = self.standing.key_of(segment.stream.machine, "seal")
        if public is None and segment.start == 0 and segment.entries:
            public = self.standing.introduced(segment.stream, segment.entries[0])
        if public is None:
            raise Refused(f"the machine of {segment.stream} is not known here yet")
        return public

    def _up_to(self, taken: Taken, common: int) -> Taken:
        """Of a forked stream only the part before the fork counts."""
        entries = taken.entries[: common - taken.start]
        after = self.store.state(taken.stream).range
        for entry in entries:
            after.append(entry.id)
        return Taken(taken.stream, taken.start, entries, after, taken.seal, taken.proof)

    def _take(self, link: int, taken: Taken, wall_ms: int) -> None:
        if taken.entries:
            self.store.take(taken, wall_ms)
            self._touched.setdefault(taken.stream, set()).add(link)
            self.sync.took(link, taken.stream, taken.end)
            self.counters["entries-taken"] += len(taken.entries)
            self._on_entries(taken.stream, taken.entries)
        pending = self._pending.get(taken.stream)
        if pending is not None and taken.end >= pending[0]:
            self.learn_fork(pending[1], wall_ms)

    def _again(self, link: int, stream: StreamName) -> None:
        """All of it is here already: the receipt was lost, give it again."""
        held = self._held(stream)
        if held is not None:
            self.sync.answer_cosign(link, stream, "held", held.size, held.note)

    def _own_segment(self, stream: StreamName, segment: segments.Segment) -> None:
        """Our own words come back. More than we know: we were set back. Else: nothing new."""
        seal = self._open(segment.note)
        if seal is not None and seal.size > self.store.size(stream):
            self._on_regressed(stream, "our own stream came back longer than we know it")

    def receipts(self, wall_ms: int) -> None:
        """One *held* cosign per stream that grew in this transaction; call before its commit."""
        for stream, links in self._touched.items():
            size = self.store.size(stream)
            root = self.store.root_at(stream, size)
            cosign = self._make_cosign("held", stream, size, root, wall_ms)
            for link in links:
                self.sync.answer_cosign(link, stream, "held", size, cosign.note)
            self.sync.cosigned(stream, self.standing.machine, "held", size, cosign.note)
        self._touched.clear()

    # --- forks -------------------------------------------------------------------------

    def _dispute(self, link: int, stream: StreamName, differ: int) -> None:
        """Our tree and a peer's differ at `differ` entries: look for the first difference."""
        if stream == self.standing.own(stream.scope):
            self._on_regressed(stream, "a peer holds another branch of our stream")
        if self.store.frozen_at(stream) is not None or differ <= 0:
            return
        old = self._search.get(stream)
        if old is not None and old[0] in self.sync.sessions:
            return
        self._search[stream] = (link, Search(0, differ))
        self.counters["disputes"] += 1
        self._ask_next(stream)

    def _ask_next(self, stream: StreamName) -> None:
        link, search = self._search[stream]
        size = search.probe()
        if size is None:
            self.sync.say(link, wire.Prove(str(stream), search.equal))
        else:
            self.sync.say(link, wire.Probe(str(stream), size))

    def retry_disputes(self) -> None:
        """A lost question is asked again; call now and then."""
        for stream in list(self._search):
            self._ask_next(stream)

    def _on_dispute(
        self, link: int, message: wire.Probe | wire.Root | wire.Prove | wire.Leaf, wall_ms: int
    ) -> None:
        stream = wire.stream_of(message.stream)
        session = self.sync.sessions.get(link)
        if session is None or not self.sync.may_hold(stream, session.peer):
            raise Refused(f"a question about {stream} from a machine that may not hold it")
        match message:
            case wire.Probe(size=size):
                if 0 < size <= self.store.size(stream):
                    root = self.store.root_at(stream, size)
                    self.sync.say(link, wire.Root(str(stream), size, root.hex()))
            case wire.Root(size=size, root=root_hex):
                found = self._search.get(stream)
                if found is not None and found[0] == link and size <= self.store.size(stream):
                    same = self.store.root_at(stream, size).hex() == root_hex
                    found[1].learn(size, same=same)
                    self._ask_next(stream)
            case wire.Prove(index=index):
                branch = self._branch(stream, index)
                if branch is not None:
                    self.sync.say(
                        link, wire.Leaf(str(stream), index, forks.encode_branch(branch))
                    )
            case wire.Leaf(index=index, branch=text):
                self._on_leaf(stream, index, text, wall_ms)

    def _on_leaf(self, stream: StreamName, index: int, text: str, wall_ms: int) -> None:
        ours = self._branch(stream, index)
        self._search.pop(stream, None)
        if ours is None:
            return
        self.learn_fork(
            forks.make_fork(stream, index, ours, forks.decode_branch(text)), wall_ms
        )

    def _branch(self, stream: StreamName, index: int) -> Branch | None:
        """Our side of a dispute, under the latest seal that our tree reaches."""
        seal = self.store.seal_of(stream)
        if seal is None or not index < seal.size <= self.store.size(stream):
            return None
        entries = self.store.slice(stream, index, 1)
        proof = tree.inclusion_proof(self.store.tree(stream), index, seal.size)
        header = entries[0].raw.decode()
        return Branch(seal.note.decode(), header, [h.hex() for h in proof])

    def learn_fork(self, raw: bytes, wall_ms: int) -> None:
        """A fork proof: freeze, roll back to the common prefix, spread. Raises: Refused.

        A replica that has not come as far as the fork takes entries up to it first, so that
        everybody's frozen stream ends at the same place.
        """
        stream = forks.stream_of(raw)
        if self.store.frozen_at(stream) is not None:
            return
        public = self.standing.key_of(stream.machine, "seal")
        if public is None:
            return
        proof = forks.open_fork(raw, self._fleet, public)
        if stream not in self._pending:
            self.counters["forks"] += 1
            self.sync.spread_fork(raw)
        self._search.pop(stream, None)
        if self.store.size(stream) < proof.index and self.sync.may_hold(
            stream, self.standing.machine
        ):
            self._pending[stream] = (proof.index, raw)
        else:
            self._pending.pop(stream, None)
            self.store.freeze(stream, proof.index, raw, wall_ms)
            self.standing.changed()
        if stream == self.standing.own(stream.scope):
            self._on_regressed(stream, "our stream has two branches")
