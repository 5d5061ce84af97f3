"""What two machines compare at the refresh: two real syncs over drawn replicas, without any store."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tests.log.drawn import SECRET, Held, head
from tests.log.material import BUILD, STREAM, STUDIO, stream
from tests.promise import proves

from muster.errors import Malformed
from muster.limits import OFFER_HEADS_MAX
from muster.log import wire
from muster.log.keys import Signer
from muster.log.refresh import DEPTH_MAX, FEW, LOOKED_INTO_MAX, PARTS, REFRESH_MS, WITNESSED_TURN
from muster.log.session import RETRY_MS
from muster.log.stream import FLEET, MachineId, scope_to
from muster.log.sync import Sync

ATTIC = MachineId(Signer(b"attic".ljust(32)).public.hex())
STREAMS = [
    stream(FLEET, MachineId(Signer(bytes([number + 1]) * 32).public.hex())) for number in range(120)
]
LINK = 1


class Here(Held):
    """Of some streams another branch is here; roots are told by the name alone, which is quick."""

    def __init__(self) -> None:
        super().__init__()
        self.other: set = set()
        self.told: dict = {}

    def root_at(self, name, size):
        return f"{size}{name in self.other}".encode().ljust(32)

    def seal_of(self, name):
        return super().seal_of(name) if name.scope != FLEET else None

    def latest_seal(self, name):
        return self.seal_of(name)

    def has_place(self, name):
        return True


def may_hold(name, machine):
    target = name.scope.removeprefix("to.")
    return name.scope == FLEET or machine in (name.machine, target)


class Two:
    """Studio and Build, each of whom knows that the other compares."""

    def __init__(self, *, compares: bool = True) -> None:
        self.now = 0
        self.here = {STUDIO: Here(), BUILD: Here()}
        self.syncs = {who: Sync(who, held, may_hold) for who, held in self.here.items()}
        # Every message since it was last forgotten: who said it, and what.
        self.said: list[tuple[MachineId, wire.Message]] = []
        self.compares = compares

    def hold(self, who, sizes) -> None:
        """What is here from now on, of which nobody is told."""
        self.here[who].sizes.update(sizes)

    def begin(self) -> None:
        for who, peer in ((STUDIO, BUILD), (BUILD, STUDIO)):
            self.syncs[who].open(LINK, peer, self.now)
            self.syncs[who].paths.by_link[LINK].compares = self.compares
        self.talk()
        self.said.clear()

    def talk(self) -> None:
        """Until nobody says anything; wants stay unanswered, for nothing grows here by itself."""
        while any(sync.outbox for sync in self.syncs.values()):
            for who, peer in ((STUDIO, BUILD), (BUILD, STUDIO)):
                out, self.syncs[who].outbox = self.syncs[who].outbox, []
                for each in out:
                    if not each.bulk:
                        message = wire.decode(each.raw)
                        self.said.append((who, message))
                        self.hear(peer, message)

    def hear(self, who, message) -> None:
        sync = self.syncs[who]
        match message:
            case wire.Offer():
                sync.on_offer(LINK, message, self.now)
            case wire.Roots():
                sync.refresh.on_roots(LINK, message, self.now)
            case wire.Differ():
                sync.refresh.on_differ(LINK, message, self.now)

    def wait(self, ms=REFRESH_MS) -> None:
        self.now += ms
        for sync in self.syncs.values():
            sync.tick(self.now)
        self.talk()

    def told(self, who) -> dict[str, int]:
        """The heads that a machine told."""
        offers = [said for by, said in self.said if by == who and isinstance(said, wire.Offer)]
        return {each.stream: each.size for offer in offers for each in offer.heads}


@proves("log.sync-compares")
def test_of_what_is_equal_one_word_a_minute_is_said_by_one_of_the_two():
    two = Two()
    for who in (STUDIO, BUILD):
        two.hold(who, dict.fromkeys(STREAMS, 3))
    two.begin()
    two.wait()
    two.said.clear()
    for _ in range(5):
        two.wait()
    assert [(who, type(said)) for who, said in two.said] == [(min(STUDIO, BUILD), wire.Roots)] * 5
    assert all(len(wire.encode(said)) < 120 for _, said in two.said)


@proves("log.sync-compares")
def test_where_the_one_that_tells_is_silent_the_other_one_does():
    two = Two()
    two.begin()
    two.wait()
    two.said.clear()
    _, other = sorted((STUDIO, BUILD))
    two.now += 3 * REFRESH_MS
    two.syncs[other].tick(two.now)
    two.talk()
    assert other in {who for who, said in two.said if isinstance(said, wire.Roots)}


@proves("log.sync-compares")
@settings(max_examples=60, deadline=None)
@given(st.data())
def test_whatever_differs_is_found_and_little_else_is_told(data):
    two = Two()
    common = data.draw(st.sets(st.sampled_from(STREAMS)), label="held by both")
    for who in (STUDIO, BUILD):
        two.hold(who, dict.fromkeys(common, 2))
    two.begin()
    differ = data.draw(st.sets(st.sampled_from(STREAMS), max_size=6), label="not the same any more")
    for name in sorted(differ, key=str):
        kind = data.draw(st.sampled_from(("more", "less", "branch")), label=str(name)[:8])
        if kind == "branch" and name in common:
            two.here[BUILD].other.add(name)
        else:
            two.hold({"less": BUILD}.get(kind, STUDIO), {name: 3})
    changed = {
        str(name)
        for name in differ
        if two.here[STUDIO].size(name) != two.here[BUILD].size(name)
        or name in two.here[BUILD].other
    }
    two.wait()
    two.wait()
    for who in (STUDIO, BUILD):
        held = {str(n) for n in STREAMS if str(n) in changed and two.here[who].size(n)}
        assert held <= set(two.told(who)), "each head that differs is told by whoever has one"
        assert len(set(two.told(who)) - changed) <= FEW * max(1, len(changed)) * 2
    roots = [said for _, said in two.said if isinstance(said, wire.Roots)]
    assert len(roots) <= 2 * 2 * (1 + (DEPTH_MAX + 1) * len(differ))


@proves("log.sync-compares")
def test_who_lacks_all_is_told_all_within_a_few_refreshes():
    two = Two()
    two.begin()
    two.hold(STUDIO, dict.fromkeys(STREAMS, 1))
    two.wait()
    two.wait()
    assert set(two.told(STUDIO)) == {str(name) for name in STREAMS}


@proves("log.sync-compares")
def test_what_one_may_not_hold_is_in_no_sum():
    two = Two()
    two.hold(STUDIO, {stream(scope_to(ATTIC)): 4})
    two.hold(BUILD, {SECRET: 0})
    two.begin()
    two.wait()
    two.said.clear()
    two.wait()
    assert {type(said) for _, said in two.said} == {wire.Roots}


@proves("log.sync-compares", "log.sync-tells-writers")
def test_a_writer_is_told_once_of_news_about_itself_that_it_did_not_tell_and_again_in_turn():
    two = Two()
    secret = stream(scope_to(ATTIC))
    two.hold(BUILD, {secret: 2})
    two.begin()
    assert not _rounds(two, 2)
    # Somebody else shows Build more of Studio's own stream.
    two.hold(BUILD, {secret: 5})
    assert _rounds(two, 2)[str(secret)] == 5
    assert not _rounds(two, 2)
    assert _rounds(two, WITNESSED_TURN)[str(secret)] == 5


def _rounds(two, count):
    """What Build tells in so many refreshes."""
    two.said.clear()
    for _ in range(count):
        two.wait()
    return two.told(BUILD)


@proves("log.sync-compares")
def test_with_an_older_machine_heads_are_told_and_no_sums():
    two = Two(compares=False)
    for who in (STUDIO, BUILD):
        two.hold(who, dict.fromkeys(STREAMS[:6], 3))
    two.begin()
    two.wait()
    assert {type(said) for _, said in two.said} == {wire.Offer}
    assert set(two.told(BUILD)) == {str(name) for name in STREAMS[:6]}


@proves("log.sync-compares", "log.sync-bounded")
def test_sums_without_sense_are_refused_and_many_of_them_looked_into_no_further():
    two = Two()
    two.hold(STUDIO, dict.fromkeys(STREAMS, 1))
    two.begin()
    refresh, wrong = two.syncs[STUDIO].refresh, "f" * 64
    for part, sums in (
        ("g", [wrong]), ("0" * (DEPTH_MAX + 1), [wrong]), ("", []), ("", [wrong] * 17),
        ("", ["f" * 63]), ("", ["F" * 64]), ("0" * DEPTH_MAX, [wrong] * 16), ("", ["ü" * 64]),
    ):  # fmt: skip
        with pytest.raises(Malformed):
            refresh.on_roots(LINK, wire.Roots(part, sums), two.now)
    with pytest.raises(Malformed):
        refresh.on_differ(LINK, wire.Differ([""] * (len(PARTS) + 1)), two.now)
    with pytest.raises(Malformed):
        refresh.on_differ(LINK, wire.Differ(["x"]), two.now)
    two.syncs[STUDIO].outbox.clear()
    for _ in range(1000):
        refresh.on_roots(LINK, wire.Roots("", [wrong] * 16), two.now)
        refresh.on_differ(LINK, wire.Differ([""]), two.now)
    heads = [m for m in map(_decoded, two.syncs[STUDIO].outbox) if isinstance(m, wire.Offer)]
    assert sum(len(each.heads) for each in heads) <= LOOKED_INTO_MAX + OFFER_HEADS_MAX


def _decoded(out):
    return wire.decode(out.raw)


@proves("log.sync-compares", "log.sync-total")
def test_sums_over_a_link_that_is_gone_or_before_the_greeting_change_nothing():
    two = Two()
    sync = two.syncs[STUDIO]
    sync.refresh.on_roots(99, wire.Roots("", ["f" * 64]), 0)
    sync.refresh.on_differ(99, wire.Differ([""]), 0)
    sync.open(LINK, BUILD, 0)
    sync.outbox.clear()
    sync.refresh.on_roots(LINK, wire.Roots("", ["f" * 64]), 0)
    sync.refresh.on_differ(LINK, wire.Differ([""]), 0)
    assert sync.outbox == []


@proves("log.sync-compares", "log.sync-cut-back")
def test_a_stream_that_was_cut_back_is_summed_anew():
    two = Two()
    for who in (STUDIO, BUILD):
        two.hold(who, {STREAM: 3, STREAMS[0]: 2})
    two.begin()
    two.wait()
    for who, size in ((STUDIO, 1), (BUILD, 1)):
        two.hold(who, {STREAM: size})
        two.syncs[who].cut_back(STREAM, size)
    two.wait(RETRY_MS)
    two.said.clear()
    two.wait(2 * REFRESH_MS)
    assert head(STREAM, 1).stream not in two.told(BUILD)
    two.syncs[BUILD].forget(STREAMS[0])
    del two.here[BUILD].sizes[STREAMS[0]]
    two.said.clear()
    two.wait(2 * REFRESH_MS)
    assert two.told(STUDIO)[str(STREAMS[0])] == 2
