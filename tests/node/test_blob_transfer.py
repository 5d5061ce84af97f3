"""Blobs between machines: under the entry that names them, to who may read it, whole or not at all."""

import asyncio
import random

import pytest
from msgspec.structs import replace
from tests.node.desks import Desk, desks
from tests.promise import proves

from muster.channel.frame import Type
from muster.errors import Denied, Forged, Malformed, NotFound, Unreachable
from muster.limits import STREAM_WINDOW_BYTES
from muster.log.stream import JOURNAL, scope_group, scope_to
from muster.node.attempts import blob_transfer as holder
from muster.node.attempts.blob_transfer import Source

DATA = random.Random(1).randbytes(3_000_001)
STAR = (("hub", "studio"), ("hub", "laptop"))


@pytest.fixture
def three(tmp_path):
    """Hub, studio and laptop; studio and laptop have a link to the hub only."""
    return desks(tmp_path, "hub", "studio", "laptop", links=STAR)


def bring(desk: Desk, source: Source) -> None:
    asyncio.run(desk.bring(source))


def denied(server: Desk, entry, sha256: str, peer: Desk) -> None:
    before, sent = server.core.counters["blob-denied"], len(server.sent)
    with pytest.raises(Denied, match="no entry that you may read"):
        asyncio.run(server.serve_to(server.ask_for(entry, sha256, peer)))
    assert (len(server.sent), server.core.counters["blob-denied"]) == (sent, before + 1)


@proves("node.blob-transfer")
def test_a_blob_comes_whole_over_a_link_and_is_not_fetched_twice(three):
    hub, studio, _ = three
    source = studio.deliver(DATA)
    bring(hub, source)
    assert hub.blobs.get(source.artefact.sha256) == DATA
    frames = len(studio.sent)
    bring(hub, source)
    assert len(studio.sent) == frames


@proves("node.blob-relay")
def test_a_blob_comes_through_the_hub_where_there_is_no_direct_link(three):
    hub, studio, laptop = three
    source = studio.deliver(DATA)
    bring(laptop, source)
    assert laptop.blobs.get(source.artefact.sha256) == DATA
    assert hub.files() == []
    assert [d.open for d in three] == [[], [], []]


@proves("node.blob-transfer")
def test_what_is_under_way_is_bounded_by_the_window(three):
    hub, studio, _ = three
    source, ahead, most = studio.deliver(DATA), 0, 0

    def count(type_, payload):
        nonlocal ahead, most
        ahead += len(payload) if type_ is Type.DATA else 0
        most = max(most, ahead)
        return payload

    def give_back(type_, payload):
        nonlocal ahead
        ahead -= int.from_bytes(payload, "big") if type_ is Type.CREDIT else 0
        return payload

    studio.spoil, hub.spoil = count, give_back
    bring(hub, source)
    assert 0 < most <= STREAM_WINDOW_BYTES


@proves("node.blob-relay")
def test_a_whole_window_may_be_here_before_its_announcement(three):
    _, studio, laptop = three
    source, answer = studio.deliver(DATA), studio.answer

    def late(call, value, *, last=True):
        asyncio.get_running_loop().call_later(0.05, answer, call, value)

    studio.answer = late
    bring(laptop, source)
    assert laptop.blobs.get(source.artefact.sha256) == DATA


@proves("node.blob-relay")
def test_bytes_before_their_announcement_do_not_pile_up_at_the_hub(three):
    hub, studio, laptop = three
    source = studio.deliver(DATA)

    async def flood(call, stream):
        for _ in range(100):
            studio.put(call.link, Type.DATA, call.channel, bytes(64 * 1024))
            await asyncio.sleep(0)
        stream.accept()

    studio.handle = flood
    with pytest.raises(Unreachable):
        bring(laptop, source)
    assert (sum(len(raw) for type_, raw in hub.sent if type_ is Type.DATA), laptop.files()) == (
        0,
        [],
    )


@proves("node.blob-other-holder")
def test_another_machine_that_fetched_it_serves_it_when_its_author_is_away(tmp_path):
    hub, studio, laptop = desks(tmp_path, "hub", "studio", "laptop", links=STAR)
    source = studio.deliver(DATA)
    bring(hub, source)
    hub.one.world.cut("studio")
    bring(laptop, source)
    assert laptop.blobs.get(source.artefact.sha256) == DATA


@proves("node.blob-other-holder")
def test_whoever_sends_a_byte_now_and_then_is_given_up_for_another_one(tmp_path, monkeypatch):
    """It is never silent, so nothing ended it: it had a place in the queue for ever."""
    monkeypatch.setattr(holder, "SILENCE_S", 0.3)
    monkeypatch.setattr(holder, "SLOWEST_BYTES_S", 1 << 30)
    links = (*STAR, ("studio", "laptop"))
    hub, studio, laptop = desks(tmp_path, "hub", "studio", "laptop", links=links)
    source = studio.deliver(DATA)
    bring(hub, source)
    sent = 0

    async def drip(_call, stream):
        nonlocal sent
        stream.accept()
        for _ in range(1_000):
            await stream.send(b"x")
            sent += 1
            await asyncio.sleep(0.02)

    studio.handle = drip
    bring(laptop, source)
    assert laptop.blobs.get(source.artefact.sha256) == DATA
    assert 0 < sent < 1_000
    assert [d.open for d in (hub, laptop)] == [[], []]


@proves("node.blob-other-holder")
def test_a_blob_that_nobody_with_a_link_has_is_to_be_waited_for(three):
    hub, studio, laptop = three
    source = studio.deliver(DATA)
    hub.one.world.cut("studio")
    with pytest.raises(Unreachable, match=r"data\.bin is on studio"):
        bring(laptop, source)
    assert laptop.files() == []


# --- a hash is not a capability -----------------------------------------------------------------


@proves("node.blob-hash-is-no-capability")
def test_an_entry_that_the_asking_machine_may_not_read_gives_it_no_blob(three):
    hub, studio, laptop = three
    source = studio.deliver(DATA, scope=scope_to(hub.core.machine))
    denied(studio, source.entry, source.artefact.sha256, laptop)
    bring(hub, source)
    assert hub.blobs.has(source.artefact.sha256)
    denied(hub, source.entry, source.artefact.sha256, laptop)


@proves("node.blob-hash-is-no-capability")
def test_who_joined_a_thread_from_now_on_gets_no_blob_of_before(three):
    _, studio, laptop = three
    scope = scope_group(studio.core.machine, "plans")

    def change(**args):
        answer = studio.one.order("thread", "plans", {"name": "plans", **args})
        assert answer["ok"], answer
        studio.one.world.pass_ms(1_000)

    change(add=["hub"])
    before = studio.deliver(b"of before", scope=scope)
    change(add=["laptop"], fresh=True)
    denied(studio, before.entry, before.artefact.sha256, laptop)
    later = studio.deliver(b"of later", "cd" * 16, scope=scope)
    bring(laptop, later)
    assert laptop.blobs.has(later.artefact.sha256)


@proves("node.blob-hash-is-no-capability")
def test_an_entry_that_names_another_blob_or_none_gives_no_blob(three):
    hub, studio, _ = three
    secret = studio.deliver(b"secret", scope=scope_to(studio.core.machine))
    source = studio.deliver(DATA, "cd" * 16)
    denied(studio, source.entry, secret.artefact.sha256, hub)
    denied(studio, bytes(32), secret.artefact.sha256, hub)
    denied(studio, secret.entry, secret.artefact.sha256, hub)


@proves("node.blob-hash-is-no-capability")
def test_a_file_in_a_repository_that_is_named_like_a_blob_gives_no_blob(three):
    hub, studio, _ = three
    secret = studio.deliver(b"secret", scope=JOURNAL)
    entry = studio.finish("ef" * 16, secret.artefact, commit="c" * 40)
    denied(studio, entry.id, secret.artefact.sha256, hub)


@proves("node.blob-hash-is-no-capability")
def test_an_entry_of_ones_own_about_a_known_hash_gets_nobody_the_blob(three):
    hub, studio, laptop = three
    secret = studio.deliver(b"secret", scope=scope_to(hub.core.machine))
    bring(hub, secret)
    # The laptop heard of the hash, and says that an attempt of its own delivered that.
    forged = laptop.finish("ef" * 16, secret.artefact)
    assert hub.core.log.entry(forged.id) is not None
    for server in (studio, hub):
        call = server.ask_for(forged.id, secret.artefact.sha256, laptop)
        call = replace(call, link=next(iter(laptop.far)))
        with pytest.raises(NotFound):
            asyncio.run(server.serve_to(call))
    with pytest.raises(Unreachable):
        bring(studio, Source(secret.artefact, forged.id, laptop.core.machine))


@proves("node.blob-hash-is-no-capability")
def test_a_revoked_machine_gets_no_blob(three):
    hub, studio, laptop = three
    source = studio.deliver(DATA)
    answer = hub.one.order("revoke", "laptop", {"name": "laptop"})
    assert answer["ok"], answer
    hub.one.world.pass_ms(1_000)
    denied(studio, source.entry, source.artefact.sha256, laptop)


# --- what does not arrive whole leaves nothing ------------------------------------------------------


@proves("node.blob-whole-or-nothing")
def test_tampered_bytes_are_refused_and_nothing_is_left(three):
    hub, studio, _ = three
    source = studio.deliver(DATA)
    studio.spoil = lambda type_, raw: raw[:-1] + b"?" if type_ is Type.DATA else raw
    with pytest.raises(Forged):
        bring(hub, source)
    assert (hub.files(), hub.open, studio.open) == ([], [], [])
    studio.spoil = lambda _type, raw: raw
    bring(hub, source)
    assert hub.blobs.get(source.artefact.sha256) == DATA


@proves("node.blob-whole-or-nothing")
@pytest.mark.parametrize("extra", [b"x", b"x" * 100_000])
def test_more_bytes_than_the_entry_says_are_refused(three, extra):
    hub, studio, _ = three
    source = studio.deliver(b"short")
    studio.spoil = lambda type_, raw: raw + extra if type_ is Type.DATA else raw
    with pytest.raises(Unreachable):
        bring(hub, source)
    assert hub.files() == []


@proves("node.blob-whole-or-nothing")
def test_a_transfer_that_is_cut_is_no_blob_and_a_repeat_goes_on_where_it_ended(three):
    hub, studio, _ = three
    source = studio.deliver(DATA)
    came = cut_off(hub, studio, source)
    assert not hub.blobs.has(source.artefact.sha256)
    studio.sent.clear()
    bring(hub, source)
    assert hub.blobs.get(source.artefact.sha256) == DATA
    assert 0 < came < len(DATA)
    assert sent_by(studio) == len(DATA) - came
    assert len(hub.files()) == 2


def sent_by(desk: Desk) -> int:
    return sum(len(raw) for type_, raw in desk.sent if type_ is Type.DATA)


def cut_off(hub: Desk, studio: Desk, source: Source) -> int:
    """A transfer that is cut in the middle; returns how much of it is at the hub."""
    count = 0

    def cut(type_, raw):
        nonlocal count
        count += 1
        if count == 10:
            for desk in (hub, studio):
                for link in desk.far:
                    desk.streams.link_down(link)
        return raw

    studio.spoil = cut
    with pytest.raises(Unreachable):
        bring(hub, source)
    studio.spoil = lambda _type, raw: raw
    (left,) = hub.files()
    return (hub.blobs._folder / left).stat().st_size


@proves("node.blob-resumes")
def test_what_came_in_part_outlives_a_start_as_long_as_an_entry_names_it(three):
    hub, studio, _ = three
    source = studio.deliver(DATA)
    cut_off(hub, studio, source)
    kept = hub.files()
    strange = kept[0].replace(source.entry.hex(), "ab" * 32)
    for name in (strange, ".part-of-nothing"):
        (hub.blobs._folder / name).write_bytes(b"x")
    hub.blobs.sweep(lambda name, claim: holder.is_named(hub.core, name, claim))
    assert hub.files() == kept


@proves("node.blob-resumes")
def test_an_older_machine_begins_at_the_beginning_and_what_is_here_is_passed_over(three):
    hub, studio, _ = three
    source = studio.deliver(DATA)
    cut_off(hub, studio, source)
    handle = studio.handle

    async def older(call, stream):
        await handle(replace(call, args={k: v for k, v in call.args.items() if k != "at"}), stream)

    studio.handle = older
    studio.sent.clear()
    bring(hub, source)
    assert hub.blobs.get(source.artefact.sha256) == DATA
    assert sent_by(studio) == len(DATA)


@proves("node.blob-resumes")
def test_who_gave_other_bytes_and_left_costs_only_that_it_comes_once_more(three):
    hub, studio, _ = three
    source = studio.deliver(DATA)
    cut_off(hub, studio, source)
    (left,) = hub.files()
    lies = hub.blobs._folder / left
    for found in (b"?" * lies.stat().st_size, b"?" * len(DATA), b"?" * (len(DATA) + 1)):
        lies.write_bytes(found)
        bring(hub, source)
        assert hub.blobs.get(source.artefact.sha256) == DATA
        hub.blobs.drop(source.artefact.sha256)
        assert hub.files() == []
    assert hub.core.counters["blob-forged"] == 0


@proves("node.blob-resumes")
def test_one_that_goes_on_through_the_hub_goes_on_at_its_author_too(three):
    _, studio, laptop = three
    source = studio.deliver(DATA)
    claim = holder.entry_claim(source.entry)
    with laptop.blobs.resume(source.artefact.sha256, claim, len(DATA)) as part:
        part.write(DATA[:1_000_000])
        # Another one at the same time begins anew, and the two do not meet.
        bring(laptop, source)
        laptop.blobs.drop(source.artefact.sha256)
    studio.sent.clear()
    bring(laptop, source)
    assert laptop.blobs.get(source.artefact.sha256) == DATA
    assert sent_by(studio) == len(DATA) - 1_000_000


@proves("node.blob-resumes")
@pytest.mark.parametrize("at", [-1, 1 << 62])
def test_a_blob_from_nowhere_on_is_refused(three, at):
    hub, studio, _ = three
    source = studio.deliver(DATA)
    call = studio.ask_for(source.entry, source.artefact.sha256, hub)
    with pytest.raises(Malformed):
        asyncio.run(studio.serve_to(replace(call, args={**call.args, "at": at})))


@proves("node.blob-resumes")
def test_who_goes_on_elsewhere_than_it_was_asked_to_is_not_believed(three):
    hub, studio, _ = three
    source = studio.deliver(DATA)
    cut_off(hub, studio, source)
    studio.answer = lambda call, value, *, last=True: Desk.answer(
        studio, call, {**value, "value": {**value["value"], "at": 7}}, last=last
    )
    with pytest.raises(Unreachable):
        bring(hub, source)
    assert not hub.blobs.has(source.artefact.sha256)


@proves("node.blob-whole-or-nothing")
def test_a_transfer_in_which_nothing_moves_is_given_up(three, monkeypatch):
    hub, studio, _ = three
    monkeypatch.setattr(holder, "SILENCE_S", 0.05)
    source = studio.deliver(DATA)
    hub.spoil = lambda type_, raw: (1).to_bytes(4, "big") if type_ is Type.CREDIT else raw
    with pytest.raises(Unreachable):
        bring(hub, source)
    assert not hub.blobs.has(source.artefact.sha256)


@proves("node.blob-whole-or-nothing")
def test_a_blob_that_rotted_at_its_holder_is_not_passed_off_as_good(three):
    hub, studio, _ = three
    source = studio.deliver(DATA)
    path = studio.blobs._path(source.artefact.sha256)
    path.write_bytes(DATA[:-1] + b"?")
    with pytest.raises(Unreachable):
        bring(hub, source)
    assert hub.files() == []


@proves("node.blob-whole-or-nothing")
def test_a_blob_that_rotted_here_is_fetched_again(three):
    hub, studio, _ = three
    source = studio.deliver(DATA)
    bring(hub, source)
    hub.blobs._path(source.artefact.sha256).write_bytes(b"rot")
    bring(hub, source)
    assert hub.blobs.get(source.artefact.sha256) == DATA
    assert hub.core.counters["blob-rotted"] == 1


# --- what a start clears away ---------------------------------------------------------------------


@proves("node.blob-sweep")
def test_a_start_removes_what_no_entry_names_and_nothing_that_one_does(three):
    hub, studio, _ = three
    source = studio.deliver(DATA)
    bring(hub, source)
    lost = studio.blobs.put(b"of an attempt that never ended")
    studio.blobs.claim(lost, holder.attempt_claim("ff" * 16, (1, 1)))
    odd = studio.blobs.put(b"claimed by nothing that makes sense")
    studio.blobs.claim(odd, "entry xyz")
    (studio.blobs._folder / ".tmp-half").write_bytes(b"half")
    for desk in (hub, studio):
        desk.blobs.sweep(lambda name, claim, core=desk.core: holder.is_named(core, name, claim))
        assert list(desk.blobs) == [source.artefact.sha256]
        assert len(desk.files()) == 2
